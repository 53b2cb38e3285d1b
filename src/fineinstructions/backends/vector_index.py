"""Nearest neighbours above a cosine threshold: exact or IVF through FAISS, saved once and opened memory-mapped.

In: unit vectors, one per row. Out: for every query the row numbers and cosines at or above a threshold, best first, and
how many there were before `max_candidates` cut them.

The decision to question: FAISS only proposes. What it returns near a border is scored again in double precision, one
row at a time, and rounded to six decimals; the threshold and the order rest on those scores alone. So a result does not
depend on how many queries were asked together, on the kind of matrix product or on threads, and a stored cosine says
exactly whether it passes a threshold that is moved later.

Files: ``index.faiss`` and ``manifest.json``. Workers that open the same folder share its pages.

Shapes: N indexed vectors, Q queries, D width, C candidates.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError, DataError

IndexKind = Literal["auto", "exact", "ivf"]

_INDEX_FILE = "index.faiss"
_MANIFEST_FILE = "manifest.json"
_FORMAT = 1
_DECIMALS = 6
_MARGIN = 1e-5
"""More than the rounding error of a single-precision product of unit vectors."""
_QUERIES_AT_ONCE = 64
_MAX_GATHERED = 50_000
"""Up to this many allowed rows a plain product over just those rows is both simplest and exact."""
_MIN_VECTORS_PER_LIST = 39
"""What FAISS wants for training each centroid."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What one query found."""

    ids: NDArray[np.int64]
    """Row numbers, shape (C,), highest cosine first, ties by row number."""
    cosines: NDArray[np.float64]
    """Cosines rounded to six decimals, shape (C,), all at or above the threshold."""
    num_above: int
    """How many rows lie at or above the threshold; IVF counts within the lists it probed."""


class _Manifest(Config):
    """Contents of ``manifest.json``."""

    format: int
    encoder_id: str
    rows_digest: str
    dimension: int
    count: int
    kind: Literal["exact", "ivf"]
    nlist: int
    nprobe: int
    metric: Literal["inner_product"]
    bytes: int
    digest: str


class VectorIndex:
    """Unit vectors that can be searched by cosine; make one with `build` or `open`.

    Attributes:
        encoder_id: Encoder that made the vectors.
        rows_digest: Digest of the table whose rows the vectors stand for, so that the two are never mixed up.
        kind: ``exact`` or ``ivf``.
    """

    def __init__(self, index: Any, encoder_id: str, rows_digest: str = "") -> None:
        self.encoder_id = encoder_id
        self.rows_digest = rows_digest
        self.kind: Literal["exact", "ivf"] = "ivf" if hasattr(index, "nlist") else "exact"
        self._index = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return int(self._index.d)

    @classmethod
    def build(
        cls,
        vectors: NDArray[np.float32],
        encoder_id: str,
        *,
        rows_digest: str = "",
        kind: IndexKind = "auto",
        exact_up_to: int = 100_000,
        nlist: int | None = None,
        nprobe: int = 64,
    ) -> "VectorIndex":
        """Index vectors in memory.

        Args:
            vectors: Unit vectors (a row of zeros is let through and is near to nothing), shape (N, D).
            encoder_id: Encoder that made them.
            rows_digest: Digest of the table whose rows they stand for, if there is one.
            kind: ``exact`` compares with every vector, ``ivf`` only with those in the `nprobe` nearest of `nlist`
                lists; ``auto`` is exact up to `exact_up_to` vectors.
            exact_up_to: See `kind`.
            nlist: Number of lists; ``None`` for four times the square root of N.
            nprobe: Number of lists that a query looks into.

        Returns:
            The index, its row numbers being the rows of `vectors`.

        Raises:
            ValueError: If there is no vector, or one is neither of unit length nor zero.
        """
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise ValueError(f"vectors must have shape (N, D) with N and D above 0, not {vectors.shape}")
        norms = np.linalg.norm(vectors, axis=1)
        if not np.all((np.abs(norms - 1.0) < 1e-3) | (norms == 0.0)):
            raise ValueError("vectors must have unit length or be zero")
        count = len(vectors)
        if kind == "exact" or (kind == "auto" and count <= exact_up_to):
            index = _faiss().IndexFlatIP(vectors.shape[1])
        else:
            index = _trained_ivf(vectors, nlist or round(4 * math.sqrt(count)), nprobe)
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index, encoder_id, rows_digest)

    def save(self, folder: Path) -> None:
        """Write the index and its manifest; files that are there are replaced, each in one step.

        Raises:
            OSError: If the disk is full or does not take it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / _INDEX_FILE
        temporary = folder / f".{_INDEX_FILE}.tmp"
        try:
            _faiss().write_index(self._index, str(temporary))
        except RuntimeError as error:  # faiss says so whatever the system's reason was
            is_full = shutil.disk_usage(folder).free < self._index.ntotal * self.dimension * 4
            raise OSError(errno.ENOSPC if is_full else errno.EIO, f"the index cannot be written: {error}") from None
        manifest = _Manifest(
            format=_FORMAT,
            encoder_id=self.encoder_id,
            rows_digest=self.rows_digest,
            dimension=self.dimension,
            count=len(self),
            kind=self.kind,
            nlist=getattr(self._index, "nlist", 0),
            nprobe=getattr(self._index, "nprobe", 0),
            metric="inner_product",
            bytes=temporary.stat().st_size,
            digest=file_digest(temporary),
        )
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        text = json.dumps(manifest.model_dump(), indent=2, sort_keys=True, ensure_ascii=False)
        temporary = folder / f".{_MANIFEST_FILE}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(folder / _MANIFEST_FILE)

    @classmethod
    def open(
        cls, folder: Path, *, encoder_id: str | None = None, dimension: int | None = None, verify: bool = True
    ) -> "VectorIndex":
        """Open a saved index, memory-mapped.

        Args:
            folder: Where `save` wrote it.
            encoder_id: Encoder that will make the queries; ``None`` to take any.
            dimension: Width of its vectors; ``None`` to take any.
            verify: Compare the file's digest with the manifest; reads the whole file once.

        Returns:
            The index.

        Raises:
            ConfigError: If there is no index, or another encoder made it.
            DataError: If the file or its manifest is corrupt.
        """
        manifest = _read_manifest(folder)
        if encoder_id is not None and manifest.encoder_id != encoder_id:
            raise ConfigError(
                f"{folder}: the index was built with encoder {manifest.encoder_id!r}, this run uses {encoder_id!r}; "
                "build it again or name that encoder"
            )
        if dimension is not None and manifest.dimension != dimension:
            raise ConfigError(
                f"{folder}: the index holds vectors of width {manifest.dimension}, the encoder makes {dimension}; "
                "build it again"
            )
        path = folder / _INDEX_FILE
        if (
            not path.is_file()
            or path.stat().st_size != manifest.bytes
            or (verify and file_digest(path) != manifest.digest)
        ):
            raise DataError(f"{path}: missing, cut short or changed since it was written; build the index again")
        faiss = _faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise DataError(f"{path}: FAISS cannot read it: {str(error).splitlines()[0]}") from None
        if (index.ntotal, index.d) != (manifest.count, manifest.dimension):
            raise DataError(f"{path}: holds {index.ntotal} vectors of width {index.d}, its manifest says otherwise")
        return cls(index, manifest.encoder_id, manifest.rows_digest)

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
    ) -> list[Neighbours]:
        """Rows at or above a cosine threshold.

        Args:
            queries: Unit vectors, shape (Q, D).
            min_cosine: Lowest cosine that counts.
            max_candidates: At most this many rows per query, the best ones.
            allowed: Only these row numbers may be found; ``None`` for all.

        Returns:
            One result per query, in order.

        Raises:
            ValueError: If the queries have another width, `max_candidates` is below 1 or an allowed row does not exist.
        """
        if max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, not {max_candidates}")
        queries = self._checked(queries)
        proposals = self._proposals(queries, min_cosine - _MARGIN, self._checked_rows(allowed))
        return [
            self._ranked(query, ids, scores, min_cosine, max_candidates)
            for query, (ids, scores) in zip(queries, proposals, strict=True)
        ]

    def best(
        self, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The nearest row of every query, whatever its cosine.

        Args:
            queries: Unit vectors, shape (Q, D).
            allowed: Only these row numbers may be found, at least one; ``None`` for all.

        Returns:
            Row numbers and cosines, both of shape (Q,).

        Raises:
            ValueError: As `search`, or if no row is allowed.
        """
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None and len(rows) == 0:
            raise ValueError("no row is allowed, so none is nearest")
        if rows is not None and len(rows) <= _MAX_GATHERED:
            ids = rows[np.argmax(queries @ self.vectors(rows).T, axis=1)]
        else:
            ids = self._index.search(queries, 1, params=self._parameters(rows))[1][:, 0]
        return ids, _exact_cosines(self.vectors(ids), queries)

    def _checked(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"queries must have shape (Q, {self.dimension}), not {queries.shape}")
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _checked_rows(self, allowed: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        if allowed is None:
            return None
        rows = np.unique(np.asarray(allowed, dtype=np.int64))
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(self)):
            raise ValueError(f"allowed rows must lie between 0 and {len(self) - 1}")
        return rows

    def _proposals(
        self, queries: NDArray[np.float32], above: float, rows: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Row numbers and approximate scores above a score, query by query, in no particular order."""
        gathered = None if rows is None or len(rows) > _MAX_GATHERED else self.vectors(rows)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            tile = queries[start : start + _QUERIES_AT_ONCE]
            if rows is not None and gathered is not None:
                for scores_n in tile @ gathered.T:
                    (found,) = np.nonzero(scores_n > above)
                    yield rows[found], scores_n[found]
            else:
                limits, scores, ids = self._index.range_search(tile, above, params=self._parameters(rows))
                for first, last in zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True):
                    yield ids[first:last], scores[first:last]

    def _parameters(self, rows: NDArray[np.int64] | None) -> Any:
        """Search parameters that restrict FAISS to some rows; ``None`` for no restriction."""
        if rows is None:
            return None
        faiss = _faiss()
        selector = faiss.IDSelectorBatch(rows)
        if self.kind == "ivf":
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
        return faiss.SearchParameters(sel=selector)

    def _ranked(
        self,
        query: NDArray[np.float32],
        ids: NDArray[np.int64],
        scores: NDArray[np.float32],
        min_cosine: float,
        max_candidates: int,
    ) -> Neighbours:
        """Exact cosines for what may be among the best or lies at the threshold; the rest is only counted."""
        certain = scores > min_cosine + _MARGIN
        doubtful = ~certain
        if len(ids) > max_candidates:
            border = np.partition(scores, -max_candidates)[-max_candidates]
            doubtful |= scores >= border - 2 * _MARGIN
        else:
            doubtful[:] = True
        chosen = ids[doubtful]
        cosines = _exact_cosines(self.vectors(chosen), query[None, :])
        above = cosines >= min_cosine
        chosen, cosines = chosen[above], cosines[above]
        order = np.lexsort((chosen, -cosines))[:max_candidates]
        num_above = len(chosen) + int(np.count_nonzero(~doubtful))
        return Neighbours(chosen[order], cosines[order], num_above)


def _exact_cosines(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise products in double precision, each by itself, rounded; shapes (C, D) and (C, D) or (1, D) to (C,)."""
    products = vectors.astype(np.float64) * queries.astype(np.float64)
    cosines: NDArray[np.float64] = np.round(products.sum(axis=1), _DECIMALS)
    return cosines


def _faiss() -> Any:
    """FAISS, held to one thread: the machine is already filled by worker processes, and one thread is repeatable."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss


def _trained_ivf(vectors: NDArray[np.float32], nlist: int, nprobe: int) -> Any:
    """Empty IVF index with spherical k-means centroids, the same for the same vectors."""
    faiss = _faiss()
    nlist = max(1, min(nlist, len(vectors) // _MIN_VECTORS_PER_LIST))
    dimension = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, nlist, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed = 1
    index.train(np.ascontiguousarray(vectors, dtype=np.float32))
    index.set_direct_map_type(faiss.DirectMap.Array)  # finds a row's vector by its number
    index.nprobe = min(nprobe, nlist)
    return index


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST_FILE
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder}: there is no index here; build one first") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise DataError(f"{path}: not a valid manifest ({error.error_count()} errors); build the index again") from None
    if manifest.format != _FORMAT:
        raise ConfigError(f"{path}: written in format {manifest.format}, this version reads {_FORMAT}; build it again")
    return manifest
