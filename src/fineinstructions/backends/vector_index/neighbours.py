"""What every vector index offers, and the last step of its search: exact cosines, the threshold, the order, the cut.

In: rows that may be near, with approximate scores. Out: `Neighbours`. The decision to question: scores that decide are
taken row by row in double precision and rounded to six decimals; the threshold and the order rest on those alone. So a
result does not depend on how many queries were asked together, on the kind of matrix product or on threads, and a
stored cosine says exactly whether it passes a threshold that is moved later.

Shapes: N indexed vectors, Q queries, D width, C candidates.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.manifest import Manifest

DECIMALS = 6
ROUNDING_MARGIN = 1e-5
"""More than the rounding error of a single-precision product of unit vectors."""
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What one query found."""

    ids: NDArray[np.int64]
    """Row numbers, shape (C,), highest cosine first, ties by row number."""
    cosines: NDArray[np.float64]
    """Cosines rounded to six decimals, shape (C,)."""
    num_above: int
    """How many rows lie at or above the threshold; an IVF index counts within the lists it probed."""


NOTHING = Neighbours(np.empty(0, np.int64), np.empty(0, np.float64), 0)

Lookup = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Vectors of some rows, shape (C,) to (C, D)."""


def exact_cosines(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise products in double precision, each by itself, rounded; shapes (C, D) and (C, D) or (1, D) to (C,)."""
    products = vectors.astype(np.float64) * queries.astype(np.float64)
    cosines: NDArray[np.float64] = np.round(products.sum(axis=1), DECIMALS)
    return cosines


def ranked(
    query: NDArray[np.float32],
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    lookup: Lookup,
    min_cosine: float,
    max_candidates: int,
    margin: float,
) -> Neighbours:
    """Exact cosines for what may be among the best or lies at the threshold; the rest is only counted.

    Args:
        query: Shape (D,).
        ids: Rows whose approximate score is at least ``min_cosine - margin``, shape (C,).
        scores: Their approximate scores, shape (C,).
        lookup: Gives the vectors of rows.
        min_cosine: Lowest cosine that counts.
        max_candidates: At most this many rows, the best ones.
        margin: Largest error of a score.

    Returns:
        The neighbours.
    """
    certain = scores > min_cosine + margin
    doubtful = ~certain
    if len(ids) > max_candidates:
        border = np.partition(scores, -max_candidates)[-max_candidates]
        doubtful |= scores >= border - 2 * margin
    else:
        doubtful[:] = True
    chosen = ids[doubtful]
    cosines = np.empty(len(chosen), np.float64)
    for start in range(0, len(chosen), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        cosines[part] = exact_cosines(lookup(chosen[part]), query[None, :])
    above = cosines >= min_cosine
    chosen, cosines = chosen[above], cosines[above]
    order = np.lexsort((chosen, -cosines))[:max_candidates]
    num_above = len(chosen) + int(np.count_nonzero(~doubtful))
    return Neighbours(chosen[order], cosines[order], num_above)


class VectorIndex(ABC):
    """Unit vectors that can be searched by cosine, each known by its row number.

    Attributes:
        folder: Where it lies.
        manifest: What made it.
        removed: Row numbers that are never found, ascending.
    """

    def __init__(self, folder: Path, manifest: Manifest, removed: NDArray[np.int64]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.removed = removed

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return self.manifest.dimension

    @property
    def kind(self) -> Literal["exact", "ivf"]:
        """``exact`` or ``ivf``."""
        return self.manifest.kind

    @property
    def encoder_id(self) -> str:
        """Encoder that made the vectors."""
        return self.manifest.encoder_id

    @abstractmethod
    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Indexed vectors by row number, shape (len(ids), D); decoded from codes where no float vectors are kept."""

    @abstractmethod
    def search(
        self,
        queries: NDArray[np.float32],
        min_cosine: float,
        max_candidates: int,
        allowed: NDArray[np.int64] | None = None,
        *,
        online: bool = False,
    ) -> list[Neighbours]:
        """Rows at or above a cosine threshold.

        Args:
            queries: Unit vectors, shape (Q, D).
            min_cosine: Lowest cosine that counts.
            max_candidates: At most this many rows per query, the best ones.
            allowed: Only these row numbers may be found; ``None`` for all.
            online: Answer few queries soon, rather than many cheaply, where the index was built for both: what it
                finds may then differ a little, and `Neighbours.num_above` counts among rows that were looked at.

        Returns:
            One result per query, in order.

        Raises:
            ValueError: If the queries have another width, `max_candidates` is below 1 or an allowed row does not exist.
        """

    @abstractmethod
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

    def _checked(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"queries must have shape (Q, {self.dimension}), not {queries.shape}")
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _checked_rows(self, allowed: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Rows that may be found, ascending, each once; ``None`` where nothing is restricted."""
        if allowed is None:
            return None
        rows = np.unique(np.asarray(allowed, dtype=np.int64))
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(self)):
            raise ValueError(f"allowed rows must lie between 0 and {len(self) - 1}")
        return np.setdiff1d(rows, self.removed, assume_unique=True) if len(self.removed) else rows

    def _search_rows(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64], min_cosine: float, max_candidates: int
    ) -> list[Neighbours]:
        """Search among some rows by a plain product over just those: simplest, and exact."""
        found: list[list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = [[] for _ in queries]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            for place, scores in enumerate(queries @ self.vectors(part).T):
                (near,) = np.nonzero(scores > min_cosine - ROUNDING_MARGIN)
                found[place].append((part[near], scores[near]))
        return [
            ranked(
                query,
                np.concatenate([ids for ids, _ in parts]),
                np.concatenate([scores for _, scores in parts]),
                self.vectors,
                min_cosine,
                max_candidates,
                ROUNDING_MARGIN,
            )
            if parts
            else NOTHING
            for query, parts in zip(queries, found, strict=True)
        ]

    def _best_row(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The nearest of some rows, by a plain product."""
        if len(rows) == 0:
            raise ValueError("no row is allowed, so none is nearest")
        ids = np.full(len(queries), rows[0])
        scores = np.full(len(queries), -np.inf, np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            products = queries @ self.vectors(part).T
            places = np.argmax(products, axis=1)
            nearest = products[np.arange(len(queries)), places]
            ids = np.where(nearest > scores, part[places], ids)
            scores = np.maximum(scores, nearest)
        return ids, exact_cosines(self.vectors(ids), queries)


def merged_shards(shards: Sequence[Sequence[Neighbours]], max_candidates: int) -> list[Neighbours]:
    """What several searches of the same queries found in different lists, as one.

    Args:
        shards: One result per query from every shard.
        max_candidates: At most this many rows per query, the best ones; no shard was asked for fewer.

    Returns:
        One result per query: what one search of all lists would have found.
    """
    found = []
    for pieces in zip(*shards, strict=True):
        ids = np.concatenate([piece.ids for piece in pieces])
        cosines = np.concatenate([piece.cosines for piece in pieces])
        order = np.lexsort((ids, -cosines))[:max_candidates]
        found.append(Neighbours(ids[order], cosines[order], sum(piece.num_above for piece in pieces)))
    return found


def checked_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors as contiguous single precision, checked.

    Raises:
        ValueError: If there is none, or one is neither of unit length nor zero.
    """
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"vectors must have shape (N, D) with N and D above 0, not {vectors.shape}")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.all((np.abs(norms - 1.0) < 1e-3) | (norms == 0.0)):
        raise ValueError("vectors must have unit length or be zero")
    return vectors
