"""An OpenAI-compatible server that follows a script, for tests and dry runs, over real HTTP.

In: HTTP requests for chat completions, models, embeddings, moderations and health. Out: replies of a `Brain`, or the
faults of a plan. Both depend only on the request body and on how often it was sent, never on time or order, so that a
run against it can be repeated. It listens on the loopback address only, unless told otherwise.

Run it with ``python -m fineinstructions.backends.scripted_server --port 8000``.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, get_args

from fineinstructions.backends.event_loop import LoopThread
from fineinstructions.backends.scripted_brain import echo, embeddings, moderations, slipping
from fineinstructions.backends.scripted_load import Load
from fineinstructions.backends.scripted_replies import (
    Reply,
    StatusError,
    chat_completion,
    error_body,
    forced_value,
    is_object,
    uniform,
)
from fineinstructions.errors import ConfigError

Fault = Literal[
    "rate_limit", "server_error", "unavailable", "reset", "half_body", "hang", "wrong_type", "bad_json", "no_choice",
    "garbage", "surrogate",
]  # fmt: skip
"""HTTP 429 with Retry-After, 500, 503, connection reset, body cut in the middle, no reply at all, HTML instead of JSON,
broken JSON, no choice in the reply, a proper reply with nonsense in it, and one with half a surrogate pair."""

FaultPlan = Callable[[Mapping[str, Any], int], Fault | None]
"""From a request body and how often it came before (0 for the first time) to a fault, or None for a proper reply."""

_MAX_BODY_BYTES = 64 << 20
_Model = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


Brain = Callable[[Mapping[str, Any]], str | Reply]
"""From the body of a chat request to the reply."""

Embedder = Callable[[dict[str, Any]], dict[str, Any]]
"""From the body of an embeddings request to the body of the reply; may raise `StatusError`."""


def seeded_faults(rates: Mapping[Fault, float], seed: int = 0) -> FaultPlan:
    """A plan that strikes at fixed rates.

    Args:
        rates: Share of requests that meet each fault; their sum must not exceed 1.
        seed: Chooses which requests.

    Raises:
        ConfigError: If a rate is unknown or the rates are no shares.
    """
    unknown = sorted(set(rates) - set(get_args(Fault)))
    if unknown or min(rates.values(), default=0) < 0 or sum(rates.values()) > 1:
        raise ConfigError(
            f"faults {dict(rates)}: known are {', '.join(get_args(Fault))}, with rates that sum to at most 1"
        )

    def plan(body: Mapping[str, Any], times: int) -> Fault | None:
        left = uniform(seed, "fault", times, body)
        for fault, rate in rates.items():
            left -= rate
            if left < 0:
                return fault
        return None

    return plan


class ScriptedServer:
    """The server; as a context manager it runs in a thread of this process.

    Args:
        brain: What replies to chat requests.
        embedder: What replies to embeddings requests.
        faults: Which requests fail, and how.
        latency_seconds: Mean of the exponentially distributed time to a reply.
        capacity: Most requests that are taken at once; others are answered with `full_status` at once. None for any.
        full_status: 429 or 503.
        structured: What ``response_format`` does: ``schema`` holds a reply to values that the schema leaves no choice
            in, ``object`` the same and refuses schemas, ``ignore`` nothing, ``reject`` answers 400, ``break`` 500. Any
            other is the name of the one field that is obeyed, such as ``guided_json``.
        logprobs: What a request for log-probabilities gets: them, a reply without them, or 400.
        api_key: Key that requests must carry; None accepts any.
        models: Names that exist; empty for any.
        max_model_len: What the entries of ``/v1/models`` say about it; None for nothing.
        retry_after: Value of that header in 429 replies.
        seed: Seed of the latencies.
        host: Address to listen on.
        port: Port; 0 for a free one.
        keep_bodies: Whether to keep every request body in `bodies`.
    """

    def __init__(
        self,
        brain: Brain = echo,
        *,
        embedder: Embedder = embeddings,
        faults: FaultPlan | None = None,
        latency_seconds: float = 0.0,
        capacity: int | None = None,
        full_status: int = 429,
        structured: Literal[
            "schema", "object", "ignore", "reject", "break", "structured_outputs", "guided_json", "grammar"
        ] = "ignore",
        logprobs: Literal["give", "ignore", "reject"] = "give",
        api_key: str | None = None,
        models: Sequence[str] = (),
        max_model_len: int | None = None,
        retry_after: str = "0.05",
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        keep_bodies: bool = False,
    ) -> None:
        self._brain, self._embedder = brain, embedder
        self._faults, self._latency_seconds = faults, latency_seconds
        self._structured, self._logprobs, self._max_model_len = structured, logprobs, max_model_len
        self._api_key, self._models, self._retry_after, self._seed = api_key, tuple(models), retry_after, seed
        self._host, self._port, self._keep_bodies = host, port, keep_bodies
        self._times: Counter[bytes] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: Counter[str] = Counter()
        """Requests so far, by path."""
        self.faults_sent: Counter[str] = Counter()
        """Faults so far, by kind."""
        self.bodies: list[dict[str, Any]] = []
        """Bodies of the chat and embeddings requests, if kept."""
        self.load = Load(capacity)
        """Requests to its models that are under way."""
        self._full_status = full_status

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self.load.in_flight

    @property
    def max_in_flight(self) -> int:
        """Most of them under way at once."""
        return self.load.max_in_flight

    @property
    def base_url(self) -> str:
        """Address for a client, once the server runs."""
        return f"http://{self._host}:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread = LoopThread("scripted-server")
        self._thread.run(self.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self.stop())
        self._thread.stop()

    async def start(self) -> None:
        """Start listening on the running event loop."""
        self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=1 << 20, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop the connections."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client went away, or the server stops
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one request; false when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path = head.split(" ", 2)[:2]
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head.splitlines()[1:])}
        length = int(headers.get("content-length") or 0)
        if length > _MAX_BODY_BYTES:
            await _send(writer, 413, error_body("the request body is too long"))
            return False
        raw = await reader.readexactly(length)
        self.requests[path] += 1
        if path == "/health":  # without a key, as with vLLM and SGLang
            await _send(writer, 200, {})
            return True
        stays_open = await self._answer(method, path, headers, raw, writer)
        return stays_open and headers.get("connection", "").lower() != "close"

    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str], raw: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; false when the connection is gone or no longer of use."""
        if self._api_key is not None and headers.get("authorization") != f"Bearer {self._api_key}":
            await _send(writer, 401, error_body(f"wrong key: {headers.get('authorization', 'none')}"))
            return True
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            await _send(writer, 400, error_body("the request body is no JSON"))
            return True
        models = {"/v1/chat/completions": self._completion, "/v1/embeddings": self._embeddings}
        if method == "POST" and path in models:
            return await self._ask(models[path], body, raw, writer)
        answers: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("GET", "/v1/models"): self._list_models,
            ("POST", "/v1/moderations"): moderations,
            ("GET", "/load"): lambda _: self.load.figures(),
        }
        answer = answers.get((method, path))
        await _send(writer, 200 if answer else 404, answer(body) if answer else error_body(f"no such path: {path}"))
        return True

    async def _ask(self, model: _Model, body: dict[str, Any], raw: bytes, writer: asyncio.StreamWriter) -> bool:
        if self._keep_bodies:
            self.bodies.append(body)
        key = hashlib.blake2b(raw, digest_size=8).digest()
        times = self._times[key]
        self._times[key] += 1
        if not self.load.takes_one_more():
            await _send(writer, self._full_status, error_body(f"more than {self.load.capacity} requests at once"))
            return True
        self.load.begin()
        try:
            if self._latency_seconds:
                await asyncio.sleep(-self._latency_seconds * math.log1p(-uniform(self._seed, "wait", times, body)))
            fault = self._faults(body, times) if self._faults else None
            if fault is not None:
                self.faults_sent[fault] += 1
                return await self._misbehave(fault, body, writer)
            status, answer = model(body)
            await _send(writer, status, answer)
            return True
        finally:
            self.load.end()

    async def _misbehave(self, fault: Fault, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer in the way of a fault; false when the connection is gone."""
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "reset":
            # Closing with a linger time of zero sends RST instead of FIN.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        answer = chat_completion(body, Reply("half \ud83d a pair" if fault == "surrogate" else "]}garbage{["))
        if fault == "half_body":
            whole = _response(200, json.dumps(answer).encode())
            writer.write(whole[: len(whole) - 40])
            await writer.drain()
            return False
        if fault in ("rate_limit", "server_error", "unavailable"):
            status = {"rate_limit": 429, "server_error": 500, "unavailable": 503}[fault]
            headers = {"Retry-After": self._retry_after} if fault == "rate_limit" else {}
            await _send(writer, status, error_body(f"scripted fault: {fault}"), headers)
        elif fault == "wrong_type":
            writer.write(_response(200, b"<html>Bad gateway</html>", content_type="text/html"))
        elif fault == "bad_json":
            writer.write(_response(200, b'{"choices": [{"message": '))
        else:
            await _send(writer, 200, answer | {"choices": []} if fault == "no_choice" else answer)
        await writer.drain()
        return True

    def _completion(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of a proper reply."""
        model = str(body.get("model", ""))
        if self._models and model not in self._models:
            return 404, error_body(f"the model {model!r} does not exist", "model_not_found")
        wanted = body.get("response_format") or {}
        kind = wanted.get("type")
        if wanted and (self._structured == "reject" or (self._structured == "object" and kind == "json_schema")):
            return 400, error_body(f"response_format {kind} is not supported")
        if wanted and self._structured == "break":
            return 500, error_body("something went wrong")
        if body.get("logprobs") and self._logprobs == "reject":
            return 400, error_body("logprobs are not supported")
        if self._logprobs == "ignore":
            body = {name: value for name, value in body.items() if name != "logprobs"}
        forced = forced_value(body, self._structured)
        if forced is not None:
            return 200, chat_completion(body, Reply(json.dumps(forced)))
        try:
            said = self._brain(body)
        except StatusError as error:
            return error.status, error_body(str(error), error.code)
        reply = said if isinstance(said, Reply) else Reply(said)
        if self._structured in ("schema", "object") and kind == "json_object" and not is_object(reply.text):
            reply = Reply(json.dumps({"reply": reply.text}))
        return 200, chat_completion(body, reply)

    def _embeddings(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            return 200, self._embedder(body)
        except StatusError as error:
            return error.status, error_body(str(error), error.code)

    def _list_models(self, body: dict[str, Any]) -> dict[str, Any]:
        del body
        served = {"object": "model"} | ({"max_model_len": self._max_model_len} if self._max_model_len else {})
        return {"object": "list", "data": [{"id": name, **served} for name in self._models or ("scripted",)]}


async def _send(writer: asyncio.StreamWriter, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
    writer.write(_response(status, json.dumps(body).encode(), headers=headers))
    await writer.drain()


def _response(
    status: int, body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted; prints the address first."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server that follows a script.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one")
    parser.add_argument("--latency-seconds", type=float, default=0.0, help="mean time to a reply")
    parser.add_argument("--capacity", type=int, help="requests taken at once; GET /load tells how many there are")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND=RATE", help=", ".join(get_args(Fault)))
    parser.add_argument("--slips", type=float, default=0.0, help="share of drafts with a fault in their excerpts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        rates = {kind: float(rate) for kind, _, rate in (fault.partition("=") for fault in options.fault)}
        faults = seeded_faults(rates, options.seed)
    except (ValueError, ConfigError) as error:
        parser.error(str(error))
    brain = slipping(options.slips) if options.slips else echo
    server = ScriptedServer(
        brain,
        faults=faults,
        latency_seconds=options.latency_seconds,
        capacity=options.capacity,
        seed=options.seed,
        host=options.host,
        port=options.port,
    )

    async def serve() -> None:
        await server.start()
        print(server.base_url, flush=True)
        await asyncio.Event().wait()

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
    except OSError as error:
        parser.error(f"port {options.port} of {options.host} cannot be used: {error.strerror or error}; name another")


if __name__ == "__main__":
    main()
