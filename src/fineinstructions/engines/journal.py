"""What a task of a Slurm array tells its driver, through a file: which units it opened, and what became of them.

One line of JSON per event, appended. Whatever kills a task, whole lines stay readable, and what was opened and never
reported is what it was working on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fineinstructions.engines.worker import Report
from fineinstructions.runs.specs import UnitSpec


class JournalWriter:
    """The journal of one task, as the task writes it; one that was put back into the queue goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._file.write("\n")  # ends a line that was torn when the task was killed
        self._add({"event": "start"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def opened(self, spec: UnitSpec) -> None:
        """Say that a unit is worked on."""
        self._add({"event": "opened", "unit": spec.ordinal})

    def report(self, report: Report) -> None:
        """Say what became of a unit, or of the task where the report is about none."""
        self._add(
            {"event": "report", "unit": report.ordinal, "kind": report.kind, "message": report.message,
             "seconds": report.seconds, "note": report.note, "model_seconds": dict(report.model_seconds)}
        )  # fmt: skip

    def left(self, why: str) -> None:
        """Say that the task ends before its time, through no fault of its units."""
        self._add({"event": "left", "why": why})

    def _add(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


@dataclass
class JournalReader:
    """The same journal, as its driver follows it."""

    path: Path
    open: set[int] = field(default_factory=set)
    """Units that were opened and not reported, since the task was last started."""
    has_left: bool = False
    """Whether the task says itself why it ended before its time."""
    num_lines: int = 0
    """Lines read so far."""
    num_reports: int = 0
    """Reports among them."""
    _offset: int = 0

    def news(self) -> Iterator[Report]:
        """Reports that were added since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                reports = list(self._read(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue  # torn, or not ours
            self.num_lines += 1
            yield from reports

    def _read(self, event: dict[str, Any]) -> Iterator[Report]:
        if event["event"] == "start":
            self.open.clear()  # it was put back into the queue, which no unit is to blame for
            self.has_left = False
        elif event["event"] == "opened":
            self.open.add(event["unit"])
        elif event["event"] == "left":
            self.has_left = True
        else:
            self.num_reports += 1
            self.open.discard(event["unit"])
            yield Report(
                event["unit"],
                event["kind"],
                event["message"],
                event["seconds"],
                event.get("note", ""),
                event.get("model_seconds", {}),
            )
