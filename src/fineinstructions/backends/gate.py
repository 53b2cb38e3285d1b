"""The slots that one client has at one server: how many it may use, how many it uses, and what it says about that.

In: requests that begin and end, and allotments. Out: whether a request may begin now, and a report when there is
something to say. Lives on the client's event loop; counting a request costs a few additions and no message.
"""

import time
from collections.abc import Callable

from fineinstructions.backends.allotments import Allotment, Report

QUIET_SECONDS = 0.25
"""How long counts that nobody waits for may go untold."""


class Gate:
    """Slots at one server.

    Args:
        server: The server's name.
        limit: Most requests under way, over all clients.
        on_news: Called when there is something to report soon.
        on_free: Called when slots may have become free.
    """

    def __init__(self, server: str, limit: int, on_news: Callable[[], None], on_free: Callable[[], None]) -> None:
        self.server, self.limit = server, limit
        self.in_flight = self.peak = self.trip = 0
        self.waiting = 0
        """Requests that wait and could go to this server."""
        self.resume_at = 0.0
        self._on_news, self._on_free = on_news, on_free
        self._serial = self._counted_serial = 0
        self._changed_at = self._told_at = time.monotonic()
        self.forget_allotment()
        self._clear_counts()

    def forget_allotment(self) -> None:
        """Begin anew, with somebody else who gives allotments."""
        self._slots = self._heard = self._frozen = self._unacknowledged = 0
        self._told: Report | None = None
        self._given_up_before = self._worse_serial = 0
        """Requests in a row that were given up, of all clients, as far as it was told and is known; and the
        report that told of it last."""

    def _clear_counts(self) -> None:
        self._calls = self._succeeded = self._turned_back = self._late = self._retries = 0
        self._slot_seconds, self._pause_seconds, self._trouble = 0.0, 0.0, ""
        self._silent_seconds, self._patience_seconds = 0.0, 0.0
        self._since_peak = self.in_flight
        self._answered = self._given_up = 0

    @property
    def given_up_in_a_row(self) -> int:
        """Requests of all clients that were given up, without one in between that was answered."""
        return self._given_up + (0 if self._answered else self._given_up_before)

    def answered(self) -> None:
        """Count a request that was answered."""
        is_news = self.given_up_in_a_row > 0
        self._answered, self._given_up = self._answered + 1, 0
        if is_news:
            self._on_news()

    def gave_up(self) -> None:
        """Count a request that was given up."""
        self._given_up += 1
        self._on_news()

    @property
    def free(self) -> int:
        """Requests that may begin now."""
        if time.monotonic() < self.resume_at:
            return 0
        return max(0, self._slots - self._frozen - self._unacknowledged - self.in_flight)

    def begin(self) -> int:
        """Take a slot; gives the round trip that the request belongs to."""
        self._change(1)
        self._calls += 1
        self._since_peak = max(self._since_peak, self.in_flight)
        self.peak = max(self.peak, self.in_flight)
        return self.trip

    def end(self) -> None:
        """Give the slot back."""
        self._change(-1)
        self.look()

    def succeeded(self) -> None:
        """Count a reply, whatever it says."""
        self._succeeded += 1

    def turned_back(self, trip: int) -> None:
        """Count a reply of 429 or 503; its slot is not used again before the new allotment is known.

        Args:
            trip: Round trip in which it was sent.
        """
        if trip == self.trip:
            self._turned_back += 1
            self._frozen += 1
        elif trip == self.trip - 1:
            self._late += 1
            self._frozen += 1
        self._on_news()

    def hold(self, seconds: float) -> None:
        """Have nobody ask the server for a while."""
        self._pause(seconds)
        self._pause_seconds = max(self._pause_seconds, seconds)
        self._on_news()

    def retried(self) -> None:
        """Count a request that is to be made again."""
        self._retries += 1

    def troubled(self, line: str) -> None:
        """Say that the client does without the server for a while."""
        self._trouble = line
        self._on_news()

    def unanswered(self, line: str, silent_seconds: float, patience_seconds: float) -> None:
        """Say that no server answers, and that the client goes on asking.

        Args:
            line: What happens instead.
            silent_seconds: Since when.
            patience_seconds: How long it goes on, at most.
        """
        self._silent_seconds, self._patience_seconds = silent_seconds, patience_seconds
        self.troubled(line)

    def take(self, allotment: Allotment) -> None:
        """Take over what was allotted."""
        if allotment.number <= self._heard:
            return
        self._slots, self._heard, self.trip = allotment.slots, allotment.number, allotment.trip
        if allotment.answers >= self._worse_serial:  # else what was told since is not counted in it
            self._given_up_before = allotment.given_up
        if allotment.answers >= self._counted_serial:
            self._unacknowledged = 0
        if allotment.pause_seconds:
            self._pause(allotment.pause_seconds)
        self._on_news()
        self._on_free()

    def look(self) -> None:
        """Say so if the slots do not fit what is wanted any more."""
        if self._has_urgent_news():
            self._on_news()

    def report(self) -> Report | None:
        """What there is to say now; None for nothing."""
        is_due = self._calls or self._slot_seconds or self.in_flight
        if not self._has_urgent_news() and not (is_due and time.monotonic() - self._told_at >= QUIET_SECONDS):
            return None
        return self.whole_report()

    def whole_report(self) -> Report:
        """How things stand, with all counts since the last report."""
        self._change(0)
        self._serial += 1
        report = Report(
            server=self.server,
            serial=self._serial,
            limit=self.limit,
            heard=self._heard,
            trip=self.trip,
            wants=self._wants,
            in_flight=self.in_flight,
            peak=self._since_peak,
            slot_seconds=self._slot_seconds,
            calls=self._calls,
            succeeded=self._succeeded,
            turned_back=self._turned_back,
            late=self._late,
            retries=self._retries,
            answered=self._answered,
            given_up=self._given_up,
            pause_seconds=self._pause_seconds,
            trouble=self._trouble,
            silent_seconds=self._silent_seconds,
            patience_seconds=self._patience_seconds,
        )
        if self._turned_back or self._late:
            self._counted_serial = self._serial
        if self._is_worse_or_better:
            self._worse_serial, self._given_up_before = self._serial, self.given_up_in_a_row
        self._unacknowledged += self._frozen
        self._frozen = 0
        self._told, self._told_at = report, time.monotonic()
        self._clear_counts()
        return report

    @property
    def _is_worse_or_better(self) -> bool:
        """Whether more requests in a row were given up than the others know, or none is any more."""
        return self._given_up > 0 or (self._answered > 0 and self._given_up_before > 0)

    @property
    def _wants(self) -> int:
        return min(self.limit, self.waiting + self.in_flight)

    def _has_urgent_news(self) -> bool:
        told = self._told
        if told is None:
            return self._wants > 0
        if (
            self._is_worse_or_better
            or self._frozen
            or self._trouble
            or self._pause_seconds
            or told.heard != self._heard
        ):
            return True
        wants = self._wants
        is_short = wants > self._slots and wants > told.wants
        has_spare = wants < self._slots and wants < told.wants
        is_draining = told.in_flight > self._slots and self.in_flight < told.in_flight
        return is_short or has_spare or is_draining

    def _pause(self, seconds: float) -> None:
        self.resume_at = max(self.resume_at, time.monotonic() + seconds)

    def _change(self, number: int) -> None:
        now = time.monotonic()
        self._slot_seconds += self.in_flight * (now - self._changed_at)
        self._changed_at = now
        self.in_flight += number
