"""What an exact search would find, taken along while an index is built, and the recall that follows from it.

In: sample queries and, block by block, all vectors. Out: `Truth`; then `Recall` of an index against it. The queries are
indexed vectors, so that a bank needs no document to measure its index; each query's own row is left out.

Shapes: Q queries, D width, n rows of a block.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.manifest import Recall
from fineinstructions.backends.vector_index.neighbours import VectorIndex

KEPT = 51
"""Nearest rows kept per query: fifty and the query's own."""
_AT = 10
_GROUPS = 16
"""Queries whose tenth neighbour is about as near are searched together, each group down to its own threshold."""
_QUERIES_AT_ONCE = 64
_SAME = 0.999_99
"""Cosine from which on a row counts as the query itself or a copy of it, of which nothing can be learned."""


@dataclass(frozen=True)
class Truth:
    """Exact nearest rows of the sample queries."""

    queries: NDArray[np.float32]
    """Shape (Q, D)."""
    rows: NDArray[np.int64]
    """Nearest rows of every query, nearest first, shape (Q, KEPT)."""
    cosines: NDArray[np.float32]
    """Shape (Q, KEPT)."""
    min_cosine: float
    """Threshold at which recall is measured."""


def nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], first_row: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Exact nearest rows of one block of vectors.

    Args:
        queries: Shape (Q, D).
        vectors: The block, shape (n, D).
        first_row: Row number of its first vector.

    Returns:
        Row numbers and cosines of the at most `KEPT` nearest, in no particular order, both of shape (Q, kept).
    """
    kept = min(KEPT, len(vectors))
    rows = np.empty((len(queries), kept), np.int64)
    cosines = np.empty((len(queries), kept), np.float32)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        scores = queries[part] @ vectors.T
        places = np.argpartition(scores, -kept, axis=1)[:, -kept:]
        rows[part], cosines[part] = places + first_row, np.take_along_axis(scores, places, axis=1)
    return rows, cosines


def merged(
    queries: NDArray[np.float32],
    blocks: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
    min_cosine: float,
) -> Truth:
    """What `nearest` found in all blocks, as one."""
    rows = np.concatenate([rows for rows, _ in blocks], axis=1)
    cosines = np.concatenate([cosines for _, cosines in blocks], axis=1)
    order = np.lexsort((rows, -cosines), axis=1)[:, :KEPT]
    return Truth(
        queries, np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1), min_cosine
    )


def measure(index: VectorIndex, truth: Truth) -> Recall:
    """Recall of an index against the truth.

    Args:
        index: The index, of the very vectors that the truth is about.
        truth: Exact neighbours.

    Returns:
        Recall of the ten nearest and of what lies above the threshold.
    """
    tenth = np.array([np.sort(c[c < _SAME])[-_AT:].min(initial=1.0) for c in truth.cosines])
    lowest = np.minimum(tenth, truth.min_cosine) - 0.01
    hits = wanted = above_hits = above_wanted = 0
    for part in np.array_split(np.argsort(lowest, kind="stable"), min(_GROUPS, len(lowest))):
        found = index.search(truth.queries[part], float(lowest[part[0]]), 10 * KEPT)
        for neighbours, rows, cosines in zip(found, truth.rows[part], truth.cosines[part], strict=True):
            others = cosines < _SAME
            nearest = rows[others][:_AT]
            above = rows[others & (cosines >= truth.min_cosine)]
            first = neighbours.ids[: _AT + int(np.count_nonzero(~others))]
            hits, wanted = hits + int(np.isin(nearest, first).sum()), wanted + len(nearest)
            above_hits, above_wanted = above_hits + int(np.isin(above, neighbours.ids).sum()), above_wanted + len(above)
    return Recall(
        num_queries=len(truth.queries),
        at_10=round(hits / wanted, 4) if wanted else 1.0,
        min_cosine=truth.min_cosine,
        above=round(above_hits / above_wanted, 4) if above_wanted else None,
        num_above=above_wanted,
    )
