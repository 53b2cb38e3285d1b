"""Exact search through FAISS, for banks of up to about a hundred thousand templates.

In: unit vectors. Out: a FAISS file in the index folder, opened memory-mapped, so that workers share its pages. FAISS
only proposes; what it returns near a border is scored again (see `neighbours`).

Shapes: N indexed vectors, Q queries, D width.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.manifest import FileNote, Manifest, note
from fineinstructions.backends.vector_index.neighbours import (
    ROUNDING_MARGIN,
    Neighbours,
    VectorIndex,
    exact_cosines,
    ranked,
)
from fineinstructions.errors import DataError
from fineinstructions.runs.durable import sync_file

INDEX_FILE = "index-{count}.faiss"
"""Of another name for every number of vectors, so that an addition replaces nothing before the manifest does."""
_QUERIES_AT_ONCE = 64
_MAX_GATHERED = 50_000
"""Up to this many allowed rows a plain product over just those rows is both simplest and fastest."""


class ExactIndex(VectorIndex):
    """Compares every query with every vector."""

    def __init__(self, folder: Path, manifest: Manifest, removed: NDArray[np.int64]) -> None:
        super().__init__(folder, manifest, removed)
        path = folder / INDEX_FILE.format(count=manifest.count)
        faiss = load_faiss()
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise DataError(f"{path}: FAISS cannot read it: {str(error).splitlines()[0]}") from None
        if (self._index.ntotal, self._index.d) != (manifest.count, manifest.dimension):
            found = f"{self._index.ntotal} vectors of width {self._index.d}"
            raise DataError(f"{path}: holds {found}, its manifest says otherwise; build the index again")
        self._gone = faiss.IDSelectorBatch(removed)  # FAISS keeps no reference of its own

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Indexed vectors by row number, shape (len(ids), D)."""
        rows: NDArray[np.float32] = self._index.reconstruct_batch(np.ascontiguousarray(ids, dtype=np.int64))
        return rows

    def search(
        self,
        queries: NDArray[np.float32],
        min_cosine: float,
        max_candidates: int,
        allowed: NDArray[np.int64] | None = None,
        *,
        online: bool = False,  # noqa: ARG002 -- a search of all vectors serves both
    ) -> list[Neighbours]:
        """See `VectorIndex.search`."""
        if max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, not {max_candidates}")
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None and len(rows) <= _MAX_GATHERED:
            return self._search_rows(queries, rows, min_cosine, max_candidates)
        return [
            ranked(query, ids, scores, self.vectors, min_cosine, max_candidates, ROUNDING_MARGIN)
            for query, (ids, scores) in zip(queries, self._proposals(queries, min_cosine, rows), strict=True)
        ]

    def best(
        self, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `VectorIndex.best`."""
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None and len(rows) <= _MAX_GATHERED:
            return self._best_row(queries, rows)
        ids = self._index.search(queries, 1, params=self._parameters(rows))[1][:, 0]
        if len(ids) and ids.min() < 0:
            raise ValueError("no row is allowed, so none is nearest")
        return ids, exact_cosines(self.vectors(ids), queries)

    def _proposals(
        self, queries: NDArray[np.float32], min_cosine: float, rows: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Row numbers and approximate scores, query by query, in no particular order."""
        above = min_cosine - ROUNDING_MARGIN
        parameters = self._parameters(rows)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            tile = queries[start : start + _QUERIES_AT_ONCE]
            limits, scores, ids = self._index.range_search(tile, above, params=parameters)
            for first, last in zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True):
                yield ids[first:last], scores[first:last]

    def _parameters(self, rows: NDArray[np.int64] | None) -> Any:
        """Search parameters that restrict FAISS to some rows; ``None`` for no restriction."""
        faiss = load_faiss()
        if rows is not None:
            return faiss.SearchParameters(sel=faiss.IDSelectorBatch(rows))
        if len(self.removed):
            return faiss.SearchParameters(sel=faiss.IDSelectorNot(self._gone))
        return None


def write_exact(vectors: NDArray[np.float32], folder: Path) -> dict[str, FileNote]:
    """Write the vectors as a FAISS file; the one that is there is replaced in one step.

    Args:
        vectors: Unit vectors or zeros, shape (N, D).
        folder: Index folder; it exists.

    Returns:
        The file's note for the manifest.

    Raises:
        OSError: If the disk is full or does not take it.
    """
    faiss = load_faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    target = folder / INDEX_FILE.format(count=len(vectors))
    temporary = folder / f"tmp-{os.getpid()}-{target.name}"
    try:
        faiss.write_index(index, str(temporary))
    except RuntimeError as error:  # faiss says so whatever the system's reason was
        is_full = shutil.disk_usage(folder).free < vectors.nbytes
        raise OSError(errno.ENOSPC if is_full else errno.EIO, f"the index cannot be written: {error}") from None
    sync_file(temporary)
    temporary.replace(target)
    return {target.name: note(target)}


def load_faiss() -> Any:
    """FAISS, held to one thread: the machine is already filled by worker processes, and one thread is repeatable."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
