"""Rows of a published table by their number, and some of its columns as arrays: what ten million rows allow.

In: the part files of a table. Out: columns as NumPy arrays, read once, and single rows read where they lie. The
decision to question: numbers and codes of all rows are kept in memory (25 bytes a pair, 33 once one was
looked for by its id), texts never are.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Positions = NDArray[np.int64]
_HASHED_BYTES = 24
"""Last bytes of an id that its fingerprint is made of; ours have 18."""
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_HASHED_AT_ONCE = 1 << 16
_TAKEN_AT_ONCE = 64


@dataclass(frozen=True)
class Codes:
    """A column of few texts: a number for each row, and what the numbers mean."""

    numbers: NDArray[np.int32]
    names: list[str]

    def of(self, name: str) -> int:
        """Number of a text; -1 for one that does not occur."""
        return self.names.index(name) if name in self.names else -1

    def counts(self) -> dict[str, int]:
        """Rows of each text, the most frequent first."""
        found = np.bincount(self.numbers, minlength=len(self.names)).tolist()
        return dict(sorted(zip(self.names, found, strict=True), key=lambda item: (-item[1], item[0])))


def _fingerprints(texts: pa.LargeStringArray) -> NDArray[np.uint64]:
    """A number for each text, of its length and its last bytes; texts that differ may share one, the same never differ.

    Args:
        texts: Texts, none null.
    """
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    if not len(data):
        return np.zeros(len(texts), np.uint64)
    places = offsets[1:, None] - np.arange(1, _HASHED_BYTES + 1)
    last = np.where(places >= offsets[:-1, None], data[np.maximum(places, 0)], 0).astype(np.uint8)
    words = last.view(np.uint64)
    found: NDArray[np.uint64] = (words * _FACTORS).sum(axis=1, dtype=np.uint64) + np.diff(offsets).astype(np.uint64)
    return found


class Rows:
    """A table in part files.

    Args:
        files: The parts, in order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [pq.ParquetFile(file, pre_buffer=False) for file in files]
        self._paths = list(files)
        groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in groups]
        self._groups = groups
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._known: dict[str, NDArray[np.uint64]] = {}
        self._looking = threading.Lock()
        self._reading = threading.Lock()
        """A Parquet file has one reader at a time."""

    def __len__(self) -> int:
        """Rows of all parts."""
        return int(self._starts[-1])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN for null."""
        columns = [self._whole(path, name) for path in self._paths]
        parts = [column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in columns]
        return np.concatenate([*parts, np.empty(0)])

    def codes(self, name: str) -> Codes:
        """A column of texts that repeat."""
        columns = [self._whole(path, name, as_dictionary=True) for path in self._paths]
        chunks = [chunk for column in columns for chunk in column.chunks]
        if not chunks:
            return Codes(np.empty(0, np.int32), [])
        joined = pa.chunked_array(chunks).unify_dictionaries()
        parts = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in joined.chunks]
        return Codes(np.concatenate(parts).astype(np.int32), joined.chunk(0).dictionary.to_pylist())

    @staticmethod
    def _whole(path: Path, name: str, as_dictionary: bool = False) -> pa.ChunkedArray:
        with pq.ParquetFile(path, read_dictionary=[name] if as_dictionary else None) as file:
            column = file.read([name]).column(0)
        return column.dictionary_encode() if as_dictionary and not pa.types.is_dictionary(column.type) else column

    def take(self, positions: Sequence[int] | Positions, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Rows at some places, in the order asked for.

        Args:
            positions: Their numbers.
            columns: Names of the columns to read; ``None`` reads all.
        """
        places = np.asarray(positions, np.int64)
        found: dict[int, dict[str, Any]] = {}
        group_of = np.searchsorted(self._starts, places, side="right") - 1
        for group in np.unique(group_of).tolist():
            inside = places[group_of == group]
            table = self._group(group, columns).take(pa.array(inside - self._starts[group]))
            found.update(zip(inside.tolist(), table.to_pylist(), strict=True))
        return [found[place] for place in places.tolist()]

    def _group(self, group: int, columns: Sequence[str] | None) -> pa.Table:
        file, number = self._groups[group]
        with self._reading:
            return self._files[file].read_row_group(number, columns=columns, use_threads=False)

    def search(
        self, positions: Positions, columns: Sequence[str], text: str, count: int, max_groups: int
    ) -> tuple[list[int], int]:
        """Look for a text, whatever its case, in some columns of some rows.

        Args:
            positions: Rows to look at, rising.
            columns: Columns of texts.
            text: What is looked for; no pattern.
            count: Hits that are enough.
            max_groups: Most row groups that are read.

        Returns:
            Rows that hold it, at most `count`; and how many of `positions` were looked at.
        """
        hits: list[int] = []
        group_of = np.searchsorted(self._starts, positions, side="right") - 1
        borders = np.flatnonzero(np.diff(group_of)) + 1
        stretches = np.split(np.arange(len(positions)), borders) if len(positions) else []
        for stretch in stretches[:max_groups]:
            group = int(group_of[stretch[0]])
            table = self._group(group, columns).take(pa.array(positions[stretch] - self._starts[group]))
            masks = [pc.match_substring(column, text, ignore_case=True) for column in table.columns]
            held = np.logical_or.reduce([mask.fill_null(False).to_numpy(zero_copy_only=False) for mask in masks])
            for place in stretch[held].tolist():
                hits.append(int(positions[place]))
                if len(hits) == count:
                    return hits, place + 1
        looked = stretches[:max_groups]
        return hits, int(looked[-1][-1]) + 1 if looked else 0

    def find(self, column: str, value: str, hint: int = -1) -> int | None:
        """Row of a value; `hint` is where it probably is.

        Returns:
            The first row that holds it, ``None`` where none does.
        """
        if 0 <= hint < len(self) and self.take([hint], [column])[0][column] == value:
            return hint
        wanted = _fingerprints(pa.array([value], pa.large_string()))
        likely = np.flatnonzero(self._fingerprints_of(column) == wanted)
        for some in np.array_split(likely, max(1, len(likely) // _TAKEN_AT_ONCE)):
            rows = zip(some.tolist(), self.take(some, [column]), strict=True)
            places = [place for place, row in rows if row[column] == value]
            if places:
                return int(places[0])
        return None

    def _fingerprints_of(self, column: str) -> NDArray[np.uint64]:
        """Fingerprints of a column of ids, made when one is first looked for and kept: 8 bytes a row."""
        with self._looking:
            if column not in self._known:
                parts = [
                    _fingerprints(chunk.cast(pa.large_string()))
                    for path in self._paths
                    for batch in self._batches_of(path, column)
                    for chunk in batch
                ]
                self._known[column] = np.concatenate([*parts, np.empty(0, np.uint64)])
            return self._known[column]

    @staticmethod
    def _batches_of(path: Path, column: str) -> Iterator[list[pa.Array]]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_HASHED_AT_ONCE, columns=[column]):
                yield batch.columns

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows, row group by row group."""
        for group in range(len(self._groups)):
            yield self._group(group, columns)
