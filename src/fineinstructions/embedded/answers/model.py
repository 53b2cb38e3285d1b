"""The answer model: sentences ranked, a span chosen, a question refused, a pair judged.

In: questions and documents. Out: chances between 0 and 1. All was fitted by `learn` to people's questions about stories
and health pages; nothing is asked of a network and nothing is random. The decision to question: there are two readers,
and which one reads a text depends on whether it tells or informs, because what answers looks different in a story.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations, packed, unpacked
from fineinstructions.embedded.answers.evidence import answer_features, document_features
from fineinstructions.embedded.answers.features import sentence_features
from fineinstructions.embedded.answers.gate import Gate
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question, read_question
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import Trees, sigmoid

FILES = ("answers.npz", "answers.json")
STORY, PAGE = "story", "page"
"""Names of the readers: of texts that tell, and of texts that inform."""


@dataclass(frozen=True)
class Reader:
    """What has been learned about one sort of text."""

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

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The arrays of a file, under names that begin with `name`."""
        return {
            **self.associations.arrays(f"{name}.associations"),
            **self.ranker.arrays(f"{name}.ranker"),
            **self.refuser.arrays(f"{name}.refuser"),
            **self.judge.arrays(f"{name}.judge"),
        }

    def thresholds(self) -> dict[str, float]:
        """What is no array."""
        return {"cut": self.cut, "min_answerable": self.min_answerable, "min_fitting": self.min_fitting}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], thresholds: Mapping[str, float], name: str) -> "Reader":
        """A reader from what `arrays` and `thresholds` gave."""
        ranker, refuser, judge = (Trees.read(arrays, f"{name}.{part}") for part in ("ranker", "refuser", "judge"))
        return cls(
            Associations.read(arrays, f"{name}.associations"),
            ranker,
            refuser,
            judge,
            *(thresholds[part] for part in ("cut", "min_answerable", "min_fitting")),
        )


@dataclass(frozen=True)
class Asked:
    """A question that was put to a document."""

    question: Question
    sentences: Sentences
    reader: Reader
    rows: NDArray[np.float32]
    """What was measured at every sentence, shape (S, F)."""
    chances: NDArray[np.float32]
    """Chance of every sentence to be in the answer, shape (S,)."""


@dataclass(frozen=True)
class AnswerModel:
    """Two readers, and the gate that tells which of them reads a text."""

    rarity: Rarity
    gate: Gate
    readers: Mapping[str, Reader]
    """By `STORY` and `PAGE`."""

    def sort(self, sentences: Sentences) -> str:
        """Which reader a text is for."""
        return STORY if self.gate.tells(sentences) else PAGE

    def ask(self, text: str, sentences: Sentences) -> Asked:
        """Put a question to a document."""
        reader = self.readers[self.sort(sentences)]
        question = read_question(text, reader.associations)
        rows = sentence_features(question, sentences, self.rarity, reader.associations)
        chances = sigmoid(reader.ranker.scores(rows)) if len(sentences) else np.zeros(0, np.float32)
        return Asked(question, sentences, reader, rows, chances)

    def document_row(self, asked: Asked) -> NDArray[np.float32]:
        """What refusal is decided by."""
        return document_features(*_found(asked), self.rarity, asked.reader.associations)

    def answer_row(self, asked: Asked, spans: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """What a part of the document is judged by."""
        return answer_features(*_found(asked), spans, self.rarity, asked.reader.associations)

    def answerable(self, asked: Asked) -> float:
        """Chance that the document holds the answer."""
        if not len(asked.sentences):
            return 0.0
        return float(sigmoid(asked.reader.refuser.scores(self.document_row(asked)[None, :]))[0])

    def fitting(self, asked: Asked, spans: Sequence[tuple[int, int]]) -> float:
        """Chance that some spans of the document are the answer."""
        if not len(asked.sentences):
            return 0.0
        return float(sigmoid(asked.reader.judge.scores(self.answer_row(asked, spans)[None, :]))[0])

    def span(self, asked: Asked) -> tuple[int, int]:
        """First and behind the last sentence of the run that gains most above `cut`."""
        return best_run(asked.chances, asked.reader.cut)

    def save(self, folder: Path) -> None:
        """Write the two files."""
        words = sorted(self.rarity.passages)
        arrays: dict[str, NDArray[np.generic]] = {
            "rarity.words": packed(words),
            "rarity.passages": np.array([self.rarity.passages[w] for w in words], np.int32),
            **self.gate.arrays("gate"),
        }
        for name, reader in self.readers.items():
            arrays |= reader.arrays(name)
        with (folder / FILES[0]).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        thresholds = {name: reader.thresholds() for name, reader in self.readers.items()}
        settings = {"num_passages": self.rarity.num_passages, "readers": thresholds}
        (folder / FILES[1]).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "AnswerModel":
        """Read what `save` wrote."""
        settings = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
        with np.load(folder / FILES[0], allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        words = unpacked(arrays["rarity.words"])
        passages = dict(zip(words, arrays["rarity.passages"].tolist(), strict=True))
        thresholds = settings["readers"]
        readers = {name: Reader.read(arrays, thresholds[name], name) for name in (STORY, PAGE)}
        return cls(Rarity(settings["num_passages"], passages), Gate.read(arrays, "gate"), readers)


def _found(asked: Asked) -> tuple[Question, Sentences, NDArray[np.float32], NDArray[np.float32]]:
    return asked.question, asked.sentences, asked.rows, asked.chances


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
