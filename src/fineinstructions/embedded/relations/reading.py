"""What a document can answer: one `Evidence` per relation, subject and place in the text.

In: a document. Out: a `Reading`, the document's structure with the means to look words up in it. The decision to
question: evidence carries whole sentences, list items or sections, never a part of a sentence.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Protocol

from fineinstructions.embedded.document_text import DocumentText, Sentence
from fineinstructions.embedded.relations.grammar import Phrase

_INSIDE = re.compile(r"[a-z,;)] ")
_WORD_INSIDE = re.compile(r"(?<=[a-z,;)] )[\w’'-]+")
_SMALL = frozenset(("of", "in", "the", "and", "for", "to", "on", "a", "an"))
_MAX_PLACES = 60
"""So many places of a phrase decide how it is spelled (ours)."""
MAX_ANSWER_WORDS = 250
"""Longest answer, in words (ours)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A place in a document that answers one relation about one subject."""

    key: str
    subject: Phrase
    spans: tuple[tuple[int, int], ...]
    """Half-open spans of the answer, in order."""
    reliability: float
    """How often a reader accepts this kind of evidence, by our own reading of samples; 0..1."""
    lead: str = ""
    """Words that stand before the first span, in place of a pronoun the span leaves out."""
    past: bool | None = None
    count: str = ""
    """Number word with which the answer counts what it lists: ``two``, ``three``."""
    other: Phrase | None = None
    """The second thing of a relation between two things."""

    @property
    def start(self) -> int:
        """Where the answer starts in the document."""
        return self.spans[0][0]

    @property
    def middle(self) -> int:
        """Where the middle of the answer is in the document, a character of its first span."""
        start, end = self.spans[0]
        return (start + end) // 2


@dataclass(frozen=True, slots=True)
class Subject:
    """What a document as a whole is about."""

    phrase: Phrase
    past: bool | None = None
    """Tense of the sentence that defines it."""
    class_noun: str = ""
    """Head of its definition: "company" in "X is an American company that ..."; "the company" then means X."""
    pronouns: frozenset[str] = frozenset()
    """Sentence openings that mean the subject."""


class DocumentLike(Protocol):
    """The three attributes of a document that a reading needs."""

    @property
    def document_id(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102


class Reading:
    """A document's structure, subject and spelling.

    Args:
        text: The text as read.
        title: The document's title.
    """

    def __init__(self, text: str, title: str) -> None:
        self.structure = DocumentText(text, title)
        self.text = text

    @cached_property
    def first_sentence(self) -> Sentence | None:
        """The sentence that opens the first paragraph."""
        structure = self.structure
        return next((s for s in structure.sentences[:3] if structure.blocks[s.block].kind == "paragraph"), None)

    @cached_property
    def folded(self) -> str:
        """Paragraphs and list items one a line, blanks made uniform, for looking up how words are spelled."""
        blocks = (b for b in self.structure.blocks if b.kind in ("paragraph", "item"))
        return "\n".join(" ".join(self.text[b.start : b.end].split()) for b in blocks)

    @cached_property
    def is_narrative(self) -> bool:
        """Whether the text is a tale or a conversation, where sentences do not state facts."""
        quotes = len(re.findall(r"[\"“”]|(?:^|\s)['‘](?=[A-Z])", self.text))
        said = len(re.findall(r"\b(?:said|cried|replied|answered|asked|exclaimed|thought)\b", self.text))
        turns = len(re.findall(r"^[A-Z][\w.’' ]{1,40}: ", self.text, re.MULTILINE))
        words = max(200, len(self.text) // 6)
        personal = len(re.findall(r"\b(?:I|my|me|she|her|he|him)\b", self.text))
        return (
            (quotes > words / 60 and said > words / 400)
            or turns > max(5, words / 300)
            or said > words / 150
            or (personal > words / 22 and not self.structure.sections[1:])
        )

    def spelled(self, phrase: Phrase, unseen_lower: bool = True) -> Phrase:
        """The phrase as the text spells it inside sentences: a capital of a heading or sentence start is taken back.

        Args:
            phrase: The phrase as found.
            unseen_lower: Whether to take a capital back where the text never shows the word inside a sentence.
        """
        words = phrase.text
        if words == words.lower() or not words:
            return phrase
        if seen := self._forms_inside(words):
            return replace(phrase, text=max(sorted(set(seen), reverse=True), key=seen.count))
        first, _, rest = words.partition(" ")
        if rest and all(w[0].isupper() or w in _SMALL for w in words.split()) and words[1:] != words[1:].upper():
            return replace(phrase, text=" ".join(self._word(word) for word in words.split()))
        ordinary = first[1:] == first[1:].lower() and len(first) > 1
        owner = re.sub(r"['’]s?\Z", "", first)
        common = unseen_lower and (
            all(word.islower() or word.isupper() for word in rest.split())
            and (rest or phrase.plural)
            and not (self._capital_inside(first) or self._capital_inside(owner))
        )
        if ordinary and (common or (self._lower_inside(first) and not self._capital_inside(first))):
            return replace(phrase, text=first.lower() + (f" {rest}" if rest else ""))
        return phrase

    def is_inside(self, words: str) -> bool:
        """Whether words stand inside a sentence, whatever their case."""
        return bool(self._forms_inside(words))

    def mentions(self, phrase: Phrase) -> int:
        """How often the text names a phrase; three stands for more."""
        return sum(1 for _ in islice(self._places(phrase.text), 3))

    @cached_property
    def _lowered(self) -> str:
        """The folded text in lower case, as long as it is."""
        lowered = self.folded.lower()
        return lowered if len(lowered) == len(self.folded) else self.folded

    def _places(self, words: str) -> Iterator[int]:
        """Where words stand in the folded text, whatever their case."""
        words = words.lower()
        place = self._lowered.find(words)
        while place >= 0:
            yield place
            place = self._lowered.find(words, place + len(words))

    def _forms_inside(self, words: str) -> list[str]:
        """The first forms that words have inside sentences, capitals-only forms left out."""
        forms: list[str] = []
        for place in islice(self._places(words), _MAX_PLACES):
            end = place + len(words)
            form = self.folded[place:end]
            inside = _INSIDE.fullmatch(self.folded, max(0, place - 2), place) is not None
            whole = not self.folded[end : end + 1].isalnum()
            if inside and whole and (words.isupper() or not form.isupper()):
                forms.append(form)
        return forms

    @cached_property
    def _words_inside(self) -> frozenset[str]:
        """Words as they are spelled behind another word."""
        return frozenset(_WORD_INSIDE.findall(self.folded))

    def _lower_inside(self, word: str) -> bool:
        return word.lower() in self._words_inside

    def _capital_inside(self, word: str) -> bool:
        return word in self._words_inside

    def _word(self, word: str) -> str:
        """A title's word in the case the text gives it."""
        return word.lower() if self._lower_inside(word) and not self._capital_inside(word) else word


def grouped(found: Iterable[Evidence]) -> dict[str, list[Evidence]]:
    """Evidence by relation key, the most reliable and then the earliest first."""
    by_key: dict[str, list[Evidence]] = defaultdict(list)
    for evidence in found:
        by_key[evidence.key].append(evidence)
    for items in by_key.values():
        items.sort(key=lambda e: (-e.reliability, e.start, e.subject.text))
    return dict(by_key)
