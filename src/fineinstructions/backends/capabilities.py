"""What a model can be asked for: replies of a schema, log-probabilities, how long a text. Found by trying.

In: a way to ask one model. Out: `Capabilities`. The decision to question: a server's word is not enough, because some
accept a schema and ignore it. So a model is asked for a plain word while JSON is demanded: a reply in JSON shows that
the demand was enforced. No answer at all decides nothing: what a model can do must not depend on the moment.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fineinstructions.backends.completion import ChatError, Completion
from fineinstructions.backends.llm_config import LlmConfig, Structured
from fineinstructions.backends.logprobs import REQUEST_FIELDS
from fineinstructions.backends.prompt import Message
from fineinstructions.backends.structured import WAYS, structured_fields

Ask = Callable[[Sequence[Message], Mapping[str, Any]], Awaitable[Completion]]
"""Asks the model itself, never a store of replies: messages, and further fields of the body."""

FORCED = {"probe": "zyxt"}
"""What no model says of itself."""
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"probe": {"type": "string", "enum": ["zyxt"]}},
    "required": ["probe"],
    "additionalProperties": False,
}
_ADDED = re.compile(r"(?:[-:@]latest|\.gguf|\.safetensors)$")
"""What servers add to a name without meaning another model."""
_SNAPSHOT = re.compile(r"[-@:](?:\d{4}-\d{2}(?:-\d{2})?|\d{3,8})")
"""What names a snapshot: ``-2024-08-06``, ``-0613``, ``@20241022``; two digits or fewer may be a size or a version."""
_PLAIN_WORD = (("system", "Reply with the single word ready and nothing else, not with JSON."), ("user", "Go."))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an engine says of a model without asking it anything."""

    served_as: str = ""
    """Name of the model as the server gives it; empty where it does not."""
    context_tokens: int | None = None
    """Longest prompt and reply together; ``None`` where nobody knows."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one model can be asked for."""

    structured: Structured
    """How it holds replies to a schema."""
    logprobs: bool
    """Whether it gives log-probabilities when asked for them."""
    context_tokens: int | None
    """Longest prompt and reply together; ``None`` where nobody knows."""
    served_as: str = ""
    """Name of the model as the server's list of models gives it; empty where it does not."""
    answers_as: str = ""
    """Name of the model that answered, as its replies give it; empty where they do not."""


def model_key(llm: LlmConfig) -> str:
    """Which model is meant, and how it is held to a schema: two stages with the same key ask the same one alike."""
    if llm.serve is not None:
        place = f"serve {llm.serve.model} {llm.revision}"
    else:
        place = " ".join(llm.addresses) if llm.engine == "server" else str(llm.revision)
    return f"{llm.engine} {place} {llm.model} {llm.structured}"


def is_another(asked: str, named: str) -> bool:
    """Whether a model that was asked by one name calls itself by another.

    Names are the same model's where they are equal, or where one of them only adds the date or number of a snapshot.
    What goes on with a word or a size is another model, and so is another snapshot. Gateways put words and a slash
    before a name, servers ``latest`` or the ending of a file behind it; case means nothing.

    Example:
        >>> is_another("openai/gpt-4o", "gpt-4o-2024-08-06"), is_another("gpt-4o", "gpt-4o-mini"), is_another("m", "")
        (False, True, False)
    """
    if not named:
        return False
    mine, theirs = (_ADDED.sub("", name.lower().rstrip("/").rpartition("/")[2]) for name in (asked, named))
    short, long = sorted((mine, theirs), key=len)
    return not (long.startswith(short) and (long == short or _SNAPSHOT.fullmatch(long[len(short) :])))


async def find_structured(ask: Ask) -> Structured:
    """How a server holds a reply to a schema.

    Raises:
        ChatError: If no reply came through.
    """
    for way in WAYS[:-1]:
        try:
            reply = json.loads((await ask(_PLAIN_WORD, structured_fields(way, PROBE_SCHEMA))).text)
        except ValueError:
            continue
        except ChatError as error:
            if error.kind == "transport":
                await _require_answer(
                    ask, error, "; asked whether it holds replies to a schema; llm.structured: none skips the question"
                )
            continue
        if isinstance(reply, dict) and (way == "object" or reply == FORCED):
            return way
    return "none"


async def _require_answer(ask: Ask, error: ChatError, hint: str = "") -> None:
    """Servers exist that fall over a demand they do not know; one that answers without it is such a server."""
    try:
        await ask(_PLAIN_WORD, {})
    except ChatError as again:
        if again.kind == "transport":
            raise ChatError("transport", f"{error}{hint}") from None


async def find_logprobs(ask: Ask) -> bool:
    """Whether a server gives log-probabilities; one that refuses, ignores or falls over the question does not.

    Raises:
        ChatError: If no reply came through.
    """
    try:
        completion = await ask(_PLAIN_WORD, REQUEST_FIELDS)
    except ChatError as error:
        if error.kind == "transport":
            await _require_answer(ask, error)
        return False
    return completion.logprobs is not None


def listed_facts(model: str, listed: Sequence[Mapping[str, Any]]) -> ModelFacts:
    """What a server's list of models says of one of them.

    Args:
        model: Name as the recipe gives it. A server with a single model may know it by another.
        listed: Entries of the list.

    Example:
        >>> listed_facts("m", [{"id": "m", "root": "/models/m-8b", "max_model_len": 4096}])
        ModelFacts(served_as='/models/m-8b', context_tokens=4096)
    """
    named = [entry for entry in listed if entry.get("id") == model] or (listed if len(listed) == 1 else [])
    if not named:
        return ModelFacts()
    entry = named[0]
    limits = [entry.get(name) for name in ("max_model_len", "context_length")]
    known = [limit for limit in limits if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    return ModelFacts(str(entry.get("root") or entry.get("id") or ""), known[0] if known else None)
