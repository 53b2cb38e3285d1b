"""The worker processes of one run as their driver sees them: started, lent to one phase after the other, ended.

In: jobs. Out: processes that build the models of a job and wait for its units.

The decision a reader would question: processes stay for the whole run although every phase has models of its own.
Starting one costs about a second of processor time, most of it imports, and a run has ten phases: on small inputs that
was half of the run.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from fineinstructions.engines.worker import serve
from fineinstructions.runs.plan import UnitSpec

SHUTDOWN_SECONDS = 5.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Worker:
    """A worker process as the driver sees it."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    open: dict[int, UnitSpec] = field(default_factory=dict)
    alone: bool = False
    """Whether its only unit is a suspect, run by itself so that a death is pinned on it."""


class Staff:
    """Worker processes that outlive a phase: each costs about a second of processor time to start.

    A context: what is idle at its end is ended.
    """

    def __init__(self) -> None:
        self._idle: list[Worker] = []

    def __enter__(self) -> "Staff":
        return self

    def __exit__(self, *_: object) -> None:
        end_workers(self._idle)

    def hire(self) -> Worker:
        """A worker that waits for a job: an idle one, or else a new one.

        One that died while it was idle, or does not come to an end with the models of its last job, is let go; no unit
        is lost by that.
        """
        while self._idle:
            worker = self._idle.pop()
            if _has_closed(worker):
                worker.ready = False
                return worker
            worker.process.kill()
            end_workers([worker])
        return _start()

    def take_back(self, workers: Sequence[Worker]) -> None:
        """Have workers close their models and wait for the next job; they have nothing open."""
        self._idle.extend(workers)
        for worker in workers:
            with suppress(OSError):  # It is dead; `hire` finds out.
                worker.pipe.send(None)


def _has_closed(worker: Worker) -> bool:
    """Whether a worker says that its last job is over."""
    try:
        return worker.pipe.poll(SHUTDOWN_SECONDS) and worker.pipe.recv().kind == "idle"
    except (EOFError, OSError):
        return False


def _start() -> Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
    with _one_thread_each():
        process.start()
    theirs.close()
    return Worker(process, mine)


def end_workers(workers: list[Worker]) -> None:
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
    workers.clear()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start now use one numeric thread each: there is a process per core already."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Start processes with Ctrl-C blocked, so that it reaches the driver only, and the driver once they are started.

    Blocking the signal is what the new process inherits. It does not protect the driver: another of its threads takes
    the signal, and Python then interrupts the main thread all the same, half-way through the start. So the signal is
    also caught and sent again at the end.
    """
    caught: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: caught.append(number)) if in_main_thread else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
        if caught:
            signal.raise_signal(signal.SIGINT)
