"""Match to a verdict on whether the document can answer what the template asks, and where the answer begins.

In: requests, each a match with its template and its document. Out: per request one verdict, yes or no, or a rejection.
The decision a reader would question: a "no" is a result and not a rejection, because the near misses of an index are
what an embedder learns from and what an instantiator learns to refuse. Only `screen`, which stands before an
instantiator, turns it into one.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

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
from fineinstructions.backends.metered import AsksModel
from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.backends.prompt import as_input, find_prompt, read_prompt
from fineinstructions.backends.replies import json_reply
from fineinstructions.config import Config
from fineinstructions.pairs.instantiate import Request
from fineinstructions.pairs.locate import SourceText
from fineinstructions.pairs.window import document_window
from fineinstructions.records import Compatibility, Rejection, as_dict, rejection

PROMPT = Path(__file__).with_name("compatibility.prompt.txt")
SCREEN = "screen"
"""Stage that turns matches away before their templates are filled."""
PLACES = ("input", "instruction_template", "compatible_document_description", "document")
"""What a compatibility prompt can be filled with: all texts inside a JSON object, or bare."""


class CompatibilityConfig(Config):
    """Who says whether a document can answer a template; asked by `distill`, and by `run` where `screen` says so."""

    model: Literal["embedded", "openai"] = "embedded"
    """Tier: the rules that ship with the package, or a server."""
    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that this stage sets differently."""
    prompt: str | None = None
    """Prompt file instead of the one that ships; places: `{{input}}` (JSON), `{{instruction_template}}`,
    `{{compatible_document_description}}`, `{{document}}`."""
    max_document_chars: int = Field(default=24_000, ge=200)
    """Longest part of a document that a server is shown, in characters, around the chunk that was found. Ours."""
    screen: bool = False
    """Whether every match is asked about before its template is filled, and not filled where the answer is no. Ours:
    not, because it costs one more request with the document for every match; an instantiator can refuse by itself, and
    in the paper (section 3.2) the encoder has learned what is compatible."""


class CompatibilityJudge(Protocol):
    """A model that says whether documents can answer templates, one outcome per request, in order."""

    @property
    def model(self) -> str:
        """Name, revision and prompt digest, as a JSON object."""

    def judge(self, requests: Iterable[Request]) -> Iterator[Compatibility | Rejection]:
        """Verdicts, or what became of the request instead."""


def compatibility(requests: Iterable[Request], judge: CompatibilityJudge) -> Iterator[Compatibility | Rejection]:
    """Say of every match whether its document can answer its template.

    Args:
        requests: Matches with their templates and documents.
        judge: The model.

    Yields:
        One verdict or rejection per request, in order.

    Raises:
        BackendError: If the model as a whole gave up, or did not keep to the order.

    Source:
        arXiv:2601.22146, section 3.2: labels come from a language model; what it is asked is ours.
    """
    for _, outcome in one_to_one(requests, judge.judge, _belongs, "compatibility judge"):
        yield outcome


def screen(requests: Iterable[Request], judge: CompatibilityJudge) -> Iterator[Request | Rejection]:
    """Let through what the judge calls compatible.

    Args:
        requests: Matches with their templates and documents.
        judge: The model.

    Yields:
        The request, or a rejection, for each in order; reasons: ``incompatible``, with what the judge says in its
        record, and those of a judge that said neither yes nor no.

    Raises:
        BackendError: If the model as a whole gave up, or did not keep to the order.

    Source:
        Ours.
    """
    for request, outcome in one_to_one(requests, judge.judge, _belongs, "compatibility judge"):
        if isinstance(outcome, Rejection):
            yield replace(outcome, stage=SCREEN)
        elif outcome.compatible:
            yield request
        else:
            yield rejection(SCREEN, "incompatible", request.record_id, outcome)


def _belongs(request: Request, outcome: Compatibility | Rejection) -> bool:
    if isinstance(outcome, Rejection):
        return outcome.record_id == request.record_id
    return (outcome.document_id, outcome.template_id) == (request.document.document_id, request.template.template_id)


class PromptedCompatibilityJudge(AsksModel):
    """Compatibility judge that asks an instruction-following model.

    Args:
        client: Connection to the server.
        config: The stage's settings.

    Raises:
        ConfigError: If the prompt file or an override is wrong.
    """

    def __init__(self, client: ChatModel, config: CompatibilityConfig) -> None:
        self._client = client
        self._config = config
        self._llm = with_overrides(client.llm, config.llm)
        self._prompt = read_prompt(find_prompt(config.prompt, PROMPT), PLACES)

    @property
    def model(self) -> str:
        """Model, sampling and prompt digest, as a JSON object."""
        return model_json(self._llm, self._prompt)

    def judge(self, requests: Iterable[Request]) -> Iterator[Compatibility | Rejection]:
        """Verdicts as the model gave them; runs ahead by two windows.

        Raises:
            BackendError: If the server as a whole fails.
        """
        model = self.model
        for request, future in in_order(requests, self._ask, ahead=self._llm.ahead):
            try:
                verdict = future.result()
            except ChatError as error:
                facts = as_dict(request.match)
                yield chat_rejection("compatibility", request.record_id, facts, error, format_reason="unparseable")
                continue
            yield _record(request, verdict, _place(request, verdict.quote), model)

    def _ask(self, request: Request) -> "Future[CompatibilityVerdict]":
        start, end = document_window(request.document.text, request.focus, self._config.max_document_chars)
        values = {
            "instruction_template": request.template.template,
            "compatible_document_description": request.template.compatible_document_description,
            "document": request.document.text[start:end],
        }
        messages = self._prompt.fill({**values, "input": as_input(**values)})
        return self._client.ask(ChatRequest(messages, SCHEMA, self._llm), parse_compatibility)


@dataclass(frozen=True, slots=True)
class CompatibilityVerdict:
    """What a judge says about one template and one document."""

    compatible: bool
    reason: str
    quote: str = ""
    """First words of the answer in the document; empty where the judge names none."""


def _record(
    request: Request, verdict: CompatibilityVerdict, place: tuple[int, int] | None, model: str
) -> Compatibility:
    """The record of a verdict.

    Args:
        request: What was asked.
        verdict: What was said.
        place: Character span of the words that the judge quoted; ``None`` where there are none.
        model: The judge.
    """
    start, end = place if place is not None and verdict.compatible else (-1, -1)
    return Compatibility(
        document_id=request.document.document_id,
        template_id=request.template.template_id,
        chunk=request.match.chunk,
        cosine=request.match.cosine,
        compatible=verdict.compatible,
        reason=verdict.reason,
        quote_start=start,
        quote_end=end,
        model=model,
    )


def _place(request: Request, quote: str) -> tuple[int, int] | None:
    """The one place of a quotation in its document; ``None`` where there is none, or more than one."""
    if not quote:
        return None
    source = SourceText(request.document.text)
    found = list(islice(source.exact_spans(quote, None), 2)) or list(islice(source.tolerant_spans(quote, None), 2))
    return found[0] if len(found) == 1 else None


SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "quote": {"type": "string"}, "compatible": {"type": "boolean"}},
    "required": ["reason", "quote", "compatible"],
    "additionalProperties": False,
}
"""Schema of a reply; the reason stands before the verdict, so that a model thinks before it decides."""


def parse_compatibility(text: str) -> CompatibilityVerdict:
    """A judge's reply.

    Raises:
        ValueError: If it does not say true or false: anything else is no verdict, and never a "no".

    Example:
        >>> parse_compatibility('{"reason": "It names the dose.", "quote": "Take two", "compatible": true}').compatible
        True
    """
    reply = json_reply(text, ("compatible",))
    if reply is None or not isinstance(reply["compatible"], bool):
        raise ValueError("compatible must be true or false")
    reason, quote = (reply.get(name) for name in ("reason", "quote"))
    said = [value.strip() if isinstance(value, str) else "" for value in (reason, quote)]
    return CompatibilityVerdict(reply["compatible"], *said)
