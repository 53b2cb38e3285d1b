"""The lock that keeps two runs off one folder, or two changes off one index.

The operating system releases it when its holder dies.
"""

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fineinstructions.errors import ConfigError, HandedOverError

PATIENCE_SECONDS = 0.5
"""How long a lock is tried for: whoever asks for the holder has it for a moment too."""
RELAY_PATIENCE_SECONDS = 300.0
"""The same for a job that goes on with a run: a shared disk keeps locks of a machine that is gone for a while."""
_PAUSE_SECONDS = 0.02


_held: set[IO[str]] = set()


def _let_go() -> None:
    """Give a forked process no part in the locks of this one: they would outlive it."""
    for handle in _held:
        handle.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class HeldError(ConfigError):
    """Another process holds the lock.

    Args:
        folder: Where.
        holder: Which, such as ``process 4711 on box``.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder}: {holder} is working in this folder; wait for it or choose another --out")
        self.holder = holder


@contextmanager
def hold_lease(path: Path, token: str = "", *, patience_seconds: float | None = None) -> Iterator[None]:
    """Hold a lock file for as long as the context is open.

    Whoever hands over to jobs leaves its token, so that they may commit until somebody else holds the file.

    Args:
        path: The lock file.
        token: What tells this holding from others, where it goes on with one of before; else made anew.
        patience_seconds: How long to wait for another process; by default hardly at all.

    Raises:
        HeldError: If another process holds it; the line names the process and its host.
        ConfigError: If the file system cannot lock files.
    """
    if patience_seconds is None:
        patience_seconds = RELAY_PATIENCE_SECONDS if token else PATIENCE_SECONDS
    with path.open("a+", encoding="utf-8") as handle:
        try:
            _lock(handle, patience_seconds)
        except BlockingIOError:
            raise HeldError(path.parent, _holder(handle)) from None
        except OSError as error:
            raise ConfigError(f"{path}: this file system cannot lock files ({error}); choose another --out") from None
        handle.seek(0)
        handle.truncate()
        known = {"process": os.getpid(), "host": socket.gethostname(), "token": token or uuid.uuid4().hex}
        handle.write(json.dumps(known))
        handle.flush()
        os.fsync(handle.fileno())  # other machines read the token
        _held.add(handle)
        is_left = False
        try:
            yield
        except HandedOverError:
            is_left = True
            raise
        finally:
            _held.discard(handle)
            if not is_left:
                handle.seek(0)
                handle.truncate()
                handle.flush()


def _lock(handle: IO[str], patience_seconds: float) -> None:
    """Take the lock, within the patience there is.

    Raises:
        BlockingIOError: If somebody else holds it for longer.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def lease_holder(path: Path) -> str:
    """Who holds a lock file, such as ``process 4711 on box``; empty when nobody does."""
    if not path.exists():
        return ""
    with path.open("r", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(handle)
        except OSError:
            return ""
    return ""


def lease_token(path: Path) -> str:
    """What tells this holding of a lock file from every other; empty where it cannot be read or nobody holds it."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _holder(handle: IO[str]) -> str:
    handle.seek(0)
    try:
        known = json.loads(handle.read())
        return f"process {known['process']} on {known['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
