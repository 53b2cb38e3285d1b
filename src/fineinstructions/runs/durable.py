"""Writing that survives a kill or a power cut: temporary name, fsync, rename, fsync of the folder."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fineinstructions.errors import ConfigError

TEMPORARY_PREFIX = "tmp-"
"""Prefix of every name that is not yet in place; leftovers of a killed run are removed by the next one."""


def beside(path: Path) -> Path:
    """A temporary name next to a path that no other process or machine uses."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")


def sync_file(path: Path) -> None:
    """Force a file's content onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Force every file and folder below `folder`, and the folder itself, onto the disk."""
    for path in sorted(folder.rglob("*")):
        sync_file(path)
    sync_file(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there with all of its content, or not at all."""
    temporary = beside(path)
    try:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in the place of another; the old one is gone only after the new one is there."""
    sync_tree(new)
    old = beside(target)
    if target.exists():
        target.rename(old)
    new.rename(target)
    sync_file(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def make_room_for(target: Path) -> None:
    """Make the folder that an output will lie in, where it is not there yet.

    Raises:
        ConfigError: If it cannot be made.
    """
    folder = target.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from None


def remove_temporary(folder: Path) -> None:
    """Remove what an interrupted writer left in a folder (not below it)."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def disk_trouble(root: Path, error: OSError) -> str:
    """One line about a disk that takes nothing more, whoever writes to it; empty where the error is another."""
    causes = {
        errno.ENOSPC: "no space left on the disk; make room",
        errno.EDQUOT: "no space left in the disk quota; make room",
        errno.EROFS: "the disk has become read-only; mend it",
    }
    cause = causes.get(error.errno or 0, "")
    return f"{root}: {cause} and run again, what is committed is kept" if cause else ""


@contextmanager
def watch_disk(root: Path) -> Iterator[None]:
    """Tell of a disk that takes nothing more in one line.

    Raises:
        ConfigError: If that is what went wrong.
    """
    try:
        yield
    except OSError as error:
        line = disk_trouble(root, error)
        if not line:
            raise
        raise ConfigError(line) from None


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
