"""The arrays of one phase on a Slurm cluster: what their tasks have told, and what becomes of units that one left.

In: units to submit, the tasks that are live, and journals. Out: booked units, and further arrays. Whoever drives may
write down what it knows and end; the next driver goes on from there.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.config import digest_of_list
from fineinstructions.engines.crew import MAX_DEATHS, killer
from fineinstructions.engines.journal import JournalReader
from fineinstructions.engines.slurm_queue import Task
from fineinstructions.engines.slurm_task import shares
from fineinstructions.engines.tally import Tally, raise_for
from fineinstructions.engines.worker import Job, Report
from fineinstructions.errors import BackendError
from fineinstructions.runs.durable import write_text
from fineinstructions.runs.specs import Plan, UnitSpec

MAX_SUBMISSIONS = 10
"""Arrays that one unit may be part of without being done."""
DESCRIPTION_FILE = "array.json"
"""Beside the journals of an array's tasks: what they have to do."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one task has to do, and what it tells."""

    journal: JournalReader
    ordinals: NDArray[np.int64]


Submit = Callable[[Job[Any, Any], NDArray[np.int64], int | None], dict[Task, Share]]


def read_shares(folder: Path) -> list[Share]:
    """The shares of all tasks of a submission, in order."""
    array = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    of_tasks = shares(np.array(array["units"], np.int64), array["units_per_task"], array["at_once"])
    return [Share(JournalReader(folder / f"{number}.jsonl"), mine) for number, mine in enumerate(of_tasks)]


def known_jobs(file: Path) -> set[str]:
    """Arrays that a driver of before has written down; none where there is no such file."""
    return {str(job) for job, *_ in (_read(file) or {}).get("tasks", ())}


def left_with(file: Path, phase: str, plan: Plan) -> NDArray[np.int64]:
    """Units that arrays have which a driver of before has written down; none of another phase or plan."""
    known = _read(file)
    if known is None or known["phase"] != phase or known["plan"] != _digest(plan):
        return np.zeros(0, np.int64)
    return np.array(known["left"], np.int64)


class Arrays:
    """The arrays of one phase.

    Args:
        job: What is done to a unit.
        tally: Where units are booked.
        submit: Submits units, that many to a task where that is said; gives what each task has.
    """

    def __init__(self, job: Job[Any, Any], tally: Tally, submit: Submit) -> None:
        self.tasks: dict[Task, Share] = {}
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

    def save(self, file: Path) -> None:
        """Write down what the next driver has to know."""
        left = np.flatnonzero(self._is_left)
        again = left[self._submissions[left] > 1]
        places = {task: share.journal.path for task, share in self.tasks.items()}
        known = {
            "phase": self._job.phase,
            "plan": _digest(self._plan),
            "left": left.tolist(),
            "submissions": dict(zip(again.tolist(), self._submissions[again].tolist(), strict=True)),
            "deaths": self._deaths,
            "in_vain": self._in_vain,
            "num_deaths": self.num_deaths,
            "tasks": [[t.job, t.index, path.parent.name, int(path.stem)] for t, path in places.items()],
        }
        write_text(file, json.dumps(known) + "\n")

    def restore(self, file: Path) -> None:
        """Go on from what a driver of before has written down, of the same phase and plan."""
        known = json.loads(file.read_text(encoding="utf-8"))
        left = np.array(known["left"], np.int64)
        self._is_left[left] = True
        self._submissions[left] = 1
        for ordinal, number in known["submissions"].items():
            self._submissions[int(ordinal)] = number
        self._deaths.update({int(ordinal): number for ordinal, number in known["deaths"].items()})
        self._in_vain.update({int(ordinal): number for ordinal, number in known["in_vain"].items()})
        self.num_deaths = known["num_deaths"]
        submitted: dict[str, Sequence[Share]] = {}
        for job, index, folder, number in known["tasks"]:
            if folder not in submitted:
                submitted[folder] = read_shares(file.parent / folder)
            self.tasks[Task(job, index)] = submitted[folder][number]

    def _sort(self, share: Share, suspects: list[int], others: list[int]) -> None:
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


def _digest(plan: Plan) -> str:
    return digest_of_list([plan.unit_ids.to_pylist()])


def _read(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return known
