"""Where the units of a phase are done: on this machine, on a Ray cluster, or by the jobs of a Slurm cluster.

The decision a reader would question: an engine gets one phase at a time and returns when it is done. What is planned
and published between two phases is the same code for all of them, and no engine knows what a phase is about.
"""

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.engines.local import LocalEngine
from fineinstructions.engines.ray import RayConfig, RayEngine
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.slurm import SlurmEngine
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.slurm_relay import refuse_while_detached
from fineinstructions.engines.tally import Outcome, Progress
from fineinstructions.engines.worker import Job
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.specs import UnitSpec


class Engine(Protocol):
    """Does the units of one phase after the other. A context: at its end no worker is left.

    The run folder's lease is held by the caller from before the context until after it.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def run_units(
        self,
        job: Job[Any, Any],
        specs: Sequence[UnitSpec],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outcome:
        """Do units on workers, each with its own models, and commit them.

        Args:
            job: What is done to a unit, and with what.
            specs: Units to do, as `RunFolder.todo` gives them.
            on_progress: Called after every unit, in this process.

        Returns:
            How many units were done and which were set aside, with reasons.

        Raises:
            ConfigError: If a unit or the building of models finds a mistake of the user; committed units are kept.
            BackendError: If an engine failed for good; committed units are kept.
            PendingError: If units wait for answers; every unit had its turn.
            HandedOverError: If jobs of a cluster go on with the run, and nobody waits for them.
            DataError: If a unit that covers a whole phase fails, or the first units all fail.
            KeyboardInterrupt: After Ctrl-C, once the workers of this call are gone.
        """


class LaunchConfig(Config):
    """Where the work is done, and by how many."""

    kind: Literal["local", "ray", "slurm"] = "local"
    """This machine; a Ray cluster (``RAY_ADDRESS``, or one that is started for the run on this machine); or the jobs of
    a Slurm cluster. A run may be begun on one and finished on another. Ours."""
    workers: int | None = Field(default=None, ge=0)
    """Worker processes; ``None`` for as many as this machine or the Ray cluster has room for, 0 to work in this
    process. With Slurm it must be said. Ours."""
    open_units: int = Field(default=3, ge=1)
    """Units that a worker keeps open at once where a model server does the work, so that no unit border drains the
    server's request window; units with few requests need more of them. The embedded tier uses 1. Ours."""
    ray: RayConfig = RayConfig()
    """With ``kind: ray``."""
    slurm: SlurmConfig = SlurmConfig()
    """With ``kind: slurm``."""


def open_engine(
    run: RunFolder,
    config: LaunchConfig,
    resources: Collection[Resources],
    note: Callable[[str], None],
    import_modules: Callable[[], None] = lambda: None,
    again: Sequence[str] = (),
) -> Engine:
    """The engine that a recipe names.

    Args:
        run: The run folder; nothing is changed in it yet.
        config: The recipe's choice.
        resources: What workers of the phases will be given.
        note: Called with what a user should know.
        import_modules: Imports what workers would import by themselves; called where they are forked.
        again: Command that goes on with the run, where it may be detached.

    Raises:
        ConfigError: If the engine's settings are wrong, it is not installed, or jobs of a cluster go on with the run.
    """
    refuse_while_detached(run.root)
    if config.kind == "ray":
        return RayEngine(config.workers, config.open_units, config.ray, resources, note)
    if config.kind == "slurm":
        return SlurmEngine(run, config.workers, config.slurm, note, again)
    return LocalEngine(config.workers, note, import_modules, resources)
