"""How a hallway tells what it is doing, without knowing who listens.

The command line shows bars (a terminal), plain lines (a file or pipe) or JSON lines (machines); a library user gets
silence unless a reporter is passed.
"""

from typing import Protocol


class Progress(Protocol):
    """Listener to a run."""

    def start(self, phase: str, total: int, done: int) -> None:
        """A phase begins.

        Args:
            phase: Name of the phase, for example ``pairs``.
            total: Number of work units of the phase.
            done: Units that an earlier run has committed already.
        """

    def advance(self, phase: str, rows: int) -> None:
        """One more unit of the phase is committed, with this many input rows."""

    def finish(self, phase: str) -> None:
        """The phase is complete."""

    def note(self, line: str) -> None:
        """Something about the run that the user should know before it begins."""


class Silent:
    """Reporter that says nothing; the default of the Python API."""

    def start(self, phase: str, total: int, done: int) -> None:
        """Say nothing."""

    def advance(self, phase: str, rows: int) -> None:
        """Say nothing."""

    def finish(self, phase: str) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""


SILENT = Silent()
