"""Work units by the jobs of a Slurm cluster: arrays of tasks, each with its share of a phase's units.

In: the units that are left to do. Out: committed units. The driver submits, waits, reads what tasks say in their
journals, and submits again what a task that ended has not done. It computes nothing, so it may sit on a login node, or
be a small job itself.

The decision a reader would question: a driver that waits, and not a chain of arrays by ``afterok``. The units of a
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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fineinstructions.config import Config, to_plain
from fineinstructions.engines.crew import MAX_DEATHS, killer
from fineinstructions.engines.journal import JournalReader
from fineinstructions.engines.shares import Shares
from fineinstructions.engines.slurm_queue import SlurmQueue, Task
from fineinstructions.engines.slurm_task import name_of, shares
from fineinstructions.engines.tally import Outcome, Progress, Tally, raise_for
from fineinstructions.engines.worker import Job, Report
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.runs.durable import write_text
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.specs import Plan, UnitSpec
from fineinstructions.runs.specs import ordinals as ordinals_of

TEMPLATE = Path(__file__).with_name("array.sbatch.txt")
MAX_SUBMISSIONS = 10
"""Arrays that one unit may be part of without being done."""
CANCEL_SECONDS = 60.0


class SlurmConfig(Config):
    """How arrays of jobs are submitted."""

    partition: str | None = None
    """Partition; ``None`` for the cluster's default."""
    account: str | None = None
    """Account; ``None`` for the user's default."""
    time_minutes: int | None = Field(default=None, ge=1)
    """Time limit of a task; what it has not done by then goes into another array. ``None`` for the partition's
    default."""
    options: list[str] = Field(default=[])
    """Further options of sbatch, such as ``--constraint=a100``."""
    template: str | None = None
    """Batch script in place of the one that comes with the package (``engines/array.sbatch.txt``); its last line is
    ``exec "$@"``."""
    workers_per_task: int = Field(default=1, ge=1)
    """Worker processes of a task, each with the phase's resources. Ours."""
    units_per_task: int | None = Field(default=None, ge=1)
    """Work units of a task; ``None`` spreads them evenly over ``workers``. Ours."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """How often the queue is looked at. Ours."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What one task has to do, and what it tells."""

    journal: JournalReader
    ordinals: NDArray[np.int64]


class SlurmEngine:
    """A Slurm cluster; an `Engine`.

    Args:
        run: The run folder.
        workers: Worker processes of all tasks that run at one time.
        config: How arrays are submitted.
        note: Called with what a user should know.
    """

    def __init__(self, run: RunFolder, workers: int | None, config: SlurmConfig, note: Callable[[str], None]) -> None:
        if not workers:
            raise ConfigError(
                "engine.workers: missing; say how many workers may run at once on the Slurm cluster (--workers N)"
            )
        self._script = Path(config.template) if config.template else TEMPLATE
        if not self._script.is_file():
            raise ConfigError(f"engine.slurm.template: {self._script}: no such file")
        self._config, self._note = config, note
        self._obstacles: set[str] = set()
        self._told: set[str] = set()
        self._at_once = -(-workers // config.workers_per_task)
        self._queue = SlurmQueue(run.root)
        self._folder = run.root.absolute() / "slurm"
        self._shares = Shares(note)

    def __enter__(self) -> Self:
        """Take the place of a driver that was killed: its tasks would go on, and are ended first."""
        if not self._queue.cancel(CANCEL_SECONDS):
            raise BackendError(
                f"jobs {self._queue.name} of an earlier run do not end", hint="see squeue, then run again"
            )
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)  # the token of the desk stands there
        self._max_array_size = self._queue.max_array_size()
        self._shares.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._queue.cancel(CANCEL_SECONDS)
        self._shares.__exit__(kind, error, at)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Do units and commit them; see `Engine`."""
        if job.reopen is None:
            raise ValueError("a job for Slurm needs a function that makes its config anew")
        num_workers = min(len(specs), self._at_once * self._workers_per_task(job))
        with Tally(job.run, job.phase, specs, num_workers, on_progress, self._shares.note_once) as tally:
            if not specs:
                return tally.finish()
            job = dataclasses.replace(job, lease=lease_token(job.run.lease_file))
            with self._shares.phase(job, num_workers, socket.gethostname()) as equipped:
                num_deaths = self._work_off(equipped, specs, tally)
            _remove_empty(job.run.logs / "slurm")
            return tally.finish(num_deaths)

    def _work_off(self, job: Job[Any, Any], specs: Sequence[UnitSpec], tally: Tally) -> int:
        """Have every unit done by tasks; gives how many tasks died."""
        arrays = _Arrays(job, tally, self._submit)
        arrays.submit(ordinals_of(specs))
        while arrays.tasks:
            time.sleep(self._config.poll_seconds)
            arrays.look(self._queue.live())
            self._tell(job)
        return arrays.num_deaths

    def _tell(self, job: Job[Any, Any]) -> None:
        """Tell once why tasks do not start, where waiting may not be enough: what stood in their way twice in a row."""
        lasting = self._queue.obstacles & self._obstacles
        self._obstacles = self._queue.obstacles
        for obstacle in sorted(lasting - self._told):
            self._note(f"Slurm tasks of phase {job.phase!r} wait, says Slurm: {obstacle} (job {self._queue.name})")
        self._told |= lasting

    def _submit(self, job: Job[Any, Any], ordinals: NDArray[np.int64], per_task: int | None) -> dict[Task, _Share]:
        """Submit units as arrays, one after the other where they are too many for one; gives what each task has."""
        per_task = per_task or self._config.units_per_task or -(-len(ordinals) // self._at_once)
        of_tasks = shares(ordinals, per_task, self._at_once)
        num_tasks = len(of_tasks)
        folder = self._folder / f"{job.phase}-{time.time_ns()}"
        folder.mkdir()
        write_text(folder / "array.json", json.dumps(self._description(job, ordinals, per_task)) + "\n")
        tasks: dict[Task, _Share] = {}
        previous = ""
        for first in range(0, num_tasks, self._max_array_size):
            size = min(self._max_array_size, num_tasks - first)
            functions = [name_of(f) for f in (job.work, job.build_models, job.reopen)]
            command = [sys.executable, "-m", "fineinstructions.engines.slurm_task", str(folder / "array.json")]
            options = [*self._options(job, size), *([f"--dependency=afterany:{previous}"] if previous else [])]
            previous = self._queue.submit(options, self._script, [*command, str(first), *functions])
            for i in range(size):
                journal = JournalReader(folder / f"{first + i}.jsonl")
                tasks[Task(previous, i)] = _Share(journal, of_tasks[first + i])
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
        named = {
            "partition": self._config.partition,
            "account": self._config.account,
            "time": self._config.time_minutes,
        }
        return [*options, *(f"--{name}={value}" for name, value in named.items() if value), *self._config.options]


class _Arrays:
    """The arrays of one phase: what their tasks have told, and what becomes of the units of one that ended."""

    def __init__(
        self,
        job: Job[Any, Any],
        tally: Tally,
        submit: Callable[[Job[Any, Any], NDArray[np.int64], int | None], dict[Task, _Share]],
    ) -> None:
        self.tasks: dict[Task, _Share] = {}
        self.num_deaths = 0
        self._job, self._tally, self._submit = job, tally, submit
        self._plan = job.run.planned(job.phase) or Plan.of(())
        self._is_left = np.zeros(len(self._plan), np.bool_)
        self._submissions = np.zeros(len(self._plan), np.int16)
        self._deaths: Counter[int] = Counter()
        self._in_vain: Counter[int] = Counter()

    def submit(self, ordinals: NDArray[np.int64], per_task: int | None = None) -> None:
        """Submit units.

        Raises:
            BackendError: If a unit was submitted too often without an end.
        """
        self._is_left[ordinals] = True
        self._submissions[ordinals] += 1
        if (self._submissions[ordinals] > MAX_SUBMISSIONS).any():
            raise BackendError(
                f"a unit of phase {self._job.phase!r} was in {MAX_SUBMISSIONS} arrays and never got done",
                hint=f"raise engine.slurm.time_minutes, or see {self._job.run.logs}/slurm",
            )
        self.tasks |= self._submit(self._job, ordinals, per_task)

    def look(self, live: set[Task] | None) -> None:
        """Read what tasks have told, and take up what those that ended have left.

        Raises:
            ConfigError: What a task has told, or BackendError likewise.
            BackendError: If one task after the other ends without having done anything.
        """
        ended = [] if live is None else [task for task in self.tasks if task not in live]
        for share in self.tasks.values():
            for report in share.journal.news():
                self._take(report)
        suspects: list[int] = []
        others: list[int] = []
        for task in ended:
            share = self.tasks.pop(task)
            self.num_deaths += bool(share.journal.open) and not share.journal.has_left
            self._sort(share, suspects, others)
        if others:
            self.submit(np.sort(np.array(others, np.int64)))
        if suspects:
            self.submit(np.sort(np.array(suspects, np.int64)), per_task=1)

    def _sort(self, share: _Share, suspects: list[int], others: list[int]) -> None:
        """Take up what a task that ended has left: units to be tried alone, others, and those that are done or given
        up, which are booked.
        """
        journal = share.journal
        for spec in self._plan.select(share.ordinals[self._is_left[share.ordinals]]):
            if self._job.run.is_done(self._job.phase, spec, retry_failed=True):
                self._take(Report(spec.ordinal, "done"))
                continue
            if not journal.has_left and spec.ordinal in journal.open:
                self._deaths[spec.ordinal] += 1
            elif not journal.has_left and not journal.num_reports:
                self._end_if_in_vain(spec, journal)
            if self._deaths[spec.ordinal] >= MAX_DEATHS:
                self._take(killer(self._job, spec, "its Slurm task"))
            else:
                (suspects if self._deaths[spec.ordinal] else others).append(spec.ordinal)

    def _take(self, report: Report) -> None:
        raise_for(report)
        if report.ordinal is not None and self._is_left[report.ordinal]:
            self._is_left[report.ordinal] = False
            self._tally.take(self._plan[report.ordinal], report)

    def _end_if_in_vain(self, spec: UnitSpec, journal: JournalReader) -> None:
        """Give up where a unit was in one task after the other that ended before it had done anything."""
        self._in_vain[spec.ordinal] += 1
        if self._in_vain[spec.ordinal] < MAX_DEATHS:
            return
        logs = self._job.run.logs / "slurm"
        if journal.num_lines:
            raise BackendError(f"{MAX_DEATHS} Slurm tasks ended before they had done a unit", hint=f"see {logs}")
        raise BackendError(
            f"{MAX_DEATHS} Slurm tasks ended without a sign of life",
            hint=f"do the nodes see {self._job.run.root.absolute()} and {sys.executable}? see {logs}",
        )


def _remove_empty(folder: Path) -> None:
    """Remove the logs of tasks that had nothing to say."""
    for path in folder.iterdir():
        if not path.stat().st_size:
            path.unlink()
