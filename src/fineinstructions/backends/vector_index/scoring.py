"""Scores of queries against the records of one list: a bound on every pair, then exactly what the bound lets through.

In: queries in the coordinates of the index, and the records of a list. Out: pairs at or above a threshold, with the
scores of their codes. See `coding` for head, middle and rest, and `listed` for why a bound comes first.

Every score that leaves here comes from the two rows it is about alone, so it depends on no other query or record.

Shapes: Q queries, D width, H head dims, M head and middle dims, P probed lists per query, n records of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.coding import Coding, head_of, tail_of
from fineinstructions.backends.vector_index.memory import require_memory
from fineinstructions.backends.vector_index.neighbours import ROUNDING_MARGIN

_TILE_SCORES = 1 << 19
"""Scores taken at once: a tile of this many stays in the processor's cache."""
_DENSE = 0.1
"""From this share of survivors on, a product over the whole tail is cheaper than looking at each."""
PAIRS_AT_ONCE = 4096
_QUERIES_AT_ONCE = 1024
_MEMORY_OF_A_SEARCH = 128 << 20
"""Lists that are read ahead, and one tile of scores with what is made of it; what is found comes on top."""
_REMEDY = "make work units smaller (engine.unit_rows), or use fewer workers or a larger machine"


@dataclass(frozen=True)
class Asked:
    """Queries in the coordinates of the index."""

    head: NDArray[np.float32]
    """Head coordinates, tail length, share along the mean; shape (Q, H + 2)."""
    middle: NDArray[np.float32]
    """Shape (Q, M - H)."""
    rest: NDArray[np.float32]
    """Shape (Q, D - M)."""
    rest_lengths: NDArray[np.float32]
    """Shape (Q,)."""
    lists: NDArray[np.int64]
    """Probed lists, shape (Q, P)."""

    @classmethod
    def by(cls, coding: Coding, queries: NDArray[np.float32], nprobe: int) -> Self:
        """Queries as an index of this coding sees them, shape (Q, D); each the same in any company.

        Raises:
            ConfigError: If memory is short.
        """
        per_query = 8 * coding.dimension + 32 * nprobe  # coordinates and their copies; lists, in order and by list
        require_memory(len(queries) * per_query + _MEMORY_OF_A_SEARCH, f"a search of {len(queries):,} vectors", _REMEDY)
        along, coordinates = np.empty(len(queries), np.float32), np.empty_like(queries)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            along[part], coordinates[part] = coding.coordinates(queries[part].astype(np.float64))
        split, end = coding.head_dims, coding.middle_dims
        return cls(
            head=np.column_stack([coordinates[:, :split], lengths(coordinates[:, split:]), along]),
            middle=np.ascontiguousarray(coordinates[:, split:end]),
            rest=np.ascontiguousarray(coordinates[:, end:]),
            rest_lengths=lengths(coordinates[:, end:]),
            lists=coding.nearest_lists(along, coordinates, min(nprobe, coding.nlist)),
        )

    def turned(self, coding: Coding) -> NDArray[np.float32]:
        """The queries in the turned basis, the share along the mean put back, shape (Q, D)."""
        return coding.put_back(self.head[:, -1], np.concatenate([self.head[:, :-2], self.middle, self.rest], axis=1))


def floats_of(
    records: NDArray[Any], coding: Coding
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Records of a list: head coordinates, tail length, share along the mean (n, H + 2); middle; rest."""
    sides = np.column_stack([records["tail"], records["along"]])
    head = np.concatenate([head_of(records, coding.head_dims), sides], axis=1)
    split, end = coding.head_dims, coding.middle_dims
    return head, tail_of(records, split, end), tail_of(records, end)


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths of rows, a little longer than they are, so that rounding can never make a bound too low."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) * np.float32(1 + 1e-6))


def products(
    a: NDArray[np.float32], of_a: NDArray[np.int64], b: NDArray[np.float32], of_b: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Products of some rows with some rows, one by one; each depends on its two rows only."""
    return np.asarray(np.einsum("ij,ij->i", a[of_a], b[of_b]))


def head_products(queries: NDArray[np.float32], records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of heads and of the shares along the mean, row by row, without the bound."""
    heads = np.einsum("ij,ij->i", queries[:, :-2], records[:, :-2])
    return np.asarray(heads + queries[:, -1] * records[:, -1])


def scores_of(asked: Asked, queries: NDArray[np.int64], records: NDArray[Any], coding: Coding) -> NDArray[np.float32]:
    """Code score of every record with the query beside it, shape (n,): to the bit what `pairs_above` gives."""
    head, middle, rest = floats_of(records, coding)
    rows = np.arange(len(records))
    tails = products(asked.middle, queries, middle, rows) + products(asked.rest, queries, rest, rows)
    return np.asarray(head_products(asked.head[queries], head) + tails)


def pairs_above(
    records: NDArray[Any], asked: Asked, which: NDArray[np.int64], coding: Coding, cut: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs at or above the cut: place in `which`, place in `records`, code score."""
    head, middle, rest = floats_of(records, coding)
    rest_lengths = lengths(rest)
    num = len(records)
    tile = max(1, _TILE_SCORES // num)
    low = np.float32(cut - ROUNDING_MARGIN)
    for start in range(0, len(which), tile):
        here = which[start : start + tile]
        head_q = asked.head[here]
        bounds = head_q @ head.T
        flat = np.flatnonzero(bounds.ravel() >= low)
        if dense := len(flat) > _DENSE * bounds.size:
            bounds += asked.middle[here] @ middle.T
            bounds += asked.rest[here] @ rest.T
            bounds -= head_q[:, -2, None] * head[:, -2]
            flat = np.flatnonzero(bounds.ravel() >= low)
        known = bounds.ravel()[flat]
        for first in range(0, len(flat), PAIRS_AT_ONCE):
            part = slice(first, first + PAIRS_AT_ONCE)
            places, rows = np.divmod(flat[part], num)
            queries = here[places]
            tails = products(asked.middle, queries, middle, rows)
            if not dense:  # the bound on the whole tail gives way to what the middle adds and the bound on the rest
                sums = known[part] - head_q[places, -2] * head[rows, -2] + tails
                near = sums + asked.rest_lengths[queries] * rest_lengths[rows] >= low
                places, rows, queries, tails, sums = (v[near] for v in (places, rows, queries, tails, sums))
            last = products(asked.rest, queries, rest, rows)
            if not dense:
                near = sums + last >= low
                places, rows, tails, last = (v[near] for v in (places, rows, tails, last))
            scores = head_products(head_q[places], head[rows]) + (tails + last)
            above = scores >= cut
            yield places[above] + start, rows[above], scores[above]
