"""Packs the committed units of a phase while its run goes on, so that no run has more than a few thousand folders.

In: places of units in the plan, as they are committed. Out: packs, and no folders of what is in them. Works in a thread
of the driver: workers never wait for it.

The decision a reader would question: a pack is in its place, whole and on the disk, before the first of its folders
goes, and a folder goes by being renamed. Killed at any moment, a run has every unit in a folder, in a pack, or in both.
"""

import errno
import queue
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.runs.durable import beside
from fineinstructions.runs.files import FolderFiles, UnitFiles, read_manifest
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.packs import PackName, write_pack
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.shelf import Shelf
from fineinstructions.runs.specs import Plan

PACK_UNITS = 1000
"""Units in a pack, at most."""
PACK_BYTES = 256 << 20
"""A pack is full with the unit that takes it over this size."""
MAX_LOOSE = 100
"""Units of a phase that may keep folders of their own when it is done."""


@dataclass
class _Run:
    """Committed units that stand next to each other and are in no pack."""

    start: int
    sizes: list[int]

    @property
    def stop(self) -> int:
        return self.start + len(self.sizes)


class Packer:
    """Packs the units of one phase; a context, at whose end nothing is being packed any more.

    Args:
        layout: The run folder; the caller holds its lease.
        phase: The phase.
        todo: Places of the units that are going to be made.
    """

    def __init__(self, layout: Layout, phase: str, todo: NDArray[np.int64]) -> None:
        self._layout, self._phase = layout, phase
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._is_cut_short = False
        self._thread: threading.Thread | None = None
        plan = layout.planned(phase)
        if plan is None or len(plan) <= MAX_LOOSE or store_of(layout.root) is not None:
            return  # on a store, units lie there one by one
        waiting = np.zeros(len(plan), np.bool_)
        waiting[todo] = True
        self._thread = threading.Thread(target=self._work, args=(plan, waiting), name=f"packing {phase}")

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_cut_short = True
        self._end()

    def add(self, ordinal: int) -> None:
        """Say that a unit is committed."""
        if self._thread is not None:
            self._queue.put(ordinal)

    def finish(self) -> None:
        """Pack what is left, where it is more than a few units.

        Raises:
            ConfigError: If there was no room for packs on the disk; the units themselves are kept.
        """
        self._end()
        if self._error is None:
            return
        place = self._layout.units(self._phase)
        if isinstance(self._error, OSError) and self._error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(f"{place}: no space left on the disk for packs; make room and run again")
        raise ConfigError(f"{place}: units cannot be packed ({self._error}); see to the disk and run again")

    def _end(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self, plan: Plan, waiting: NDArray[np.bool_]) -> None:
        try:
            block = _Blocks(self._layout, self._phase, plan, waiting)
            while not self._is_cut_short and (ordinal := self._queue.get()) is not None:
                block.add(ordinal)
            if not self._is_cut_short:
                block.finish()
        except (OSError, DataError) as error:
            self._error = error


class _Blocks:
    """Which committed units of a phase stand together, and whether it is time to pack them."""

    def __init__(self, layout: Layout, phase: str, plan: Plan, waiting: NDArray[np.bool_]) -> None:
        self._layout, self._phase, self._plan, self._waiting = layout, phase, plan, waiting
        self._shelf = Shelf(layout.units(phase))
        self._starting: dict[int, _Run] = {}
        self._stopping: dict[int, _Run] = {}
        self._hiding: dict[PackName, set[int]] = {}
        """Units with folders of their own that a pack has too."""
        self._num_loose = 0
        for ordinal in self._shelf.loose_of(0, len(plan)):
            if not waiting[ordinal]:
                self._note(ordinal)
        self._renew_all()
        for run in list(self._starting.values()):
            self._pack_full(run)

    def add(self, ordinal: int) -> None:
        """A unit is committed in a folder of its own."""
        self._waiting[ordinal] = False
        where = self._note(ordinal)
        if isinstance(where, _Run):
            self._pack_full(where)
        elif where is not None and self._num_loose > MAX_LOOSE:
            self._renew(where)

    def finish(self) -> None:
        """Pack everything that is left, where it is more than a few units."""
        if self._num_loose <= MAX_LOOSE:
            return
        self._renew_all()
        for run in list(self._starting.values()):
            self._pack(run.start, len(run.sizes))  # also one that stands alone between two packs

    def _note(self, ordinal: int) -> "_Run | PackName | None":
        """Note a unit that has a folder of its own; gives the run that it belongs to, or the pack that it hides."""
        size = self._size(ordinal)
        if size is None:
            return None
        self._num_loose += 1
        packs = self._shelf.packs_of(ordinal, ordinal + 1)
        if packs:
            self._hiding.setdefault(packs[0], set()).add(ordinal)
            return packs[0]
        run = self._joined(ordinal, size)
        self._starting[run.start] = self._stopping[run.stop] = run
        return run

    def _pack_full(self, run: _Run) -> None:
        """Pack the front of a run as long as it fills a pack."""
        while (length := _full(run.sizes)) is not None:
            del self._starting[run.start], self._stopping[run.stop]
            if length > 1:  # one that fills a pack by itself is no small file
                self._pack(run.start, length)
            run = _Run(run.start + length, run.sizes[length:])
            if not run.sizes:
                return
            self._starting[run.start] = self._stopping[run.stop] = run

    def _joined(self, ordinal: int, size: int) -> _Run:
        """A unit together with what stands before and after it, taken out of the runs that are known."""
        before, after = self._stopping.pop(ordinal, None), self._starting.pop(ordinal + 1, None)
        if before:
            del self._starting[before.start]
        if after:
            del self._stopping[after.stop]
        sizes = [*(before.sizes if before else ()), size, *(after.sizes if after else ())]
        return _Run(before.start if before else ordinal, sizes)

    def _size(self, ordinal: int) -> int | None:
        """Bytes of a unit in a folder of its own; ``None`` where it is not committed there."""
        try:
            manifest = read_manifest(FolderFiles(self._layout.unit_folder(self._phase, self._plan[ordinal])))
        except DataError:
            return None
        return None if manifest is None else sum(entry.num_bytes for entry in manifest.files)

    def _pack(self, start: int, length: int) -> None:
        """Move units from their folders into a new pack."""
        specs = list(self._plan[start : start + length])
        folders = [self._layout.unit_folder(self._phase, spec) for spec in specs]
        units = [(spec.unit_id, FolderFiles(folder)) for spec, folder in zip(specs, folders, strict=True)]
        self._write(start, units, folders)

    def _renew_all(self) -> None:
        """Write all packs anew some of whose units were made again, where there are more than a few of these."""
        if self._num_loose > MAX_LOOSE:
            for name in list(self._hiding):
                self._renew(name)

    def _renew(self, name: PackName) -> None:
        """Write a pack anew with the units that were made again, unless some of its units are still to come."""
        if self._waiting[name.first : name.last + 1].any():
            return
        pack, folders = self._shelf.pack(name), []
        units: list[tuple[str, UnitFiles]] = []
        hiding = self._hiding.pop(name)
        for spec in self._plan[name.first : name.last + 1]:
            packed = None if spec.ordinal in hiding else pack.files(spec.ordinal, spec.unit_id)
            if packed is None:
                folders.append(self._layout.unit_folder(self._phase, spec))
            units.append((spec.unit_id, packed or FolderFiles(folders[-1])))
        self._write(name.first, units, folders)

    def _write(self, start: int, units: Sequence[tuple[str, UnitFiles]], folders: Sequence[Path]) -> None:
        """Write a pack and remove the folders of what is in it; units with damaged content stay as they are."""
        try:
            write_pack(self._shelf.folder, start, units)
        except DataError as error:
            self._layout.logs.mkdir(exist_ok=True)
            with (self._layout.logs / f"{self._phase}-packing.log").open("a", encoding="utf-8") as log:
                log.write(f"{error}\n")
            return
        self._num_loose -= len(folders)
        for folder in folders:
            going = beside(folder)
            folder.rename(going)
            shutil.rmtree(going, ignore_errors=True)


def _full(sizes: Sequence[int]) -> int | None:
    """How many of the first units make a full pack; ``None`` where they do not fill one.

    Example:
        >>> _full([1] * 1500), _full([1, 200 << 20, 100 << 20, 1]), _full([1, 2])
        (1000, 3, None)
    """
    num_bytes = 0
    for number, size in enumerate(sizes, start=1):
        num_bytes += size
        if number == PACK_UNITS or num_bytes >= PACK_BYTES:
            return number
    return None
