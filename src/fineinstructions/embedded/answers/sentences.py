"""A document as a list of sentences with their words, for whoever asks what answers a question.

In: a text. Out: `Sentences`. Headings are left out: what is learned here must hold where a text has none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import Rarity, content_stems, lemmas
from fineinstructions.embedded.document_text import DocumentText

# Shape legend: S sentences, C cues.

MAX_SENTENCES = 300
"""So many sentences of a document are looked at (ours)."""

_CUES = tuple(
    re.compile(expression, re.IGNORECASE)
    for expression in (
        r"\b(?:because|since|so that|therefore|in order to|due to|as a result|caused?|for fear|lest)\b",
        r"\b(?:said|cried|answered|asked|replied|thought|told|begged|exclaimed|shouted|called)\b",
        r"[\"“”]|(?:^|\s)'",
        r"\b(?:happy|glad|sad|angry|afraid|frightened|pleased|delighted|surprised|sorry|proud|joy|grief|anger|fear|tears|wept"
        r"|terrified|astonish|jealous|lonely|unhappy|merry|rejoic|ashamed|miserable|scared|content)\w*\b",
        r"\b(?:in|at|on|into|near|under|from|to|upon|behind|beneath|over) (?:the|a|an|his|her|their|its) \w+",
        r"\b(?:when|then|after|before|until|while|as soon as|at last)\b",
        r"\b(?:day|night|morning|evening|year|winter|summer|noon|midnight)s?\b|\b\d{4}\b",
        r"\b\d[\d.,]*\b|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|hundred|thousand|percent)\b",
        r"\A[\"“']?(?:he|she|it|they|this|these|that|those|his|her|their)\b",
        r"\b(?:is|are|was|were) (?:a|an|the|one|called|known|named)\b",
        r"\A[\"“']?(?:so|then|but|and|now|thus|thereupon)\b",
        r"\b(?:could|would|will|shall|must|should) \w+",
        r"\?",
        r"\b(?:I|you|we|my|your|me)\b",
    )
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z]\w+")


class Sentences:
    """The sentences of a document's paragraphs and list items.

    Args:
        text: The text as read.
        title: The document's title.
        structure: Its structure, where it is known already.
    """

    def __init__(self, text: str, title: str = "", structure: DocumentText | None = None) -> None:
        structure = structure or DocumentText(text, title)
        kept = structure.sentences[:MAX_SENTENCES]
        self.text = text
        self.spans = [(s.start, s.end) for s in kept]
        self.blocks = np.array([s.block for s in kept], np.int64)
        self.is_item = np.array([structure.blocks[s.block].kind == "item" for s in kept], float)
        self.words = [lemmas(text[start:end]) for start, end in self.spans]
        self.stems = [content_stems(text[start:end]) for start, end in self.spans]
        self.title_stems = frozenset(content_stems(title))
        self._weights: tuple[Rarity, NDArray[np.float64]] | None = None
        self._terms: tuple[Mapping[str, int], NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.spans)

    def string(self, number: int) -> str:
        """One sentence as written."""
        start, end = self.spans[number]
        return self.text[start:end]

    @cached_property
    def sets(self) -> list[frozenset[str]]:
        """Content stems of every sentence, each once."""
        return [frozenset(stems) for stems in self.stems]

    @cached_property
    def places(self) -> Mapping[str, list[int]]:
        """Sentences that hold a content stem, in order."""
        return _places(self.sets)

    @cached_property
    def term_sets(self) -> list[frozenset[str]]:
        """Words of every sentence, function words included, and its pairs of neighbouring words."""
        return [frozenset(terms(words)) for words in self.words]

    @cached_property
    def term_places(self) -> Mapping[str, list[int]]:
        """Sentences that hold a word or pair of words, in order."""
        return _places(self.term_sets)

    def terms(self, known: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Known terms of all sentences behind one another, and the sentence of each; the last table is remembered."""
        if self._terms is None or self._terms[0] is not known:
            found = [sorted(known[t] for t in s if t in known) for s in self.term_sets]
            columns = np.array([column for of_one in found for column in of_one], np.int64)
            self._terms = (known, columns, np.repeat(np.arange(len(found)), [len(of_one) for of_one in found]))
        return self._terms[1], self._terms[2]

    def weights(self, rarity: Rarity) -> NDArray[np.float64]:
        """Summed rarity of every sentence's stems, shape (S,); the last corpus that was asked for is remembered."""
        if self._weights is None or self._weights[0] is not rarity:
            self._weights = (rarity, np.array([sum(map(rarity.__getitem__, sorted(s))) for s in self.sets], float))
        return self._weights[1]

    @cached_property
    def num_stems(self) -> NDArray[np.float64]:
        """Different content stems of every sentence, shape (S,)."""
        return np.array([len(stems) for stems in self.sets], float)

    @cached_property
    def num_words(self) -> NDArray[np.float64]:
        """Words of every sentence, shape (S,)."""
        return np.array([len(words) for words in self.words], float)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often a content stem stands in the document."""
        return Counter(word for stems in self.stems for word in stems)

    def local_weight(self, word: str) -> float:
        """How rare a stem is among the document's own sentences."""
        return math.log((len(self) + 1.0) / (len(self.places.get(word, ())) + 0.5))

    @cached_property
    def kinship(self) -> NDArray[np.float64]:
        """Share of its content words that every sentence has in common with the one before it, shape (S,)."""
        shared = [len(a & b) / max(1, min(len(a), len(b))) for a, b in pairwise(self.sets)]
        return np.array([0.0, *shared][: len(self)])

    @cached_property
    def cues(self) -> NDArray[np.float64]:
        """Marks of a reason, speech, feeling, place, time, number and so on, then names and commas, shape (S, C)."""
        strings = [self.string(n) for n in range(len(self))]
        found = [
            [*(float(c.search(s) is not None) for c in _CUES), float(len(_NAME.findall(s))), float(s.count(","))]
            for s in strings
        ]
        return np.array(found, float).reshape(-1, len(_CUES) + 2)


def terms(words: Sequence[str]) -> Iterable[str]:
    """Words and pairs of neighbouring words.

    Example:
        >>> list(terms(["so", "that", "he"]))
        ['so', 'that', 'he', 'so that', 'that he']
    """
    yield from words
    for first, second in pairwise(words):
        yield f"{first} {second}"


def _places(sets: Sequence[frozenset[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, stems in enumerate(sets):
        for word in stems:
            found.setdefault(word, []).append(number)
    return found
