"""Scores of queries against the records of one list: a bound on every pair, then exactly what the bound lets through.

In: queries in the coordinates of the index, and the records of a list. Out: pairs at or above a threshold, with the
scores of their codes. See `coding` for head, middle and rest, and `listed` for why a bound comes first.

Every score that leaves here comes from the two rows it is about alone, so it depends on no other query or record.

Shapes: Q queries, D width, H head dims, M head and middle dims, P probed lists per query, n records of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.coding import Coding, head_of, lengths, quantized, tail_of
from fineinstructions.backends.vector_index.memory import require_memory
from fineinstructions.backends.vector_index.neighbours import ROUNDING_MARGIN
from fineinstructions.backends.vector_index.products import Int8Product

_TILE_SCORES = 1 << 19
"""Scores taken at once: a tile of this many stays in the processor's cache."""
_ROWS_AT_ONCE = 512
_DENSE = 0.04
"""From this share of survivors on, a product over all is cheaper than looking at each."""
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
    """Middle coordinates, tail length taken away, rest length; shape (Q, M - H + 2)."""
    rest: NDArray[np.float32]
    """Other coordinates, rest length taken away; shape (Q, D - M + 1)."""
    lists: NDArray[np.int64]
    """Probed lists, shape (Q, P)."""

    @cached_property
    def codes(self) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """Heads as 8-bit codes, shape (Q, H), their steps, shape (Q,), and what a bound adds to a product of codes.

        The last, of shape (Q, 3): how long what the codes leave out is, then tail length and share along the mean. By
        Cauchy and Schwarz, what is left out adds at most its length times that of the other head.
        """
        head = self.head[:, :-2]
        codes, steps = quantized(head)
        left_out = lengths(head - codes * steps[:, None])
        return codes, steps, np.column_stack([left_out, self.head[:, -2:]])

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
        tail_lengths, rest_lengths = lengths(coordinates[:, split:]), lengths(coordinates[:, end:])
        return cls(
            head=np.column_stack([coordinates[:, :split], tail_lengths, along]),
            middle=np.column_stack([coordinates[:, split:end], -tail_lengths, rest_lengths]),
            rest=np.column_stack([coordinates[:, end:], -rest_lengths]),
            lists=coding.nearest_lists(along, coordinates, min(nprobe, coding.nlist)),
        )

    def turned(self, coding: Coding) -> NDArray[np.float32]:
        """The queries in the turned basis, the share along the mean put back, shape (Q, D)."""
        coordinates = np.concatenate([self.head[:, :-2], self.middle[:, :-2], self.rest[:, :-1]], axis=1)
        return coding.put_back(self.head[:, -1], coordinates)


def floats_of(
    records: NDArray[Any], coding: Coding
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Records as the other sides of `Asked.head`, `Asked.middle` and `Asked.rest`, with lengths added, not taken away.

    The product of the heads is a bound on the score; those of the middles and of the rests, added to it, make the bound
    closer and then exact.
    """
    split, end = coding.head_dims, coding.middle_dims
    rest = tail_of(records, end)
    rest_lengths, tail_lengths = lengths(rest), records["tail"]
    head = np.column_stack([head_of(records, split), tail_lengths, records["along"]])
    middle = np.column_stack([tail_of(records, split, end), tail_lengths, rest_lengths])
    return head, middle, np.column_stack([rest, rest_lengths])


def products(
    a: NDArray[np.float32], of_a: NDArray[np.int64], b: NDArray[np.float32], of_b: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Products of some rows with some rows, one by one; each depends on its two rows only."""
    return np.asarray(np.einsum("ij,ij->i", a[of_a], b[of_b]))


def scores_of(asked: Asked, queries: NDArray[np.int64], block: "Block", rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Code scores of some queries with some rows, shape (n,); each comes from its query and its row alone."""
    heads = products(asked.head[:, :-2], queries, block.head[:, :-2], rows)
    heads += asked.head[queries, -1] * block.head[rows, -1]
    tails = products(asked.middle[:, :-2], queries, block.middle[:, :-2], rows)
    tails += products(asked.rest[:, :-1], queries, block.rest[:, :-1], rows)
    return heads + tails


def scores_with(asked: Asked, query: int, records: NDArray[Any], coding: Coding) -> NDArray[np.float32]:
    """Code scores of one query with some records, shape (n,): what `scores_of` says, for records of many lists."""
    split, end = coding.head_dims, coding.middle_dims
    heads = np.einsum("ij,j->i", head_of(records, split), asked.head[query, :-2])
    heads += asked.head[query, -1] * records["along"]
    tails = np.einsum("ij,j->i", tail_of(records, split, end), asked.middle[query, :-2])
    tails += np.einsum("ij,j->i", tail_of(records, end), asked.rest[query, :-1])
    return np.asarray(heads + tails)


class Block:
    """Some records, few enough that their floats stay in the processor's cache."""

    def __init__(self, records: NDArray[Any], coding: Coding, product: Int8Product | None = None) -> None:
        self.head, self.middle, self.rest = floats_of(records, coding)
        self._product = product
        if product is not None:
            self._codes = np.ascontiguousarray(records["codes"][:, : coding.head_dims])
            self._steps = records["head_step"]
            self._added = np.column_stack([lengths(self.head[:, :-2]), self.head[:, -2:]])

    def _bounds(self, asked: Asked, here: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the scores are at most, by the heads; shape (Q, n)."""
        if self._product is None:
            return np.asarray(asked.head[here] @ self.head.T)
        codes, steps, added = asked.codes
        bounds = self._product(codes[here], self._codes)
        bounds *= steps[here, None]
        bounds *= self._steps
        bounds += added[here] @ self._added.T
        return bounds

    def above(
        self, asked: Asked, here: NDArray[np.int64], cut: float
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Pairs at or above the cut: place in `here`, row of the block, code score."""
        low = np.float32(cut - ROUNDING_MARGIN)
        bounds = self._bounds(asked, here)
        flat = np.flatnonzero(bounds.ravel() >= low)
        steps = [(asked.middle, self.middle), (asked.rest, self.rest)]
        while steps and len(flat) > _DENSE * bounds.size:
            queries, records = steps.pop(0)
            bounds += queries[here] @ records.T
            flat = np.flatnonzero(bounds.ravel() >= low)
        known = bounds.ravel()[flat]
        for first in range(0, len(flat), PAIRS_AT_ONCE):
            part = slice(first, first + PAIRS_AT_ONCE)
            places, rows = np.divmod(flat[part], len(self.head))
            sums = known[part]
            for queries, records in steps:
                sums = sums + products(queries, here[places], records, rows)
                near = sums >= low
                places, rows, sums = places[near], rows[near], sums[near]
            scores = scores_of(asked, here[places], self, rows)
            above = scores >= cut
            yield places[above], rows[above], scores[above]


def pairs_above(
    records: NDArray[Any],
    asked: Asked,
    which: NDArray[np.int64],
    coding: Coding,
    cut: float,
    product: Int8Product | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs at or above the cut: place in `which`, place in `records`, code score; the same whatever the product."""
    for first in range(0, len(records), _ROWS_AT_ONCE):
        block = Block(records[first : first + _ROWS_AT_ONCE], coding, product)
        tile = max(1, _TILE_SCORES // len(block.head))
        for start in range(0, len(which), tile):
            for queries, rows, scores in block.above(asked, which[start : start + tile], cut):
                yield queries + start, rows + first, scores
