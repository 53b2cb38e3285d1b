"""The chat client: asks models, many requests at a time, whatever runs them.

In: `ChatRequest`s from any thread. Out: futures of replies. One background thread per process runs the requests of all
stages and all open work units through one line per server, so that no stage, batch or unit border ever drains its
window: a barrier costs 30 to 40 per cent of the throughput. What all engines share is here: the response cache,
re-asks, refusals, usage. What one of them does by itself is a `ChatEngine`.
"""

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.capabilities import (
    Ask,
    Capabilities,
    ModelFacts,
    find_logprobs,
    find_structured,
    is_another,
    model_key,
)
from fineinstructions.backends.chat import (
    ChatEngine,
    ChatModel,
    ChatReply,
    ChatRequest,
    Usage,
    chat_rejection,
    model_json,
    model_name,
    precision,
)
from fineinstructions.backends.completion import ChatError, Completion
from fineinstructions.backends.event_loop import LoopThread, cancel_others
from fineinstructions.backends.llm_config import LlmConfig, LlmOverrides, Structured, key_of, with_overrides
from fineinstructions.backends.logprobs import REQUEST_FIELDS
from fineinstructions.backends.prompt import Message
from fineinstructions.backends.servers import Servers
from fineinstructions.backends.structured import structured_fields
from fineinstructions.errors import BackendError, ConfigError

__all__ = [
    "ChatClient",
    "ChatError",
    "ChatModel",
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


class ChatClient:
    """Sends chat requests from a thread of its own; one per process, shared by all threads.

    The thread starts with the first request: a client that is only asked what it would ask costs nothing.

    Args:
        llm: Engine and model of requests that do not say otherwise.
        cache: Where replies are kept; None keeps none.
        known: What models are known to be able to, by `model_key`; the others are tried out when it first matters.
        batches_dir: Where batch files lie; needed for requests of the engine ``batch``.

    Raises:
        ConfigError: If the environment names an address or holds a key that cannot be used.
    """

    def __init__(
        self,
        llm: LlmConfig,
        cache: ResponseCache | None = None,
        *,
        known: Mapping[str, Capabilities] | None = None,
        batches_dir: Path | None = None,
    ) -> None:
        self.llm = llm
        if llm.serve is None:
            llm.addresses  # noqa: B018 -- a wrong one is told before any work is done, and so is a wrong key
        key_of(llm.api_key_env)
        self._cache, self._batches_dir = cache, batches_dir
        self._known = known or {}
        self._engines: dict[str, ChatEngine] = {}
        self._probes: dict[str, asyncio.Task[Any]] = {}
        self._usage = Usage()
        self._answers_as: dict[str, str] = {}
        self.other_models: Counter[tuple[str, str]] = Counter()
        """Replies by the model that was asked and the one that answered, where that is another (`is_another`)."""
        self._fatal: BackendError | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._running: LoopThread | None = None

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

    def capabilities(self, llm: LlmConfig) -> "Future[Capabilities]":
        """What a model can be asked for, as known or as tried out now; errors are those of `ask`."""
        return self._start(self._capabilities(llm))

    def context_tokens(self, llm: LlmConfig | None = None) -> int | None:
        """Longest prompt and reply together, in tokens of the model; ``None`` where nobody knows.

        Args:
            llm: The model; None for the client's own. One that is not known yet is looked up, which waits for its
                server.
        """
        found = self._known.get(model_key(llm or self.llm))
        return found.context_tokens if found else self._start(self._facts(llm or self.llm)).result().context_tokens

    def usage(self) -> Usage:
        """What was used so far."""
        figures = [engine.figures() for engine in list(self._engines.values())]
        return replace(
            self._usage,
            calls=sum(f["calls"] for f in figures),
            retries=sum(f["retries"] for f in figures),
            peak_in_flight=max((f["peak_in_flight"] for f in figures), default=0),
        )

    def look_again(self) -> None:
        """Find the replies that other processes have stored since the cache was read."""
        if self._cache is not None:
            self._cache.look_again()

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._running is not None:
            self._running.run(self._shut_down())
            self._running.stop()
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
                self._running = LoopThread("chat-client")
            return self._running.start(work)

    async def _shut_down(self) -> None:
        await cancel_others()
        for engine in self._engines.values():
            await engine.close()

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
                if request.meter is not None:
                    request.meter.reasks += 1
                repair = f"That reply could not be read: {trouble}. Reply again, in exactly the format asked for."
                messages = (*messages, ("assistant", reply.text), ("user", repair))
        raise ChatError("format", trouble, raw=reply.text)

    async def _reply(self, messages: tuple[Message, ...], request: ChatRequest, llm: LlmConfig) -> ChatReply:
        if self._fatal is not None:
            raise self._fatal
        try:
            body = _body(messages, llm)
            if request.schema is not None:
                body |= _fitting_fields(await self._structured(llm), request.schema)
            if request.logprobs and await self._logprobs(llm):
                body |= REQUEST_FIELDS
            completion, cached = await self._complete(body, llm)
            if request.meter is not None:
                request.meter.add(completion)
        except ChatError:
            raise
        except BackendError as error:
            self._fatal = self._fatal or error
            for engine in self._engines.values():
                engine.stop(self._fatal)
            raise
        if completion.refusal or completion.finish_reason == "content_filter":
            raise ChatError("refusal", "the model declined", raw=completion.refusal or completion.text)
        if completion.finish_reason == "length" and not request.may_be_cut:
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
        completion = await self._engine(llm).complete(body, llm, key)
        if is_another(body["model"], completion.model):
            self.other_models[body["model"], completion.model] += 1
        self._usage = replace(
            self._usage,
            prompt_tokens=self._usage.prompt_tokens + completion.prompt_tokens,
            completion_tokens=self._usage.completion_tokens + completion.completion_tokens,
        )
        if self._cache is not None:
            self._cache.put(key, completion.to_plain())
        return completion, False

    def _engine(self, llm: LlmConfig) -> ChatEngine:
        if llm.engine not in self._engines:
            self._engines[llm.engine] = _open_engine(llm, self._batches_dir)
        return self._engines[llm.engine]

    async def _capabilities(self, llm: LlmConfig) -> Capabilities:
        structured, logprobs = await self._structured(llm), await self._logprobs(llm)
        facts = await self._facts(llm)
        known = self._known.get(model_key(llm))
        answers_as = self._answers_as.get(model_key(llm)) or (known.answers_as if known else "")
        return Capabilities(structured, logprobs, facts.context_tokens, facts.served_as, answers_as)

    async def _structured(self, llm: LlmConfig) -> Structured:
        """How the model holds a reply to a schema."""
        fixed, known = self._engine(llm).fixed, self._known.get(model_key(llm))
        if llm.structured != "auto" and llm.engine != "transformers":
            return llm.structured
        if fixed is not None:
            return fixed[0]
        return known.structured if known else await self._tried_out("schema", llm, find_structured)

    async def _logprobs(self, llm: LlmConfig) -> bool:
        """Whether the model gives log-probabilities."""
        fixed, known = self._engine(llm).fixed, self._known.get(model_key(llm))
        if fixed is not None:
            return fixed[1]
        return known.logprobs if known else await self._tried_out("logprobs", llm, find_logprobs)

    async def _facts(self, llm: LlmConfig) -> ModelFacts:
        return await self._tried_out("facts", llm, lambda _: self._engine(llm).facts(llm))

    async def _tried_out(self, ability: str, llm: LlmConfig, find: Callable[[Ask], Awaitable[T]]) -> T:
        """What trying finds out, made once per model while the requests that need it wait."""
        key = f"{ability} {model_key(llm)}"
        task = self._probes.get(key) or asyncio.ensure_future(find(self._asking(llm)))
        self._probes[key] = task
        try:
            return await asyncio.shield(task)
        except ChatError:
            if self._probes.get(key) is task:
                del self._probes[key]  # the next request tries again
            raise

    def _asking(self, llm: LlmConfig) -> Ask:
        async def ask(messages: Sequence[Message], fields: Mapping[str, Any]) -> Completion:
            completion = await self._engine(llm).complete(_body(messages, llm) | dict(fields), llm, "")
            self._answers_as[model_key(llm)] = completion.model
            return completion

        return ask


def _open_engine(llm: LlmConfig, batches_dir: Path | None) -> ChatEngine:
    if llm.engine == "server":
        return Servers()
    if llm.engine == "transformers":
        from fineinstructions.backends.in_process import InProcess

        return InProcess()
    if batches_dir is None:
        raise ConfigError("llm.engine: batch works inside a run only, whose folder holds the files; use server here")
    from fineinstructions.backends.batch_files import BatchFiles

    return BatchFiles(batches_dir)


def _fitting_fields(way: Structured, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that ask for a schema; none where the way cannot express it, as every reply is checked anyway."""
    try:
        return structured_fields(way, schema)
    except ValueError:
        return {}


def _body(messages: Sequence[Message], llm: LlmConfig) -> dict[str, Any]:
    sampling = {"temperature": llm.temperature, "top_p": llm.top_p, "seed": llm.seed}
    of_this_machine = {"dtype": precision(llm.dtype, llm.device)} if llm.engine == "transformers" else {}
    return {
        "model": model_name(llm),
        "messages": [{"role": role, "content": content} for role, content in messages],
        llm.max_tokens_key: llm.max_tokens,
        **{name: value for name, value in sampling.items() if value is not None},
        **of_this_machine,
        **llm.extra_body,
    }
