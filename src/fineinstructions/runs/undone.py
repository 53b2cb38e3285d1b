"""Which units of a phase are still to do: those not committed, damaged, or made from something else than is there now.

In: what all units and their upstream units say about themselves, a stretch of the plan at a time. Out: places in the
plan.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.config import digest_of_some
from fineinstructions.errors import DataError
from fineinstructions.runs.files import FolderFiles, file_problems
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.shelf import Shelf, Stretch
from fineinstructions.runs.specs import Plan


def undone(
    layout: Layout,
    phase: str,
    plan: Plan,
    *,
    digest: str,
    upstream: Sequence[str],
    retry_failed: bool = False,
    thorough: bool = False,
    damaged: Collection[str] = (),
) -> NDArray[np.int64]:
    """Places of the units that are to be done.

    Args:
        layout: The run folder.
        phase: The phase.
        plan: All of its units.
        digest: What decides the phase's bytes now.
        upstream: Phases whose units it reads.
        retry_failed: Whether units with failures count as not done.
        thorough: Compare the content of every file with its digest instead of its size only.
        damaged: Ids of units of which that is done in any case.
    """
    damaged = frozenset(damaged)
    shelves = [layout.shelf(name) for name in upstream]
    whole = _Wholes(layout)
    left: list[int] = []
    takes_their_word = not (retry_failed or thorough or damaged)
    for found in layout.shelf(phase).stretches(plan):
        expected = list(_expected_inputs(found, plan, upstream, shelves, whole))
        if takes_their_word and not found.loose and found.is_all_of(digest) and found.inputs == expected:
            continue
        for i, inputs in enumerate(expected):
            if (
                not found.seals[i]
                or found.digests[i] != digest
                or found.inputs[i] != inputs
                or (retry_failed and found.has_failures[i])
                or (
                    (thorough or found.start + i in found.loose or found.unit_ids[i] in damaged)
                    and not _is_intact(layout, phase, plan, found, i, thorough or found.unit_ids[i] in damaged)
                )
            ):
                left.append(found.start + i)
    return np.array(left, np.int64)


def inputs_of(seals: Sequence[str]) -> str:
    """Digest of what a unit is made from: one seal or digest per upstream phase."""
    return digest_of_some(seals)


class _Wholes:
    """Digests of upstream phases as a whole; empty for one that is not complete."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, str] = {}

    def __getitem__(self, phase: str) -> str:
        if phase not in self._known:
            try:
                self._known[phase] = self._layout.content(phase)
            except DataError:
                self._known[phase] = ""
        return self._known[phase]


def _expected_inputs(
    found: Stretch, plan: Plan, upstream: Sequence[str], shelves: Sequence[Shelf], whole: _Wholes
) -> Iterator[str]:
    """What units have to be made from; empty where an upstream phase is not complete."""
    seals: list[list[str]] = []
    for name, shelf in zip(upstream, shelves, strict=True):
        same = shelf.stretch(plan, found.start, found.stop)
        seals.append([seal or whole[name] for seal in same.seals])
    last: tuple[str, ...] | None = None
    inputs = inputs_of(())
    for row in zip(*seals, strict=True) if seals else [()] * len(found.seals):
        if row != last:
            last, inputs = row, inputs_of(row) if all(row) else ""
        yield inputs


def _is_intact(layout: Layout, phase: str, plan: Plan, found: Stretch, i: int, thorough: bool) -> bool:
    """Whether the files of a committed unit are there as they were committed.

    Of a unit in a pack this is not asked without `thorough`: a pack that was cut short is not read at all.
    """
    ordinal = found.start + i
    if store_of(layout.root) is not None:
        return True  # files that are not here can be fetched
    if thorough:
        try:
            committed = layout.committed(phase, plan[ordinal])
        except DataError:
            return False
        return committed is not None and not file_problems(committed.files, committed.manifest.files, thorough=True)
    folder = FolderFiles(layout.unit_folder(phase, plan[ordinal]))
    return not file_problems(folder, found.loose[ordinal].files)
