"""Words as evidence: content stems, how rare they are, and BM25 over them.

In: texts. Out: stems, weights and scores. Irregular forms become their base form first, because what a question with
"did" asks for is told in the past tense. The decision to question: question words, auxiliaries, articles and pronouns
are no content, so "who was it" has none at all and matches nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.words import FUNCTION_WORDS, read_word_lists, stem, tokenize

K1, _B = 1.2, 0.75
"""The usual values of BM25."""
_BASE_FORMS = {form: base for base, forms in read_word_lists("irregular_forms.txt").items() for form in forms}


@lru_cache(maxsize=200_000)
def lemma(word: str) -> str:
    """Stem of a lower-case word, of its base form where it is irregular.

    Example:
        >>> [lemma(word) for word in ("gave", "gives", "wolves")]
        ['give', 'give', 'wolf']
    """
    return stem(_BASE_FORMS.get(word, word))


def lemmas(text: str) -> list[str]:
    """Lemmas of all words, function words included, in order."""
    return [lemma(t.text) for t in tokenize(text) if t.text[0].isalnum()]


def content_stems(text: str) -> list[str]:
    """Lemmas of the words that carry content, in order.

    Example:
        >>> content_stems("What are the symptoms of cutis laxa?")
        ['symptom', 'cutis', 'laxa']
    """
    return [lemma(t.text) for t in tokenize(text) if t.text not in FUNCTION_WORDS and t.text[0].isalnum()]


class Rarity:
    """How rare stems are in a corpus of passages.

    Args:
        num_passages: Size of the corpus.
        passages: Passages that hold a stem, by stem.
    """

    def __init__(self, num_passages: int, passages: Mapping[str, int]) -> None:
        self.num_passages = num_passages
        self.passages = dict(passages)
        self._unseen = math.log1p(num_passages)
        self._weights = {word: self._unseen - math.log1p(count) for word, count in passages.items()}

    def __getitem__(self, word: str) -> float:
        """Inverse passage frequency; highest for a stem that was never seen."""
        return self._weights.get(word, self._unseen)


def counted(passages: Iterable[str], min_passages: int) -> Rarity:
    """Rarity of the stems of some passages; rarer ones than `min_passages` are left out, so they count as unseen."""
    counts: Counter[str] = Counter()
    number = 0
    for text in passages:
        counts.update(set(content_stems(text)))
        number += 1
    return Rarity(number, {word: n for word, n in sorted(counts.items()) if n >= min_passages})


class Bm25:
    """BM25 over a list of texts, held as postings.

    Args:
        texts: The texts to be found.
        k1: How much a word's further occurrences in a text count; 0 for nothing.
    """

    def __init__(self, texts: Sequence[str], k1: float = K1) -> None:
        self.num_texts = len(texts)
        found: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(texts))
        for row, text in enumerate(texts):
            words = content_stems(text)
            lengths[row] = len(words)
            for word, count in Counter(words).items():
                found.setdefault(word, []).append((row, count))
        norm_n = k1 * (1.0 - _B + _B * lengths / max(1.0, lengths.mean()))
        self._postings: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, pairs in found.items():
            rows, counts = (np.array(column) for column in zip(*pairs, strict=True))
            weight = math.log(1.0 + (self.num_texts - len(rows) + 0.5) / (len(rows) + 0.5))
            self._postings[word] = (rows, weight * counts * (k1 + 1.0) / (counts + norm_n[rows]))

    def scores(self, query: str) -> NDArray[np.float64]:
        """Score of every text."""
        scores_n = np.zeros(self.num_texts)
        for word in content_stems(query):
            if word in self._postings:
                rows, values = self._postings[word]
                scores_n[rows] += values
        return scores_n
