"""A global shuffle of any number of rows in bounded memory: rows go into buckets on disk, again if a bucket is large.

In: tables with a column of random keys. Out: the same rows in the order of their keys. The decision a reader would
question: this is a sort by seeded keys, not a shuffle that draws numbers as it goes; so the order depends on seed and
ids alone, and neither on memory nor on how the rows were cut into tables.
"""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

KEY = "key"
BUCKET_BITS = 6
KEY_BITS = 64
MAX_BYTES = 128 << 20
"""Rows that are sorted in memory at a time, uncompressed. Ours."""
YIELD_ROWS = 1024


def shuffled(tables: Iterable[pa.Table], folder: Path, max_bytes: int = MAX_BYTES) -> Iterator[pa.Table]:
    """Rows in the order of their keys.

    Args:
        tables: Tables of one schema with a column `key` of 64-bit keys.
        folder: Where the buckets are written; made, and removed at the end.
        max_bytes: About the most bytes of rows in memory.

    Yields:
        Tables of at most `YIELD_ROWS` rows, in order.
    """
    yield from _in_order(iter(tables), folder, max_bytes, shift=KEY_BITS - BUCKET_BITS)


def _in_order(tables: Iterator[pa.Table], folder: Path, max_bytes: int, shift: int) -> Iterator[pa.Table]:
    held, is_all = _take(tables, max_bytes)
    if is_all or shift < 0:
        held += tables  # equal keys cannot be told apart any further
        yield from _sorted(held)
        return
    folder.mkdir(parents=True)
    try:
        used = _scatter(itertools.chain([held], _batches(tables, max_bytes)), folder, shift)
        del held
        for bucket in used:
            yield from _in_order(
                _read(folder / f"{bucket}.arrow"), folder / str(bucket), max_bytes, shift - BUCKET_BITS
            )
            (folder / f"{bucket}.arrow").unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take(tables: Iterator[pa.Table], max_bytes: int) -> tuple[list[pa.Table], bool]:
    """The first tables, and whether there were no more."""
    held, size = list[pa.Table](), 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size > max_bytes:
            return held, False
    return held, True


def _batches(tables: Iterator[pa.Table], max_bytes: int) -> Iterator[list[pa.Table]]:
    is_all = False
    while not is_all:
        held, is_all = _take(tables, max_bytes)
        yield held


def _sorted(tables: list[pa.Table]) -> Iterator[pa.Table]:
    if not tables:
        return
    whole = pa.concat_tables(tables)
    order = pc.sort_indices(whole, sort_keys=[(KEY, "ascending")])
    for start in range(0, whole.num_rows, YIELD_ROWS):
        yield whole.take(order.slice(start, YIELD_ROWS))


def _scatter(batches: Iterable[list[pa.Table]], folder: Path, shift: int) -> list[int]:
    """Write rows into buckets by some bits of their keys; the buckets that are used, in order."""
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    try:
        for tables in batches:
            if not tables:
                continue
            whole = pa.concat_tables(tables)
            keys = whole.column(KEY).to_numpy()
            buckets = ((keys >> np.uint64(shift)) & np.uint64((1 << BUCKET_BITS) - 1)).astype(np.int64)
            order = np.argsort(buckets, kind="stable")
            borders = np.searchsorted(buckets[order], np.arange((1 << BUCKET_BITS) + 1))
            for bucket in np.unique(buckets).tolist():
                rows = whole.take(pa.array(order[borders[bucket] : borders[bucket + 1]]))
                if bucket not in writers:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    writers[bucket] = pa.ipc.new_stream(folder / f"{bucket}.arrow", whole.schema, options=options)
                writers[bucket].write_table(rows, max_chunksize=YIELD_ROWS)
    finally:
        for writer in writers.values():
            writer.close()
    return sorted(writers)


def _read(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])
