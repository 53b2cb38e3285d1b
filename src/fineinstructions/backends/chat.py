"""What a stage says to a language model, and what it hears: one interface, whatever runs the model.

In: `ChatRequest`s. Out: futures of what a parser makes of the reply. `fineinstructions.backends.llm.ChatClient`
implements it; which engine it has underneath is one key of a recipe, ``llm.engine``, and no stage knows.
"""

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fineinstructions.backends.capabilities import ModelFacts
from fineinstructions.backends.completion import ChatError, Completion
from fineinstructions.backends.llm_config import LlmConfig, Structured
from fineinstructions.backends.logprobs import TokenLogprob
from fineinstructions.backends.meter import Meter
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.backends.prompt import Message, Prompt
from fineinstructions.config import to_plain
from fineinstructions.errors import BackendError
from fineinstructions.records import Rejection, failure, rejection, to_json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    """JSON schema of the reply, for servers that can hold the model to it."""
    llm: LlmConfig | None = None
    """Server and model; None for the client's own."""
    logprobs: bool = False
    """Whether to ask for the log-probabilities of the reply's tokens; a server without them replies all the same."""
    may_be_cut: bool = False
    """Whether a reply that ends at ``max_tokens`` is a reply, and not the trouble ``length``."""
    meter: Meter | None = field(default=None, compare=False)
    """Counts the replies, where somebody wants to know."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model said."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of every generated token; None where they were not asked for or the server gives none."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client has used so far."""

    calls: int = 0
    """Requests made, retries and re-asks included: over HTTP, to the model in this process, or into a batch file."""
    retries: int = 0
    cached: int = 0
    """Replies that came from the cache."""
    reasks: int = 0
    """Replies that did not parse and were sent back."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    peak_in_flight: int = 0
    """Most requests under way at once at one server, or in one batch."""


class ChatModel(Protocol):
    """A language model as the stages see it."""

    @property
    def llm(self) -> LlmConfig:
        """Model of requests that do not say otherwise."""
        ...

    def ask(self, request: ChatRequest, parse: Callable[[str], T]) -> "Future[T]":
        """A future of the parsed reply; a reply that does not parse is asked for again, a bounded number of times."""
        ...

    def ask_whole(self, request: ChatRequest, parse: Callable[[ChatReply], T]) -> "Future[T]":
        """Like `ask`, for a parser that needs more of the reply than its text."""
        ...

    def context_tokens(self, llm: LlmConfig | None = None) -> int | None:
        """Longest prompt and reply together, in tokens of the model; ``None`` where nobody knows."""
        ...

    def usage(self) -> Usage:
        """What was used so far."""
        ...

    def close(self) -> None:
        """Cancel what is under way and let go of everything."""
        ...


class ChatEngine(Protocol):
    """What completes request bodies, underneath the client; used on the client's event loop only."""

    fixed: tuple[Structured, bool] | None
    """How replies are held to a schema and whether there are log-probabilities; ``None`` where it has to be tried."""

    async def complete(self, body: Mapping[str, Any], llm: LlmConfig, key: str) -> Completion:
        """Complete one request, retries included.

        Args:
            body: The whole request.
            llm: Whom to ask, and the limits of asking.
            key: SHA-256 of the body; empty for a question that finds out what a model can do, whose failure tells just
                that and counts for nothing.

        Raises:
            ChatError: If this request cannot be completed.
            BackendError: If no request will be.
        """
        ...

    async def facts(self, llm: LlmConfig) -> ModelFacts:
        """What is known of a model without asking it."""
        ...

    def stop(self, error: BackendError) -> None:
        """Send nothing any more: what waits fails with this error, what is under way may come to its end."""
        ...

    async def close(self) -> None:
        """Let go of everything; what was under way is cancelled already."""
        ...

    def figures(self) -> dict[str, int]:
        """The fields ``calls``, ``retries`` and ``peak_in_flight`` of `Usage`."""
        ...


def chat_rejection(
    stage: str, record_id: str, record: Mapping[str, Any], error: ChatError, format_reason: str = "format"
) -> Rejection:
    """What a `ChatError` makes of one record, with the model's raw reply kept.

    Args:
        stage: Stage that asked the model.
        record_id: Id of the record.
        record: The record as plain values.
        error: The trouble; a server's is a failure, the reply's own a rejection.
        format_reason: Reason for a reply that does not parse.
    """
    kept = {**record, "error": str(error), "raw": error.raw}
    if error.kind in ("transport", "request", "pending"):
        return failure(stage, error.kind, record_id, kept)
    return rejection(stage, format_reason if error.kind == "format" else error.kind, record_id, kept)


def model_name(llm: LlmConfig) -> str:
    """The model as requests and lineage name it: a folder by the digest of its files, one on the hub by its revision.

    Raises:
        ConfigError: If a model of this machine is neither.
    """
    return _identity(llm.model, llm.revision) if llm.engine == "transformers" else llm.model


@functools.cache
def _identity(model: str, revision: str | None) -> str:
    return ModelFolder.of(model, revision, section="llm").identity


def precision(dtype: str, device: str) -> str:
    """Precision of a model's weights in this process, as far as the recipe settles it.

    Args:
        dtype: ``llm.dtype``.
        device: ``llm.device``, or the one that was found.

    Returns:
        ``auto`` where both are: to name a model, no device is looked for, as that would load torch, and the driver may
        have another one than its workers.

    Example:
        >>> precision("auto", "cpu"), precision("auto", "cuda:1"), precision("auto", "auto")
        ('float32', 'bfloat16', 'auto')
    """
    if dtype != "auto" or device == "auto":
        return dtype
    return "float32" if device.partition(":")[0] == "cpu" else "bfloat16"


def model_json(llm: LlmConfig, prompt: Prompt) -> str:
    """What decides a model's replies, as a JSON object for lineage: no address, no key, no window."""
    decisive = ("temperature", "top_p", "max_tokens", "seed", "structured", "max_reasks", "extra_body")
    plain = to_plain(llm)
    revision = {"revision": llm.revision} if llm.revision and llm.engine != "transformers" else {}
    in_process = {"engine": llm.engine, "dtype": precision(llm.dtype, llm.device)}
    of_this_machine = in_process if llm.engine == "transformers" else {}
    return to_json(
        {
            "tier": "openai",
            "prompt": prompt.digest,
            "model": model_name(llm),
            **revision,
            **of_this_machine,
            **{name: plain[name] for name in decisive},
        }
    )
