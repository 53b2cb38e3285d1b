"""Toy runs on a Slurm cluster: started, watched, and beside what one process of this machine gives."""

import re
import subprocess
from pathlib import Path

import pytest
from slurm_cluster import slurm
from toy_run import Toy, command_of, documents


def toy_on(cluster: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A run of twelve units by two workers of Slurm."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    return Toy(inputs=(documents(folder, {}),), out=str(folder / "run"), engine="slurm", workers=2, unit_rows=5)


def start_driver(toy: Toy) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command_of(toy), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(driver: "subprocess.Popen[str]") -> tuple[int, str]:
    _, errors = driver.communicate(timeout=300)
    return driver.returncode, errors


def num_committed(toy: Toy) -> int:
    return len(list(Path(toy.out).glob("units/*/*/manifest.json")))


def tasks_of(toy: Toy) -> list[int]:
    """Process ids of the tasks that work for a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            is_task = words[1:3] == ["-m", "fineinstructions.engines.slurm_task"]  # and not the sbatch that submits it
            if is_task and any(w.startswith(f"{toy.out}/") for w in words):
                found.append(int(entry.name))
    return found


def jobs(cluster: dict[str, str], toy: Toy) -> list[dict[str, str]]:
    """What Slurm knows of the arrays of a run, those that are over included."""
    lines = slurm(cluster, "scontrol", "--oneliner", "show", "jobs").splitlines()
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if f"of {toy.out} " in f"{line} "]
    return sorted(found, key=lambda job: int(job["JobId"]))
