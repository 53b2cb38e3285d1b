"""Which words of an answer go with which words of a question: "treatment" with "surgery", "why" with "because".

In: sentences that answer a question and sentences of the same document that do not. Out: log-odds by word of a question
and term of a sentence: a word, function words included, or two neighbouring ones. The decision to question: only words
that many different questions share get a row, so that a subject's name has none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import lemma, lemmas
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, K question words, A terms of answers.

MIN_QUESTIONS = 25
MIN_SENTENCES = 20
MIN_LOG_ODDS = 0.3
MAX_LOG_ODDS = 3.0
_STEPS = 40.0
"""Log-odds are kept in steps of 1/40."""
AMOUNTS = ("many", "much", "far", "common", "big", "large", "tall", "high", "deep", "wide", "heavy")
TIMES = ("long", "old", "often", "soon", "late")
"""What stands behind a "how" that asks for a number, and for a time."""
_MAX_KNOWN = 200
"""So many combinations of question words are remembered."""
_MEASURES = frozenset(map(lemma, (*AMOUNTS, *TIMES)))


@dataclass(frozen=True)
class Row:
    """Log-odds of answer terms, for one question."""

    strongest_a: NDArray[np.float32]
    """Of the question's words, the one with the most to say about a term decides, shape (A,)."""
    mean_a: NDArray[np.float32]
    """All of the question's words have a say, shape (A,)."""


def asking_words(question: str) -> Iterator[str]:
    """Every word of a question as a key, and its opening two; "how many" is a word of its own, which says no "how".

    Example:
        >>> list(asking_words("How long did it rain?"))
        ['how long', 'did', 'it', 'rain', 'how long did']
    """
    words: list[str] = []
    for word in lemmas(question):
        if words and words[-1] == "how" and word in _MEASURES:
            words[-1] = f"how {word}"
        else:
            words.append(word)
    yield from dict.fromkeys(words)
    if len(words) > 1:
        yield f"{words[0]} {words[1]}"


class Associations:
    """Log-odds of answer terms, by question word.

    Args:
        terms: Terms of answers.
        asked: Words of questions.
        odds_ka: Log-odds, shape (K, A); 0 where nothing is known.
    """

    def __init__(self, terms: Sequence[str], asked: Sequence[str], odds_ka: NDArray[np.float32]) -> None:
        self.asked = {word: number for number, word in enumerate(asked)}
        self.odds_ka = odds_ka
        self._places = {term: number for number, term in enumerate(terms)}
        self._known: dict[tuple[int, ...], Row] = {}

    def of(self, question: str) -> Row:
        """Log-odds that the words of one question give together."""
        rows = tuple(self.asked[word] for word in asking_words(question) if word in self.asked)
        if rows not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            odds_ka = self.odds_ka[list(rows)] if rows else np.zeros((1, self.odds_ka.shape[1]), np.float32)
            high_a, low_a = odds_ka.max(axis=0), odds_ka.min(axis=0)
            self._known[rows] = Row(np.where(high_a >= -low_a, high_a, low_a), odds_ka.mean(axis=0))
        return self._known[rows]

    def value(self, row: Row, term: str) -> float:
        """Log-odds of one term in a row; 0 for an unknown one."""
        return float(row.strongest_a[self._places[term]]) if term in self._places else 0.0

    def sentence_odds(self, row: Row, sentences: Sentences) -> list[NDArray[np.float64]]:
        """Mean log-odds of every sentence's terms, the strongest's and all words', and the highest single one, (S,)."""
        columns, numbers = sentences.terms(self._places)
        per_word = sentences.num_words + 4.0
        means = [np.bincount(numbers, r[columns], len(sentences)) / per_word for r in (row.strongest_a, row.mean_a)]
        highest = np.zeros(len(sentences))
        np.maximum.at(highest, numbers, row.strongest_a[columns])
        return [*means, highest]

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Arrays of a file: words and terms as text, and the values that are not 0, row by row."""
        rows, columns = np.nonzero(self.odds_ka)
        return {
            f"{name}.asked": packed(list(self.asked)),
            f"{name}.terms": packed(list(self._places)),
            f"{name}.lengths": np.bincount(rows, minlength=len(self.asked)).astype(np.int32),
            f"{name}.columns": columns.astype(np.int32),
            f"{name}.values": np.round(self.odds_ka[rows, columns] * _STEPS).astype(np.int8),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "Associations":
        """Associations from what `arrays` gave."""
        asked, terms = unpacked(arrays[f"{name}.asked"]), unpacked(arrays[f"{name}.terms"])
        odds_ka = np.zeros((len(asked), len(terms)), np.float32)
        rows = np.repeat(np.arange(len(asked)), arrays[f"{name}.lengths"])
        odds_ka[rows, arrays[f"{name}.columns"]] = arrays[f"{name}.values"] / np.float32(_STEPS)
        return cls(terms, asked, odds_ka)


Labelled = tuple[str, Sentences, NDArray[np.bool_]]
"""A question, a document's sentences and which of them answer."""


def learn_associations(examples: Sequence[Labelled]) -> Associations:
    """Count which terms stand in sentences that answer to a word, and which stand elsewhere in the same documents."""
    terms = _shared_terms({id(sentences): sentences for _, sentences, _ in examples}.values())
    places = {term: number for number, term in enumerate(terms)}
    questions = Counter(asked for question, _, _ in examples for asked in asking_words(question))
    shared = {asked for asked, number in questions.items() if number >= MIN_QUESTIONS}
    inside: defaultdict[str, list[NDArray[np.int64]]] = defaultdict(list)
    outside: defaultdict[str, list[NDArray[np.int64]]] = defaultdict(list)
    totals: Counter[tuple[str, bool]] = Counter()
    for question, sentences, right in examples:
        columns, numbers = sentences.terms(places)
        here, there = columns[right[numbers]], columns[~right[numbers]]
        for asked in sorted(shared.intersection(asking_words(question))):
            inside[asked].append(here)
            outside[asked].append(there)
            totals[asked, True] += int(right.sum())
            totals[asked, False] += int((~right).sum())
    rows = {}
    for asked in sorted(inside):
        if totals[asked, True] and totals[asked, False]:
            counts = [np.bincount(np.concatenate(c[asked]), minlength=len(terms)) for c in (inside, outside)]
            row = _log_odds(counts[0], counts[1], totals[asked, True], totals[asked, False])
            if row.any():
                rows[asked] = row
    odds_ka = np.array(list(rows.values()), np.float32).reshape(len(rows), len(terms))
    used_a = np.flatnonzero(odds_ka.any(axis=0))
    return Associations([terms[number] for number in used_a.tolist()], list(rows), odds_ka[:, used_a])


def _shared_terms(documents: Iterable[Sentences]) -> list[str]:
    """Terms that stand in at least `MIN_SENTENCES` sentences, sorted."""
    counts: Counter[str] = Counter()
    for sentences in documents:
        for found in sentences.term_sets:
            counts.update(found)
    return sorted(term for term, number in counts.items() if number >= MIN_SENTENCES)


def _log_odds(
    here_a: NDArray[np.int64], there_a: NDArray[np.int64], num_right: int, num_wrong: int
) -> NDArray[np.float32]:
    odds = np.log((here_a + 1.0) / (num_right + 20.0)) - np.log((there_a + 1.0) / (num_wrong + 20.0))
    known = (here_a + there_a >= MIN_SENTENCES) & (np.abs(odds) >= MIN_LOG_ODDS)
    rounded = np.round(np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS) * _STEPS) / _STEPS
    return np.asarray(np.where(known, rounded, 0.0), np.float32)


def packed(words: list[str]) -> NDArray[np.generic]:
    """Words as bytes, one a line."""
    return np.frombuffer("\n".join(words).encode("utf-8"), np.uint8)


def unpacked(raw: NDArray[np.generic]) -> list[str]:
    """Words from what `packed` gave."""
    text = raw.tobytes().decode("utf-8")
    return text.split("\n") if text else []
