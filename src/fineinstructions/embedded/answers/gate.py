"""Whether a text tells, as stories and talk do, or informs, as pages and manuals do: who reads it depends on that.

In: a text's sentences. Out: yes or no. The decision to question: nothing but the look of the sentences is asked, no
title, heading, length or name of a data set, so that any document goes to the reader that has seen its like.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: N texts, M measures.

_RIDGE = 1.0
_STEPS = 12
"""Newton's steps; the slope is flat after eight."""
_FEW_WORDS = 20.0
_GROUPS = tuple(
    re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for words in (
        "he|she|him|her|his|they|them",
        "was|were|had|did|went|came|could|would",
        "is|are|has|have|may|can|do|does",
        "i|you|we|me|my|your|us",
        "this|these|such|or|other|some|many|more",
    )
)
"""Words by whose share tales and pages differ."""


def measures(sentences: Sentences) -> NDArray[np.float64]:
    """How often the sentences of a text speak, feel, point, count, list and so on, shape (M,); the last is always 1."""
    lengths = np.minimum(sentences.num_words / _FEW_WORDS, 3.0)
    text = " ".join(sentences.string(n) for n in range(len(sentences)))
    shares = [_FEW_WORDS * len(group.findall(text)) / max(1.0, sentences.num_words.sum()) for group in _GROUPS]
    return np.array([*sentences.cues.mean(axis=0), sentences.is_item.mean(), lengths.mean(), *shares, 1.0])


@dataclass(frozen=True)
class Gate:
    """A weighted sum of measures."""

    weights_m: NDArray[np.float64]

    def tells(self, sentences: Sentences) -> bool:
        """Whether a text is told; one without sentences is not."""
        return bool(len(sentences)) and float(measures(sentences) @ self.weights_m) > 0.0

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The arrays of a file, under names that begin with `name`."""
        return {f"{name}.weights": self.weights_m}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Gate":
        """A gate from what `arrays` gave."""
        return cls(arrays[f"{name}.weights"])


def learn_gate(told: Sequence[Sentences], informing: Sequence[Sentences]) -> Gate:
    """Fit a logistic regression, both sorts of text weighing the same.

    Args:
        told: Texts that tell, each with a sentence.
        informing: Texts that inform, each with a sentence.

    Raises:
        ValueError: If there is no text of one sort.
    """
    if not told or not informing:
        raise ValueError("there must be labelled questions about stories and about pages")
    rows_nm = np.stack([measures(sentences) for sentences in (*told, *informing)])
    tells_n = np.arange(len(rows_nm)) < len(told)
    share_n = np.where(tells_n, 1.0 / len(told), 1.0 / len(informing)) * len(rows_nm) / 2.0
    weights_m = np.zeros(rows_nm.shape[1])
    for _ in range(_STEPS):
        chance_n = 1.0 / (1.0 + np.exp(-np.clip(rows_nm @ weights_m, -30.0, 30.0)))
        slope_m = rows_nm.T @ (share_n * (tells_n - chance_n)) - _RIDGE * weights_m
        curve_n = share_n * chance_n * (1.0 - chance_n)
        bend_mm = rows_nm.T @ (rows_nm * curve_n[:, None]) + _RIDGE * np.eye(len(weights_m))
        weights_m = weights_m + np.linalg.solve(bend_mm, slope_m)
    return Gate(weights_m)
