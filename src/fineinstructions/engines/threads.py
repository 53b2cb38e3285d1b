"""Threads of numeric libraries, and whether this process has any that forbid it to fork.

The decision a reader would question: a fork keeps one thread and whatever locks the others held. So it is allowed only
where the operating system shows no other thread but one of Arrow's allocator, which knows about forks.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_KNOW_FORKS = ("jemalloc_bg_thd",)
"""Threads that stop for a fork by themselves."""
_HOLD_DEVICES = ("torch", "jax", "tensorflow")
"""Modules whose devices do not work in a forked process."""


def thread_environment(cpus: int) -> dict[str, str]:
    """Environment variables that give numeric libraries as many threads as a worker has processors."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(cpus)) | {"TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What processes that start now, and libraries that are loaded now, find in the environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def libraries_without_threads() -> Iterator[None]:
    """Import a hallway without threads of NumPy's, so that workers can be forked from this process.

    Only for processes that leave the work to workers: NumPy keeps its one thread for good.
    """
    with environment(thread_environment(1)):
        yield


def may_fork() -> bool:
    """Whether a fork of this process is a sound one: on Linux, without other threads, without a GPU's libraries."""
    if sys.platform != "linux" or any(name in sys.modules for name in _HOLD_DEVICES):
        return False
    try:
        others = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
        return all((task / "comm").read_text().strip() in _KNOW_FORKS for task in others)
    except OSError:
        return False
