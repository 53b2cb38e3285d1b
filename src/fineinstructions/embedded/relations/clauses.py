"""Sentences that state one thing about a subject: definitions, passives with date or agent, causes, parts, uses.

In: a `Reading` and its subject. Out: `Evidence`. The decision to question: only sentences whose subject is a clean noun
phrase (or a pronoun that can only mean the document's subject) and whose verb is in a list are read at all.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from fineinstructions.embedded.document_text import Sentence
from fineinstructions.embedded.relations.facts import achieved, counted, dated_acts, in_charge, named_clause, told_how
from fineinstructions.embedded.relations.grammar import (
    Phrase,
    is_participle,
    is_past,
    kind_of_complement,
    names_person,
    noun_phrase,
    noun_stem,
    number_word,
    verb_stem,
)
from fineinstructions.embedded.relations.predicates import NOUN_OF
from fineinstructions.embedded.relations.questions import NOUN_KEYS, SAME_VERB
from fineinstructions.embedded.relations.reading import Evidence, Reading, Subject
from fineinstructions.embedded.relations.standalone import (
    Spans,
    answer_spans,
    is_anaphoric,
    is_part_of_title,
    is_self_contained,
    opens_with,
)
from fineinstructions.embedded.relations.statements import (
    INSIDE,
    PRONOUN,
    TITLE,
    Statement,
    agrees,
    told,
    told_of_object,
)
from fineinstructions.embedded.relations.tables import pattern, words

_CLAUSE = pattern("clause", re.DOTALL)
_OPENS_DANGLING = pattern("opens_dangling", re.IGNORECASE)
_TERM, _ABBREVIATED, _DIFFERS, _EXISTENTIAL = map(pattern, ("term", "abbreviated", "differs", "existential"))
_LEANS = re.compile(r"\b(?:this|these|those|such an?|the same|the other)\b")
_RELATION_NOUNS = words("other_relation_nouns").union(NOUN_KEYS)
_LISTED = frozenset(
    f"noun:{n}"
    for n in ["symptom", "characteristic", "part", "type", "example", "effect", "step", "stage", "ingredient"]
)
_LIST = re.compile(r"\b(?:include|are|is)\b(?! (?:likely|related|caused|not)).*(?:,|:|\band\b)", re.DOTALL)
_DATED_OPENING = re.compile(r"(?:In|On|By) [^,]{0,20}?\b(?:1\d{3}|20\d\d)\b, ")
_APPOSITION = re.compile(
    r"(?P<name>[A-Z][\w.’'-]+(?: [A-Z][\w.’'-]*){1,3}), (?P<what>(?:an?|the) [^,]{5,90}), (?P<verb>[a-z]+) ", re.DOTALL
)
_WAS_DONE = re.compile(r"(?:was|were) (?:\w+ly |first )?(?P<verb>\w+)\b")
_DEFINING = ("definition", "meaning", "identity")
_POPULATION = pattern("population")
_ABOUT_PERSON = re.compile(r"\b(?:his|her|he|she)\b")
_NUMBER = {"are": True, "were": True, "is": False, "was": False, "has": False, "have": True}
_STATES = re.compile(r"(?:include|includes|(?:is|are|was|were)(?! not\b)(?: (?P<said>[a-z-]+))?)\b")
_SAYS_LITTLE = words("says_little")
_NAMES_THEM = re.compile(
    r"\w, (?!which|while|although|but|whereas|each|with)(?:[^,]*, )*?[^,]*\band\b|—|\bthe \w+ and the\b"
)
"""What names the kinds that it counts; "which differ in form and size" does not."""
_NUMBER_OF = re.compile(r"\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b")
_MIN_WORDS, _MAX_WORDS = 5, 70
_TOLD_BEFORE = re.compile(r"\bwho\b.*\bthe [a-z]|\b(?:at|of|for|in) the [a-z]+\Z")
"""What says who somebody is by something that the text told of before: "who took the picture", "at the club"."""
_MIN_APPOSITION_WORDS = 4
"""Fewest words between commas that say who somebody is; "a pitcher" says too little (ours)."""
_MIN_MENTIONS = 2
"""A thing named once in a text is seldom what the text explains (ours)."""


def clause_evidence(reading: Reading, subject: Subject | None, skip: frozenset[int]) -> Iterator[Evidence]:
    """Evidence from the sentences of a document.

    Args:
        reading: The document.
        subject: What it is about, if known.
        skip: Sections that hold exercises, references or link lists.
    """
    for sentence in reading.structure.sentences:
        text = reading.text[sentence.start : sentence.end]
        fits = _MIN_WORDS <= len(text.split()) <= _MAX_WORDS
        if sentence.section in skip or not fits or not is_self_contained(text):
            continue
        if spans := answer_spans(reading, sentence):
            yield from _two_things(reading, text, spans)
            yield from _read(reading, subject, sentence, spans)


def _read(reading: Reading, subject: Subject | None, sentence: Sentence, spans: Spans) -> Iterator[Evidence]:
    """Evidence from one sentence, by what its subject is."""
    text = reading.text[sentence.start : sentence.end]
    opening = _opening(reading, subject, sentence, text) if subject else ""
    if subject and opening:
        lead = subject.phrase.with_article(capital=True)
        behind = sentence.start + len(opening) + 1
        if found := _CLAUSE.match(lead + text[len(opening) :]):
            spans = ((behind, spans[0][1]), *spans[1:])
            yield from told(Statement(reading, subject.phrase, found.group("predicate"), spans, PRONOUN, lead))
            made = Evidence("", subject.phrase, spans, PRONOUN, lead, past=True)
            predicate = " ".join(text[len(opening) + 1 :].split())
            yield from (*dated_acts(made, predicate), *achieved(made, predicate))
        return
    yield from _existential(reading, text, spans)
    yield from (*told_how(text, spans), *counted(reading, text, spans), *in_charge(text, spans))
    if not _LEANS.search(text):
        yield from named_clause(reading, text, spans, subject.phrase if subject else None)
    yield from _apposition(text, spans)
    if subject and subject.phrase.kind == "place" and _POPULATION.match(text):
        yield Evidence("noun:population", subject.phrase, spans, PRONOUN)
    if found := _DATED_OPENING.match(text):
        yield from _dated(reading, subject, text[found.end() :], spans)
        return
    if _OPENS_DANGLING.match(text):
        return
    if not (found := _CLAUSE.match(text)):
        return
    raw, predicate = found.group("subject"), found.group("predicate")
    if term := _TERM.match(raw):
        yield from _of_word(told(Statement(reading, Phrase(term.group("term")), predicate, spans, INSIDE)))
    elif (noun := NOUN_OF.match(raw)) and noun_stem(noun.group("noun")) in _RELATION_NOUNS:
        yield from _noun_of(reading, noun, predicate, spans)
    elif subject and _bare(raw) == subject.phrase.text.casefold():
        yield from told(Statement(reading, subject.phrase, predicate, spans, TITLE))
    elif raw[0] not in "\"“'‘":
        yield from _inside(reading, subject, sentence, raw, predicate, spans)


def _inside(
    reading: Reading, subject: Subject | None, sentence: Sentence, raw: str, predicate: str, spans: Spans
) -> Iterator[Evidence]:
    """Evidence about something other than the document's subject."""
    if _LEANS.search(reading.text, sentence.start, sentence.end):
        return
    number = next((_NUMBER[word] for word in predicate.split()[:3] if word in _NUMBER), None)
    phrase = noun_phrase(raw, number)
    if phrase is None or not agrees(phrase, predicate) or (" and " in phrase.text and phrase.text[1:].islower()):
        return
    phrase = reading.spelled(phrase)
    phrase = phrase.of_kind("person" if names_person(phrase.text) else "")
    if subject and subject.phrase.kind == "person" and phrase.text in subject.phrase.text.split()[1:]:
        phrase = subject.phrase
    elif " " not in phrase.text and phrase.text.istitle() and _ABOUT_PERSON.search(predicate):
        return
    if _is_parameter(phrase) or (subject and is_part_of_title(phrase, subject)):
        return
    if not is_anaphoric(reading, phrase, sentence, predicate):
        rare = reading.mentions(phrase) < _MIN_MENTIONS + (phrase.text.islower() and " " not in phrase.text)
        found = told(Statement(reading, phrase, predicate, spans, INSIDE))
        yield from (item for item in found if not rare or item.key in _DEFINING)
    yield from told_of_object(reading, raw, predicate, spans)


def _apposition(text: str, spans: Spans) -> Iterator[Evidence]:
    """From "Frances Perkins, the first woman in the cabinet, ...": who she was."""
    found = _APPOSITION.match(text)
    telling = found and len(found.group("what").split()) >= _MIN_APPOSITION_WORDS
    if found and _TOLD_BEFORE.search(found.group("what")):
        return
    if found and telling and kind_of_complement(found.group("what")) == "person":
        past = is_past(found.group("verb")) or found.group("verb") in ("was", "had")
        yield Evidence("identity", Phrase(found.group("name"), kind="person"), spans, INSIDE, past=past)


def _dated(reading: Reading, subject: Subject | None, clause: str, spans: Spans) -> Iterator[Evidence]:
    """From "In 1773, Parliament passed the Tea Act": when and by whom, nothing else."""
    found = _CLAUSE.match(clause)
    if not found or _OPENS_DANGLING.match(clause):
        return
    raw, predicate = found.group("subject"), found.group("predicate")
    if passive := _WAS_DONE.match(predicate):
        stem = verb_stem(passive.group("verb"))
        named = any(c.isupper() or c.isdigit() for c in raw.removeprefix("the "))
        about = subject.phrase if subject and _bare(raw) == subject.phrase.text.casefold() else noun_phrase(raw)
        if about and named and is_participle(passive.group("verb")):
            about = about.of_kind("person" if names_person(about.text) else "")
            yield Evidence(f"when:{SAME_VERB.get(stem, stem)}", about, spans, PRONOUN, past=True)
    for item in told_of_object(reading, raw, predicate, spans):
        if any(c.isupper() for c in item.subject.text) and item.key.startswith("who:") and item.past:
            yield item
            yield replace(item, key=item.key.replace("who:", "when:"))


def _of_word(found: Iterator[Evidence]) -> Iterator[Evidence]:
    """What is said of a word itself: its origin and meaning, never those of the thing."""
    for item in found:
        if item.key in ("meaning", "where:come", "pass:name:after"):
            yield replace(item, key="where:word" if item.key == "where:come" else item.key)


def _is_parameter(phrase: Phrase) -> bool:
    """Whether a phrase is a part of a command that needs the command's name: "the Path parameter"."""
    parts = ("parameter", "parameters", "property", "switch")
    return phrase.text.endswith(parts)


def _opening(reading: Reading, subject: Subject, sentence: Sentence, text: str) -> str:
    """The pronoun or class noun that opens a sentence in place of the document's subject."""
    opening = next((o for o in sorted(subject.pronouns, key=len, reverse=True) if text.startswith(o + " ")), "")
    if opening in ("It", "They"):
        before = reading.structure.sentence_before(sentence)
        if before is None or not opens_with(reading.text[before.start : before.end], subject.phrase):
            return ""
    return opening


def _bare(raw: str) -> str:
    """Words without article, marks and case."""
    plain = " ".join(raw.replace("*", "").replace("`", "").split()).casefold()
    return re.sub(r"^(?:the|an?)\s+", "", plain)


def _two_things(reading: Reading, text: str, spans: Spans) -> Iterator[Evidence]:
    """From "The difference between A and B is ...", and from "Full Name (FN) is ..." what FN stands for."""
    if found := _DIFFERS.match(text):
        names = found.groupdict()
        pair = (noun_phrase(names[x] or names[f"{x}2"] or names[f"{x}3"] or "") for x in "ab")
        first, second = (reading.spelled(phrase) if phrase else None for phrase in pair)
        if first and second:
            both = Phrase(f"{first.with_article()} and {second.with_article()}", plural=True)
            yield Evidence("difference", first, spans, PRONOUN, other=second)
            yield Evidence("differences", both, spans, PRONOUN)
    if found := _ABBREVIATED.match(text):
        initials = "".join(word[0] for word in found.group("name").replace("-", " ").split() if word[0].isupper())
        if initials == found.group("short").upper() and _CLAUSE.match(text):
            yield Evidence("stand", Phrase(found.group("short")), spans, PRONOUN)


def _existential(reading: Reading, text: str, spans: Spans) -> Iterator[Evidence]:
    """From "There are three types of X: ..."."""
    found = _EXISTENTIAL.match(text)
    listed = ":" in text or _NAMES_THEM.search(text)
    if found and listed and (phrase := noun_phrase(found.group("x"))):
        stem = noun_stem(found.group("noun"))
        reliability = PRONOUN if text[-1] == ":" else INSIDE
        key = "noun:" + NOUN_KEYS.get(stem, stem)
        made = Evidence(key, reading.spelled(phrase), spans, reliability, count=number_word(text))
        yield made
        for counting in ("count:", "counted:") if _NUMBER_OF.search(found.group()) else ():
            yield replace(made, key=counting + key.removeprefix("noun:"))


def _noun_of(reading: Reading, noun: re.Match[str], predicate: str, spans: Spans) -> Iterator[Evidence]:
    """From "The purpose of X is to ..."."""
    stem = noun_stem(noun.group("noun"))
    phrase = noun_phrase(noun.group("x"))
    states = _STATES.match(predicate)
    if (
        states
        and (said := states.group("said"))
        and (said.endswith("ly") or is_participle(said) or said in _SAYS_LITTLE)
    ):
        return
    key = "noun:" + NOUN_KEYS.get(stem, stem)
    if phrase is None or not states or (key in _LISTED and not _LIST.search(predicate)):
        return
    if key in _LISTED and "most common" in noun.group() and predicate.startswith(("is ", "was ")):
        return
    phrase = reading.spelled(phrase)
    if phrase.article != "the" or not phrase.text.islower() or " " in phrase.text:
        yield Evidence(key, phrase, spans, 0.75, past=predicate.startswith("w"))
