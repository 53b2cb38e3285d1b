"""What the opening of a page about one subject tells: what it is, birth and death, place, profession.

In: a `Reading` and its subject. Out: `Evidence` from the first sentence, or from the paragraph it opens. The decision
to question: a year in brackets behind a person's name is one of birth or death; nothing else is read from brackets.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from fineinstructions.embedded.document_text import Sentence
from fineinstructions.embedded.relations.facts import origins, sort_of
from fineinstructions.embedded.relations.grammar import is_participle, kind_of_complement
from fineinstructions.embedded.relations.predicates import WEAK_COMPLEMENT
from fineinstructions.embedded.relations.reading import Evidence, Reading, Subject
from fineinstructions.embedded.relations.standalone import Spans, extended, is_self_contained
from fineinstructions.embedded.relations.statements import NATION, NO_TRADE, located
from fineinstructions.embedded.relations.tables import pattern

_OPENING = pattern("opening", re.DOTALL)
_YEAR = r"\b(?:1\d{3}|20\d\d)\b"
_BORN = re.compile(rf"\bborn\b[^)]*{_YEAR}|{_YEAR}\s?[–-]")
_BORN_ON = re.compile(rf"\b(?:born )?(?:\d{{1,2}} [A-Z][a-z]+|[A-Z][a-z]+ \d{{1,2}}),? {_YEAR}")
_BORN_IN = re.compile(r"\bborn\b[^)]*\bin [A-Z]")
_DIED = re.compile(rf"{_YEAR}\)?\s?[–-][^)]*{_YEAR}")
_IN_PLACE = re.compile(r"\b(?:in|of|near|on) (?:the )?[A-Z]")
_ONE_OF_A_SERIES = re.compile(
    r"the (?:\w+ ){1,4}(?:season|edition|film|album|game|tournament|event|championship|round|race)"
)
_OUTCOME = re.compile(
    r"\b(?:won|wins?|winner|winning|victory|defeat(?:ed|ing)?|beat|beating|finish(?:ed|ing)|ended|lost|drew|died|killed|"
    r"led|scored|captured|qualified|promoted|relegated|eliminated|surrendered|destroyed|retired|crashed|elected|medals?|"
    r"champions?|title|runners?-up|claimed|dominated|injured|signed|resulted|declared|cancelled|overtook)\b"
)
"""What tells how an event went, which its definition seldom does (ours)."""
_BEFORE_NAME = 8
"""How much may stand before the name of a thing in the sentence that defines it, in characters: article and marks."""
_MIN_COMPLEMENT_WORDS = 4
_MIN_DESCRIPTION_WORDS, _MIN_EVENT_WORDS, _MAX_DESCRIPTION_WORDS = 25, 40, 120
"""Shortest opening that describes a thing or tells what happened, and where it is cut (ours)."""


def lead_evidence(reading: Reading, subject: Subject) -> Iterator[Evidence]:
    """Evidence from the sentence that defines the document's subject."""
    first = reading.first_sentence
    text = reading.text[first.start : first.end] if first else ""
    found = _OPENING.match(text)
    if first is None or found is None or not _defines(text, found, subject):
        return
    rest, brackets = " ".join(found.group("rest").split()), found.group("paren") or ""
    phrase = subject.phrase.of_kind(kind_of_complement(rest))
    made = Evidence("definition", phrase, ((first.start, first.end),), 0.9, past=subject.past)
    longer = extended(reading, made)
    if phrase.kind == "person":
        yield replace(longer, key="identity")
        yield from _person(replace(made, reliability=0.85), rest, brackets)
    else:
        yield longer
        yield replace(longer, key="meaning")
    yield from sort_of(made, rest)
    yield from origins(made, rest)
    described = _paragraph(reading, first)
    words = reading.structure.words(*described[0])
    if words >= _MIN_DESCRIPTION_WORDS:
        yield replace(made, key="about", spans=described)
    if words >= _MIN_EVENT_WORDS:
        yield replace(made, key="facts", spans=described)
    told = reading.text[first.end : described[0][1]]
    if words >= _MIN_EVENT_WORDS and phrase.kind == "event" and subject.past and _OUTCOME.search(told):
        yield replace(made, key="happen", spans=described, reliability=0.8)
    if phrase.kind == "place" and _IN_PLACE.search(rest):
        yield replace(made, key="where:locate")
    if phrase.kind in ("place", "organisation"):
        yield from located(made, rest)


def _defines(text: str, found: re.Match[str], subject: Subject) -> bool:
    """Whether a sentence says what its subject is."""
    rest = found.group("rest")
    first, name = subject.phrase.text.split()[0].casefold(), found.group("name").casefold()
    names = first in (name if subject.phrase.kind == "person" else name[: len(first) + _BEFORE_NAME])
    if not names or not is_self_contained(text) or is_participle(rest.split()[0]):
        return False
    weak = WEAK_COMPLEMENT.match(rest) and not _ONE_OF_A_SERIES.match(rest)
    return len(rest.split()) >= _MIN_COMPLEMENT_WORDS and not weak


def _person(made: Evidence, rest: str, brackets: str) -> Iterator[Evidence]:
    """Birth, death, profession and nationality of a person."""
    if not NO_TRADE.match(rest):
        yield replace(made, key="noun:profession")
    if not NO_TRADE.match(rest) and rest.startswith(("a ", "an ")) and NATION.search(rest):
        yield replace(made, key="noun:nationality")
    for key, told in (("when:bear", _BORN), ("when:die", _DIED), ("where:bear", _BORN_IN), ("day:bear", _BORN_ON)):
        if told.search(brackets):
            yield replace(made, key=key, past=True)


def _paragraph(reading: Reading, sentence: Sentence) -> Spans:
    """The paragraph that a sentence opens, cut at a sentence."""
    end, following = sentence.end, reading.structure.sentence_after(sentence)
    while following and reading.structure.words(sentence.start, following.end) <= _MAX_DESCRIPTION_WORDS:
        if not is_self_contained(reading.text[following.start : following.end]):
            break
        end, following = following.end, reading.structure.sentence_after(following)
    return ((sentence.start, end),)
