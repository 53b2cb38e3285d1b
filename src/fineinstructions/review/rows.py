"""Rows of a published table by their number, and some of its columns as arrays: what ten million rows allow.

In: the part files of a table. Out: columns as NumPy arrays, read once, and single rows read where they lie. The
decision to question: whoever asks for a column keeps all of its numbers in memory (1 to 8 bytes a row); texts are
read where they lie and never kept.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Positions = NDArray[np.int32] | NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)
_HASHED_BYTES = 24
"""Last bytes of an id that its fingerprint is made of; ours have 18."""
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_READ_AT_ONCE = 1 << 16
_TAKEN_AT_ONCE = 64
_OPEN_FILES = 4
"""Files that stay open, with their footers."""


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


def _open(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, pre_buffer=False)


def _group_rows(path: Path) -> list[int]:
    """Rows of each row group of a file; the rest of its footer, megabytes of a large one, is let go."""
    with pq.ParquetFile(path) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


class Rows:
    """A table in part files.

    Args:
        files: The parts, in order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._paths = list(files)
        sizes = [_group_rows(path) for path in self._paths]
        self._groups = [(f, g) for f, of_file in enumerate(sizes) for g in range(len(of_file))]
        flat = [rows for of_file in sizes for rows in of_file]
        self._starts = np.concatenate([[0], np.cumsum(flat, dtype=np.int64)]).astype(np.int64)
        self._known: dict[str, NDArray[np.uint64]] = {}
        self._looking = threading.Lock()
        self._reading = threading.Lock()
        """A Parquet file has one reader at a time."""
        self._opened = lru_cache(maxsize=_OPEN_FILES)(_open)

    def __len__(self) -> int:
        """Rows of all parts."""
        return int(self._starts[-1])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN for null."""
        return self._filled(name, np.empty(len(self), np.float64))

    def small_numbers(self, name: str) -> NDArray[np.int8]:
        """A column of whole numbers from -128 to 127, none null."""
        return self._filled(name, np.empty(len(self), np.int8))

    def single_numbers(self, name: str) -> NDArray[np.float32]:
        """A column of numbers in single precision; NaN for null."""
        return self._filled(name, np.empty(len(self), np.float32))

    def _filled(self, name: str, found: NDArray[_Number]) -> NDArray[_Number]:
        """A column in an array that is there, batch by batch."""
        kind = pa.from_numpy_dtype(found.dtype)
        for start, column in self._stretches(name):
            found[start : start + len(column)] = column.cast(kind).to_numpy(zero_copy_only=False)
        return found

    def is_text(self, name: str, text: str) -> NDArray[np.bool_]:
        """Which rows hold a text in a column, none of which is null."""
        found = np.empty(len(self), np.bool_)
        for start, column in self._stretches(name):
            found[start : start + len(column)] = pc.equal(column, text).to_numpy(zero_copy_only=False)
        return found

    def _stretches(self, name: str, *, as_dictionary: bool = False) -> Iterator[tuple[int, pa.Array]]:
        """A column in plan order, in pieces, each with the number of its first row."""
        start = 0
        for path in self._paths:
            with pq.ParquetFile(path, read_dictionary=[name] if as_dictionary else None) as file:
                for batch in file.iter_batches(_READ_AT_ONCE, columns=[name]):
                    column = batch.column(0)
                    is_encoded = not as_dictionary or pa.types.is_dictionary(column.type)
                    yield start, column if is_encoded else column.dictionary_encode()
                    start += batch.num_rows

    def codes(self, name: str) -> Codes:
        """A column of texts that repeat."""
        numbers: dict[str, int] = {}
        found = np.empty(len(self), np.int32)
        for start, column in self._stretches(name, as_dictionary=True):
            of_piece = [numbers.setdefault(text, len(numbers)) for text in column.dictionary.to_pylist()]
            places = column.indices.to_numpy(zero_copy_only=False)
            found[start : start + len(column)] = np.array(of_piece, np.int32)[places]
        return Codes(found, list(numbers))

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
            return self._opened(self._paths[file]).read_row_group(number, columns=columns, use_threads=False)

    def search(
        self, positions: Positions, columns: Sequence[str], text: str, count: int, max_groups: int
    ) -> tuple[list[int], int]:
        """Look for a text, whatever its case, in some columns of some rows.

        Args:
            positions: Rows to look at, each once.
            columns: Columns of texts.
            text: What is looked for; no pattern.
            count: Hits that are enough.
            max_groups: Most row groups that are read.

        Returns:
            Rows that hold it, at most `count`; and how many of `positions` were looked at.
        """
        hits: list[int] = []
        looked = 0
        for _ in range(max_groups):
            if looked == len(positions):
                break
            group = int(np.searchsorted(self._starts, positions[looked], side="right")) - 1
            start, end = self._starts[group : group + 2]
            ahead = positions[looked : looked + end - start]
            outside = np.flatnonzero((ahead < start) | (ahead >= end))
            inside = ahead[: outside[0]] if len(outside) else ahead
            table = self._group(group, columns).take(pa.array(inside - start))
            masks = [pc.match_substring(column, text, ignore_case=True) for column in table.columns]
            held = np.logical_or.reduce([mask.fill_null(False).to_numpy(zero_copy_only=False) for mask in masks])
            for place in np.flatnonzero(held).tolist():
                hits.append(int(inside[place]))
                if len(hits) == count:
                    return hits, looked + place + 1
            looked += len(inside)
        return hits, looked

    def find(self, column: str, value: str, hint: int = -1) -> int | None:
        """Row of a value; `hint` is where it probably is.

        Returns:
            The first row that holds it, ``None`` where none does.
        """
        if 0 <= hint < len(self) and self.take([hint], [column])[0][column] == value:
            return hint
        wanted = _fingerprints(pa.array([value], pa.large_string()))
        likely = np.flatnonzero(self.fingerprints(column) == wanted)
        for some in np.array_split(likely, max(1, len(likely) // _TAKEN_AT_ONCE)):
            rows = zip(some.tolist(), self.take(some, [column]), strict=True)
            places = [place for place, row in rows if row[column] == value]
            if places:
                return int(places[0])
        return None

    def fingerprints(self, column: str) -> NDArray[np.uint64]:
        """A number for the text of every row of a column of ids, read once and kept: 8 bytes a row."""
        with self._looking:
            if column not in self._known:
                found = np.empty(len(self), np.uint64)
                for start, texts in self._stretches(column):
                    found[start : start + len(texts)] = _fingerprints(texts.cast(pa.large_string()))
                self._known[column] = found
            return self._known[column]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows, row group by row group."""
        for group in range(len(self._groups)):
            yield self._group(group, columns)
