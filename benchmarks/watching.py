"""What a command costs, its workers included: wall time, processor time, and memory over time. Linux only.

Processor time is that of every process the command leaves behind, orphans too: they come back to the watching process,
which waits for them. Memory is the proportional set size (PSS) of the tree: `anonymous` is what the processes hold,
`pss` adds the files that they have mapped, which the kernel may drop at will.
"""

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = (sys.executable, "-c", "from fineinstructions.cli import main; main()")
"""The command line of this package, as a user starts it."""

_PR_SET_CHILD_SUBREAPER = 36


def cache_bytecode(folder: Path) -> None:
    """Have Python keep compiled modules in a folder, from here on: what is started later finds them as in a package."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory of a process tree at one moment."""

    seconds: float
    """Since the command was started."""
    pss: int
    anonymous: int
    driver: int
    """Anonymous memory of the command's first process alone."""


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    samples: tuple[Sample, ...] = field(repr=False)

    @property
    def peak_pss(self) -> int:
        """Largest sum of proportional set sizes, in bytes."""
        return max((sample.pss for sample in self.samples), default=0)

    @property
    def peak_anonymous(self) -> int:
        """Largest sum of anonymous memory, in bytes."""
        return max((sample.anonymous for sample in self.samples), default=0)


def run(
    command: Sequence[str],
    every_seconds: float = 0.2,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Cost:
    """Run a command to its end and watch its processes.

    Args:
        command: Program and arguments.
        every_seconds: Time between two looks at the memory; 0 for none.
        environment: Variables beside those of this process.
        cwd: Where to run it.

    Raises:
        SystemExit: If it fails, with the end of what it said.
    """
    before_cpu, others = _cpu_of_children(), set(_children(os.getpid()))
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
    ) as program:
        samples = tuple(_samples(program, began, every_seconds))
        said = program.stderr.read().decode(errors="replace") if program.stderr else ""
        program.wait()
    seconds = time.monotonic() - began
    for pid in set(_children(os.getpid())) - others:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    if program.returncode:
        raise SystemExit(f"{' '.join(command[-4:])} ended with {program.returncode}: {said[-2000:]}")
    return Cost(seconds, _cpu_of_children() - before_cpu, samples)


def _samples(program: subprocess.Popen[bytes], began: float, every_seconds: float) -> Iterator[Sample]:
    while every_seconds:
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(every_seconds)
            return
        found = [_memory(pid) for pid in tree(program.pid)]
        if found:
            yield Sample(time.monotonic() - began, sum(p for p, _ in found), sum(a for _, a in found), found[0][1])


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, path.read_text().split())


def tree(pid: int) -> list[int]:
    """A process and all of its descendants."""
    return [pid, *(below for child in _children(pid) for below in tree(child))]


def _memory(pid: int) -> tuple[int, int]:
    """PSS and its anonymous part in bytes; 0 once the process is gone."""
    found = {"Pss:": 0, "Pss_Anon:": 0, "Pss_Shmem:": 0}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            words = line.split()
            if words[0] in found:
                found[words[0]] = int(words[1]) << 10
    return found["Pss:"], found["Pss_Anon:"] + found["Pss_Shmem:"]


@contextlib.contextmanager
def scripted_server(latency_seconds: float, *words: str) -> Iterator[str]:
    """Address of a scripted server in a process of its own, whose costs are not those of what asks it."""
    options = ["--port", "0", "--latency-seconds", str(latency_seconds), *words]
    command = [sys.executable, "-m", "fineinstructions.backends.scripted_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
