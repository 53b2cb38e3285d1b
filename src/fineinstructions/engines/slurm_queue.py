"""The programs of Slurm that a driver calls: sbatch, squeue, scancel, scontrol.

In: what to submit. Out: which tasks are waiting or running. A controller that gives no answer for a while is waited
for.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fineinstructions.errors import BackendError, ConfigError

PATIENCE_SECONDS = 600.0
"""How long a controller may be silent."""
DEFAULT_MAX_ARRAY_SIZE = 1001
"""What Slurm has where its configuration does not say, and cannot be asked."""
ORDINARY_REASONS = frozenset(
    {"None", "Resources", "Priority", "JobArrayTaskLimit", "Dependency", "BeginTime", "Prolog"}
)
"""Why a task may wait without anybody having to do something."""
NO_ARRAY = -1


@dataclass(frozen=True, slots=True)
class Task:
    """One task of an array."""

    job: str
    index: int
    """Its number in the array; `NO_ARRAY` for a job that is none."""

    def __str__(self) -> str:
        return f"{self.job}_{self.index}"


class SlurmQueue:
    """The jobs of one run folder: all of them have its name.

    Args:
        root: The run folder.
    """

    def __init__(self, root: Path) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError("engine.kind: slurm, but there is no sbatch here; run where jobs are submitted from")
        place = os.path.realpath(root)
        self.name = f"fineinstructions-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        self.obstacles: set[str] = set()
        """Why tasks were waiting when the queue was last looked at, other than for their turn."""
        self._silent_since: float | None = None

    def max_array_size(self) -> int:
        """Most tasks of an array."""
        told = _call("scontrol", "show", "config")
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told.stdout, re.MULTILINE)
        return int(found[1]) if found else DEFAULT_MAX_ARRAY_SIZE

    def submit(self, options: Sequence[str], script: Path, command: Sequence[str]) -> str:
        """Submit a job or an array; returns its id.

        Raises:
            ConfigError: If Slurm refuses it, with its reason.
        """
        done = _call("sbatch", "--parsable", f"--job-name={self.name}", *options, str(script), *command)
        if done.returncode:
            line = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
            raise ConfigError(f"engine.slurm: the job was refused ({line}); mend engine.slurm or its template")
        return done.stdout.strip().split(";")[0]

    def live(self) -> set[Task] | None:
        """Tasks that are waiting, running or ending; ``None`` while the controller gives no answer.

        Raises:
            BackendError: If it has not answered for too long.
        """
        told = _call("squeue", "--noheader", "--array", f"--name={self.name}", "--format=%F %K %r")
        if told.returncode == 0:
            self._silent_since = None
            lines = [line.split(maxsplit=2) for line in told.stdout.splitlines()]
            self.obstacles = {reason for _, _, reason in lines} - ORDINARY_REASONS
            return {Task(job, int(index) if index.isdigit() else NO_ARRAY) for job, index, _ in lines}
        self._silent_since = self._silent_since or time.monotonic()
        if time.monotonic() - self._silent_since > PATIENCE_SECONDS:
            line = " ".join(told.stderr.split())[:300]
            raise BackendError(f"Slurm has not answered for {PATIENCE_SECONDS / 60:.0f} minutes ({line})")
        return None

    def delay(self, job: str, after: Sequence[str]) -> None:
        """Have a waiting job wait until others have ended, in whatever way.

        Raises:
            BackendError: If it is not waiting.
        """
        done = _call("scontrol", "update", f"jobid={job}", f"dependency=afterany:{':'.join(after)}")
        if done.returncode:
            line = " ".join(done.stderr.split())[:300]
            raise BackendError(f"Slurm job {job}, which was to go on with the run, cannot be told to wait ({line})")

    def cancel(self, patience_seconds: float, keep: Collection[str] = ()) -> bool:
        """Cancel the jobs of the run folder, and wait until they are gone; false where they are not in time.

        Args:
            patience_seconds: How long they are waited for.
            keep: Jobs that are left alone.
        """
        deadline = time.monotonic() + patience_seconds
        while (live := self.live()) is None or not {task.job for task in live} <= set(keep):
            for job in sorted({task.job for task in live or ()} - set(keep)):
                _call("scancel", job)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True


def jobs_named(name: str) -> list[tuple[str, str, str]] | None:
    """Id, state and reason of the jobs of a name, tasks of an array that are alike as one; for who only looks.

    Returns:
        Nothing at all where there is no Slurm here, or it gives no answer.
    """
    if shutil.which("squeue") is None:
        return None
    told = _call("squeue", "--noheader", f"--name={name}", "--format=%F %T %r")
    if told.returncode:
        return None
    lines = [line.split(maxsplit=2) for line in told.stdout.splitlines()]
    return [(job, state, reason) for job, state, reason in lines]


def _call(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Slurm; Ctrl-C does not reach it, so that nothing is submitted by half."""
    return subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
