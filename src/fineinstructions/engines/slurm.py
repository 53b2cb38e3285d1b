"""Work units by the jobs of a Slurm cluster: arrays of tasks, each with its share of a phase's units.

In: the units that are left to do. Out: committed units. The driver submits, waits, reads what tasks say in their
journals, and submits again what a task that ended has not done. It computes nothing, so it may sit on a login node, or
be a small job itself. Of a detached run it does not wait: it submits, hands over to the next relay, and ends.

The decision a reader would question: a driver between phases, and not a chain of arrays by ``afterok``. The units of a
phase are known only when the one before it is done, and what a killed task leaves has to be looked at before it is
tried again.
"""

import dataclasses
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.desk import NOBODY, DeskAddress
from fineinstructions.config import to_plain
from fineinstructions.engines.local import LocalEngine
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.shares import Shares
from fineinstructions.engines.slurm_arrays import DESCRIPTION_FILE, Arrays, Share, known_jobs, left_with, read_shares
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.slurm_queue import SlurmQueue, Task
from fineinstructions.engines.slurm_relay import CANCEL_SECONDS, begin, hand_over, note_begun, ours_of
from fineinstructions.engines.slurm_task import name_of
from fineinstructions.engines.tally import Outcome, Progress, Tally
from fineinstructions.engines.worker import Job
from fineinstructions.errors import BackendError, ConfigError, HandedOverError
from fineinstructions.runs.detached import goes_on
from fineinstructions.runs.durable import write_text
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.specs import WHOLE_CORPUS, Plan, UnitSpec
from fineinstructions.runs.specs import ordinals as ordinals_of

KEPT_FILE = "arrays.json"
"""What a relay has to know of the arrays that it was waiting for."""


class SlurmEngine:
    """A Slurm cluster; an `Engine`.

    Args:
        run: The run folder.
        workers: Worker processes of all tasks that run at one time.
        config: How arrays are submitted.
        note: Called with what a user should know.
        again: Command that goes on with the run, for relays; empty for work that cannot be detached.
    """

    def __init__(
        self,
        run: RunFolder,
        workers: int | None,
        config: SlurmConfig,
        note: Callable[[str], None],
        again: Sequence[str] = (),
    ) -> None:
        if not workers:
            raise ConfigError(
                "engine.workers: missing; say how many workers may run at once on the Slurm cluster (--workers N)"
            )
        if not config.script.is_file():
            raise ConfigError(f"engine.slurm.template: {config.script}: no such file")
        if config.detach and store_of(run.root) is not None:
            raise ConfigError("engine.slurm.detach: nobody would hold a run on a store; give a folder as --out")
        if config.detach and not again:
            note("engine.slurm.detach: only runs are detached; this is waited for")
        self._run, self._config, self._note, self._again = run, config, note, again
        self._obstacles: set[str] = set()
        self._told: set[str] = set()
        self._at_once = -(-workers // config.workers_per_task)
        self._queue = SlurmQueue(run.root)
        self._folder = run.root.absolute() / "slurm"
        self._shares = Shares(note)
        self._here: LocalEngine | None = None

    def __enter__(self) -> Self:
        """Take the place of a driver that was killed: its tasks would go on, and are ended first.

        A relay leaves alone what the one before it has handed over.

        Raises:
            HandedOverError: If the run is to be detached, and its first relay is submitted.
        """
        ours = goes_on(self._run.root)
        self._cancel(keep=[*ours.relays, *known_jobs(self._folder / KEPT_FILE)] if ours else [])
        if ours is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, exist_ok=ours is not None)  # the token of the desk stands there
        if ours is None and self._config.detach and self._again:
            raise begin(self._run, self._queue, self._config, self._again)
        if ours is not None:
            self._here = LocalEngine(1, self._note)
            self._here.__enter__()
        self._max_array_size = self._queue.max_array_size()
        self._shares.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ours = goes_on(self._run.root)
        if not isinstance(error, HandedOverError):
            self._queue.cancel(CANCEL_SECONDS, keep=ours.relays if ours else ())
            shutil.rmtree(self._folder, ignore_errors=True)
        self._shares.__exit__(kind, error, at)
        if self._here is not None:
            self._here.__exit__(kind, error, at)

    def _cancel(self, keep: Sequence[str]) -> None:
        if not self._queue.cancel(CANCEL_SECONDS, keep):
            raise BackendError(
                f"jobs {self._queue.name} of an earlier run do not end", hint="see squeue, then run again"
            )

    def run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Do units and commit them; see `Engine`.

        Raises:
            HandedOverError: If the run is detached, and arrays and the next relay go on with it.
        """
        if job.reopen is None:
            raise ValueError("a job for Slurm needs a function that makes its config anew")
        job = dataclasses.replace(job, lease=lease_token(job.run.lease_file))
        if self._here is not None:
            return self._run_detached(job, specs, self._here, on_progress)
        num_workers = min(len(specs), self._at_once * self._workers_per_task(job))
        with Tally(job.run, job.phase, specs, num_workers, on_progress, self._shares.note_once) as tally:
            if not specs:
                return tally.finish()
            with self._shares.phase(job, num_workers, socket.gethostname()) as equipped:
                arrays = Arrays(equipped, tally, self._submit)
                arrays.submit(ordinals_of(specs))
                while arrays.tasks:
                    time.sleep(self._config.poll_seconds)
                    arrays.look(self._queue.live())
                    self._tell(job)
            _remove_empty(job)
            return tally.finish(arrays.num_deaths)

    def _run_detached(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        here: LocalEngine,
        on_progress: Callable[[Progress], None] | None,
    ) -> Outcome:
        """The same for a relay: book what the arrays have done that it was waiting for, and hand over what is left."""
        kept = self._folder / KEPT_FILE
        plan = job.run.planned(job.phase) or Plan.of(())
        todo = self._not_seen_to(job, specs)
        at_work = left_with(kept, job.phase, plan)
        if not len(at_work):
            if not len(todo):
                return here.run_units(job, [])
            self._cancel(keep=ours_of(job.run).relays)  # what is not followed must not go on
            if _is_small(job, specs):
                outcome = here.run_units(job, specs, on_progress)
                note_begun(job.run, job.phase)
                return outcome
        units = plan.select(np.union1d(todo, at_work))
        num_workers = min(len(units), self._at_once * self._workers_per_task(job))
        nobody = DeskAddress("", NOBODY, os.uname().nodename, "", num_workers)
        job = dataclasses.replace(job, desk=nobody if job.asks_servers else None)
        with Tally(job.run, job.phase, units, num_workers, None, self._note) as tally:
            arrays = Arrays(job, tally, self._submit)
            if len(at_work):
                arrays.restore(kept)
                arrays.look(self._live())
            if len(new := np.setdiff1d(todo, at_work)):
                arrays.submit(new)
            if arrays.tasks:
                arrays.save(kept)
                raise hand_over(job.run, self._queue, job.phase, {task.job for task in arrays.tasks})
            kept.unlink()
            note_begun(job.run, job.phase)
            _remove_empty(job)
            return tally.finish(arrays.num_deaths)

    def _not_seen_to(self, job: Job[Any, Any], specs: Sequence[UnitSpec]) -> NDArray[np.int64]:
        """Units to do. Where the phase was begun by a relay before, failed records have been tried again already."""
        if job.phase not in ours_of(job.run).begun:
            return ordinals_of(specs)
        shelf = job.run.shelf(job.phase)
        left = (s.ordinal for s in specs if not (shelf.may_hold(s) and job.run.is_done(job.phase, s)))
        return np.fromiter(left, np.int64)

    def _live(self) -> set[Task]:
        """Tasks in the queue, waited for while the controller gives no answer."""
        while (live := self._queue.live()) is None:
            time.sleep(self._config.poll_seconds)
        return live

    def _tell(self, job: Job[Any, Any]) -> None:
        """Tell once why tasks do not start, where waiting may not be enough: what stood in their way twice in a row."""
        lasting = self._queue.obstacles & self._obstacles
        self._obstacles = self._queue.obstacles
        for obstacle in sorted(lasting - self._told):
            self._note(f"Slurm tasks of phase {job.phase!r} wait, says Slurm: {obstacle} (job {self._queue.name})")
        self._told |= lasting

    def _submit(self, job: Job[Any, Any], ordinals: NDArray[np.int64], per_task: int | None) -> dict[Task, Share]:
        """Submit units as arrays, one after the other where they are too many for one; gives what each task has."""
        per_task = per_task or self._config.units_per_task or -(-len(ordinals) // self._at_once)
        folder = self._folder / f"{job.phase}-{time.time_ns()}"
        folder.mkdir()
        file = folder / DESCRIPTION_FILE
        write_text(file, json.dumps(self._description(job, ordinals, per_task)) + "\n")
        of_tasks = read_shares(folder)
        if job.could_use_gpu and not self._names_gpus():
            self._shares.note_once(
                f"engine.resources.{job.phase}: says nothing of GPUs, so its tasks ask Slurm for none; say `gpus: 1`"
                " for each encoder to have one, or 0 if it is to do without"
            )
        tasks: dict[Task, Share] = {}
        previous = ""
        for first in range(0, len(of_tasks), self._max_array_size):
            size = min(self._max_array_size, len(of_tasks) - first)
            functions = [name_of(f) for f in (job.work, job.build_models, job.reopen)]
            command = [sys.executable, "-m", "fineinstructions.engines.slurm_task", str(file)]
            options = [*self._options(job, size), *([f"--dependency=afterany:{previous}"] if previous else [])]
            previous = self._queue.submit(options, self._config.script, [*command, str(first), *functions])
            tasks |= {Task(previous, i): of_tasks[first + i] for i in range(size)}
        return tasks

    def _description(self, job: Job[Any, Any], ordinals: NDArray[np.int64], per_task: int) -> dict[str, Any]:
        return {
            "run": str(job.run.root.absolute()),
            "phase": job.phase,
            "lease": job.lease,
            "units": ordinals.tolist(),
            "units_per_task": per_task,
            "at_once": self._at_once,
            "asks_servers": job.asks_servers,
            "desk": dataclasses.asdict(job.desk) if job.desk else None,
            "open_units": job.open_units,
            "workers_per_task": self._workers_per_task(job),
            "resources": to_plain(job.resources),
            "other_gpus": list(job.other_gpus),
            "node": os.uname().nodename,
        }

    def _names_gpus(self) -> bool:
        """Whether what the user tells sbatch besides is about GPUs."""
        try:
            script = self._config.script.read_text(encoding="utf-8", errors="replace")
        except OSError:
            script = ""  # sbatch says what is wrong with it
        told = [line for line in script.splitlines() if line.startswith("#SBATCH")]
        return "gpu" in "\n".join([*told, *self._config.options]).lower()

    def _workers_per_task(self, job: Job[Any, Any]) -> int:
        """Worker processes of a task: one where each would hold a large model."""
        return min(self._config.workers_per_task, job.max_local_workers or self._config.workers_per_task)

    def _options(self, job: Job[Any, Any], size: int) -> list[str]:
        """What sbatch is told on its command line, where it wins over the template."""
        wanted, times = job.resources, self._workers_per_task(job)
        logs = job.run.logs.absolute() / "slurm"
        logs.mkdir(exist_ok=True)
        options = [
            f"--array=0-{size - 1}%{self._at_once}",
            f"--comment={job.phase} of {job.run.root}",
            f"--output={logs}/{job.phase}-%A-%a.log",
            f"--chdir={Path.cwd()}",
            "--nodes=1",
            "--ntasks=1",
            f"--cpus-per-task={wanted.cpus * times}",
        ]
        if wanted.gpus:
            options.append(f"--gres=gpu:{math.ceil(wanted.gpus * times)}")
        if wanted.memory:
            options.append(f"--mem={-(-wanted.memory * times // (1 << 20))}M")
        return [*options, *self._config.named(), *self._config.options]


def _is_small(job: Job[Any, Any], specs: Sequence[UnitSpec]) -> bool:
    """Whether a relay does a phase itself: one unit, which would be given no more than a relay has."""
    return len(specs) == 1 and specs[0].unit_id == WHOLE_CORPUS and job.resources == Resources()


def _remove_empty(job: Job[Any, Any]) -> None:
    """Remove the logs of a phase's tasks that had nothing to say."""
    for path in (job.run.logs / "slurm").glob(f"{job.phase}-*.log"):
        if not path.stat().st_size:
            path.unlink()
