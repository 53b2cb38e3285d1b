"""The workers of one phase: which of them gets which unit next, and what becomes of the units of one that dies.

In: units, and a workforce that hires workers and listens to them. Out: a report for every unit. The same rules hold for
processes of this machine and for actors of a Ray cluster.

The decision a reader would question: what was open when a worker died is run again alone, so that the next death is
pinned on one unit; that costs time only, while a batch that is given up as a whole would cost good rows.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from fineinstructions.engines.interrupts import interrupts_held_back
from fineinstructions.engines.tally import raise_for
from fineinstructions.engines.worker import Job, Report, crash_log
from fineinstructions.errors import BackendError
from fineinstructions.runs.specs import UnitSpec

MAX_DEATHS = 3
"""Deaths of its workers after which a unit is given up, or a phase whose workers never get ready."""

Take = Callable[[UnitSpec, Report], None]


@dataclass(eq=False, kw_only=True)
class Hand:
    """A worker as its crew sees it."""

    ready: bool = False
    """Whether its models are built."""
    open: dict[int, UnitSpec] = field(default_factory=dict)
    alone: bool = False
    """Whether its only unit is a suspect, run by itself so that a death is pinned on it."""


@dataclass(frozen=True, slots=True)
class Death:
    """That a worker is no more."""

    cause: str
    """Such as ``exit code -9``."""
    blameless: bool = False
    """Whether its machine was taken away, so that no unit can be to blame."""


H = TypeVar("H", bound=Hand)


class Workforce(Protocol[H]):
    """Where workers come from."""

    def hire(self, job: Job[Any, Any]) -> H:
        """A worker that builds the models of a job."""

    def give(self, worker: H, spec: UnitSpec) -> None:
        """Hand a unit to a worker; one that is dead says so when it is listened to."""

    def listen(self, workers: Sequence[H]) -> Iterable[tuple[H, Report | Death]]:
        """Wait until a worker has something to say, and give what there is; a death is told once."""

    def take_back(self, workers: Sequence[H]) -> None:
        """Have workers close their models and wait for the next job; they have nothing open."""

    def end(self, workers: Sequence[H]) -> None:
        """End workers, whatever they are doing."""


class Crew(Generic[H]):
    """The workers of one phase.

    Args:
        job: What they do.
        force: Where they come from.
        num_workers: Most of them at once.
        take: Called with the report of every unit.
        on_open: Called when a unit is handed out.
    """

    def __init__(
        self,
        job: Job[Any, Any],
        force: Workforce[H],
        num_workers: int,
        take: Take,
        on_open: Callable[[UnitSpec], None] | None = None,
    ) -> None:
        self.num_deaths = 0
        self._job, self._force, self._num_workers = job, force, num_workers
        self._take, self._on_open = take, on_open
        self._workers: list[H] = []
        self._waiting: Iterator[UnitSpec] = iter(())
        self._num_specs = self._num_given = 0
        self._is_drained = False
        self._suspects: deque[UnitSpec] = deque()
        self._deaths: Counter[int] = Counter()
        self._deaths_before_ready = 0

    def work_off(self, specs: Sequence[UnitSpec]) -> None:
        """Do all units, and leave the workers to the next phase; on any error they are ended.

        Raises:
            ConfigError: What a report says, or BackendError likewise.
            BackendError: If workers die again and again before they are ready.
        """
        try:
            self._work_off(specs)
            idle = [worker for worker in self._workers if worker.ready]
            self._workers = [worker for worker in self._workers if not worker.ready]
            self._force.take_back(idle)
        finally:
            self._force.end(self._workers)
            self._workers = []

    def drain(self) -> None:
        """Hand out no more units: `work_off` returns when the open ones are done. For signal handlers."""
        self._is_drained = True
        self._suspects.clear()

    def _work_off(self, specs: Sequence[UnitSpec]) -> None:
        self._waiting, self._num_specs = iter(specs), len(specs)
        while self._num_waiting or self._suspects or any(worker.open for worker in self._workers):
            needed = min(self._num_workers, self._num_unfinished())
            while len(self._workers) < needed:
                with interrupts_held_back():  # a worker that is not in the list yet would not be ended
                    self._workers.append(self._force.hire(self._job))
            for worker in self._workers:
                self._hand_out(worker)
            for worker, said in self._force.listen(list(self._workers)):
                self._hear(worker, said)

    @property
    def _num_waiting(self) -> int:
        """Units that nobody has been given yet; they are made only when somebody is."""
        return 0 if self._is_drained else self._num_specs - self._num_given

    def _num_unfinished(self) -> int:
        return self._num_waiting + len(self._suspects) + sum(len(w.open) for w in self._workers)

    def _hand_out(self, worker: H) -> None:
        """Give a worker what it has room for: a suspect by itself, or ordinary units."""
        if not worker.ready:
            return
        if not worker.open:
            worker.alone = bool(self._suspects)
            if self._suspects:
                self._give(worker, self._suspects.popleft())
        while self._num_waiting and not worker.alone and len(worker.open) < self._job.open_units:
            self._num_given += 1
            self._give(worker, next(self._waiting))

    def _give(self, worker: H, spec: UnitSpec) -> None:
        worker.open[spec.ordinal] = spec
        if self._on_open:
            self._on_open(spec)
        self._force.give(worker, spec)

    def _hear(self, worker: H, said: Report | Death) -> None:
        if isinstance(said, Death):
            self._bury(worker, said)
        elif said.ordinal is None:
            raise_for(said)
            worker.ready, self._deaths_before_ready = True, 0
        else:
            self._take(worker.open.pop(said.ordinal), said)

    def _bury(self, worker: H, death: Death) -> None:
        """Take a dead worker out and decide what becomes of its units."""
        self._workers.remove(worker)
        self.num_deaths += 1
        if not worker.ready and not death.blameless:
            self._deaths_before_ready += 1
            if self._deaths_before_ready >= MAX_DEATHS:
                raise BackendError(
                    f"{MAX_DEATHS} worker processes died before their models were loaded ({death.cause})",
                    hint="scripts need `if __name__ == '__main__':`; else look for lack of memory, or try --workers 0",
                )
        for spec in worker.open.values():
            if self._job.run.is_done(self._job.phase, spec, retry_failed=True):
                self._take(spec, Report(spec.ordinal, "done"))
                continue
            self._deaths[spec.ordinal] += not death.blameless
            if self._deaths[spec.ordinal] < MAX_DEATHS:
                self._suspects.append(spec)
            else:
                self._take(spec, killer(self._job, spec, death.cause))


def killer(job: Job[Any, Any], spec: UnitSpec, cause: str) -> Report:
    """Report of a unit that is given up because its workers died, with a line in its log."""
    how = f"its worker process died with {cause}, {MAX_DEATHS} times"
    line = f"unit {spec.folder_name}: {how}; {spec.num_rows} rows counted as failed"
    crash_log(job.run, job.phase, spec).write_text(line + "\n", encoding="utf-8")
    return Report(spec.ordinal, "worker_died", line)
