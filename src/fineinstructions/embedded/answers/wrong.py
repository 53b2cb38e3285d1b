"""Wrong documents and wrong answers for labelled questions: what refusal and the judge learn from, and are measured on.

In: examples. Out: for one of them, texts that do not answer it, by kind. Random choices come from a seed and the
question alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fineinstructions.embedded.answers.examples import Example
from fineinstructions.embedded.answers.lexical import Bm25

_LOOKED_AT = 40
"""So many of the best texts are looked through for one of another story or page."""


@dataclass(frozen=True)
class Text:
    """A text that a question is put to."""

    text: str
    title: str
    group: str


class WrongTexts:
    """Texts that do not answer a question, drawn from the examples of one kind.

    Args:
        examples: Labelled questions.
        seed: Seed of all draws.
    """

    def __init__(self, examples: Sequence[Example], seed: int = 20260122) -> None:
        self._seed = seed
        unique = {(e.text, e.title): Text(e.text, e.title, e.group) for e in examples}
        self._texts = list(unique.values())
        self._search = Bm25([f"{t.title}\n{t.text}" for t in self._texts])
        self._of_group: defaultdict[str, list[int]] = defaultdict(list)
        for row, text in enumerate(self._texts):
            self._of_group[text.group].append(row)
        self._asked: defaultdict[str, dict[str, Example]] = defaultdict(dict)
        self._wordings: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for example in examples:
            if example.asks:
                self._asked[example.group].setdefault(example.asks, example)
                self._wordings[example.asks].append((example.question, example.title))

    def luck(self, example: Example, purpose: str) -> np.random.Generator:
        """Random numbers that depend on the seed, the question and the purpose."""
        digest = hashlib.blake2b(
            f"{self._seed}\0{example.question}\0{example.group}\0{purpose}".encode(), digest_size=8
        )
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "little")))

    def random_other(self, example: Example) -> Text | None:
        """A text of another story or page."""
        generator = self.luck(example, "random")
        for _ in range(20):
            text = self._texts[int(generator.integers(len(self._texts)))]
            if text.group != example.group:
                return text
        return None

    def hard_other(self, example: Example) -> Text | None:
        """The text of another story or page that BM25 finds first."""
        return next(iter(self.hard_others(example)), None)

    def hard_others(self, example: Example) -> list[Text]:
        """Texts of other stories or pages that BM25 finds, the best first."""
        scores = self._search.scores(example.question)
        best = (self._texts[row] for row in np.argsort(-scores, kind="stable")[:_LOOKED_AT].tolist())
        return [text for text in best if text.group != example.group]

    def same_group(self, example: Example) -> Text | None:
        """Another section of the same story that shares no text with the right one and holds no answer."""
        answers = [example.text[a:b].casefold() for a, b in example.spans]
        fitting = []
        for row in self._of_group[example.group]:
            other = self._texts[row].text
            shared = other[:60] in example.text or example.text[:60] in other or other[-60:] in example.text
            if not shared and not any(answer in other.casefold() for answer in answers):
                fitting.append(row)
        if not fitting:
            return None
        return self._texts[fitting[int(self.luck(example, "section").integers(len(fitting)))]]

    def unanswered(self, example: Example) -> str | None:
        """A question about the same page, in words used for other pages, that asks for what the page does not tell."""
        lacking = sorted(kind for kind in self._wordings if kind not in self._asked[example.group])
        if not example.asks or not lacking:
            return None
        generator = self.luck(example, "unanswered")
        for _ in range(10):
            wordings = self._wordings[lacking[int(generator.integers(len(lacking)))]]
            question, title = wordings[int(generator.integers(len(wordings)))]
            if title and title.casefold() in question.casefold():
                start = question.casefold().index(title.casefold())
                return question[:start] + example.title + question[start + len(title) :]
        return None

    def other_answers(self, example: Example) -> Iterator[tuple[tuple[int, int], ...]]:
        """Answers of the same page to other questions."""
        for asks, other in sorted(self._asked[example.group].items()):
            if asks != example.asks and not _overlap(other.spans, example.spans):
                yield other.spans


def _overlap(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)
