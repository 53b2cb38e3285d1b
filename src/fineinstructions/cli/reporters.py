"""What a user sees while a run goes on: bars on a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import sys
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

_LINE_EVERY_SECONDS = 10.0


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
    """Plain lines for logs and pipes: one when a phase starts and ends, and one every ten seconds between."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def start(self, phase: str, total: int, done: int) -> None:
        """Say that the phase begins."""
        self._total[phase], self._done[phase], self._before[phase], self._rows[phase] = total, done, done, 0
        self._began[phase] = self._last = time.monotonic()
        if done < total:
            self._say(phase, "start")

    def advance(self, phase: str, rows: int) -> None:
        """Count a unit, and say so when the last line is old."""
        self._done[phase] += 1
        self._rows[phase] += rows
        if time.monotonic() - self._last >= _LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            self._say(phase, "progress")

    def finish(self, phase: str) -> None:
        """Say that the phase is complete, unless it was before."""
        self._done[phase] = self._total[phase]
        if self._before[phase] < self._total[phase]:
            self._say(phase, "done")

    def note(self, line: str) -> None:
        """Say it."""
        print(
            json.dumps({"event": "note", "line": line}) if self._as_json else printable(line),
            file=sys.stderr,
            flush=True,
        )

    def _say(self, phase: str, event: str) -> None:
        seconds = time.monotonic() - self._began[phase]
        done, total = self._done[phase], self._total[phase]
        moved = done - self._before[phase]
        left = seconds / moved * (total - done) if moved and event == "progress" else None
        if self._as_json:
            facts = {"event": event, "phase": phase, "units_done": done, "units": total, "rows": self._rows[phase]}
            print(json.dumps(facts | {"seconds": round(seconds, 2), "eta_seconds": left}), file=sys.stderr, flush=True)
            return
        tail = f", about {left:.0f} s left" if left is not None else f", {seconds:.1f} s" if event == "done" else ""
        print(f"{phase}: {event}, {done:,}/{total:,} units{tail}", file=sys.stderr, flush=True)


def waiting(what: str) -> AbstractContextManager[Any]:
    """A turning wheel on a terminal for a step without parts that could be counted; nothing elsewhere."""
    console = Console(stderr=True)
    return console.status(f"{what} ...") if console.is_terminal else nullcontext()


def reporter(as_json: bool) -> "Bars | Lines":
    """The reporter that fits where the output goes: a terminal gets bars. Called by the verbs that do the work."""
    leave_pandas_out()  # this process is the program's own
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        return Lines(as_json)
    return Bars(console)
