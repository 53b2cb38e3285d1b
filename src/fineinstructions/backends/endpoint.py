"""OpenAI-compatible servers: the window of requests of each, its retries.

In: a request body. Out: a `Completion`, or a `ChatError` that says which kind of trouble one record had. Trouble that
would befall every record (no key, no such model, nothing gets through any more) is a plain `BackendError` and ends the
run. The retry loop is ours, not the client library's: it must honour ``Retry-After`` for all requests of the window at
once, and its jitter must not depend on chance.
"""

import asyncio
import email.utils
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fineinstructions.backends.capabilities import ModelFacts, listed_facts
from fineinstructions.backends.completion import (
    ChatError,
    Completion,
    error_message,
    kind_of_status,
    safe_line,
)
from fineinstructions.backends.llm_config import LlmConfig, Structured, key_of
from fineinstructions.errors import BackendError

FIRST_CONTACT_RETRIES = 3
"""Further attempts to connect to a server that was never reached: it is more likely absent than busy."""

UNREACHABLE_POLL_SECONDS = 0.5
"""How often a server that is waited for is tried."""

MODEL_LIST_RETRIES = 2
"""Further attempts to list a server's models: some answer that with an error always."""

R = TypeVar("R")
Send = Callable[[Mapping[str, Any]], Awaitable[Any]]
Read = Callable[[str, str], R]
"""From the text of a reply and the key that was sent to what it says."""


class _RetryableError(Exception):
    """An attempt that may succeed when made again."""

    def __init__(self, message: str, retry_after_seconds: float | None = None, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.is_unreachable = is_unreachable


class Endpoint:
    """One server with its window; lives on the client's event loop and must only be used there.

    Args:
        llm: Address, key variable, window and limits.
    """

    def __init__(self, llm: LlmConfig) -> None:
        from openai import AsyncOpenAI

        self._llm = llm
        self._key = key_of(llm.api_key_env)
        self._server = AsyncOpenAI(
            api_key=self._key or "none", base_url=llm.address, max_retries=0, timeout=llm.timeout_seconds
        )
        self._window = asyncio.Semaphore(llm.max_in_flight)
        self._resume_at = 0.0
        self._failures_in_a_row = 0
        self._was_reached = False
        self.in_flight = self.peak_in_flight = self.retries = self.calls = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def complete(self, body: Mapping[str, Any], *, counts: bool = True) -> Completion:
        """Send one chat request, retrying transport errors.

        Args:
            body: The whole request body.
            counts: Whether its failure is one of the failures in a row that end a run.

        Raises:
            ChatError: If this request cannot be answered.
            BackendError: If no request to this server will be.
        """
        return await self._retried(body, self._send_chat, _completion, counts=counts)

    async def embed(self, body: Mapping[str, Any]) -> list[list[float]]:
        """Send one embeddings request, retrying transport errors; a vector for each text of ``input``, in order.

        Args and errors are those of `complete`.
        """
        return await self._retried(body, self._send_embeddings, _embeddings)

    async def models(self) -> list[dict[str, Any]] | None:
        """The models that the server lists; None from one that cannot say.

        Raises:
            ChatError: If no reply came through.
        """
        try:
            return await self._retried({}, self._send_models, _models, MODEL_LIST_RETRIES)
        except ChatError as error:
            if error.kind == "transport" and "HTTP" not in str(error):
                raise
            return None
        except BackendError as error:
            if error.retryable:
                raise
            return None

    async def _retried(
        self, body: Mapping[str, Any], send: Send, read: Read[R], most: int | None = None, counts: bool = True
    ) -> R:
        retries = self._llm.max_retries if most is None else min(most, self._llm.max_retries)
        for attempt in range(retries + 1):
            try:
                async with self._window:
                    reply = await self._attempt_once_reachable(body, send, read)
            except _RetryableError as trouble:
                if trouble.is_unreachable and not self._was_reached and attempt >= min(FIRST_CONTACT_RETRIES, retries):
                    raise BackendError(
                        f"{self._llm.address}: {trouble}",
                        retryable=True,
                        hint="start the server, or set llm.base_url or OPENAI_BASE_URL",
                    ) from None
                if attempt == retries:
                    if counts:
                        self._count_failure(str(trouble))
                    raise ChatError("transport", f"{trouble} ({attempt + 1} attempts)") from None
                self.retries += 1
                await asyncio.sleep(self._wait_before_retry(body, attempt, trouble.retry_after_seconds))
            except ChatError as error:
                if error.kind == "request" and counts:
                    self._count_failure(str(error))
                raise
            else:
                self._failures_in_a_row = 0
                return reply
        raise AssertionError("unreachable")

    async def _attempt_once_reachable(self, body: Mapping[str, Any], send: Send, read: Read[R]) -> R:
        """An attempt, before which a server that cannot be reached has time to come back."""
        deadline = time.monotonic() + self._llm.unreachable_seconds
        while True:
            try:
                return await self._attempt(body, send, read)
            except _RetryableError as trouble:
                if not trouble.is_unreachable or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(UNREACHABLE_POLL_SECONDS)

    async def _send_chat(self, body: Mapping[str, Any]) -> Any:
        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        create = self._server.chat.completions.with_raw_response.create
        return await create(model=body["model"], messages=body["messages"], extra_body=rest)

    async def _send_models(self, body: Mapping[str, Any]) -> Any:
        return await self._server.models.with_raw_response.list(extra_query=body)

    async def _send_embeddings(self, body: Mapping[str, Any]) -> Any:
        rest = {key: value for key, value in body.items() if key not in ("model", "input")}
        create = self._server.embeddings.with_raw_response.create
        return await create(model=body["model"], input=body["input"], encoding_format="float", extra_body=rest)

    async def _attempt(self, body: Mapping[str, Any], send: Send, read: Read[R]) -> R:
        import openai

        await asyncio.sleep(max(0.0, self._resume_at - time.monotonic()))
        self.calls += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            async with asyncio.timeout(self._llm.timeout_seconds):
                raw = await send(body)
        except (TimeoutError, openai.APITimeoutError):
            raise _RetryableError(f"no reply within {self._llm.timeout_seconds:g} s") from None
        except openai.APIStatusError as error:
            self._was_reached = True
            raise self._status_trouble(error.status_code, error.response.headers, error.response.text) from None
        except openai.APIConnectionError as error:
            line = self._safe(str(error.__cause__ or error))
            unreachable = type(error.__cause__).__name__ == "ConnectError"  # of httpx or its successor
            raise _RetryableError(f"connection failed: {line}", is_unreachable=unreachable) from None
        finally:
            self.in_flight -= 1
        self._was_reached = True
        return read(raw.http_response.text, self._key)

    def _status_trouble(self, status: int, headers: Mapping[str, str], text: str) -> BackendError | _RetryableError:
        said = self._safe(error_message(text))
        kind = kind_of_status(status, text)
        if kind == "quota":
            return BackendError(
                f"{self._llm.address}: the quota is used up", hint="check the account, then rerun to resume"
            )
        if kind == "transport":
            return _RetryableError(
                f"HTTP {status}: {said}", retry_after_seconds(headers, self._llm.max_retry_after_seconds)
            )
        if kind == "denied":
            hint = f"set {self._llm.api_key_env}" if not self._key else f"check the key in {self._llm.api_key_env}"
            return BackendError(f"{self._llm.address}: HTTP {status}, access denied", hint=hint)
        if kind == "unknown":
            hint = "check base_url (it ends in /v1 for most servers) and model; `doctor` lists what the server offers"
            return BackendError(f"{self._llm.address}: HTTP 404 for model {self._llm.model!r}: {said}", hint=hint)
        if kind == "gone":
            return BackendError(f"{self._llm.address}: {said}")
        return ChatError(kind, f"HTTP {status}: {said}", raw=said if kind == "refusal" else "")

    def _wait_before_retry(self, body: Mapping[str, Any], attempt: int, retry_after_seconds: float | None) -> float:
        if retry_after_seconds is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + retry_after_seconds)
        seed = hashlib.blake2b(f"{attempt}{json.dumps(body, sort_keys=True)}".encode(), digest_size=8).digest()
        jitter = int.from_bytes(seed, "little") / 2**64
        wait: float = min(30.0, self._llm.backoff_seconds * 2**attempt) * (0.5 + 0.5 * jitter)
        return max(wait, retry_after_seconds or 0.0)

    def _count_failure(self, trouble: str) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._llm.max_failures_in_a_row:
            raise BackendError(
                f"{self._llm.address}: {self._failures_in_a_row} requests in a row failed, the last with: {trouble}",
                retryable=True,
                hint="check the server, then rerun to resume",
            )

    def _safe(self, text: str) -> str:
        return safe_line(text, self._key)


class Servers:
    """All servers that one client asks."""

    fixed: tuple[Structured, bool] | None = None
    """What a server can do has to be tried out."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    async def complete(self, body: Mapping[str, Any], llm: LlmConfig, key: str) -> Completion:
        """Send one chat request to its server; errors are those of `Endpoint.complete`."""
        return await self._endpoint(llm).complete(body, counts=bool(key))

    async def facts(self, llm: LlmConfig) -> ModelFacts:
        """What the server's list of models says of one.

        Raises:
            ChatError: If no reply came through.
        """
        return listed_facts(llm.model, await self._endpoint(llm).models() or [])

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._endpoints.values():
            await endpoint.close()

    def figures(self) -> dict[str, int]:
        """Calls and retries of all servers, and the fullest window."""
        endpoints = list(self._endpoints.values())
        return {
            "calls": sum(e.calls for e in endpoints),
            "retries": sum(e.retries for e in endpoints),
            "peak_in_flight": max((e.peak_in_flight for e in endpoints), default=0),
        }

    def _endpoint(self, llm: LlmConfig) -> Endpoint:
        """The server's endpoint; stages that differ only in model and sampling share one window."""
        key = f"{llm.address} {llm.api_key_env} {llm.max_in_flight} {llm.timeout_seconds} {llm.max_retries}"
        if key not in self._endpoints:
            self._endpoints[key] = Endpoint(llm)
        return self._endpoints[key]


def _completion(text: str, key: str) -> Completion:
    """First choice of a reply body; a body that is no chat completion counts as a transport error."""
    try:
        return Completion.from_body(json.loads(text))
    except (ValueError, RecursionError) as error:
        is_json = not isinstance(error, json.JSONDecodeError | RecursionError)
        said = str(error) if is_json else "the body is no chat completion"
        raise _RetryableError(f"{said}: {safe_line(text, key)[:80]!r}") from None


def _models(text: str, key: str) -> list[dict[str, Any]] | None:
    """Entries of a list of models; None for a body of another shape."""
    del key
    try:
        return [dict(entry) for entry in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _embeddings(text: str, key: str) -> list[list[float]]:
    """Vectors of a reply body, in the order of the texts; a body that holds none counts as a transport error."""
    try:
        data = sorted(json.loads(text)["data"], key=lambda item: int(item["index"]))
        return [[float(value) for value in item["embedding"]] for item in data]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _RetryableError(f"the body holds no embeddings: {safe_line(text, key)[:80]!r}") from None


def retry_after_seconds(headers: Mapping[str, str], longest: float) -> float | None:
    """Wait that the server asks for, from milliseconds, seconds or an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            wait = float(headers["retry-after-ms"]) / 1000
        elif re.fullmatch(r"\s*\d+(\.\d+)?\s*", headers.get("retry-after", "")):
            wait = float(headers["retry-after"])
        else:
            wait = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None
    return min(max(0.0, wait), longest)
