"""Rows of a Parquet file by position, of the user's own files and of those that `staging` converted.

In: an open file and a row range. Out: `Row` objects; only the row groups that hold the range are decoded. Text columns
are read as bytes: a text that is too large is never turned into a string, and invalid UTF-8 is a problem of one row.
"""

import dataclasses
import importlib.abc
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row
from fineinstructions.inputs import is_bomb, one_line

STAGED_KEY = b"fineinstructions.input"
"""Key in the metadata of a Parquet file that `staging` converted: the original name, whether it has ids."""

BATCH_BYTES = 1024 * 1024
"""Rows are decoded in batches of about this size."""
MAX_ROWS_PER_BYTE = 100
MAX_ROWS_OF_NOTHING = 1_000_000
"""Rows that are the same take next to no room, but a file with more of them than this says nothing."""


def leave_pandas_out() -> None:
    """Spare this process the import of pandas, where it is installed.

    pyarrow looks for it when it first makes an array from a list: half a second of processor time and 40 MB in every
    process. Only for processes that are our own, because their tables cannot become data frames from then on.
    """
    if "pandas" in sys.modules:
        return
    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(hidden)


class _NoPandas(importlib.abc.MetaPathFinder):
    """Says that pandas is not installed."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        """Refuse one name, leave the others to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out here", name=fullname)


def open_parquet(source: Any, name: str, *, is_known: bool = False) -> Any:
    """Open a Parquet file for reading by row group.

    Args:
        source: Path or binary stream.
        name: Name for messages.
        is_known: Whether its metadata were looked at before, which takes time for every row group.

    Returns:
        The open ``pyarrow.parquet.ParquetFile``, a context manager.

    Raises:
        ConfigError: If it is missing, truncated or no Parquet, or its metadata claim what the file cannot hold.
    """
    import pyarrow.parquet as pq

    try:
        num_bytes = source.seek(0, io.SEEK_END) if hasattr(source, "seek") else Path(source).stat().st_size
        file = pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
        file.schema_arrow.names  # noqa: B018 -- decoded only now
        objection = "" if is_known else _objection(file.metadata, num_bytes)
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file; put it back where it was") from None
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise ConfigError(f"{name}: not a readable Parquet file ({one_line(error)}); fetch or write it again") from None
    if objection:
        file.close()
        raise ConfigError(f"{name}: {objection}; fetch or write it again")
    return file


def _objection(metadata: Any, num_bytes: int) -> str:
    """What the metadata claim that a file of this size cannot hold; empty for a file that may be honest."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows != sum(group.num_rows for group in groups) or any(group.num_rows < 0 for group in groups):
        return f"claims {metadata.num_rows:,} rows, but its row groups hold others"
    if metadata.num_rows > MAX_ROWS_OF_NOTHING + MAX_ROWS_PER_BYTE * num_bytes:
        return f"claims {metadata.num_rows:,} rows in {num_bytes:,} bytes"
    largest = max((group.total_byte_size for group in groups), default=0)  # Arrow may abort over damaged columns
    if is_bomb(num_bytes, largest):
        return f"one of its row groups unpacks from at most {num_bytes:,} bytes to {largest:,}, which is no text"
    return ""


def is_text_type(kind: Any) -> bool:
    """Whether an Arrow type can hold text: strings, dictionaries of strings, bytes, and the type of all nulls."""
    types = pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(text or types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind))


def read_parquet_rows(
    file: Any, name: str, rows: range, text_column: str, max_text_bytes: int, nested: bool = False
) -> Iterator[Row]:
    """Rows of an open Parquet file; only the row groups they lie in are decoded.

    Args:
        file: The open file.
        name: Name for messages.
        rows: Row range; rows beyond the end of the file do not exist.
        text_column: Column whose size is checked before it is decoded.
        max_text_bytes: Longest text.
        nested: Whether lists and structs are read too.

    Yields:
        One row per row, with its number in the user's file.

    Raises:
        ConfigError: If a page is corrupt.
    """
    schema = file.schema_arrow
    start, stop = rows.start, min(rows.stop, file.metadata.num_rows)
    groups, position, size = _groups_between(file.metadata, start, stop)
    if not groups:
        return
    restore = _restorer(text_column)
    columns = [f.name for f in schema if nested or is_text_type(f.type) or not pa.types.is_nested(f.type)]
    is_staged = STAGED_KEY in (file.metadata.metadata or {})
    batches = file.iter_batches(batch_size=size, row_groups=groups, columns=columns, use_threads=False)
    while position < stop:
        try:
            batch = next(batches)
            low, high = max(start - position, 0), min(stop - position, batch.num_rows)
            wanted = batch.slice(min(low, high), max(high - low, 0))
            found = _batch_rows(wanted, position + low, text_column, max_text_bytes)
        except StopIteration:
            raise ConfigError(f"{name}: ends at row {position}, but claims {stop:,}; fetch it again") from None
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise ConfigError(f"{name}: corrupt from row {position} on ({one_line(error)}); fetch it again") from None
        yield from map(restore, found) if is_staged else found
        position += batch.num_rows


def _groups_between(metadata: Any, start: int, stop: int) -> tuple[list[int], int, int]:
    """Row groups that hold rows of a range, the first row of the first of them, and rows per batch."""
    groups, first, position, mean_bytes = list[int](), 0, 0, 1
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        if position < stop and position + found.num_rows > start and found.num_rows:
            first = first if groups else position
            groups.append(group)
            mean_bytes = max(mean_bytes, found.total_byte_size // found.num_rows)
        position += found.num_rows
    return groups, first, max(1, min(1024, BATCH_BYTES // mean_bytes))


def _batch_rows(batch: Any, first: int, text_column: str, max_text_bytes: int) -> list[Row]:
    """Rows of a batch; text is decoded strictly, and a text that is too large is never decoded."""
    problems: dict[int, Row] = {}
    columns = []
    for column_name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_null(kind) or not is_text_type(kind):
            columns.append(_plain_values(column))
            continue
        raw = column.dictionary_decode() if pa.types.is_dictionary(kind) else column
        raw = raw.cast(pa.large_binary())
        if column_name == text_column:
            raw = _without_large(raw, first, max_text_bytes, problems)
        columns.append(_decoded(raw.to_pylist(), column_name, first, problems))
    names = batch.schema.names
    rows = [
        Row(first + i, dict(zip(names, values, strict=True))) for i, values in enumerate(zip(*columns, strict=True))
    ]
    for index, problem in problems.items():
        rows[index] = dataclasses.replace(problem, values=rows[index].values)
    return rows


def _without_large(raw: Any, first: int, max_bytes: int, problems: dict[int, Row]) -> Any:
    import pyarrow.compute as pc

    sizes = pc.binary_length(raw).to_pylist()
    large = [size is not None and size > max_bytes for size in sizes]
    if not any(large):
        return raw
    for index in (i for i, is_large in enumerate(large) if is_large):
        problems[index] = Row(first + index, problem="too_large", num_bytes=sizes[index])
    return pc.if_else(pa.array(large), pa.scalar(None, raw.type), raw)


def _decoded(values: list[bytes | None], column: str, first: int, problems: dict[int, Row]) -> list[str | None]:
    try:
        return [value if value is None else value.decode("utf-8") for value in values]
    except UnicodeDecodeError:
        pass
    decoded: list[str | None] = []
    for index, value in enumerate(values):
        try:
            decoded.append(value if value is None else value.decode("utf-8"))
        except UnicodeDecodeError as error:
            decoded.append(None)
            detail = f"column {column!r}, byte {error.start}"
            problems.setdefault(index, Row(first + index, problem="invalid_utf8", detail=detail))
    return decoded


def _plain_values(column: Any) -> list[Any]:
    """Numbers and booleans as they are, dates and decimals as strings, nested values as lists and dictionaries."""
    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _restorer(text_column: str) -> Callable[[Row], Row]:
    """Function that turns a row of a converted file back into the row it was made of."""

    def restore(row: Row) -> Row:
        staged = row.values
        values = json.loads(staged["fields"])
        if staged["text"] is not None:
            values[text_column] = staged["text"]
        return Row(staged["number"], values, staged["problem"], staged["detail"], staged["num_bytes"])

    return restore
