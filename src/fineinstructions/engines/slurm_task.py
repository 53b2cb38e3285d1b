"""A task of a Slurm array: does its share of a phase's units with worker processes of its own.

Started by `slurm` as ``python -m fineinstructions.engines.slurm_task``. In: the description of the array, and which
task this is. Out: committed units, and a journal for the driver.

The decision a reader would question: functions come by their names on the command line, which the driver gave to
Slurm, and everything else as JSON from the run folder. Nothing is unpickled that lies on shared storage.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.desk import DeskAddress
from fineinstructions.engines.crew import Crew
from fineinstructions.engines.journal import JournalWriter
from fineinstructions.engines.resources import Resources, visible_gpus
from fineinstructions.engines.staff import Staff
from fineinstructions.engines.tally import raise_for
from fineinstructions.engines.worker import Job, Report, require_lease
from fineinstructions.errors import ConfigError, FineInstructionsError
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.specs import UnitSpec

EXIT_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str]) -> int:
    """Do the share of one task.

    Args:
        arguments: File that describes the array, number of the first task, and the names of the functions `work`,
            `build_models` and `reopen` of the job.

    Returns:
        Exit code; whatever it is, the driver looks at what was done.
    """
    file, first, *functions = arguments
    array = json.loads(Path(file).read_text(encoding="utf-8"))
    number = int(first) + int(os.environ["SLURM_ARRAY_TASK_ID"])
    with JournalWriter(Path(file).parent / f"{number}.jsonl") as journal:
        try:
            work, build_models, reopen = map(function_named, functions)
            run = RunFolder.open(array["run"])
            job: Job[Any, Any] = Job(
                run,
                array["phase"],
                work,
                build_models,
                config=reopen(run.root),
                open_units=array["open_units"],
                resources=Resources(**array["resources"]),
                other_gpus=taken_here(array["other_gpus"], array["node"], visible_gpus(), os.environ),
                lease=array["lease"],
                asks_servers=array["asks_servers"],
                desk=DeskAddress(**array["desk"]) if array["desk"] else None,
            )
            require_lease(job)
            _do_share(job, share(array, number, job), array["workers_per_task"], journal)
        except (ImportError, AttributeError) as error:
            journal.report(Report(None, "backend_error", f"{socket.gethostname()}: {error}; same packages everywhere?"))
            return 1
        except FineInstructionsError as error:
            journal.report(
                Report(None, "config_error" if isinstance(error, ConfigError) else "backend_error", str(error))
            )
            return 1
    return 0


def _do_share(job: Job[Any, Any], specs: list[UnitSpec], num_workers: int, journal: JournalWriter) -> None:
    def take(_: UnitSpec, report: Report) -> None:
        journal.report(report)
        raise_for(report)

    with Staff() as staff:
        room = staff.room(job)
        crew = Crew(job, staff, num_workers if room is None else min(num_workers, room), take, journal.opened)

        def end_soon(*_: object) -> None:
            journal.left("the time is nearly up")
            crew.drain()

        signal.signal(signal.SIGUSR1, end_soon)
        signal.signal(signal.SIGTERM, _terminated)
        try:
            crew.work_off(specs)
        except SystemExit:
            journal.left("ended by Slurm")
            raise


def _terminated(*_: object) -> None:
    sys.exit(EXIT_TERMINATED)


def share(array: dict[str, Any], number: int, job: Job[Any, Any]) -> list[UnitSpec]:
    """Units of one task, but for what an earlier start of the same task has committed."""
    plan = job.run.planned(job.phase)
    if plan is None:
        return []
    mine = shares(np.array(array["units"], np.int64), array["units_per_task"], array["at_once"])[number]
    shelf = job.run.shelf(job.phase)
    return [
        spec
        for spec in plan.select(mine)
        if not (shelf.may_hold(spec) and job.run.is_done(job.phase, spec, retry_failed=True))
    ]


def taken_here(
    taken: Sequence[str], node: str, visible: Sequence[str], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """GPUs that a task sees and a server of the driver has, where both are on one machine; as the task names them.

    Slurm may show a task its GPUs under numbers from 0; what it calls them itself is told beside that.

    Args:
        taken: GPUs that the driver's servers have, as the driver names them.
        node: Machine of the driver.
        visible: GPUs that the task sees.
        environment: The task's environment.

    Example:
        >>> here = os.uname().nodename
        >>> taken_here(["3"], here, ["0", "1"], {"SLURM_JOB_GPUS": "2,3"}), taken_here(["3"], here, ["2", "3"], {})
        (('1',), ('3',))
        >>> taken_here(["3"], "elsewhere", ["2", "3"], {})
        ()
    """
    if node != os.uname().nodename:
        return ()
    told = environment.get("SLURM_JOB_GPUS", "").split(",")
    names = told if len(told) == len(visible) and all(told) else visible
    return tuple(mine for mine, name in zip(visible, names, strict=True) if name in taken)


def shares(ordinals: NDArray[np.int64], per_task: int, at_once: int) -> list[NDArray[np.int64]]:
    """Units of every task.

    Tasks that run at one time take turns, so that they end at about the same time; those that run after them take what
    comes after in the plan, so that units that stand together are done together.

    Args:
        ordinals: Units, in plan order.
        per_task: Most units of a task.
        at_once: Tasks that run at one time.

    Example:
        >>> [share.tolist() for share in shares(np.arange(7), per_task=2, at_once=2)]
        [[0, 2], [1, 3], [4, 6], [5]]
    """
    windows = (ordinals[start : start + per_task * at_once] for start in range(0, len(ordinals), per_task * at_once))
    return [
        window[i::num_tasks]
        for window in windows
        for num_tasks in [-(-len(window) // per_task)]
        for i in range(num_tasks)
    ]


def function_named(name: str) -> Any:
    """A function of a module, named as ``module:function``."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def name_of(function: Any) -> str:
    """Inverse of `function_named`.

    Raises:
        ValueError: If it is one of a script, which a task cannot import.
    """
    if function.__module__ == "__main__":
        raise ValueError(f"{function.__qualname__} belongs to a script; put it into a module")
    return f"{function.__module__}:{function.__qualname__}"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
