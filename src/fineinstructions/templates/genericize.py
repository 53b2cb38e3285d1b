"""Query to instruction template and compatible document description.

In: cleaned queries. Out: one checked draft or rejection per query. Every draft is checked here, whichever model
made it, so that no model can put an unbalanced, empty, personal or merely copied template into a bank.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
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
from fineinstructions.backends.prompt import PUBLISHED, Message, Prompt, as_input, find_prompt, read_prompt
from fineinstructions.backends.replies import json_reply
from fineinstructions.config import Config
from fineinstructions.markup import SlotSegment, has_tag, parse_template
from fineinstructions.pii import scrub
from fineinstructions.records import Query, Rejection, TemplateDraft, as_dict, rejection

PROMPT = Path(__file__).with_name("genericize.prompt.txt")
PLACES = ("input", "query")
"""What a genericizer prompt can be filled with: the query inside a JSON object, or bare."""


class GenericizeConfig(Config):
    """How queries become templates."""

    model: Literal["embedded", "openai"] = "embedded"
    """Tier: the model that ships with the package, or a server."""
    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that this stage sets differently."""
    prompt: str | None = None
    """Prompt instead of the default: ``published`` for the authors' `query_templatizer` and students like it (the bare
    query, no schema), or a file; places: `{{input}}` (JSON) or `{{query}}`."""
    min_slots: int = Field(default=1, ge=1)
    """Fewest slots of a template. Ours: without one it is no template."""
    max_slots: int = Field(default=20, ge=1)
    """Most slots of a template. Ours; the paper (section 6.3) calls templates of ten or more hard to match and fill."""
    max_template_chars: int = Field(default=4000, ge=1)
    """Longest template in characters. Ours."""
    max_description_chars: int = Field(default=1000, ge=1)
    """Longest compatible document description in characters. Ours."""


class Genericizer(Protocol):
    """A model that turns queries into template drafts, one outcome per query, in order."""

    @property
    def model(self) -> str:
        """Name, revision and prompt digest, as a JSON object."""

    def genericize(self, queries: Iterable[Query]) -> Iterator[TemplateDraft | Rejection]:
        """Drafts, unchecked, or what became of the query instead."""


def genericize(
    queries: Iterable[Query], genericizer: Genericizer, config: GenericizeConfig
) -> Iterator[TemplateDraft | Rejection]:
    """Turn queries into checked template drafts.

    Args:
        queries: Cleaned queries.
        genericizer: The model.
        config: Limits.

    Yields:
        One draft or rejection per query, in order.

    Raises:
        BackendError: If the model as a whole gave up, or did not keep to the order.

    Source:
        arXiv:2601.22146, section 3.1; the checks are ours.
    """
    for query, outcome in one_to_one(queries, genericizer.genericize, _belongs, "genericizer"):
        if isinstance(outcome, Rejection):
            yield outcome
            continue
        reason, value = _objection(query, outcome, config)
        yield rejection("genericize", reason, query.query_id, _scrubbed(outcome), value) if reason else outcome


def _belongs(query: Query, outcome: TemplateDraft | Rejection) -> bool:
    return query.query_id == (outcome.record_id if isinstance(outcome, Rejection) else outcome.query_id)


def _objection(query: Query, draft: TemplateDraft, config: GenericizeConfig) -> tuple[str, float | None]:
    """Why a draft is turned down, and the number that decided; an empty reason for a good one."""
    template, description = draft.template, draft.compatible_document_description
    if len(template) > config.max_template_chars:
        return "template_too_long", float(len(template))
    try:
        segments = parse_template(template)
    except ValueError:
        return "slots_malformed", None
    names = [segment.name for segment in segments if isinstance(segment, SlotSegment)]
    words = "".join(segment.text for segment in segments if not isinstance(segment, SlotSegment))
    if len(names) < config.min_slots:
        return "too_few_slots", float(len(names))
    if len(names) > config.max_slots:
        return "too_many_slots", float(len(names))
    if has_tag(words) or any(has_tag(name) for name in names):
        return "slots_malformed", None
    if not re.search(r"\w", words):
        return "nothing_outside_slots", None
    if _folded(re.sub(r"</?fi>", "", template)) == _folded(query.text):
        return "not_generic", None
    if not description.strip():
        return "description_missing", None
    if len(description) > config.max_description_chars:
        return "description_too_long", float(len(description))
    if has_tag(description):
        return "description_has_tags", None
    if scrub(template)[1] or scrub(description)[1]:
        return "pii", None
    return "", None


def _scrubbed(draft: TemplateDraft) -> TemplateDraft:
    """A draft as it may be filed: without personal data, whatever it is turned down for."""
    template, description = scrub(draft.template)[0], scrub(draft.compatible_document_description)[0]
    return replace(draft, template=template, compatible_document_description=description)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


class PromptedGenericizer(AsksModel):
    """Genericizer that asks an instruction-following model.

    Args:
        client: The language model.
        config: The stage's settings.

    Raises:
        ConfigError: If the prompt file or an override is wrong.
    """

    def __init__(self, client: ChatModel, config: GenericizeConfig) -> None:
        self._client = client
        self._llm = with_overrides(client.llm, config.llm)
        self._prompt = read_prompt(find_prompt(config.prompt, PROMPT), PLACES)
        self._schema = None if config.prompt == PUBLISHED else SCHEMA

    @property
    def model(self) -> str:
        """Model, sampling and prompt digest, as a JSON object."""
        return model_json(self._llm, self._prompt)

    def genericize(self, queries: Iterable[Query]) -> Iterator[TemplateDraft | Rejection]:
        """Drafts as the model wrote them; runs ahead by two windows.

        Raises:
            BackendError: If the server as a whole fails.
        """
        for query, future in in_order(queries, self._ask, ahead=self._llm.ahead):
            try:
                written = future.result()
            except ChatError as error:
                yield chat_rejection("genericize", query.query_id, as_dict(query), error)
                continue
            if written is None:
                yield rejection("genericize", "refused", query.query_id, query)
            else:
                yield TemplateDraft(query.query_id, *written, source=query.source, licence=query.licence)

    def _ask(self, query: Query) -> "Future[tuple[str, str] | None]":
        messages = self._prompt.fill({"input": as_input(query=query.text), "query": query.text})
        return self._client.ask(ChatRequest(messages, self._schema, self._llm), parse_reply)


def published_messages(query: str) -> tuple[Message, ...]:
    """What the authors' genericizer, or a student like it, is asked: the bare query.

    Source:
        Model card of ``fineinstructions/query_templatizer``, as others report it.
    """
    return _published_prompt().fill({"input": as_input(query=query), "query": query})


@functools.cache
def _published_prompt() -> Prompt:
    return read_prompt(find_prompt(PUBLISHED, PROMPT), PLACES)


def published_reply(template: str, description: str) -> str:
    """What a student answers: a JSON object with the two keys of the authors' genericizer that are known."""
    return json.dumps({"template": template, "compatible_document_description": description}, ensure_ascii=False)


SCHEMA = {
    "type": "object",
    "properties": {
        "template": {"type": ["string", "null"]},
        "compatible_document_description": {"type": ["string", "null"]},
    },
    "required": ["template", "compatible_document_description"],
    "additionalProperties": False,
}
"""Schema of a reply; two nulls are a refusal, because strict servers accept only an object at the top. Not sent
with the published prompt: a student has learnt its own format, and holding it to another costs quality."""
ALIASES = {
    "template": ("instruction_template", "query_template"),
    "compatible_document_description": ("document_description", "description"),
}
"""Other names of the keys of a reply. The authors' model has the first ones; what else it writes is not known."""


def parse_reply(text: str) -> tuple[str, str] | None:
    """Template and description of a genericizer's reply, or None where it is ``null`` or both are.

    Raises:
        ValueError: If the reply is neither.

    Example:
        >>> parse_reply('{"template": "Who is <fi>a person</fi>?", "compatible_document_description": "A biography."}')
        ('Who is <fi>a person</fi>?', 'A biography.')
    """
    reply = json_reply(text, ("template", "compatible_document_description"), null=True, aliases=ALIASES)
    if reply is None:
        return None
    template, description = reply["template"], reply["compatible_document_description"]
    if template is None and description is None:
        return None
    if not isinstance(template, str) or not isinstance(description, str):
        raise ValueError("template and compatible_document_description must be text")
    return template.strip(), description.strip()
