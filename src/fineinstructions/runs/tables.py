"""Records to Parquet files and back, streaming, with the same bytes for the same records.

Row groups end after a fixed number of rows or characters, so that memory is bounded and the bytes depend on nothing but
the records. Pages carry checksums that are checked on reading.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fineinstructions.errors import DataError
from fineinstructions.records import from_table, schema_of, to_table
from fineinstructions.runs.container import Stored
from fineinstructions.runs.files import Source

R = TypeVar("R")

ROW_GROUP_ROWS = 1024
ROW_GROUP_CHARS = 2 << 20
BATCH_RECORDS = 64
"""Records that are made a table of together where they come one by one."""


def table_name(record_type: type[Any]) -> str:
    """File name of a record type's table.

    Example:
        >>> from fineinstructions.records import TemplateDraft
        >>> table_name(TemplateDraft)
        'template_draft'
    """
    name = record_type.__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


class TableWriter(Generic[R]):
    """Writes records of one type to one Parquet file; holds at most one row group in memory."""

    def __init__(self, path: Path, record_type: type[R]) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.num_rows = 0
        self._record_type = record_type
        self._texts = [f.name for f in dataclasses.fields(cast(Any, record_type)) if f.type in (str, "str")]
        self._pending: list[R] = []
        self._pending_tables: list[pa.Table] = []
        self._pending_chars = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._sink, schema_of(record_type), compression="zstd", compression_level=3, write_page_checksum=True
        )

    def add(self, record: R) -> None:
        """Write one record, at the latest when the row group is full."""
        self._pending.append(record)
        self._pending_chars += sum(len(getattr(record, name)) for name in self._texts)
        if len(self._pending) >= ROW_GROUP_ROWS or self._pending_chars >= ROW_GROUP_CHARS:
            self._flush()

    def add_front(self, table: pa.Table, most: int) -> int:
        """Write rows from the front of a table as `add` would write their records, in the same row groups.

        Not to be mixed with `add`.

        Args:
            table: At least one row, with the columns of the record type.
            most: Most rows to take.

        Returns:
            How many rows were taken: all, or `most`, or as many as the row group had room for.
        """
        front = table.slice(0, min(most, ROW_GROUP_ROWS - self.pending_rows))
        chars = np.zeros(front.num_rows, np.int64)
        for name in self._texts:
            chars += pc.utf8_length(front.column(name)).to_numpy()
        total = self._pending_chars + np.cumsum(chars)
        number: int = min(front.num_rows, int(np.searchsorted(total, ROW_GROUP_CHARS)) + 1)
        self._pending_tables.append(front.slice(0, number))
        self._pending_chars = int(total[number - 1])
        if self.pending_rows >= ROW_GROUP_ROWS or self._pending_chars >= ROW_GROUP_CHARS:
            self._flush()
        return number

    def add_table(self, table: pa.Table) -> None:
        """Write many rows at once, as a row group of their own; their columns are those of the record type."""
        if self.pending_rows:
            self._flush()
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self.num_rows += table.num_rows

    def _flush(self) -> None:
        if self._pending_tables:
            table = pa.concat_tables(self._pending_tables).combine_chunks()
        else:
            table = to_table(self._pending, self._record_type)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self.num_rows += table.num_rows
        self._pending, self._pending_tables, self._pending_chars = [], [], 0

    @property
    def pending_rows(self) -> int:
        """Rows added but not yet in the file."""
        return len(self._pending) + sum(int(table.num_rows) for table in self._pending_tables)

    @property
    def num_bytes(self) -> int:
        """Size of the file so far, without the rows that are not yet in it."""
        return int(self._sink.tell())

    @property
    def pending_chars(self) -> int:
        """Characters of the rows added but not yet in the file."""
        return self._pending_chars

    def close(self) -> None:
        """Write what is left and finish the file."""
        if self.pending_rows:
            self._flush()
        self._writer.close()
        self._sink.close()

    def abandon(self) -> None:
        """Close the file without writing what is left."""
        self._pending, self._pending_tables = [], []
        self._writer.close()
        self._sink.close()


def write_parts(
    folder: Path, tables: Iterable[pa.Table], record_type: type[R], rows_per_part: int | None, bytes_per_part: int
) -> dict[str, int]:
    """Write rows as ``part-00000.parquet``, ``part-00001.parquet``, ...

    Args:
        folder: Empty folder.
        tables: Rows in output order, as many at a time as one likes; an empty stream gives one part without rows.
        record_type: Type of their records; a column that they do not have gets its default.
        rows_per_part: Most rows in a part; ``None`` for any number.
        bytes_per_part: A part ends with the row group that takes its file to this size, so that only the last of many
            parts is smaller, and none is larger by more than a row group.

    Returns:
        Rows of every part, by file name.
    """
    rows: dict[str, int] = {}
    writer = TableWriter(folder / "part-00000.parquet", record_type)
    try:
        for table in tables:
            left = fitting(table, record_type)
            while left.num_rows:
                is_full = writer.num_rows > 0 and not writer.pending_rows and writer.num_bytes >= bytes_per_part
                num_rows = writer.num_rows + writer.pending_rows
                if is_full or num_rows == rows_per_part:
                    writer.close()
                    rows[writer.path.name] = writer.num_rows
                    writer = TableWriter(folder / f"part-{len(rows):05d}.parquet", record_type)
                    num_rows = 0
                most = left.num_rows if rows_per_part is None else rows_per_part - num_rows
                left = left.slice(writer.add_front(left, most))
        writer.close()
    except BaseException:  # Ctrl-C too must not leave an open file behind
        writer.abandon()
        raise
    rows[writer.path.name] = writer.num_rows
    return rows


def fitting(table: pa.Table, record_type: type[Any]) -> pa.Table:
    """A table with exactly the columns of a record type, in its order."""
    schema = schema_of(record_type)
    if not set(schema.names) <= set(table.schema.names):
        return to_table(from_table(table, record_type), record_type)
    return table.select(schema.names).cast(schema)


def tables_of(records: Iterable[R], record_type: type[R]) -> Iterator[pa.Table]:
    """Records as tables, a bounded number at a time."""
    left = iter(records)
    while batch := list(islice(left, BATCH_RECORDS)):
        yield to_table(batch, record_type)


def read_groups(source: Source, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Stream a Parquet file as Arrow tables, one per row group.

    Args:
        source: Parquet file.
        columns: Names of the columns to read; ``None`` reads all.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    with _parquet(source) as file:
        for group in range(file.metadata.num_row_groups):
            yield file.read_row_group(group, columns=columns, use_threads=False)


def read_table(source: Source, record_type: type[R], row_start: int = 0, row_stop: int | None = None) -> Iterator[R]:
    """Stream the records of a Parquet file, or of a row range of it.

    Args:
        source: Parquet file.
        record_type: Type of the records; columns that it does not have are ignored.
        row_start: First row.
        row_stop: Row after the last one; ``None`` reads to the end.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    with _parquet(source) as file:
        names = [name for name in schema_of(record_type).names if name in file.schema_arrow.names]
        stop = file.metadata.num_rows if row_stop is None else row_stop
        for batch in _row_range(file, row_start, stop, names):
            yield from from_table(pa.Table.from_batches([batch]), record_type)


@contextmanager
def _parquet(source: Source) -> Iterator[Any]:
    """An open Parquet file, whose pages are checked as they are read; what goes wrong on the way is a `DataError`."""
    import pyarrow.parquet as pq

    try:
        with ExitStack() as stack:
            opened = stack.enter_context(source.open()) if isinstance(source, Stored) else source
            yield stack.enter_context(pq.ParquetFile(opened, page_checksum_verification=True))
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        name = source.name if isinstance(source, Stored) else source
        raise DataError(f"{name}: cannot be read ({reason}); run verify to see what else is damaged") from error


def _row_range(file: Any, row_start: int, row_stop: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Batches of some columns of the rows of a range; row groups outside of it are not read."""
    groups: list[int] = []
    first = position = 0
    for index in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(index).num_rows
        if position < row_stop and position + rows > row_start:
            if not groups:
                first = position
            groups.append(index)
        position += rows
    position = first
    batches = file.iter_batches(batch_size=1024, row_groups=groups, columns=columns, use_threads=False)
    for batch in batches if groups else ():
        low, high = max(row_start - position, 0), min(row_stop - position, batch.num_rows)
        if low < high:
            yield batch.slice(low, high - low)
        position += batch.num_rows
