"""Input files to work units: row ranges bounded by bytes and rows, with ids made from content.

A unit is a row range and not a file, so that one big file uses every worker. Its id is a hash of the file's fingerprint
and the range: neither a moved file nor the order of the files changes it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import pyarrow as pa

from fineinstructions.errors import ConfigError
from fineinstructions.records import content_id, content_ids
from fineinstructions.runs.specs import BATCH_UNITS, Piece, Plan

WHOLE_READ_BYTES = 64 << 20
SAMPLED_BLOCKS = 64
BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ParquetInput:
    """A Parquet file, as far as planning needs it."""

    path: str
    fingerprint: str
    row_groups: tuple[tuple[int, int], ...]
    """Rows and uncompressed bytes of every row group."""

    @property
    def num_rows(self) -> int:
        """Rows of the file."""
        return sum(rows for rows, _ in self.row_groups)


def describe_parquet(path: str | Path) -> ParquetInput:
    """Fingerprint and row groups of a Parquet file.

    Up to 64 MiB the fingerprint covers every byte; of a larger file it covers the footer, the size and 64 evenly spread
    blocks of 64 KiB, because reading terabytes twice would cost more than the run.

    Raises:
        ConfigError: If the file cannot be read or is no Parquet file.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        metadata = pq.read_metadata(path)
        fingerprint = content_fingerprint(path)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not a readable Parquet file ({reason}); check the path or write it again") from None
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return ParquetInput(str(path), fingerprint, tuple((g.num_rows, g.total_byte_size) for g in groups))


def content_fingerprint(path: Path) -> str:
    """Digest of a file's size and content: every byte up to 64 MiB, above that the end and evenly spread blocks."""
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    with path.open("rb") as handle:
        if size <= WHOLE_READ_BYTES:
            while block := handle.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
        handle.seek(size - 8)
        footer_bytes = int.from_bytes(handle.read(4), "little")
        handle.seek(max(0, size - 8 - footer_bytes))
        digest.update(handle.read())
        for i in range(SAMPLED_BLOCKS):
            handle.seek(size * i // SAMPLED_BLOCKS)
            digest.update(handle.read(BLOCK_BYTES))
    return digest.hexdigest()


def plan_units(files: Sequence[ParquetInput], unit_bytes: int, unit_rows: int, max_rows: int | None = None) -> Plan:
    """Cut files into work units.

    Small row groups of one file share a unit, a large one is cut into even row ranges; no unit spans two files.

    Args:
        files: Input files in the order of the output.
        unit_bytes: Largest uncompressed size of a unit, estimated from its row group's mean row.
        unit_rows: Largest number of rows in a unit.
        max_rows: Plan only this many rows from the start (``--limit``); ``None`` plans all.

    Returns:
        Units that cover every row exactly once, in file and row order.

    Raises:
        ValueError: If a limit is below 1.

    Source:
        Ours; sizes measured in issue 2.
    """
    if unit_bytes < 1 or unit_rows < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError("unit_bytes, unit_rows and max_rows must be at least 1")
    return Plan.of_pieces(_cut(files, unit_bytes, unit_rows, max_rows))


def _cut(files: Sequence[ParquetInput], unit_bytes: int, unit_rows: int, max_rows: int | None) -> Iterator[Piece]:
    """Units as `Plan.of_pieces` takes them."""
    copies: Counter[str] = Counter()
    left = sum(file.num_rows for file in files) if max_rows is None else max_rows
    for file in files:
        copy = copies[file.fingerprint]
        copies[file.fingerprint] += 1
        file_id = content_id("f", file.fingerprint, str(copy))
        ranges = _limited(_row_ranges(file.row_groups, unit_bytes, unit_rows), left)
        while piece := list(islice(ranges, BATCH_UNITS)):
            starts, stops, sizes = zip(*piece, strict=True)
            unit_ids = content_ids("u", file.fingerprint, starts, stops, repeat(copy))
            left -= stops[-1] - starts[0]
            yield Piece(file.path, file_id, unit_ids, starts, stops, sizes)


def _limited(ranges: Iterable[tuple[int, int, int]], left: int) -> Iterator[tuple[int, int, int]]:
    """Ranges (start, stop, bytes) as long as there are rows left to take."""
    for start, full_stop, full_bytes in ranges:
        if left <= 0:
            return
        stop = min(full_stop, start + left)
        left -= stop - start
        yield start, stop, full_bytes * (stop - start) // (full_stop - start)


def _row_ranges(
    row_groups: Sequence[tuple[int, int]], unit_bytes: int, unit_rows: int
) -> Iterator[tuple[int, int, int]]:
    """Ranges (start, stop, bytes) that join small row groups and split large ones."""
    start = stop = size = 0
    for rows, num_bytes in row_groups:
        if rows == 0:
            continue
        pieces = min(rows, max(1, -(-num_bytes // unit_bytes), -(-rows // unit_rows)))
        fits = stop - start + rows <= unit_rows and size + num_bytes <= unit_bytes
        if stop > start and (pieces > 1 or not fits):
            yield start, stop, size
            start, size = stop, 0
        if pieces == 1:
            stop, size = stop + rows, size + num_bytes
            continue
        for piece in range(pieces):
            first, last = rows * piece // pieces, rows * (piece + 1) // pieces
            yield stop + first, stop + last, num_bytes * (last - first) // rows
        start = stop = stop + rows
    if stop > start:
        yield start, stop, size
