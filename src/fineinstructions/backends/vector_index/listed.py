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
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.building import CODING_FILE
from fineinstructions.backends.vector_index.coding import Coding
from fineinstructions.backends.vector_index.hits import Hits, no_hits
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
from fineinstructions.backends.vector_index.online import ShortCodes
from fineinstructions.backends.vector_index.products import Products, int8_product
from fineinstructions.backends.vector_index.scoring import (
    PAIRS_AT_ONCE,
    Asked,
    Block,
    pairs_above,
    scores_of,
    scores_with,
)
from fineinstructions.backends.vector_index.segments import open_segment, read_lists
from fineinstructions.errors import DataError

QUERIES_PER_PASS = 131_072
_BEST_LISTS = 4
_ONLINE_PROBES = 3
"""Lists that the short codes look into, over those of a list-major search: they are cheap."""
_ONLINE_DEPTH, _ONLINE_LEAST = 4, 160
"""Rows that the short codes propose: so many times those wanted, so many more, and as many as were removed."""
_ONLINE_REMOVED = 4096
"""Removed rows up to which that is cheap; beyond, lists are searched."""
_MAX_HITS = 20_000_000
"""Hits held before those that cannot be among the best are dropped: bounds memory (400 MB)."""


class ListedIndex(VectorIndex):
    """See the module."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        removed: NDArray[np.int64],
        nprobe: int | None = None,
        products: Products = "auto",
    ) -> None:
        super().__init__(folder, manifest, removed)
        self._product = int8_product(products)
        try:
            self.coding = Coding.load(folder / CODING_FILE)
            self.segments = [
                open_segment(folder, number, names, manifest.keeps_vectors)
                for number, names in enumerate(manifest.segments)
            ]
            self._short = ShortCodes(folder) if manifest.online else None
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: the index cannot be read ({error}); build it again") from None
        if any(len(s.offsets) != self.coding.nlist + 1 for s in self.segments):
            raise DataError(f"{folder}: lists and offsets do not belong together; build the index again")
        if sum(len(s.rows) for s in self.segments) != manifest.count:
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
        online: bool = False,
        lists: range | None = None,
    ) -> list[Neighbours]:
        """See `VectorIndex.search`; the more queries at once, the less each costs, `online` aside.

        Where no float vectors are kept, rows count from ``min_cosine - margin`` on (`ScoreRule`), and cosines are those
        of the codes.

        Args:
            queries: Unit vectors, shape (Q, D).
            min_cosine: Lowest cosine that counts.
            max_candidates: At most this many rows per query.
            allowed: Only these row numbers may be found; ``None`` for all.
            online: Go by the short codes, where the index has them: for few queries.
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
        if online and lists is None and self._short and len(self.removed) <= _ONLINE_REMOVED:
            return self._search_online(self._short, queries, min_cosine, max_candidates)
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
            asked = Asked.by(self.coding, queries[open_queries], nprobe)
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
        self, first: int, records: NDArray[Any], asked: Asked, which: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Nearest record of a list for each of its queries: place in `which`, row, rounded code score.

        A query is missing where all records were removed. Ties go to the lowest row, whatever the batch.
        """
        rows = self._rows(np.arange(first, first + len(records)))
        live = np.flatnonzero(np.isin(rows, self.removed, invert=True))
        order = live[np.argsort(rows[live], kind="stable")]
        if not len(order):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
        block = Block(records[order], self.coding)
        rough = asked.head[which] @ block.head.T + asked.middle[which] @ block.middle.T
        rough += asked.rest[which] @ block.rest.T
        near = rough >= rough.max(axis=1, keepdims=True) - ROUNDING_MARGIN
        places, found = np.nonzero(near)
        scores = _rounded(scores_of(asked, which[places], block, found))
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
        hits = no_hits(len(queries))
        self._look_into(hits, queries, Asked.by(self.coding, queries, self.nprobe), min_cosine, max_candidates, lists)
        return self._neighbours(queries, hits, min_cosine, max_candidates)

    def _look_into(
        self,
        hits: Hits,
        queries: NDArray[np.float32],
        asked: Asked,
        min_cosine: float,
        max_candidates: int,
        lists: range,
        first_segment: int = 0,
    ) -> None:
        """Add what the probed lists hold, from a segment on."""
        cut = min_cosine - (self.manifest.scores.margin if self.manifest.scores else 0.0)
        for base, first, records, which in self._lists(asked, lists, first_segment):
            for places, rows, scores in pairs_above(records, asked, which, self.coding, cut, self._product):
                self._take(hits, which[places], rows + (base + first), scores, min_cosine)
            if hits.held > _MAX_HITS:
                self._settle(hits, queries, max_candidates)
        self._settle(hits, queries, max_candidates)

    def _take(
        self,
        hits: Hits,
        queries: NDArray[np.int64],
        positions: NDArray[np.int64],
        scores: NDArray[np.float32],
        min_cosine: float,
    ) -> None:
        """Add hits that were not removed."""
        live = np.isin(self._rows(positions), self.removed, invert=True) if len(self.removed) else slice(None)
        hits.take(queries[live], positions[live], scores[live], min_cosine - self._code_margin)

    def _search_online(
        self, short: ShortCodes, queries: NDArray[np.float32], min_cosine: float, max_candidates: int
    ) -> list[Neighbours]:
        """What the short codes propose, decided by the 8-bit codes; additions list by list."""
        first, hits = self.segments[0], no_hits(len(queries))
        asked = Asked.by(self.coding, queries, self.nprobe)
        cut = min_cosine - (self.manifest.scores.margin if self.manifest.scores else 0.0)
        nprobe = min(_ONLINE_PROBES * self.nprobe, self.coding.nlist)
        number = _ONLINE_DEPTH * max_candidates + _ONLINE_LEAST + len(self.removed)
        proposed = short.propose(asked.turned(self.coding), nprobe, number)
        places, _ = np.nonzero(proposed >= 0)
        positions = proposed[proposed >= 0]
        for start in range(0, len(positions), PAIRS_AT_ONCE):
            here, found = (array[start : start + PAIRS_AT_ONCE] for array in (places, positions))
            records = first.take(first.parts, found)
            numbers, firsts = np.unique(here, return_index=True)
            scores = [
                scores_with(asked, number, some, self.coding)
                for number, some in zip(numbers.tolist(), np.split(records, firsts[1:]), strict=True)
            ]
            scores_here = np.concatenate(scores)
            above = scores_here >= cut
            self._take(hits, here[above], found[above], scores_here[above], min_cosine)
        if len(self.segments) > 1:
            every = range(self.coding.nlist)
            self._look_into(hits, queries, asked, min_cosine, max_candidates, every, first_segment=1)
        else:
            self._settle(hits, queries, max_candidates)
        return self._neighbours(queries, hits, min_cosine, max_candidates)

    def _lists(
        self, asked: Asked, lists: range, first_segment: int = 0
    ) -> Iterator[tuple[int, int, NDArray[Any], NDArray[np.int64]]]:
        """Every probed list of the segments: the segment's first position, the list's, its records, its queries."""
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
        for place, segment in enumerate(self.segments):
            for number, records in read_lists(segment, sorted(wanted) if place >= first_segment else []):
                yield base, int(segment.offsets[number]), records, wanted[number]
            base += len(segment.rows)

    def _settle(self, hits: Hits, asked: NDArray[np.float32], max_candidates: int) -> None:
        """Drop the hits that are too far behind to be among the best of their query."""
        if not hits.queries:
            return
        queries, positions = np.concatenate(hits.queries), np.concatenate(hits.positions)
        scores = np.concatenate(hits.scores)
        rule = self.manifest.scores if self.manifest.keeps_vectors else None
        stays = self._stay(queries, positions, scores, len(asked), max_candidates, 2 * rule.margin if rule else 0.0)
        if rule and int(stays.sum()) > _MAX_HITS // 2:  # many lie within the margin: let the floats decide now
            for start in range(0, len(scores), PAIRS_AT_ONCE):
                part = slice(start, start + PAIRS_AT_ONCE)
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
        self, queries: NDArray[np.float32], hits: Hits, min_cosine: float, max_candidates: int
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
        if len(self.segments) == 1:
            return self.segments[0].rows
        return np.concatenate([segment.rows for segment in self.segments])

    def _at(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors at positions that count through all segments, shape (len(positions), D)."""
        vectors = np.empty((len(positions), self.dimension), np.float32)
        base = 0
        for segment in self.segments:
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
