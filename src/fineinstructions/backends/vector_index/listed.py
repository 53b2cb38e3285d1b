"""List-major search: an inverted file whose work is grouped by list, not by query.

In: an index folder as `building` made it, and many queries at once. Out: `Neighbours`. Every query names the `nprobe`
lists nearest to it; then each list is read once, and all queries that named it are scored against it by one matrix
product. There is no top-k heap: a threshold keeps few, and testing it costs less than the product.

The decision to question: only the head of every vector is multiplied (see `coding`). The product's last two columns add
the bound on the tail and the share along the mean, so the product itself says whether the threshold can be reached;
only where it can, the middle is looked at, and the rest only where it still can. Nothing above the threshold in a
probed list is lost.

A score that decides is taken from the codes row by row, so it does not depend on which queries were asked together;
where float vectors are kept, they decide instead. "Lost" means: by code score, which lies within the margin of the
cosine that every build and addition measures.

Shapes: Q queries, D width, H head dims, M head and middle dims, L lists, P probed lists per query, n rows of a list, m
queries of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.building import CODING_FILE
from fineinstructions.backends.vector_index.coding import Coding, head_of, tail_of
from fineinstructions.backends.vector_index.manifest import Manifest
from fineinstructions.backends.vector_index.neighbours import (
    DECIMALS,
    NOTHING,
    ROUNDING_MARGIN,
    Neighbours,
    VectorIndex,
    exact_cosines,
    ranked,
)
from fineinstructions.backends.vector_index.segments import open_segment, read_lists
from fineinstructions.errors import DataError

QUERIES_PER_PASS = 131_072
_QUERIES_AT_ONCE = 1024
_TILE_SCORES = 1 << 19
"""Scores taken at once: a tile of this many stays in the processor's cache."""
_DENSE = 0.1
"""From this share of survivors on, a product over the whole tail is cheaper than looking at each."""
_PAIRS_AT_ONCE = 4096
_BEST_LISTS = 4
_MAX_HITS = 20_000_000
"""Hits held before those that cannot be among the best are dropped: bounds memory (400 MB)."""


@dataclass(frozen=True)
class _Asked:
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


@dataclass
class _Hits:
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


class ListedIndex(VectorIndex):
    """See the module."""

    def __init__(self, folder: Path, manifest: Manifest, removed: NDArray[np.int64], nprobe: int | None = None) -> None:
        super().__init__(folder, manifest, removed)
        try:
            self.coding = Coding.load(folder / CODING_FILE)
            self._segments = [
                open_segment(folder, number, names, manifest.keeps_vectors)
                for number, names in enumerate(manifest.segments)
            ]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: the index cannot be read ({error}); build it again") from None
        if any(len(s.offsets) != self.coding.nlist + 1 for s in self._segments):
            raise DataError(f"{folder}: lists and offsets do not belong together; build the index again")
        if sum(len(s.rows) for s in self._segments) != manifest.count:
            raise DataError(f"{folder}: holds another number of vectors than its manifest says; build the index again")
        self.nprobe = nprobe or manifest.nprobe
        self._places: NDArray[np.int64] | None = None

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Indexed vectors by row number, shape (len(ids), D); decoded from codes where no float vectors are kept."""
        if self._places is None:
            places = np.empty(len(self), np.int64)
            places[self._all_rows] = np.arange(len(self))
            self._places = places  # whole when it is seen: units in threads share an index
        return self._at(self._places[ids])

    def search(
        self,
        queries: NDArray[np.float32],
        min_cosine: float,
        max_candidates: int,
        allowed: NDArray[np.int64] | None = None,
        *,
        lists: range | None = None,
    ) -> list[Neighbours]:
        """See `VectorIndex.search`; the more queries at once, the less each costs.

        Where no float vectors are kept, rows count from ``min_cosine - margin`` on (`ScoreRule`), and cosines are those
        of the codes.

        Args:
            queries: Unit vectors, shape (Q, D).
            min_cosine: Lowest cosine that counts.
            max_candidates: At most this many rows per query.
            allowed: Only these row numbers may be found; ``None`` for all.
            lists: Only these lists are looked into: a shard, for `merged_shards`; ``None`` for all.
        """
        if max_candidates < 1:
            raise ValueError(f"max_candidates must be at least 1, not {max_candidates}")
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None:
            if lists is not None:
                raise ValueError("search either some rows or some lists, not both")
            return self._search_rows(queries, rows, min_cosine - self._code_margin, max_candidates)
        found: list[Neighbours] = []
        for start in range(0, len(queries), QUERIES_PER_PASS):
            part = queries[start : start + QUERIES_PER_PASS]
            found += self._pass(part, min_cosine, max_candidates, range(self.coding.nlist) if lists is None else lists)
        return found

    def best(
        self, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `VectorIndex.best`; by code scores, in the few nearest lists that hold anything."""
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None:
            return self._best_row(queries, rows)
        if len(self) == len(self.removed):
            raise ValueError("every row was removed, so none is nearest")
        best_rows = np.full(len(queries), -1, np.int64)
        best = np.full(len(queries), -np.inf)
        open_queries, nprobe = np.arange(len(queries)), min(_BEST_LISTS, self.coding.nlist)
        while len(open_queries):
            asked = self._asked(queries[open_queries], nprobe)
            for base, first, records, which in self._lists(asked, range(self.coding.nlist)):
                places, rows, scores = self._nearest_in(base + first, records, asked, which)
                here = open_queries[which[places]]
                better = (scores > best[here]) | ((scores == best[here]) & (rows < best_rows[here]))
                best[here[better]], best_rows[here[better]] = scores[better], rows[better]
            open_queries, nprobe = np.flatnonzero(best_rows < 0), self.coding.nlist
        if self.manifest.keeps_vectors:
            best = exact_cosines(self.vectors(best_rows), queries)
        return best_rows, best

    def _nearest_in(
        self, first: int, records: NDArray[Any], asked: _Asked, which: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Nearest record of a list for each of its queries: place in `which`, row, rounded code score.

        A query is missing where all records were removed. Ties go to the lowest row, whatever the batch.
        """
        rows = self._rows(np.arange(first, first + len(records)))
        live = np.flatnonzero(np.isin(rows, self.removed, invert=True))
        order = live[np.argsort(rows[live], kind="stable")]
        if not len(order):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
        head, middle, rest = _parts(records[order], self.coding)
        products = asked.head[which] @ head.T + asked.middle[which] @ middle.T + asked.rest[which] @ rest.T
        products -= asked.head[which, -2, None] * head[:, -2]
        near = products >= products.max(axis=1, keepdims=True) - ROUNDING_MARGIN
        places, found = np.nonzero(near)
        here = which[places]
        tails = _products(asked.middle, here, middle, found) + _products(asked.rest, here, rest, found)
        scores = _rounded(_head_products(asked.head[here], head[found]) + tails)
        ranked_first = np.lexsort((found, -scores, places))
        places, found, scores = places[ranked_first], found[ranked_first], scores[ranked_first]
        _, firsts = np.unique(places, return_index=True)
        return places[firsts], rows[order[found[firsts]]], scores[firsts]

    @property
    def _code_margin(self) -> float:
        """How far below the threshold a code score still counts; 0 where float vectors decide."""
        rule = self.manifest.scores
        return 0.0 if self.manifest.keeps_vectors or rule is None else rule.margin

    def _pass(
        self, queries: NDArray[np.float32], min_cosine: float, max_candidates: int, lists: range
    ) -> list[Neighbours]:
        rule = self.manifest.scores
        cut = min_cosine - (rule.margin if rule else 0.0)
        asked = self._asked(queries, self.nprobe)
        counts_from = min_cosine if self.manifest.keeps_vectors else cut
        hits = _Hits([], [], [], np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64))
        for base, first, records, which in self._lists(asked, lists):
            for places, rows, scores in _above(records, asked, which, self.coding, cut):
                positions = rows + (base + first)
                live = np.isin(self._rows(positions), self.removed, invert=True) if len(self.removed) else slice(None)
                hits.take(which[places][live], positions[live], scores[live], counts_from)
            if hits.held > _MAX_HITS:
                self._settle(hits, queries, max_candidates)
        self._settle(hits, queries, max_candidates)
        return self._neighbours(queries, hits, min_cosine, max_candidates)

    def _asked(self, queries: NDArray[np.float32], nprobe: int) -> _Asked:
        along, coordinates = np.empty(len(queries), np.float32), np.empty_like(queries)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):  # in double precision: the same in any company
            part = slice(start, start + _QUERIES_AT_ONCE)
            along[part], coordinates[part] = self.coding.coordinates(queries[part].astype(np.float64))
        lists = self.coding.nearest_lists(along, coordinates, min(nprobe, self.coding.nlist))
        split, end = self.coding.head_dims, self.coding.middle_dims
        return _Asked(
            head=np.column_stack([coordinates[:, :split], _lengths(coordinates[:, split:]), along]),
            middle=np.ascontiguousarray(coordinates[:, split:end]),
            rest=np.ascontiguousarray(coordinates[:, end:]),
            rest_lengths=_lengths(coordinates[:, end:]),
            lists=lists,
        )

    def _lists(self, asked: _Asked, lists: range) -> Iterator[tuple[int, int, NDArray[Any], NDArray[np.int64]]]:
        """Every probed list of every segment: the segment's first position, the list's, its records, its queries."""
        lists_16 = asked.lists.astype(np.uint16) if self.coding.nlist <= 1 << 16 else asked.lists  # sorts faster
        order = np.argsort(lists_16, axis=None, kind="stable")
        named = asked.lists.ravel()[order]
        queries = order // asked.lists.shape[1]
        numbers, firsts = np.unique(named, return_index=True)
        wanted = {
            number: queries[first:last]
            for number, first, last in zip(numbers.tolist(), firsts, [*firsts[1:], len(named)], strict=True)
            if number in lists
        }
        base = 0
        for segment in self._segments:
            for number, records in read_lists(segment, sorted(wanted)):
                yield base, int(segment.offsets[number]), records, wanted[number]
            base += len(segment.rows)

    def _settle(self, hits: _Hits, asked: NDArray[np.float32], max_candidates: int) -> None:
        """Drop the hits that are too far behind to be among the best of their query."""
        if not hits.queries:
            return
        queries, positions = np.concatenate(hits.queries), np.concatenate(hits.positions)
        scores = np.concatenate(hits.scores)
        rule = self.manifest.scores if self.manifest.keeps_vectors else None
        stays = self._stay(queries, positions, scores, len(asked), max_candidates, 2 * rule.margin if rule else 0.0)
        if rule and int(stays.sum()) > _MAX_HITS // 2:  # many lie within the margin: let the floats decide now
            for start in range(0, len(scores), _PAIRS_AT_ONCE):
                part = slice(start, start + _PAIRS_AT_ONCE)
                scores[part] = exact_cosines(self._at(positions[part]), asked[queries[part]])
            stays = self._stay(queries, positions, scores, len(asked), max_candidates, 0.0)
        hits.queries, hits.positions, hits.scores = [queries[stays]], [positions[stays]], [scores[stays]]
        hits.held = int(stays.sum())

    def _stay(
        self,
        queries: NDArray[np.int64],
        positions: NDArray[np.int64],
        scores: NDArray[np.float32],
        num_queries: int,
        max_candidates: int,
        margin: float,
    ) -> NDArray[np.bool_]:
        """Which hits are among the best of their query, or within a margin of the last that is."""
        order = np.lexsort((self._rows(positions), -_rounded(scores), queries))
        counts = np.bincount(queries, minlength=num_queries)
        starts = np.cumsum(counts) - counts
        stays = np.zeros(len(queries), np.bool_)
        stays[order] = np.arange(len(queries)) - starts[queries[order]] < max_candidates
        if margin and len(queries):
            last = np.clip(np.minimum(starts + max_candidates, starts + counts) - 1, 0, len(queries) - 1)
            stays |= scores >= scores[order][last][queries] - margin
        return stays

    def _neighbours(
        self, queries: NDArray[np.float32], hits: _Hits, min_cosine: float, max_candidates: int
    ) -> list[Neighbours]:
        if not hits.queries:
            return [NOTHING] * len(queries)
        order = np.lexsort((self._rows(hits.positions[0]), -_rounded(hits.scores[0]), hits.queries[0]))
        positions, scores = hits.positions[0][order], hits.scores[0][order]
        counts = np.bincount(hits.queries[0], minlength=len(queries))
        ends = np.cumsum(counts)
        rows = self._rows(positions)
        cosines = _rounded(scores)
        found = []
        bounds = zip((ends - counts).tolist(), ends.tolist(), hits.num_above.tolist(), strict=True)
        for number, (first, last, num_above) in enumerate(bounds):
            if first == last:
                found.append(NOTHING)
            elif self.manifest.keeps_vectors and self.manifest.scores:
                margin = self.manifest.scores.margin
                here, near = rows[first:last], scores[first:last]
                exact = ranked(queries[number], here, near, self.vectors, min_cosine, max_candidates, margin)
                everything_is_here = hits.num_found[number] <= max_candidates
                found.append(exact if everything_is_here else replace(exact, num_above=num_above))
            else:
                found.append(Neighbours(rows[first:last], cosines[first:last], num_above))
        return found

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers at positions that count through all segments."""
        return np.asarray(self._all_rows[positions])

    @cached_property
    def _all_rows(self) -> NDArray[np.int64]:
        if len(self._segments) == 1:
            return self._segments[0].rows
        return np.concatenate([segment.rows for segment in self._segments])

    def _at(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors at positions that count through all segments, shape (len(positions), D)."""
        vectors = np.empty((len(positions), self.dimension), np.float32)
        base = 0
        for segment in self._segments:
            here = (positions >= base) & (positions < base + len(segment.rows))
            if here.any():
                places = positions[here] - base
                if segment.vectors:
                    vectors[here] = segment.take(segment.vectors, places)
                else:
                    records = segment.take(segment.parts, places)
                    vectors[here] = self.coding.decoded(records)
            base += len(segment.rows)
        return vectors


def _rounded(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores as cosines are stored."""
    return scores.astype(np.float64).round(DECIMALS)


def _parts(
    records: NDArray[Any], coding: Coding
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Records of a list: head coordinates, tail length, share along the mean (n, H + 2); middle; rest."""
    sides = np.column_stack([records["tail"], records["along"]])
    head = np.concatenate([head_of(records, coding.head_dims), sides], axis=1)
    split, end = coding.head_dims, coding.middle_dims
    return head, tail_of(records, split, end), tail_of(records, end)


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths of rows, a little longer than they are, so that rounding can never make a bound too low."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) * np.float32(1 + 1e-6))


def _products(
    a: NDArray[np.float32], of_a: NDArray[np.int64], b: NDArray[np.float32], of_b: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Products of some rows with some rows, one by one; each depends on its two rows only."""
    return np.asarray(np.einsum("ij,ij->i", a[of_a], b[of_b]))


def _head_products(queries: NDArray[np.float32], records: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of heads and of the shares along the mean, row by row, without the bound."""
    products = np.einsum("ij,ij->i", queries[:, :-2], records[:, :-2])
    return np.asarray(products + queries[:, -1] * records[:, -1])


def _above(
    records: NDArray[Any], asked: _Asked, which: NDArray[np.int64], coding: Coding, cut: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs at or above the cut: place in `which`, place in `records`, code score."""
    head, middle, rest = _parts(records, coding)
    rest_lengths = _lengths(rest)
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
        for first in range(0, len(flat), _PAIRS_AT_ONCE):
            part = slice(first, first + _PAIRS_AT_ONCE)
            places, rows = np.divmod(flat[part], num)
            queries = here[places]
            tails = _products(asked.middle, queries, middle, rows)
            if not dense:  # the bound on the whole tail gives way to what the middle adds and the bound on the rest
                sums = known[part] - head_q[places, -2] * head[rows, -2] + tails
                near = sums + asked.rest_lengths[queries] * rest_lengths[rows] >= low
                places, rows, queries, tails, sums = (v[near] for v in (places, rows, queries, tails, sums))
            last = _products(asked.rest, queries, rest, rows)
            if not dense:
                near = sums + last >= low
                places, rows, tails, last = (v[near] for v in (places, rows, tails, last))
            scores = _head_products(head_q[places], head[rows]) + (tails + last)
            above = scores >= cut
            yield places[above] + start, rows[above], scores[above]
