"""The process between a run and a model server that it has started: the server lives no longer than the run.

``python -m fineinstructions.backends.guard LOG ENGINE COMMAND...``. Standard input is a pipe whose other end the driver
holds: when it closes, by the driver's will or by its death, the server is ended with everything that it has started.
When the server ends by itself, so does this process, with its exit code.

The decision to question: a process of our own, although the kernel could kill the server with its parent. It would not
kill the processes that a server starts, which hold the GPUs, and not every system has it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from fineinstructions.backends.serve_config import KEY_VARIABLE, server_environment

KEY_FILE = "{key_file}"
"""Word of a command that stands for the file with the key, which only this process writes."""
POLITE_SECONDS = 10.0
"""Time that a server has to end after SIGTERM."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: Sequence[str]) -> int:
    """Run a server to its end or to that of the driver.

    Args:
        arguments: Log file, name of the engine, and the command.

    Returns:
        The server's exit code.
    """
    log, engine, *command = arguments
    key = os.environ.get(KEY_VARIABLE, "")
    if sys.platform == "linux":  # what a server starts and leaves behind becomes a child of this process
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="fi-serve-") as folder, Path(log).open("ab", buffering=0) as lines:
        Path(log).chmod(0o600)
        key_file = Path(folder) / "key.yaml"
        if KEY_FILE in command:
            key_file.touch(mode=0o600)
            key_file.write_text(f"api-key: {key}\n", encoding="utf-8")
        words = [str(key_file) if word == KEY_FILE else word for word in command]
        server = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=server_environment(engine, Path(command[0]), _without_key(os.environ), key),
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 -- there are no threads yet
        )
        assert server.stdout is not None
        copier = threading.Thread(target=_copy, args=(server.stdout, lines, key.encode()), daemon=True)
        copier.start()
        threading.Thread(target=_end_when_closed, args=(server,), daemon=True).start()
        code = server.wait()
        _end_what_is_left(server.pid)
        copier.join(timeout=POLITE_SECONDS)
    return code if code >= 0 else 128 - code


def _without_key(environment: os._Environ[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != KEY_VARIABLE}


def _die_with_parent() -> None:
    """What the server does before it is the server: should this process be killed, it is too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _copy(output: IO[bytes], log: IO[bytes], key: bytes) -> None:
    """Write what the server says into the log, without the key: engines have been known to print it."""
    for line in output:
        with contextlib.suppress(OSError):  # a full disk must not stop the server's mouth: it would stop the server
            log.write(line.replace(key, b"***") if key else line)


def _end_when_closed(server: "subprocess.Popen[bytes]") -> None:
    """Wait until the driver closes its end of the pipe or is dead, then end the server."""
    while os.read(0, 1):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(POLITE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def _end_what_is_left(group: int) -> None:
    """Kill whatever the server has left behind; where the system tells it, also in other process groups."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + POLITE_SECONDS
    while (left := set(_descendants(os.getpid()))) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _descendants(process: int) -> Iterator[int]:
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _descendants(child)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main(sys.argv[1:]))
