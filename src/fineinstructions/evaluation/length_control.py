"""The win rate that a model would have if its answers were as long as the baseline's.

In: preferences and lengths, and on demand what AlpacaEval publishes about its items. Out: a win rate. Two quantities
must not be taken for each other: AlpacaEval 2's own figure, by its coefficients of a model (``official_win_rate``) or
by its regression with its items (``controlled_win_rate``), and a regression over one model's answers alone
(``style_win_rate``), which is of the same kind and called LC-style wherever it is shown.

Source: Dubois et al. 2024 (arXiv:2404.04475): logistic regression of the preference on the hyperbolic tangent of the
standardised difference in length, the difficulty of the instruction, and a constant; the length term is set to 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEPS = 100
_RIDGE = 1.0
"""Weight of a quadratic penalty on all coefficients but the constant: few wins over a much longer baseline would else
decide the whole correction. Ours."""

_LEAST = 1e-6
"""The same for the constant, so that it stays finite where every preference is the same."""

_GAMED_WEIGHT = 0.2
"""Of the baseline's own answers at other lengths, all of an item's together. As in the original."""

Vector = NDArray[np.float64]


def length_term(model_chars: Sequence[int], baseline_chars: Sequence[int]) -> Vector:
    """Hyperbolic tangent of the standardised difference in length; positive where the baseline is longer.

    Args:
        model_chars: Length of each answer of the model.
        baseline_chars: Length of each answer of the baseline.
    """
    difference = np.asarray(baseline_chars, np.float64) - np.asarray(model_chars, np.float64)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)


def style_win_rate(
    preferences: Sequence[float],
    model_chars: Sequence[int],
    baseline_chars: Sequence[int],
    difficulty: Sequence[float] | None = None,
) -> float:
    """Win rate by a regression over these answers alone, LC-style.

    Args:
        preferences: For each item how far the model is preferred, 0 to 1.
        model_chars: Length of its answer.
        baseline_chars: Length of the baseline's.
        difficulty: Official difficulty of each instruction; without it the term is left out.

    Returns:
        0 to 1; NaN for fewer than three items.

    Example:
        >>> round(style_win_rate([1, 1, 0, 0] * 50, [10, 10, 90, 90] * 50, [50] * 200), 2)
        0.5
    """
    wanted = np.asarray(preferences, np.float64)
    if len(wanted) < 3:
        return float("nan")
    columns = [np.ones_like(wanted), length_term(model_chars, baseline_chars)]
    columns += [] if difficulty is None else [np.asarray(difficulty, np.float64)]
    terms = np.stack(columns, axis=1)
    ridge = np.array([_LEAST, *[_RIDGE] * (len(columns) - 1)])
    return _at_equal_length(terms, _fit(terms, wanted, np.ones_like(wanted), ridge))


def controlled_win_rate(
    preferences: Sequence[float],
    model_chars: Sequence[int],
    baseline_chars: Sequence[int],
    difficulty: Sequence[float],
    gamed: Sequence[Sequence[tuple[float, float]]],
) -> float:
    """AlpacaEval 2's length-controlled win rate, by its regression with its items.

    Args:
        preferences: For each item how far the model is preferred, 0 to 1.
        model_chars: Length of its answer.
        baseline_chars: Length of the baseline's.
        difficulty: Published difficulty of each instruction.
        gamed: For each item the published judgements of the baseline's own answers at other lengths: standardised
            difference in length, and how far they are preferred, 0 to 1.

    Returns:
        0 to 1; NaN for fewer than three items.

    Source:
        ``alpaca_eval`` 0.6.6, ``glm_winrate.py``. It penalises the sum of absolute coefficients by a weight that it
        finds by cross-validation, which comes out next to none; here there is next to none.
    """
    wanted = np.asarray(preferences, np.float64)
    if len(wanted) < 3:
        return float("nan")
    hard = np.asarray(difficulty, np.float64)
    terms = np.stack([np.ones_like(wanted), length_term(model_chars, baseline_chars), hard], axis=1)
    beside = [
        (np.array([0.0, np.tanh(length), value]), preferred, _GAMED_WEIGHT / len(rows))
        for rows, value in zip(gamed, hard.tolist(), strict=True)
        for length, preferred in rows
    ]
    more, preferred, weight = (np.array(column) for column in zip(*beside, strict=True))
    weights = _fit(
        np.concatenate([terms, more]),
        np.concatenate([wanted, preferred]),
        np.concatenate([np.ones_like(wanted), weight]),
        np.full(3, _LEAST),
    )
    return _at_equal_length(terms, weights)


def official_win_rate(constant: float, slope: float, difficulty: Sequence[float]) -> float:
    """AlpacaEval 2's length-controlled win rate of a model, from its published coefficients.

    Args:
        constant: The model's coefficient ``not_gamed_baseline``, less the baseline's.
        slope: The model's coefficient ``instruction_difficulty``, less the baseline's.
        difficulty: Published difficulty of each instruction.
    """
    return float(_logistic(constant + slope * np.asarray(difficulty, np.float64)).mean())


def _logistic(values: Vector) -> Vector:
    found: Vector = np.exp(-np.logaddexp(0, -values))
    return found


def _at_equal_length(terms: Vector, weights: Vector) -> float:
    """Mean of the predicted preferences, without the length term, which stands second."""
    level = terms.copy()
    level[:, 1] = 0.0
    return float(_logistic(level @ weights).mean())


def _fit(terms: Vector, wanted: Vector, weight: Vector, ridge: Vector) -> Vector:
    """Coefficients of a logistic regression on shares, by Newton's method with halved steps.

    Args:
        terms: A row of terms for each share.
        wanted: The shares.
        weight: How much each row counts.
        ridge: Weight of a quadratic penalty on each coefficient.
    """
    weights = np.zeros(terms.shape[1])

    def loss(at: Vector) -> float:
        values = terms @ at
        return float((weight * (np.logaddexp(0, values) - wanted * values)).sum() + (ridge * at) @ at / 2)

    for _ in range(_STEPS):
        chance = _logistic(terms @ weights)
        slope = terms.T @ (weight * (chance - wanted)) + ridge * weights
        curve = (terms * (weight * chance * (1 - chance))[:, None]).T @ terms + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if float(np.abs(step).max()) < 1e-9:
            break
    return weights
