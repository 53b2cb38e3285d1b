"""What a finished unit says about itself: its files with digests, and the account of every stage.

The completeness contract lives here: for every stage, in = out + merged + rejected + failed. A manifest is sealed with
a digest of its own content, so a torn or edited one is recognised, and holds no time, host or path, so that equal work
has an equal seal.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fineinstructions.errors import DataError
from fineinstructions.runs.durable import sha256_file, write_text

MANIFEST = "manifest.json"


@dataclass
class StageAccount:
    """How many records entered a stage, and how each of them left it."""

    num_in: int = 0
    num_out: int = 0
    num_merged: int = 0
    """Records that live on inside another output record (queries of one template, beyond the first)."""
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def num_missing(self) -> int:
        """Records that entered and left no trace; anything but 0 breaks the contract."""
        return self.num_in - self.num_out - self.num_merged - self.num_turned_away

    @property
    def num_turned_away(self) -> int:
        """Records that were rejected or failed."""
        return sum(self.rejected.values()) + sum(self.failed.values())

    def add(self, other: "StageAccount", times: int = 1) -> None:
        """Add another unit's account of the same stage, or take it away with `times` -1."""
        self.num_in += times * other.num_in
        self.num_out += times * other.num_out
        self.num_merged += times * other.num_merged
        for mine, theirs in ((self.rejected, other.rejected), (self.failed, other.failed)):
            for reason, number in theirs.items():
                mine[reason] = mine.get(reason, 0) + times * number
                if not mine[reason]:
                    del mine[reason]

    def to_plain(self) -> dict[str, Any]:
        """The account as it stands in a manifest; reasons in alphabetical order."""
        return {
            "in": self.num_in,
            "out": self.num_out,
            "merged": self.num_merged,
            "rejected": dict(sorted(self.rejected.items())),
            "failed": dict(sorted(self.failed.items())),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "StageAccount":
        """Inverse of `to_plain`."""
        return cls(plain["in"], plain["out"], plain["merged"], dict(plain["rejected"]), dict(plain["failed"]))


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a unit or of a published table."""

    name: str
    num_bytes: int
    sha256: str
    num_rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The proof that a unit (or a published table) is done."""

    phase: str
    unit_id: str
    digest: str
    """Digest of everything in the recipe, the code and the models that decides the phase's bytes."""
    inputs: str
    """Digest of the seals of the upstream units."""
    stages: dict[str, StageAccount]
    counts: dict[str, int]
    files: tuple[FileEntry, ...]
    set_aside: str = ""
    """Why the unit was given up, all of its rows counted as failed; empty for a unit that is done."""

    def to_plain(self) -> dict[str, Any]:
        """The manifest without its seal."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["stages"] = {name: account.to_plain() for name, account in self.stages.items()}
        plain["files"] = [
            {"name": e.name, "num_bytes": e.num_bytes, "sha256": e.sha256, "num_rows": e.num_rows} for e in self.files
        ]
        return plain

    @cached_property
    def seal(self) -> str:
        """Digest of the manifest's content."""
        return _seal(self.to_plain())

    @property
    def has_failures(self) -> bool:
        """Whether the unit was given up, or an engine failed on some of its records."""
        return bool(self.set_aside) or any(account.failed for account in self.stages.values())

    def figure(self, name: str) -> int:
        """Output of the stage of that name, or the figure counted under it; 0 when there is neither."""
        return self.stages[name].num_out if name in self.stages else self.counts.get(name, 0)

    @property
    def text(self) -> str:
        """The manifest with its seal, as it is stored."""
        return json.dumps({**self.to_plain(), "seal": self.seal}, ensure_ascii=False, indent=1) + "\n"

    def save(self, folder: Path) -> None:
        """Rename the manifest into place: from here on the unit is done."""
        write_text(folder / MANIFEST, self.text)


def _seal(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()[:32]


def parse_manifest(text: bytes, place: str) -> Manifest:
    """A manifest as it was written.

    Args:
        text: Content of the file.
        place: Where it lies, for messages.

    Raises:
        DataError: If it is torn, edited or of another kind.
    """
    try:
        plain = json.loads(text.decode("utf-8"))
        seal = plain.pop("seal")
        if seal != _seal(plain):
            raise ValueError("its seal does not fit its content")
        plain["stages"] = {name: StageAccount.from_plain(a) for name, a in plain["stages"].items()}
        plain["files"] = tuple(FileEntry(**{**entry, "name": inside(entry["name"])}) for entry in plain["files"])
        manifest = Manifest(**plain)
        vars(manifest)["seal"] = seal  # as `cached_property` would keep it
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{place}: torn or edited manifest ({error}); the unit will be redone by the next run"
        ) from None


def inside(name: str) -> str:
    """A name of a file below a folder, as somebody else may have written it.

    Raises:
        ValueError: If it would lead out of the folder.

    Example:
        >>> inside("pairs/part-00000.parquet")
        'pairs/part-00000.parquet'
    """
    if not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise ValueError(f"{name!r} leads out of its folder")
    return name


def list_files(folder: Path, rows: dict[str, int]) -> tuple[FileEntry, ...]:
    """Entries of all files below a folder, the manifest aside.

    Args:
        folder: A unit's folder.
        rows: Rows of the tables among them, by name relative to the folder.
    """
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            entries.append(FileEntry(name, path.stat().st_size, sha256_file(path), rows.get(name)))
    return tuple(entries)
