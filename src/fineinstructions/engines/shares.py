"""What keeps all workers of a run within one limit per server, whichever engine they belong to.

In: jobs. Out: the same jobs with the address of the driver's desk, where their workers hear how many requests they may
have under way; and, when a phase is over, a line in the log for every server that was asked.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Self

from fineinstructions.backends.allotments import Allotments, ServerFigures
from fineinstructions.backends.desk import Desk
from fineinstructions.backends.office import office_of_process
from fineinstructions.engines.worker import Job
from fineinstructions.runs.status import log_progress

LAST_WORD_SECONDS = 15.0
"""How long clients that are being closed are waited for."""


class Shares:
    """The allotments of one run; a context. Inside of it, clients of this process share them too.

    Args:
        note: Called with what a user should know.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._allotments = Allotments(note)
        self._desk: Desk | None = None
        self._told: set[str] = set()
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        self._opened.enter_context(office_of_process(self._allotments))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()
        for line in [] if error else self._lines:
            self._note(line)

    @contextmanager
    def phase(self, job: Job[Any, Any], num_workers: int, host: str | None = None) -> Iterator[Job[Any, Any]]:
        """One phase: gives a job whose workers share limits, and logs how servers were used when it is over.

        Args:
            job: The job; one that asks no server is left as it is.
            num_workers: Workers that will do it; 0 for this process.
            host: Name of this machine for workers elsewhere; None where there are none.
        """
        if not job.asks_servers:
            yield job
            return
        self._allotments.take_figures()  # what was asked before the phase is no part of it
        if num_workers and self._desk is None:
            self._desk = self._opened.enter_context(Desk(self._allotments, host))
        try:
            yield replace(job, desk=self._desk.address(num_workers)) if num_workers and self._desk else job
        finally:
            self._allotments.wait_until_left(LAST_WORD_SECONDS)
            self._log(job)

    def _log(self, job: Job[Any, Any]) -> None:
        for figures in self._allotments.take_figures():
            log_progress(job.run, [{"event": "server", "phase": job.phase, **asdict(figures)}])
            self._lines.append(f"{job.phase}: {_line(figures)}")

    def note_once(self, line: str) -> None:
        """Tell the user something that several workers may say."""
        if line not in self._told:
            self._told.add(line)
            self._note(line)


def _line(figures: ServerFigures) -> str:
    window = f"window of {figures.limit}"
    if figures.window_changes:
        window += f" (least {figures.least_window}, at the end {figures.window}, {figures.window_changes:,} changes)"
    return (
        f"{figures.server}: {figures.mean_in_flight:.1f} requests in flight on average, {figures.peak_in_flight} at "
        f"most, {window}; {figures.calls:,} calls, {figures.turned_back:,} turned back, {figures.retries:,} retries"
    )
