"""How jobs are submitted to a Slurm cluster, as a recipe says it."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from fineinstructions.config import Config

TEMPLATE = Path(__file__).with_name("array.sbatch.txt")


class SlurmConfig(Config):
    """How jobs are submitted."""

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
    detach: bool = False
    """Submit and leave: between phases a small job, the relay, takes the driver's place, and nothing waits on the
    machine that you submit from. ``status`` says how far the run is and what went wrong; ``scancel --name=...`` stops
    it. Each worker keeps to an even part of ``llm.max_in_flight``. Ours."""
    relay_options: list[str] = Field(default=[])
    """With ``detach``: options of sbatch for relays, in the place of ``options``, such as ``--mem=8G`` or
    ``--partition=small``. A relay has one processor, plans, merges, and does phases of one unit that
    ``engine.resources`` does not name."""

    @property
    def script(self) -> Path:
        """The batch script."""
        return Path(self.template) if self.template else TEMPLATE

    def named(self) -> Iterator[str]:
        """Options of sbatch that have keys of their own."""
        named = {"partition": self.partition, "account": self.account, "time": self.time_minutes}
        yield from (f"--{name}={value}" for name, value in named.items() if value)
