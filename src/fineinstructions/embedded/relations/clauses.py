"""Sentences that state one thing about a subject: definitions, passives with a date, place or agent, causes, parts, uses.

In: a `Reading` and its subject. Out: `Evidence`. The decision to question: only sentences whose subject is a clean noun phrase
(or a pronoun that can only mean the document's subject) and whose verb is in a small list are read at all.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from fineinstructions.embedded.document_text import Sentence
from fineinstructions.embedded.relations.evidence import MAX_ANSWER_WORDS, Evidence, Reading, Subject
from fineinstructions.embedded.relations.grammar import Phrase, is_participle, kind_of_complement, noun_phrase, noun_stem, verb_stem
from fineinstructions.embedded.relations.predicates import (
    ACTIVE_VERBS,
    AGENT,
    DATE,
    DEFINITION,
    IS_A_OF,
    NOT_NOUN_RELATION,
    NOUN_OF,
    OBJECT_OF,
    PLACE,
    PLURAL_DEFINITION,
    PREDICATES,
    REGIONS,
    WEAK_COMPLEMENT,
)
from fineinstructions.embedded.relations.wanted import NOUN_KEYS

_BE = r"is|are|was|were"
_CLAUSE = re.compile(
    r"(?P<subject>[^,;:()\n]{2,75}?(?:\n[^,;:()\n]{1,40}?)?)(?P<paren>\s?\((?:[^()]|\([^()]*\)){1,200}\))?(?P<aside>, (?:also|or|sometimes|formerly|often) [^,]{2,80},)?\s"
    rf"(?P<predicate>(?:also |often |usually |normally |typically |mainly |primarily |generally |commonly )?(?:{_BE}|has|have|can|may|{ACTIVE_VERBS})\s.+)\Z",
    re.DOTALL,
)
_POINTS_ELSEWHERE = re.compile(
    r"\b(?:this|next|previous|preceding|following) (?:chapter|section|figure|article|page|summary|table|topic|example|paragraph|module|appendix|manual|book|lesson|exercise|"
    r"procedure|film|song|game|list|map|sample|command|document)\b|\b(?:above|below|earlier|aforementioned|as follows|herein)\b|\[\[|\bsee (?:the|also|chapter|paragraph|figure|section|table|how|[A-Z])|"
    r"\b(?:Figure|Table|Chapter|Appendix|Section|paragraph|FM|ADP|ATP|MCTP|JP|AR) ?\d|\bfigure [A-Z0-9]|https?:|\bclick\b|\d{2} (?:August|July|June|May|October) 20\d\d",
    re.IGNORECASE,
)
_OPENS_DANGLING = re.compile(
    r"(?:this|these|those|that|such|it|he|she|they|his|her|its|their|however|therefore|thus|also|but|and|or|so|then|there|here|in addition|for example|for instance|"
    r"instead|other|another|both|as a result|in contrast|similarly|likewise|moreover|furthermore|finally|meanwhile|nevertheless|later|afterwards|the (?:former|latter|second|other|same))\b",
    re.IGNORECASE,
)
_CONTINUES = re.compile(r"(?:it|they|these|this|he|she|its|their|such)\b", re.IGNORECASE)


def clause_evidence(reading: Reading, subject: Subject | None, skip: frozenset[int]) -> Iterator[Evidence]:
    """Evidence from the sentences of a document.

    Args:
        reading: The document.
        subject: What it is about, if known.
        skip: Sections that hold exercises, references or link lists.
    """
    for sentence in reading.structure.sentences:
        if sentence.section in skip:
            continue
        words = reading.structure.words(sentence.start, sentence.end)
        if 5 <= words <= 70:
            yield from _read(reading, subject, sentence)


def _read(reading: Reading, subject: Subject | None, sentence: Sentence) -> Iterator[Evidence]:
    text = reading.text[sentence.start : sentence.end]
    if not is_self_contained(text):
        return
    spans = _answer(reading, sentence)
    if spans is None:
        return
    lead, body = "", text
    if subject and (opening := _opening(reading, subject, sentence, text)):
        lead = subject.phrase.with_article(capital=True)
        body = lead + text[len(opening) :]
        spans = ((sentence.start + len(opening) + 1, spans[0][1]), *spans[1:])
    elif _OPENS_DANGLING.match(text):
        return
    if not (found := _CLAUSE.match(body)):
        yield from _existential(reading, text, spans)
        return
    predicate = found.group("predicate")
    plural = {"are": True, "were": True, "is": False, "was": False, "has": False, "have": True}.get(predicate.split()[0])
    if lead and subject:
        yield from _about(reading, subject.phrase, predicate, spans, lead, 0.7)
        return
    raw = found.group("subject")
    if noun := NOUN_OF.match(raw):
        yield from _noun_of(reading, noun, predicate, spans)
        return
    if subject and _names_subject(raw, subject):
        yield from _about(reading, subject.phrase, predicate, spans, "", 0.85)
        return
    phrase = noun_phrase(raw, plural)
    if phrase is None or not _agrees(phrase, predicate):
        return
    phrase = reading.spelled(phrase)
    yield from _about(reading, phrase, predicate, spans, "", 0.6)
    yield from _object(reading, raw, predicate, spans)


def is_self_contained(text: str) -> bool:
    """Whether a sentence needs nothing around it: no pointer to a figure or chapter, whole, balanced, not all capitals."""
    if text[-1] not in ".!:\"”)" or not text[0].isalnum() and text[0] not in "*`\"“'":
        return False
    if text[0].islower() or text.count("(") != text.count(")") or text.count('"') % 2 or "\n\n" in text or "<" in text or "|" in text:
        return False
    return _POINTS_ELSEWHERE.search(text) is None and re.search(r"•|[A-Z]{3,} [A-Z]{3,} [A-Z]{3,}", text) is None


def _answer(reading: Reading, sentence: Sentence) -> tuple[tuple[int, int], ...] | None:
    """Spans of the sentence, with the list it announces and a next sentence that goes on about it."""
    structure = reading.structure
    if reading.text[sentence.end - 1] == ":":
        items = structure.items_after(sentence.block)
        if len(items) < 2 or structure.sentence_after(sentence) or structure.words(items[0].start, items[-1].end) > MAX_ANSWER_WORDS - 60:
            return None
        return ((sentence.start, items[-1].end),)
    return ((sentence.start, sentence.end),)


def extended(reading: Reading, evidence: Evidence, limit: int = 70) -> Evidence:
    """Evidence with the sentences behind it that go on about the same subject, up to ``limit`` words."""
    structure = reading.structure
    start, end = evidence.spans[-1]
    sentence = next((s for s in structure.sentences if s.end == end), None)
    while sentence and (following := structure.sentence_after(sentence)):
        text = reading.text[following.start : following.end]
        goes_on = re.match(r"(?:It|They|Its|Their|He|She|His|Her)\b", text) or _names(text, evidence.subject)
        if not goes_on or structure.words(evidence.start, following.end) > limit or not is_self_contained(text) or text[-1] == ":":
            break
        sentence, end = following, following.end
    return replace(evidence, spans=(*evidence.spans[:-1], (start, end)))


def _names(text: str, phrase: Phrase) -> bool:
    return re.match(r"(?:The |An? )?" + re.escape(phrase.text) + r"\b", text, re.IGNORECASE) is not None


def _opening(reading: Reading, subject: Subject, sentence: Sentence, text: str) -> str:
    """The pronoun or class noun that opens a sentence in place of the document's subject."""
    for opening in sorted(subject.pronouns, key=lambda o: -len(o)):
        if text.startswith(opening + " "):
            if opening in ("It", "They"):
                before = reading.structure.sentences
                index = next(i for i, s in enumerate(before) if s.start == sentence.start)
                previous = before[index - 1] if index else None
                if previous is None or previous.block != sentence.block or not _names(reading.text[previous.start : previous.end], subject.phrase):
                    return ""
            return opening
    return ""


def _names_subject(raw: str, subject: Subject) -> bool:
    words = re.sub(r"^(?:the|an?)\s+", "", " ".join(raw.replace("*", "").replace("`", "").split()), flags=re.IGNORECASE).casefold()
    return words == subject.phrase.text.casefold()


def _existential(reading: Reading, text: str, spans: tuple[tuple[int, int], ...]) -> Iterator[Evidence]:
    """ "There are three types of X ..."."""
    found = re.match(r"There are (?:\w+ )?(?:\w+ )?(types|kinds|forms|stages|categories|phases|classes) of (?P<x>[^,.:;()]{3,60}?)(?=[,.:;(]| that| which| —)", text)
    if found and (phrase := noun_phrase(found.group("x"))):
        stem = noun_stem(found.group(1))
        yield Evidence("noun:" + NOUN_KEYS.get(stem, stem), reading.spelled(phrase), spans, 0.75 if text[-1] == ":" else 0.55, count=_count(text))


def _count(text: str) -> str:
    number = re.search(r"\b(?:two|three|four|five)\b", text)
    return number.group() if number else ""


def _noun_of(reading: Reading, noun: re.Match[str], predicate: str, spans: tuple[tuple[int, int], ...]) -> Iterator[Evidence]:
    """ "The purpose of X is to ..."."""
    stem = noun_stem(noun.group("noun"))
    phrase = noun_phrase(noun.group("x"))
    if stem in NOT_NOUN_RELATION or phrase is None or not re.match(r"(?:is|are|was|were|include|includes)\b(?! not\b)", predicate):
        return
    yield Evidence("noun:" + NOUN_KEYS.get(stem, stem), reading.spelled(phrase), spans, 0.75, past=predicate.startswith("w"))


def _about(
    reading: Reading, phrase: Phrase, predicate: str, spans: tuple[tuple[int, int], ...], lead: str, reliability: float
) -> Iterator[Evidence]:
    """Everything one clause says about its subject."""
    if re.match(r"(?:is|are|was|were|has|have|can|may|do|does)\s+(?:not|never|no)\b", predicate) or "?" in predicate:
        return
    predicate = " ".join(predicate.split())
    verb = predicate.split()[0]
    past = verb in ("was", "were") or (verb not in ("is", "are") and is_past(verb))
    number = re.search(r"\b(?:two|three|four|five)\b", predicate)
    made = Evidence("", phrase, spans, reliability, lead, past, number.group() if number else "")
    for key, pattern in PREDICATES:
        if pattern.match(predicate):
            yield replace(made, key=key)
            if key == "where:locate":
                yield from located(made, predicate)
    if found := re.match(r"(?:is|are|was|were|refers to|refer to|means|describes)\s+(?P<rest>.+)", predicate):
        yield from _defined(reading, made, found.group("rest"), predicate)
    if found := re.match(rf"(?:{_BE}) (?:\w+ly |first |also )?(?P<verb>\w+)\b(?P<rest>.*)", predicate):
        if is_participle(found.group("verb")):
            yield from _passive(made, verb_stem(found.group("verb")), found.group("rest"))
    elif found := re.match(r"(?P<verb>\w+)\b(?P<rest>.*)", predicate):
        stem = verb_stem(found.group("verb"))
        if DATE.search(found.group("rest")):
            yield replace(made, key=f"when:{stem}", reliability=reliability - 0.05)
        if PLACE.match(found.group("rest")):
            yield replace(made, key=f"where:{stem}")
        if stem not in ("have", "can", "may"):
            yield replace(made, key=f"act:{stem}")
    if found := re.match(r"(?:has|have|contains?|includes?) (?:\w+ )?(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|twelve) (?:\w+ ){0,2}?(?P<n>[a-z]+)\b", predicate):
        yield replace(made, key=f"count:{noun_stem(found.group('n'))}")


def _defined(reading: Reading, made: Evidence, rest: str, predicate: str) -> Iterator[Evidence]:
    """Definition, identity and "is the N of Y"."""
    singular, several = DEFINITION.match(rest), made.subject.plural and PLURAL_DEFINITION.match(rest)
    if not (singular or several) or WEAK_COMPLEMENT.match(rest):
        return
    kind = kind_of_complement(rest)
    made = replace(made, subject=made.subject.of_kind(kind))
    name = made.subject.text[:1].isupper() and not made.subject.text.isupper()
    if name and not made.subject.kind and made.past and made.reliability < 0.8:
        return
    if not made.lead or made.reliability > 0.8:
        yield extended(reading, replace(made, key="definition"))
        if kind == "person" or made.subject.kind == "person":
            yield extended(reading, replace(made, key="identity"))
    if made.subject.kind == "person" and not made.lead:
        yield replace(made, key="noun:profession")
        yield replace(made, key="noun:nationality")
    if kind in ("place", "organisation") and re.search(r"\b(?:in|located|situated|near|based) (?:the )?[A-Z\w]", rest):
        yield replace(made, key="where:locate", reliability=made.reliability - 0.05)
        yield from located(made, rest)
    if (found := IS_A_OF.match(rest)) and (whole := noun_phrase(found.group("y"))) and noun_stem(found.group("n")) not in NOT_NOUN_RELATION:
        stem = noun_stem(found.group("n"))
        yield replace(made, key="noun:" + NOUN_KEYS.get(stem, stem), subject=reading.spelled(whole), reliability=made.reliability - 0.1)


def located(made: Evidence, rest: str) -> Iterator[Evidence]:
    """Evidence for "in which country" and the like, where the sentence names one."""
    for kind, pattern in REGIONS:
        if pattern.search(rest):
            yield replace(made, key=f"where:{kind}", reliability=made.reliability - 0.05)


def is_past(verb: str) -> bool:
    """Whether a verb form is a past tense."""
    return verb.endswith("ed") or verb_stem(verb) != verb and not verb.endswith("s")


def _agrees(phrase: Phrase, predicate: str) -> bool:
    """Whether subject and verb agree in number, so that "a common control" is not read as a clause."""
    verb = predicate.split()[0]
    if verb.endswith("ly") or verb in ("can", "may", "is", "are", "was", "were", "also", "often"):
        return True
    if verb.endswith("s") and verb != "has":
        return not phrase.plural
    return phrase.plural or is_past(verb) or verb == "has"


def _passive(made: Evidence, stem: str, rest: str) -> Iterator[Evidence]:
    """ "was founded in 1960 by ...": time, place, agent, manner."""
    if DATE.search(rest):
        yield replace(made, key=f"when:{stem}")
    if PLACE.search(rest):
        yield replace(made, key=f"where:{stem}")
    if AGENT.search(rest):
        yield replace(made, key=f"who:{stem}")
    if re.search(r"\b(?:by \w+ing|through|using|via)\b", rest):
        yield replace(made, key=f"how:{stem}")
    if found := re.match(r" (for|as|by|of|from|to|in|with|on|after|into)\b", rest):
        yield replace(made, key=f"pass:{stem}:{found.group(1)}")
    if re.search(r"\b(?:because|due to|in order to|so that)\b", rest):
        yield replace(made, key=f"why:{stem}")


def _object(reading: Reading, raw: str, predicate: str, spans: tuple[tuple[int, int], ...]) -> Iterator[Evidence]:
    """ "Edison invented the phonograph": who or what did it to the object; "X causes Y": what causes Y."""
    found = OBJECT_OF.match(predicate)
    if not found or not (phrase := noun_phrase(found.group("object"))):
        return
    stem = verb_stem(found.group("verb"))
    phrase = reading.spelled(phrase)
    if stem == "caus":
        yield Evidence("noun:cause", phrase, spans, 0.6)
    elif re.fullmatch(r"(?:[A-Z][\w.’'-]+ ?){1,5}", " ".join(raw.split())):
        yield Evidence(f"who:{stem}", phrase, spans, 0.6)
