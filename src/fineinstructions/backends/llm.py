"""Asking models behind OpenAI-compatible servers, many requests at a time.

In: `ChatRequest`s from any thread. Out: futures of replies. One background thread per process runs the requests of all
stages and all open work units through one bounded window per server, so that no stage, batch or unit border ever drains
it: a barrier costs 30 to 40 per cent of the throughput.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.endpoint import ChatError, Completion, Endpoint, LlmConfig
from fineinstructions.backends.logprobs import REQUEST_FIELDS, TokenLogprob
from fineinstructions.backends.prompt import Message, Prompt
from fineinstructions.config import from_mapping, to_plain
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.records import Rejection, failure, rejection, to_json

__all__ = [
    "ChatClient",
    "ChatError",
    "ChatReply",
    "ChatRequest",
    "LlmConfig",
    "LlmOverrides",
    "Usage",
    "chat_rejection",
    "model_json",
    "with_overrides",
]

T = TypeVar("T")


def with_overrides(shared: LlmConfig, overrides: Mapping[str, Any]) -> LlmConfig:
    """The shared ``llm:`` section with one stage's own keys laid over it.

    Raises:
        ConfigError: If an override is unknown or has a wrong value.
    """
    return from_mapping(to_plain(shared) | dict(overrides), LlmConfig, where="llm")


def _known_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    try:
        with_overrides(LlmConfig(), overrides)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("llm: ")) from None
    return overrides


LlmOverrides = Annotated[dict[str, Any], AfterValidator(_known_overrides)]
"""Keys of `LlmConfig` that one stage sets differently, such as ``{model: ..., max_tokens: ...}``."""


def model_json(llm: LlmConfig, prompt: Prompt) -> str:
    """What decides a model's replies, as a JSON object for lineage: no address, no key, no window."""
    decisive = ("model", "temperature", "top_p", "max_tokens", "seed", "structured", "max_reasks", "extra_body")
    plain = to_plain(llm)
    revision = {"revision": llm.revision} if llm.revision else {}
    return to_json({"tier": "openai", "prompt": prompt.digest, **revision, **{name: plain[name] for name in decisive}})


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
    """HTTP requests made, retries and re-asks included."""
    retries: int = 0
    cached: int = 0
    """Replies that came from the cache."""
    reasks: int = 0
    """Replies that did not parse and were sent back."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    peak_in_flight: int = 0
    """Most requests under way at once at one server."""


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
    if error.kind in ("transport", "request"):
        return failure(stage, error.kind, record_id, kept)
    return rejection(stage, format_reason if error.kind == "format" else error.kind, record_id, kept)


class ChatClient:
    """Sends chat requests from a thread of its own; one per process, shared by all threads.

    The thread starts with the first request: a client that is only asked what it would ask costs nothing.

    Args:
        llm: Server and model of requests that do not say otherwise.
        cache: Where replies are kept; None keeps none.

    Raises:
        ConfigError: If the environment names an address that cannot be used.
    """

    def __init__(self, llm: LlmConfig, cache: ResponseCache | None = None) -> None:
        self.llm = llm
        llm.address  # noqa: B018 -- a wrong one is told before any work is done
        self._cache = cache
        self._endpoints: dict[str, Endpoint] = {}
        self._probes: dict[str, asyncio.Task[Any]] = {}
        self._usage = Usage()
        self._fatal: BackendError | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def submit(self, request: ChatRequest) -> "Future[ChatReply]":
        """Send a request; the future gives the reply, `ChatError` or `BackendError`."""
        return self._start(self._reply(request.messages, request, request.llm or self.llm))

    def ask(self, request: ChatRequest, parse: Callable[[str], T]) -> "Future[T]":
        """Send a request and parse its reply, asking for a repair when it does not parse.

        Args:
            request: The question.
            parse: From reply text to the value wanted; raises `ValueError` where it cannot. Must be quick.

        Returns:
            A future of the parsed value. Its errors are `ChatError` (this request) and `BackendError` (all of them).
        """
        return self._start(self._ask(request, lambda reply: parse(reply.text)))

    def ask_whole(self, request: ChatRequest, parse: Callable[[ChatReply], T]) -> "Future[T]":
        """Like `ask`, for a parser that needs more of the reply than its text, such as its log-probabilities."""
        return self._start(self._ask(request, parse))

    def usage(self) -> Usage:
        """What was used so far."""
        endpoints = list(self._endpoints.values())
        return replace(
            self._usage,
            calls=sum(e.calls for e in endpoints),
            retries=sum(e.retries for e in endpoints),
            peak_in_flight=max((e.peak_in_flight for e in endpoints), default=0),
        )

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._running is not None:
            loop, thread = self._running
            asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result(timeout=30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=30)
            loop.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: Any) -> "Future[Any]":
        with self._lock:
            if self._closed:
                work.close()
                raise BackendError("the chat client is closed")
            if self._running is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="chat-client", daemon=True)
                thread.start()
                self._running = loop, thread
            return asyncio.run_coroutine_threadsafe(work, self._running[0])

    async def _shut_down(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in self._endpoints.values():
            await endpoint.close()

    async def _ask(self, request: ChatRequest, parse: Callable[[ChatReply], T]) -> T:
        llm = request.llm or self.llm
        messages = request.messages
        for reask in range(llm.max_reasks + 1):
            reply = await self._reply(messages, request, llm)
            try:
                return parse(reply)
            except ValueError as error:
                trouble = str(error)
            if reask < llm.max_reasks:
                self._usage = replace(self._usage, reasks=self._usage.reasks + 1)
                repair = f"That reply could not be read: {trouble}. Reply again, in exactly the format asked for."
                messages = (*messages, ("assistant", reply.text), ("user", repair))
        raise ChatError("format", trouble, raw=reply.text)

    async def _reply(self, messages: tuple[Message, ...], request: ChatRequest, llm: LlmConfig) -> ChatReply:
        if self._fatal is not None:
            raise self._fatal
        try:
            mode = await self._mode(llm) if request.schema is not None else "none"
            body = _body(messages, llm) | _response_format(mode, request.schema)
            if request.logprobs and await self._tried_out("logprobs", llm, self._probe_logprobs):
                body |= REQUEST_FIELDS
            completion, cached = await self._complete(body, llm)
        except ChatError:
            raise
        except BackendError as error:
            self._fatal = self._fatal or error
            raise
        if completion.refusal or completion.finish_reason == "content_filter":
            raise ChatError("refusal", "the model declined", raw=completion.refusal or completion.text)
        if completion.finish_reason == "length":
            raise ChatError("length", f"the reply was cut off at {llm.max_tokens} tokens", raw=completion.text)
        counts = completion.prompt_tokens, completion.completion_tokens
        return ChatReply(completion.text, completion.finish_reason, *counts, cached, completion.logprobs)

    async def _complete(self, body: dict[str, Any], llm: LlmConfig) -> tuple[Completion, bool]:
        """A completion from the cache or the server, and whether it was the cache."""
        try:
            known_by = body | ({"revision": llm.revision} if llm.revision else {})
            canonical = json.dumps(known_by, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise ChatError("request", "the text is not valid Unicode (a lone surrogate)") from None
        key = hashlib.sha256(canonical).hexdigest()
        stored = self._cache.get(key) if self._cache is not None else None
        if stored is not None:
            self._usage = replace(self._usage, cached=self._usage.cached + 1)
            return Completion.from_plain(stored), True
        completion = await self._endpoint(llm).complete(body)
        self._usage = replace(
            self._usage,
            prompt_tokens=self._usage.prompt_tokens + completion.prompt_tokens,
            completion_tokens=self._usage.completion_tokens + completion.completion_tokens,
        )
        if self._cache is not None:
            self._cache.put(key, completion.to_plain())
        return completion, False

    def _endpoint(self, llm: LlmConfig) -> Endpoint:
        """The server's endpoint; stages that differ only in model and sampling share one window."""
        key = f"{llm.address} {llm.api_key_env} {llm.max_in_flight} {llm.timeout_seconds} {llm.max_retries}"
        if key not in self._endpoints:
            self._endpoints[key] = Endpoint(llm)
        return self._endpoints[key]

    async def _mode(self, llm: LlmConfig) -> str:
        """How far the server can hold a reply to a schema."""
        return llm.structured if llm.structured != "auto" else await self._tried_out("schema", llm, self._probe_schema)

    async def _tried_out(self, ability: str, llm: LlmConfig, probe: Callable[[LlmConfig], Awaitable[T]]) -> T:
        """What a probe finds out, made once per server and model while the requests that need it wait."""
        key = f"{ability} {llm.address} {llm.model}"
        task = self._probes.get(key) or asyncio.ensure_future(probe(llm))
        self._probes[key] = task
        try:
            return await asyncio.shield(task)
        except ChatError:
            if self._probes.get(key) is task:
                del self._probes[key]  # the next request tries again
            raise

    async def _probe_logprobs(self, llm: LlmConfig) -> bool:
        """Whether the server takes a request for log-probabilities; one that only ignores it does.

        Raises:
            ChatError: If no reply came through.
        """
        messages = (("user", "Reply with the single word ready."),)
        try:
            await self._complete(_body(messages, llm) | REQUEST_FIELDS, llm)
        except ChatError as error:
            if error.kind == "transport":
                raise
            return error.kind != "request"
        return True

    async def _probe_schema(self, llm: LlmConfig) -> str:
        """Ask for a plain word while demanding JSON: a reply in JSON shows that the demand was enforced.

        Raises:
            ChatError: If no reply came through: what a server can do must not depend on the moment it was asked.
        """
        messages = (("system", "Reply with the single word ready and nothing else, not with JSON."), ("user", "Go."))
        schema = {
            "type": "object",
            "properties": {"probe": {"type": "string", "enum": ["zyxt"]}},
            "required": ["probe"],
            "additionalProperties": False,
        }
        for mode in ("schema", "object"):
            try:
                body = _body(messages, llm) | _response_format(mode, schema)
                completion, _ = await self._complete(body, llm)
                reply = json.loads(completion.text)
            except ValueError:
                continue
            except ChatError as error:
                if error.kind == "transport":
                    hint = "asked whether it holds replies to a schema; llm.structured: none skips the question"
                    raise ChatError("transport", f"{error}; {hint}") from None
                continue
            if isinstance(reply, dict) and (mode == "object" or reply == {"probe": "zyxt"}):
                return mode
        return "none"


def _body(messages: tuple[Message, ...], llm: LlmConfig) -> dict[str, Any]:
    sampling = {"temperature": llm.temperature, "top_p": llm.top_p, "seed": llm.seed}
    return {
        "model": llm.model,
        "messages": [{"role": role, "content": content} for role, content in messages],
        llm.max_tokens_key: llm.max_tokens,
        **{name: value for name, value in sampling.items() if value is not None},
        **llm.extra_body,
    }


def _response_format(mode: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if mode == "schema":
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": schema},
            }
        }
    return {"response_format": {"type": "json_object"}} if mode == "object" else {}
