"""A document as a list of sentences with their content words, for whoever asks what answers a question.

In: a text. Out: `Sentences`. Headings are left out: what is learned here must hold where a text has none.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import Rarity, content_stems
from fineinstructions.embedded.document_text import DocumentText

MAX_SENTENCES = 300
"""So many sentences of a document are looked at (ours)."""

_CUES = tuple(
    re.compile(expression, re.IGNORECASE)
    for expression in (
        r"\b(?:because|since|so that|therefore|in order to|due to|as a result|caused?)\b",
        r"\b(?:said|cried|answered|asked|replied|thought)\b|[\"“]",
        r"\b(?:happy|glad|sad|angry|afraid|frightened|pleased|delighted|surprised|sorry|proud|joy|grief|anger)\w*\b",
        r"\b(?:in|at|on|into|near|under|from|to) (?:the|a|his|her|their) \w+",
        r"\b(?:when|then|after|before|until|while|day|night|morning|evening|year)\b|\b\d{4}\b",
        r"\b\d[\d.,]*\b|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|hundred|thousand|percent)\b",
        r"\A(?:he|she|it|they|this|these|that|those|his|her|their)\b",
        r"\b(?:is|are|was|were) (?:a|an|the|one|called|known)\b",
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
        self.blocks = [s.block for s in kept]
        self.is_item = [structure.blocks[s.block].kind == "item" for s in kept]
        self.stems = [content_stems(text[start:end]) for start, end in self.spans]
        self._weights: tuple[Rarity, NDArray[np.float64]] | None = None
        self.title_stems = frozenset(content_stems(title))

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
    def places(self) -> Mapping[str, NDArray[np.int64]]:
        """Sentences that hold a stem, in order."""
        found: dict[str, list[int]] = {}
        for number, stems in enumerate(self.sets):
            for word in stems:
                found.setdefault(word, []).append(number)
        return {word: np.array(numbers) for word, numbers in found.items()}

    def weights(self, rarity: Rarity) -> NDArray[np.float64]:
        """Summed rarity of every sentence's stems, shape (S,); the last corpus that was asked for is remembered."""
        if self._weights is None or self._weights[0] is not rarity:
            self._weights = (rarity, np.array([sum(map(rarity.__getitem__, sorted(s))) for s in self.sets], float))
        return self._weights[1]

    @cached_property
    def num_stems(self) -> NDArray[np.float64]:
        """Different stems of every sentence, shape (S,)."""
        return np.array([len(stems) for stems in self.sets], float)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often a stem stands in the document."""
        return Counter(word for stems in self.stems for word in stems)

    def local_weight(self, word: str) -> float:
        """How rare a stem is among the document's own sentences."""
        return math.log((len(self) + 1.0) / (len(self.places.get(word, ())) + 0.5))

    @cached_property
    def cues(self) -> NDArray[np.float64]:
        """Marks of a reason, speech, feeling, place, time, number, pronoun or definition, and how many names."""
        found = [[float(cue.search(self.string(n)) is not None) for cue in _CUES] for n in range(len(self))]
        names = [[float(len(_NAME.findall(self.string(n))))] for n in range(len(self))]
        return np.hstack([np.array(found).reshape(-1, len(_CUES)), np.array(names).reshape(-1, 1)])
