"""Facts about named things: who did what to what and when, who made a thing, of what sort it is, who plays whom.

In: a clause about a name, or the sentence that defines a document's subject. Out: `Evidence`, often of a relation
between two things. The decision to question: only names are read, and only where date, place or maker stand right
behind the verb or its object, because a fact told of "the company" is no answer without the company's name.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from fineinstructions.embedded.relations import predicates as say
from fineinstructions.embedded.relations.grammar import (
    Phrase,
    is_participle,
    is_past,
    noun_phrase,
    noun_stem,
    verb_stem,
)
from fineinstructions.embedded.relations.questions import SAME_VERB
from fineinstructions.embedded.relations.reading import Evidence, Reading, Subject
from fineinstructions.embedded.relations.standalone import Spans
from fineinstructions.embedded.relations.tables import by_member, pattern, words

_DATED_OBJECT = pattern("dated_object")
_DATED_PLACE = pattern("dated_place")
_OBJECT = pattern("named_object")
_REDUCED = pattern("reduced")
_MADE_BY = pattern("made_by")
_SORT = pattern("sort_of")
_MAKERS = by_member("makers")
_ACHIEVED = frozenset(verb_stem(verb) for verb in words("achieved_acts"))
_SORTS = words("sorts")
_PLAIN_MODIFIERS = words("plain_modifiers")
_BEHIND_NOUN = re.compile(r" (?:on|from|with|at|to|into|by|in|for|of|using|as) ")
_NAME, _NAME_WORDS = 0.65, 2
"""Reliability of what is told of a name, and how many capitals make a name that needs no context (ours)."""
_SORT_KINDS = ("", "animal", "disease", "organisation", "work")
_TO_DO = pattern("to_do", re.DOTALL)
_IN_CHARGE = pattern("in_charge", re.DOTALL)
_THERE_ARE = pattern("there_are", re.DOTALL)
_NATIVE = re.compile(r"^(?:(?!\b(?:by|from|with|whose)\b)[^.;(]){0,90}?\b(?:native|endemic|indigenous) to [a-zA-Z]")
_PREPOSITION = re.compile(r"\b(?:of|in|for|by|from|with|on|at|to|that|which|who|where)\b")
_LASTING = ("locate", "base")
"""Places that a question asks for in the present and in the past alike."""
_UNNAMED = re.compile(r"(?:He|She|They|We|You|I|Who|Which|Each|All|Some|Others?|Many|Most)\b")
_LEANING = re.compile(
    r"\b(?:this|that|these|those|it|its|their|them|his|her|your|previous|same|specific|example|following)\b"
)
_LED_BY_DATE = re.compile(r"(?:In|On|By) [^,]{0,20}?\b(?:1\d{3}|20\d\d)\b, ")
_ROLE = re.compile(
    r"[-*•] (?P<actor>[A-Z][\w.’'-]+(?: [A-Z][\w.’'-]*){1,3}) (?:as|[-–—]) (?P<role>[A-Z][^,;:()/\n]{2,40})"
)
_ABOUT_CAST = re.compile(
    r"(?:main |starring |principal |voice )?(?:cast|characters)(?: and characters)?", re.IGNORECASE
)


def dated_acts(made: Evidence, predicate: str, dated: bool = False) -> Iterator[Evidence]:
    """From "joined the club in 1999": when that was; ``dated`` says that the sentence opens with its date.

    Args:
        made: Evidence with the clause's subject and spans.
        predicate: The clause from its verb on, blanks made uniform.
        dated: Whether a date stands before the clause.
    """
    for form in (_DATED_OBJECT, _DATED_PLACE):
        found = form.match(predicate)
        if not found or not (is_past(found.group("verb")) or is_participle(found.group("verb"))):
            continue
        behind = say.DATE.match(predicate[found.end() :].lstrip())
        other = noun_phrase(found.group("object"))
        stem = verb_stem(found.group("verb"))
        if stem == "die" or other is None or not (dated or behind) or not _is_particular(other, stem):
            continue
        key = ":".join(("when2", SAME_VERB.get(stem, stem), *(p for p in (found.groupdict().get("p"),) if p)))
        yield replace(made, key=key, other=other, past=True)


def achieved(made: Evidence, predicate: str) -> Iterator[Evidence]:
    """From "discovered the electron": what a person discovered, wrote or won."""
    found = _OBJECT.match(predicate)
    if not found or made.subject.kind != "person":
        return
    stem = verb_stem(found.group("verb"))
    if stem in _ACHIEVED and is_past(found.group("verb")) and noun_phrase(found.group("object")):
        yield replace(made, key=f"act:{stem}", past=True)


def _is_particular(phrase: Phrase, verb: str) -> bool:
    """Whether a question about an object needs no other text: a name, or something that is done once in a life."""
    once = verb in _ACHIEVED and phrase.article == "a" and " " in phrase.text
    return once or any(c.isupper() for c in phrase.text)


def origins(made: Evidence, rest: str) -> Iterator[Evidence]:
    """From "is a film directed by A, released in 1999" and "is a song by B": makers, dates and places.

    Args:
        made: Evidence with the subject that the sentence defines.
        rest: The sentence behind its "is" or "was".
    """
    if made.subject.kind == "person":
        return
    if found := _MADE_BY.match(rest):
        stem = _MAKERS.get(found.group("noun"), "")
        if stem:
            for past in (True, False):
                yield replace(made, key=f"who:{stem}", past=past, reliability=made.reliability - 0.05)
    if found := _NATIVE.search(rest):
        for key in ("where:come", "where:liv", "where:find"):
            yield replace(made, key=key, reliability=made.reliability - 0.05)
    told = False
    for found in _REDUCED.finditer(rest):
        link, before = found.group("link"), rest[: found.start()]
        if link.startswith(" and"):
            own = told
        else:
            own = link.startswith(",") or (not told and _PREPOSITION.search(before) is None)
        if not own:
            continue
        told = True
        yield from _origin(made, found.group("verb"), rest[found.end() : found.end() + 70])


def _origin(made: Evidence, verb: str, behind: str) -> Iterator[Evidence]:
    """What stands behind one participle: maker, date, place."""
    stem = verb_stem(verb)
    same = SAME_VERB.get(stem, stem)
    behind = re.split(r"[;:(]| and (?:is|was)\b|, (?!\d{4})", behind, maxsplit=1)[0].lstrip()
    made = replace(made, reliability=made.reliability - 0.05)
    where = say.PLACE.match(behind)
    if say.DATE.match(behind) or (where and say.DATE.search(behind)):
        yield replace(made, key=f"when:{same}", past=True)
    if where:
        for past in (True, False) if same in _LASTING else (True,):
            yield replace(made, key=f"where:{same}", past=past)
    if say.AGENT.match(behind):
        yield replace(made, key=f"who:{same}", past=True)


def sort_of(made: Evidence, rest: str) -> Iterator[Evidence]:
    """From "is a rare genetic disorder that ...": what kind of disorder it is."""
    found = _SORT.match(rest)
    if not found or made.subject.kind not in _SORT_KINDS:
        return
    head = found.group("head")
    telling = [w for w in found.group("sort").split() if w.lower().strip(",") not in _PLAIN_MODIFIERS]
    if not telling or head not in _SORTS or is_participle(telling[-1]) or made.subject.plural:
        return
    if head.casefold() in made.subject.text.casefold().split():
        return
    made = replace(made, reliability=made.reliability - 0.05)
    yield replace(made, key="kind_of", other=Phrase(head))
    yield replace(made, key=f"kind:{head}")


def named_clause(reading: Reading, text: str, spans: Spans, known: Phrase | None) -> Iterator[Evidence]:
    """Dated acts of a name that opens a sentence, or that follows a date that opens it.

    Args:
        reading: The document.
        text: The sentence.
        spans: Spans of the answer.
        known: The document's subject, where it is a name.
    """
    opening = _LED_BY_DATE.match(text)
    found = say.NAMED.match(text, opening.end() if opening else 0)
    if not found:
        return
    phrase = noun_phrase(found.group("subject"))
    if phrase is None or not is_past(found.group("verb")):
        return
    phrase = _full_name(reading.spelled(phrase), known)
    if phrase is None:
        return
    predicate = " ".join(found.group("predicate").split())
    made = Evidence("", phrase, spans, _NAME, past=True)
    yield from dated_acts(made, predicate, opening is not None)
    yield from achieved(made, predicate)


def _full_name(phrase: Phrase, known: Phrase | None) -> Phrase | None:
    """A name that says by itself who or what is meant; the surname of the document's person becomes the whole name."""
    if known and phrase.text == known.text:
        return known
    if known and known.kind == "person" and phrase.text in known.text.split()[1:]:
        return known
    country = say.REGIONS[0][1].fullmatch(f"in {phrase.text}") is not None
    capitals = sum(word[:1].isupper() for word in phrase.text.split())
    return phrase if country or capitals >= _NAME_WORDS else None


def told_how(text: str, spans: Spans) -> Iterator[Evidence]:
    """From "To list the jobs of a session, use Get-Job.": how to do it."""
    found = _TO_DO.match(" ".join(text.split()))
    if not found or _LEANING.search(found.group("task")):
        return
    whole = noun_phrase(found.group("object"))
    nouns, *more = _BEHIND_NOUN.split(found.group("object"), maxsplit=1)
    head = noun_phrase(nouns)
    if head is None or (head.article == "the" and " " not in head.text and not more):
        return
    yield Evidence("task", Phrase(found.group("task").replace("*", ""), kind="task"), spans, 0.6)
    if whole:
        yield Evidence(f"task:{verb_stem(found.group('verb'))}", whole, spans, 0.6)


def in_charge(text: str, spans: Spans) -> Iterator[Evidence]:
    """From "The S-4 is responsible for developing the plan": who is responsible for that."""
    found = _IN_CHARGE.match(" ".join(text.split()))
    if not found or _LEANING.search(found.group()):
        return
    task = found.group("task").strip()
    if " " not in task or text[:1].islower() or " ".join(text.split())[found.end() : found.end() + 1] == ",":
        return
    phrase = noun_phrase(re.sub(r"^\w+ing (?:and \w+ing )?", "", task))
    if phrase and not _UNNAMED.match(found.group("who")) and (phrase.article != "the" or " " in phrase.text):
        yield Evidence("who:responsible", Phrase(task), spans, 0.65, past=found.group("be") in ("was", "were"))


def counted(reading: Reading, text: str, spans: Spans) -> Iterator[Evidence]:
    """From "There are eight planets in the Solar System": how many planets it has."""
    found = _THERE_ARE.match(" ".join(text.split()))
    if found and (phrase := noun_phrase(found.group("x"))) and (phrase.article != "the" or not phrase.text.islower()):
        for key in ("count", "counted"):
            yield Evidence(f"{key}:{noun_stem(found.group('n'))}", reading.spelled(phrase), spans, 0.65)


def cast_evidence(reading: Reading, subject: Subject) -> Iterator[Evidence]:
    """From the list of a film's cast: who plays whom."""
    if subject.phrase.kind != "work":
        return
    for section in reading.structure.sections:
        if not _ABOUT_CAST.fullmatch(section.heading.strip()):
            continue
        for block in section.blocks:
            found = _ROLE.match(reading.text, block.start, block.end) if block.kind == "item" else None
            if found and not found.group("role").isupper():
                role = Phrase(found.group("role").strip(), kind="")
                span = ((block.start, block.end),)
                yield Evidence("cast", role, span, 0.8, other=subject.phrase)
                yield Evidence("who:play", role, span, 0.75, past=True)
                yield Evidence("role", Phrase(found.group("actor"), kind="person"), span, 0.8, other=subject.phrase)
