"""One OpenAI-compatible server as a process sees it: its connection, its slots, and how it fares.

In: a request body. Out: what the server says, or the trouble with this one attempt: `RetryableError` where another may
succeed, `ChatError` where this request cannot be answered, a plain `BackendError` where no request will be (no key, no
such model). Which server is asked, and how often, is decided in `servers`.
"""

import asyncio
import email.utils
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fineinstructions.backends.completion import (
    ChatError,
    Completion,
    error_message,
    kind_of_status,
    safe_line,
)
from fineinstructions.backends.gate import Gate
from fineinstructions.backends.llm_config import LlmConfig, key_of
from fineinstructions.backends.wire import Wire, WireError, WireReply
from fineinstructions.errors import BackendError

TURNED_BACK = (429, 503)
"""Statuses by which a server says that it is asked too much."""
TROUBLES_BEFORE_REST = 3
"""Attempts in a row that fail before other servers take over; one that finds nobody is enough."""
SHORTEST_REST_SECONDS, LONGEST_REST_SECONDS = 1.0, 30.0
"""Time before a server that failed is tried again; doubles each time."""

R = TypeVar("R")
Read = Callable[[str, str], R]
"""From the text of a reply and the key that was sent to what it says."""


class RetryableError(Exception):
    """An attempt that may succeed when made again.

    Args:
        message: One line with what happened.
        is_unreachable: Whether nobody answers at the address.
    """

    def __init__(self, message: str, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.is_unreachable = is_unreachable


class Endpoint:
    """One server; lives on the client's event loop and must only be used there.

    Args:
        address: Where it is.
        key_env: Variable that holds its key.
        gate: Its slots.
    """

    def __init__(self, address: str, key_env: str, gate: Gate) -> None:
        self.address, self.gate = address, gate
        self._key_env, self._key = key_env, key_of(key_env)
        self._wire = Wire(address, self._key or "none")
        self.was_reached = False
        self.why_ailing = ""
        """What last went wrong before it was given a rest."""
        self.calls = self.retries = 0
        self._troubles_in_a_row = 0
        self._troubled_at = 0.0
        self._rest_until = self._rest_seconds = 0.0

    @property
    def silent_seconds(self) -> float:
        """Since when every attempt has failed; 0 where the last one has not."""
        return time.monotonic() - self._troubled_at if self._troubles_in_a_row else 0.0

    @property
    def is_ailing(self) -> bool:
        """Whether others should be asked: it failed, and has not succeeded since."""
        return self._rest_seconds > 0

    @property
    def is_due(self) -> bool:
        """Whether one request should try an ailing server."""
        return self.is_ailing and not self.gate.in_flight and time.monotonic() >= self._rest_until

    @property
    def seconds_to_news(self) -> float:
        """Time until its rest or the pause that it asked for is over, whichever comes first; 0 where neither lasts."""
        now = time.monotonic()
        return min((at - now for at in (self._rest_until, self.gate.resume_at) if at > now), default=0.0)

    async def attempt(self, path: str, body: Mapping[str, Any], read: Read[R], llm: LlmConfig) -> R:
        """Make one request, in a slot that was taken before.

        Raises:
            RetryableError: If it failed.
            ChatError: If this request cannot be answered.
            BackendError: If no request to this server will be.
        """
        trip = self.gate.trip
        try:
            async with asyncio.timeout(llm.timeout_seconds):
                got = await self._wire.send(path, body)
        except TimeoutError:
            raise self._failed(RetryableError(f"no reply within {llm.timeout_seconds:g} s")) from None
        except WireError as error:
            line = f"connection failed: {self._safe(str(error))}"
            raise self._failed(RetryableError(line, is_unreachable=error.is_unreachable)) from None
        self.was_reached = True
        if not 200 <= got.status < 300:
            raise self._status_trouble(got, llm, trip)
        try:
            reply = read(got.text, self._key)
        except RetryableError as trouble:
            raise self._failed(trouble) from None
        self._succeeded()
        self.gate.answered()
        return reply

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    def _succeeded(self) -> None:
        """Note that the server answers, if only to refuse a request."""
        self.gate.succeeded()
        self._troubles_in_a_row = 0
        self._rest_until = self._rest_seconds = 0.0

    def _failed(self, trouble: RetryableError) -> RetryableError:
        """The trouble, noted; one that finds nobody, or comes time and again, gives the server a rest."""
        if not self._troubles_in_a_row:
            self._troubled_at = time.monotonic()
        self._troubles_in_a_row += 1
        if trouble.is_unreachable or self._troubles_in_a_row >= TROUBLES_BEFORE_REST:
            self._rest(str(trouble))
        return trouble

    def _refused(self, error: BackendError) -> BackendError:
        self._rest(str(error).removeprefix(f"{self.address}: "))
        return error

    def _rest(self, why: str) -> None:
        now = time.monotonic()
        if now >= self._rest_until:  # not once more for each request that was under way
            longer = min(LONGEST_REST_SECONDS, 2 * self._rest_seconds)
            self._rest_seconds = max(SHORTEST_REST_SECONDS, longer)
            self._rest_until = now + self._rest_seconds
            self.why_ailing = why

    def _status_trouble(self, got: WireReply, llm: LlmConfig, trip: int) -> BackendError | RetryableError:
        status, text = got.status, got.text
        said, kind = self._safe(error_message(text)), kind_of_status(status, text)
        if kind == "quota":
            hint = "check the account, then rerun to resume"
            return self._refused(BackendError(f"{self.address}: the quota is used up", hint=hint))
        if kind == "transport":
            pause = retry_after_seconds(got.headers, llm.max_retry_after_seconds)
            is_full = status in TURNED_BACK
            trouble = RetryableError(f"HTTP {status}: {said}")
            if is_full:
                self.gate.turned_back(trip)
            if pause:
                self.gate.hold(pause)
            # A server that is full was asked too much; one that turns back a request that is alone there is away.
            return self._failed(trouble) if not is_full or self.gate.in_flight == 1 else trouble
        if 300 <= status < 400:
            hint = "set llm.base_url to where it sends you"
            return self._refused(BackendError(f"{self.address}: HTTP {status}: it is elsewhere", hint=hint))
        if kind == "denied":
            hint = f"set {self._key_env}" if not self._key else f"check the key in {self._key_env}"
            return self._refused(BackendError(f"{self.address}: HTTP {status}, access denied", hint=hint))
        if kind == "unknown":
            hint = "check base_url (it ends in /v1 for most servers) and model; `doctor` lists what the server offers"
            line = f"{self.address}: HTTP 404 for model {llm.model!r}: {said}"
            return self._refused(BackendError(line, hint=hint))
        if kind == "gone":
            return self._refused(BackendError(f"{self.address}: {said}"))
        self._succeeded()
        return ChatError(kind, f"HTTP {status}: {said}", raw=said if kind == "refusal" else "")

    def _safe(self, text: str) -> str:
        return safe_line(text, self._key)


def read_completion(text: str, key: str) -> Completion:
    """First choice of a reply body; a body that is no chat completion counts as a transport error."""
    try:
        return Completion.from_body(json.loads(text))
    except (ValueError, RecursionError) as error:
        is_json = not isinstance(error, json.JSONDecodeError | RecursionError)
        said = str(error) if is_json else "the body is no chat completion"
        raise RetryableError(f"{said}: {safe_line(text, key)[:80]!r}") from None


def read_models(text: str, key: str) -> list[dict[str, Any]] | None:
    """Entries of a list of models; None for a body of another shape."""
    del key
    try:
        return [dict(entry) for entry in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_embeddings(text: str, key: str) -> list[list[float]]:
    """Vectors of a reply body, in the order of the texts; a body that holds none counts as a transport error."""
    try:
        data = sorted(json.loads(text)["data"], key=lambda item: int(item["index"]))
        return [[float(value) for value in item["embedding"]] for item in data]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        raise RetryableError(f"the body holds no embeddings: {safe_line(text, key)[:80]!r}") from None


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
