"""How requests travel to a server: over kept connections of our own where it speaks plain HTTP, else by `openai`.

In: a path of the API and a body. Out: status, headers and text of the reply, whatever the status, or `WireError`.

The decision a reader would question: an HTTP client of our own for ``http://``. That is where model servers of one's
own stand, which take hundreds of requests a second; there `openai` and its HTTP library cost more processor time than
all the rest of a stage, and a window of 64 requests was never full. For everything that has to do with TLS and proxies
the library stays.
"""

import asyncio
import contextlib
import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

CHAT, EMBEDDINGS, MODELS = "/chat/completions", "/embeddings", "/models"
MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 256 << 20


class WireError(Exception):
    """No whole reply came.

    Args:
        message: What happened.
        is_unreachable: Whether nobody answers at the address.
    """

    def __init__(self, message: str, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.is_unreachable = is_unreachable


@dataclass(frozen=True, slots=True)
class WireReply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    text: str


class Wire(Protocol):
    """A way to one server."""

    async def send(self, path: str, body: Mapping[str, Any]) -> WireReply:
        """Send one request and wait for its whole reply.

        Args:
            path: `CHAT`, `EMBEDDINGS` or `MODELS`.
            body: The request; nothing is sent where it is empty.

        Raises:
            WireError: If no whole reply came.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def open_wire(address: str, key: str) -> Wire:
    """The way to a server.

    Args:
        address: Address up to and including ``/v1``.
        key: Key to send.
    """
    parts = urllib.parse.urlsplit(address)
    is_plain = parts.scheme == "http" and parts.hostname and address.isascii() and address.isprintable()
    if is_plain and " " not in address and not _has_proxy(parts.hostname or ""):
        return PlainWire(address, key)
    return LibraryWire(address, key)


def _has_proxy(host: str) -> bool:
    proxies = urllib.request.getproxies()
    return ("http" in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host)


class PlainWire:
    """HTTP/1.1 over connections that are kept; as many as there are requests at once.

    Args:
        address: Address of a server, with ``http``.
        key: Key to send.
    """

    def __init__(self, address: str, key: str) -> None:
        parts = urllib.parse.urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._prefix = parts.path
        self._head = (
            f" HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nAccept: application/json\r\n"
            "Accept-Encoding: identity\r\nUser-Agent: fineinstructions\r\n"
        )
        self._idle: list[_Connection] = []

    async def send(self, path: str, body: Mapping[str, Any]) -> WireReply:
        """Send one request; see `Wire`."""
        connection = self._kept() or await self._connect()
        try:
            connection.writer.write(self._request(path, body))
            reply, is_over = await _read_reply(connection.reader)
        except BaseException as error:
            connection.writer.transport.abort()
            if isinstance(error, asyncio.IncompleteReadError):
                raise WireError("the server hung up before the reply was whole") from None
            if isinstance(error, OSError | ValueError | asyncio.LimitOverrunError):
                raise WireError(str(error) or type(error).__name__) from None
            raise
        if is_over:
            connection.writer.close()
        else:
            self._idle.append(connection)
        return reply

    async def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().writer.close()
        await asyncio.sleep(0)  # lets transports go

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()
        return None

    async def _connect(self) -> "_Connection":
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            raise WireError(error.strerror or str(error), is_unreachable=True) from None
        return _Connection(reader, writer)

    def _request(self, path: str, body: Mapping[str, Any]) -> bytes:
        if not body:
            return f"GET {self._prefix}{path}{self._head}\r\n".encode()
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        return f"POST {self._prefix}{path}{self._head}{kind}".encode() + raw


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def _read_reply(reader: asyncio.StreamReader) -> tuple[WireReply, bool]:
    """A reply, and whether the connection ends with it."""
    status = 100
    while 100 <= status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        status = int(rest[:3])
    if not version.startswith("HTTP/1."):
        raise ValueError(f"no HTTP: {first[:80]!r}")
    headers = {k.strip().lower(): v.strip() for k, colon, v in (line.partition(":") for line in lines) if colon}
    connection, is_over = headers.get("connection", "").lower(), False
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ValueError("the reply is compressed, which was not asked for")
    if status in (204, 304):
        raw = b""
    elif headers.get("transfer-encoding", "").lower().endswith("chunked"):
        raw = await _read_chunks(reader)
    elif "content-length" in headers:
        raw = await reader.readexactly(_size(headers["content-length"], 10))
    else:
        raw, is_over = await _read_to_end(reader), True
    is_over = is_over or "close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection)
    return WireReply(status, headers, raw.decode("utf-8", "replace")), is_over


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks, total = [], 0
    while size := _size((await reader.readuntil(b"\r\n")).partition(b";")[0].decode("latin-1"), 16):
        total += _size(str(total + size), 10) - total
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return b"".join(chunks)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    chunks, total = [], 0
    while chunk := await reader.read(1 << 16):
        total = _size(str(total + len(chunk)), 10)
        chunks.append(chunk)
    return b"".join(chunks)


def _size(text: str, base: int) -> int:
    size = int(text.strip(), base)
    if not 0 <= size <= MAX_BODY_BYTES:
        raise ValueError(f"a body of {text.strip()[:20]} bytes")
    return size


class LibraryWire:
    """The client of `openai`, with its TLS, proxies and redirects.

    Args:
        address: Address of a server.
        key: Key to send.
    """

    def __init__(self, address: str, key: str) -> None:
        from openai import AsyncOpenAI

        self._server = AsyncOpenAI(api_key=key, base_url=address, max_retries=0, timeout=None)

    async def send(self, path: str, body: Mapping[str, Any]) -> WireReply:
        """Send one request; see `Wire`."""
        import openai

        try:
            response = (await self._raw(path, body)).http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:
            cause = error.__cause__
            is_unreachable = type(cause).__name__ == "ConnectError"  # of httpx or its successor
            raise WireError(str(cause or error), is_unreachable=is_unreachable) from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return WireReply(response.status_code, headers, response.text)

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(RuntimeError):  # its library's, where the loop ends
            await self._server.close()

    async def _raw(self, path: str, body: Mapping[str, Any]) -> Any:
        if path == MODELS:
            return await self._server.models.with_raw_response.list()
        named = ("model", "messages") if path == CHAT else ("model", "input", "encoding_format")
        rest = {key: value for key, value in body.items() if key not in named}
        if path == CHAT:
            create = self._server.chat.completions.with_raw_response.create
            return await create(model=body["model"], messages=body["messages"], extra_body=rest)
        return await self._server.embeddings.with_raw_response.create(
            model=body["model"], input=body["input"], encoding_format="float", extra_body=rest
        )
