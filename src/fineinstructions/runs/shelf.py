"""The committed units of one phase: in folders of their own, and in packs.

In: the folder of the phase's units. Out: the files of one unit, or what all units say about themselves, a stretch of
the plan at a time, so that nothing grows with the number of units.

The decision a reader would question: a folder of its own hides the same unit in a pack. Whatever makes a unit again
commits it as ever, and a run that is killed between packing and clearing up has both, with the same content.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path

from fineinstructions.errors import DataError
from fineinstructions.runs.durable import TEMPORARY_PREFIX
from fineinstructions.runs.files import ContainedFiles, FolderFiles, UnitFiles, read_manifest
from fineinstructions.runs.ledger import Manifest
from fineinstructions.runs.packs import Accounts, Pack, PackName, open_pack
from fineinstructions.runs.specs import Plan, UnitSpec

STRETCH_UNITS = 1024
"""Units of a plan that are looked at together."""
MAX_SEEN = 64
"""Phases whose packs a process remembers."""


@dataclass
class Stretch:
    """What the units of a stretch of the plan say about themselves; a unit without seal is not committed."""

    start: int
    unit_ids: list[str]
    digests: list[str]
    inputs: list[str]
    seals: list[str]
    set_aside: list[str]
    has_failures: list[bool]
    loose: dict[int, Manifest] = field(default_factory=dict)
    """Manifests of units that have a folder of their own, by place in the plan."""
    problems: dict[int, str] = field(default_factory=dict)
    """Why units cannot be read, by place in the plan."""

    @classmethod
    def of(cls, start: int, unit_ids: list[str]) -> "Stretch":
        """A stretch of which nothing is known yet."""
        empty = [""] * len(unit_ids)
        return cls(start, unit_ids, empty[:], empty[:], empty[:], empty[:], [False] * len(unit_ids))

    @property
    def stop(self) -> int:
        """Place after the last unit."""
        return self.start + len(self.unit_ids)

    def is_all_of(self, digest: str) -> bool:
        """Whether every unit is committed and made by settings of this digest."""
        return self.digests.count(digest) == len(self.digests) and all(self.seals)

    def take_manifest(self, ordinal: int, manifest: Manifest) -> None:
        """Note what the manifest of a unit's own folder says."""
        i = ordinal - self.start
        self.digests[i], self.inputs[i], self.seals[i] = manifest.digest, manifest.inputs, manifest.seal
        self.set_aside[i], self.has_failures[i] = manifest.set_aside, manifest.has_failures
        self.loose[ordinal] = manifest

    def take_problem(self, ordinal: int, problem: str) -> None:
        """Note that a unit cannot be read."""
        self.seals[ordinal - self.start] = ""
        self.problems[ordinal] = problem

    def take_pack(self, pack: Pack) -> None:
        """Note what a pack says about the units that it shares with this stretch."""
        first, stop = max(self.start, pack.name.first), min(self.stop, pack.name.last + 1)
        names = ("unit_id", "digest", "inputs", "seal", "set_aside", "has_failures")
        units = pack.units.slice(first - pack.name.first, stop - first)
        packed = [units.column(name).to_numpy(zero_copy_only=False).tolist() for name in names]
        mine = (self.unit_ids, self.digests, self.inputs, self.seals, self.set_aside, self.has_failures)
        low, high = first - self.start, stop - self.start
        if packed[0] == self.unit_ids[low:high]:
            for values, theirs in zip(mine, packed, strict=True):
                values[low:high] = theirs  # type: ignore[index]
            return
        for i, row in enumerate(zip(*packed, strict=True), start=low):
            if row[0] == self.unit_ids[i]:
                for values, value in zip(mine, row, strict=True):
                    values[i] = value  # type: ignore[index]


class Shelf:
    """The committed units of a phase, as its folder lists them when it is opened.

    Args:
        folder: Folder of the phase's units.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._list()

    def _list(self) -> None:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            names = []
        self.packs: list[PackName] = []
        """Names of the packs, in plan order."""
        self.loose: set[str] = set()
        """Names of folders of single units, committed or not."""
        for name in names:
            pack = PackName.parse(name)
            if pack:
                self.packs.append(pack)
            elif not name.startswith(TEMPORARY_PREFIX):
                self.loose.add(name)
        self.packs.sort()
        self._lasts = [pack.last for pack in self.packs]
        self._ordinals = sorted(filter(lambda ordinal: ordinal >= 0, map(ordinal_of, self.loose)))

    def packs_of(self, start: int, stop: int) -> list[PackName]:
        """Packs that hold units of a stretch of the plan."""
        found = islice(self.packs, bisect_left(self._lasts, start), None)
        return list(takewhile(lambda pack: pack.first < stop, found))

    def may_hold(self, spec: UnitSpec) -> bool:
        """Whether a unit may be committed: it had a folder, or there was a pack at its place."""
        return spec.folder_name in self.loose or bool(self.packs_of(spec.ordinal, spec.ordinal + 1))

    def loose_of(self, start: int, stop: int) -> list[int]:
        """Places of units that have a folder of their own, in a stretch of the plan; whether they are committed shows
        their manifest.
        """
        return self._ordinals[bisect_left(self._ordinals, start) : bisect_left(self._ordinals, stop)]

    def pack(self, name: PackName) -> Pack:
        """A pack of this shelf.

        Raises:
            DataError: If it is no longer there.
        """
        try:
            return open_pack(self.folder, name)
        except FileNotFoundError:
            raise DataError(f"{self.folder / str(name)}: no longer there; run again to make its units") from None

    def packed(self, spec: UnitSpec) -> ContainedFiles | None:
        """Files of a unit in a pack, whether or not it has a folder of its own too.

        Raises:
            DataError: If the pack is torn or damaged.
        """
        for name in self.packs_of(spec.ordinal, spec.ordinal + 1):
            files = self.pack(name).files(spec.ordinal, spec.unit_id)
            if files is not None:
                return files
        return None

    def stretch(self, plan: Plan, start: int, stop: int) -> Stretch:
        """What the units of a stretch of the plan say about themselves.

        Args:
            plan: All units of the phase, or of another one that has the same units.
            start: Place of the first unit.
            stop: Place after the last one.
        """
        while True:
            found = Stretch.of(start, plan.unit_ids[start:stop].to_numpy(zero_copy_only=False).tolist())
            if self._fill(found) or not self._has_changed():
                return found

    def _has_changed(self) -> bool:
        """Look again whether somebody has packed units since; every pack is written once, so this ends."""
        before = self.packs
        self._list()
        return before != self.packs

    def _fill(self, found: Stretch) -> bool:
        """False if a unit has gone from its folder and is in no pack, or a pack has gone."""
        is_complete = True
        for name in self.packs_of(found.start, found.stop):
            try:
                found.take_pack(self.pack(name))
            except DataError as error:
                is_complete = False
                for ordinal in range(max(found.start, name.first), min(found.stop, name.last + 1)):
                    found.take_problem(ordinal, str(error))
        for ordinal in self.loose_of(found.start, found.stop):
            i = ordinal - found.start
            folder = UnitSpec(ordinal, found.unit_ids[i]).folder_name
            if folder not in self.loose:
                continue
            try:
                manifest = read_manifest(FolderFiles(self.folder / folder))
            except DataError as error:
                found.take_problem(ordinal, str(error))
                continue
            if manifest is not None:
                found.take_manifest(ordinal, manifest)
                found.problems.pop(ordinal, None)
            elif not found.seals[i]:
                is_complete = False
        return is_complete

    def stretches(self, plan: Plan) -> Iterator[Stretch]:
        """What all units of a plan say about themselves, a stretch at a time."""
        for start in range(0, len(plan), STRETCH_UNITS):
            yield self.stretch(plan, start, min(start + STRETCH_UNITS, len(plan)))

    def is_in_place(self, pack: Pack, plan: Plan) -> bool:
        """Whether a pack holds the units that its name says, as a plan has them."""
        return bool(pack.units.column("unit_id").equals(plan.unit_ids[pack.name.first : pack.name.last + 1]))

    def accounts(self, plan: Plan) -> Accounts:
        """Accounts of all committed units of a plan; what cannot be read is left out."""
        while True:
            total = Accounts()
            if self._add_up(plan, total) or not self._has_changed():
                return total

    def _add_up(self, plan: Plan, total: Accounts) -> bool:
        """False if something of what was listed cannot be read: it may have been packed since."""
        is_complete = True
        for name in self.packs:
            try:
                pack = self.pack(name)
                if self.is_in_place(pack, plan):
                    total.add(pack.accounts)
            except DataError:
                is_complete = False
        for ordinal in self.loose_of(0, len(plan)):
            spec = plan[ordinal]
            if spec.folder_name not in self.loose:
                continue
            manifest = _readable(FolderFiles(self.folder / spec.folder_name))
            if manifest is None:
                is_complete = False
                continue
            total.add(manifest)
            before = self._hidden(spec)
            if before:
                total.add(before, -1)
        return is_complete

    def _hidden(self, spec: UnitSpec) -> Manifest | None:
        """What a pack holds of a unit that has a folder of its own."""
        try:
            files = self.packed(spec)
        except DataError:
            return None
        return _readable(files) if files else None


_seen: dict[Path, Shelf] = {}


def packed_unit(folder: Path, spec: UnitSpec) -> ContainedFiles | None:
    """Files of a unit in a pack, wherever packs of its phase were last seen by this process.

    Args:
        folder: Folder of the phase's units.
        spec: The unit.

    Raises:
        DataError: If the pack is torn or damaged.
    """
    known = _seen.get(folder)
    if known is not None:
        with suppress(DataError):  # packs were written anew since
            if found := known.packed(spec):
                return found
    if len(_seen) >= MAX_SEEN:
        _seen.clear()
    _seen[folder] = Shelf(folder)
    return _seen[folder].packed(spec)


def _readable(files: UnitFiles) -> Manifest | None:
    """Manifest of a unit, where it can be read."""
    try:
        return read_manifest(files)
    except DataError:
        return None


def ordinal_of(folder_name: str) -> int:
    """Place in the plan that the name of a unit's folder tells; -1 for the name of anything else."""
    number = folder_name.partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else -1
