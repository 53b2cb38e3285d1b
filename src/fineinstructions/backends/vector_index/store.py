"""Index folders as a whole: build, open, add to, take from.

In: vectors, or a folder. Out: a folder, or the index in it. The kind follows the size: exact up to `exact_up_to`
vectors, list-major above. What is removed is only marked, so a removal costs nothing and row numbers never change.

Shapes: N vectors, D width, n added ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.building import (
    CODING_FILE,
    Settings,
    VectorSource,
    build_listed,
    memory_to_build,
    merge_blocks,
    remove_work,
    save_array,
    score_rule,
    spill,
    work_folder,
)
from fineinstructions.backends.vector_index.coding import Coding
from fineinstructions.backends.vector_index.exact import ExactIndex, write_exact
from fineinstructions.backends.vector_index.listed import ListedIndex
from fineinstructions.backends.vector_index.manifest import MANIFEST_FILE, Manifest, note, read_manifest, write_manifest
from fineinstructions.backends.vector_index.memory import require_memory
from fineinstructions.backends.vector_index.neighbours import VectorIndex, checked_vectors
from fineinstructions.backends.vector_index.online import write_online
from fineinstructions.backends.vector_index.products import Products
from fineinstructions.backends.vector_index.truth import measure

IndexKind = Literal["auto", "exact", "ivf"]

REMOVED_FILE = "removed-{number}.npy"
"""Row numbers that were removed, of a name that no earlier list had: the manifest says which one holds."""
_OWN_FILES = ("index-*.faiss", "online-*.faiss", "*-*.npy", "coding.npz")
DEFAULTS = Settings()


@dataclass(frozen=True)
class ArraySource:
    """Vectors in memory, or memory-mapped ``.npy`` files one after the other."""

    arrays: Sequence[NDArray[np.float32]]
    """Each of shape (any, D)."""

    @property
    def count(self) -> int:
        """Number of vectors (N)."""
        return sum(len(array) for array in self.arrays)

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return int(self.arrays[0].shape[1])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Vectors of some rows, shape (stop - start, D)."""
        pieces, first = [], 0
        for array in self.arrays:
            low, high = max(start - first, 0), min(stop - first, len(array))
            if low < high:
                pieces.append(np.asarray(array[low:high], dtype=np.float32))
            first += len(array)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def build_vectors(
    source: VectorSource,
    folder: Path,
    encoder_id: str,
    *,
    rows_digest: str = "",
    kind: IndexKind = "auto",
    exact_up_to: int = 100_000,
    settings: Settings = DEFAULTS,
    min_cosine: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> VectorIndex:
    """Build an index folder; what an earlier build that was stopped has done is used.

    Args:
        source: The vectors, of unit length or zero.
        folder: Where to; files of an earlier index in it are replaced.
        encoder_id: Encoder that made them.
        rows_digest: Digest of the table whose rows they stand for, if there is one.
        kind: ``exact`` compares with every vector, ``ivf`` with those in the nearest lists; ``auto`` is exact up to
            `exact_up_to` vectors.
        exact_up_to: See `kind`.
        settings: How an ``ivf`` index is built.
        min_cosine: Calibrated threshold of the encoder, to be stored.
        on_progress: Told the number of rows after every block.

    Returns:
        The index, opened.

    Raises:
        ConfigError: If the disk has no room for it, or memory is short.
        ValueError: If there is no vector, or one is neither of unit length nor zero.
    """
    if source.count < 1:
        raise ValueError("there must be at least one vector")
    folder.mkdir(parents=True, exist_ok=True)
    is_exact = _is_exact(kind, source.count, exact_up_to)
    if not is_exact:
        work_folder(folder, source, settings, encoder_id, rows_digest)  # says so if the disk is too small
    require_memory_to_build(folder, source.count, source.dimension, kind, exact_up_to, settings)
    forget_manifest(folder)
    if is_exact:
        vectors = checked_vectors(source.read(0, source.count))
        manifest = Manifest(
            kind="exact",
            encoder_id=encoder_id,
            rows_digest=rows_digest,
            dimension=source.dimension,
            count=source.count,
            files=write_exact(vectors, folder),
            min_cosine=min_cosine,
        )
        finish(folder, manifest)
        return open_vectors(folder, verify=False)
    manifest, truth = build_listed(source, folder, settings, encoder_id, rows_digest, on_progress)
    index = ListedIndex(folder, manifest, np.empty(0, np.int64))
    short = write_online(index, folder, settings.threads) if settings.online else {}
    changes = {"recall": measure(index, truth), "min_cosine": min_cosine}
    finish(folder, manifest.model_copy(update={**changes, "files": manifest.files | short, "online": bool(short)}))
    return open_vectors(folder, verify=False)


def _is_exact(kind: IndexKind, count: int, exact_up_to: int) -> bool:
    return kind == "exact" or (kind == "auto" and count <= exact_up_to)


def require_memory_to_build(
    folder: Path, count: int, dimension: int, kind: IndexKind, exact_up_to: int, settings: Settings
) -> None:
    """Refuse to build what does not fit in memory; see `build_vectors`.

    Raises:
        ConfigError: If memory is short.
    """
    if _is_exact(kind, count, exact_up_to):
        require_memory(3 * 4 * count * dimension, f"{folder}: an exact index", "build one of lists (index.kind: ivf)")
    else:
        needed = memory_to_build(count, dimension, settings)
        require_memory(needed, f"{folder}: building", "build on a larger machine, or with a smaller index.nlist")


def open_vectors(
    folder: Path,
    *,
    encoder_id: str | None = None,
    dimension: int | None = None,
    verify: bool = True,
    nprobe: int | None = None,
    products: Products = "auto",
) -> VectorIndex:
    """Open an index folder, memory-mapped.

    Args:
        folder: Where it was built.
        encoder_id: Encoder that will make the queries; ``None`` to take any.
        dimension: Width of its vectors; ``None`` to take any.
        verify: Compare the files' digests with the manifest; reads everything once.
        nprobe: Lists that a query of an ``ivf`` index looks into; ``None`` for what it was built with.
        products: How an ``ivf`` index multiplies (`int8_product`); changes speed, not results.

    Returns:
        The index.

    Raises:
        ConfigError: If there is no index, another encoder made it, or `products` cannot be had.
        DataError: If a file or the manifest is corrupt.
    """
    manifest = read_manifest(folder)
    manifest.require(folder, encoder_id, dimension)
    manifest.check_files(folder, digests=verify)
    removed = _removed(folder, manifest)
    if manifest.kind == "exact":
        return ExactIndex(folder, manifest, removed)
    return ListedIndex(folder, manifest, removed, nprobe, products)


def add_vectors(folder: Path, source: VectorSource, rows_digest: str = "", settings: Settings = DEFAULTS) -> None:
    """Add vectors behind those that are there, without building again.

    They go to the lists there are; an index that has doubled since it was built is better built again.

    Args:
        folder: An index folder.
        source: The new vectors; their rows follow the last one.
        rows_digest: Digest of the table with the new rows.
        settings: For `Settings.threads` and `Settings.part_bytes`; the rest stands in the index.

    Raises:
        ConfigError: If there is no index, or its vectors have another width.
    """
    manifest = read_manifest(folder)
    manifest.require(folder, None, source.dimension)
    if manifest.kind == "exact":
        there = open_vectors(folder).vectors(np.arange(manifest.count))
        added = checked_vectors(source.read(0, source.count))
        files = write_exact(np.concatenate([there, added]), folder)
        kept = {name: n for name, n in manifest.files.items() if not name.startswith("index-")}
        changes: dict[str, Any] = {"files": kept | files}
    else:
        segment = len(manifest.segments)
        settings = Settings(
            keeps_vectors=manifest.keeps_vectors, threads=settings.threads, part_bytes=settings.part_bytes
        )
        work = work_folder(folder, source, settings, manifest.encoder_id, f"{rows_digest} {segment}")
        coding = Coding.load(folder / CODING_FILE)
        num_blocks = spill(source, manifest.count, work, coding, settings, np.empty((0, source.dimension), np.float32))
        parts, names = merge_blocks(work, num_blocks, coding, folder, segment, settings)
        added_scores = score_rule(work, num_blocks)
        scores = manifest.scores if manifest.scores and manifest.scores.margin >= added_scores.margin else added_scores
        changes = {
            "files": manifest.files | {name: note(folder / name) for name in names},
            "segments": (*manifest.segments, tuple(parts)),
            "scores": scores,
        }
    changes |= {
        "count": manifest.count + source.count,
        "rows_digest": rows_digest,
        "num_additions": manifest.num_additions + 1,
    }
    finish(folder, manifest.model_copy(update=changes))


def remove_vectors(folder: Path, rows: NDArray[np.int64]) -> int:
    """Mark rows as removed: they are never found again, and keep their numbers.

    Args:
        folder: An index folder.
        rows: Row numbers.

    Returns:
        How many were not removed before.

    Raises:
        ConfigError: If there is no index.
        ValueError: If a row does not exist.
    """
    manifest = read_manifest(folder)
    rows = np.unique(np.asarray(rows, dtype=np.int64))
    if len(rows) and (rows[0] < 0 or rows[-1] >= manifest.count):
        raise ValueError(f"rows must lie between 0 and {manifest.count - 1}")
    before = _removed(folder, manifest)
    removed = np.union1d(before, rows)
    if len(removed) == len(before):
        return 0
    name = REMOVED_FILE.format(number=len(removed))
    save_array(folder / name, removed)
    files = {n: kept for n, kept in manifest.files.items() if n != REMOVED_FILE.format(number=len(before))}
    changes = {"num_removed": len(removed), "files": files | {name: note(folder / name)}}
    finish(folder, manifest.model_copy(update=changes))
    return len(removed) - len(before)


def forget_manifest(folder: Path) -> None:
    """Make a folder none that holds an index, before anything in it is replaced."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)


def finish(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with which the folder is an index, and then remove what is none of it."""
    write_manifest(folder, manifest)
    remove_work(folder)
    for pattern in _OWN_FILES:
        for path in folder.glob(pattern):
            if path.name not in manifest.files:
                path.unlink()


def _removed(folder: Path, manifest: Manifest) -> NDArray[np.int64]:
    if not manifest.num_removed:
        return np.empty(0, np.int64)
    removed: NDArray[np.int64] = np.load(folder / REMOVED_FILE.format(number=manifest.num_removed), allow_pickle=False)
    return removed


def set_min_cosine(folder: Path, min_cosine: float) -> None:
    """Store a calibrated threshold with an index.

    Raises:
        ConfigError: If there is no index.
    """
    write_manifest(folder, read_manifest(folder).model_copy(update={"min_cosine": min_cosine}))
