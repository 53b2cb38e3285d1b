"""Makes every document file addressable by row range, once per run, and finds repeated ids.

In: the ``documents`` section. Out: `StagedFile` objects. A local Parquet file is used where it lies. A remote Parquet
file is copied, every other format is converted to Parquet under the run folder: streamed, bounded in memory, bad rows
kept as marked rows, so that a unit can later read rows 5,000 to 6,000 of a compressed JSON file. A staged file appears
by rename, under a name that holds the version of its source: a second call does nothing, a changed source is staged
anew.

The decision a reader would question: a converted file is several, each of which ends where its own rows say. So a limit
converts little more than it needs, and what it has converted is the beginning of the whole, byte for byte.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.config import digest
from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row, read_file_rows
from fineinstructions.inputs import InputFile, list_inputs, one_line, open_bytes
from fineinstructions.parquet import STAGED_KEY, open_parquet, read_parquet_rows
from fineinstructions.readers import (
    ColumnsSeen,
    SourceConfig,
    describe,
    read_documents,
    take_fields,
)
from fineinstructions.records import Rejection, to_json
from fineinstructions.runs.plan import ParquetInput, describe_parquet

ROW_GROUP_BYTES = 16 * 1024 * 1024
"""Rows of a converted file are written in groups of about this size, so that a unit decodes little beyond its rows."""
MAX_PART_BYTES = 1 << 30
"""A converted file is cut into parts: the first is one row group, each of the next twice as large, up to this size."""

_SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("problem", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("num_bytes", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("fields", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One input file, or a part of one that was converted, as Parquet on local disk."""

    name: str
    """The user's file."""
    num_rows: int
    """Rows to read; fewer than the file has where `limit` cuts it."""
    parquet: ParquetInput
    """Where it lies, its fingerprint and its row groups."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.parquet.path)


def stage_documents(config: SourceConfig, out_dir: Path) -> list[StagedFile]:
    """Stage all files of a source.

    Args:
        config: The ``documents`` section.
        out_dir: Folder for copies and conversions, usually ``RUN/input``.

    Returns:
        The files in input order, one that was converted as its parts; `limit` cuts the number of rows of the last.

    Raises:
        ConfigError: If a file cannot be read, lacks its columns, or the input has no row or no valid row.
    """
    staged: list[StagedFile] = []
    left = config.limit
    for file in list_inputs(config.path, config.section):
        if left == 0:
            break
        found = _stage(file, config, out_dir, left)
        left = None if left is None else left - sum(part.num_rows for part in found)
        staged += found
    files = list(dict.fromkeys(f.name for f in staged))
    names = ", ".join(files[:3] + ["..."] * (len(files) > 3))
    if not any(f.num_rows for f in staged):
        raise ConfigError(f"{names}: no rows; check {config.section}.path")
    _require_one_document(staged, config, names)
    return staged


def _require_one_document(staged: Sequence[StagedFile], config: SourceConfig, names: str) -> None:
    reasons: dict[str, int] = {}
    for file in staged:
        for item in read_documents(file.path, 0, file.num_rows, config, name=file.name):
            if not isinstance(item, Rejection):
                return
            reasons[item.reason] = reasons.get(item.reason, 0) + 1
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    raise ConfigError(f"{names}: no valid row ({why}); check {config.section}.text_column and the files")


def _stage(file: InputFile, config: SourceConfig, out_dir: Path, left: int | None) -> list[StagedFile]:
    """One file as the Parquet files that hold its rows, of which the last may be cut by the limit."""
    if file.format == "parquet":
        path = Path(file.path) if file.is_local else _copied(file, out_dir / f"{_name(file, config, 'copy')}.parquet")
        return [_staged_file(path, file.name, config, left)]
    out_dir.mkdir(parents=True, exist_ok=True)
    staged: list[StagedFile] = []
    for path in _converted(file, config, out_dir / _name(file, config, "rows"), left):
        found = _staged_file(path, file.name, config, left)
        left = None if left is None else left - found.num_rows
        staged.append(found)
    return staged


def _name(file: InputFile, config: SourceConfig, kind: str) -> str:
    """What changes when the source changes, or how its rows are read."""
    return digest(
        [kind, file.version(), config.text_column, config.id_column, config.text_mode, config.max_document_bytes]
    )


def _staged_file(path: Path, name: str, config: SourceConfig, left: int | None) -> StagedFile:
    with open_parquet(path, name) as parquet:
        describe(parquet, name, config)
    found = describe_parquet(path)
    return StagedFile(name, found.num_rows if left is None else min(left, found.num_rows), found)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` at the end, or vanishes on any error."""
    temporary = path.with_suffix(".tmp")  # one run at a time holds the folder, so a leftover is overwritten
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _copied(file: InputFile, path: Path) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _new_file(path) as temporary, open_bytes(file) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    return path


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a converted file, as its own metadata tell them."""

    path: Path
    num_rows: int
    has_id: bool
    """Whether there was an id in this part or before it."""
    has_columns: bool
    """Whether the columns were found by then that a file is refused without."""
    is_last: bool


def _converted(file: InputFile, config: SourceConfig, stem: Path, left: int | None) -> list[Path]:
    """The parts that hold as many rows as are wanted; those that are there are not made again.

    Where the first id comes behind the first part, all are made again: without an id column, ids are made from texts.
    """
    parts = list(_finished_parts(stem, left))
    if parts and not parts[-1].has_columns:
        parts = []  # what columns there were instead is not known any more
    if not _are_enough(parts, left):
        parts += _new_parts(file, config, stem, left, parts)
    if parts[0].has_id != parts[-1].has_id:
        for part in parts:
            part.path.unlink()
        parts = list(_new_parts(file, config, stem, left, [], has_id=True))
    return [part.path for part in parts]


def _are_enough(parts: Sequence[_Part], left: int | None) -> bool:
    if not parts:
        return False
    return parts[-1].is_last or (left is not None and sum(part.num_rows for part in parts) >= left)


def _part_path(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}-{number:05d}.parquet")


def _finished_parts(stem: Path, left: int | None) -> Iterator[_Part]:
    """Parts of an earlier call, as many as are wanted."""
    parts: list[_Part] = []
    while not _are_enough(parts, left) and (path := _part_path(stem, len(parts))).exists():
        with open_parquet(path, str(path), is_known=True) as parquet:
            told = json.loads(parquet.metadata.metadata[STAGED_KEY])
            parts.append(_Part(path, parquet.metadata.num_rows, told["has_id"], told["has_columns"], told["is_last"]))
        yield parts[-1]


def _new_parts(
    file: InputFile,
    config: SourceConfig,
    stem: Path,
    left: int | None,
    before: Sequence[_Part],
    has_id: bool = False,
) -> Iterator[_Part]:
    """Convert the rows behind the parts that are there.

    Raises:
        ConfigError: If the file cannot be read, or no row that was read has the columns.
    """
    seen = ColumnsSeen(file, config, has_id=has_id or any(part.has_id for part in before), has_text=bool(before))
    rows = read_file_rows(file, config.text_column, config.text_mode, config.max_document_bytes)
    coming = itertools.islice(rows, sum(part.num_rows for part in before), None)
    parts = list(before)
    row = next(coming, None)
    while not _are_enough(parts, left):
        path = _part_path(stem, len(parts))
        with _new_file(path) as temporary:
            num_rows, row = _write_part(temporary, row, coming, seen, len(parts))
            is_last = row is None
            if is_last or (left is not None and num_rows + sum(part.num_rows for part in parts) >= left):
                seen.check()
        parts.append(_Part(path, num_rows, seen.has_id, seen.has_columns, is_last))
        yield parts[-1]


def _write_part(
    path: Path, row: Row | None, coming: Iterator[Row], seen: ColumnsSeen, number: int
) -> tuple[int, Row | None]:
    """Write one part, from a row on.

    Returns:
        How many rows it has, and the row behind it; ``None`` where the file ends.
    """
    import pyarrow.parquet as pq

    most_bytes = min(ROW_GROUP_BYTES << number, MAX_PART_BYTES)
    num_rows = num_bytes = 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd", store_schema=True) as writer:
        while row is not None and num_bytes < most_bytes:
            pending: list[dict[str, Any]] = []
            size = 0
            while row is not None and size <= ROW_GROUP_BYTES:
                seen.note(row)
                pending.append(_staged_row(row, seen.config))
                size += 100 + len(pending[-1]["text"] or "") + len(pending[-1]["fields"])
                row = next(coming, None)
            writer.write_table(pa.Table.from_pylist(pending, schema=_SCHEMA))
            num_rows, num_bytes = num_rows + len(pending), num_bytes + size
        told = {"name": seen.name, "has_id": seen.has_id, "has_columns": seen.has_columns, "is_last": row is None}
        writer.add_key_value_metadata({STAGED_KEY: json.dumps(told)})
    return num_rows, row


def _staged_row(row: Row, config: SourceConfig) -> dict[str, Any]:
    text = row.values.get(config.text_column)
    other = {k: v for k, v in row.values.items() if k != config.text_column or not isinstance(v, str)}
    fields = to_json(other)
    staged = {
        "number": row.number,
        "problem": row.problem,
        "detail": row.detail,
        "num_bytes": row.num_bytes,
        "text": text if isinstance(text, str) else None,
        "fields": fields,
    }
    try:
        size = len(text.encode("utf-8")) if isinstance(text, str) else 0
        fields.encode("utf-8")
    except UnicodeEncodeError:
        return staged | {"problem": "invalid_utf8", "detail": "lone surrogate", "text": None, "fields": "{}"}
    if size > config.max_document_bytes:
        staged |= {"problem": "too_large", "num_bytes": size, "text": None}
    return staged


def find_repeated_ids(staged: Sequence[StagedFile], config: SourceConfig) -> list[NDArray[np.int64]]:
    """Rows whose id occurred before, over the whole input; the first occurrence in input order stays.

    One pass over the ids alone (over the texts where a file has no id column) keeps 64 bits per row; only rows whose
    bits occur twice are compared as strings, so a collision cannot reject a row.

    Args:
        staged: The input, in order.
        config: The ``documents`` section.

    Returns:
        For each file the sorted rows of later occurrences.
    """
    hashes = [np.fromiter(_ids(f, config, _hash), np.int64, f.num_rows) for f in staged]
    everything = np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
    values, counts = np.unique(everything, return_counts=True)
    suspects = set(values[counts > 1].tolist()) - {_NO_ID}
    repeated: list[NDArray[np.int64]] = []
    first: set[str] = set()
    for file, file_hashes in zip(staged, hashes, strict=True):
        rows: list[int] = []
        if suspects and np.isin(file_hashes, list(suspects)).any():
            for row, record_id in enumerate(_ids(file, config, lambda record_id: record_id)):
                if record_id is None or _hash(record_id) not in suspects:
                    continue
                if record_id in first:
                    rows.append(row)
                first.add(record_id)
        repeated.append(np.array(rows, np.int64))
    return repeated


_NO_ID = 0


def _hash(record_id: str | None) -> int:
    """64 bits of an id, the same within this process; rows without an id share `_NO_ID`."""
    return _NO_ID if record_id is None else hash(record_id) or 1


def _ids(file: StagedFile, config: SourceConfig, of: Callable[[str | None], Any]) -> Iterator[Any]:
    """What `of` makes of the id of each row that is read."""
    with open_parquet(file.path, file.name) as parquet:
        name, has_id = describe(parquet, file.name, config)
        is_staged = STAGED_KEY in (parquet.metadata.metadata or {})
        if has_id and not is_staged:
            yield from map(of, itertools.islice(_id_column(parquet, name, config.id_name), file.num_rows))
            return
        rows = range(file.num_rows)
        for row in read_parquet_rows(parquet, name, rows, config.text_column, config.max_document_bytes):
            raw_id = row.values.get(config.id_name)
            fields = take_fields(row, config, name, has_id)
            made = None if isinstance(fields, Rejection) else fields.record_id
            yield of(made if not has_id else None if raw_id is None else str(raw_id))


def _id_column(parquet: Any, name: str, column: str) -> Iterator[str | None]:
    """The ids of all rows of a Parquet file.

    Raises:
        ConfigError: If a page is corrupt, or there are fewer rows than the file claims.
    """
    position = 0
    try:
        for batch in parquet.iter_batches(columns=[column], batch_size=65536):
            yield from _id_strings(batch.column(0))
            position += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ConfigError(f"{name}: corrupt from row {position} on ({one_line(error)}); fetch it again") from None
    if position < parquet.metadata.num_rows:
        raise ConfigError(f"{name}: ends at row {position}, but claims {parquet.metadata.num_rows:,}; fetch it again")


def _id_strings(column: Any) -> list[str | None]:
    """Ids as strings; one that is no text at all has no id here and is rejected when its row is read."""
    values = column.cast(pa.string()).to_pylist() if pa.types.is_integer(column.type) else None
    if values is not None:
        return list(values)
    raw = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw.cast(pa.large_binary()).to_pylist()]
