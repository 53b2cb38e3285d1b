"""Who may have how many requests under way: the windows of all servers, divided among the clients of a run.

In: what clients report about a server now and then, never a single request. Out: their allotments, whose sum never
exceeds the server's window, and how many requests of all of them were given up in a row. A client with nothing to ask
gives its slots to one that waits.

The decision a reader would question: an allotment that was lowered counts in full until its client says that no more is
under way. So a slot is lost for the moment that a message takes, and no server is ever asked too much.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from fineinstructions.backends.request_window import RequestWindow
from fineinstructions.errors import printable
from fineinstructions.progress import SILENT

_SAME_PAUSE_SECONDS = 0.05
"""Replies of one moment ask for waits that end nearly together; only a later end is worth telling everybody."""
TOLD_AFTER_SECONDS, TOLD_AGAIN_SECONDS = 2.0, 30.0
"""A server that answers nothing is told after so long, and again as often."""
_MOST = 10**9
_MAX_TEXT_CHARS = 1000


class _Message:
    """What can be sent as a JSON object of plain values."""

    def to_plain(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """Inverse of `to_plain`, for values of strangers.

        Raises:
            ValueError: If a value is missing, surplus or senseless.
        """
        kinds = {f.name: f.type for f in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(plain, dict) or plain.keys() != kinds.keys():
            raise ValueError("not the fields of a message")
        return cls(**{name: _checked(value, kinds[name]) for name, value in plain.items()})


def _checked(value: Any, kind: Any) -> Any:
    if kind is str and isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS:
        return printable(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is float and is_number and 0 <= value <= _MOST:
        return float(value)
    if kind is int and isinstance(value, int) and is_number and 0 <= value <= _MOST:
        return value
    raise ValueError(f"{str(value)[:40]!r} is no {kind.__name__} of a message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(_Message):
    """What a client says about one server: how it stands, and what came about since it spoke last."""

    server: str
    """The server's name; slots of one name are shared."""
    serial: int
    """Number of this report, counted by the client from 1."""
    limit: int
    """Most requests that may be under way; the smallest that anybody names holds."""
    heard: int
    """Number of the last allotment that it has heard of."""
    trip: int
    """Round trip of the window as it has heard of it."""
    wants: int
    """Requests that wait and that are under way, at most the limit."""
    in_flight: int
    """Requests under way."""
    peak: int = 0
    """Most of them since the last report."""
    slot_seconds: float = 0.0
    """How many were under way for how long."""
    calls: int = 0
    succeeded: int = 0
    turned_back: int = 0
    """Requests of this round trip that came back with 429 or 503."""
    late: int = 0
    """Such requests of the round trip before."""
    retries: int = 0
    answered: int = 0
    """Requests that were answered."""
    given_up: int = 0
    """Requests that were given up since the last one that was answered."""
    pause_seconds: float = 0.0
    """Wait that the server asked for."""
    trouble: str = ""
    """Why it does without the server for a while; empty where it does not."""
    silent_seconds: float = 0.0
    """Since when the server has answered nothing, where there is no other to do with."""
    patience_seconds: float = 0.0
    """How long the client goes on asking it, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment(_Message):
    """What a client is told about one server."""

    server: str
    number: int
    """Number of this allotment, counted from 1."""
    answers: int
    """Serial of the last report that it takes into account."""
    slots: int
    """Requests that the client may have under way."""
    trip: int
    given_up: int = 0
    """Requests in a row, of all clients, that were given up without one that was answered."""
    pause_seconds: float = 0.0
    """How long nobody may ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFigures:
    """How one server was used."""

    server: str
    limit: int
    window: int
    """Size of the window at the end."""
    least_window: int
    window_changes: int
    mean_in_flight: float
    """While anything was under way."""
    peak_in_flight: int
    """As far as clients have told."""
    calls: int
    turned_back: int
    """Calls that came back with 429 or 503."""
    retries: int


@dataclass
class _Seat:
    """What one client has of one server."""

    slots: int = 0
    charged: int = 0
    """Most requests that it may have under way, as far as is known here."""
    number: int = 0
    serial: int = 0
    wants: int = 0
    in_flight: int = 0


@dataclass
class _Server:
    window: RequestWindow
    seats: dict[int, _Seat] = field(default_factory=dict)
    resume_at: float = 0.0
    last_heard: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    """Sums of reports since figures were taken."""
    num_changes_told: int = 0
    given_up: int = 0
    """Requests in a row, of all clients, that were given up."""
    silent_since: float | None = None
    """When it began to answer nothing, once that was told."""
    told_at: float = -math.inf

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self.used[name] = self.used.get(name, 0) + number


class Allotments:
    """Divides windows among clients; may be used from any thread.

    Args:
        note: Called once for every server that a client has to do without, and now and then while one answers nothing.
        now: Clock, in seconds.
    """

    def __init__(self, note: Callable[[str], None] = SILENT.note, now: Callable[[], float] = time.monotonic) -> None:
        self._note, self._now = note, now
        self._lock = threading.Condition()
        self._servers: dict[str, _Server] = {}
        self._clients: dict[int, Callable[[Allotment], None]] = {}
        self._num_clients = 0
        self._told: set[str] = set()

    def join(self, tell: Callable[[Allotment], None]) -> int:
        """Take up a client.

        Args:
            tell: Hands an allotment over; called with a lock held, so it must not wait and not report.

        Returns:
            The client's number.
        """
        with self._lock:
            self._num_clients += 1
            self._clients[self._num_clients] = tell
            return self._num_clients

    def leave(self, client: int) -> None:
        """Let a client go, with all that it holds."""
        with self._lock:
            self._clients.pop(client, None)
            for name, server in self._servers.items():
                if server.seats.pop(client, None):
                    server.given_up = server.given_up if server.seats else 0
                    self._divide(name, server)
            self._lock.notify_all()

    def wait_until_left(self, seconds: float) -> None:
        """Wait until no client is left, but not for long: what clients still have to tell comes before they leave."""
        with self._lock:
            self._lock.wait_for(lambda: not self._clients, seconds)

    def report(self, client: int, report: Report) -> None:
        """Take in what a client says, and tell whoever it concerns."""
        with self._lock:
            if client not in self._clients:
                return
            limit = max(1, report.limit)
            server = self._servers.setdefault(report.server, _Server(RequestWindow(limit)))
            server.window.lower_limit(limit)
            seat = server.seats.setdefault(client, _Seat())
            _count(server, seat, report, self._now())
            seat.serial, seat.wants, seat.in_flight = report.serial, report.wants, report.in_flight
            if report.heard == seat.number:
                seat.charged = max(seat.slots, report.in_flight)
            is_full = sum(s.wants for s in server.seats.values()) >= server.window.size
            server.window.succeeded(report.succeeded, is_full=is_full)
            server.window.turned_back(report.late, report.trip - 1)
            server.window.turned_back(report.turned_back, report.trip)
            is_paused = self._pause(server, report.pause_seconds)
            given_up = report.given_up + (0 if report.answered else server.given_up)
            is_worse_or_better, server.given_up = given_up != server.given_up, given_up
            is_answered = client if report.turned_back or report.late else None
            self._divide(report.server, server, everybody=is_paused or is_worse_or_better, also=is_answered)
            line = self._news(server, report)
        if line:
            self._note(f"{report.server}: {line}")

    def _news(self, server: _Server, report: Report) -> str:
        """What the user should hear of a server now; empty for nothing."""
        now = self._now()
        if report.answered and server.silent_since is not None:
            silent, server.silent_since = now - server.silent_since, None
            return f"answers again, after {silent:.0f} s"
        if not report.trouble:
            return ""
        if not report.silent_seconds:
            is_news, self._told = report.server not in self._told, self._told | {report.server}
            return f"{report.trouble}; the other servers take its share until it is back" if is_news else ""
        if report.silent_seconds < TOLD_AFTER_SECONDS or now - server.told_at < TOLD_AGAIN_SECONDS:
            return ""
        server.silent_since, server.told_at = now - report.silent_seconds, now
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + report.patience_seconds))
        return (
            f"no answer for {report.silent_seconds:.0f} s ({report.trouble}); it is asked again until about {end}, then"
            " the run ends and can be continued"
        )

    def take_figures(self) -> list[ServerFigures]:
        """How servers were used since figures were last taken; those that nobody asked are left out."""
        with self._lock:
            servers = [(name, server) for name, server in self._servers.items() if server.used.get("calls")]
            found = [_figures(name, server) for name, server in servers]
            for _, server in servers:
                server.used, server.num_changes_told = {}, server.window.num_changes
                server.window.least = server.window.size
            return found

    def _pause(self, server: _Server, seconds: float) -> bool:
        resume_at = self._now() + seconds if seconds else 0.0
        is_longer = resume_at > server.resume_at + _SAME_PAUSE_SECONDS
        server.resume_at = max(server.resume_at, resume_at)
        return is_longer

    def _divide(self, name: str, server: _Server, *, everybody: bool = False, also: int | None = None) -> None:
        """Lower and raise allotments until they are as they should be, as far as charged slots allow."""
        size, seats = server.window.size, server.seats
        should = _shares({client: seat.wants for client, seat in seats.items()}, size)
        free = size - sum(seat.charged for seat in seats.values())
        short = sum(max(0, min(seat.wants, should[client]) - seat.slots) for client, seat in seats.items())
        slots = {client: seat.slots for client, seat in seats.items()}
        if short > free or sum(slots.values()) > size:
            slots = {client: min(number, should[client]) for client, number in slots.items()}
        for client in sorted(seats, key=lambda c: seats[c].wants <= slots[c]):  # who waits comes first
            most = max(slots[client], seats[client].charged + max(0, free))
            if slots[client] < min(should[client], most):
                slots[client] = min(should[client], most)
                free -= max(0, slots[client] - seats[client].charged)
        for client, seat in seats.items():
            if everybody or client == also or slots[client] != seat.slots:
                self._tell(name, server, client, slots[client])

    def _tell(self, name: str, server: _Server, client: int, slots: int) -> None:
        seat = server.seats[client]
        seat.slots, seat.charged, seat.number = slots, max(seat.charged, slots), seat.number + 1
        pause = max(0.0, server.resume_at - self._now())
        self._clients[client](
            Allotment(
                server=name,
                number=seat.number,
                answers=seat.serial,
                slots=slots,
                trip=server.window.trip,
                given_up=min(server.given_up, _MOST),
                pause_seconds=pause,
            )
        )


def _shares(wants: Mapping[int, int], size: int) -> dict[int, int]:
    """What each client should have: what it wants, or an even share where that is less; then an even share of the rest.

    Example:
        >>> _shares({1: 3, 2: 50, 3: 50}, 20)
        {1: 3, 2: 9, 3: 8}
        >>> _shares({1: 3, 2: 0}, 20)
        {1: 12, 2: 8}
    """
    shares = dict.fromkeys(wants, 0)
    left = size
    order = sorted(wants, key=lambda client: wants[client])
    for place, client in enumerate(order):
        shares[client] = min(wants[client], -(-left // (len(order) - place)))
        left -= shares[client]
    for place, client in enumerate(wants):
        extra = -(-left // (len(wants) - place))
        shares[client] += extra
        left -= extra
    return shares


def _count(server: _Server, seat: _Seat, report: Report, now: float) -> None:
    before = sum(seat.in_flight for seat in server.seats.values())
    if server.last_heard and (before or report.slot_seconds):
        since = now - server.last_heard
        server.add(seconds=since if before else min(since, report.slot_seconds))  # it was not idle for longer
    server.last_heard = now
    server.add(
        slot_seconds=report.slot_seconds,
        calls=report.calls,
        turned_back=report.turned_back + report.late,
        retries=report.retries,
    )
    server.used["peak"] = max(server.used.get("peak", 0), before - seat.in_flight + report.peak)


def _figures(name: str, server: _Server) -> ServerFigures:
    used, window = server.used, server.window
    peak = min(used["peak"], window.limit)  # clients tell theirs at different moments, so a sum of them may be too high
    mean = used["slot_seconds"] / used["seconds"] if used.get("seconds") else 0.0
    return ServerFigures(
        server=name,
        limit=window.limit,
        window=window.size,
        least_window=window.least,
        window_changes=window.num_changes - server.num_changes_told,
        mean_in_flight=round(min(mean, peak), 2),
        peak_in_flight=int(peak),
        calls=int(used["calls"]),
        turned_back=int(used["turned_back"]),
        retries=int(used["retries"]),
    )


def scaled(report: Report, num_workers: int) -> Report:
    """A report with one worker's even part of the limit."""
    limit = max(1, report.limit // num_workers)
    return replace(report, limit=limit, wants=min(report.wants, limit))
