"""Template and document to a filled instruction and an answer with ``<excerpt>`` tags, or a refusal.

In: requests, each a match with its template and its document. Out: one checked draft or rejection per request.
The document is never parsed: tags or JSON inside it are text like any other. What one may question: the slot values are
taken from the filled instruction where the model's own list does not fit it, so that both always agree.
"""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from fineinstructions.backends.llm import (
    ChatError,
    ChatModel,
    ChatRequest,
    LlmOverrides,
    chat_rejection,
    model_json,
    with_overrides,
)
from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.backends.prompt import as_input, read_prompt
from fineinstructions.backends.replies import json_reply
from fineinstructions.config import Config
from fineinstructions.markup import has_tag, slot_names
from fineinstructions.pairs.slots import align_slots
from fineinstructions.records import Document, Draft, Match, Rejection, Slot, Template, as_dict, content_id, rejection

PROMPT = Path(__file__).with_name("instantiate.prompt.txt")
PLACES = ("input", "instruction_template", "document")
"""What an instantiator prompt can be filled with: both texts inside a JSON object, or bare."""
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*\s+|\n+")


class InstantiateConfig(Config):
    """How matches become drafts."""

    model: Literal["embedded", "openai"] = "embedded"
    """Tier: the model that ships with the package, or a server."""
    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that this stage sets differently."""
    prompt: str | None = None
    """Prompt file instead of the one that ships; places: `{{input}}` (JSON with the keys of the authors' model,
    `instruction_template` and `document`), or each of the two bare."""
    max_document_chars: int = Field(default=24_000, ge=200)
    """Longest part of a document that a server is shown, in characters; a longer one is cut around the matched chunk at
    sentence borders. Ours; about 6,000 tokens of English."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to instantiate."""

    match: Match
    template: Template
    document: Document
    focus: tuple[int, int]
    """Character span of the matched coverage chunk; the whole document for the global one."""

    @property
    def record_id(self) -> str:
        """Id of the pair that this may become."""
        return content_id("p", self.document.document_id, self.template.template_id)


class Instantiator(Protocol):
    """A model that fills templates from documents, one outcome per request, in order."""

    @property
    def model(self) -> str:
        """Name, revision and prompt digest, as a JSON object."""

    def instantiate(self, requests: Iterable[Request]) -> Iterator[Draft | Rejection]:
        """Drafts, unchecked, or what became of the request instead; a refusal has the reason ``refused``."""


def instantiate(requests: Iterable[Request], instantiator: Instantiator) -> Iterator[Draft | Rejection]:
    """Turn requests into checked drafts.

    Args:
        requests: Sampled matches with their templates and documents.
        instantiator: The model.

    Yields:
        One draft or rejection per request, in order.

    Raises:
        BackendError: If the model as a whole gave up, or did not keep to the order.

    Source:
        arXiv:2601.22146, section 3.3; the checks are ours.
    """
    for request, outcome in one_to_one(requests, instantiator.instantiate, _belongs, "instantiator"):
        if isinstance(outcome, Rejection):
            yield outcome
            continue
        reason = _objection(request, outcome)
        yield rejection("instantiate", reason, request.record_id, outcome) if reason else outcome


def _belongs(request: Request, outcome: Draft | Rejection) -> bool:
    if isinstance(outcome, Rejection):
        return outcome.record_id == request.record_id
    ids = (request.document.document_id, request.template.template_id)
    return (outcome.document_id, outcome.template_id) == ids


def _objection(request: Request, draft: Draft) -> str:
    """Why a draft is turned down; empty for a good one."""
    if not draft.instruction.strip():
        return "instruction_empty"
    if has_tag(draft.instruction):
        return "instruction_has_tags"
    if not draft.answer.strip():
        return "answer_empty"
    if tuple(slot.name for slot in draft.slots) != slot_names(request.template.template):
        return "slots_do_not_fit_template"
    if not all(slot.value.strip() for slot in draft.slots):
        return "slot_empty"
    return ""


class PromptedInstantiator:
    """Instantiator that asks an instruction-following model.

    Args:
        client: The language model.
        config: The stage's settings.

    Raises:
        ConfigError: If the prompt file or an override is wrong.
    """

    def __init__(self, client: ChatModel, config: InstantiateConfig) -> None:
        self._client = client
        self._config = config
        self._llm = with_overrides(client.llm, config.llm)
        self._prompt = read_prompt(Path(config.prompt) if config.prompt else PROMPT, PLACES)

    @property
    def model(self) -> str:
        """Model, sampling and prompt digest, as a JSON object."""
        return model_json(self._llm, self._prompt)

    def instantiate(self, requests: Iterable[Request]) -> Iterator[Draft | Rejection]:
        """Drafts as the model wrote them; runs ahead by two windows.

        Raises:
            BackendError: If the server as a whole fails.
        """
        model = self.model
        for request, future in in_order(requests, self._ask, ahead=2 * self._llm.max_in_flight):
            try:
                reply = future.result()
            except ChatError as error:
                yield chat_rejection("instantiate", request.record_id, as_dict(request.match), error)
                continue
            if reply is None:
                yield rejection("instantiate", "refused", request.record_id, request.match)
            else:
                yield _draft(request, reply, model)

    def _ask(self, request: Request) -> "Future[Filled | None]":
        start, end = document_window(request.document.text, request.focus, self._config.max_document_chars)
        document = request.document.text[start:end]
        template = request.template.template
        places = {
            "input": as_input(instruction_template=template, document=document),
            "instruction_template": template,
            "document": document,
        }
        return self._client.ask(ChatRequest(self._prompt.fill(places), SCHEMA, self._llm), parse_reply)


@dataclass(frozen=True, slots=True)
class Filled:
    """An instantiator's reply."""

    instruction: str
    answer: str
    values: tuple[str, ...]
    """Slot values as the model lists them; may be missing or wrong."""
    raw: str


def _draft(request: Request, reply: Filled, model: str) -> Draft:
    template = request.template.template
    names = slot_names(template)
    listed = reply.values if len(reply.values) == len(names) else ()
    folded = " ".join(reply.instruction.split()).casefold()
    if not listed or not all(" ".join(value.split()).casefold() in folded for value in listed):
        listed = align_slots(template, reply.instruction) or ()
    return Draft(
        document_id=request.document.document_id,
        template_id=request.template.template_id,
        chunk=request.match.chunk,
        cosine=request.match.cosine,
        instruction=reply.instruction,
        answer=reply.answer,
        slots=tuple(Slot(name, value) for name, value in zip(names, listed, strict=False)),
        model=model,
        raw=reply.raw,
    )


SCHEMA = {
    "type": "object",
    "properties": {
        "instruction": {"type": ["string", "null"]},
        "answer": {"type": ["string", "null"]},
        "slots": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["instruction", "answer", "slots"],
    "additionalProperties": False,
}
"""Schema of a reply; nulls are a refusal, because strict servers accept only an object at the top."""


def parse_reply(text: str) -> Filled | None:
    """An instantiator's reply, or None for a refusal (``null``, or null for instruction and answer).

    Raises:
        ValueError: If the reply is neither.

    Example:
        >>> parse_reply("null") is None
        True
        >>> parse_reply('{"instruction": "Why?", "answer": "So.", "slots": {"topic": "rain"}}').values
        ('rain',)
    """
    reply = json_reply(text, ("instruction", "answer"), null=True)
    if reply is None or (reply["instruction"] is None and reply["answer"] is None):
        return None
    instruction, answer = reply["instruction"], reply["answer"]
    if not isinstance(instruction, str) or not isinstance(answer, str):
        raise ValueError("instruction and answer must be text")
    return Filled(instruction.strip(), answer.strip(), _listed_values(reply.get("slots")), text)


def _listed_values(slots: object) -> tuple[str, ...]:
    """Slot values of a list of ``{name, value}`` objects, a list of texts, or an object from name to value."""
    items: list[Any] = list(slots.values()) if isinstance(slots, dict) else slots if isinstance(slots, list) else []
    values = [item.get("value") if isinstance(item, dict) else item for item in items]
    texts = tuple(value.strip() for value in values if isinstance(value, str))
    return texts if len(texts) == len(values) and all(texts) else ()


def document_window(text: str, focus: tuple[int, int], max_chars: int) -> tuple[int, int]:
    """The part of a document to show a model: all of it, or a window around its focus, at sentence borders.

    Args:
        text: The document.
        focus: Half-open character span that must be in the middle of the window.
        max_chars: Longest window in characters.

    Returns:
        Half-open character span, never longer than `max_chars`.

    Example:
        >>> text = "One is here. Two is there. Three is nowhere. Four is everywhere."
        >>> start, end = document_window(text, (27, 44), 40)
        >>> text[start:end]
        'Three is nowhere. '
    """
    if len(text) <= max_chars:
        return 0, len(text)
    middle = min((focus[0] + focus[1]) // 2, len(text) - 1)
    start = min(max(0, middle - max_chars // 2), len(text) - max_chars)
    end = start + max_chars
    borders = [found.end() for found in _SENTENCE_END.finditer(text, start, end)]
    first = next((border for border in borders if border <= min(focus[0], middle)), start) if start else 0
    last = next((border for border in reversed(borders) if border > middle), end) if end < len(text) else end
    return first, last
