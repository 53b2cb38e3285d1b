"""Template and document to a filled instruction and an answer with ``<excerpt>`` tags, or a refusal.

In: requests, each a match with its template and its document. Out: one checked draft or rejection per request.
The document is never parsed: tags or JSON inside it are text like any other. What one may question: the slot values are
taken from the filled instruction where the model's own list does not fit it, so that both always agree.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from fineinstructions.backends.llm import (
    ChatError,
    ChatModel,
    ChatReply,
    ChatRequest,
    LlmOverrides,
    chat_rejection,
    model_json,
    with_overrides,
)
from fineinstructions.backends.metered import AsksModel
from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.backends.prompt import PUBLISHED, Message, Prompt, as_input, find_prompt, read_prompt
from fineinstructions.backends.tokens import estimated_tokens, token_counter
from fineinstructions.config import Config
from fineinstructions.markup import has_tag, slot_names
from fineinstructions.pairs.excerpts import ExcerptsConfig, Fault, find_fault
from fineinstructions.pairs.filled import SCHEMA, Filled, parse_reply
from fineinstructions.pairs.slots import align_slots
from fineinstructions.pairs.window import MIN_WINDOW_CHARS, document_window, fitting_window, require_room, room_tokens
from fineinstructions.records import (
    Document,
    Draft,
    Match,
    Rejection,
    Slot,
    Template,
    as_dict,
    content_id,
    rejection,
    to_json,
)

PROMPT = Path(__file__).with_name("instantiate.prompt.txt")
PLACES = ("input", "instruction_template", "document")
"""What an instantiator prompt can be filled with: both texts inside a JSON object, or bare."""
MAX_HALVINGS = 3
"""How often a document is halved before a request counts as too long."""


class InstantiateConfig(Config):
    """How matches become drafts."""

    model: Literal["embedded", "openai"] = "embedded"
    """Tier: the model that ships with the package, or a server."""
    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that this stage sets differently."""
    prompt: str | None = None
    """Prompt instead of the default: ``published`` for the authors' `template_instantiator` and students like it
    (`{{input}}` alone, no schema), or a file; places: `{{input}}` (JSON with the keys of the authors' model,
    `instruction_template` and `document`), or each of the two bare."""
    max_document_chars: int = Field(default=24_000, ge=200)
    """Longest part of a document that a server is shown, in characters; a longer one is cut around the matched chunk at
    sentence borders. Where `llm.context_tokens` is set, what is left of it holds too. Ours; about 6,000 tokens of
    English."""
    max_repairs: int = Field(default=0, ge=0, le=3)
    """How often a model is asked again to mend an excerpt that stands nowhere or in several places, or an answer that
    quotes too little. Ours: never, because each costs a request and the reply a whole answer."""


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
        draft = outcome if outcome.generated_tokens else replace(outcome, generated_tokens=_written_tokens(outcome))
        reason = _objection(request, draft)
        yield rejection("instantiate", reason, request.record_id, draft) if reason else draft


def _written_tokens(draft: Draft) -> int:
    """What a model would have generated for a draft, or did without telling how much."""
    return estimated_tokens(draft.raw or f"{draft.instruction} {draft.answer}")


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


class PromptedInstantiator(AsksModel):
    """Instantiator that asks an instruction-following model.

    A request that turns out too long for the model is made again with half of the document, and once more with half of
    that; where `max_repairs` allows it, a reply whose excerpts cannot be found is sent back with the reason.

    Args:
        client: The language model.
        config: The stage's settings.
        excerpts: What an answer has to keep to; decides what is repaired.

    Raises:
        ConfigError: If the prompt file or an override is wrong, or the prompt leaves no room for a document.
    """

    def __init__(self, client: ChatModel, config: InstantiateConfig, excerpts: ExcerptsConfig | None = None) -> None:
        self._client = client
        self._config = config
        self._excerpts = excerpts or ExcerptsConfig()
        self._llm = with_overrides(client.llm, config.llm)
        self._prompt = read_prompt(find_prompt(config.prompt, PROMPT), PLACES)
        self._schema = None if config.prompt == PUBLISHED else SCHEMA
        self._count = token_counter(self._llm.tokenizer)
        if self._llm.context_tokens is not None and self._room_tokens is not None:
            require_room(self._room_tokens, self._llm, self._count)  # told before any work

    @functools.cached_property
    def _room_tokens(self) -> int | None:
        """Tokens for a template and a document, by the setting or what the model says; ``None`` where nobody knows."""
        context = self._llm.context_tokens or self._client.context_tokens(self._llm)
        prompt = self._prompt.system + self._prompt.user
        return None if context is None else room_tokens(context, self._llm, prompt, self._count)

    @property
    def model(self) -> str:
        """Model, sampling and prompt digest, and what cuts a document to fit, as a JSON object."""
        cut = {"context_tokens": self._llm.context_tokens, "tokenizer": self._llm.tokenizer}
        set_here = {name: value for name, value in cut.items() if value is not None}
        return to_json({**json.loads(model_json(self._llm, self._prompt)), **set_here})

    def instantiate(self, requests: Iterable[Request]) -> Iterator[Draft | Rejection]:
        """Drafts as the model wrote them; runs ahead by two windows.

        Raises:
            BackendError: If the server as a whole fails.
        """
        model = self.model
        asked = in_order(requests, self._ask, ahead=self._llm.ahead)
        for halvings in range(1, MAX_HALVINGS + 1):
            asked = self._asked_with_less(asked, halvings)
        for _ in range(self._config.max_repairs):
            asked = self._repaired(asked)
        for request, future in asked:
            try:
                reply = future.result()
            except ChatError as error:
                yield chat_rejection("instantiate", request.record_id, as_dict(request.match), error)
                continue
            if reply is None:
                yield rejection("instantiate", "refused", request.record_id, request.match)
            else:
                yield _draft(request, reply, model)

    def _ask(self, request: Request, halvings: int = 0) -> "Asked":
        text, template = request.document.text, request.template.template
        room = None if self._room_tokens is None else self._room_tokens - self._count(as_input(template=template))
        window = fitting_window(text, request.focus, self._config.max_document_chars, room, self._count)
        if window is None:
            failed: Future[Filled | None] = Future()
            failed.set_exception(ChatError("too_long", "prompt and template leave no room for the document"))
            return failed
        start, end = document_window(text, request.focus, (window[1] - window[0]) >> halvings) if halvings else window
        return self._send(self._prompt.fill(_places(template, text[start:end])))

    def _send(self, messages: tuple[Message, ...], before: "Filled | None" = None) -> "Asked":
        """Ask for a reply, in the place of one that came before."""

        def parse(reply: ChatReply) -> Filled | None:
            found = parse_reply(reply.text)
            if found is None:
                return None
            tokens, repairs = (before.generated_tokens, before.repairs + 1) if before else (0, 0)
            counted = reply.completion_tokens or estimated_tokens(reply.text)
            return replace(found, generated_tokens=tokens + counted, repairs=repairs, messages=messages)

        return self._client.ask_whole(ChatRequest(messages, self._schema, self._llm), parse)

    def _asked_with_less(self, asked: "Iterable[Tried]", halvings: int) -> "Iterator[Tried]":
        """The same, but requests that were too long are made again with a shorter document."""

        def again(tried: Tried) -> Asked:
            request, future = tried
            error = future.exception()
            too_long = isinstance(error, ChatError) and error.kind == "too_long"
            enough = len(request.document.text) >> halvings >= MIN_WINDOW_CHARS
            return self._ask(request, halvings) if too_long and enough else future

        for (request, _), future in in_order(asked, again, ahead=self._llm.ahead):
            yield request, future

    def _repaired(self, asked: "Iterable[Tried]") -> "Iterator[Tried]":
        """The same, but replies with a fault are sent back; where nothing usable returns, the first reply counts."""

        def mend(tried: Tried) -> Asked:
            request, future = tried
            reply = None if future.exception() else future.result()
            fault = reply and self._fault(request, reply)
            if reply is None or not fault:
                return future
            return self._send((*reply.messages, ("assistant", reply.raw), ("user", fault.line)), reply)

        for (request, first), second in in_order(asked, mend, ahead=self._llm.ahead):
            error = second.exception()
            lost = isinstance(error, ChatError) and error.kind not in ("transport", "request", "pending")
            yield request, first if lost or (error is None and second.result() is None) else second

    def _fault(self, request: Request, reply: "Filled") -> Fault | None:
        return find_fault(_draft(request, reply, ""), request.document.text, self._excerpts, request.focus)


def _places(template: str, document: str) -> dict[str, str]:
    together = as_input(instruction_template=template, document=document)
    return {"input": together, "instruction_template": template, "document": document}


def published_messages(template: str, document: str) -> tuple[Message, ...]:
    """What the authors' instantiator, or a student like it, is asked: a JSON object with template and document.

    Source:
        Model card of ``fineinstructions/template_instantiator``, as others report it.
    """
    return _published_prompt().fill(_places(template, document))


@functools.cache
def _published_prompt() -> Prompt:
    return read_prompt(find_prompt(PUBLISHED, PROMPT), PLACES)


def published_reply(instruction: str, answer: str) -> str:
    """What a student answers where it does not refuse: a JSON object; a refusal is `PUBLISHED_REFUSAL`.

    Source:
        The key names are ours: those of the authors' model are not known.
    """
    return json.dumps({"instruction": instruction, "answer": answer}, ensure_ascii=False)


PUBLISHED_REFUSAL = "null"
"""What a student answers where the document cannot fill the template. Paper, section 3.3."""


Asked = Future[Filled | None]
Tried = tuple[Request, Asked]


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
        generated_tokens=reply.generated_tokens,
        repairs=reply.repairs,
    )
