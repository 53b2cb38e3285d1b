"""Packs: committed units of a phase that stand next to each other in the plan, in one container.

In: the files of units, checked against their manifests as they are copied. Out: ``pack-<first>-<last>-<mark>.zip``,
where first and last are places in the plan and the mark is a digest of the units' ids. The last file in it, the
summary, says about every unit what a run has to know without opening it.

The decision a reader would question: a pack says nothing of places but in its name. So one whose units all move
together, because documents were added in front of them, is renamed and not written again.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from fineinstructions.errors import DataError
from fineinstructions.records import content_id
from fineinstructions.runs.container import Container, DamagedContainerError, Member, Stored, write_container
from fineinstructions.runs.durable import beside, sync_file
from fineinstructions.runs.files import ContainedFiles, UnitFiles, read_manifest
from fineinstructions.runs.ledger import MANIFEST, Manifest, StageAccount

SUMMARY = "units.arrow"
OPEN_PACKS = 8
"""Packs whose summaries a process keeps."""

_NAME = re.compile(r"pack-(\d{9,})-(\d{9,})-([0-9a-f]{8})\.zip")
_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("inputs", pa.string()),
        pa.field("seal", pa.string()),
        pa.field("set_aside", pa.string()),
        pa.field("has_failures", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class PackName:
    """Name of a pack: which places of the plan it fills, and a mark of what is in it."""

    first: int
    last: int
    mark: str

    @classmethod
    def parse(cls, name: str) -> "PackName | None":
        """Inverse of `str`; ``None`` for the name of anything else."""
        found = _NAME.fullmatch(name)
        return cls(int(found[1]), int(found[2]), found[3]) if found else None

    @classmethod
    def of(cls, first: int, unit_ids: Sequence[str]) -> "PackName":
        """Name of a pack of these units."""
        return cls(first, first + len(unit_ids) - 1, content_id("", *unit_ids)[1:9])

    def __str__(self) -> str:
        return f"pack-{self.first:09d}-{self.last:09d}-{self.mark}.zip"

    def __len__(self) -> int:
        return self.last + 1 - self.first


@dataclass
class Accounts:
    """Accounts of stages and counted figures, added up over units."""

    stages: dict[str, StageAccount] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Accounts | Manifest", times: int = 1) -> None:
        """Add those of a unit or of many, or take them away with `times` -1."""
        for name, number in other.counts.items():
            self.counts[name] += times * number
        for stage, account in other.stages.items():
            self.stages.setdefault(stage, StageAccount()).add(account, times)

    def to_json(self) -> str:
        """The figures as text."""
        stages = {stage: account.to_plain() for stage, account in self.stages.items()}
        return json.dumps({"stages": stages, "counts": self.counts}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: bytes) -> "Accounts":
        """Inverse of `to_json`."""
        plain = json.loads(text)
        stages = {stage: StageAccount.from_plain(account) for stage, account in plain["stages"].items()}
        return cls(stages, Counter(plain["counts"]))


class Pack:
    """A pack on the disk.

    Args:
        folder: Folder of the phase's units.
        name: Its name.
    """

    def __init__(self, folder: Path, name: PackName) -> None:
        self.path, self.name = folder / str(name), name
        self._container = Container.at(self.path)

    @cached_property
    def _summary(self) -> tuple[pa.RecordBatch, bytes]:
        try:
            with pa.ipc.open_file(pa.BufferReader(self._container.last())) as reader:
                if not reader.schema.equals(_SCHEMA) or reader.num_record_batches != 1:
                    raise ValueError("not the summary of a pack")
                batch = reader.get_batch(0)
                batch.validate(full=True)
                if batch.num_rows != len(self.name):
                    raise ValueError(f"it holds {batch.num_rows} units, its name says {len(self.name)}")
                return batch, reader.schema.metadata[b"accounts"]
        except (ValueError, TypeError, KeyError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedContainerError(f"{self.path}: no pack of this run ({reason}); run again to make it") from None

    @property
    def units(self) -> pa.RecordBatch:
        """One row per unit, in plan order: what its manifest says.

        Raises:
            DamagedContainerError: If the pack is torn or was changed.
            DataError: If it cannot be read.
        """
        return self._summary[0]

    @property
    def accounts(self) -> Accounts:
        """Accounts of all of its units; likewise."""
        return Accounts.from_json(self._summary[1])

    def check(self) -> None:
        """Look at the summary and the directory of files.

        Raises:
            DamagedContainerError: If one of them is torn or was changed.
            DataError: If the pack cannot be read.
        """
        if len(self._members) != len(self.name) + 1:
            raise DamagedContainerError(f"{self.path}: torn or damaged (units are missing); run again to make them")
        self.units  # noqa: B018

    @cached_property
    def _members(self) -> dict[str, dict[str, Stored]]:
        """Files of every unit."""
        units: dict[str, dict[str, Stored]] = {}
        for name, stored in self._container.members.items():
            unit_id, _, inner = name.partition("/")
            units.setdefault(unit_id, {})[inner] = stored
        return units

    def files(self, ordinal: int, unit_id: str) -> ContainedFiles | None:
        """Files of a unit; ``None`` where the pack has another one at that place of the plan.

        Raises:
            DataError: If the pack is torn or damaged.
        """
        if self.units.column("unit_id")[ordinal - self.name.first].as_py() != unit_id:
            return None
        return ContainedFiles(f"{self.path}:{unit_id}", self._members.get(unit_id, {}))


@lru_cache(maxsize=OPEN_PACKS)
def _pack(folder: Path, name: PackName, _version: tuple[int, ...]) -> Pack:
    return Pack(folder, name)


def open_pack(folder: Path, name: PackName) -> Pack:
    """A pack, of which this process may have read something before.

    Raises:
        FileNotFoundError: If it is no longer there.
    """
    state = (folder / str(name)).stat()
    return _pack(folder, name, (state.st_ino, state.st_size, state.st_mtime_ns))


def write_pack(folder: Path, first: int, units: Sequence[tuple[str, UnitFiles]]) -> PackName:
    """Write a pack, so that it is there with all of its units, or not at all.

    Args:
        folder: Folder of the phase's units.
        first: Place of the first unit in the plan; the others follow it.
        units: Id and files of every unit; all are committed.

    Raises:
        DataError: If a unit does not have the content that was committed.
    """
    name = PackName.of(first, [unit_id for unit_id, _ in units])
    target = folder / str(name)
    temporary = beside(target)
    try:
        with temporary.open("wb") as sink:
            write_container(sink, _members_of(units))
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_file(folder)
    return name


def _members_of(units: Sequence[tuple[str, UnitFiles]]) -> Iterator[Member]:
    """What goes into a pack: the files of one unit after the other, each with its manifest, and the summary."""
    accounts = Accounts()
    rows: list[tuple[Any, ...]] = []
    for unit_id, files in units:
        manifest, text = read_manifest(files), files.find(MANIFEST)
        if manifest is None or text is None:
            raise DataError(f"{files.place}: not committed, so it cannot be packed")
        for entry in manifest.files:
            source = files.find(entry.name)
            if source is None:
                raise DataError(f"{files.place}: {entry.name} is missing; run verify to see what else is damaged")
            yield Member(f"{unit_id}/{entry.name}", source, entry.sha256)
        yield Member(f"{unit_id}/{MANIFEST}", text)
        accounts.add(manifest)
        rows.append(
            (unit_id, manifest.digest, manifest.inputs, manifest.seal, manifest.set_aside, manifest.has_failures)
        )
    yield Member(SUMMARY, _summary_of(rows, accounts))


def _summary_of(rows: Sequence[tuple[Any, ...]], accounts: Accounts) -> bytes:
    schema = _SCHEMA.with_metadata({"accounts": accounts.to_json()})
    columns = [pa.array(values, kind.type) for values, kind in zip(zip(*rows, strict=True), schema, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue())
