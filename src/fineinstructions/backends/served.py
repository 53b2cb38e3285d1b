"""A model server that a run has started: ready or refused with the end of its log, started again when it dies.

In: what is served, and where. Out: a process under a guard (`fineinstructions.backends.guard`), watched by a thread.
The decision to question: a server that dies is started again at the same address, while requests wait for it
(``llm.unreachable_seconds``); one that dies before it was ever ready is not, because its settings are to blame. When
it has died too often, or does not get ready again, requests are refused in its place with the reason, which ends the
run.
"""

import contextlib
import http.client
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fineinstructions.backends.guard import KEY_FILE, POLITE_SECONDS
from fineinstructions.backends.refusing_server import RefusingServer
from fineinstructions.backends.serve_config import KEY_VARIABLE, ServeConfig, find_engine, server_command
from fineinstructions.errors import BackendError, printable

MAX_RESTARTS = 3
"""New starts of one server in one phase."""
TOLD_EVERY_SECONDS = 30.0
"""How often the user hears of a server that is not ready yet."""
_POLL_SECONDS = 0.2
_TAIL_BYTES = 8192
_TAIL_LINES = 3
_TAIL_CHARS = 400


class ServedModel:
    """One server. A context: at its end the server is gone, with everything that it has started.

    Args:
        serve: What is served, and by what.
        served_name: Name that requests ask for.
        revision: Commit or tag of the model.
        host: Address to listen on.
        port: Port.
        gpus: GPUs that it sees, as CUDA names them; ``None`` for all that this process sees.
        log: File for what it says; what an earlier one said stays.
        note: Told how it goes; also by a thread.

    Raises:
        ConfigError: If the engine is not installed where the recipe says.
    """

    def __init__(
        self,
        serve: ServeConfig,
        served_name: str,
        revision: str | None,
        host: str,
        port: int,
        *,
        gpus: Sequence[str] | None,
        log: Path,
        note: Callable[[str], None],
    ) -> None:
        self._engine, _ = find_engine(serve)
        self._command = server_command(serve, served_name, revision, host, port, KEY_FILE)
        self._serve, self._host, self._port, self._log, self._note = serve, host, port, log, note
        self._environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus is not None else {})
        self._over = threading.Event()
        self._refusing = ExitStack()
        self._watcher = threading.Thread(target=self._watch, name=f"server-{port}", daemon=True)

    @property
    def base_url(self) -> str:
        """Address for its clients."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    def __enter__(self) -> Self:
        self._note(
            f"llm.serve: starting {self._engine} with {self._serve.model} at {self.base_url}, log in {self._log}"
        )
        self._guard = self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._refusing.close()
        self._end()

    def wait_until_ready(self) -> None:
        """Wait for the server, then watch it.

        Raises:
            BackendError: If it ends or does not get ready in time; the line shows how its log ends.
        """
        began = told = time.monotonic()
        while not self._is_ready():
            now = time.monotonic()
            if (code := self._guard.poll()) is not None:
                raise BackendError(
                    f"llm.serve: {self._engine} ended with exit code {code} before it was ready{self._tail()}"
                )
            if now - began > self._serve.ready_seconds:
                raise BackendError(
                    f"llm.serve: {self._engine} was not ready after {self._serve.ready_seconds:g} s{self._tail()}",
                    hint="raise llm.serve.ready_seconds if it needs longer",
                )
            if now - told >= TOLD_EVERY_SECONDS:
                told = now
                self._note(f"llm.serve: {self._engine} is not ready after {now - began:.0f} s{self._tail(1)}")
            time.sleep(_POLL_SECONDS)
        self._note(f"llm.serve: {self._engine} is ready after {time.monotonic() - began:.0f} s")
        self._watcher.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "fineinstructions.backends.guard", str(self._log), self._engine]
        return subprocess.Popen(
            [*words, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for the driver, which ends the server then
        )

    def _end(self) -> None:
        """Close the pipe, upon which the guard ends the server, and wait for that."""
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        try:
            self._guard.wait(4 * POLITE_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def _watch(self) -> None:
        """Start the server again when it ends, a number of times; refuse requests in its place once that is in vain."""
        restarts, ready_by = 0, math.inf
        while not self._over.wait(_POLL_SECONDS):
            code = self._guard.poll()
            if code is None:
                if ready_by < math.inf and self._is_ready():
                    ready_by = math.inf
                if time.monotonic() > ready_by:
                    self._give_up(f"was not ready again after {self._serve.ready_seconds:g} s")
                    return
                continue
            if restarts == MAX_RESTARTS:
                self._give_up(f"ended {restarts + 1} times, the last with exit code {code}")
                return
            restarts += 1
            self._note(
                f"llm.serve: {self._engine} ended with exit code {code} and is started again, requests wait"
                f" ({restarts} of {MAX_RESTARTS}){self._tail()}"
            )
            self._end()
            try:
                self._guard = self._start()
            except OSError as error:
                self._give_up(f"ended with exit code {code} and cannot be started again ({error})")
                return
            ready_by = time.monotonic() + self._serve.ready_seconds

    def _give_up(self, why: str) -> None:
        """End the server and refuse requests in its place."""
        line = f"llm.serve: {self._engine} {why}{self._tail()}"
        self._end()
        try:
            self._refusing.enter_context(RefusingServer(self._host, self._port, line))
        except OSError as error:  # requests find nobody there, which ends the run later
            self._note(f"{line}; nothing can refuse requests in its place ({error})")

    def _is_ready(self) -> bool:
        """Whether the server says that it is well; no proxy of the environment is asked."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=5.0)
        try:
            connection.request("GET", "/health", headers={"Authorization": f"Bearer {os.environ[KEY_VARIABLE]}"})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _tail(self, num_lines: int = _TAIL_LINES) -> str:
        """How the log ends, for messages."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return f"; see {self._log}"
        said = " | ".join([line.strip() for line in lines if line.strip()][-num_lines:])
        return f"; its log ends: {printable(said)[-_TAIL_CHARS:]}" if said else f"; it has said nothing in {self._log}"
