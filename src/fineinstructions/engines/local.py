"""Work units on the worker processes of one machine: every unit is done, or set aside with its reason.

In: the units that are left to do. Out: committed units. Results depend on the units only, never on how many workers
there are or in which order they finish.
"""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fineinstructions.engines.crew import Crew
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.shares import Shares
from fineinstructions.engines.staff import Staff
from fineinstructions.engines.tally import Outcome, Progress, Tally
from fineinstructions.engines.worker import Job, execute
from fineinstructions.progress import SILENT
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.specs import UnitSpec


class LocalEngine:
    """The processors of this machine; an `Engine`.

    Args:
        workers: Worker processes; 0 works in this process, without protection from crashes, and ``None`` takes as many
            as the processors have room for.
        note: Called with what a user should know.
        import_modules: Imports what workers would import by themselves; called where they are forked.
        resources: What workers of the phases will be given, where that is not the default.
    """

    def __init__(
        self,
        workers: int | None = None,
        note: Callable[[str], None] = SILENT.note,
        import_modules: Callable[[], None] = lambda: None,
        resources: Collection[Resources] = (),
    ) -> None:
        self._workers, self._note, self._import_modules = workers, note, import_modules
        self._is_ordinary = all(wanted == Resources() for wanted in resources)
        self._staff = Staff()
        self._shares = Shares(note)

    def __enter__(self) -> Self:
        if self._is_ordinary:  # a forked worker has one processor and no GPU of its own
            number = len(os.sched_getaffinity(0)) if self._workers is None else self._workers
            self._staff.fork_ahead(number, self._import_modules)
        self._shares.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._staff.__exit__(kind, error, at)
        self._shares.__exit__(kind, error, at)

    def run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Do units and commit them; see `Engine`."""
        job = replace(job, lease=lease_token(job.run.lease_file))
        workers = self._num_workers(job)
        num_workers = min(workers, len(specs))
        note = self._shares.note_once
        with Tally(job.run, job.phase, specs, workers, on_progress, note) as tally:
            if not specs:
                return tally.finish()
            with self._shares.phase(job, num_workers) as equipped:
                num_deaths = self._work_off(equipped, specs, num_workers, tally)
            return tally.finish(num_deaths)

    def _work_off(self, job: Job[Any, Any], specs: Sequence[UnitSpec], num_workers: int, tally: Tally) -> int:
        """Have every unit done, in this process where there are no workers; gives how many workers died."""
        if num_workers:
            crew = Crew(job, self._staff, num_workers, tally.take)
            crew.work_off(specs)
            return crew.num_deaths
        with closing(job.build_models(job.config)) as models:
            for spec in specs:
                tally.take(spec, execute(job, models, spec))
        return 0

    def _num_workers(self, job: Job[Any, Any]) -> int:
        wanted = self._workers
        if wanted is None:
            wanted = max(1, len(os.sched_getaffinity(0)) // job.resources.cpus)
        room = self._staff.room(job) if wanted else None
        if room is not None and room < wanted and self._workers is not None:
            self._note(
                f"engine.workers: {wanted}, but phase {job.phase!r} has {room}: a worker has {job.resources.gpus:g} of"
                " this machine's GPUs for itself (engine.resources)"
            )
        return min(most for most in (wanted, room, job.max_local_workers) if most is not None)
