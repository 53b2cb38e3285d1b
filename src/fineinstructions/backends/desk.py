"""Where the workers of a run hear of their allotments: a desk in the driver, and how its address is told.

In: connections over TCP that show the run's token, then one line of JSON with reports at a time. Out: lines with
allotments. Whoever connects without the token is dropped, and so is a client that is silent for too long or dead; its
slots go to the others. Nothing is unpickled, no line may be long, and all that a client can do is ask for slots.

The decision a reader would question: one service in the driver, and no agreement among workers. Its end costs a run
nothing but balance: a worker that does not reach it keeps to its even part of the limit.
"""

import asyncio
import contextlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from fineinstructions.backends.allotments import Allotment, Allotments, Report
from fineinstructions.backends.event_loop import LoopThread

NOBODY = 0
"""Port of a desk that nobody sits at: no driver waits, and every worker keeps to its even part of the limit."""
MAX_LINE_BYTES = 256 << 10
HELLO_SECONDS = 20.0
"""How long a connection may take to show its token."""
SILENCE_SECONDS = 60.0
"""How long a client may say nothing."""
MAX_STRANGERS = 64
"""Connections that have not shown a token yet; more are dropped at once."""
_MAX_UNREAD_BYTES = 1 << 20


def as_line(messages: Sequence[Report | Allotment]) -> bytes:
    """Messages as they are sent."""
    return json.dumps([message.to_plain() for message in messages], separators=(",", ":")).encode() + b"\n"


def read_line(line: bytes) -> list[Any]:
    """Plain messages of a line.

    Raises:
        ValueError: If it is none.
    """
    try:
        plain = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(plain, list):
        raise ValueError("no list of messages")
    return plain


@dataclass(frozen=True, slots=True)
class DeskAddress:
    """What a worker is told: where the desk is, and what it does without."""

    host: str
    port: int
    node: str
    """Name of the machine, which is loopback to its own workers."""
    token: str = field(repr=False)
    num_workers: int = 1
    """Workers that share the limit."""

    @property
    def reachable_host(self) -> str:
        """The host as this machine reaches it."""
        return "127.0.0.1" if self.node == os.uname().nodename else self.host


class Desk:
    """The desk; as a context manager it runs in a thread of this process.

    Args:
        allotments: What is told at it.
        host: Name or address of this machine for the workers; None for workers of this machine only.
    """

    def __init__(self, allotments: Allotments, host: str | None = None) -> None:
        self._allotments, self._host = allotments, host
        self._token = secrets.token_hex(32)
        self._port = 0
        self._num_strangers = 0
        self._connections: set[asyncio.Task[None]] = set()

    def address(self, num_workers: int) -> DeskAddress:
        """What workers are told, once the desk is open."""
        return DeskAddress(self._host or "127.0.0.1", self._port, os.uname().nodename, self._token, max(1, num_workers))

    def __enter__(self) -> Self:
        self._thread = LoopThread("allotment-desk")
        self._thread.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._shut())
        self._thread.stop()

    async def _open(self) -> None:
        address = "0.0.0.0" if self._host else "127.0.0.1"
        self._server = await asyncio.start_server(self._connected, address, 0, limit=MAX_LINE_BYTES, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if await self._knows_token(reader):
                await self._serve(reader, writer)
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # it is gone, silent, or no client of ours; or the desk is closed
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _knows_token(self, reader: asyncio.StreamReader) -> bool:
        if self._num_strangers >= MAX_STRANGERS:
            return False
        self._num_strangers += 1
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                shown = (await reader.readline()).strip()
        finally:
            self._num_strangers -= 1
        return hmac.compare_digest(shown, self._token.encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(allotment: Allotment) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._thread.loop.call_soon_threadsafe(send, as_line([allotment]))

        def send(line: bytes) -> None:
            if writer.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
                writer.transport.abort()
            else:
                writer.write(line)

        client = self._allotments.join(tell)
        writer.write(as_line([]))  # welcome
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    line = await reader.readline()
                if not line:
                    return
                for plain in read_line(line):
                    self._allotments.report(client, Report.from_plain(plain))
        finally:
            self._allotments.leave(client)
