"""Figures of agreement, against cases worked out by hand."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.statistics import auc, average_ranks, bootstrap_interval, numbered, quadratic_kappa, spearman

SCALE = (1, 2, 3, 4, 5)
GRADES = st.lists(st.tuples(st.sampled_from(SCALE), st.sampled_from(SCALE)), min_size=2, max_size=40)


def test_kappa_by_hand():
    # Observed disagreement (0 + 1 + 0 + 4) = 5. Marginals: ours 1:1 2:1 4:1 5:1; theirs 1:1 3:2 4:1, each over 4.
    # Expected: the squared distances of all 16 combinations, (17 + 7 + 11 + 25) / 4 = 15.
    assert quadratic_kappa([1, 2, 4, 5], [1, 3, 4, 3], SCALE) == pytest.approx(1 - 5 / 15)
    # A 2 x 2 table (45, 15; 25, 15): observed 40 of 100, expected 60*30 + 40*70 = 4600 of 10,000, kappa 1 - 40 / 46.
    ours, theirs = [1] * 60 + [2] * 40, [1] * 45 + [2] * 15 + [1] * 25 + [2] * 15
    assert quadratic_kappa(ours, theirs, (1, 2)) == pytest.approx(1 - 40 / 46)


def test_kappa_has_no_meaning_without_variety():
    assert math.isnan(quadratic_kappa([3, 3], [3, 3], SCALE))
    assert math.isnan(quadratic_kappa([], [], SCALE))
    assert quadratic_kappa([3, 3], [1, 5], SCALE) == 0.0
    for wrong in ([0, 3], [6, 3], [3]):
        with pytest.raises(ValueError, match="grade"):
            quadratic_kappa(wrong, [3, 3], SCALE)


@given(GRADES)
def test_kappa_is_symmetric_and_no_more_than_one(pairs):
    ours, theirs = zip(*pairs, strict=True)
    one, other = quadratic_kappa(ours, theirs, SCALE), quadratic_kappa(theirs, ours, SCALE)
    assert one == pytest.approx(other, nan_ok=True)
    assert not one > 1
    turned = [6 - grade for grade in ours], [6 - grade for grade in theirs]
    assert quadratic_kappa(*turned, SCALE) == pytest.approx(one, nan_ok=True)


def test_spearman_by_hand():
    # Without ties 1 - 6 * sum(d^2) / (n (n^2 - 1)): d = (0, 0, -1, 1) gives 1 - 12 / 60.
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, spreads 4.5 and 5.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([2, 2, 2], [1, 2, 3]))
    assert math.isnan(spearman([1], [1]))
    with pytest.raises(ValueError, match="as many"):
        spearman([1, 2], [1])


def test_ranks_of_equal_values_are_shared():
    assert average_ranks([5, 5, 5]).tolist() == [2, 2, 2]
    assert average_ranks([3, 1, 2, 1]).tolist() == [4, 1.5, 3, 1.5]


def test_auc_by_hand():
    # Positives 3, 2 against negatives 1, 2: 3 > 1, 3 > 2, 2 > 1, and 2 = 2 counts half.
    assert auc([1, 2, 2, 3], [False, False, True, True]) == pytest.approx(3.5 / 4)
    assert auc([5, 4, 1], [True, True, False]) == 1.0
    assert auc([5, 4, 1], [False, False, True]) == 0.0
    assert auc([3, 3, 3], [True, False, True]) == 0.5
    assert math.isnan(auc([1, 2], [True, True]))
    with pytest.raises(ValueError, match="as many"):
        auc([1, 2], [True])


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_counts_pairs(rows):
    positive = [score for score, good in rows if good]
    negative = [score for score, good in rows if not good]
    wins = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    expected = wins / (len(positive) * len(negative)) if positive and negative else math.nan
    assert auc(*zip(*rows, strict=True)) == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), range(400), seed=3)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.04)
    assert high == pytest.approx(values.mean() + half, abs=0.04)
    again = bootstrap_interval(lambda rows: float(values[rows].mean()), range(400), seed=3)
    assert again == (low, high)


def test_rows_of_one_group_are_drawn_together():
    values = np.repeat(np.arange(10.0), 20)
    drawn = []

    def mean(rows):
        drawn.append(np.bincount(rows, minlength=200).reshape(10, 20))
        return float(values[rows].mean())

    grouped = bootstrap_interval(mean, np.repeat(np.arange(10), 20), seed=0)
    assert all((counts == counts[:, :1]).all() and counts[:, 0].sum() == 10 for counts in drawn)
    alone = bootstrap_interval(lambda rows: float(values[rows].mean()), range(200), seed=0)
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])


def test_groups_with_long_names_cost_what_their_names_cost():
    names = ["x" * 5_000, *(f"instruction {number % 1000}" for number in range(3000))]
    tracemalloc.start()
    numbers = numbered(names)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000
    _, as_before = np.unique(np.asarray(names), return_inverse=True)
    assert numbers.tolist() == as_before.tolist()


def test_no_interval_where_the_figure_has_none():
    assert bootstrap_interval(lambda rows: math.nan, range(50), seed=0) is None
    assert bootstrap_interval(lambda rows: 1.0, numbered(["one group"] * 50), seed=0) is None
    assert bootstrap_interval(lambda rows: 1.0, [], seed=0) is None
    # One row in twenty is positive; the resamples without any do not count.
    labels = np.arange(20) == 7
    low, high = bootstrap_interval(lambda rows: auc(labels[rows].astype(float), labels[rows]), range(20), seed=0)
    assert (low, high) == (1.0, 1.0)
