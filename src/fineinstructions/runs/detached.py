"""What a run folder says about a run that nobody waits for: which jobs go on with it, or why none does any more.

In: what a driver hands over to jobs of a cluster. Out: the same facts, for the job that goes on and for who looks at
the run. A driver that takes the folder for itself ends the matter by removing the file.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fineinstructions.runs.durable import write_text
from fineinstructions.runs.lease import hold_lease

FILE = "detached.json"
LINK_VARIABLE = "FINEINSTRUCTIONS_DETACHED"
"""Environment variable with the token of the detached run that a process goes on with."""


@dataclass(frozen=True, slots=True)
class Detached:
    """A detached run: relays take turns at being its driver, and between them arrays do the work."""

    token: str
    """Under which its jobs hold the lease and commit units."""
    job_name: str
    """What all of its jobs are called."""
    phase: str = ""
    """Phase whose units are being done; empty before the first."""
    arrays: tuple[str, ...] = ()
    """Jobs that do them."""
    relays: tuple[str, ...] = ()
    """Jobs that were to drive since something was handed over last, the next one at the end."""
    begun: tuple[str, ...] = ()
    """Phases that were handed over, or done by a relay."""
    ended: str = ""
    """Why it does not go on; empty while it does."""
    log: str = ""
    """Where the relay that ended it says more."""

    @classmethod
    def load(cls, root: Path) -> Self | None:
        """What a run folder says; ``None`` where the run is not detached, or a hand that is not ours wrote the file."""
        try:
            plain: dict[str, Any] = json.loads((root / FILE).read_text(encoding="utf-8"))
            lists: dict[str, Any] = {name: tuple(map(str, plain[name])) for name in ("arrays", "relays", "begun")}
            words: dict[str, Any] = {name: str(plain[name]) for name in ("token", "job_name", "phase", "ended", "log")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(**words, **lists)

    def save(self, root: Path) -> None:
        """Store it in the run folder."""
        write_text(root / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that goes on with it."""
        return os.environ.get(LINK_VARIABLE) == self.token


def goes_on(root: Path) -> Detached | None:
    """The detached run that this process goes on with; ``None`` for a driver of its own."""
    found = Detached.load(root)
    return found if found is not None and found.is_ours and not found.ended else None


@contextmanager
def hold_run(root: Path, lease_file: Path) -> Iterator[None]:
    """Hold a run folder: who goes on with a detached run under its token; of anybody else it is detached no longer.

    Raises:
        ConfigError: If another process holds it.
    """
    ours = goes_on(root)
    with hold_lease(lease_file, ours.token if ours is not None else ""):
        if ours is None:
            (root / FILE).unlink(missing_ok=True)
        yield
