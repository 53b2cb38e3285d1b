"""What became of the units of a phase: counted, told, logged, and set aside where they are given up.

In: reports of workers, whatever engine they belong to. Out: an `Outcome`, or the error that ends the run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from fineinstructions.engines.worker import Report
from fineinstructions.errors import BackendError, ConfigError, DataError, PendingError, counted
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.packing import Packer
from fineinstructions.runs.specs import WHOLE_CORPUS, UnitSpec, num_rows, ordinals
from fineinstructions.runs.status import log_progress

MAX_FAILURES_BEFORE_SUCCESS = 5


@dataclass(frozen=True, slots=True)
class SetAside:
    """A unit that was given up; all of its rows are counted as failed."""

    spec: UnitSpec
    reason: str
    """``worker_died``, ``data_error`` or ``unit_error``."""
    detail: str
    """One line, with the place of the traceback where there is one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an engine tells after every unit."""

    phase: str
    num_done: int
    num_units: int
    num_rows_done: int
    num_rows: int
    num_set_aside: int
    seconds: float
    """Since the phase was begun."""


@dataclass
class Outcome:
    """What became of the units."""

    num_done: int = 0
    """Committed with their results."""
    set_aside: list[SetAside] = field(default_factory=list)
    num_pending: int = 0
    """Not committed, because records wait for answers to their questions."""
    num_deaths: int = 0
    """Workers that died."""
    seconds: float = 0.0


class Tally:
    """Turns reports of units into commits of set-aside units, counts, log lines and errors; has units packed.

    A context: at its end no unit is being packed.
    """

    def __init__(
        self,
        run: RunFolder,
        phase: str,
        specs: Sequence[UnitSpec],
        workers: int,
        on_progress: Callable[[Progress], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.outcome = Outcome()
        self._began = time.monotonic()
        self._run, self._phase = run, phase
        self._num_units, self._num_rows = len(specs), num_rows(specs)
        self._num_rows_done = 0
        self._on_progress, self._note = on_progress, note
        self._packer = Packer(run, phase, ordinals(specs))
        log_progress(run, [{"event": "start", "phase": phase, "units": len(specs), "workers": workers}])

    def __enter__(self) -> Self:
        self._packer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._packer.__exit__(*error)

    def take(self, spec: UnitSpec, report: Report) -> None:
        """Book the end of a unit.

        Raises:
            ConfigError: The unit's own, or BackendError likewise.
            DataError: If the unit cannot be set aside, or nothing but failures came in so far.
        """
        raise_for(report)
        if report.note and self._note:
            self._note(report.note)
        if report.kind == "pending":
            self.outcome.num_pending += 1
            return
        if report.kind == "done":
            self.outcome.num_done += 1
        else:
            self._set_aside(spec, report)
        self._packer.add(spec.ordinal)
        self._num_rows_done += spec.num_rows
        log_progress(
            self._run,
            [{"event": "unit", "phase": self._phase, "unit": spec.folder_name, "rows": spec.num_rows,
              "kind": report.kind, "seconds": round(report.seconds, 3),
              **({"model_seconds": dict(report.model_seconds)} if report.model_seconds else {})}],
        )  # fmt: skip
        if self._on_progress:
            self._on_progress(
                Progress(
                    phase=self._phase,
                    num_done=self.outcome.num_done + len(self.outcome.set_aside),
                    num_units=self._num_units,
                    num_rows_done=self._num_rows_done,
                    num_rows=self._num_rows,
                    num_set_aside=len(self.outcome.set_aside),
                    seconds=time.monotonic() - self._began,
                )
            )

    def finish(self, num_deaths: int = 0) -> Outcome:
        """The outcome, once every unit is booked, and packed where there are many.

        Raises:
            ConfigError: If there is no room for packs on the disk.
            PendingError: If units wait for answers.
        """
        self._packer.finish()
        self.outcome.num_deaths = num_deaths
        self.outcome.seconds = time.monotonic() - self._began
        if self.outcome.num_pending:
            raise PendingError(
                f"phase {self._phase!r}: {counted(self.outcome.num_pending, 'unit')} without all answers"
            )
        return self.outcome

    def _set_aside(self, spec: UnitSpec, report: Report) -> None:
        if spec.unit_id == WHOLE_CORPUS:
            raise DataError(f"phase {self._phase!r} failed: {report.message}")
        self._run.set_aside(self._phase, spec, report.kind)
        self.outcome.set_aside.append(SetAside(spec, report.kind, report.message))
        if not self.outcome.num_done and len(self.outcome.set_aside) >= MAX_FAILURES_BEFORE_SUCCESS:
            raise DataError(
                f"phase {self._phase!r}: the first {len(self.outcome.set_aside)} units all failed, so the run stops: "
                f"{report.message}; mend the cause and run again with --retry-failed"
            )


def raise_for(report: Report) -> None:
    """Raise what a report says that ends the run: the user's trouble, or an engine's.

    Raises:
        ConfigError: If the report is of one.
        BackendError: Likewise, and where models could not be built for another reason.
    """
    if report.kind == "config_error":
        raise ConfigError(report.message)
    if report.kind == "backend_error" or (report.ordinal is None and report.kind not in ("ready", "idle")):
        raise BackendError(report.message)
