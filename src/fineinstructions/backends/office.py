"""How a client comes to its allotments: from its own process, or from the desk of its run.

In: gates with something to report. Out: their allotments. A process is told once who gives them, its *office*; a client
that is made where nobody has said so shares with nobody.

The decision a reader would question: an office belongs to the process, not to a recipe or to the arguments of a
function. What builds models knows nothing of engines, and all that a process asks of a server has to share.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from fineinstructions.backends.allotments import Allotment, Allotments, Report, scaled
from fineinstructions.backends.desk import MAX_LINE_BYTES, NOBODY, DeskAddress, as_line, read_line
from fineinstructions.backends.gate import QUIET_SECONDS, Gate

TICK_SECONDS = 0.02
"""Shortest time between two lines of a client."""
SIGN_OF_LIFE_SECONDS = 5.0
CONNECT_SECONDS = 20.0
RETRY_SECONDS = 5.0
"""Wait before a desk that was not reached is tried again."""

Office = Allotments | DeskAddress

_offices: list[Office] = []
_unreached: dict[str, DeskAddress] = {}


@contextlib.contextmanager
def office_of_process(office: Office) -> Iterator[None]:
    """Have clients that are made in this context get their allotments from one place."""
    _offices.append(office)
    try:
        yield
    finally:
        _offices.remove(office)
        _unreached.clear()


def join_office(office: DeskAddress) -> None:
    """Have all clients of this process get their allotments from a desk, until it joins another."""
    _offices[:] = [office]
    _unreached.clear()


def office_trouble() -> str:
    """What a user should know about the office of this process; empty where all is well."""
    for desk in _unreached.values():
        return (
            f"not every worker reaches the driver ({desk.host} port {desk.port}): one that does not keeps to one part "
            f"in {desk.num_workers} of llm.max_in_flight"
        )
    return ""


class _Channel(Protocol):
    def send(self, reports: list[Report]) -> None: ...

    async def close(self) -> None: ...


class _Here:
    """Allotments of this process."""

    def __init__(self, allotments: Allotments, deliver: Callable[[Allotment], None], num_workers: int = 1) -> None:
        self._allotments, self._num_workers = allotments, num_workers
        loop = asyncio.get_running_loop()

        def tell(allotment: Allotment) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, allotment)

        self._client = allotments.join(tell)

    def send(self, reports: list[Report]) -> None:
        for report in reports:
            self._allotments.report(self._client, scaled(report, self._num_workers))

    async def close(self) -> None:
        self._allotments.leave(self._client)


class _There:
    """A connection to a desk."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._said_at = time.monotonic()

    def send(self, reports: list[Report]) -> None:
        if reports or time.monotonic() - self._said_at >= SIGN_OF_LIFE_SECONDS:
            self._said_at = time.monotonic()
            self._writer.write(as_line(reports))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._writer.wait_closed()


class Line:
    """What one client has to do with its office; lives on the client's event loop.

    Args:
        on_free: Called when slots may have become free.
    """

    def __init__(self, on_free: Callable[[], None]) -> None:
        self._office = _offices[-1] if _offices else Allotments()
        self._on_free = on_free
        self._gates: dict[str, Gate] = {}
        self._stirred = asyncio.Event()
        self._channel: _Channel | None = None
        self._num_channels = 0
        self._tasks: list[asyncio.Task[None]] = []

    def gate(self, server: str, limit: int) -> Gate:
        """The gate to a server; the smallest limit that anybody names holds."""
        if not self._tasks:
            self._start()
        if server not in self._gates:
            self._gates[server] = Gate(server, limit, self._stirred.set, self._on_free)
        gate = self._gates[server]
        gate.limit = min(gate.limit, limit)
        return gate

    async def close(self) -> None:
        """Tell what was not told yet, and give everything back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.send([gate.whole_report() for gate in self._gates.values()])
            await channel.close()

    def _start(self) -> None:
        if isinstance(self._office, Allotments):
            self._stay_here(self._office)
        elif self._office.port == NOBODY:
            self._stay_here(Allotments(), self._office.num_workers)
        else:
            self._tasks.append(asyncio.create_task(self._stay_connected(self._office)))
        self._tasks.append(asyncio.create_task(self._speak()))

    async def _speak(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._stirred.wait()
            self._stirred.clear()
            if self._channel is not None:
                self._channel.send([r for gate in self._gates.values() if (r := gate.report()) is not None])
            await asyncio.sleep(TICK_SECONDS)

    async def _stay_connected(self, desk: DeskAddress) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):  # it is not there, or not ours
                await self._talk(desk)
            if not isinstance(self._channel, _Here):
                _unreached[desk.token] = desk
                self._stay_here(Allotments(), desk.num_workers)
            await asyncio.sleep(RETRY_SECONDS)

    async def _talk(self, desk: DeskAddress) -> None:
        """Get allotments from a desk until it is gone; one that takes no token of ours has told nothing."""
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(desk.reachable_host, desk.port, limit=MAX_LINE_BYTES)
        try:
            writer.write(desk.token.encode() + b"\n" + as_line([]))
            async with asyncio.timeout(CONNECT_SECONDS):
                if not await reader.readline():
                    raise ConnectionError("not let in")
            self._change_channel(_There(writer))
            while line := await reader.readline():
                for plain in read_line(line):
                    self._deliver(self._num_channels, Allotment.from_plain(plain))
        except asyncio.CancelledError:
            if not isinstance(self._channel, _There):
                writer.close()
            raise  # else `close` has something to tell first
        except (OSError, ValueError):
            writer.close()
            raise
        writer.close()

    def _stay_here(self, allotments: Allotments, num_workers: int = 1) -> None:
        deliver = partial(self._deliver, self._num_channels + 1)
        self._change_channel(_Here(allotments, deliver, num_workers))

    def _change_channel(self, channel: _Channel) -> None:
        self._channel = channel
        self._num_channels += 1
        for gate in self._gates.values():
            gate.forget_allotment()
        self._stirred.set()

    def _deliver(self, channel: int, allotment: Allotment) -> None:
        gate = self._gates.get(allotment.server)
        if gate is not None and channel == self._num_channels:
            gate.take(allotment)
