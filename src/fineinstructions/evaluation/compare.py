"""Two evaluations of the same items, item by item: is one model better, and could it be chance?

In: item scores of two models on one benchmark. Out: a `Comparison`: both figures, their difference with an interval of
a paired bootstrap, the chance of such a difference between models that are alike, and who wins how often. The decision
to question: items (dialogues, in MT-Bench-101) are drawn for both models together, because an item that is hard for one
is hard for the other; so far fewer items are needed than if two intervals were laid side by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.evaluation.items import ItemScore
from fineinstructions.evaluation.scoring import RESAMPLES, grouped
from fineinstructions.statistics import interval_of, numbered, resampled_rows

SWAPS = 10_000
_SWAPS_AT_ONCE = 500
MEAN_OF_PARTS = frozenset({"mt_bench_101"})
"""Benchmarks whose main figure is the mean over parts; that of the others is the mean over items."""
Interval = tuple[float, float] | None
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How model B does against model A on one benchmark."""

    benchmark: str
    first: str
    """Model A."""
    second: str
    """Model B."""
    items: int
    """Items (dialogues) that both have a score for; the comparison is about them."""
    left_out: int
    """Items that only one of them has."""
    first_value: float
    second_value: float
    difference: float
    """Of the benchmark's main figure, B less A."""
    interval: Interval
    """95 % of a paired bootstrap."""
    p_value: float
    """Chance of a difference as large if every item's two scores were swapped by the toss of a coin."""
    wins: int
    """Items on which B scores higher."""
    ties: int
    losses: int
    win_rate: float
    """Wins and half of the ties."""
    win_rate_interval: Interval
    unparsed: tuple[int, int]
    """Items with an unread judgement, of A and of B; they count as worth nothing."""
    position_bias: tuple[float | None, float | None]
    """How much oftener than half the judge preferred what stood first, beside A and beside B; AlpacaEval alone."""
    is_plumbing: bool = False
    """Whether a judge of either follows a script."""


def compare(
    benchmark: str, first: Sequence[ItemScore], second: Sequence[ItemScore], names: tuple[str, str], seed: int
) -> Comparison:
    """Compare two models on the items that both have.

    Args:
        benchmark: Name of the benchmark.
        first: Item scores of model A.
        second: Item scores of model B.
        names: Of the two models.
        seed: Decides resamples and coins.

    Raises:
        ValueError: If there is no common item.

    Source:
        Efron and Tibshirani 1993, chapters 13 and 15; one is added to both counts of the p-value, so it is never 0.
    """
    of_a, of_b = ({s.item_id: s for s in grouped(benchmark, scores)} for scores in (first, second))
    common = [name for name in of_a if name in of_b]
    if not common:
        raise ValueError("no common item")
    a, b = [of_a[name] for name in common], [of_b[name] for name in common]
    part_of = numbered(s.part if benchmark in MEAN_OF_PARTS else "" for s in a)
    scores_a, scores_b = (np.array([s.score for s in scores]) for scores in (a, b))
    gains, outcomes = scores_b - scores_a, np.sign(scores_b - scores_a)
    drawn = list(resampled_rows(range(len(common)), seed, RESAMPLES)) if len(common) > 1 else []
    return Comparison(
        benchmark=benchmark,
        first=names[0],
        second=names[1],
        items=len(common),
        left_out=len(of_a.keys() ^ of_b.keys()),
        first_value=mean_of_parts(scores_a, part_of),
        second_value=mean_of_parts(scores_b, part_of),
        difference=mean_of_parts(gains, part_of),
        interval=interval_of([mean_of_parts(gains[rows], part_of[rows]) for rows in drawn]),
        p_value=_chance(gains, part_of, seed),
        wins=int((outcomes > 0).sum()),
        ties=int((outcomes == 0).sum()),
        losses=int((outcomes < 0).sum()),
        win_rate=float((outcomes.mean() + 1) / 2),
        win_rate_interval=interval_of([float((outcomes[rows].mean() + 1) / 2) for rows in drawn]),
        unparsed=(sum(not s.is_parsed for s in a), sum(not s.is_parsed for s in b)),
        position_bias=(_bias(a), _bias(b)),
    )


def mean_of_parts(values: Values, part_of: NDArray[np.int64]) -> float:
    """Mean over parts of the mean in each: the main figure of every benchmark, where most have one part only.

    Example:
        >>> mean_of_parts(np.array([1.0, 0.0, 0.0, 5.0]), np.array([0, 0, 0, 1]))
        2.6666666666666665
    """
    number = np.bincount(part_of)
    means = np.bincount(part_of, values)[number > 0] / number[number > 0]
    return float(means.mean())


def _chance(gains: Values, part_of: NDArray[np.int64], seed: int) -> float:
    """Share of random swaps with a difference at least as large."""
    rng = np.random.default_rng((seed, 1))
    number = np.bincount(part_of)
    shares = gains / number[part_of] / (number > 0).sum()  # what each item adds to the difference
    as_large = 0
    for _ in range(SWAPS // _SWAPS_AT_ONCE):
        signs = rng.integers(0, 2, (_SWAPS_AT_ONCE, len(gains)), dtype=np.int8) * 2 - 1
        as_large += int((np.abs(signs @ shares) >= abs(shares.sum()) - 1e-12).sum())
    return (as_large + 1) / (SWAPS + 1)


def _bias(scores: Sequence[ItemScore]) -> float | None:
    found = [float(s.facts["first_preferred"]) for s in scores if s.facts.get("first_preferred") is not None]
    return math.fsum(found) / len(found) - 0.5 if found else None
