"""The worker processes of one run as their driver sees them: started, lent to one phase after the other, ended.

In: jobs. Out: processes that build the models of a job and wait for its units.

The decisions a reader would question: plain processes with one pipe each instead of `ProcessPoolExecutor`.
There, the death of one worker breaks the whole pool, takes the other workers' units (and their paid model calls) with
it, and does not say which unit was to blame; and a worker can hold only one unit, which drains the request window at
every unit's end. Here a death costs one worker's open units and is pinned on them. And processes stay for the whole run
although every phase has models of its own: starting one costs about a second of processor time, most of it imports, and
a run has ten phases; on small inputs that was half of the run. Where this process may, it forks them before it has
threads, which spares them those imports.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from fineinstructions.engines.crew import Death, Hand
from fineinstructions.engines.interrupts import interrupts_held_back
from fineinstructions.engines.resources import Gpus, Resources, visible_gpus
from fineinstructions.engines.threads import environment, may_fork, thread_environment
from fineinstructions.engines.worker import Job, Report, serve, serve_forked
from fineinstructions.errors import ConfigError
from fineinstructions.runs.specs import UnitSpec

SHUTDOWN_SECONDS = 5.0


@dataclass(eq=False, kw_only=True)
class Worker(Hand):
    """A worker process as the driver sees it."""

    process: BaseProcess
    pipe: Connection
    resources: Resources
    gpus: tuple[str, ...] = ()
    """GPUs that it has for itself, as CUDA names them."""


class Staff:
    """Worker processes that outlive a phase; a `Workforce`.

    A context: what is idle at its end is ended.
    """

    def __init__(self) -> None:
        self._idle: list[Worker] = []

    def __enter__(self) -> "Staff":
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._idle)
        self._idle = []

    def fork_ahead(self, number: int, import_modules: Callable[[], None]) -> None:
        """Fork workers now, where this process can; where it cannot, they are spawned when there is work for them.

        They have the modules of this process already, which cost a spawned one a second of processor time. Later this
        process has threads, and can fork no more.

        Args:
            number: How many.
            import_modules: Called before the first, to import what all of them would import.
        """
        if not number or not may_fork():
            return
        resources = Resources()
        with environment(thread_environment(resources.cpus)):  # libraries read it when they are loaded, so here
            import_modules()
        if not may_fork():  # one of them has a thread
            return
        context = multiprocessing.get_context("fork")
        for _ in range(number):
            mine, theirs = context.Pipe()
            not_its_own = [*(worker.pipe for worker in self._idle), mine]
            arguments = (theirs, os.getpid(), thread_environment(resources.cpus), not_its_own)
            process = context.Process(target=serve_forked, args=arguments, daemon=True)
            try:
                with interrupts_held_back():
                    process.start()
                    self._idle.append(Worker(process=process, pipe=mine, resources=resources))
            except OSError:  # no more processes; the run may not need so many
                mine.close()
                return
            finally:
                theirs.close()

    def room(self, job: Job[Any, Any]) -> int | None:
        """How many workers of a job have room beside each other; ``None`` where nothing limits them.

        Raises:
            ConfigError: If there are not even the GPUs for one.
        """
        wanted = job.resources.gpus
        if not wanted:
            return None
        room = self._gpus.room(wanted, job.other_gpus)
        if not room:
            shown = len(self._gpus) - len(job.other_gpus)
            raise ConfigError(
                f"engine.resources: a worker is to have {wanted:g} GPUs, but this machine shows {shown}; lower `gpus`,"
                " or look at CUDA_VISIBLE_DEVICES and nvidia-smi"
            )
        return room

    @cached_property
    def _gpus(self) -> Gpus:
        return Gpus(visible_gpus())

    def hire(self, job: Job[Any, Any]) -> Worker:
        """A worker that builds the models of a job: an idle one, or else a new one.

        One that died while it was idle, does not come to an end with the models of its last job, or has other resources
        than the job wants, is let go; no unit is lost by that.
        """
        while self._idle:
            worker = self._idle.pop()
            has_closed = _has_closed(worker)
            if has_closed and worker.resources == job.resources and not set(worker.gpus) & set(job.other_gpus):
                worker.ready = False
                break
            if not has_closed:
                worker.process.kill()
            self.end([worker])
        else:
            worker = self._start(job)
        with suppress(OSError):  # It is dead; its pipe tells so when it is read next.
            worker.pipe.send(job)
        return worker

    def _start(self, job: Job[Any, Any]) -> Worker:
        resources = job.resources
        gpus = self._gpus.take(resources.gpus, job.other_gpus) if resources.gpus else ()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
        with environment(thread_environment(resources.cpus) | _sees(gpus)):
            process.start()
        theirs.close()
        return Worker(process=process, pipe=mine, resources=resources, gpus=gpus)

    def give(self, worker: Worker, spec: UnitSpec, *, again: bool) -> None:
        """Send a unit down a worker's pipe."""
        with suppress(OSError):  # It is dead; its pipe tells so when it is read next, and the unit is open till then.
            worker.pipe.send((spec, again))

    def listen(self, workers: Sequence[Worker]) -> Iterator[tuple[Worker, Report | Death]]:
        """Wait for the pipes of workers, and read each that has something."""
        ready = wait([worker.pipe for worker in workers])
        for worker in [w for w in workers if w.pipe in ready]:
            try:
                yield worker, worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                worker.pipe.close()
                self._gpus.give_back(worker.gpus, worker.resources.gpus)
                yield worker, Death(f"exit code {worker.process.exitcode}")

    def take_back(self, workers: Sequence[Worker]) -> None:
        """Have workers close their models and wait for the next job; they have nothing open."""
        self._idle.extend(workers)
        for worker in workers:
            with suppress(OSError):  # It is dead; `hire` finds out.
                worker.pipe.send(None)

    def end(self, workers: Sequence[Worker]) -> None:
        """End processes: politely where they are idle, else by SIGKILL."""
        for worker in workers:
            if worker.open or not worker.ready:
                worker.process.kill()
            worker.pipe.close()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            self._gpus.give_back(worker.gpus, worker.resources.gpus)


def _has_closed(worker: Worker) -> bool:
    """Whether a worker says that its last job is over, and lives; a dead one's pipe has its end to tell as well."""
    try:
        return worker.pipe.poll(SHUTDOWN_SECONDS) and worker.pipe.recv().kind == "idle" and not worker.pipe.poll()
    except (EOFError, OSError):
        return False


def _sees(gpus: Sequence[str]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
