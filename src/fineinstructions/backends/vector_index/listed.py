"""List-major search: an inverted file whose work is grouped by list, not by query.

In: an index folder as `building` made it, and many queries at once. Out: `Neighbours`. Every query names the `nprobe`
lists nearest to it; then each list is read once, and all queries that named it are scored against it by one matrix
product. There is no top-k heap: a threshold keeps few, and testing it costs less than the product.

The decision to question: only the head of every vector is multiplied (see `coding`). The product's last two columns add
the bound on the tail and the share along the mean, so the product itself says whether the threshold can be reached;
only where it can, the tail is looked at. Nothing above the threshold in a probed list is lost.

A score that decides is taken from the codes row by row, so it does not depend on which queries were asked together;
where float vectors are kept, they decide instead.

Shapes: Q queries, D width, H head dims, L lists, P probed lists per query, n rows of a list, m queries of a list.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.building import CODING_FILE
from fineinstructions.backends.vector_index.coding import Coding
from fineinstructions.backends.vector_index.manifest import Manifest
from fineinstructions.backends.vector_index.neighbours import (
    DECIMALS,
    NOTHING,
    ROUNDING_MARGIN,
    Neighbours,
    VectorIndex,
    ranked,
)
from fineinstructions.backends.vector_index.segments import open_segment, read_lists
from fineinstructions.errors import DataError

QUERIES_PER_PASS = 131_072
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
    """Queries in the coordinates of the index, code steps multiplied in."""

    head: NDArray[np.float32]
    """Head coordinates, tail length, share along the mean; shape (Q, H + 2)."""
    tail: NDArray[np.float32]
    """Shape (Q, D - H)."""
    lists: NDArray[np.int64]
    """Probed lists, shape (Q, P)."""


@dataclass
class _Hits:
    """What was found so far, one entry per query and row."""

    queries: list[NDArray[np.int64]]
    positions: list[NDArray[np.int64]]
    scores: list[NDArray[np.float32]]
    dropped: NDArray[np.int64]
    """Rows per query that are certain and counted, but too far behind to be kept; shape (Q,)."""
    held: int = 0


class ListedIndex(VectorIndex):
    """See the module."""

    def __init__(self, folder: Path, manifest: Manifest, removed: NDArray[np.int64]) -> None:
        super().__init__(folder, manifest, removed)
        try:
            self.coding = Coding.load(folder / CODING_FILE)
            self._segments = [open_segment(folder, number, names) for number, names in enumerate(manifest.segments)]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: the index cannot be read ({error}); build it again") from None
        if any(len(s.offsets) != self.coding.nlist + 1 for s in self._segments):
            raise DataError(f"{folder}: lists and offsets do not belong together; build the index again")
        if sum(len(s.rows) for s in self._segments) != manifest.count:
            raise DataError(f"{folder}: holds another number of vectors than its manifest says; build the index again")
        self.nprobe = manifest.nprobe
        self._places: NDArray[np.int64] | None = None

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Indexed vectors by row number, shape (len(ids), D); decoded from codes where no float vectors are kept."""
        if self._places is None:
            rows = np.concatenate([s.rows for s in self._segments])
            self._places = np.empty(len(rows), np.int64)
            self._places[rows] = np.arange(len(rows))
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
            return self._search_rows(queries, rows, min_cosine, max_candidates)
        found: list[Neighbours] = []
        for start in range(0, len(queries), QUERIES_PER_PASS):
            part = queries[start : start + QUERIES_PER_PASS]
            found += self._pass(part, min_cosine, max_candidates, lists or range(self.coding.nlist))
        return found

    def best(
        self, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `VectorIndex.best`; looks into the few nearest lists only."""
        queries = self._checked(queries)
        rows = self._checked_rows(allowed)
        if rows is not None:
            return self._best_row(queries, rows)
        asked = self._asked(queries, _BEST_LISTS)
        scores = np.full(len(queries), -np.inf, np.float32)
        positions = np.zeros(len(queries), np.int64)
        for base, first, records, which in self._lists(asked, range(self.coding.nlist)):
            head, tail = _head(records, self.coding), _tail(records, self.coding)
            products = asked.head[which] @ head.T + asked.tail[which] @ tail.T
            products -= asked.head[which, -2, None] * head[:, -2]
            if len(self.removed):
                rows_here = self._rows(np.arange(base + first, base + first + len(records)))
                products[:, np.isin(rows_here, self.removed)] = -np.inf
            places = products.argmax(axis=1)
            nearest = products[np.arange(len(which)), places]
            better = nearest > scores[which]
            scores[which[better]] = nearest[better]
            positions[which[better]] = base + first + places[better]
        return self._rows(positions), _rounded(scores)

    def _pass(
        self, queries: NDArray[np.float32], min_cosine: float, max_candidates: int, lists: range
    ) -> list[Neighbours]:
        rule = self.manifest.scores
        cut = min_cosine - (rule.margin if rule else 0.0)
        asked = self._asked(queries, self.nprobe)
        hits = _Hits([], [], [], np.zeros(len(queries), np.int64))
        for base, first, records, which in self._lists(asked, lists):
            for places, rows, scores in _above(records, asked, which, self.coding, cut):
                hits.queries.append(which[places])
                hits.positions.append(rows + (base + first))
                hits.scores.append(scores)
                hits.held += len(rows)
            if hits.held > _MAX_HITS:
                self._settle(hits, len(queries), min_cosine, max_candidates)
        self._settle(hits, len(queries), min_cosine, max_candidates)
        return self._neighbours(queries, hits, min_cosine, max_candidates)

    def _asked(self, queries: NDArray[np.float32], nprobe: int) -> _Asked:
        # In double precision, so that a query's coordinates do not depend on those it is asked with.
        along_64, coordinates_64 = self.coding.coordinates(queries.astype(np.float64))
        along, coordinates = along_64.astype(np.float32), coordinates_64.astype(np.float32)
        lists = self.coding.nearest_lists(along, coordinates, min(nprobe, self.coding.nlist))
        split = self.coding.head_dims
        tail = coordinates[:, split:]
        lengths = np.sqrt(np.einsum("ij,ij->i", tail, tail))
        head_scale, tail_scale = (np.float32(scale) for scale in self.coding.scales)
        head = np.column_stack([coordinates[:, :split] * head_scale, lengths, along])
        return _Asked(head, tail * tail_scale, lists)

    def _lists(self, asked: _Asked, lists: range) -> Iterator[tuple[int, int, NDArray[Any], NDArray[np.int64]]]:
        """Every probed list of every segment: the segment's first position, the list's, its records, its queries."""
        order = np.argsort(asked.lists, axis=None, kind="stable")
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

    def _settle(self, hits: _Hits, num_queries: int, min_cosine: float, max_candidates: int) -> None:
        """Sort the hits by query, drop removed rows, and those too far behind to be among the best."""
        if not hits.queries:
            return
        queries, positions = np.concatenate(hits.queries), np.concatenate(hits.positions)
        scores = np.concatenate(hits.scores)
        if len(self.removed):
            stays = np.isin(self._rows(positions), self.removed, invert=True)
            queries, positions, scores = queries[stays], positions[stays], scores[stays]
        order = np.lexsort((self._rows(positions), -_rounded(scores), queries))
        queries, positions, scores = queries[order], positions[order], scores[order]
        counts = np.bincount(queries, minlength=num_queries)
        starts = np.cumsum(counts) - counts
        place = np.arange(len(queries)) - starts[queries]
        stays = place < max_candidates
        counts_as_above = np.ones(len(queries), np.bool_)
        if self.manifest.keeps_vectors and self.manifest.scores and len(queries):
            counts_as_above = scores >= min_cosine
            # Float vectors may still change the order: keep what can reach the last place.
            last = np.minimum(starts + max_candidates, starts + counts) - 1
            borders = scores[np.clip(last, 0, len(scores) - 1)]
            stays |= scores >= borders[queries] - 2 * self.manifest.scores.margin
        hits.dropped += np.bincount(queries[~stays & counts_as_above], minlength=num_queries)
        hits.queries, hits.positions, hits.scores = [queries[stays]], [positions[stays]], [scores[stays]]
        hits.held = int(stays.sum())

    def _neighbours(
        self, queries: NDArray[np.float32], hits: _Hits, min_cosine: float, max_candidates: int
    ) -> list[Neighbours]:
        if not hits.queries:
            return [NOTHING] * len(queries)
        positions, scores = hits.positions[0], hits.scores[0]
        counts = np.bincount(hits.queries[0], minlength=len(queries))
        ends = np.cumsum(counts)
        rows = self._rows(positions)
        cosines = _rounded(scores)
        found = []
        for number, (first, last, dropped) in enumerate(
            zip((ends - counts).tolist(), ends.tolist(), hits.dropped.tolist(), strict=True)
        ):
            if first == last:
                found.append(NOTHING)
            elif self.manifest.keeps_vectors and self.manifest.scores:
                margin = self.manifest.scores.margin
                here, near = rows[first:last], scores[first:last]
                exact = ranked(queries[number], here, near, self.vectors, min_cosine, max_candidates, margin)
                found.append(replace(exact, num_above=exact.num_above + dropped))
            else:
                found.append(Neighbours(rows[first:last], cosines[first:last], last - first + dropped))
        return found

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers at positions that count through all segments."""
        if len(self._segments) == 1:
            return np.asarray(self._segments[0].rows[positions])
        return np.concatenate([s.rows for s in self._segments])[positions]

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
                    vectors[here] = self.coding.decoded(records["along"], records["codes"])
            base += len(segment.rows)
        return vectors


def _rounded(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores as cosines are stored."""
    return scores.astype(np.float64).round(DECIMALS)


def _head(records: NDArray[Any], coding: Coding) -> NDArray[np.float32]:
    """Head codes, tail length, share along the mean, as floats; shape (n, H + 2)."""
    head = np.empty((len(records), coding.head_dims + 2), np.float32)
    head[:, :-2] = records["codes"][:, : coding.head_dims]
    head[:, -2], head[:, -1] = records["tail"], records["along"]
    return head


def _tail(records: NDArray[Any], coding: Coding) -> NDArray[np.float32]:
    """Tail codes as floats, shape (n, D - H)."""
    return records["codes"][:, coding.head_dims :].astype(np.float32)


def _above(
    records: NDArray[Any], asked: _Asked, which: NDArray[np.int64], coding: Coding, cut: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs at or above the cut: place in `which`, place in `records`, code score."""
    head_x, tail_x = _head(records, coding), _tail(records, coding)
    num = len(records)
    tile = max(1, _TILE_SCORES // num)
    low = np.float32(cut - ROUNDING_MARGIN)
    for start in range(0, len(which), tile):
        here = which[start : start + tile]
        head_q = asked.head[here]
        bounds = head_q @ head_x.T
        flat = np.flatnonzero(bounds.ravel() >= low)
        if dense := len(flat) > _DENSE * bounds.size:
            bounds += asked.tail[here] @ tail_x.T
            bounds -= head_q[:, -2, None] * head_x[:, -2]
            flat = np.flatnonzero(bounds.ravel() >= low)
        known = bounds.ravel()[flat]
        for first in range(0, len(flat), _PAIRS_AT_ONCE):
            part = slice(first, first + _PAIRS_AT_ONCE)
            places, rows = np.divmod(flat[part], num)
            tails = np.einsum("ij,ij->i", asked.tail[here[places]], tail_x[rows])
            if not dense:
                near = known[part] - head_q[places, -2] * head_x[rows, -2] + tails >= low
                places, rows, tails = places[near], rows[near], tails[near]
            q, x = head_q[places], head_x[rows]
            scores = np.einsum("ij,ij->i", q[:, :-2], x[:, :-2]) + q[:, -1] * x[:, -1] + tails
            above = scores >= cut
            yield places[above] + start, rows[above], scores[above]
