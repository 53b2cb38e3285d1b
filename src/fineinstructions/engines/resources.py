"""What one worker of a phase is given of the machine that it runs on."""

import os
import shutil
import subprocess

from pydantic import ByteSize, Field

from fineinstructions.config import Config


class Resources(Config):
    """What one worker of a phase is given."""

    cpus: int = Field(default=1, ge=1)
    """Processors, and threads of its numeric libraries. Another number may round the last digits of vectors otherwise,
    which makes nothing stale: finish a run with the number that it was begun with. Ours."""
    gpus: int = Field(default=0, ge=0)
    """GPUs that it has for itself and sees alone. With 0, workers on this machine share what there is, and workers of
    Ray and Slurm see none. Ours."""
    memory: ByteSize | None = None
    """Memory, such as ``8GiB``; Ray and Slurm reserve it, on this machine nothing does. ``None`` leaves it to them."""


def thread_environment(cpus: int) -> dict[str, str]:
    """Environment variables that give numeric libraries as many threads as a worker has processors."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(cpus)) | {"TOKENIZERS_PARALLELISM": "false"}


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
