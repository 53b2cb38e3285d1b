"""Puts the committed units of a phase where a plan has them.

In: a plan that may be another than the one of the last run. Out: the plan is stored, folders and packs are renamed to
their new places, and what is no longer planned is gone.

The decision a reader would question: places are looked at in every run, not only where the plan is a new one. So a run
that was killed while it moved units is put right by the next.
"""

import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fineinstructions.errors import DataError, StaleError
from fineinstructions.runs.container import DamagedContainerError
from fineinstructions.runs.files import file_problems, read_manifest
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.packs import Pack, PackName, write_pack
from fineinstructions.runs.remote import place_of
from fineinstructions.runs.shelf import Shelf, ordinal_of
from fineinstructions.runs.specs import Plan, UnitSpec

NOWHERE = -1
_FILE_SHIFT = 1 << 40
"""More rows than a file has: file numbers and rows make one number for sorting."""


def settle(layout: Layout, phase: str, plan: Plan, *, redo: bool) -> None:
    """Store a phase's plan and put its units in their places.

    Args:
        layout: The run folder; the caller holds its lease.
        phase: The phase.
        plan: All of its units.
        redo: Whether committed units that are no longer planned may be dropped.

    Raises:
        StaleError: If there are such units and `redo` is off. One that grew, because a limit was raised, is dropped
            without asking.
        DataError: If a pack cannot be read.
    """
    old = layout.planned(phase)
    shelf = layout.shelf(phase)
    is_new = old is None or old != plan
    if is_new:
        num_lost = _num_lost(shelf, old, plan) if old is not None else 0
        if old is not None and num_lost and not redo:
            raise StaleError(
                f"{place_of(layout.root)}: the input of phase {phase!r} or its unit size changed, {num_lost} of"
                f" {len(old)} units would be lost; run again with --redo to drop them, with the files and settings of"
                " before to keep them, or choose another --out"
            )
    if is_new or not layout.plan_file(phase).exists():  # one of an older layout is stored anew
        layout.save_plan(phase, plan)
    _move_folders(shelf, plan, drop_others=is_new)
    _move_packs(shelf, plan)


def _num_lost(shelf: Shelf, old: Plan, new: Plan) -> int:
    """Committed units that a new plan has neither as they are nor as part of a larger one."""
    missing = _places(old.unit_ids, new) == NOWHERE
    missing[missing] = ~_grown(old.select(np.flatnonzero(missing)), new)
    if not missing.any():
        return 0
    return sum(
        bool(seal) and bool(missing[ordinal])
        for found in shelf.stretches(old)
        for ordinal, seal in enumerate(found.seals, start=found.start)
    )


def _places(unit_ids: pa.Array, plan: Plan) -> NDArray[np.int64]:
    """Places of units in a plan; `NOWHERE` for those that it does not have."""
    found = pc.index_in(unit_ids, value_set=plan.unit_ids)
    places: NDArray[np.int64] = found.fill_null(NOWHERE).to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def _grown(gone: Plan, new: Plan) -> NDArray[np.bool_]:
    """Which units have all of their rows, and more of the same file, in one unit of a new plan."""
    files, starts, stops = new.row_ranges()
    old_files, old_starts, old_stops = gone.row_ranges()
    numbers = {name: number for number, name in enumerate(files.dictionary.to_pylist()) if name}
    translated = np.array([numbers.get(name, NOWHERE) for name in old_files.dictionary.to_pylist()], np.int64)
    of_old = translated[old_files.indices.to_numpy()]
    of_new = files.indices.to_numpy().astype(np.int64)
    keys = of_new * _FILE_SHIFT + starts
    order = np.argsort(keys, kind="stable")
    found = np.searchsorted(keys[order], of_old * _FILE_SHIFT + old_starts, side="right") - 1
    last = order[np.maximum(found, 0)]  # the unit that begins last before, or with, the one that is gone
    same = (found >= 0) & (of_old != NOWHERE) & (of_new[last] == of_old)
    grown: NDArray[np.bool_] = same & (old_stops < stops[last])
    return grown


def _move_folders(shelf: Shelf, plan: Plan, *, drop_others: bool) -> None:
    """Rename folders of single units; of those that are not planned, nothing is kept where the plan is new."""
    misplaced = [name for name in shelf.loose if not _is_in_place(name, plan)]
    if not misplaced:
        return
    ids = pa.array([name.partition("-")[2] for name in misplaced], pa.string())
    for name, place in zip(misplaced, _places(ids, plan).tolist(), strict=True):
        folder = shelf.folder / name
        target = shelf.folder / plan[place].folder_name if place != NOWHERE else folder
        if target != folder and not target.exists():
            folder.rename(target)
        elif drop_others or target != folder:
            shutil.rmtree(folder, ignore_errors=True)


def _is_in_place(name: str, plan: Plan) -> bool:
    ordinal = ordinal_of(name)
    return 0 <= ordinal < len(plan) and name == UnitSpec(ordinal, plan.unit_ids[ordinal].as_py()).folder_name


def _move_packs(shelf: Shelf, plan: Plan) -> None:
    """Rename packs, write those anew whose units no longer stand together, and remove damaged ones."""
    misplaced: list[Pack] = []
    for name in shelf.packs:
        pack = shelf.pack(name)
        try:
            if not shelf.is_in_place(pack, plan):
                misplaced.append(pack)
        except DamagedContainerError:
            pack.path.unlink()
    if not misplaced:
        return
    places = _places(pa.concat_arrays([pack.units.column("unit_id") for pack in misplaced]), plan)
    position = 0
    for pack in misplaced:
        _move_pack(shelf, pack, places[position : position + len(pack.name)])
        position += len(pack.name)


def _move_pack(shelf: Shelf, pack: Pack, places: NDArray[np.int64]) -> None:
    """Put the units of one pack in their places; of a pack that is written anew, only those that are intact."""
    ids: list[str] = pack.units.column("unit_id").to_pylist()
    stays = list(_together(places))
    if len(stays) == 1 and stays[0] == (0, len(ids)):
        pack.path.rename(shelf.folder / str(PackName.of(int(places[0]), ids)))
        return
    try:
        _write_stretches(shelf, pack, ids, places)
    except DataError:
        intact = np.array([_is_intact(pack, i, unit_id) for i, unit_id in enumerate(ids)])
        _write_stretches(shelf, pack, ids, np.where(intact, places, NOWHERE))
    pack.path.unlink()


def _write_stretches(shelf: Shelf, pack: Pack, ids: list[str], places: NDArray[np.int64]) -> None:
    """Write a pack for every stretch of units whose places follow each other."""
    for start, stop in _together(places):
        units = [(ids[i], pack.files(pack.name.first + i, ids[i])) for i in range(start, stop)]
        write_pack(shelf.folder, int(places[start]), [(unit_id, files) for unit_id, files in units if files])


def _is_intact(pack: Pack, i: int, unit_id: str) -> bool:
    """Whether a unit of a pack is as it was committed; one that is not is made again."""
    try:
        files = pack.files(pack.name.first + i, unit_id)
        manifest = read_manifest(files) if files else None
        return bool(files and manifest and not file_problems(files, manifest.files, thorough=True))
    except DataError:
        return False


def _together(places: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Stretches (start, stop) of units whose places follow each other.

    Example:
        >>> list(_together([4, 5, -1, 7, 9, 10]))
        [(0, 2), (3, 4), (4, 6)]
    """
    start = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i] != places[i - 1] + 1 or places[i - 1] == NOWHERE:
            if places[start] != NOWHERE:
                yield start, i
            start = i
