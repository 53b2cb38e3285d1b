"""Boosted trees as a few arrays, evaluated by NumPy alone.

In: rows of features. Out: one raw score per row. All trees lie behind one another in the same arrays, and a leaf has
itself as both children, so that every row walks down all trees at once, one array expression per level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Shape legend: N rows, F features, E trees, M nodes of all trees together.


@dataclass(frozen=True)
class Trees:
    """A sum of trees."""

    roots_e: NDArray[np.int32]
    """First node of every tree."""
    features_m: NDArray[np.int16]
    """Feature that a node looks at; 0 at a leaf."""
    thresholds_m: NDArray[np.float64]
    """A row goes to the second child where its feature is above this."""
    children_m2: NDArray[np.int32]
    """Both children of a node; a leaf is its own child."""
    values_m: NDArray[np.float32]
    """What a leaf adds; 0 at other nodes."""
    depth: int
    """Most steps from a root to a leaf."""

    def scores(self, rows_nf: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores of shape (N,); for trees that were fitted to labels, the logarithm of the odds."""
        num_rows, num_features = rows_nf.shape
        values, children = rows_nf.ravel(), self.children_m2.ravel()
        offsets_n1 = (np.arange(num_rows) * num_features)[:, None]
        nodes_ne = np.broadcast_to(self.roots_e, (num_rows, len(self.roots_e)))
        for _ in range(self.depth):
            above_ne = values.take(offsets_n1 + self.features_m.take(nodes_ne)) > self.thresholds_m.take(nodes_ne)
            nodes_ne = children.take(2 * nodes_ne + above_ne)
        return np.asarray(self.values_m.take(nodes_ne).sum(axis=1, dtype=np.float64), np.float32)

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The arrays of a file, under names that begin with `name`."""
        return {
            f"{name}.roots": self.roots_e,
            f"{name}.features": self.features_m,
            f"{name}.thresholds": self.thresholds_m,
            f"{name}.children": self.children_m2,
            f"{name}.values": self.values_m,
            f"{name}.depth": np.array([self.depth], np.int32),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Trees":
        """Trees from what `arrays` gave."""
        return cls(
            arrays[f"{name}.roots"],
            arrays[f"{name}.features"],
            arrays[f"{name}.thresholds"],
            arrays[f"{name}.children"],
            arrays[f"{name}.values"],
            int(arrays[f"{name}.depth"][0]),
        )


def no_trees() -> Trees:
    """Trees that give every row 0."""
    nothing = np.zeros(0, np.int32)
    return Trees(nothing, nothing.astype(np.int16), np.zeros(0), nothing.reshape(0, 2), np.zeros(0, np.float32), 0)


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities from log-odds.

    Example:
        >>> sigmoid(np.zeros(1, np.float32)).tolist()
        [0.5]
    """
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -30.0, 30.0))), np.float32)
