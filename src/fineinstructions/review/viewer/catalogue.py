"""The pairs and the rejections of a run as lists that can be filtered, ordered, searched and paged.

In: part files and what is wanted. Out: places of rows, and rows. A list is an array of row numbers; the last few are
kept, so that paging through one does not make it again.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fineinstructions.review.rows import Codes, Positions, Rows
from fineinstructions.review.samples import drawn_places
from fineinstructions.review.viewer.wanted import Wanted

PAGE_ROWS = 25
MAX_SEARCHED_GROUPS = 48
"""Row groups (of about a thousand rows) that one page of a search reads at most."""
MAX_ORDERED = 10_000
"""Pairs of a list that is ordered by how good they are; nobody reads further, and the rest need not be sorted."""
_KEPT_LISTS = 4
_ORDERED_AT_ONCE = 1 << 20
_PAIR_TEXTS = ("instruction", "answer", "title")
_SHUFFLE_SEED = 0


class Page(NamedTuple):
    """A page of a list."""

    places: list[int]
    """Places of its rows in the list."""
    rows: list[int]
    """Their row numbers."""
    total: int
    """Rows of the list, before a text is looked for."""
    looked_until: int
    """Place up to which the list has been looked through."""


class _List:
    """A table that is seen through filters."""

    texts: Sequence[str]

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._ordered = lru_cache(maxsize=_KEPT_LISTS)(self.places)

    def places(self, wanted: Wanted) -> Positions:
        """Row numbers of the list, in its order."""
        raise NotImplementedError

    def listed(self, wanted: Wanted) -> Positions:
        """The list that somebody wants, without the text that is looked for."""
        order = "plan" if wanted.q else wanted.sort
        return self._ordered(_plain(wanted, order))

    def page(self, wanted: Wanted, count: int = PAGE_ROWS) -> Page:
        """The page that begins at ``wanted.start``; a text is looked for in the order of the plan."""
        listed = self.listed(wanted)
        begin = min(wanted.start, len(listed))
        if not wanted.q:
            rows = listed[begin : begin + count].tolist()
            return Page(list(range(begin, begin + len(rows))), rows, len(listed), begin + len(rows))
        hits, looked = self.rows.search(listed[begin:], self.texts, wanted.q, count, MAX_SEARCHED_GROUPS)
        return Page(_places_of(listed, hits, is_sorted=not wanted.sample), hits, len(listed), begin + looked)


def _places_of(listed: Positions, rows: list[int], *, is_sorted: bool) -> list[int]:
    """Places of rows in a list; a drawn sample stands in the order of the draw."""
    if is_sorted:
        return list(np.searchsorted(listed, rows).tolist()) if rows else []
    place_of = {row: place for place, row in enumerate(listed.tolist())}
    return [place_of[row] for row in rows]


def _plain(wanted: Wanted, order: str) -> Wanted:
    """What decides a list, and nothing else."""
    return dataclasses.replace(wanted, q="", start=0, at=None, sort=order)


class PairList(_List):
    """The kept pairs."""

    texts = _PAIR_TEXTS

    def __init__(self, rows: Rows, count: int, seed: int) -> None:
        """A list of pairs, and how many of them an audit draws by which seed."""
        super().__init__(rows)
        self._count, self._seed = count, seed

    @cached_property
    def drawn(self) -> Positions:
        """Rows of the audit's sample, in the order of the draw."""
        return np.array(drawn_places(self.rows, "pair_id", self._count, self._seed), np.int32)

    @cached_property
    def drawn_ids(self) -> list[str]:
        """Their ids."""
        return [str(row["pair_id"]) for row in self.rows.take(self.drawn, ["pair_id"])]

    @cached_property
    def scores(self) -> NDArray[np.int8]:
        """The judge's score of every pair."""
        return self.rows.small_numbers("judge_score")

    @cached_property
    def ratios(self) -> NDArray[np.float64]:
        """The excerpt ratio of every pair."""
        return self.rows.numbers("excerpt_ratio")

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        """The cosine of every pair."""
        return self.rows.single_numbers("cosine")

    @cached_property
    def sources(self) -> Codes:
        """The source of every pair's document."""
        return self.rows.codes("source")

    @cached_property
    def source_counts(self) -> dict[str, int]:
        """Pairs of each source, the most frequent first."""
        return self.sources.counts()

    def places(self, wanted: Wanted) -> Positions:
        """Row numbers of the list, in its order."""
        keep = np.ones(len(self.rows), np.bool_)
        if wanted.score is not None:
            keep &= self.scores == wanted.score
        if wanted.min_ratio is not None:
            keep &= self.ratios >= wanted.min_ratio
        if wanted.max_ratio is not None:
            keep &= self.ratios <= wanted.max_ratio
        if wanted.min_cosine is not None:
            keep &= self.cosines >= np.float32(wanted.min_cosine)
        if wanted.source:
            keep &= self.sources.numbers == self.sources.of(wanted.source)
        if wanted.template:
            keep &= self.rows.is_text("template_id", wanted.template)
        if wanted.document:
            keep &= self.rows.is_text("document_id", wanted.document)
        if wanted.sample:
            return self.drawn[keep[self.drawn]]
        return self._in_order(np.flatnonzero(keep).astype(np.int32), wanted.sort)

    def _in_order(self, kept: Positions, sort: str) -> Positions:
        if sort == "shuffled":
            return np.random.default_rng(_SHUFFLE_SEED).permutation(kept)
        if sort == "plan":
            return kept
        sign = -1 if sort == "best" else 1
        blocks = [self._first(kept[at : at + _ORDERED_AT_ONCE], sign) for at in range(0, len(kept), _ORDERED_AT_ONCE)]
        return self._first(np.concatenate([*blocks, kept[:0]]), sign, ordered=True)

    def _first(self, kept: Positions, sign: int, *, ordered: bool = False) -> Positions:
        """The first rows in the order of score, ratio and cosine, at most `MAX_ORDERED`; in that order on demand."""
        if len(kept) > MAX_ORDERED:
            key = self.scores[kept].astype(np.int64) << 52
            key += (self.ratios[kept] * (1 << 24)).astype(np.int64) << 26
            key += ((self.cosines[kept] + 1) * (1 << 24)).astype(np.int64)
            kept = kept[np.sort(np.argpartition(sign * key, MAX_ORDERED)[:MAX_ORDERED])]
        if not ordered:
            return kept
        keys = (sign * self.cosines[kept], sign * self.ratios[kept], sign * self.scores[kept])
        return kept[np.lexsort(keys)]


class RejectionList(_List):
    """What was turned away."""

    texts = ("record", "record_id")

    @cached_property
    def stages(self) -> Codes:
        """The stage of every rejection."""
        return self.rows.codes("stage")

    @cached_property
    def reasons(self) -> Codes:
        """The reason of every rejection."""
        return self.rows.codes("reason")

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The number that decided, NaN where there is none."""
        return self.rows.numbers("value")

    def places(self, wanted: Wanted) -> Positions:
        """Row numbers of the list, in the order of the plan; other orders mean nothing here but the shuffled one."""
        keep = np.ones(len(self.rows), np.bool_)
        if wanted.stage:
            keep &= self.stages.numbers == self.stages.of(wanted.stage)
        if wanted.reason:
            keep &= self.reasons.numbers == self.reasons.of(wanted.reason)
        kept = np.flatnonzero(keep).astype(np.int32)
        return np.random.default_rng(_SHUFFLE_SEED).permutation(kept) if wanted.sort == "shuffled" else kept

    def values_of(self, stage: str, reason: str) -> NDArray[np.float64]:
        """Numbers that decided about the rejections of one stage and reason."""
        stages, reasons = self.stages, self.reasons
        is_one = (stages.numbers == stages.of(stage)) & (reasons.numbers == reasons.of(reason))
        found: NDArray[np.float64] = self.values[is_one]
        return found

    @cached_property
    def counts(self) -> list[tuple[str, str, int]]:
        """Rejections by stage and reason, in the order in which stages occur."""
        pairs = self.stages.numbers.astype(np.int64) * max(1, len(self.reasons.names)) + self.reasons.numbers
        numbers, counts = np.unique(pairs, return_counts=True)
        width = max(1, len(self.reasons.names))
        found = [
            (self.stages.names[n // width], self.reasons.names[n % width], c)
            for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)
        ]
        return sorted(found, key=lambda row: (self.stages.names.index(row[0]), -row[2], row[1]))
