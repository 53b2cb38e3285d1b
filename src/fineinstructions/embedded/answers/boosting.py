"""Fitting boosted trees to yes-or-no labels with LightGBM, and taking them out of it.

In: rows of features and labels. Out: `Trees`, which need no library. LightGBM comes with the extra ``train``; one
thread, fixed seeds and its deterministic mode give the same trees for the same rows on one machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.trees import Trees
from fineinstructions.errors import ConfigError

# Shape legend: N rows, F features.


@dataclass(frozen=True)
class Boosting:
    """How trees are fitted; all values ours, between what was tried on stories alone and on pages alone."""

    num_trees: int = 300
    num_leaves: int = 20
    depth: int = 6
    rate: float = 0.045
    min_rows: int = 40
    """Least rows of a leaf."""
    ridge: float = 10.0
    share_of_features: float = 0.3
    share_of_rows: float = 0.7
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
        ConfigError: If LightGBM is not installed.
    """
    how = how or Boosting()
    if labels_n.all() or not labels_n.any():
        raise ValueError("trees need rows of both kinds, and all labels are the same")
    lightgbm = _lightgbm()
    settings = {
        "objective": "binary",
        "learning_rate": how.rate,
        "num_leaves": how.num_leaves,
        "max_depth": how.depth,
        "min_data_in_leaf": how.min_rows,
        "lambda_l2": how.ridge,
        "feature_fraction": how.share_of_features,
        "bagging_fraction": how.share_of_rows,
        "bagging_freq": 1,
        "max_bin": 63,
        "seed": how.seed,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    table = lightgbm.Dataset(rows_nf, labels_n.astype(np.int32), weight=weights_n)
    return exported(lightgbm.train(settings, table, how.num_trees).dump_model()["tree_info"])


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise ConfigError("trees: learning needs lightgbm; run pip install 'fineinstructions[train]'") from None
    return lightgbm


def exported(dumped: Sequence[Mapping[str, Any]]) -> Trees:
    """LightGBM's trees, as it dumps them: nodes of all trees in one list, every tree breadth first."""
    roots: list[int] = []
    features: list[int] = []
    thresholds: list[float] = []
    children: list[list[int]] = []
    values: list[float] = []
    deepest = 0
    for tree in dumped:
        level, depth = [tree["tree_structure"]], 0
        roots.append(len(features))
        while level:
            below: list[Mapping[str, Any]] = []
            first = len(features) + len(level)
            for node in level:
                leaf = "leaf_value" in node
                place = len(features)
                features.append(0 if leaf else node["split_feature"])
                thresholds.append(0.0 if leaf else node["threshold"])
                values.append(node["leaf_value"] if leaf else 0.0)
                children.append([place, place] if leaf else [first + len(below), first + len(below) + 1])
                below += [] if leaf else [node["left_child"], node["right_child"]]
            level, depth = below, depth + bool(below)
        deepest = max(deepest, depth)
    return Trees(
        np.array(roots, np.int32),
        np.array(features, np.int16),
        np.array(thresholds, np.float64),
        np.array(children, np.int32).reshape(-1, 2),
        np.array(values, np.float32),
        deepest,
    )
