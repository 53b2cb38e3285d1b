"""Figures of agreement between a judge and labels, and how far they can be trusted.

In: arrays of scores and labels. Out: one number, or NaN where the figure has no meaning (a judge that gives one score
only has no rank correlation with anything). The decision to question: rows that belong together, such as answers to one
question, are drawn together by the bootstrap, so that many answers to few questions do not look like many questions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Row numbers, with repetitions."""


def quadratic_kappa(ours: Sequence[int], theirs: Sequence[int], scale: Sequence[int]) -> float:
    """Cohen's kappa of two graders, disagreements weighted by the square of their distance on a scale.

    Args:
        ours: Grades of one grader.
        theirs: Grades of the other, in the same order.
        scale: All grades there are, rising by one.

    Returns:
        1 for the same grades, 0 for what chance gives two graders with these habits, negative below that; NaN where
        both give one and the same grade throughout, or there are no grades.

    Raises:
        ValueError: If the grades differ in number or lie off the scale.

    Source:
        Cohen 1968, "Weighted kappa".

    Example:
        >>> quadratic_kappa([1, 2, 3], [1, 2, 3], [1, 2, 3]), quadratic_kappa([1, 3], [3, 1], [1, 2, 3])
        (1.0, -1.0)
    """
    first, second = np.asarray(ours, np.int64) - scale[0], np.asarray(theirs, np.int64) - scale[0]
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} grades; give as many of both")
    size = len(scale)
    if first.size and not all(grades.min() >= 0 and grades.max() < size for grades in (first, second)):
        raise ValueError(f"a grade lies off the scale from {scale[0]} to {scale[-1]}")
    observed = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    number = observed.sum()
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(1, number)
    distance = np.subtract.outer(np.arange(size), np.arange(size)) ** 2
    by_chance = float((distance * expected).sum())
    return 1 - float((distance * observed).sum()) / by_chance if by_chance > 0 else math.nan


def average_ranks(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 upwards; equal values share the mean of their ranks.

    Example:
        >>> average_ranks([10, 30, 20, 20]).tolist()
        [1.0, 4.0, 2.5, 2.5]
    """
    _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return shared


def spearman(ours: Sequence[float] | NDArray[np.float64], theirs: Sequence[float] | NDArray[np.float64]) -> float:
    """Rank correlation of two series, ties at their mean rank.

    Returns:
        -1 to 1; NaN where one of them does not vary, or there are fewer than two values.

    Raises:
        ValueError: If they differ in length.

    Example:
        >>> spearman([1, 2, 3, 4], [10, 20, 40, 30])
        0.8
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values; give as many of both")
    if len(ours) < 2:
        return math.nan
    first, second = (ranks - ranks.mean() for ranks in (average_ranks(ours), average_ranks(theirs)))
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread > 0 else math.nan


def auc(scores: Sequence[float] | NDArray[np.float64], is_positive: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Chance that a positive row scores higher than a negative one, equal scores counted half: the area under the ROC.

    Returns:
        0 to 1, 0.5 for scores that tell nothing; NaN where there are not both kinds of rows.

    Raises:
        ValueError: If there are not as many labels as scores.

    Source:
        Mann and Whitney 1947.

    Example:
        >>> auc([1, 2, 2, 3], [False, False, True, True])
        0.875
    """
    positive = np.asarray(is_positive, np.bool_)
    if len(scores) != len(positive):
        raise ValueError(f"{len(scores)} scores and {len(positive)} labels; give as many of both")
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not (num_positive and num_negative):
        return math.nan
    above = float(average_ranks(scores)[positive].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * num_negative)


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN where there is none.

    Example:
        >>> mean([1, 2, 6]), math.isnan(mean([]))
        (3.0, True)
    """
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def numbered(groups: Iterable[str]) -> NDArray[np.int64]:
    """Number of every row's group, from 0 in the order of the groups' names.

    Example:
        >>> numbered(["sea", "air", "sea"]).tolist()
        [1, 0, 1]
    """
    names = list(groups)
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.fromiter((numbers[name] for name in names), np.int64, len(names))


def bootstrap_interval(
    figure: Callable[[Rows], float],
    group_of: Sequence[int] | NDArray[np.int64],
    seed: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of a figure over resampled groups of rows.

    Args:
        figure: From row numbers, with repetitions, to the figure; NaN where it has no meaning for them.
        group_of: Number of every row's group, none left out from 0 on, see `numbered`; rows of one group are drawn
            together. Give every row its own for independent rows.
        seed: Decides what is drawn.
        resamples: How often.
        level: Share of the resamples that lie inside.

    Returns:
        Lower and upper end; None with fewer than two groups, or where the figure has no meaning for most resamples.

    Source:
        Efron and Tibshirani 1993, chapter 13; drawing groups is the cluster bootstrap.
    """
    if len(np.unique(np.asarray(group_of, np.int64))) < 2:
        return None
    return interval_of([figure(rows) for rows in resampled_rows(group_of, seed, resamples)], level)


def resampled_rows(group_of: Sequence[int] | NDArray[np.int64], seed: int, resamples: int = 1000) -> Iterator[Rows]:
    """Row numbers of bootstrap resamples: as many groups as there are, drawn with repetitions, each with all its rows.

    Args:
        group_of: Number of every row's group, as for `bootstrap_interval`; at least one row.
        seed: Decides what is drawn.
        resamples: How many there are.
    """
    numbers = np.asarray(group_of, np.int64)
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = rng.integers(0, len(sizes), len(sizes))
        lengths = sizes[drawn]
        first = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(starts[drawn] - first, lengths)
        yield order[places]


def interval_of(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of a figure's values in resamples; None where it has no meaning for most of them."""
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    if not len(found) or 2 * len(found) <= len(values):
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values made larger so that the chance of one false alarm among all of them stays what a single one has.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    made, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        made[place] = least
    return made


def wilson_interval(num_hits: int, number: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share, right for few rows and for shares near 0 and 1.

    Args:
        num_hits: Rows that have it.
        number: Rows in all.
        level: Of confidence, one of 0.9, 0.95 and 0.99.

    Returns:
        Lower and upper end; 0 to 1 without rows.

    Source:
        Wilson 1927.

    Example:
        >>> [round(end, 3) for end in wilson_interval(7, 50)]
        [0.07, 0.262]
    """
    if not number:
        return 0.0, 1.0
    z = {0.9: 1.6448536, 0.95: 1.9599640, 0.99: 2.5758293}[level]
    share = num_hits / number
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    low = 0.0 if num_hits == 0 else middle - half
    return max(0.0, low), 1.0 if num_hits == number else min(1.0, middle + half)


def shares(counts: Sequence[float] | NDArray[np.float64], smoothing: float = 0.5) -> NDArray[np.float64]:
    """Shares of counts, each raised by a little, so that none is 0; counts may be rows of a matrix."""
    raised = np.asarray(counts, np.float64) + smoothing
    found: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return found


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of shares p from shares q in bits, along the last axis.

    Example:
        >>> float(kl_divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75]))).__round__(4)
        0.2075
    """
    found: NDArray[np.float64] = (p * np.log2(p / q)).sum(axis=-1)
    return found


def js_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence in bits, 0 for the same shares, 1 for shares that have nothing in common."""
    middle = (p + q) / 2
    return (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2


def pearson(ours: Sequence[float] | NDArray[np.float64], theirs: Sequence[float] | NDArray[np.float64]) -> float:
    """Linear correlation of two series; NaN where one does not vary.

    Example:
        >>> round(pearson([1, 2, 3], [2, 4, 6]), 6)
        1.0
    """
    first, second = (np.asarray(v, np.float64) for v in (ours, theirs))
    if len(first) < 2:
        return math.nan
    first, second = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread > 0 else math.nan


def power_fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Factor a, exponent b and r squared of ``y = a * x ** b``, by least squares of the logarithms.

    Returns:
        NaN thrice where x does not vary.

    Example:
        >>> [round(v, 6) for v in power_fit([1, 10, 100], [2, 20, 200])]
        [2.0, 1.0, 1.0]
    """
    if len(set(x)) < 2:
        return math.nan, math.nan, math.nan
    logs_x, logs_y = np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64))
    exponent, offset = np.polyfit(logs_x, logs_y, 1)
    correlation = pearson(logs_x, logs_y)
    return float(np.exp(offset)), float(exponent), 1.0 if math.isnan(correlation) else correlation**2


def ratio_interval(
    tops: NDArray[np.float64],
    bottoms: NDArray[np.float64],
    seed: int,
    *,
    less_tops: NDArray[np.float64] | None = None,
    less_bottoms: NDArray[np.float64] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a ratio of sums, or of the difference of two, over drawn repetitions and items.

    Repetitions (seeds of a training) and items are drawn independently of each other; of a difference both sides get
    the same ones, so that what is hard for both does not widen the interval.

    Args:
        tops: Numerators, shape (S, I): repetitions and items.
        bottoms: Denominators of the same shape, above 0.
        seed: Decides what is drawn.
        less_tops: Numerators of what is taken away, of the same shape.
        less_bottoms: Their denominators.
        resamples: How often.
        level: Share of the resamples that lie inside.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If shapes differ, or there is nothing.

    Source:
        Efron and Tibshirani 1993, chapter 13; drawing both ways is the "pigeonhole" bootstrap of Owen 2007, which is
        rather too wide than too narrow.

    Example:
        >>> tops = np.array([[1.0, 2.0, 3.0]])
        >>> ratio_interval(tops, np.ones((1, 3)), 0, less_tops=tops, less_bottoms=np.ones((1, 3)))
        (0.0, 0.0)
    """
    sides = [(tops, bottoms)] + ([(less_tops, less_bottoms)] if less_tops is not None else [])
    if not tops.size or any(part is None or part.shape != tops.shape for side in sides for part in side):
        raise ValueError("numerators and denominators differ in shape, or there are none")
    num_seeds, num_items = tops.shape
    rng = np.random.default_rng(seed)
    values = np.empty(resamples)
    for place in range(resamples):
        seeds_s = np.bincount(rng.integers(0, num_seeds, num_seeds), minlength=num_seeds)
        items_i = np.bincount(rng.integers(0, num_items, num_items), minlength=num_items)
        ratios = [float(seeds_s @ top @ items_i) / float(seeds_s @ bottom @ items_i) for top, bottom in sides]  # type: ignore[operator]
        values[place] = ratios[0] - (ratios[1] if len(ratios) > 1 else 0.0)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
