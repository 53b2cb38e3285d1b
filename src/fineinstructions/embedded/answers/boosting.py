"""Fitting boosted trees to yes-or-no labels, in NumPy.

In: rows of features and labels. Out: `Trees`. Gradient boosting on logistic loss with histograms: features are cut into
at most 64 bins by quantiles, and every level of a tree takes the one feature and border that help most over all its
leaves. Rows of every tree are drawn from a seed. The decision to question: no library does this, because the base
installation has none that does, and the recipe that made a shipped file should run for everybody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.trees import Trees, sigmoid

# Shape legend: N rows, F features, E trees, L levels, B bins, X leaves.

MAX_BINS = 64


@dataclass(frozen=True)
class Boosting:
    """How trees are fitted; all values ours."""

    num_trees: int = 160
    depth: int = 5
    rate: float = 0.1
    """Share of a tree's own optimum that is taken."""
    min_weight: float = 20.0
    """Least hessian in a leaf, so that a leaf speaks for some dozens of rows."""
    ridge: float = 5.0
    share: float = 0.5
    """Share of the rows, and of the features, that a tree sees."""
    seed: int = 20260122


def fit_trees(
    rows_nf: NDArray[np.float32],
    labels_n: NDArray[np.bool_],
    how: Boosting | None = None,
    weights_n: NDArray[np.float64] | None = None,
) -> Trees:
    """Fit trees that tell labelled rows apart.

    Args:
        rows_nf: Features; every value finite.
        labels_n: Whether a row is right; both kinds must occur.
        how: Settings.
        weights_n: How much a row counts; all the same where nothing is given.

    Returns:
        Trees whose scores are log-odds.

    Raises:
        ValueError: If all labels are the same.
    """
    how = how or Boosting()
    if labels_n.all() or not labels_n.any():
        raise ValueError("trees need rows of both kinds, and all labels are the same")
    weights_n = np.ones(len(rows_nf)) if weights_n is None else weights_n
    borders = [_borders(rows_nf[:, column]) for column in range(rows_nf.shape[1])]
    bins_nf = np.stack([np.searchsorted(b, rows_nf[:, k]) for k, b in enumerate(borders)], axis=1).astype(np.int32)
    targets_n = labels_n.astype(np.float64)
    share = float((targets_n * weights_n).sum() / weights_n.sum())
    start = float(np.log(share / (1.0 - share)))
    scores_n = np.full(len(rows_nf), start, np.float32)
    generator = np.random.Generator(np.random.PCG64(how.seed))
    features, thresholds, leaves = [], [], []
    for _ in range(how.num_trees):
        sample = np.flatnonzero(generator.random(len(rows_nf)) < how.share)
        chances_n = sigmoid(scores_n[sample]).astype(np.float64)
        gradient = (targets_n[sample] - chances_n) * weights_n[sample]
        hessian = np.maximum(chances_n * (1.0 - chances_n), 1e-6) * weights_n[sample]
        seen = np.flatnonzero(generator.random(rows_nf.shape[1]) < how.share)
        seen = seen if len(seen) else np.arange(rows_nf.shape[1])
        levels, values_x = _tree(bins_nf[np.ix_(sample, seen)], gradient, hessian, how)
        levels = [(int(seen[feature]), border) for feature, border in levels]
        features.append([feature for feature, _ in levels])
        thresholds.append([_threshold(borders[feature], border) for feature, border in levels])
        leaves.append(how.rate * values_x)
        leaf_n = sum((bins_nf[:, f] > b).astype(np.int64) << level for level, (f, b) in enumerate(levels))
        scores_n += leaves[-1][leaf_n].astype(np.float32)
    return Trees(np.array(features), np.array(thresholds, np.float32), np.array(leaves, np.float32), start)


def _borders(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Borders between bins: quantiles of the distinct values, without the largest."""
    distinct = np.unique(column)
    if len(distinct) > MAX_BINS:
        distinct = np.unique(np.quantile(column, np.linspace(0.0, 1.0, MAX_BINS + 1)[:-1], method="lower"))
        return np.asarray(distinct, np.float32)
    return np.asarray(distinct[:-1], np.float32)


def _threshold(borders: NDArray[np.float32], border: int) -> float:
    return float(borders[border]) if border < len(borders) else float("inf")


def _tree(
    bins_nf: NDArray[np.int32], gradient_n: NDArray[np.float64], hessian_n: NDArray[np.float64], how: Boosting
) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """Levels as (feature, border) and the value of every leaf."""
    num_features = bins_nf.shape[1]
    size = num_features * (MAX_BINS + 1)
    cells_nf = bins_nf + np.arange(num_features, dtype=np.int32) * (MAX_BINS + 1)
    leaf_n = np.zeros(len(bins_nf), np.int32)
    levels: list[tuple[int, int]] = []
    wide = [np.repeat(values, num_features) for values in (gradient_n, hessian_n)]
    for level in range(how.depth):
        places = (cells_nf + leaf_n[:, None] * size).ravel()
        num_leaves = 1 << level
        sums = [np.bincount(places, w, num_leaves * size).reshape(num_leaves, num_features, -1) for w in wide]
        low_g, low_h = (s.cumsum(axis=2) for s in sums)
        all_g, all_h = low_g[:, :, -1:], low_h[:, :, -1:]
        gain_xfb = _worth(low_g, low_h, how) + _worth(all_g - low_g, all_h - low_h, how) - _worth(all_g, all_h, how)
        total_fb = np.where((low_h < how.min_weight) | (all_h - low_h < how.min_weight), 0.0, gain_xfb).sum(axis=0)
        feature, border = divmod(int(total_fb.argmax()), MAX_BINS + 1)
        levels.append((feature, border))
        leaf_n += (bins_nf[:, feature] > border).astype(np.int32) << level
    gradient_x = np.bincount(leaf_n, gradient_n, 1 << how.depth)
    hessian_x = np.bincount(leaf_n, hessian_n, 1 << how.depth)
    return levels, gradient_x / (hessian_x + how.ridge)


def _worth(gradient: NDArray[np.float64], hessian: NDArray[np.float64], how: Boosting) -> NDArray[np.float64]:
    return np.asarray(gradient * gradient / (hessian + how.ridge))
