"""Work units on the worker processes of one machine: every unit is done, or set aside with its reason.

In: the units that are left to do. Out: committed units. Results depend on the units only, never on how many workers
there are or in which order they finish.

The decision a reader would question: plain spawned processes with one pipe each instead of `ProcessPoolExecutor`.
There, the death of one worker breaks the whole pool, takes the other workers' units (and their paid model calls) with
it, and does not say which unit was to blame; and a worker can hold only one unit, which drains the request window at
every unit's end. Here a death costs one worker's open units and is pinned on them.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from fineinstructions.engines.staff import Staff, Worker, end_workers, interrupts_held_back
from fineinstructions.engines.worker import Closable, Job, Report, crash_log, execute
from fineinstructions.errors import BackendError, ConfigError, DataError, PendingError
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.plan import WHOLE_CORPUS, UnitSpec
from fineinstructions.runs.status import log_progress
from fineinstructions.runs.unit import Unit

M = TypeVar("M", bound=Closable)
C = TypeVar("C")

MAX_DEATHS = 3
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
    """What `run_units` tells after every unit."""

    phase: str
    num_done: int
    num_units: int
    num_rows_done: int
    num_rows: int
    num_set_aside: int
    seconds: float
    """Since `run_units` was called."""


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


def run_units(
    work: Callable[[Unit, M, C], None],
    specs: Sequence[UnitSpec],
    *,
    run: RunFolder,
    phase: str,
    build_models: Callable[[C], M],
    config: C,
    workers: int,
    open_units: int = 1,
    staff: Staff | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Do units on worker processes, each with its own models, and commit them.

    Args:
        work: Module-level function that reads, works and writes one unit; the commit follows it.
        specs: Units to do, as `RunFolder.todo` gives them.
        run: The run folder; its lease is held by the caller.
        phase: Name of the phase.
        build_models: Module-level function, called once in every worker; what it gives is closed after the last unit.
        config: Goes to both functions; can be pickled.
        workers: Worker processes; 0 works in this process, without protection from crashes.
        open_units: Units that one worker has open at once, in threads that share its models.
        staff: Worker processes that an earlier call left, and that this one leaves; by default they end with the call.
        on_progress: Called after every unit, in this process.

    Returns:
        How many units were done and which were set aside, with reasons.

    Raises:
        ConfigError: If a unit or `build_models` finds a mistake of the user; committed units are kept.
        BackendError: If an engine failed for good; committed units are kept.
        PendingError: If units wait for answers; every unit had its turn.
        DataError: If a unit that covers a whole phase fails, or the first units all fail.
        KeyboardInterrupt: After Ctrl-C, once the workers of this call are gone.
    """
    job = Job(run, phase, work, build_models, config, max(1, open_units))
    tally = _Tally(run, phase, specs, on_progress)
    log_progress(run, [{"event": "start", "phase": phase, "units": len(specs), "workers": workers}])
    if not specs:
        return tally.outcome
    if workers == 0:
        with closing(build_models(config)) as models:
            for spec in specs:
                tally.take(spec, execute(job, models, spec))
    else:
        crew = _Crew(job, min(workers, len(specs)), tally, staff or Staff())
        try:
            crew.work_off(specs)
            if staff is not None:
                crew.release()
        finally:
            crew.stop()
    tally.outcome.seconds = time.monotonic() - tally.began
    if tally.outcome.num_pending:
        raise PendingError(f"{tally.outcome.num_pending} units of phase {phase!r} wait for answers")
    return tally.outcome


class _Tally:
    """Turns reports of units into commits of set-aside units, counts, log lines and errors."""

    def __init__(
        self,
        run: RunFolder,
        phase: str,
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.outcome = Outcome()
        self.began = time.monotonic()
        self._run, self._phase = run, phase
        self._num_units, self._num_rows = len(specs), sum(spec.num_rows for spec in specs)
        self._num_rows_done = 0
        self._on_progress = on_progress

    def take(self, spec: UnitSpec, report: Report) -> None:
        """Book the end of a unit.

        Raises:
            ConfigError: The unit's own, or BackendError likewise.
            DataError: If the unit cannot be set aside, or nothing but failures came in so far.
        """
        if report.kind == "config_error":
            raise ConfigError(report.message)
        if report.kind == "backend_error":
            raise BackendError(report.message)
        if report.kind == "pending":
            self.outcome.num_pending += 1
            return
        if report.kind == "done":
            self.outcome.num_done += 1
        else:
            self._set_aside(spec, report)
        self._num_rows_done += spec.num_rows
        log_progress(
            self._run,
            [{"event": "unit", "phase": self._phase, "unit": spec.folder_name, "rows": spec.num_rows,
              "kind": report.kind, "seconds": round(report.seconds, 3)}],
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
                    seconds=time.monotonic() - self.began,
                )
            )

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


class _Crew(Generic[M, C]):
    """The worker processes of one call of `run_units`."""

    def __init__(self, job: Job[M, C], num_workers: int, tally: _Tally, staff: Staff) -> None:
        self._job, self._staff = job, staff
        self._num_workers = num_workers
        self._tally = tally
        self._workers: list[Worker] = []
        self._waiting: deque[UnitSpec] = deque()
        self._suspects: deque[UnitSpec] = deque()
        self._deaths: Counter[int] = Counter()
        self._deaths_before_ready = 0

    def work_off(self, specs: Sequence[UnitSpec]) -> None:
        """Do all units; returns when each is committed or set aside."""
        self._waiting.extend(specs)
        while self._waiting or self._suspects or any(worker.open for worker in self._workers):
            needed = min(self._num_workers, self._num_unfinished())
            while len(self._workers) < needed:
                with interrupts_held_back():  # a worker that is not in the list yet would not be stopped
                    self._workers.append(self._staff.hire())
                    with suppress(OSError):  # It is dead; its pipe tells so when it is read next.
                        self._workers[-1].pipe.send(self._job)
            for worker in self._workers:
                self._hand_out(worker)
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [w for w in self._workers if w.pipe in ready]:
                self._listen(worker)

    def _num_unfinished(self) -> int:
        return len(self._waiting) + len(self._suspects) + sum(len(w.open) for w in self._workers)

    def _hand_out(self, worker: Worker) -> None:
        """Give a worker what it has room for: a suspect by itself, or ordinary units."""
        if not worker.ready:
            return
        if not worker.open:
            worker.alone = bool(self._suspects)
            if self._suspects:
                self._send(worker, self._suspects.popleft())
        while self._waiting and not worker.alone and len(worker.open) < self._job.open_units:
            self._send(worker, self._waiting.popleft())

    def _send(self, worker: Worker, spec: UnitSpec) -> None:
        worker.open[spec.ordinal] = spec
        try:
            worker.pipe.send(spec)
        except OSError:
            return  # The worker is dead; its pipe tells so when it is read next, and the unit counts as open till then.

    def _listen(self, worker: Worker) -> None:
        try:
            report: Report = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if report.ordinal is None:
            if report.kind == "ready":
                worker.ready, self._deaths_before_ready = True, 0
                return
            raise ConfigError(report.message) if report.kind == "config_error" else BackendError(report.message)
        self._tally.take(worker.open.pop(report.ordinal), report)

    def _bury(self, worker: Worker) -> None:
        """Take a dead worker out and decide what becomes of its units."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        self._tally.outcome.num_deaths += 1
        how = f"its worker process died with exit code {worker.process.exitcode}"
        if not worker.ready:
            self._deaths_before_ready += 1
            if self._deaths_before_ready >= MAX_DEATHS:
                raise BackendError(
                    f"{MAX_DEATHS} worker processes died before their models were loaded (exit code"
                    f" {worker.process.exitcode})",
                    hint="scripts need `if __name__ == '__main__':`; else look for lack of memory, or try --workers 0",
                )
        for spec in worker.open.values():
            if self._job.run.is_done(self._job.phase, spec, retry_failed=True):
                self._tally.take(spec, Report(spec.ordinal, "done"))
                continue
            self._deaths[spec.ordinal] += 1
            if self._deaths[spec.ordinal] < MAX_DEATHS:
                self._suspects.append(spec)
            else:
                line = f"unit {spec.folder_name}: {how}, {MAX_DEATHS} times; {spec.num_rows} rows counted as failed"
                crash_log(self._job.run, self._job.phase, spec).write_text(line + "\n", encoding="utf-8")
                self._tally.take(spec, Report(spec.ordinal, "worker_died", line))

    def release(self) -> None:
        """Leave the workers to the next phase, but for those whose models are not built yet."""
        self._staff.take_back([worker for worker in self._workers if worker.ready])
        self._workers = [worker for worker in self._workers if not worker.ready]

    def stop(self) -> None:
        """End the workers that are left; what they had open is redone next time."""
        end_workers(self._workers)
