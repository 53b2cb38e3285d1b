"""Rows of a corpus to token files: BOS text EOS, one row behind the other.

PACKED/part-00000/tokens.bin     ids, 16 bits each where the vocabulary allows it, else 32
PACKED/part-00000/starts.bin     where every row begins in it, 64 bits each
PACKED/part-00000/answers.bin    tokens of every row before its answer, 32 bits each; where rows are pairs in two parts
PACKED/part-00000/rows.parquet   ids of the rows
PACKED/part-00000/manifest.json  digests; written last

In: the files of an arm, in order. Out: one part per file. The decision a reader would question: parts are not cut at
sequences. All arms of a comparison are cut where the training asks for it, and a part can be made again by itself.
"""

import json
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.backends.tokenizer import Tokenizer, TokenizerFacts
from fineinstructions.config import digest
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.inputs import open_lines
from fineinstructions.progress import Progress
from fineinstructions.runs import Manifest
from fineinstructions.runs.durable import TEMPORARY_PREFIX, remove_temporary, replace_folder, watch_disk
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest
from fineinstructions.runs.lease import hold_lease
from fineinstructions.runs.ledger import list_files

PHASE = "pack"
VERSION = 1
TOKENS_FILE, STARTS_FILE, ANSWERS_FILE, ROWS_FILE = "tokens.bin", "starts.bin", "answers.bin", "rows.parquet"
LEASE_FILE = "lease"
ALONE = 0
"""Batches to encode ahead where there is no other thread to do it."""
BATCH_ROWS = 1024
BATCH_CHARS = 4_000_000
"""Most rows, and about the most characters, that are encoded at a time."""
ID_SCHEMA = pa.schema([("id", pa.string()), ("document_id", pa.string())])
WHOLE, PROMPT, COMPLETION = "text", "prompt", "completion"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of an arm, as the export states it."""

    path: Path
    sha256: str
    num_rows: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some rows as they lie in a file."""

    ids: pa.Table
    texts: list[str]
    prompts: list[str] | None
    """Beginnings of the texts, where rows are pairs in two parts."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: pa.Table
    tokens: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    """Tokens of every row, those around it included."""
    answers: NDArray[np.int32] | None


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every id of a vocabulary.

    Example:
        >>> token_type(65_536).__name__, token_type(128_256).__name__
        ('uint16', 'uint32')
    """
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def part_name(number: int) -> str:
    """Folder of a part."""
    return f"part-{number:05d}"


def made_of(source: SourceFile, facts: TokenizerFacts) -> str:
    """Digest of what decides the bytes of a part."""
    return digest(VERSION, asdict(facts), source.sha256)


def pack(
    folder: Path, sources: Sequence[SourceFile], tokenizer: Tokenizer, progress: Progress, threads: int | None = None
) -> None:
    """Write the token files of an arm; parts that are there are kept.

    Args:
        folder: Where they go; made if it is not there.
        sources: Files of the arm, in the order in which they are read.
        tokenizer: What the corpus was counted with.
        progress: Told about every part.
        threads: How many encode at once; by default one per processor that this process may use.

    Raises:
        ConfigError: If the folder holds tokens of something else, or the disk is full.
        DataError: If a file cannot be read, or does not hold what the export states.
    """
    facts = tokenizer.facts
    folder.mkdir(parents=True, exist_ok=True)
    threads = threads or len(os.sched_getaffinity(0))
    with hold_lease(folder / LEASE_FILE, patience_seconds=math.inf), watch_disk(folder):  # others do the same work
        remove_temporary(folder)
        todo = [n for n, source in enumerate(sources) if not _is_there(folder / part_name(n), source, facts)]
        strangers = [path for path in folder.glob("part-*") if path.name not in map(part_name, range(len(sources)))]
        if strangers:
            raise ConfigError(
                f"{strangers[0]}: packed tokens of a larger corpus; choose another packed_dir or delete them"
            )
        progress.start(PHASE, len(sources), len(sources) - len(todo))
        with ThreadPoolExecutor(threads) as pool:
            for number in todo:
                _write_part(folder, number, sources[number], tokenizer, pool, threads)
                progress.advance(PHASE, sources[number].num_rows)
        progress.finish(PHASE)


def _is_there(part: Path, source: SourceFile, facts: TokenizerFacts) -> bool:
    """Whether a part is there and whole.

    Raises:
        ConfigError: If it was made of something else.
    """
    try:
        manifest = read_manifest(FolderFiles(part))
    except DataError:
        return False
    if manifest is None:
        return False
    if manifest.digest != made_of(source, facts):
        raise ConfigError(
            f"{part}: tokens of another corpus or tokenizer; choose another packed_dir, or delete {part.parent}"
        )
    return not file_problems(FolderFiles(part), manifest.files)


def _write_part(
    folder: Path, number: int, source: SourceFile, tokenizer: Tokenizer, pool: ThreadPoolExecutor, threads: int
) -> None:
    temporary = folder / f"{TEMPORARY_PREFIX}{part_name(number)}"
    temporary.mkdir()
    writer = _PartWriter(temporary, tokenizer.facts)
    try:
        for encoded in _encoded(read_batches(source.path), tokenizer, pool, 2 * threads if threads > 1 else ALONE):
            writer.write(encoded)
    finally:
        writer.close()
    if (writer.num_rows, writer.num_tokens) != (source.num_rows, source.num_tokens):
        raise DataError(
            f"{source.path}: holds {writer.num_rows:,} rows with {writer.num_tokens:,} tokens, but corpus.json states"
            f" {source.num_rows:,} with {source.num_tokens:,}; export again"
        )
    files = list_files(temporary, {ROWS_FILE: writer.num_rows})
    counts = {"rows": writer.num_rows, "tokens": writer.num_tokens, "vocab_size": tokenizer.facts.vocab_size}
    digest_ = made_of(source, tokenizer.facts)
    Manifest(PHASE, part_name(number), digest_, source.sha256, {}, counts, files).save(temporary)
    replace_folder(temporary, folder / part_name(number))


class _PartWriter:
    """Files of one part while they are written."""

    def __init__(self, folder: Path, facts: TokenizerFacts) -> None:
        self._facts, self._folder = facts, folder
        self._type = token_type(facts.vocab_size)
        self._tokens, self._starts = (folder / TOKENS_FILE).open("wb"), (folder / STARTS_FILE).open("wb")
        self._rows = pq.ParquetWriter(folder / ROWS_FILE, ID_SCHEMA, compression="zstd")
        self._answers: Any = None
        self.num_rows = self.num_tokens = 0

    def write(self, encoded: _Encoded) -> None:
        ends = np.cumsum(encoded.sizes)
        self._starts.write((ends - encoded.sizes + self.num_tokens).astype("<i8").tobytes())
        self._tokens.write(encoded.tokens.astype(np.dtype(self._type).newbyteorder("<"), copy=False).data)
        if encoded.answers is not None:
            self._answers = self._answers or (self._folder / ANSWERS_FILE).open("wb")
            self._answers.write(encoded.answers.astype("<i4").tobytes())
        self._rows.write_table(encoded.ids)
        self.num_rows += len(encoded.sizes)
        self.num_tokens += len(encoded.tokens)

    def close(self) -> None:
        self._rows.close()
        for file in (self._tokens, self._starts, self._answers):
            if file is not None:
                file.close()


def _encoded(
    batches: Iterator[_Batch], tokenizer: Tokenizer, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[_Encoded]:
    """Batches encoded by many threads, in order; never more than `ahead` of them are held.

    One thread is this one, which was a tenth faster than waiting for another.
    """
    if ahead == ALONE:
        yield from (_encode(batch, tokenizer) for batch in batches)
        return
    waiting: deque[Future[_Encoded]] = deque(pool.submit(_encode, batch, tokenizer) for batch in islice(batches, ahead))
    while waiting:
        done = waiting.popleft().result()
        waiting.extend(pool.submit(_encode, batch, tokenizer) for batch in islice(batches, 1))
        yield done


def _encode(batch: _Batch, tokenizer: Tokenizer) -> _Encoded:
    facts = tokenizer.facts
    before = np.array([] if facts.bos_id is None else [facts.bos_id], np.uint32)
    behind = np.array([facts.eos_id], np.uint32)
    ids = tokenizer.encode_batch(batch.texts)
    sizes = np.fromiter(map(len, ids), np.int64, len(ids)) + facts.tokens_around
    pieces = [piece for row in ids for piece in (before, row, behind)]
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, np.uint32)
    answers = None
    if batch.prompts is not None:
        prompts = tokenizer.encode_batch(batch.prompts)
        known = (same_beginning(prompt, row) for prompt, row in zip(prompts, ids, strict=True))
        answers = np.fromiter(known, np.int32, len(ids)) + np.int32(len(before))
    return _Encoded(batch.ids, tokens, sizes, answers)


def same_beginning(prompt: NDArray[np.uint32], row: NDArray[np.uint32]) -> int:
    """Tokens of a prompt that are tokens of the whole row too; one that reaches into the answer belongs to the answer.

    Example:
        >>> same_beginning(np.array([1, 2, 3], np.uint32), np.array([1, 2, 9, 4], np.uint32))
        2
    """
    number = min(len(prompt), len(row))
    other = np.flatnonzero(prompt[:number] != row[:number])
    return int(other[0]) if len(other) else number


def read_batches(path: Path) -> Iterator[_Batch]:
    """Rows of one file of an arm, a batch at a time.

    Raises:
        ConfigError: If its columns are a view without one text to train on.
        DataError: If it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet_batches(path)
        else:
            yield from _json_batches(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); export again") from None


def _parquet_batches(path: Path) -> Iterator[_Batch]:
    with pq.ParquetFile(path) as file:
        names = _text_columns(path, file.schema_arrow.names)
        known = [name for name in ID_SCHEMA.names if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, columns=[*known, *names], use_threads=False):
            yield from _cut(_batch(pa.Table.from_batches([batch]), names))


def _json_batches(path: Path) -> Iterator[_Batch]:
    with open_lines(path) as lines:
        while rows := [json.loads(line) for line in islice(lines, BATCH_ROWS)]:
            names = _text_columns(path, list(rows[0]))
            yield from _cut(_batch(pa.Table.from_pylist(rows), names))


def _text_columns(path: Path, names: Sequence[str]) -> list[str]:
    if WHOLE in names:
        return [WHOLE]
    if PROMPT in names and COMPLETION in names:
        return [PROMPT, COMPLETION]
    raise ConfigError(
        f"{path}: has no text to train on; export with --view text, or prompt_completion to learn answers only"
    )


def _batch(table: pa.Table, names: Sequence[str]) -> _Batch:
    missing = pa.nulls(table.num_rows, pa.string())
    ids = {name: table.column(name) if name in table.column_names else missing for name in ID_SCHEMA.names}
    first = table.column(names[0]).to_pylist()
    kept = pa.table(ids, schema=ID_SCHEMA)
    if len(names) == 1:
        return _Batch(kept, first, None)
    second = table.column(names[1]).to_pylist()
    return _Batch(kept, [a + b for a, b in zip(first, second, strict=True)], first)


def _cut(batch: _Batch) -> Iterator[_Batch]:
    """A batch in parts of about `BATCH_CHARS` characters, so that memory does not grow with the rows' length."""
    start, chars = 0, 0
    for stop, text in enumerate(batch.texts, start=1):
        chars += len(text)
        if chars >= BATCH_CHARS or stop == len(batch.texts):
            prompts = batch.prompts[start:stop] if batch.prompts is not None else None
            yield _Batch(batch.ids.slice(start, stop - start), batch.texts[start:stop], prompts)
            start, chars = stop, 0
