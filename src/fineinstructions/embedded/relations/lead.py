"""What the opening sentence of a page about one subject tells: birth, place, profession, dates in its brackets.

In: a `Reading` and its subject. Out: `Evidence` from the first sentence.
"""

import re
from collections.abc import Iterator

from fineinstructions.embedded.document_text import Sentence
from fineinstructions.embedded.relations.grammar import is_participle, kind_of_complement
from fineinstructions.embedded.relations.predicates import WEAK_COMPLEMENT
from fineinstructions.embedded.relations.reading import Evidence, Reading, Subject
from fineinstructions.embedded.relations.standalone import Spans, extended, is_self_contained
from fineinstructions.embedded.relations.statements import located
from fineinstructions.embedded.relations.tables import pattern

_OPENING = pattern("opening", re.DOTALL)
_MIN_DESCRIPTION_WORDS, _MIN_EVENT_WORDS = 25, 40
"""Shortest opening that describes a thing, or tells what happened (ours)."""
_YEAR = r"\b(?:1\d{3}|20\d\d)\b"


def lead_evidence(reading: Reading, subject: Subject) -> Iterator[Evidence]:
    """Evidence from the sentence that defines the document's subject."""
    first = next(
        (s for s in reading.structure.sentences[:3] if reading.structure.blocks[s.block].kind == "paragraph"), None
    )
    if first is None:
        return
    text = reading.text[first.start : first.end]
    found = _OPENING.match(text)
    if (
        not found
        or not is_self_contained(text)
        or subject.phrase.text.split()[0].casefold() not in found.group("name").casefold()
    ):
        return
    rest, paren = found.group("rest"), found.group("paren") or ""
    if is_participle(rest.split()[0]):
        return
    if len(rest.split()) < 4 or (
        WEAK_COMPLEMENT.match(rest)
        and not re.match(r"the (?:\w+ ){1,4}(?:season|edition|film|album|game|tournament|event|championship)", rest)
    ):
        return
    phrase = subject.phrase.of_kind(kind_of_complement(rest))
    made = Evidence("definition", phrase, ((first.start, first.end),), 0.9, past=subject.past)
    longer = extended(reading, made)
    person = phrase.kind == "person"
    keys = ["identity"] if person else ["definition", "meaning"]
    for key in keys:
        yield Evidence(key, phrase, longer.spans, 0.9, past=subject.past)
    described = _paragraph(reading, first)
    if reading.structure.words(*described[0]) >= _MIN_DESCRIPTION_WORDS:
        yield Evidence("about", phrase, described, 0.9, past=subject.past)
    plain = [("noun:profession", person), ("noun:nationality", person and rest.startswith(("a ", "an ")))]
    plain.append(("when:bear", person and re.search(rf"\bborn\b[^)]*{_YEAR}|{_YEAR}\s?[–-]", paren) is not None))
    plain.append(("when:die", person and re.search(rf"{_YEAR}\)?\s?[–-][^)]*{_YEAR}", paren) is not None))
    plain.append(
        ("where:locate", phrase.kind == "place" and re.search(r"\b(?:in|of|near|on) (?:the )?[A-Z]", rest) is not None)
    )
    plain.append(("where:bear", person and re.search(r"\bborn\b[^)]*\bin [A-Z]", paren) is not None))
    for key, holds in plain:
        if holds:
            yield Evidence(
                key, phrase, made.spans, 0.85, past=subject.past if key.startswith(("noun", "where:loc")) else True
            )
    if phrase.kind in ("place", "organisation"):
        yield from located(made, rest)
    if phrase.kind == "event" and subject.past:
        if reading.structure.words(*described[0]) > _MIN_EVENT_WORDS:
            yield Evidence("happen", phrase, described, 0.8, past=True)


def _paragraph(reading: Reading, sentence: Sentence) -> Spans:
    """The paragraph that a sentence opens, cut at 120 words."""
    end, following = sentence.end, reading.structure.sentence_after(sentence)
    while following and reading.structure.words(sentence.start, following.end) <= 120:
        if not is_self_contained(reading.text[following.start : following.end]):
            break
        end, following = following.end, reading.structure.sentence_after(following)
    return ((sentence.start, end),)
