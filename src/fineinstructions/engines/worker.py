"""One worker process: builds the models of a phase once, then does the units that come through its pipe.

It lives exactly as long as its driver: on Linux the kernel kills it with its parent, elsewhere the closed pipe ends it.
Reports are plain words and lines, because an exception of a third party may not survive pickling.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar

import pyarrow as pa

from fineinstructions.backends.desk import DeskAddress
from fineinstructions.backends.office import join_office, office_trouble
from fineinstructions.backends.turns import begin_turn
from fineinstructions.engines.resources import Resources
from fineinstructions.errors import BackendError, ConfigError, DataError, PendingError
from fineinstructions.garbage import look_no_more, look_seldom
from fineinstructions.parquet import leave_pandas_out
from fineinstructions.runs.durable import disk_trouble
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.remote import place_of, store_of
from fineinstructions.runs.specs import UnitSpec
from fineinstructions.runs.unit import Unit


class Closable(Protocol):
    """Models that hold something open, such as connections."""

    def look_again(self) -> None:
        """See what other processes have stored since; called before a unit is done again whose worker died."""

    def close(self) -> None:
        """Let go of it; called once, when there is no more work."""


M = TypeVar("M", bound=Closable)
C = TypeVar("C")

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
NAME = "fi-worker"
"""What a worker is called in lists of processes, on Linux; its command line may be that of its driver."""

Kind = Literal[
    "ready", "idle", "done", "pending", "config_error", "backend_error", "data_error", "unit_error", "worker_died"
]


@dataclass(frozen=True)
class Job(Generic[M, C]):
    """What every worker of a phase is given once."""

    run: RunFolder
    phase: str
    work: Callable[[Unit, M, C], None]
    """Module-level function that reads, works and writes one unit; the commit follows it."""
    build_models: Callable[[C], M]
    """Module-level function, called once in every worker; what it gives is closed after the last unit."""
    config: C
    """Goes to both functions; can be pickled."""
    open_units: int = 1
    """Units that a worker has open at once, in threads."""
    resources: Resources = field(default_factory=Resources)
    could_use_gpu: bool = False
    """Whether its models would use a GPU, and the recipe says nothing of it; for engines that the driver cannot ask."""
    max_local_workers: int | None = None
    """Most workers on this machine, where each would hold a large model."""
    other_gpus: tuple[str, ...] = ()
    """GPUs of this machine that workers with GPUs leave alone, because a server has them."""
    lease: str = ""
    """Token of the lease under which units may be committed; empty for workers that die with the lease's holder."""
    asks_servers: bool = False
    """Whether its models may ask model servers, whose limits all workers share."""
    desk: DeskAddress | None = None
    """Where workers hear how many requests they may have under way; ``None`` where the engine has told nothing yet."""
    reopen: Callable[[Path], C] | None = None
    """Module-level function that makes the config anew from the run folder, for workers that can be sent no objects."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says about one unit, or about itself where `ordinal` is ``None``."""

    ordinal: int | None
    kind: Kind
    message: str = ""
    seconds: float = 0.0
    note: str = ""
    """What the user should be told once, whatever became of the unit."""
    model_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds that model servers took for the unit, by stage."""


def serve(pipe: Connection, driver: int) -> None:
    """Main function of a worker process: one phase after the other.

    Args:
        pipe: A job comes in, then its units, each with whether a worker died over it, then ``None`` once every unit was
            reported; reports go out, the last of a job when its models are closed. Then the next job. The driver closes
            the pipe when there is no more work.
        driver: Process id of the driver.
    """
    _die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        job = pipe.recv()
        look_no_more()  # modules stay; looking through them for garbage after every phase is work for nothing
        look_seldom()
        while _serve_phase(pipe, job):
            give_memory_back()
            pipe.send(Report(None, "idle"))
            job = pipe.recv()
    os._exit(0)


def serve_forked(
    pipe: Connection, driver: int, environment: Mapping[str, str], not_its_own: Sequence[Connection]
) -> None:
    """Main function of a worker that was forked ahead of all work: it says that it is idle, and then serves.

    Args:
        pipe: As for `serve`.
        driver: As for `serve`.
        environment: Variables that a spawned worker would have.
        not_its_own: The driver's ends of pipes, this worker's and those of the workers forked before: as long as it
            held them, theirs would not close.
    """
    for connection in not_its_own:
        connection.close()
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError):
        pipe.send(Report(None, "idle"))
    serve(pipe, driver)


def _serve_phase(pipe: Connection, job: Job[Any, Any]) -> bool:
    """Do the units of one phase; false where its models could not be built or closed, which ends the process."""
    models, report = build(job)
    pipe.send(report)
    if models is None:
        return False
    lock = threading.Lock()
    under_way: set[int] = set()

    def do(spec: UnitSpec, again: bool) -> None:
        report = execute(job, models, spec, again)
        with lock, contextlib.suppress(BrokenPipeError):
            under_way.discard(spec.ordinal)
            pipe.send(report)

    with ThreadPoolExecutor(job.open_units) as threads:
        while True:
            try:
                given = pipe.recv()
            except (EOFError, OSError):
                _leave(models, is_idle=not under_way)
            if given is None:
                break
            spec, again = given
            with lock:
                under_way.add(spec.ordinal)
            threads.submit(do, spec, again)
    return close(job, models)


def build(job: Job[M, C]) -> tuple[M | None, Report]:
    """The models of a job, and a report; none where they could not be built."""
    leave_pandas_out()
    if job.desk is not None:
        join_office(job.desk)
    try:
        return job.build_models(job.config), Report(None, "ready")
    except BaseException as error:  # noqa: BLE001 - the process boundary: whatever it is, the driver must hear of it.
        return None, _report(job, None, error, job.run.logs / f"{job.phase}-models.log")


def close(job: Job[M, C], models: M) -> bool:
    """Close models; false where they could not be, which is logged."""
    try:
        models.close()
    except Exception as error:  # noqa: BLE001 - a third party's; the units are committed, and the driver starts another
        _report(job, None, error, job.run.logs / f"{job.phase}-close.log")
        return False
    return True


def give_memory_back() -> None:
    """Return what the last phase freed: the allocators would keep it through every later one.

    On a GPU the context stays, some hundred megabytes, until the run ends.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError):  # glibc has it; other C libraries need not
        ctypes.CDLL(None).malloc_trim(0)


def _leave(models: Closable, *, is_idle: bool) -> NoReturn:
    """End this process: the driver is done or dead, and an open unit is worth nothing to anybody now."""
    try:
        if is_idle:
            models.close()
    finally:
        os._exit(0)


def execute(job: Job[M, C], models: M, spec: UnitSpec, again: bool = False) -> Report:
    """Do and commit one unit; any trouble becomes a report.

    Args:
        job: What to do.
        models: Models of the job.
        spec: The unit.
        again: Whether a worker died over it, who may have stored replies of models.
    """
    began = time.monotonic()
    begin_turn()
    try:
        if again:
            models.look_again()
        with job.run.unit(job.phase, spec) as unit:
            job.work(unit, models, job.config)
            require_lease(job)
            unit.commit()
            model_seconds = unit.model_seconds
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the process boundary: its trouble must not end other units.
        return _report(job, spec, error, crash_log(job.run, job.phase, spec))
    seconds = time.monotonic() - began
    return Report(spec.ordinal, "done", seconds=seconds, note=office_trouble(), model_seconds=model_seconds)


def require_lease(job: Job[Any, Any]) -> None:
    """Refuse to go on where another run has taken over the folder since this job was handed out.

    Raises:
        BackendError: If it has, or this machine does not see the folder.
    """
    if job.lease and lease_token(job.run.lease_file) != job.lease:
        where = socket.gethostname()
        if store_of(job.run.root) is not None:
            raise BackendError(
                f"{place_of(job.run.root)}: a worker on {where} finds the run lost to another one, or does not see the"
                f" working folder {job.run.root}; nothing more is committed",
                hint="start one run at a time; on a cluster choose a --work on storage that every machine sees",
            )
        raise BackendError(
            f"{job.run.root}: a worker on {where} finds another run there, or none",
            hint="choose an --out on storage that every machine sees, and start one run at a time",
        )


def crash_log(run: RunFolder, phase: str, spec: UnitSpec) -> Path:
    """File for the traceback of a unit."""
    return run.logs / f"{phase}-{spec.folder_name}.log"


def _report(job: Job[Any, Any], spec: UnitSpec | None, error: BaseException, log: Path) -> Report:
    ordinal = spec.ordinal if spec else None
    if isinstance(error, ConfigError):
        return Report(ordinal, "config_error", str(error))
    if isinstance(error, PendingError):
        return Report(ordinal, "pending", str(error))
    if isinstance(error, BackendError):
        return Report(ordinal, "backend_error", str(error))
    full = disk_trouble(job.run.root, error) if isinstance(error, OSError) else ""
    if full:
        return Report(ordinal, "config_error", full)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as trouble:
        line = disk_trouble(job.run.root, trouble) or f"{log}: {trouble.strerror}; mend it and run again"
        return Report(ordinal, "config_error", line)
    line = " ".join(str(error).split())[:300] or type(error).__name__
    where = f"unit {spec.folder_name}" if spec else "building the models"
    kind: Kind = "data_error" if isinstance(error, DataError) else "unit_error"
    named = line if kind == "data_error" else f"{type(error).__name__}: {line}"
    return Report(ordinal, kind, f"{where}: {named} (traceback in {log})")


def _die_with(driver: int) -> None:
    """Have the kernel kill this process when the driver dies; the closed pipe does the rest on other systems."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_NAME, NAME.encode())
    if os.getppid() != driver:
        os._exit(0)
