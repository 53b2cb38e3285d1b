"""Work units on a Ray cluster: actors that hold models for many units, handed one unit after the other.

In: the units that are left to do. Out: committed units, by the rules of `crew`. Only actors of Ray Core are used: what
is read, written, tried again and given up is decided here, where it is tested, and not by Ray.

The decision a reader would question: without ``RAY_ADDRESS`` a cluster of one machine is started for this run and ended
with it, in a folder of its own. Ray's own default is the cluster that was last started on the machine, whosever it is.
"""

import fnmatch
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from fineinstructions import __version__
from fineinstructions.backends.serve_config import KEY_VARIABLE
from fineinstructions.config import Config
from fineinstructions.engines.crew import Crew, Death, Hand
from fineinstructions.engines.held_gpus import HeldGpus
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.shares import Shares
from fineinstructions.engines.tally import Outcome, Progress, Tally
from fineinstructions.engines.threads import environment, thread_environment
from fineinstructions.engines.worker import Job, Report, build, close, execute, give_memory_back, require_lease
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.specs import UnitSpec

SHUTDOWN_SECONDS = 30.0
CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 100 << 20
"""Rows never pass through Ray, so its store of a private cluster is as small as Ray allows, about."""
NICENESS = "RAY_worker_niceness"
"""Variable of Ray's; without it workers stand behind every other process of the machine, at a niceness of 15."""


class RayConfig(Config):
    """How workers of a Ray cluster are started."""

    pass_on: list[str] = Field(default=["OPENAI_*", "HF_*", "AWS_*"])
    """Environment variables of this process that workers get as well; ``*`` stands for anything. Ours."""


@dataclass(frozen=True)
class Home:
    """What a worker on another machine has to find there as it is at home."""

    version: str
    folder: str
    """Working folder of the driver, which relative paths of a recipe start from."""
    environment: dict[str, str] = field(repr=False)


class UnitWorker:
    """What runs in the process of an actor: one phase after the other, as `worker.serve` does on one machine."""

    def __init__(self) -> None:
        self._job: Job[Any, Any] | None = None
        self._models: Any = None

    def start(self, job: Job[Any, Any], home: Home) -> Report:
        """Build the models of a job, where this machine has what it takes."""
        trouble = _settle(job, home)
        if trouble:
            return Report(None, "config_error", trouble)
        self._job = job
        self._models, report = build(job)
        return report

    def is_there(self) -> bool:
        """Yes, where the process can be reached at all."""
        return True

    def do(self, spec: UnitSpec, again: bool) -> Report:
        """Do and commit one unit; called from several threads."""
        if self._job is None:
            raise RuntimeError("no job was started")
        return execute(self._job, self._models, spec, again)

    def finish(self) -> bool:
        """Close the models; false where they could not be."""
        job, models, self._models = self._job, self._models, None
        is_closed = job is None or close(job, models)
        del models
        give_memory_back()
        return is_closed


def _settle(job: Job[Any, Any], home: Home) -> str:
    """Make a process like the driver; says what is missing."""
    host = os.uname().nodename
    if home.version != __version__:
        return f"{host}: has fineinstructions {__version__}, the driver {home.version}; install the same on every node"
    try:
        os.chdir(home.folder)
        require_lease(job)
    except (OSError, BackendError):
        return (
            f"{job.run.root}: node {host} of the Ray cluster does not see this folder, or not {home.folder};"
            " put both on storage that all nodes share"
        )
    os.environ.update(home.environment)
    return ""


@dataclass(eq=False, kw_only=True)
class Actor(Hand):
    """An actor as the driver sees it."""

    handle: Any
    resources: Resources
    calls: set[Any] = field(default_factory=set)
    """What it was asked and has not answered."""
    is_lost: bool = False
    """Whether it could not be reached before its last unit was handed out."""


class Actors:
    """The actors of one run; a `Workforce`.

    Args:
        ray: The module.
        open_units: Most units that an actor has open at once, in any phase.
        home: What every actor has to find.
    """

    def __init__(self, ray: Any, open_units: int, home: Home) -> None:
        self._ray, self._open_units, self._home = ray, open_units, home
        self._idle: list[Actor] = []

    def hire(self, job: Job[Any, Any]) -> Actor:
        """An actor that builds the models of a job: an idle one of the same resources, or else a new one."""
        while self._idle:
            actor = self._idle.pop()
            if actor.resources == job.resources and self._has_closed(actor):
                actor.ready = False
                break
            self.end([actor])
        else:
            actor = Actor(handle=self._new(job.resources), resources=job.resources)
        actor.calls = {actor.handle.start.remote(job, self._home)}
        return actor

    def _new(self, resources: Resources) -> Any:
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "memory": resources.memory,
            "max_concurrency": self._open_units + 1,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": thread_environment(resources.cpus)},
        }
        return self._ray.remote(UnitWorker).options(**options).remote()

    def _has_closed(self, actor: Actor) -> bool:
        """Whether an actor says that its last job is over."""
        try:
            return bool(self._ray.get(list(actor.calls), timeout=SHUTDOWN_SECONDS)[0])
        except self._ray.exceptions.RayError:
            return False

    def _reaches(self, actor: Actor) -> bool:
        try:
            return bool(self._ray.get(actor.handle.is_there.remote(), timeout=SHUTDOWN_SECONDS))
        except self._ray.exceptions.RayError:
            return False

    def give(self, actor: Actor, spec: UnitSpec, *, again: bool) -> None:
        """Ask an actor for a unit.

        Ray takes a while to notice that a node is gone, and its actors look idle until then. A unit that another worker
        died over would be handed to one after the other and be given up for deaths that it had no part in.
        """
        actor.is_lost = again and not self._reaches(actor)
        actor.calls.add(actor.handle.do.remote(spec, again))

    def listen(self, actors: Sequence[Actor]) -> Iterator[tuple[Actor, Report | Death]]:
        """Wait for an answer of any actor."""
        asked = {call: actor for actor in actors for call in actor.calls}
        done, _ = self._ray.wait(list(asked), num_returns=1)
        for call in done:
            actor = asked[call]
            actor.calls.discard(call)
            yield actor, self._answer(actor, call)

    def _answer(self, actor: Actor, call: Any) -> Report | Death:
        errors = self._ray.exceptions
        try:
            report: Report = self._ray.get(call)
        except errors.RayTaskError as error:
            line = " ".join(str(error.cause).partition("traceback:")[0].split())[:300]
            raise BackendError(
                f"a Ray worker could not be used: {type(error.cause).__name__}: {line}",
                hint="every node needs the same Python, fineinstructions and extras",
            ) from None
        except errors.RayError as error:
            self.end([actor])  # it may live on behind a broken network
            return Death(_cause(error), blameless=actor.is_lost or bool(getattr(error, "preempted", False)))
        return report

    def take_back(self, actors: Sequence[Actor]) -> None:
        """Have actors close their models and wait for the next job; they have nothing open."""
        for actor in actors:
            actor.calls = {actor.handle.finish.remote()}
        self._idle.extend(actors)

    def end(self, actors: Sequence[Actor]) -> None:
        """Kill actors, whatever they are doing."""
        for actor in actors:
            self._ray.kill(actor.handle)

    def end_idle(self, *, politely: bool) -> None:
        """End idle actors; politely, once they have closed their models."""
        while self._idle:
            actor = self._idle.pop()
            if politely:
                self._has_closed(actor)
            self.end([actor])


def _cause(error: Exception) -> str:
    """Why an actor died, in one line, of the paragraphs that Ray gives."""
    text = " ".join(str(error).split())
    _, found, reason = text.partition("The actor is dead because ")
    return f"Ray's words: {(reason if found else text).partition(' Some common causes')[0][:300]}"


class RayEngine:
    """A Ray cluster; an `Engine`.

    Args:
        workers: Actors; ``None`` for as many as the cluster has room for.
        open_units: Most units that an actor has open at once, in any phase.
        config: How actors are started.
        resources: What workers of the phases are given; a private cluster is made so large that `workers` have room.
        note: Called with what a user should know.
    """

    def __init__(
        self,
        workers: int | None,
        open_units: int,
        config: RayConfig,
        resources: Collection[Resources],
        note: Callable[[str], None],
    ) -> None:
        if workers == 0:
            raise ConfigError(
                "engine.workers: 0 works in this process; choose engine.kind: local, or 1 or more workers"
            )
        self._workers, self._open_units, self._config, self._note = workers, open_units, config, note
        cores = len(os.sched_getaffinity(0))
        self._num_cpus = max(cores, (workers or 0) * max([1, *(r.cpus for r in resources)]))
        self._temporary: Path | None = None
        self._shares = Shares(note)

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ConfigError("engine.kind: ray is not installed; pip install 'fineinstructions[ray]'") from None
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            self._connect(os.environ.get("RAY_ADDRESS", ""))
        home = Home(__version__, str(Path.cwd()), _passed_on(os.environ, self._config.pass_on))
        self._actors = Actors(ray, self._open_units, home)
        self._shares.__enter__()
        return self

    def _connect(self, address: str) -> None:
        """Connect to the cluster that was named, or start one."""
        if address.startswith("ray://"):
            raise ConfigError(
                f"RAY_ADDRESS: {address} is Ray's client, whose workers outlive a driver; run on a node of the cluster"
                " with RAY_ADDRESS=auto, or with `ray job submit`"
            )
        if ":" in address:
            _require_answer(address)
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
        if address in ("", "local"):
            self._temporary = Path(tempfile.mkdtemp(prefix="fi-ray-"))  # short: Ray puts sockets there
            options |= {
                "address": "local",
                "num_cpus": self._num_cpus,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": str(self._temporary),
            }
        ordinary = {NICENESS: os.environ.get(NICENESS, "0")} if self._temporary is not None else {}
        try:
            with environment(ordinary):
                self._ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            self._clean_up()
            line = " ".join(str(error).split())[:300]
            raise ConfigError(f"RAY_ADDRESS: {address or 'not set'}: no Ray cluster there ({line})") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._actors.end_idle(politely=error is None)
        self._shares.__exit__(kind, error, at)
        if self._is_ours:
            self._ray.shutdown()
        self._clean_up()

    def _clean_up(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Do units and commit them; see `Engine`."""
        job = replace(job, lease=lease_token(job.run.lease_file), open_units=min(job.open_units, self._open_units))
        job = self._with_gpus(job)
        taken = job.other_gpus if job.resources.gpus and specs else ()
        if taken:
            self._actors.end_idle(politely=True)  # they may have them from the last phase
        with HeldGpus(self._ray, taken) as held:
            return self._run_units(job, specs, held, on_progress)

    def _with_gpus(self, job: Job[Any, Any]) -> Job[Any, Any]:
        """A job with a GPU for each worker, where they could use one, nobody said anything and the cluster has some."""
        spare = self._ray.cluster_resources().get("GPU", 0) - len(job.other_gpus)
        if not job.could_use_gpu or spare < 1:
            return job
        return replace(job, resources=job.resources.model_copy(update={"gpus": 1.0}), max_local_workers=None)

    def _run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        held: HeldGpus,
        on_progress: Callable[[Progress], None] | None,
    ) -> Outcome:
        room = self._room(job, held) if specs else 0
        workers = min(self._workers or room, len(specs))
        if self._temporary is not None and job.max_local_workers is not None:
            workers = min(workers, job.max_local_workers)
        host = None if self._temporary is not None else self._ray.util.get_node_ip_address()
        with Tally(job.run, job.phase, specs, workers, on_progress, self._shares.note_once) as tally:
            if not specs:
                return tally.finish()
            with self._shares.phase(job, workers, host) as equipped:
                crew = Crew(equipped, self._actors, workers, tally.take)
                crew.work_off(specs)
            return tally.finish(crew.num_deaths)

    def _room(self, job: Job[Any, Any], held: HeldGpus) -> int:
        """How many workers the cluster has room for; 1 where it has to grow first."""
        room = 0
        for node in self._ray.nodes():
            spare = {**node["Resources"]}
            if node["NodeID"] == held.node_id:
                spare["GPU"] = spare.get("GPU", 0) - len(held)
            room += _fitting(spare, job.resources) if node["Alive"] else 0
        if not room:
            wanted = ", ".join(f"{name} {value:.15g}" for name, value in job.resources.model_dump().items() if value)
            line = f"engine.resources.{job.phase}: no node of the Ray cluster has {wanted}"
            if self._temporary is not None:
                raise ConfigError(f"{line}; ask for less, or name a larger cluster in RAY_ADDRESS")
            self._note(f"{line}; waiting for the cluster to grow")
        return max(1, room)


def _require_answer(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try it for minutes.

    Raises:
        ConfigError: If nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"RAY_ADDRESS: {address}: no Ray cluster there ({error})") from None


def _fitting(node: Mapping[str, float], resources: Resources) -> int:
    """How many workers of these resources fit on a node."""
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory or 0}
    return int(min(node.get(name, 0) // value for name, value in wanted.items() if value))


def _passed_on(environment: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Variables that workers get as well; the key of servers that this run starts always is one."""
    wanted = [*patterns, KEY_VARIABLE]
    return {n: v for n, v in environment.items() if any(fnmatch.fnmatchcase(n, p) for p in wanted)}
