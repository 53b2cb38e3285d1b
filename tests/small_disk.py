"""A real small disk for tests: a tmpfs of a given size, which can be made larger, or read-only."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resize(self, kib: int) -> None:
        """Give it another size."""
        _mount("-o", f"remount,rw,size={kib}k", str(self.root))

    def make_read_only(self) -> None:
        """Let nobody open a file for writing any more; what is open already does not hinder that."""
        _mount("--bind", str(self.root), str(self.root))
        _mount("-o", "remount,bind,ro", str(self.root))

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        subprocess.run(["umount", "-l", str(self.root)], check=True)

    def used_kib(self) -> int:
        """What lies on it."""
        return (shutil.disk_usage(self.root).used + 1023) // 1024

    def empty(self) -> None:
        """Remove everything on it."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def small_disk(root: Path, kib: int) -> Iterator[SmallDisk]:
    """Mount one on an empty folder; skips the test where this user may not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    root.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(root))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mount is not allowed here, so there is no small disk to fill")
    try:
        yield SmallDisk(root)
    finally:
        while root.is_mount():
            subprocess.run(["umount", "-l", str(root)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
