"""Builds a list-major index from vectors that need not fit in memory, and goes on where an earlier build stopped.

In: vectors by row range (`VectorSource`). Out: a folder as `listed` opens it. Three passes:

1. train: a sample gives the `Coding`;
2. spill: blocks of rows become records, sorted by list, one file a block, with what an exact search would find in them
   for a few sample queries;
3. merge: ranges of lists are gathered from all blocks, one part file a range.

Every file is put in place in one step, so a build that was killed repeats at most one block. Memory is bounded by a few
times the sample, a block or a part, whichever is largest.

Shapes: N vectors, D width, L lists, Q sample queries, n rows of a block.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.coding import (
    MIN_VECTORS_PER_LIST,
    Coding,
    record_type,
    records_of,
    train,
)
from fineinstructions.backends.vector_index.manifest import Manifest, ScoreRule, note
from fineinstructions.backends.vector_index.neighbours import checked_vectors
from fineinstructions.backends.vector_index.truth import Truth, merged, nearest
from fineinstructions.config import digest
from fineinstructions.errors import ConfigError
from fineinstructions.runs.durable import sync_file, write_text

CODING_FILE = "coding.npz"
OFFSETS_FILE = "offsets-{segment:03d}.npy"
ROWS_FILE = "rows-{segment:03d}.npy"
PART_FILE = "part-{segment:03d}-{part:05d}.npy"
VECTORS_FILE = "vectors-{segment:03d}-{part:05d}.npy"
WORK_DIR = ".building"
BLOCK_ROWS = 65_536
PART_BYTES = 512 << 20
CODE_MARGIN = 0.003
"""Code scores of 1,024-dimensional sentence vectors lie within this of the cosine; a larger error that is measured at
build time takes its place."""
_LATE = ("nprobe", "min_cosine", "online", "threads", "part_bytes")
"""Settings that no coding and no block depends on."""
_MAX_SAMPLE = 262_144
_SAMPLE_RUNS = 1024
_MEASURED_ROWS = 64


class VectorSource(Protocol):
    """Vectors that can be read by row range, any number of times, always the same."""

    @property
    def count(self) -> int:
        """Number of vectors (N)."""
        ...

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Unit vectors of some rows, shape (stop - start, D)."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to build."""

    nlist: int | None = None
    """Number of lists; ``None`` for four times the square root of N, at most 16,384."""
    nprobe: int = 64
    head_dims: int = 384
    list_dims: int = 256
    keeps_vectors: bool = True
    """Whether float vectors are kept beside the codes, for exact scores."""
    online: bool = False
    """Whether short codes are made too, for searches of few queries."""
    min_cosine: float = 0.865
    """Threshold at which recall is measured."""
    threads: int = 1
    part_bytes: int = PART_BYTES

    def lists_for(self, count: int) -> int:
        """Number of lists to train."""
        wanted = self.nlist or min(round(4 * math.sqrt(count)), 16_384)
        return max(1, min(wanted, count // MIN_VECTORS_PER_LIST))


def build_listed(
    source: VectorSource,
    folder: Path,
    settings: Settings,
    encoder_id: str,
    rows_digest: str = "",
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Manifest, Truth]:
    """Build a list-major index, or finish a build that was stopped.

    Args:
        source: The vectors; row numbers are theirs.
        folder: Index folder; it exists.
        settings: How.
        encoder_id: Encoder that made the vectors.
        rows_digest: Digest of the table whose rows they stand for.
        on_progress: Told the number of rows after every block.

    Returns:
        The manifest, not written yet and without recall, and what an exact search finds for the sample queries.

    Raises:
        ConfigError: If the disk has no room for it.
        ValueError: If a vector is neither of unit length nor zero.
    """
    work = work_folder(folder, source, settings, encoder_id, rows_digest)
    coding, sample = _trained(source, work, settings)
    num_blocks = spill(source, 0, work, coding, settings, sample, on_progress)
    shutil.copyfile(work / CODING_FILE, folder / CODING_FILE)
    sync_file(folder / CODING_FILE)
    parts, files = merge_blocks(work, num_blocks, coding, folder, 0, settings)
    manifest = Manifest(
        kind="ivf",
        encoder_id=encoder_id,
        rows_digest=rows_digest,
        dimension=source.dimension,
        count=source.count,
        files={name: note(folder / name) for name in [CODING_FILE, *files]},
        nlist=coding.nlist,
        nprobe=min(settings.nprobe, coding.nlist),
        head_dims=coding.head_dims,
        keeps_vectors=settings.keeps_vectors,
        segments=(tuple(parts),),
        scores=score_rule(work, num_blocks),
    )
    return manifest, _truth(work, num_blocks, sample, settings.min_cosine)


def _truth(work: Path, num_blocks: int, queries: NDArray[np.float32], min_cosine: float) -> Truth:
    found = []
    for block in range(num_blocks):
        with np.load(_block_done(work, block), allow_pickle=False) as arrays:
            found.append((arrays["near_rows"], arrays["near_cosines"]))
    return merged(queries, found, min_cosine)


def remove_work(folder: Path) -> None:
    """Remove what a build needed on the way."""
    shutil.rmtree(folder / WORK_DIR, ignore_errors=True)


def work_folder(folder: Path, source: VectorSource, settings: Settings, encoder_id: str, rows_digest: str) -> Path:
    """Folder of the build, emptied if an earlier build there was another one; with room on its disk."""
    work = folder / WORK_DIR
    decides = {k: v for k, v in asdict(settings).items() if k not in _LATE}
    key = json.dumps({"key": digest(decides, encoder_id, rows_digest, source.count, source.dimension)})
    if not (work / "key.json").is_file() or (work / "key.json").read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_text(work / "key.json", key)
    per_vector = record_type(source.dimension).itemsize + (4 * source.dimension if settings.keeps_vectors else 0)
    needed = 2 * source.count * per_vector  # every record stands in a block and in a part for a while
    there = sum(path.stat().st_size for path in work.iterdir())
    free = shutil.disk_usage(folder).free
    if free < needed - there:
        raise ConfigError(
            f"{folder}: building needs about {(needed - there) >> 20:,} MiB of disk, {free >> 20:,} MiB are free; "
            "make room, or keep no float vectors (index.keep_vectors: false)"
        )
    return work


def _trained(source: VectorSource, work: Path, settings: Settings) -> tuple[Coding, NDArray[np.float32]]:
    """The coding, and sample vectors to measure with; made once per build."""
    measuring = work / "measuring.npy"
    if not (work / CODING_FILE).is_file() or not measuring.is_file():
        nlist = settings.lists_for(source.count)
        sample = _sample(source, _sample_size(source.count, source.dimension, nlist))
        train(sample, nlist, settings.head_dims, settings.list_dims, settings.threads).save(work / CODING_FILE)
        chosen = np.random.default_rng(0).permutation(len(sample))[: _num_queries(source)]
        save_array(measuring, sample[np.sort(chosen)])
    return Coding.load(work / CODING_FILE), np.load(measuring, allow_pickle=False)


def _sample_size(count: int, dimension: int, nlist: int) -> int:
    return min(count, max(16 * dimension, MIN_VECTORS_PER_LIST * nlist, 20_000), _MAX_SAMPLE)


def memory_to_build(count: int, dimension: int, settings: Settings) -> int:
    """Bytes that the hungriest pass of a build holds.

    That is the sample three times, or a block with coordinates and records, or a part twice, or the short codes; and
    the row numbers.
    """
    width = 4 * dimension
    sample = 3 * _sample_size(count, dimension, settings.lists_for(count)) * width
    block = 4 * min(count, BLOCK_ROWS) * width
    part = 2 * min(settings.part_bytes, count * (width + dimension))
    codes = 2 * count * (dimension // 8 + 8) + 4 * BLOCK_ROWS * width  # twice while they are packed for the fast scan
    short = codes if settings.online else 0
    return max(sample, block, part, short) + 16 * count


def _sample(source: VectorSource, size: int) -> NDArray[np.float32]:
    """Vectors from all over the rows, in runs, so that a file is not read row by row; at most `size`."""
    runs = min(_SAMPLE_RUNS, size)
    length = size // runs
    sample = np.empty((runs * length, source.dimension), np.float32)  # copied: a source may hand out views of blocks
    for run, start in enumerate(np.linspace(0, source.count - length, runs).astype(int).tolist()):
        sample[run * length : (run + 1) * length] = checked_vectors(source.read(start, start + length))
    return sample


def _num_queries(source: VectorSource) -> int:
    """Sample queries whose exact search costs no more than a few seconds to a minute."""
    return int(np.clip(3e12 / (2.0 * source.dimension * source.count), 50, 1000))


def spill(
    source: VectorSource,
    first_row: int,
    work: Path,
    coding: Coding,
    settings: Settings,
    queries: NDArray[np.float32],
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write the records of all blocks that are not there yet; the source's rows are numbered from `first_row` on.

    Returns:
        Number of blocks.
    """
    num_blocks = math.ceil(source.count / BLOCK_ROWS)
    for block in range(num_blocks):
        start, stop = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, source.count)
        if not _block_done(work, block).is_file():
            vectors = checked_vectors(source.read(start, stop))
            _spill_block(vectors, first_row + start, block, work, coding, settings, queries)
        if on_progress:
            on_progress(stop - start)
    return num_blocks


def _spill_block(
    vectors: NDArray[np.float32],
    first_row: int,
    block: int,
    work: Path,
    coding: Coding,
    settings: Settings,
    queries: NDArray[np.float32],
) -> None:
    """One block's records, sorted by list, and what an exact search finds in it for the sample queries."""
    along, coordinates = coding.coordinates(vectors)
    lists = coding.nearest_list(along, coordinates)
    order = np.argsort(lists, kind="stable")
    records = records_of(along, coordinates, coding)
    save_array(_block_records(work, block), records[order])
    if settings.keeps_vectors:
        save_array(_block_vectors(work, block), vectors[order])
    near_rows, near_cosines = nearest(queries, vectors, first_row)
    done = _block_done(work, block)
    with (temporary := done.with_name(f"tmp-{done.name}")).open("wb") as file:
        np.savez(
            file,
            rows=order + first_row,
            counts=np.bincount(lists, minlength=coding.nlist),
            near_rows=near_rows,
            near_cosines=near_cosines,
            errors=_code_errors(vectors, records, coding),
        )
    sync_file(temporary)
    temporary.replace(done)


def merge_blocks(
    work: Path, num_blocks: int, coding: Coding, folder: Path, segment: int, settings: Settings
) -> tuple[list[str], list[str]]:
    """Gather the blocks' records by list into part files of about `part_bytes`, each a range of lists.

    Returns:
        Names of the part files, and of all files that were written.
    """
    rows_b, counts_b = [], []
    for block in range(num_blocks):
        with np.load(_block_done(work, block), allow_pickle=False) as arrays:
            rows_b.append(arrays["rows"])
            counts_b.append(arrays["counts"])
    counts_bl = np.stack(counts_b)
    starts_bl = np.concatenate([np.zeros((num_blocks, 1), np.int64), np.cumsum(counts_bl, axis=1)], axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts_bl.sum(axis=0))])
    rows = np.empty(int(offsets[-1]), np.int64)
    kinds = [(PART_FILE, _block_records)] + ([(VECTORS_FILE, _block_vectors)] if settings.keeps_vectors else [])
    parts, files = [], [OFFSETS_FILE.format(segment=segment), ROWS_FILE.format(segment=segment)]
    for part, (low, high) in enumerate(_list_ranges(offsets, coding, settings)):
        bounds = [(int(starts[low]), int(starts[high])) for starts in starts_bl]
        lists = np.concatenate([np.repeat(np.arange(low, high), counts[low:high]) for counts in counts_bl])
        order = np.argsort(lists, kind="stable")  # blocks come in row order, so rows ascend within a list
        pieces = [block_rows[first:last] for block_rows, (first, last) in zip(rows_b, bounds, strict=True)]
        rows[offsets[low] : offsets[high]] = np.concatenate(pieces)[order]
        for pattern, block_file in kinds:
            name = pattern.format(segment=segment, part=part)
            pieces = [
                np.load(block_file(work, block), mmap_mode="r", allow_pickle=False)[first:last]
                for block, (first, last) in enumerate(bounds)
            ]
            save_array(folder / name, np.concatenate(pieces)[order])
            files.append(name)
        parts.append(PART_FILE.format(segment=segment, part=part))
    save_array(folder / OFFSETS_FILE.format(segment=segment), offsets)
    save_array(folder / ROWS_FILE.format(segment=segment), rows)
    return parts, files


def _list_ranges(offsets: NDArray[np.int64], coding: Coding, settings: Settings) -> Iterator[tuple[int, int]]:
    """Ranges of lists that come to about `part_bytes`, float vectors included; each has one list at least."""
    per_row = record_type(coding.dimension).itemsize + (4 * coding.dimension if settings.keeps_vectors else 0)
    rows = max(1, settings.part_bytes // per_row)
    low = 0
    while low < coding.nlist:
        high = int(np.searchsorted(offsets, offsets[low] + rows, side="right")) - 1
        high = min(max(high, low + 1), coding.nlist)
        yield low, high
        low = high


def _code_errors(vectors: NDArray[np.float32], records: NDArray[Any], coding: Coding) -> NDArray[np.float32]:
    """Code score less cosine, for some vectors of a block with each other."""
    some = np.linspace(0, len(vectors) - 1, min(_MEASURED_ROWS, len(vectors))).astype(int)
    errors: NDArray[np.float32] = vectors[some] @ (coding.decoded(records[some]) - vectors[some]).T
    return errors.ravel()


def score_rule(work: Path, num_blocks: int) -> ScoreRule:
    """How far code scores lie from cosines, measured in every block."""
    errors = []
    for block in range(num_blocks):
        with np.load(_block_done(work, block), allow_pickle=False) as arrays:
            errors.append(arrays["errors"])
    largest = max(float(np.abs(e).max()) for e in errors)
    margin = max(CODE_MARGIN, math.ceil(1000 * largest) / 1000)
    return ScoreRule(margin=margin, error_sd=float(np.concatenate(errors).std()), error_max=largest)


def vectors_file(part_file: str) -> str:
    """Name of the file with the float vectors of a part."""
    return part_file.replace("part-", "vectors-")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file in one step."""
    temporary = path.with_name(f"tmp-{path.name}")
    np.save(temporary, array, allow_pickle=False)
    sync_file(temporary)
    temporary.replace(path)


def _block_records(work: Path, block: int) -> Path:
    return work / f"block-{block:05d}.npy"


def _block_vectors(work: Path, block: int) -> Path:
    return work / f"block-{block:05d}-vectors.npy"


def _block_done(work: Path, block: int) -> Path:
    return work / f"block-{block:05d}-done.npz"
