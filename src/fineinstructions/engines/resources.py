"""What one worker of a phase is given of the machine that it runs on."""

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence

from pydantic import ByteSize, Field, field_validator

from fineinstructions.config import Config

_ROUNDING = 1e-6
"""Three thirds of a GPU are one."""


class Resources(Config):
    """What one worker of a phase is given."""

    cpus: int = Field(default=1, ge=1)
    """Processors, and threads of its numeric libraries. Another number may round the last digits of vectors otherwise,
    which makes nothing stale: finish a run with the number that it was begun with. Ours."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that it has for itself and sees alone, or the share of one that it has with others, such as 0.5. With 0,
    workers on this machine share what there is, and workers of Ray and Slurm see none. Ours."""
    memory: ByteSize | None = None
    """Memory, such as ``8GiB``; Ray and Slurm reserve it, on this machine nothing does. ``None`` leaves it to them."""

    @field_validator("gpus")
    @classmethod
    def _whole_or_a_share(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("must be a whole number, or a share of one GPU such as 0.5")
        return value


class Gpus:
    """The GPUs of this machine, and how much of each is given away.

    Args:
        names: As CUDA names them, in the machine's order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._given = dict.fromkeys(names, 0.0)

    def __len__(self) -> int:
        return len(self._given)

    def room(self, per_worker: float, others: Collection[str] = ()) -> int:
        """How many workers have room beside each other.

        Args:
            per_worker: GPUs of a worker, or its share of one; more than 0.
            others: GPUs that are not for workers.
        """
        number = sum(name not in others for name in self._given)
        return number // int(per_worker) if per_worker >= 1 else number * int(1 / per_worker + _ROUNDING)

    def take(self, per_worker: float, others: Collection[str] = ()) -> tuple[str, ...]:
        """GPUs for one worker: the least used, in the machine's order; none for none."""
        if not per_worker:
            return ()
        fitting = [name for name in self._given if name not in others]
        chosen = tuple(sorted(fitting, key=lambda name: round(self._given[name], 3))[: max(1, int(per_worker))])
        for name in chosen:
            self._given[name] += min(per_worker, 1.0)
            assert self._given[name] <= 1 + _ROUNDING, "more workers than `room` says"
        return chosen

    def give_back(self, names: Sequence[str], per_worker: float) -> None:
        """Take back what a worker was given."""
        for name in names:
            self._given[name] -= min(per_worker, 1.0)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        return names[: names.index("-1")] if "-1" in names else [name for name in names if name]
    if shutil.which("nvidia-smi") is None:
        return []
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, _ in enumerate(line for line in told.stdout.splitlines() if line.startswith("GPU "))]
