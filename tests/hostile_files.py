"""Files that lie: made for tests of what becomes of them."""

import io
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard


def zstd_bomb(path: Path, piece: bytes, times: int) -> Path:
    """A few kilobytes that unpack to a piece, many times over."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    path.write_bytes(b"".join(packer.compress(piece) for _ in range(times)) + packer.flush())
    return path


def gzip_bomb(path: Path, piece: bytes, times: int) -> Path:
    """The same as gzip, which packs a thousand to one at best."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(b"".join(packer.compress(piece) for _ in range(times)) + packer.flush())
    return path


def claiming_parquet(path: Path, claimed: int) -> Path:
    """A Parquet file of some rows whose footer claims another number."""
    number = 12_345
    whole = io.BytesIO()
    pq.write_table(pa.table({"id": [str(i) for i in range(number)], "text": ["word"] * number}), whole)
    raw = whole.getvalue()
    length = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - length : -8].replace(_number_field(number), _number_field(claimed))
    path.write_bytes(raw[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def _number_field(number: int) -> bytes:
    """A 64-bit field of Thrift's compact protocol, as numbers of rows are written."""
    zigzag = 2 * number if number >= 0 else -2 * number - 1
    digits = b""
    while zigzag > 127:
        digits += bytes([zigzag & 127 | 128])
        zigzag >>= 7
    return b"\x16" + digits + bytes([zigzag])


def empty_rows_parquet(path: Path, number: int) -> Path:
    """Very many rows without anything in them, in very few bytes."""
    nothing = pa.table({"text": pa.nulls(1_000_000, pa.string())})
    with pq.ParquetWriter(path, nothing.schema) as writer:
        for _ in range(number // 1_000_000):
            writer.write_table(nothing)
    return path


def long_text_parquet(path: Path, num_bytes: int) -> Path:
    """One text of very many equal bytes."""
    column = pa.array([b"x" * num_bytes], pa.large_binary()).view(pa.large_string())
    table = pa.table({"text": column})
    pq.write_table(table, path, use_dictionary=False, write_statistics=False, compression="zstd")
    return path
