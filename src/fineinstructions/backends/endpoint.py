"""One OpenAI-compatible server: its settings, its window of requests, its retries.

In: a request body. Out: a `Completion`, or a `ChatError` that says which kind of trouble one record had. Trouble that
would befall every record (no key, no such model, nothing gets through any more) is a plain `BackendError` and ends the
run. The retry loop is ours, not the client library's: it must honour ``Retry-After`` for all requests of the window at
once, and its jitter must not depend on chance.
"""

import asyncio
import email.utils
import hashlib
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from fineinstructions.backends.logprobs import (
    TokenLogprob,
    from_plain_logprobs,
    read_logprobs,
    to_plain_logprobs,
)
from fineinstructions.config import Config
from fineinstructions.errors import BackendError, ConfigError

DEFAULT_BASE_URL = "https://api.openai.com/v1"
FIRST_CONTACT_RETRIES = 3
"""Further attempts to connect to a server that was never reached: it is more likely absent than busy."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")

R = TypeVar("R")
Send = Callable[[Mapping[str, Any]], Awaitable[Any]]
Read = Callable[[str, str], R]
"""From the text of a reply and the key that was sent to what it says."""


class LlmConfig(Config):
    """How to reach a model behind an OpenAI-compatible server; holds the name of the key's variable, never the key."""

    base_url: str = ""
    """Address of the server, up to and including ``/v1``. Default: the variable OPENAI_BASE_URL, else OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key. A server without keys needs none."""
    model: str = ""
    """Name of the model as the server knows it."""
    revision: str | None = None
    """Commit or tag of the model, for the record: a server does not tell which one it serves, so start it with the same
    (vLLM: ``--revision``). Stands in every pair's lineage; another one asks the model again. An empty text refuses to
    run until it is filled in (`doctor RECIPE --resolve`)."""
    temperature: float | None = Field(default=0.0, ge=0)
    """Sampling temperature; None leaves it to the server. Ours: 0, so that a run can be repeated."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; None leaves it to the server."""
    max_tokens: int = Field(default=2048, ge=1)
    """Longest reply in tokens. Ours."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt and reply together, in tokens; decides how much of a long document an instantiator is shown. None
    where only `max_document_chars` does."""
    tokenizer: str | None = None
    """Folder or hub name of the model's tokenizer, to count what fits into `context_tokens` (needs the extra
    ``[embed]``); None estimates 3 bytes of UTF-8 a token, which is more than nearly any text has. Ours."""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls that limit; OpenAI's reasoning models want the second."""
    seed: int | None = None
    """Sampling seed, for servers that know one."""
    timeout_seconds: float = Field(default=180.0, gt=0)
    """Longest wait for one whole reply. Ours."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests under way at once, per worker process and server, over all stages and work units. Ours."""
    max_retries: int = Field(default=8, ge=0)
    """Further attempts after a transport error (no connection, time-out, 408, 409, 429, 5xx, broken reply). Ours."""
    backoff_seconds: float = Field(default=0.5, gt=0)
    """Wait before the first retry; doubles each time, up to 30 seconds. Ours."""
    max_retry_after_seconds: float = Field(default=120.0, ge=0)
    """Longest wait that a server's Retry-After may ask for. Ours."""
    max_reasks: int = Field(default=2, ge=0)
    """How often a reply that does not parse is answered with a request to repair it. Ours."""
    max_failures_in_a_row: int = Field(default=20, ge=1)
    """After this many failed requests without one success in between the run stops. Ours."""
    structured: Literal["auto", "schema", "object", "none"] = "auto"
    """Ask the server to hold replies to a JSON schema, to any JSON object, or to nothing; ``auto`` tries it out once.
    Replies are parsed and checked in every case."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields for the request body, for servers with options of their own."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("must be the name of an environment variable, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return without_secrets(value)

    @property
    def address(self) -> str:
        """The server's address with the environment taken into account.

        Raises:
            ConfigError: As `server_address`.
        """
        return server_address(self.base_url, "llm.base_url")


def without_secrets(address: str) -> str:
    """The address of a server, or nothing, as it was given.

    Raises:
        ValueError: If it is no web address or holds a user name or password; the message does not show it.
    """
    if address and not re.match(r"https?://", address):
        raise ValueError("must start with http:// or https://")
    if "@" in re.split(r"[/?#]", address.partition("://")[2], maxsplit=1)[0]:
        raise ValueError("must not hold a user name or password; put the key into an environment variable")
    return address


def server_address(chosen: str, setting: str) -> str:
    """The address chosen, else that of the variable OPENAI_BASE_URL, else OpenAI's own.

    Args:
        chosen: Address in the recipe; empty for none.
        setting: Name of the key that holds it, for messages.

    Raises:
        ConfigError: If the address is not fit to be shown in messages and sent requests.
    """
    named = os.environ.get("OPENAI_BASE_URL", "")
    try:
        return without_secrets(chosen or named or DEFAULT_BASE_URL).rstrip("/")
    except ValueError as error:
        raise ConfigError(f"{setting if chosen else 'OPENAI_BASE_URL'}: {error}") from None


def safe_line(text: str, key: str = "") -> str:
    """A server's words for a message: one line that can be written anywhere, not long, without the key.

    Args:
        text: What the server or the connection said.
        key: The key that was sent; empty for none.
    """
    return " ".join(encodable(text.replace(key, "***") if key else text).split())[:300]


TroubleKind = Literal["length", "too_long", "refusal", "format", "request", "transport"]


class ChatError(BackendError):
    """What went wrong with one request, others may fare better.

    Args:
        kind: ``length`` the reply was cut off; ``too_long`` the request does not fit the context; ``refusal`` the model
            or a content filter declined; ``format`` the reply did not parse, re-asks included; ``request`` the server
            refused this request; ``transport`` no complete reply after all retries.
        message: One line with what happened.
        raw: The model's reply as far as there is one.
    """

    def __init__(self, kind: TroubleKind, message: str, raw: str = "") -> None:
        super().__init__(message, retryable=kind == "transport")
        self.kind = kind
        self.raw = raw


class _RetryableError(Exception):
    """An attempt that may succeed when made again."""

    def __init__(self, message: str, retry_after_seconds: float | None = None, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.is_unreachable = is_unreachable


@dataclass(frozen=True, slots=True)
class Completion:
    """The first choice of a chat completion."""

    text: str
    finish_reason: str
    refusal: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] | None = None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values, for the cache; those of a completion without log-probabilities do not name them."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "logprobs"}
        return plain if self.logprobs is None else {**plain, "logprobs": to_plain_logprobs(self.logprobs)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Completion":
        """The completion that `to_plain` made plain."""
        stored = plain.get("logprobs")
        return cls(**{**plain, "logprobs": None if stored is None else from_plain_logprobs(stored)})


class Endpoint:
    """One server with its window; lives on the client's event loop and must only be used there.

    Args:
        llm: Address, key variable, window and limits.
    """

    def __init__(self, llm: LlmConfig) -> None:
        from openai import AsyncOpenAI

        self._llm = llm
        self._key = os.environ.get(llm.api_key_env, "")
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

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Send one chat request, retrying transport errors.

        Args:
            body: The whole request body.

        Raises:
            ChatError: If this request cannot be answered.
            BackendError: If no request to this server will be.
        """
        return await self._retried(body, self._send_chat, _completion)

    async def embed(self, body: Mapping[str, Any]) -> list[list[float]]:
        """Send one embeddings request, retrying transport errors; a vector for each text of ``input``, in order.

        Args and errors are those of `complete`.
        """
        return await self._retried(body, self._send_embeddings, _embeddings)

    async def _retried(self, body: Mapping[str, Any], send: Send, read: Read[R]) -> R:
        retries = self._llm.max_retries
        for attempt in range(retries + 1):
            try:
                async with self._window:
                    reply = await self._attempt(body, send, read)
            except _RetryableError as trouble:
                if trouble.is_unreachable and not self._was_reached and attempt >= min(FIRST_CONTACT_RETRIES, retries):
                    raise BackendError(
                        f"{self._llm.address}: {trouble}",
                        retryable=True,
                        hint="start the server, or set llm.base_url or OPENAI_BASE_URL",
                    ) from None
                if attempt == retries:
                    self._count_failure(str(trouble))
                    raise ChatError("transport", f"{trouble} ({attempt + 1} attempts)") from None
                self.retries += 1
                await asyncio.sleep(self._wait_before_retry(body, attempt, trouble.retry_after_seconds))
            except ChatError as error:
                if error.kind == "request":
                    self._count_failure(str(error))
                raise
            else:
                self._failures_in_a_row = 0
                return reply
        raise AssertionError("unreachable")

    async def _send_chat(self, body: Mapping[str, Any]) -> Any:
        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        create = self._server.chat.completions.with_raw_response.create
        return await create(model=body["model"], messages=body["messages"], extra_body=rest)

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
        said = self._safe(_error_message(text))
        if status == 429 and "insufficient_quota" in text:
            return BackendError(
                f"{self._llm.address}: the quota is used up", hint="check the account, then rerun to resume"
            )
        if status in (408, 409, 429) or status >= 500:
            return _RetryableError(
                f"HTTP {status}: {said}", retry_after_seconds(headers, self._llm.max_retry_after_seconds)
            )
        lowered = text.lower()
        if "content_filter" in lowered or (status == 403 and ("moderation" in lowered or "flagged" in lowered)):
            return ChatError("refusal", f"HTTP {status}: {said}", raw=said)
        if status in (401, 403):
            hint = f"set {self._llm.api_key_env}" if not self._key else f"check the key in {self._llm.api_key_env}"
            return BackendError(f"{self._llm.address}: HTTP {status}, access denied", hint=hint)
        if status == 404:
            hint = "check base_url (it ends in /v1 for most servers) and model; `doctor` lists what the server offers"
            return BackendError(f"{self._llm.address}: HTTP 404 for model {self._llm.model!r}: {said}", hint=hint)
        about_size = "length" in lowered or "token" in lowered
        if ("context" in lowered and about_size) or "input length" in lowered or "prompt is too long" in lowered:
            return ChatError("too_long", f"HTTP {status}: {said}")
        return ChatError("request", f"HTTP {status}: {said}")

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


def _completion(text: str, key: str) -> Completion:
    """First choice of a reply body; a body that is no chat completion counts as a transport error."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        usage = body.get("usage") or {}
        prompt_tokens, completion_tokens = (int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        finish_reason = str(choice.get("finish_reason") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _RetryableError(f"the body is no chat completion: {safe_line(text, key)[:80]!r}") from None
    if not isinstance(content, str) and not refusal and finish_reason != "content_filter":
        raise _RetryableError("the reply has no text")
    said, declined = encodable(content or ""), encodable(str(refusal or ""))
    logprobs = read_logprobs(choice.get("logprobs"))
    return Completion(said, encodable(finish_reason), declined, prompt_tokens, completion_tokens, logprobs)


def _embeddings(text: str, key: str) -> list[list[float]]:
    """Vectors of a reply body, in the order of the texts; a body that holds none counts as a transport error."""
    try:
        data = sorted(json.loads(text)["data"], key=lambda item: int(item["index"]))
        return [[float(value) for value in item["embedding"]] for item in data]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _RetryableError(f"the body holds no embeddings: {safe_line(text, key)[:80]!r}") from None


def encodable(text: str) -> str:
    """A text with U+FFFD for every lone surrogate, which JSON can name and no file can hold."""
    return _SURROGATE.sub("\ufffd", text)


def _error_message(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


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
