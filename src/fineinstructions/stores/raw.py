"""What each kind of store has to offer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """An object that a listing names."""

    key: str
    """Name below the URL."""
    num_bytes: int


class Raw(Protocol):
    """One kind of store; raises whatever its library raises, and `Conflict` where a condition did not hold.

    Keys are below the URL. A version tells two contents of one key apart.
    """

    def put(self, key: str, source: bytes | Path, *, new: bool, version: str | None) -> str:
        """Write an object in one step; gives its version, or an empty text where that is not known.

        Args:
            key: Where.
            source: Its content.
            new: Only where there is no such object yet.
            version: Only where the object has this version.
        """

    def read_with_version(self, key: str) -> tuple[bytes, str]:
        """Content of an object and the version that has it."""

    def read(self, key: str, start: int, stop: int | None) -> bytes:
        """Bytes of an object, half-open; to its end where `stop` is ``None``."""

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins so, in the order of their keys."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there do not matter."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store."""
