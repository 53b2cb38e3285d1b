"""Which words of an answer go with which words of a question: "treatment" with "surgery", "why" with "because".

In: sentences that answer a question and sentences of the same document that do not. Out: log-odds by pair of words. The
decision to question: only words that many different questions share get a row, so that a subject's name has none.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.words import stem, tokenize

MIN_QUESTIONS = 25
MIN_SENTENCES = 20
MIN_LOG_ODDS = 0.45
MAX_LOG_ODDS = 3.0
_STEPS = 40.0
"""Log-odds are kept in steps of 1/40."""
_MAX_KNOWN = 2_000
"""So many combinations of question words are remembered."""

Row = Mapping[str, float]


def asking_words(question: str) -> Iterator[str]:
    """Every word of a question as a key, question words and pairs of opening words included."""
    words = [stem(t.text) for t in tokenize(question) if t.text[0].isalnum()]
    yield from dict.fromkeys(words)
    if len(words) > 1:
        yield f"{words[0]} {words[1]}"


class Associations:
    """Log-odds of answer words, by question word.

    Args:
        rows: For each question word, log-odds by stem of the answer.
    """

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self.rows = dict(rows)
        self._known: dict[tuple[str, ...], Row] = {}

    def of(self, question: str) -> Row:
        """Log-odds that the words of one question give together, by answer stem; the strongest word decides."""
        words = tuple(word for word in asking_words(question) if word in self.rows)
        if words not in self._known:
            found: dict[str, float] = {}
            for word in words:
                for answer, value in self.rows[word].items():
                    if abs(value) > abs(found.get(answer, 0.0)):
                        found[answer] = value
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[words] = found
        return self._known[words]

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Arrays of a file: words as text, and for every question word its answer words and values."""
        vocabulary = sorted({word for row in self.rows.values() for word in row})
        place = {word: number for number, word in enumerate(vocabulary)}
        asked = sorted(self.rows)
        columns = [place[word] for key in asked for word in sorted(self.rows[key])]
        values = [self.rows[key][word] for key in asked for word in sorted(self.rows[key])]
        return {
            f"{name}.asked": packed(asked),
            f"{name}.words": packed(vocabulary),
            f"{name}.lengths": np.array([len(self.rows[key]) for key in asked], np.int32),
            f"{name}.columns": np.array(columns, np.int32),
            f"{name}.values": np.round(np.array(values) * _STEPS).astype(np.int8),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> "Associations":
        """Associations from what `arrays` gave."""
        words = unpacked(arrays[f"{name}.words"])
        columns = arrays[f"{name}.columns"].tolist()
        values = (arrays[f"{name}.values"].astype(np.float64) / _STEPS).tolist()
        rows: dict[str, Row] = {}
        start = 0
        for key, length in zip(unpacked(arrays[f"{name}.asked"]), arrays[f"{name}.lengths"].tolist(), strict=True):
            end = start + length
            rows[key] = {words[c]: v for c, v in zip(columns[start:end], values[start:end], strict=True)}
            start = end
        return cls(rows)


def learn_associations(
    examples: Iterable[tuple[str, Sequence[frozenset[str]], Sequence[frozenset[str]]]],
) -> Associations:
    """Count which stems stand in answers to a word and which stand elsewhere in the same documents.

    Args:
        examples: Questions with the stems of the sentences that answer them, and of those that do not.
    """
    inside: defaultdict[str, Counter[str]] = defaultdict(Counter)
    outside: defaultdict[str, Counter[str]] = defaultdict(Counter)
    totals: Counter[tuple[str, bool]] = Counter()
    questions: Counter[str] = Counter()
    given = list(examples)
    questions.update(asked for question, _, _ in given for asked in asking_words(question))
    shared = {asked for asked, number in questions.items() if number >= MIN_QUESTIONS}
    for question, right, wrong in given:
        for asked in shared.intersection(asking_words(question)):
            for kind, sentences, counts in ((True, right, inside), (False, wrong, outside)):
                totals[asked, kind] += len(sentences)
                for stems in sentences:
                    counts[asked].update(stems)
    rows = {}
    for asked in sorted(shared):
        if not totals[asked, True] or not totals[asked, False]:
            continue
        row = {}
        for word in sorted(inside[asked].keys() | outside[asked].keys()):
            here, there = inside[asked][word], outside[asked][word]
            if here + there < MIN_SENTENCES:
                continue
            value = math.log((here + 1.0) / (totals[asked, True] + 20.0))
            value -= math.log((there + 1.0) / (totals[asked, False] + 20.0))
            if abs(value) >= MIN_LOG_ODDS:
                row[word] = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, round(value * _STEPS) / _STEPS))
        if row:
            rows[asked] = row
    return Associations(rows)


def packed(words: list[str]) -> NDArray[np.generic]:
    """Words as bytes, one a line."""
    return np.frombuffer("\n".join(words).encode("utf-8"), np.uint8)


def unpacked(raw: NDArray[np.generic]) -> list[str]:
    """Words from what `packed` gave."""
    text = raw.tobytes().decode("utf-8")
    return text.split("\n") if text else []
