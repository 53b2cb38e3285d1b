"""The one object of a run on a store that is ever overwritten: who holds the run, and which files belong to it.

In: a store. Out: `StoreLease`. Everything else there is named by its content or by what decides its content and is
written once, so a driver that lost the run without noticing can change nothing: what it puts, nobody names.

The decision a reader would question: no clock is read, neither a machine's nor the store's. Whoever finds the run held
watches the object for as long as its holder's promise lasts: if it was renewed, the holder lives; if not, it is taken
over, with a write that fails if it was renewed after all. That costs waiting after a crash, once, on another machine.
"""

import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from fineinstructions.errors import BackendError, ConfigError, DataError, FineInstructionsError
from fineinstructions.runs.ledger import inside
from fineinstructions.stores import Conflict, Objects

HEAD = "run.json"
LEASE_SECONDS = 120.0
"""How long a holder may be silent before another may take over. Ours."""
RENEWALS = 4
"""Renewals in that time."""
LOST_SHARE = 0.75
"""Share of that time after which a holder that could not renew gives up: before anybody can have taken over."""


@dataclass(frozen=True)
class Head:
    """What the object says."""

    token: str
    """Tells one holding of the run from every other."""
    holder: str
    """Process and host."""
    held: bool
    """Whether the holder has not given the run back."""
    seconds: float
    """How long the holder may be silent."""
    renewed: int = 0
    """How often the object was written under this token, so that it differs each time."""
    files: dict[str, str] = field(default_factory=dict)
    """Small files of the run, by name: digest of their content, which is part of their key."""

    def to_json(self) -> bytes:
        """The object's content."""
        return json.dumps({"layout": 1, **dataclasses.asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, url: str) -> Self:
        """Inverse of `to_json`.

        Raises:
            DataError: If it is something else.
        """
        try:
            plain = json.loads(content)
            if plain.pop("layout") != 1:
                raise ValueError("another layout")
            head = cls(**plain)
            for name in head.files:
                inside(name)
            return head
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{url}/{HEAD}: is not a run's ({error}); choose another --out") from None


def read_head(objects: Objects) -> tuple[Head, str] | None:
    """The head of a run and its version; ``None`` where the store holds no run."""
    found = objects.read_with_version(HEAD)
    return None if found is None else (Head.from_json(found[0], objects.url), found[1])


class StoreLease:
    """The right to change a run on a store, renewed by a thread; a context.

    Args:
        objects: The store.
        token: A word that no other holding has.
        own: Token that this working folder held last; its holder is dead, because the folder's own lock is ours.
        seconds: How long the holder may be silent.
        note: Told what is waited for.
        on_loss: Called from the thread when the run is lost.
    """

    def __init__(
        self,
        objects: Objects,
        token: str,
        own: str,
        seconds: float,
        note: Callable[[str], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._objects, self._own, self._note, self._on_loss = objects, own, note, on_loss
        self._head = Head(token, f"process {os.getpid()} on {socket.gethostname()}", held=True, seconds=seconds)
        self._version = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._lost = False
        self._renewed_at = 0.0
        self.found: Head | None = None
        """What the head was before; ``None`` where the store held no run."""

    def __enter__(self) -> Self:
        self._acquire()
        threading.Thread(target=self._renew, name="store lease", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._lost:
            return
        try:
            self._write(held=False)
        except FineInstructionsError:
            if error is None:
                raise

    @property
    def files(self) -> dict[str, str]:
        """Files of the run, as the store knows them."""
        return self._head.files

    def name_files(self, files: dict[str, str]) -> None:
        """Say which files belong to the run from now on.

        Raises:
            BackendError: If the run is lost.
        """
        self._write(files=files)

    def require(self) -> None:
        """Refuse to go on once the run is lost.

        Raises:
            BackendError: If it is.
        """
        if self._lost:
            raise BackendError(
                f"{self._objects.url}: lost to another run, or the store could not be reached for too long; nothing"
                " more is committed",
                hint="look with 'fineinstructions status' who works there",
            )

    def _acquire(self) -> None:
        while True:
            began = time.monotonic()
            found = read_head(self._objects)
            try:
                if found is None:
                    self._version = self._objects.put_new(HEAD, self._head.to_json())
                else:
                    self.found = found[0]
                    version = self._wait_for(*found)
                    self._head = dataclasses.replace(self._head, files=self.found.files)
                    self._version = self._objects.replace(HEAD, self._head.to_json(), version)
            except Conflict:
                again = read_head(self._objects)
                if again is None or again[0].token != self._head.token:
                    continue
                self._version = again[1]  # the reply to our own write was lost
            self._renewed_at = began
            return

    def _wait_for(self, head: Head, version: str) -> str:
        """Version of the head that may be replaced: at once where nobody holds the run, else when it stays silent.

        Raises:
            ConfigError: If its holder lives.
        """
        if not head.held or head.token == self._own:
            return version
        self._note(
            f"{self._objects.url}: {head.holder} held this run when it was last heard of; waiting up to"
            f" {head.seconds:.0f} s to see whether it still works"
        )
        deadline = time.monotonic() + head.seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, head.seconds / (2 * RENEWALS)))
            found = read_head(self._objects)
            if found is None or found[1] == version:
                continue
            if found[0].token == head.token and not found[0].held:
                self.found = found[0]
                return found[1]
            raise ConfigError(
                f"{self._objects.url}: {found[0].holder} is working on this run; wait for it or choose another --out"
            )
        return version

    def _write(self, **changes: Any) -> None:
        """Change the head.

        Raises:
            BackendError: If the run is lost.
        """
        with self._lock:
            self.require()
            began = time.monotonic()
            head = dataclasses.replace(self._head, renewed=self._head.renewed + 1, **changes)
            while True:
                try:
                    self._version = self._objects.replace(HEAD, head.to_json(), self._version)
                    break
                except Conflict:
                    found = read_head(self._objects)
                    if found is None or found[0].token != head.token:
                        self._lose()
                        self.require()
                    else:  # an earlier write of ours, whose reply got lost
                        self._version = found[1]
                        if found[0] == head:
                            break
            self._head, self._renewed_at = head, began

    def confirm(self) -> None:
        """Make sure, in the store itself, that the run is still ours: before something is deleted.

        Raises:
            BackendError: If it is lost.
        """
        self._write()

    def _renew(self) -> None:
        while not self._stop.wait(self._head.seconds / RENEWALS):
            try:
                self._write()
            except FineInstructionsError:
                silent = time.monotonic() - self._renewed_at
                if not self._lost and silent > LOST_SHARE * self._head.seconds:
                    self._lose()
            if self._lost:
                return

    def _lose(self) -> None:
        self._lost = True
        self._on_loss()
