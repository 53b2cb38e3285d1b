"""What other thresholds would keep: from the scores and ratios that a run has stored, without asking a model again.

In: columns of pairs and rejections, thresholds. Out: counts that are certain, and those that are not. The decision to
question: a pair that the template cap took out does not come back, and one that comes back may still meet the cap; both
are said beside the figures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits below which nothing is kept."""

    min_score: int
    min_ratio: float
    min_cosine: float
    """-1 keeps every cosine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run would keep."""

    num_now: int
    """Pairs that it has."""
    num_kept: int
    """Those among them that stay."""
    num_back: int
    """Pairs that a low score had turned away and that would come back."""
    num_to_judge: int
    """Drafts that quote enough now, but have never been judged."""

    @property
    def num_lost(self) -> int:
        """Pairs that would go."""
        return self.num_now - self.num_kept


def outcome(
    thresholds: Thresholds,
    kept: tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float32]],
    low_scores: NDArray[np.float64],
    low_ratios: NDArray[np.float64],
) -> Outcome:
    """What thresholds would make of a run.

    Args:
        thresholds: The thresholds.
        kept: Score, excerpt ratio and cosine of every pair.
        low_scores: Scores that turned pairs away.
        low_ratios: Excerpt ratios that turned drafts away.
    """
    scores, ratios, cosines = kept
    stays = scores >= thresholds.min_score
    stays &= ratios >= thresholds.min_ratio
    stays &= cosines >= np.float32(thresholds.min_cosine)
    return Outcome(
        num_now=len(scores),
        num_kept=int(np.count_nonzero(stays)),
        num_back=int(np.count_nonzero(low_scores >= thresholds.min_score)),
        num_to_judge=int(np.count_nonzero(low_ratios >= thresholds.min_ratio)),
    )
