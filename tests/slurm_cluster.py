"""A real Slurm cluster of one node on loopback, for tests: munged, slurmctld and slurmd, all state in a folder."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
PLACES = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port_a}
SlurmdPort={port_b}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MaxArraySize=4
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> str:
    """What this machine lacks for a cluster; empty where it has all."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    return f"no {', '.join(absent)} here (Debian: apt install slurm-wlm munge)" if absent else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def slurm_cluster() -> Iterator[dict[str, str]]:
    """Start a cluster; gives the environment variables that lead to it. Skips where its daemons cannot run."""
    folder = Path(tempfile.mkdtemp(prefix="fi-slurm-"))  # short, because it holds a socket
    folder.chmod(0o755)  # so munged wants it
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PLACES}
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    facts = {"host": socket.gethostname().split(".")[0], "user": user, "folder": folder}
    configuration = CONFIGURATION.format(**facts, port_a=free_port(), port_b=free_port())
    (folder / "slurm.conf").write_text(configuration, encoding="utf-8")
    files = [f"--{n}={folder}/munge.{n}" for n in ("socket", "log-file", "pid-file", "seed-file")]
    commands = [
        ["munged", "--foreground", f"--key-file={key}", *files],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            output = (folder / f"{command[0]}.out").open("wb")
            started.append(subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output))
            output.close()
            if command[0] == "munged":
                wait_for_start((folder / "munge.socket").exists, folder)
        wait_for_start(lambda: "idle" in slurm(environment, "sinfo", "--noheader", "--format=%T"), folder)
        yield environment
    finally:
        slurm(environment, "scancel", "--user", user)
        wait_for(lambda: not slurm(environment, "squeue", "--noheader"), seconds=20)
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def slurm(environment: dict[str, str], *words: str) -> str:
    """What a program of Slurm prints."""
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def wait_for_start(happened: Callable[[], bool], folder: Path) -> None:
    """Wait for a daemon; where it does not come, that is this machine's matter (containers without its needs)."""
    try:
        wait_for(happened, seconds=90)
    except AssertionError:
        said = " ".join(" ".join(path.read_text(errors="replace").split())[-200:] for path in folder.glob("*.out"))
        pytest.skip(f"Slurm is installed, but does not start here: {said}")


def wait_for(happened: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
