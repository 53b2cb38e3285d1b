"""Requests to OpenAI-compatible servers: which of several is asked, when, and how often.

In: a request body and the addresses that may answer it. Out: a `Completion` or vectors; a `ChatError` that says which
kind of trouble one record had; a plain `BackendError` for trouble that would befall every record, which ends the run.

The decisions a reader would question: the retry loop is ours, not the client library's. A request goes to the server
with most free slots, so a slow one gets less without being measured. A retry goes to another server where there is one;
a server that fails gets nothing for a while, then one request to try it, but where all of them fail, all are asked as
if there were only one. The jitter of waits depends on the request, never on chance.
"""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fineinstructions.backends.capabilities import ModelFacts, listed_facts
from fineinstructions.backends.completion import ChatError, Completion
from fineinstructions.backends.endpoint import (
    Endpoint,
    R,
    Read,
    RetryableError,
    read_completion,
    read_embeddings,
    read_models,
)
from fineinstructions.backends.llm_config import LlmConfig, Structured
from fineinstructions.backends.office import Line
from fineinstructions.backends.retry_waits import patience_seconds, wait_before_retry
from fineinstructions.backends.turns import this_turn
from fineinstructions.backends.wire import CHAT, EMBEDDINGS, MODELS
from fineinstructions.errors import BackendError

FIRST_CONTACT_RETRIES = 3
"""Further attempts to connect to a server that was never reached: it is more likely absent than busy."""

UNREACHABLE_POLL_SECONDS = 0.5
"""How often a server that is waited for is tried."""
_NOBODY = (math.inf, math.inf)

MODEL_LIST_RETRIES = 2
"""Further attempts to list a server's models: some answer that with an error always."""


@dataclass(order=True, slots=True)
class _Waiting:
    """A request that waits for a slot; the order is that of serving."""

    turn: int
    """Of the work that it belongs to."""
    number: int
    endpoint: "asyncio.Future[Endpoint]" = field(compare=False)
    avoided: Endpoint | None = field(compare=False)
    """Where it failed last."""


_numbers = itertools.count()


class Pool:
    """Servers that answer for each other: one line of waiting requests for all of them.

    Args:
        endpoints: The servers.
        on_free: Called when a slot at one of them has become free.
    """

    def __init__(self, endpoints: Sequence[Endpoint], on_free: Callable[[], None]) -> None:
        self.endpoints = tuple(endpoints)
        self.first_waiting: tuple[float, float] = _NOBODY
        """Place of the first request that waits, among those of all pools."""
        self._on_free = on_free
        self._num_noted = 0
        self._refusals: dict[Endpoint, BackendError] = {}
        """What servers say to every request."""
        self.fatal: BackendError | None = None
        """Why nothing is sent any more."""
        self._waiting: list[_Waiting] = []
        self._alarm: asyncio.TimerHandle | None = None

    async def retried(
        self, path: str, body: Mapping[str, Any], read: Read[R], llm: LlmConfig, *, retries: int, counts: bool = True
    ) -> tuple[R, float]:
        """Make a request, again where that may help; gives the reply, and seconds from the last request to it.

        Args:
            path: Path of the API.
            body: The whole request body.
            read: Reads the reply.
            llm: Limits of asking.
            retries: Further attempts.
            counts: Whether its failure is one of the failures in a row that end a run.

        Raises:
            ChatError: If this request cannot be answered.
            BackendError: If no request to these servers will be.
        """
        failed_at: list[Endpoint] = []
        for attempt in range(retries + 1):
            endpoint = await self._turn(failed_at[-1] if failed_at else None)
            endpoint.calls += 1
            began = time.monotonic()
            try:
                reply = await self._attempt_once_reachable(endpoint, path, body, read, llm)
                self._refusals.pop(endpoint, None)
                return reply, time.monotonic() - began
            except RetryableError as trouble:
                self._tell_of(endpoint, llm, time.monotonic() - began)
                failed_at.append(endpoint)
                self._check_first_contact(trouble, attempt, retries)
                if attempt == retries:
                    if counts:
                        self._count_failure(set(failed_at), str(trouble), llm)
                    raise ChatError("transport", f"{trouble} ({attempt + 1} attempts)") from None
                wait = wait_before_retry(body, attempt, llm)
            except ChatError as error:
                if error.kind == "request" and counts:
                    self._count_failure({endpoint}, str(error), llm)
                raise
            except BackendError as error:
                self._tell_of(endpoint, llm, time.monotonic() - began)
                failed_at.append(endpoint)
                self._refusals[endpoint] = error
                if len(self._refusals) == len(self.endpoints):
                    raise self.stop(error) from None
                if attempt == retries:
                    if counts:
                        self._count_failure(set(failed_at), str(error), llm)
                    raise ChatError("transport", f"{error} ({attempt + 1} attempts)") from None
                wait = 0.0
            finally:
                endpoint.gate.end()
                self._on_free()
            endpoint.retries += 1
            endpoint.gate.retried()
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _attempt_once_reachable(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], read: Read[R], llm: LlmConfig
    ) -> R:
        """An attempt, before which the only server has time to come back where it takes no connections."""
        deadline = time.monotonic() + (llm.unreachable_seconds if len(self.endpoints) == 1 else 0)
        while True:
            try:
                return await endpoint.attempt(path, body, read, llm)
            except RetryableError as trouble:
                if not trouble.is_unreachable or time.monotonic() >= deadline:
                    raise
                self._tell_of(endpoint, llm, llm.unreachable_seconds)
            await asyncio.sleep(UNREACHABLE_POLL_SECONDS)

    def stop(self, error: BackendError) -> BackendError:
        """Send nothing any more: what waits fails, what is under way may come to its end.

        Args:
            error: Why.

        Returns:
            The first such error.
        """
        self.fatal = self.fatal or error
        while self._waiting:
            waiting = self._waiting.pop()
            if not waiting.endpoint.done():
                waiting.endpoint.set_exception(self.fatal)
        self._note_waiting()
        return self.fatal

    def wake(self) -> None:
        """Give slots that are free to requests that wait: those of the earliest turn first, then as they came."""
        while self._waiting:
            first = self._waiting[0]
            if not first.endpoint.done():
                endpoint = self._choice(first.avoided)
                if endpoint is None:
                    break
                endpoint.gate.begin()
                first.endpoint.set_result(endpoint)
            heapq.heappop(self._waiting)
        self._note_waiting()
        self._set_alarm()

    async def _turn(self, avoided: Endpoint | None) -> Endpoint:
        """Wait for a slot; gives the server that it is taken at."""
        if self.fatal is not None:
            raise self.fatal
        given: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, _Waiting(this_turn(), next(_numbers), given, avoided))
        self.wake()
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:
                given.result().gate.end()
                self._on_free()
            raise

    def _choice(self, avoided: Endpoint | None) -> Endpoint | None:
        """The server with most free slots, none that fails where others do not, another than last time if possible."""
        hale = [e for e in self.endpoints if not e.is_ailing]
        on_trial = [e for e in self.endpoints if e.is_due and e is not avoided]
        able = [*on_trial, *hale] if hale else self.endpoints
        free = [e for e in able if e.gate.free > 0]
        return max(free, key=lambda e: (e is not avoided, e.gate.free), default=None)

    def _note_waiting(self) -> None:
        more = len(self._waiting) - self._num_noted
        self._num_noted += more
        self.first_waiting = (self._waiting[0].turn, self._waiting[0].number) if self._waiting else _NOBODY
        for endpoint in self.endpoints:
            endpoint.gate.waiting += more
            endpoint.gate.look()

    def _set_alarm(self) -> None:
        """Look again when a server's pause or rest is over."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waits = [wait for e in self.endpoints if (wait := e.seconds_to_news) > 0]
        if self._waiting and waits:
            self._alarm = asyncio.get_running_loop().call_later(min(waits), self.wake)

    def _tell_of(self, endpoint: Endpoint, llm: LlmConfig, attempt_seconds: float) -> None:
        """Say how a server fares that has failed: that others take over, or since when and until when it is asked."""
        if not endpoint.is_ailing:
            return
        if any(not e.is_ailing for e in self.endpoints):
            endpoint.gate.troubled(endpoint.why_ailing)
        elif endpoint.silent_seconds and (endpoint.was_reached or llm.unreachable_seconds):
            left = max(1.0, patience_seconds(llm, attempt_seconds) - endpoint.silent_seconds)
            endpoint.gate.unanswered(endpoint.why_ailing, endpoint.silent_seconds, left)

    def _check_first_contact(self, trouble: RetryableError, attempt: int, retries: int) -> None:
        """End it where no server was ever reached.

        Raises:
            BackendError: If none was, and this request has tried often enough.
        """
        is_absent = trouble.is_unreachable and all(e.is_ailing and not e.was_reached for e in self.endpoints)
        if is_absent and attempt >= min(FIRST_CONTACT_RETRIES, retries):
            hint = "start the server, or name the one that is running in llm.base_url or OPENAI_BASE_URL"
            raise self.stop(BackendError(f"{self._name}: {trouble}", retryable=True, hint=hint))

    def _count_failure(self, failed_at: set[Endpoint], trouble: str, llm: LlmConfig) -> None:
        """Count a request that failed, of any worker; where that happens at every server, nothing is sent any more.

        Raises:
            BackendError: If so.
        """
        for endpoint in failed_at:
            endpoint.gate.gave_up()
        most = max(e.gate.given_up_in_a_row for e in self.endpoints)
        is_out = [e.is_ailing or e.gate.given_up_in_a_row >= llm.max_failures_in_a_row for e in self.endpoints]
        if most >= llm.max_failures_in_a_row and all(is_out):
            silent = min(e.silent_seconds for e in self.endpoints)
            since = f"; nothing was answered for {silent:.0f} s" if silent >= 1 else ""
            error = BackendError(
                f"{self._name}: {most} requests in a row failed, the last with: {trouble}{since}",
                retryable=True,
                hint="see to the server, then go on",
            )
            raise self.stop(error)

    @property
    def _name(self) -> str:
        return ", ".join(e.address for e in self.endpoints)


class Servers:
    """All servers that one client asks."""

    fixed: tuple[Structured, bool] | None = None
    """What a server can do has to be tried out."""

    def __init__(self) -> None:
        self._line = Line(self._wake)
        self._endpoints: dict[str, Endpoint] = {}
        self._pools: dict[tuple[str, ...], Pool] = {}

    async def complete(self, body: Mapping[str, Any], llm: LlmConfig, key: str) -> Completion:
        """Send one chat request to one of its servers, with retries.

        Args:
            body: The whole request body.
            llm: Servers and limits.
            key: Empty for a question that finds out what a server can do, whose failure counts for nothing.

        Raises:
            ChatError: If this request cannot be answered.
            BackendError: If no request to these servers will be.
        """
        pool = self._pool(llm.addresses, llm)
        retries, counts = llm.max_retries, bool(key)
        reply, seconds = await pool.retried(CHAT, body, read_completion, llm, retries=retries, counts=counts)
        return replace(reply, seconds=round(seconds, 3))

    async def embed(self, body: Mapping[str, Any], llm: LlmConfig) -> list[list[float]]:
        """Send one embeddings request, with retries; a vector for each text of ``input``, in order.

        Args and errors are those of `complete`.
        """
        pool = self._pool(llm.addresses, llm)
        body = {**body, "encoding_format": "float"}
        vectors, _ = await pool.retried(EMBEDDINGS, body, read_embeddings, llm, retries=llm.max_retries)
        return vectors

    async def facts(self, llm: LlmConfig) -> ModelFacts:
        """What the servers' lists of models say of one: the shortest context, and the first name.

        Raises:
            ChatError: If no reply came through.
            BackendError: If none of the servers can be reached.
        """
        asked = [self._facts_of(address, llm) for address in llm.addresses]
        found = await asyncio.gather(*asked, return_exceptions=True)
        known = [facts for facts in found if isinstance(facts, ModelFacts)]
        if not known:
            raise next(error for error in found if isinstance(error, BaseException))
        contexts = [facts.context_tokens for facts in known if facts.context_tokens is not None]
        names = [facts.served_as for facts in known if facts.served_as]
        return ModelFacts(names[0] if names else "", min(contexts, default=None))

    async def _facts_of(self, address: str, llm: LlmConfig) -> ModelFacts:
        pool, retries = self._pool((address,), llm, MODELS), min(MODEL_LIST_RETRIES, llm.max_retries)
        if len(llm.addresses) > 1:  # the others can say it as well
            llm = llm.model_copy(update={"unreachable_seconds": 0.0})
        try:
            listed, _ = await pool.retried(MODELS, {}, read_models, llm, retries=retries, counts=False)
        except ChatError as error:
            if error.kind == "transport" and "HTTP" not in str(error):
                raise
            listed = None  # it cannot say
        except BackendError as error:
            if error.retryable:
                raise
            listed = None
        return listed_facts(llm.model, listed or [])

    def stop(self, error: BackendError) -> None:
        """Send nothing any more: what waits fails with this error."""
        for pool in self._pools.values():
            pool.stop(error)

    async def close(self) -> None:
        """Give the slots back and close the connections."""
        await self._line.close()
        for endpoint in self._endpoints.values():
            await endpoint.close()

    def figures(self) -> dict[str, int]:
        """Calls and retries of all servers, and the fullest window."""
        endpoints = list(self._endpoints.values())
        return {
            "calls": sum(e.calls for e in endpoints),
            "retries": sum(e.retries for e in endpoints),
            "peak_in_flight": max((e.gate.peak for e in endpoints), default=0),
        }

    def _wake(self) -> None:
        """Hand out slots, first to the pool whose first request comes first: pools may share servers."""
        for pool in sorted(self._pools.values(), key=lambda pool: pool.first_waiting):
            pool.wake()

    def _pool(self, addresses: tuple[str, ...], llm: LlmConfig, purpose: str = CHAT) -> Pool:
        """Servers that answer for each other about one model; whatever the model, they have the same slots.

        What stands in the way of one purpose, such as a list of models that is not given, does not stop others.
        """
        endpoints = [self._endpoint(address, llm) for address in addresses]
        key = (purpose, llm.model, llm.api_key_env, *addresses)
        if key not in self._pools:
            self._pools[key] = Pool(endpoints, self._wake)
        return self._pools[key]

    def _endpoint(self, address: str, llm: LlmConfig) -> Endpoint:
        name = address if llm.api_key_env == "OPENAI_API_KEY" else f"{address} with {llm.api_key_env}"
        gate = self._line.gate(name, llm.max_in_flight)
        if name not in self._endpoints:
            self._endpoints[name] = Endpoint(address, llm.api_key_env, gate)
        return self._endpoints[name]
