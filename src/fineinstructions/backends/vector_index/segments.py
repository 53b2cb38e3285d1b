"""The records of one build or one addition, in list order, in part files; read a few lists at a time.

In: an index folder. Out: `Segment`, and its lists one by one. Plain positioned reads into memory of our own instead of
a mapping: a run over a corpus reads every list once per pass, front to back, and mapped pages would fill the memory
that other processes need.

Shapes: L lists, n records.
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.building import OFFSETS_FILE, ROWS_FILE, vectors_file
from fineinstructions.errors import DataError

_READ_BYTES = 16 << 20


@dataclass(frozen=True)
class Segment:
    """See the module."""

    offsets: NDArray[np.int64]
    """First position of every list, and the end; shape (L + 1,)."""
    rows: NDArray[np.int64]
    """Row number at every position."""
    parts: list[Any]
    """Memory-mapped records of every part."""
    handles: list[int]
    """The same files, open: an index that is built anew in the same folder does not disturb one that is in use."""
    starts: NDArray[np.int64]
    """First position of every part, and the end."""
    vectors: list[Any]
    """Memory-mapped float vectors of every part; empty where none are kept."""

    def take(self, arrays: list[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
        """Entries of part arrays at ascending or other positions."""
        which = np.searchsorted(self.starts, positions, side="right") - 1
        taken = np.empty(len(positions), arrays[0].dtype) if arrays[0].ndim == 1 else None
        taken = np.empty((len(positions), arrays[0].shape[1]), arrays[0].dtype) if taken is None else taken
        for part in np.unique(which).tolist():
            here = which == part
            taken[here] = arrays[part][positions[here] - self.starts[part]]
        return taken


def open_segment(folder: Path, number: int, names: Sequence[str], keeps_vectors: bool) -> Segment:
    """Open the part files of a segment.

    Args:
        folder: Index folder.
        number: Number of the segment.
        names: Its part files.
        keeps_vectors: Whether float vectors lie beside them.

    Raises:
        OSError: If a file cannot be read, or ValueError if it is something else.
    """
    parts = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names]
    vector_files = [folder / vectors_file(name) for name in names] if keeps_vectors else []
    kept = [np.load(path, mmap_mode="r", allow_pickle=False) for path in vector_files]
    handles = [os.open(folder / name, os.O_RDONLY) for name in names]
    segment = Segment(
        offsets=np.load(folder / OFFSETS_FILE.format(segment=number), allow_pickle=False),
        rows=np.load(folder / ROWS_FILE.format(segment=number), mmap_mode="r", allow_pickle=False),
        parts=parts,
        handles=handles,
        starts=np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        vectors=kept,
    )
    for handle in handles:
        weakref.finalize(segment, os.close, handle)
    return segment


def read_lists(segment: Segment, numbers: list[int]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Records of some lists, by positioned reads of several lists at once, the next ones while these are scored."""
    with ThreadPoolExecutor(1) as reader:
        pending: list[tuple[list[int], Future[NDArray[Any]]]] = []
        for group in _groups(segment, numbers):
            pending.append((group, reader.submit(_records_of_lists, segment, group)))
            if len(pending) > 1:
                yield from _split(segment, *pending.pop(0))
        for group, future in pending:
            yield from _split(segment, group, future)


def _groups(segment: Segment, numbers: list[int]) -> Iterator[list[int]]:
    """Runs of lists that lie close together in one part and come to a bounded number of bytes."""
    size = segment.parts[0].dtype.itemsize if segment.parts else 1
    group: list[int] = []
    for number in numbers:
        if segment.offsets[number] == segment.offsets[number + 1]:
            continue
        if group:
            span = (segment.offsets[number + 1] - segment.offsets[group[0]]) * size
            parts = np.searchsorted(segment.starts, segment.offsets[[group[0], number]], side="right")
            if span > _READ_BYTES or parts[0] != parts[1]:
                yield group
                group = []
        group.append(number)
    if group:
        yield group


def _records_of_lists(segment: Segment, group: list[int]) -> NDArray[Any]:
    """Records from the first list of a group to the last, in memory of their own."""
    first, last = int(segment.offsets[group[0]]), int(segment.offsets[group[-1] + 1])
    part = int(np.searchsorted(segment.starts, first, side="right")) - 1
    mapped = segment.parts[part]
    records = np.empty(last - first, mapped.dtype)
    view = memoryview(cast(Any, records.view(np.uint8)))
    place = mapped.offset + (first - int(segment.starts[part])) * mapped.dtype.itemsize
    done = 0
    while done < len(view):
        number = os.preadv(segment.handles[part], [view[done:]], place + done)
        if number == 0:
            raise DataError(f"{mapped.filename}: ends too early; build the index again")
        done += number
    return records


def _split(segment: Segment, group: list[int], future: Future[NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
    records = future.result()
    first = int(segment.offsets[group[0]])
    for number in group:
        yield number, records[int(segment.offsets[number]) - first : int(segment.offsets[number + 1]) - first]
