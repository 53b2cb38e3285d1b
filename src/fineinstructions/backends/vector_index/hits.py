"""What a search of many queries has found so far, before the best of every query are chosen.

In: pairs of query and row, list by list. Out: the same, with counts per query that hold even where hits were dropped.

Shapes: Q queries.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Hits:
    """What was found so far, one entry per query and row."""

    queries: list[NDArray[np.int64]]
    positions: list[NDArray[np.int64]]
    scores: list[NDArray[np.float32]]
    num_above: NDArray[np.int64]
    """Rows per query that were found with a code score that counts, kept or not; shape (Q,)."""
    num_found: NDArray[np.int64]
    """Rows per query that were found at all, kept or not; shape (Q,)."""
    held: int = 0

    def take(
        self,
        queries: NDArray[np.int64],
        positions: NDArray[np.int64],
        scores: NDArray[np.float32],
        counts_from: float,
    ) -> None:
        """Add hits and count them."""
        self.queries.append(queries)
        self.positions.append(positions)
        self.scores.append(scores)
        self.held += len(queries)
        np.add.at(self.num_found, queries, 1)
        np.add.at(self.num_above, queries[scores >= counts_from], 1)


def no_hits(num_queries: int) -> Hits:
    """Hits before anything was found."""
    return Hits([], [], [], np.zeros(num_queries, np.int64), np.zeros(num_queries, np.int64))
