"""Rows of an arm to the files that training programs read.

In: tables of rows in their final order. Out: files, each with its rows and tokens. The decision a reader would
question: files for Lingua are filled so that no rank gets more than about one row more than another, and not line by
line in turn: the rank that runs out first begins a second epoch on its own, and nobody is told.
"""

import gzip
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from fineinstructions.corpus.render import View, view_columns
from fineinstructions.records import schema_of


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """What a model is trained on at a stretch, and where it comes from."""

    id: str
    """Of the pair, or of the document; of a text made from one, that id and what was made."""
    document_id: str
    text: str
    instruction: str | None
    """Of a pair; null for other texts."""
    answer: str | None
    source: str
    licence: str
    """Of the document."""
    template_licence: str
    """Of the queries behind a pair's template, separated by ``; ``; empty for a text without pairs."""
    models: str
    """What made it, as a JSON object; empty for a document."""
    num_tokens: int
    """With the tokens around it."""


ROW_SCHEMA = schema_of(TrainingRow)
GROUP_ROWS = 4096
GROUP_BYTES = 8 << 20
"""Rows and bytes of a row group, and of what is written at once. Ours."""
MAX_RANK_FILES = 256
"""Most files that are open at once."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of an arm."""

    name: str
    num_rows: int
    num_tokens: int


class RowWriter(Protocol):
    """Takes rows in order and writes them to files."""

    def write(self, table: pa.Table) -> None:
        """Write some rows."""

    def close(self) -> list[WrittenFile]:
        """Finish; the files."""

    def abandon(self) -> None:
        """Let go of open files, without finishing them."""


def output_columns(table: pa.Table, view: View) -> pa.Table:
    """What a reader of the files sees: ids, the columns of the view, tokens, source and licences."""
    shown = table.select(["text"]) if view == "text" else view_columns(table, view)
    columns = {name: table.column(name) for name in ("id", "document_id")}
    columns |= {name: shown.column(name) for name in shown.column_names}
    columns |= {name: table.column(name) for name in ("num_tokens", "source", "licence", "template_licence")}
    return pa.table(columns)


class PartWriter:
    """Files of a bounded size, Parquet or JSON lines.

    Args:
        folder: Where they go.
        view: Columns of the rows.
        rows_per_part: Most rows in a file.
        bytes_per_part: About the most bytes in a file, uncompressed.
        ending: ``parquet``, or ``jsonl``, ``jsonl.gz`` or ``jsonl.zst`` for JSON lines.
        counted: Whether names say how many files there are, as data sets on the hub have it.
    """

    def __init__(
        self, folder: Path, view: View, rows_per_part: int, bytes_per_part: int, *, ending: str, counted: bool = False
    ) -> None:
        self._folder, self._view = folder, view
        self._most = rows_per_part, bytes_per_part
        self._ending, self._counted = ending, counted
        self._open: _ParquetFile | _JsonFile | None = None
        self._held: list[pa.Table] = []
        self._held_size = [0, 0]
        self._files: list[WrittenFile] = []
        self._now = [0, 0, 0]
        """Rows, bytes and tokens of the open file."""

    def write(self, table: pa.Table) -> None:
        """Write some rows, as soon as there are enough of them for a row group."""
        while table.num_rows:
            rows_left = min(self._most[0] - self._now[0] - self._held_size[0], GROUP_ROWS - self._held_size[0])
            part, table = table.slice(0, rows_left), table.slice(rows_left)
            self._held.append(part)
            self._held_size = [self._held_size[0] + part.num_rows, self._held_size[1] + part.nbytes]
            is_full = self._now[0] + self._held_size[0] >= self._most[0]
            is_full = is_full or self._now[1] + self._held_size[1] >= self._most[1]
            if is_full or self._held_size[0] >= GROUP_ROWS or self._held_size[1] >= GROUP_BYTES:
                self._flush()
            if is_full:
                self._finish()

    def _flush(self) -> None:
        if not self._held:
            return
        rows = pa.concat_tables(self._held)
        if self._open is None:
            path = self._folder / self._part_name()
            self._open = _ParquetFile(path) if self._ending == "parquet" else _JsonFile(path)
        self._open.write(output_columns(rows, self._view))
        tokens = sum(rows.column("num_tokens").to_pylist())
        self._now = [self._now[0] + rows.num_rows, self._now[1] + self._held_size[1], self._now[2] + tokens]
        self._held, self._held_size = [], [0, 0]

    def _finish(self) -> None:
        if self._open is not None:
            self._open.close()
            self._files.append(WrittenFile(self._part_name(), self._now[0], self._now[2]))
        self._open, self._now = None, [0, 0, 0]

    def close(self) -> list[WrittenFile]:
        """Finish the last file; an arm without rows has one file without rows."""
        self._flush()
        if self._open is None and not self._files:
            self._held = [ROW_SCHEMA.empty_table()]
            self._flush()
        self._finish()
        return [self._renamed(n, file) for n, file in enumerate(self._files)] if self._counted else self._files

    def _renamed(self, number: int, file: WrittenFile) -> WrittenFile:
        name = f"train-{number:05d}-of-{len(self._files):05d}.{self._ending}"
        (self._folder / file.name).rename(self._folder / name)
        return WrittenFile(name, file.num_rows, file.num_tokens)

    def abandon(self) -> None:
        """Close the open file."""
        if self._open is not None:
            self._open.close()

    def _part_name(self) -> str:
        return f"part-{len(self._files):05d}.{self._ending}"


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", compression_level=3, write_page_checksum=True
            )
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _JsonFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._stream: Any = self._file
        if path.suffix == ".zst":
            import zstandard

            self._stream = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(self._file)
        elif path.suffix == ".gz":  # no name and no time in it, so that the same rows give the same bytes
            self._stream = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._file, mtime=0)

    def write(self, table: pa.Table) -> None:
        for lines in _json_lines(table):
            self._stream.write(lines)

    def close(self) -> None:
        self._stream.close()
        self._file.close()


def _json_lines(table: pa.Table) -> Iterator[bytes]:
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for batch in table.to_batches(max_chunksize=1024):
        yield "".join(f"{encode(row)}\n" for row in batch.to_pylist()).encode("utf-8")


class RankWriter:
    """JSON lines for Lingua: ``NAME.chunk.00.jsonl`` and so on, one file for every rank or for several of them.

    Ranks that share a file read its lines in turn, so a row goes to the file whose next line belongs to the rank that
    has the fewest tokens so far.

    Args:
        folder: Where they go; its name is the name of the source.
        ranks: Data-parallel ranks of the training.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self.num_files = largest_divisor(ranks, MAX_RANK_FILES)
        self._ranks_per_file = ranks // self.num_files
        width = max(2, len(str(self.num_files - 1)))
        self._names = [f"{folder.name}.chunk.{n:0{width}d}.jsonl" for n in range(self.num_files)]
        self._files = [(folder / name).open("wb") for name in self._names]
        self.rank_tokens = [[0] * self._ranks_per_file for _ in self._files]
        """Tokens of every rank, by file and place in it."""
        self._rows = [0] * self.num_files
        self._next = [(0, number) for number in range(self.num_files)]
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def write(self, table: pa.Table) -> None:
        """Write some rows."""
        for batch in table.select(["id", "text", "num_tokens"]).to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                _, number = heapq.heappop(self._next)
                line = self._encode({"id": row["id"], "text": row["text"]})
                self._files[number].write(f"{line}\n".encode())
                tokens = self.rank_tokens[number]
                tokens[self._rows[number] % self._ranks_per_file] += row["num_tokens"]
                self._rows[number] += 1
                heapq.heappush(self._next, (tokens[self._rows[number] % self._ranks_per_file], number))

    def close(self) -> list[WrittenFile]:
        """Finish all files."""
        self.abandon()
        facts = zip(self._names, self._rows, self.rank_tokens, strict=True)
        return [WrittenFile(name, num_rows, sum(tokens)) for name, num_rows, tokens in facts]

    def abandon(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not above a limit.

    Example:
        >>> largest_divisor(8, 256), largest_divisor(600, 256), largest_divisor(1009, 256)
        (8, 200, 1)
    """
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)
