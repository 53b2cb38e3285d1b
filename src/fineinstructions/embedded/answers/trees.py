"""Boosted trees as three arrays, evaluated by NumPy alone.

In: rows of features. Out: one raw score per row. The decision to question: a tree asks the same question of every row
on one level ("oblivious"), so a tree of depth L is L features and L thresholds, and a row's leaf is a number of L bits.
That costs a little accuracy per tree and makes a thousand rows through a hundred trees one array expression.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shape legend: N rows, F features, E trees, L levels of a tree.


@dataclass(frozen=True)
class Trees:
    """A sum of trees."""

    features_el: NDArray[np.int64]
    """Which feature each level of each tree looks at."""
    thresholds_el: NDArray[np.float32]
    """A row goes to the upper half where its feature is above this."""
    leaves_ex: NDArray[np.float32]
    """Value of every leaf, shape (E, 2**L)."""
    start: float
    """Score before the first tree."""

    def scores(self, rows_nf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores of shape (N,); for trees that were fitted to labels, the logarithm of the odds."""
        num_trees, num_levels = self.features_el.shape
        above_nel = rows_nf[:, self.features_el] > self.thresholds_el
        leaf_ne = above_nel @ (1 << np.arange(num_levels))
        return np.asarray(self.start + self.leaves_ex[np.arange(num_trees), leaf_ne].sum(axis=1), np.float32)

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The arrays of a file, under names that begin with `name`."""
        return {
            f"{name}.features": self.features_el.astype(np.int16),
            f"{name}.thresholds": self.thresholds_el,
            f"{name}.leaves": self.leaves_ex,
            f"{name}.start": np.array([self.start], np.float64),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> "Trees":
        """Trees from what `arrays` gave."""
        return cls(
            arrays[f"{name}.features"].astype(np.int64),
            arrays[f"{name}.thresholds"].astype(np.float32),
            arrays[f"{name}.leaves"].astype(np.float32),
            float(arrays[f"{name}.start"].astype(np.float64)[0]),
        )


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities from log-odds.

    Example:
        >>> sigmoid(np.zeros(1, np.float32)).tolist()
        [0.5]
    """
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -30.0, 30.0))), np.float32)
