"""The answer model: sentences ranked, a span chosen, a question refused, a pair judged.

In: questions and documents. Out: chances between 0 and 1. All was fitted by `learn` to people's questions about stories
and health pages; nothing is asked of a network and nothing is random.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations, packed, unpacked
from fineinstructions.embedded.answers.evidence import answer_features, document_features
from fineinstructions.embedded.answers.features import sentence_features
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question, read_question
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import Trees, sigmoid

FILES = ("answers.npz", "answers.json")


@dataclass(frozen=True)
class Asked:
    """A question that was put to a document."""

    question: Question
    sentences: Sentences
    chances: NDArray[np.float32]
    """Chance of every sentence to be in the answer, shape (S,)."""


@dataclass(frozen=True)
class AnswerModel:
    """What has been learned, and the thresholds that go with it."""

    rarity: Rarity
    associations: Associations
    ranker: Trees
    refuser: Trees
    judge: Trees
    cut: float
    """Chance above which a sentence adds to a span."""
    min_answerable: float
    """`answerable` below this is refused; nine of ten answerable questions are above."""
    min_fitting: float
    """`fitting` below this is no answer; nine of ten right pairs are above."""

    def ask(self, text: str, sentences: Sentences) -> Asked:
        """Put a question to a document that has at least one sentence."""
        question = read_question(text, self.associations)
        rows = sentence_features(question, sentences, self.rarity, self.associations)
        chances = sigmoid(self.ranker.scores(rows)) if len(sentences) else np.zeros(0, np.float32)
        return Asked(question, sentences, chances)

    def answerable(self, asked: Asked) -> float:
        """Chance that the document holds the answer."""
        if not len(asked.sentences):
            return 0.0
        row = document_features(asked.question, asked.sentences, asked.chances, self.rarity, self.associations)
        return float(sigmoid(self.refuser.scores(row[None, :]))[0])

    def fitting(self, asked: Asked, spans: Sequence[tuple[int, int]]) -> float:
        """Chance that some spans of the document are the answer."""
        if not len(asked.sentences):
            return 0.0
        row = answer_features(asked.question, asked.sentences, asked.chances, spans, self.rarity, self.associations)
        return float(sigmoid(self.judge.scores(row[None, :]))[0])

    def span(self, asked: Asked) -> tuple[int, int]:
        """First and behind the last sentence of the run that gains most above `cut`."""
        return best_run(asked.chances, self.cut)

    def save(self, folder: Path) -> None:
        """Write the two files."""
        words = sorted(self.rarity.passages)
        arrays: dict[str, NDArray[np.generic]] = {
            "rarity.words": packed(words),
            "rarity.passages": np.array([self.rarity.passages[w] for w in words], np.int32),
            **self.associations.arrays("associations"),
            **self.ranker.arrays("ranker"),
            **self.refuser.arrays("refuser"),
            **self.judge.arrays("judge"),
        }
        with (folder / FILES[0]).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        settings = {
            "num_passages": self.rarity.num_passages,
            "cut": self.cut,
            "min_answerable": self.min_answerable,
            "min_fitting": self.min_fitting,
        }
        (folder / FILES[1]).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "AnswerModel":
        """Read what `save` wrote."""
        settings = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
        with np.load(folder / FILES[0], allow_pickle=False) as arrays:
            words = unpacked(arrays["rarity.words"])
            passages = dict(zip(words, arrays["rarity.passages"].tolist(), strict=True))
            return cls(
                Rarity(settings["num_passages"], passages),
                Associations.read(arrays, "associations"),
                Trees.read(arrays, "ranker"),
                Trees.read(arrays, "refuser"),
                Trees.read(arrays, "judge"),
                settings["cut"],
                settings["min_answerable"],
                settings["min_fitting"],
            )


def best_run(chances_s: NDArray[np.float32], cut: float) -> tuple[int, int]:
    """The run with the largest sum of chances above a cut; at least the best sentence.

    Example:
        >>> best_run(np.array([0.1, 0.6, 0.2, 0.7, 0.0], np.float32), 0.3)
        (1, 4)
    """
    best, found = -1.0, (0, 0)
    start, total = 0, 0.0
    for number, gain in enumerate((chances_s - cut).tolist()):
        if total <= 0.0:
            start, total = number, 0.0
        total += gain
        if total > best:
            best, found = total, (start, number + 1)
    return found


_KEPT_DOCUMENTS = 8


class DocumentShelf:
    """The sentences of the last few documents, so that many questions to one document read it once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Sentences] = OrderedDict()

    def sentences(self, text: str, title: str) -> Sentences:
        """The document's sentences."""
        key = (text, title)
        if key not in self._kept:
            self._kept[key] = Sentences(text, title)
            while len(self._kept) > _KEPT_DOCUMENTS:
                self._kept.popitem(last=False)
        return self._kept[key]
