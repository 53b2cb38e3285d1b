"""Work units and lists of them: a million stand in a few columns and not in a million objects.

In: units, one by one. Out: a sequence of them that is kept as an Arrow file and read where it lies, each unit made when
somebody asks for it.

The decision a reader would question: Arrow's own file format and not Parquet. It is mapped into memory as it is, so
that opening a plan of a million units takes no time and no memory of the process.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.errors import DataError
from fineinstructions.runs.durable import beside, sync_file

WHOLE_CORPUS = "all"
BATCH_UNITS = 4096
"""Units that are made at a time where all of a list are gone through."""

_SHARED = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string()),
        pa.field("path", _SHARED),
        pa.field("row_start", pa.int64()),
        pa.field("row_stop", pa.int64()),
        pa.field("num_bytes", pa.int64()),
        pa.field("file_id", _SHARED),
    ]
)


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """One work unit: rows ``row_start`` to ``row_stop`` (half-open) of a Parquet file, or the whole of a phase."""

    ordinal: int
    """Position in the plan; outputs are merged in this order."""
    unit_id: str
    path: str = ""
    row_start: int = 0
    row_stop: int = 0
    num_bytes: int = 0
    """Estimated size of the rows, uncompressed."""
    file_id: str = ""
    """Identity of the file's content; empty for a unit that covers a whole phase."""

    @property
    def num_rows(self) -> int:
        """Number of input rows; 0 for a unit that covers a whole phase."""
        return self.row_stop - self.row_start

    @property
    def folder_name(self) -> str:
        """Name of the unit's folder; sorts in plan order up to a million, above which units lie in packs."""
        return f"{self.ordinal:06d}-{self.unit_id}"


def single_unit() -> UnitSpec:
    """The only unit of a phase that needs everything at once (queries, templates, index, assemble)."""
    return UnitSpec(ordinal=0, unit_id=WHOLE_CORPUS)


@dataclass(frozen=True, slots=True)
class Piece:
    """Units of one file that follow each other, in columns: what a `UnitSpec` has but for its number."""

    path: str
    file_id: str
    unit_ids: Sequence[str]
    row_start: Sequence[int]
    row_stop: Sequence[int]
    num_bytes: Sequence[int]


class Plan(Sequence[UnitSpec]):
    """A list of units, all of a phase or some of them, in order.

    Args:
        columns: All units of the plan; the row number is the ordinal.
        rows: Which of them are in this list.
    """

    def __init__(self, columns: pa.RecordBatch, rows: range | NDArray[np.int64] | None = None) -> None:
        self._columns = columns
        self._rows = range(columns.num_rows) if rows is None else rows

    @classmethod
    def of(cls, specs: Iterable[UnitSpec]) -> Self:
        """A plan of units that come one by one, numbered from 0.

        Raises:
            ValueError: If they are numbered otherwise.
        """
        return cls.of_pieces(_pieces(specs))

    @classmethod
    def of_pieces(cls, pieces: Iterable[Piece]) -> Self:
        """A plan of units that come in pieces, in order."""
        builder = _Builder()
        for piece in pieces:
            builder.add(piece)
        return cls(builder.build())

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> UnitSpec: ...

    @overload
    def __getitem__(self, index: slice) -> "Plan": ...

    def __getitem__(self, index: int | slice) -> "UnitSpec | Plan":
        if isinstance(index, slice):
            return Plan(self._columns, self._rows[index])
        row = int(self._rows[index])
        values = self._columns.slice(row, 1).to_pydict()
        return UnitSpec(row, *(values[name][0] for name in _SCHEMA.names))

    def __iter__(self) -> Iterator[UnitSpec]:
        for start in range(0, len(self), BATCH_UNITS):
            rows = self._rows[start : start + BATCH_UNITS]
            columns = [_values(self._take(name, rows)) for name in _SCHEMA.names]
            yield from map(UnitSpec, map(int, rows), *columns)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Plan) and self._is_whole and other._is_whole:
            return bool(self._columns.equals(other._columns))
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Plan({len(self)} units)"

    @property
    def _is_whole(self) -> bool:
        return isinstance(self._rows, range) and len(self) == self._columns.num_rows

    def _take(self, name: str, rows: range | NDArray[np.int64] | None = None) -> pa.Array:
        rows = self._rows if rows is None else rows
        column = self._columns.column(name)
        if isinstance(rows, range):
            return column.slice(rows.start, len(rows)) if rows.step == 1 else column.take(pa.array(rows, pa.int64()))
        return column.take(pa.array(rows))

    @property
    def unit_ids(self) -> pa.StringArray:
        """Ids of the units, in order."""
        return self._take("unit_id")

    @property
    def ordinals(self) -> NDArray[np.int64]:
        """Where the units stand in the whole plan."""
        return np.asarray(self._rows, np.int64)

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """Input rows of every unit."""
        counts: NDArray[np.int64] = self._take("row_stop").to_numpy() - self._take("row_start").to_numpy()
        return counts

    @property
    def num_rows(self) -> int:
        """Input rows of all units."""
        return int(self.row_counts.sum())

    def select(self, ordinals: NDArray[np.int64]) -> "Plan":
        """Units of the whole plan by their ordinals."""
        return Plan(self._columns, ordinals)

    def row_ranges(self) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.int64]]:
        """File, first row and row after the last one of every unit."""
        return self._take("file_id"), self._take("row_start").to_numpy(), self._take("row_stop").to_numpy()

    def save(self, path: Path) -> None:
        """Write the whole plan, so that it is there with all of its units, or not at all."""
        temporary = beside(path)
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_batch(self._columns)
        sync_file(temporary)
        temporary.replace(path)
        sync_file(path.parent)

    @classmethod
    def load(cls, path: Path) -> Self:
        """A plan as `save` wrote it, mapped into memory.

        Raises:
            FileNotFoundError: If there is none.
            DataError: If it is damaged.
        """
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                if not reader.schema.equals(_SCHEMA) or reader.num_record_batches != 1:
                    raise ValueError("not a list of units")
                columns = reader.get_batch(0)
                columns.validate(full=True)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: damaged unit list ({reason}); delete the file and run again") from None
        return cls(columns)

    @classmethod
    def load_json(cls, path: Path) -> Self:
        """A plan of a run folder that was made before plans were Arrow files.

        Raises:
            FileNotFoundError: If there is none.
            DataError: If it is damaged.
        """
        try:
            return cls.of(UnitSpec(*values) for values in json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException) as error:
            raise DataError(f"{path}: damaged unit list ({error}); delete the file and run again") from None


def as_plan(specs: Sequence[UnitSpec]) -> Plan:
    """All units of a phase as a plan."""
    return specs if isinstance(specs, Plan) else Plan.of(specs)


def num_rows(specs: Sequence[UnitSpec]) -> int:
    """Input rows of units."""
    return specs.num_rows if isinstance(specs, Plan) else sum(spec.num_rows for spec in specs)


def ordinals(specs: Sequence[UnitSpec]) -> NDArray[np.int64]:
    """Places of units in their plan."""
    return specs.ordinals if isinstance(specs, Plan) else np.array([spec.ordinal for spec in specs], np.int64)


def _values(array: pa.Array) -> list[Any]:
    """Values of a column as Python objects."""
    decoded = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    values: list[Any] = decoded.to_numpy(zero_copy_only=False).tolist()
    return values


def _pieces(specs: Iterable[UnitSpec]) -> Iterator[Piece]:
    for number, spec in enumerate(specs):
        if spec.ordinal != number:
            raise ValueError(f"unit {spec.unit_id} has number {spec.ordinal} instead of {number}")
        yield Piece(spec.path, spec.file_id, [spec.unit_id], [spec.row_start], [spec.row_stop], [spec.num_bytes])


class _Builder:
    """Gathers units in columns that grow where they lie; texts that many units share are kept once."""

    def __init__(self) -> None:
        self._ids, self._id_ends = bytearray(), array("i", [0])
        self._numbers = {name: array("q") for name in ("row_start", "row_stop", "num_bytes")}
        self._chosen = {name: array("i") for name in ("path", "file_id")}
        self._shared: dict[str, dict[str, int]] = {"path": {}, "file_id": {}}

    def add(self, piece: Piece) -> None:
        """Add the next units."""
        raw = [unit_id.encode() for unit_id in piece.unit_ids]
        self._id_ends.extend(islice(accumulate(map(len, raw), initial=len(self._ids)), 1, None))
        self._ids += b"".join(raw)
        for name, column in self._numbers.items():
            column.extend(getattr(piece, name))
        for name, chosen in self._chosen.items():
            known = self._shared[name]
            text = getattr(piece, name)
            chosen.extend(repeat(known.setdefault(text, len(known)), len(raw)))

    def build(self) -> pa.RecordBatch:
        """All units; nothing is copied."""
        length = len(self._id_ends) - 1
        ends, ids = pa.py_buffer(self._id_ends), pa.py_buffer(self._ids)
        columns = {"unit_id": pa.StringArray.from_buffers(length, ends, ids)}
        for name, numbers in self._numbers.items():
            columns[name] = pa.Array.from_buffers(pa.int64(), length, [None, pa.py_buffer(numbers)])
        for name, chosen in self._chosen.items():
            places = pa.Array.from_buffers(pa.int32(), length, [None, pa.py_buffer(chosen)])
            columns[name] = pa.DictionaryArray.from_arrays(places, pa.array(list(self._shared[name]), pa.string()))
        return pa.record_batch([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)
