"""The files of one committed unit, wherever they lie: in a folder of their own, or in a container with others.

In: a folder, or a container and the unit's name in it. Out: each file as a source that tables are read from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from fineinstructions.errors import DataError
from fineinstructions.runs.container import Stored
from fineinstructions.runs.durable import sha256_file
from fineinstructions.runs.ledger import MANIFEST, FileEntry, Manifest, parse_manifest

Source = Path | Stored
"""A file on a disk, or the bytes of one in a container."""


class UnitFiles(Protocol):
    """The files of a committed unit or a published table."""

    @property
    def place(self) -> str:
        """Where they lie, for messages."""

    def find(self, name: str) -> Source | None:
        """A file by its name relative to the unit; ``None`` where there is none.

        Raises:
            DataError: If the container cannot be read.
        """

    def names(self) -> Iterable[str]:
        """Names of all files, the manifest among them."""


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a folder."""

    folder: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    def find(self, name: str) -> Path | None:
        """The path of a file."""
        path = self.folder / name
        return path if path.is_file() else None

    def names(self) -> Iterable[str]:
        """All files below the folder."""
        return (p.relative_to(self.folder).as_posix() for p in sorted(self.folder.rglob("*")) if p.is_file())


@dataclass(frozen=True, slots=True)
class ContainedFiles:
    """The files of one unit in a container."""

    place: str
    members: Mapping[str, Stored]
    """The unit's files by name."""

    def find(self, name: str) -> Stored | None:
        """Where the bytes of a file lie."""
        return self.members.get(name)

    def names(self) -> Iterable[str]:
        """Files of the unit, in the order in which they were written."""
        return self.members


def open_source(source: Source) -> BinaryIO:
    """Open a file, wherever it lies."""
    return source.open("rb") if isinstance(source, Path) else source.open()


def read_manifest(files: UnitFiles) -> Manifest | None:
    """Manifest of a unit; ``None`` where it has not been committed.

    Raises:
        DataError: If it is torn, edited or of another kind.
    """
    source = files.find(MANIFEST)
    if source is None:
        return None
    try:
        with open_source(source) as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{files.place}: its manifest cannot be read ({error})") from None
    return parse_manifest(text, f"{files.place}/{MANIFEST}")


def file_problems(files: UnitFiles, entries: tuple[FileEntry, ...], thorough: bool = False) -> list[str]:
    """What is wrong with files: missing or wrong size; with `thorough`, content and strangers too."""
    problems = []
    for entry in entries:
        source = files.find(entry.name)
        if source is None:
            problems.append(f"{entry.name} is missing")
            continue
        num_bytes = source.stat().st_size if isinstance(source, Path) else source.num_bytes
        if num_bytes != entry.num_bytes:
            problems.append(f"{entry.name} has {num_bytes} bytes instead of {entry.num_bytes}")
        elif thorough and _sha256(source) != entry.sha256:
            problems.append(f"{entry.name} does not have the content that was committed")
    if thorough:
        known = {entry.name for entry in entries} | {MANIFEST}
        problems += [f"{name} is not listed in the manifest" for name in files.names() if name not in known]
    return problems


def _sha256(source: Source) -> str:
    """Digest of a file's content; empty where it cannot be read."""
    try:
        return sha256_file(source) if isinstance(source, Path) else source.sha256()
    except DataError:
        return ""
