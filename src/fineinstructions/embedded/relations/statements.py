"""What one clause states about its subject: definition, passive with time, place or agent, and the object's side.

In: a `Statement`, the subject's phrase with the predicate (the sentence from its verb on). Out: `Evidence`. The
decision to question: the first date or place close behind the verb is taken to be the verb's own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fineinstructions.embedded.relations import predicates as say
from fineinstructions.embedded.relations.facts import origins, sort_of
from fineinstructions.embedded.relations.grammar import (
    Phrase,
    is_participle,
    is_past,
    kind_of_complement,
    kind_of_head,
    noun_phrase,
    noun_stem,
    number_word,
    verb_stem,
)
from fineinstructions.embedded.relations.questions import NOUN_KEYS, SAME_VERB
from fineinstructions.embedded.relations.reading import Evidence, Reading
from fineinstructions.embedded.relations.standalone import Spans, extended
from fineinstructions.embedded.relations.tables import pattern, words

TITLE, PRONOUN, INSIDE = 0.85, 0.7, 0.6
"""Reliability of a sentence about the document's subject by name, by pronoun, and about anything else."""
_ACTS = frozenset(verb_stem(verb) for verb in words("told_acts"))
_NEGATED = re.compile(
    r"(?:is|are|was|were|has|have|can|may|do|does)\s+(?:an? |the )?(?:not|never|no|neither|nor|hardly)\b"
)
_COPULA = re.compile(
    r"(?:is|are|was|were|refers to|refer to|means(?= (?:that|to|the|an?|any|\w+ing)\b)|"
    r"describes)\s+(?P<rest>.+)"
)
_HIDDEN_PASSIVE = re.compile(r"(?:thus|then|therefore|still|often|now|always|sometimes|never) (?P<verb>\w+)\b")
_PASSIVE = re.compile(r"(?:is|are|was|were) (?:(?!firmly|newly)\w+ly |first |also )?(?P<verb>\w+)\b(?P<rest>.*)")
_ACTIVE = re.compile(r"(?P<verb>\w+)\b(?P<rest>.*)")
_IN_PLACE = {
    "place": r"\b(?:in|near|on|of) (?:the )?(?!House|Parliament|Legislat|Senate|Assembly|National)[A-Z]"
    r"|\b(?:located|situated) ",
    "organisation": r"\b(?:based|located|headquartered) (?:in|at)\b",
}
_CONTRASTS = re.compile(r", (?:while|whereas|but|yet)\b|\b(?:order of the day|underway|wake-up call|growing|homage)\b")
_NAMES = re.compile(r"(?<=[a-z] )[A-Z][a-z]")
_GERUND = re.compile(r"\w+ing\b(?! that| which| of)")
_NOWHERE = r"(?!)"
_NEED_SUBSTANCE = {"noun:function": 9, "noun:importance": 14, "used": 9, "where:find": 9}
"""Fewest words of a predicate about something in the middle of a text, where short ones say little (ours)."""
_OF_PERSONS = ("award", "spouse", "college", "team", "position")
"""Relations for which a first name or "the team" in the middle of a text is not enough."""
_TAKES_THE = re.compile(r"\b(?:United|Netherlands|Philippines|Republic|USA|U\.S\.)")
_FAR = 70
"""How far into a definition a place may stand that says where the thing is, in characters."""
_NOT_ITS_PLACE = re.compile(r",? \b(?:formed|founded|established|created|comprising|that|which|who|for)\b")
"""What a place behind it belongs to, in the definition of a club or company: its foundation, not its seat."""
_NEAR = 8
"""How far behind an active verb its own date may stand, in characters."""
_TOLD_OF_ANYTHING = ("be", "caus", "affect", "influenc", "regulat", "help")
"""Verbs whose object may be a bare noun; of "started strongly" nobody is the starter."""
_SCORE = re.compile(r" (?:by|with) (?:\d|a )|\b\d+ (?:yards|points|runs|laps|seconds)\b")
"""What tells of a lead in a game, and not of a leader."""
_YEAR = re.compile(r"\b(?:1\d{3}|20\d\d)\b")
NO_TRADE = re.compile(
    r"(?:an?|the) (?:\w+ )?(?:name|resident|native|son|daughter|member|winner|finalist|nominee|candidate)\b"
)
"""What says where a person lives, whose child it is or what it won once, and neither trade nor nationality."""
_WON = re.compile(r"an? (?:[\w.-]+ ){0,5}?(?:winner|finalist|nominee|candidate|runner-up)\b")
"""What somebody was once, and not who it is."""
NATION = re.compile(
    r"\b[A-Z]\w*(?:an|ese|ish|i|ch|ss|ino|ander|landic)\b|\b(?:Dutch|Czech|Thai|Greek|Welsh|Scots)\b"
    r"| from (?:the )?[A-Z]"
)
"""What tells where somebody comes from; "a Gaelic football goalkeeper" does not."""
_ACT = re.compile(r"\b(?:Act|Law|Treaty|Constitution|Decree|Charter)\b")
"""What founds and creates without being somebody."""
_LISTS = pattern("lists")
_LISTS_ALL = re.compile(r":|—|, [^,]+,? (?:and|or) |\b(?:into|as|types|kinds|forms) [\w -]+ (?:and|or) ")
"""What names the things it counts; "has three types" does not."""
_HAS_SO_MANY = pattern("has_so_many")
_LIFELESS = ("start", "begin", "open", "end", "form")
"""Verbs whose date says little about a person: "Rosberg started well in 1996"."""
_DONE_TO_PERSONS = frozenset(verb_stem(verb) for verb in words("done_to_persons"))
_OTHER_CLAUSE = re.compile(r" but | and (?:is|was|were|later|then)\b|, (?:but|and|which|who)\b")
_DATED_ACTS = frozenset(
    (*_LIFELESS, "close", "die", "retir", "debut", "graduat", "join", "air", "occur", "happen", "stop")
)
"""Active verbs whose date answers "when did it ..."; who "released the game in 2006" did not come out in 2006."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A clause with a clean subject."""

    reading: Reading
    phrase: Phrase
    predicate: str
    spans: Spans
    reliability: float
    lead: str = ""
    """Subject to put before the span, where the span leaves a pronoun out."""

    @property
    def is_named(self) -> bool:
        """Whether the subject is a name or the document's subject, so that a date or place is its own."""
        told_name = any(c.isupper() or c.isdigit() for c in self.phrase.text)
        return self.reliability >= PRONOUN or (told_name and self.phrase.article != "a")


def told(statement: Statement) -> Iterator[Evidence]:
    """Everything a clause says about its subject."""
    predicate = " ".join(statement.predicate.split())
    if _NEGATED.match(predicate) or "?" in predicate:
        return
    verb = predicate.split()[0]
    past = verb in ("was", "were") or (verb not in ("is", "are") and is_past(verb))
    made = Evidence(
        "", statement.phrase, statement.spans, statement.reliability, statement.lead, past, number_word(predicate)
    )
    yield from _by_predicate(made, predicate)
    if found := _COPULA.match(predicate):
        yield from _defined(statement.reading, made, found.group("rest"))
    if found := _PASSIVE.match(predicate):
        if is_participle(found.group("verb")):
            yield from _passive(made, verb_stem(found.group("verb")), found.group("rest"), statement.is_named)
    elif found := _ACTIVE.match(predicate):
        yield from _active(made, verb_stem(found.group("verb")), found.group("rest"), statement.is_named)
    if found := _HAS_SO_MANY.match(predicate):
        yield replace(made, key=f"count:{noun_stem(found.group('n'))}")
        if made.subject.kind != "person":
            yield replace(made, key=f"counted:{noun_stem(found.group('n'))}")


def _by_predicate(made: Evidence, predicate: str) -> Iterator[Evidence]:
    """Relations that the table of predicates reads."""
    for key, expression in say.PREDICATES:
        if not expression.match(predicate):
            continue
        needed = say.PLACE if key == "where:take" else say.DATE if key == "when:take" else None
        if needed and not needed.search(predicate):
            continue
        told_name = any(c.isupper() or c.isdigit() for c in made.subject.text)
        if needed and made.reliability <= INSIDE and not told_name:
            continue
        name = made.subject.text[:1].isupper() and made.reliability <= INSIDE
        if key == "noun:function" and name and not predicate.startswith(("is ", "are ")):
            continue
        fewest = _NEED_SUBSTANCE.get(key, 0) if made.reliability <= INSIDE else 0
        if len(predicate.split()) < fewest:
            continue
        if key in ("noun:part", "noun:effect") and not _LISTS.search(predicate):
            continue
        if key in ("noun:type", "noun:step", "noun:stage", "divided") and not _LISTS_ALL.search(predicate):
            continue
        if key == "noun:effect" and made.reliability <= INSIDE:
            continue
        if key in ("noun:function", "used") and kind_of_head(made.subject.text) == "person":
            continue
        if key in _OF_PERSONS and made.reliability <= INSIDE and (" " not in made.subject.text or made.subject.article):
            continue
        if key == "divided":
            kinds = made.subject.plural or re.search(r"\b(?:types|kinds|forms|classes)\b", predicate)
            yield replace(made, key="noun:type" if kinds else "noun:part")
            if kinds and made.count:
                yield replace(made, key="count:type")
            continue
        yield replace(made, key=key)
        if key == "where:locate":
            yield from located(made, predicate)


def _defined(reading: Reading, made: Evidence, rest: str) -> Iterator[Evidence]:
    """Definition, identity and "is the N of Y"."""
    several = made.subject.plural and say.PLURAL_DEFINITION.match(rest)
    if (
        not (say.DEFINITION.match(rest) or several)
        or say.WEAK_COMPLEMENT.match(rest)
        or (_GERUND.match(rest) and not made.subject.text.endswith("ing"))
        or ((passive := _PASSIVE.match(f"is {rest}")) and is_participle(passive.group("verb")))
        or ((passive := _HIDDEN_PASSIVE.match(rest)) and is_participle(passive.group("verb")))
    ):
        return
    kind = kind_of_complement(rest)
    made = replace(made, subject=made.subject.of_kind(kind))
    first_name = made.subject.kind == "person" and " " not in made.subject.text
    if made.reliability <= INSIDE and (first_name or not _is_tight(made, rest)):
        return
    if not made.lead:
        # "The Equisetum is the survivor of ..." says what it is, not what the word means.
        keys = ["definition"] if made.subject.article == "the" else ["definition", "meaning"]
        if made.subject.kind == "person" and not made.subject.article and not _WON.match(rest):
            keys.append("identity")
            # "The last driver to go out" names no profession.
            if rest.startswith(("a ", "an ")) and not NO_TRADE.match(rest):
                keys += ["noun:profession", *(["noun:nationality"] if NATION.search(rest[:_FAR]) else [])]
        for key in keys:
            yield extended(reading, replace(made, key=key))
    if re.search(_IN_PLACE.get(kind, _NOWHERE), rest[:_FAR]):
        yield replace(made, key="where:locate", reliability=made.reliability - 0.05)
        yield from located(made, rest)
    yield from sort_of(made, rest)
    if made.reliability >= PRONOUN:
        yield from origins(made, rest)
    yield from _role(reading, made, rest)


def _is_tight(made: Evidence, rest: str) -> bool:
    """Whether a definition in the middle of a text names a class and what tells the thing apart."""
    if (
        _CONTRASTS.search(rest)
        or made.subject.text.split()[0].endswith("est")
        or (made.subject.article == "the" and " " not in made.subject.text and _NAMES.search(rest))
    ):
        return False
    unknown_name = made.subject.text[:1].isupper() and not made.subject.text.isupper() and not made.subject.kind
    return say.TIGHT_COMPLEMENT.match(rest) is not None and not unknown_name and not is_participle(rest.split()[0])


def _role(reading: Reading, made: Evidence, rest: str) -> Iterator[Evidence]:
    """From "Topeka is the capital of Kansas": the capital of Kansas."""
    found = say.IS_A_OF.match(rest)
    whole = noun_phrase(found.group("y")) if found else None
    if found and whole and (stem := noun_stem(found.group("n"))) not in say.NOT_NOUN_RELATION:
        key = "noun:" + NOUN_KEYS.get(stem, stem)
        yield replace(made, key=key, subject=reading.spelled(whole), reliability=made.reliability - 0.1)


def located(made: Evidence, rest: str) -> Iterator[Evidence]:
    """Evidence for "in which country" and the like, where the sentence names one."""
    if made.subject.kind == "organisation":
        rest = _NOT_ITS_PLACE.split(rest, maxsplit=1)[0]
    for kind, expression in say.REGIONS:
        if not (found := expression.search(rest)):
            continue
        made_less = replace(made, reliability=made.reliability - 0.05)
        yield replace(made_less, key=f"where:{kind}")
        if kind == "country" and re.search(r"\b(?:in|near|on|at) ", rest[: found.start()]):
            country = re.sub(
                r"^\W*(?:(?:in|of|from|the|central|\w+ern|north\w*|south\w*|east\w*|west\w*)\s)*", "", found.group()
            )
            article = "the" if _TAKES_THE.search(country) else ""
            yield replace(made_less, key="where:in", other=Phrase(country, article, kind="place"))


def agrees(phrase: Phrase, predicate: str) -> bool:
    """Whether subject and verb agree in number, so that "a common control" is not read as a clause."""
    verb = predicate.split()[0]
    if verb.endswith("ly") or verb in ("can", "may", "is", "are", "was", "were", "also", "often", "has"):
        return True
    return not phrase.plural if verb.endswith("s") else phrase.plural or is_past(verb)


def _passive(made: Evidence, stem: str, rest: str, is_named: bool) -> Iterator[Evidence]:
    """From "was founded in 1960 by ...": time, place, agent, manner."""
    same = SAME_VERB.get(stem, stem)
    unfit = made.subject.kind == "person" and same not in _DONE_TO_PERSONS
    if is_named and not unfit and say.DATE.search(rest[:80]):
        yield replace(made, key=f"when:{same}")
    if is_named and not unfit and say.PLACE.search(rest[:80]):
        yield replace(made, key=f"where:{same}")
    agent = _OTHER_CLAUSE.split(rest[:60], maxsplit=1)[0]
    if not (same == "found" and not made.past) and say.AGENT.search(agent) and not _ACT.search(agent):
        yield replace(made, key=f"who:{same}")
    elif " by " in rest[:40] and stem in ("determin", "caus", "control", "influenc", "regulat", "trigger"):
        yield replace(made, key=f"by:{stem}")
    if re.search(r"\b(?:by \w+ing|through|using|via)\b", re.split(r" and |[,;]", rest, maxsplit=1)[0]):
        yield replace(made, key=f"how:{same}")
    if found := re.match(r" (for|as|by|of|from|to|in|with|on|after|into)\b", rest):
        yield replace(made, key=f"pass:{stem}:{found.group(1)}")
    if re.search(r"\b(?:because|due to|in order to|so that)\b", rest):
        yield replace(made, key=f"why:{stem}")


def _active(made: Evidence, stem: str, rest: str, is_named: bool) -> Iterator[Evidence]:
    """From "opened in 1960", "lives in ...", "produces ...": time, place, act."""
    same = SAME_VERB.get(stem, stem)
    date = say.DATE.search(rest)
    dated = is_named and stem in _DATED_ACTS and date is not None and date.start() <= _NEAR
    if dated and not (made.subject.kind == "person" and stem in _LIFELESS):
        yield replace(made, key=f"when:{same}", reliability=made.reliability - 0.05)
    if is_named and say.PLACE.match(rest.strip()):
        yield replace(made, key=f"where:{same}")
    if stem in _ACTS and made.subject.kind != "person":
        yield replace(made, key=f"act:{stem}")


def told_of_object(reading: Reading, raw_subject: str, predicate: str, spans: Spans) -> Iterator[Evidence]:
    """From "Edison invented the phonograph": who invented it; from "X causes Y": what causes Y."""
    found = say.OBJECT_OF.match(predicate)
    phrase = noun_phrase(found.group("object")) if found else None
    if not found or phrase is None or (phrase.text.endswith("ing") and " " not in phrase.text):
        return
    phrase = reading.spelled(phrase)
    verb = found.group("verb").split()[0]
    stem, past = verb_stem(verb), is_past(verb)
    names_nothing = _is_bare(phrase) if stem in _TOLD_OF_ANYTHING else _is_bare(phrase) or _is_any(phrase)
    if names_nothing or _does_otherwise(stem, raw_subject, phrase.text, predicate[found.end() :]):
        return
    made = Evidence(f"who:{SAME_VERB.get(stem, stem)}", phrase, spans, INSIDE, past=True)
    if stem == "be":
        yield replace(made, key="who:responsible", past=verb.startswith("w"))
    elif stem == "caus" and phrase.article != "a" and not predicate[found.end() :].startswith(" to "):
        yield replace(made, key="noun:cause", past=past)
    elif stem in ("affect", "influenc", "regulat") and (cause := noun_phrase(raw_subject)):
        yield replace(made, key="effect_on", subject=reading.spelled(cause), past=past, other=phrase)
    elif re.fullmatch(r"(?:[A-Z][\w.’'-]+ ?){1,5}", " ".join(raw_subject.split())):
        yield made


def _is_bare(phrase: Phrase) -> bool:
    """Whether an object needs the sentences before it ("the picture") or is what somebody did ("selling cars")."""
    before = phrase.article == "the" and phrase.text.islower()
    return before or (not phrase.article and phrase.text[0].islower() and phrase.text.split()[0].endswith("ing"))


def _is_any(phrase: Phrase) -> bool:
    """Whether an object is any of its sort, so that nobody asks who made it: "a song", "strong winds"."""
    lower = phrase.text.islower()
    return (phrase.article == "a" and lower and " " not in phrase.text) or not (
        phrase.article or any(c.isupper() for c in phrase.text)
    )


def _does_otherwise(stem: str, raw_subject: str, thing: str, behind: str) -> bool:
    """Whether a verb means something else with this subject and object than "who ..." would ask for."""
    if stem not in _TOLD_OF_ANYTHING and _ACT.search(raw_subject):  # an act founds and creates, and is nobody
        return True
    if stem == "lead":  # the lead in a game
        return _SCORE.search(thing) is not None or _SCORE.match(behind) is not None
    if stem == "win":  # a cup is won every year
        return _YEAR.search(thing) is None
    if stem == "introduc" and " " not in thing:  # "introduced Maria" made nothing
        return True
    if stem == "be":  # "responsible for": a gene or a storm is no answer to "who"
        return kind_of_head(" ".join(raw_subject.split())) not in ("person", "organisation")
    return False
