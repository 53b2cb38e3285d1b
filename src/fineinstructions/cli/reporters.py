"""What a user sees while a run goes on: bars on a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fineinstructions.errors import printable
from fineinstructions.parquet import leave_pandas_out

_FIRST_LINE_SECONDS, _LINE_EVERY_SECONDS = 10.0, 60.0
"""How long a phase lasts before a log has a line about it, and how often it has another."""


class _TimeLeft(ProgressColumn):
    """Time that a phase still needs; nothing once it is over."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        if task.finished or task.time_remaining is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(task.time_remaining))} left", style="cyan")


class Bars:
    """One bar per phase, with rows per second and the time that is left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("[dim]{task.fields[rate]}[/]"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rows: dict[str, int] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, phase: str, total: int, done: int) -> None:
        """Open the phase's bar at what an earlier run has done; a phase that was complete before gets none."""
        if done == total:
            return
        self._progress.start()  # not before: it is a thread, and workers are forked before there is any
        self._tasks[phase] = self._progress.add_task(phase, total=total, completed=done, rate="")
        self._rows[phase], self._began[phase] = 0, time.monotonic()

    def advance(self, phase: str, rows: int) -> None:
        """Move the bar by one unit."""
        if phase not in self._tasks:
            return
        self._rows[phase] += rows
        rate = self._rows[phase] / max(time.monotonic() - self._began[phase], 1e-3)
        self._progress.update(self._tasks[phase], advance=1, rate=f"{rate:,.0f} rows/s" if rows else "")

    def finish(self, phase: str) -> None:
        """Fill the bar."""
        if phase in self._tasks:
            task = self._tasks[phase]
            self._progress.update(task, completed=self._progress.tasks[task].total)

    def note(self, line: str) -> None:
        """Print the line above the bars."""
        self._progress.console.print(printable(line), markup=False, highlight=False)


class Lines:
    """Plain lines for logs and pipes: one when a phase ends, and one now and then while it lasts.

    As JSON also one when it starts.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._phase = ""
        self._total = self._done = self._before = self._rows = 0
        self._began = 0.0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._phase = ""
            self._stop_waiting()
        sys.stderr.flush()

    def start(self, phase: str, total: int, done: int) -> None:
        """Begin to watch the phase."""
        with self._lock:
            self._phase, self._began = phase, time.monotonic()
            self._total, self._done, self._before, self._rows = total, done, done, 0
            if done < total:
                if self._as_json:
                    self._say("start")
                self._wait(_FIRST_LINE_SECONDS)

    def advance(self, phase: str, rows: int) -> None:
        """Count a unit."""
        with self._lock:
            if phase == self._phase:
                self._done += 1
                self._rows += rows

    def finish(self, phase: str) -> None:
        """Say that the phase is complete, unless it was before."""
        with self._lock:
            if phase != self._phase:
                return
            self._done = self._total
            if self._before < self._total:
                self._say("done")
            self._phase = ""
            self._stop_waiting()

    def note(self, line: str) -> None:
        """Say it."""
        print(
            json.dumps({"event": "note", "line": line}) if self._as_json else printable(line),
            file=sys.stderr,
            flush=True,
        )

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = threading.Timer(seconds, self._say_how_far, (self._phase,))
        self._timer.daemon = True
        self._timer.start()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say_how_far(self, phase: str) -> None:
        with self._lock:
            if phase == self._phase:
                self._say("progress")
                self._wait(_LINE_EVERY_SECONDS)

    def _say(self, event: str) -> None:
        seconds = time.monotonic() - self._began
        moved = self._done - self._before
        left = seconds / moved * (self._total - self._done) if moved and event == "progress" else None
        if self._as_json:
            facts = {"event": event, "phase": self._phase, "units_done": self._done, "units": self._total}
            facts |= {"rows": self._rows, "seconds": round(seconds, 2), "eta_seconds": left}
            print(json.dumps(facts), file=sys.stderr, flush=True)
            return
        time_left = f", about {left:.0f} s left" if left is not None else ""
        line = f"{self._phase}: {event}, {self._done:,}/{self._total:,} units, {seconds:.1f} s{time_left}"
        print(line, file=sys.stderr, flush=True)


def waiting(what: str) -> AbstractContextManager[Any]:
    """A turning wheel on a terminal for a step without parts that could be counted; nothing elsewhere."""
    leave_pandas_out()  # this process is the program's own
    console = Console(stderr=True)
    return console.status(f"{what} ...") if console.is_terminal else nullcontext()


def reporter(as_json: bool) -> "Bars | Lines":
    """The reporter that fits where the output goes: a terminal gets bars. Called by the verbs that do the work."""
    leave_pandas_out()  # this process is the program's own
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        return Lines(as_json)
    return Bars(console)
