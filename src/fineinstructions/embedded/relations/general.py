"""Whether a sentence of a page about one thing answers a question that asks about another thing in general.

In: a `Reading`, its subject and evidence. Out: yes or no. The decision to question: "chemotherapy is used to treat
leukemia" is true and no answer to "what is chemotherapy used for", because its page tells of one use only; a page
without a subject, such as a chapter, is believed.
"""

import re

from fineinstructions.embedded.relations.grammar import kind_of_head, noun_stem
from fineinstructions.embedded.relations.reading import Evidence, Reading, Subject
from fineinstructions.embedded.relations.tables import words

_USES = ("noun:function", "noun:importance", "how:use", "pass:use", "use")
_DEFINING = ("definition", "meaning", "identity", "kind")
_WHOLE = (*_USES, "noun:part", "noun:effect", "noun:type", "act")
"""Relations whose answer has to be whole: what something does "also" is half of what it does."""
_ALSO = re.compile(r"\b(?:also|rarely|seldom|sometimes|only (?:when|if|by))\b")
_NEXT_CLAUSE = re.compile(r"[,;:]| (?:and|but) (?:it|they|can|may|is|are)\b")
_SAID_WITHIN = 60
"""How far behind the subject a word stands that limits what is said of it, in characters."""
_MAY_BE = re.compile(r"\b(?:may|might|could) (?:be|help|also)\b")
_COMPARES = re.compile(r"\bmore \w+(?: \w+){0,4} than\b")
_TREATS = re.compile(r"\btreat(?:s|ed|ing|ments?)?\b(?! cancers?\b)")
_ONE_CASE = re.compile(r"\bpatients?\b|\byou(?:rs?)?\b|\bchild(?:ren)?\b|\bpeople (?:who|with|has|have)\b")
_BODY = re.compile(r"\byour?\b|\bpatients?\b")
_AFFECTS_SO_MANY = re.compile(
    r"\baffect(?:s|ed|ing)? (?:about |approximately |an estimated |over |up to |more than |between |fewer than )*"
    r"(?:\d|one in|half|most\b|many\b|millions|thousands)"
)
_OF_SOMETHING = words("says_nothing_alone")
_POSSESSOR = re.compile(r"[A-Z][\w-]*['’]s? [a-z]")
_RETOLD = re.compile(r"\bif\b|\bbecause\b|\breferred to as an? ")


def answers_in_general(reading: Reading, subject: Subject | None, evidence: Evidence) -> bool:
    """Whether evidence from a sentence answers its question for every reader, not for the page's subject alone.

    Args:
        reading: The document.
        subject: What it is about, if known.
        evidence: Evidence from one of its sentences.
    """
    text = reading.text[evidence.start : evidence.spans[0][1]]
    key, own = evidence.key, subject is not None and evidence.subject.key == subject.phrase.key
    opening = 0 if evidence.lead else len(evidence.subject.text)
    if key.startswith(_WHOLE) and _ALSO.search(_NEXT_CLAUSE.split(text[opening : opening + _SAID_WITHIN])[0]):
        return False
    if key in ("act:affect", "effect_on"):
        return _AFFECTS_SO_MANY.search(text) is None
    if key == "called":
        again = rf"\b(?:called|as|termed) (?:an? |the )?{re.escape(evidence.subject.text)}\b"
        return _RETOLD.search(text) is None and re.search(again, text, re.IGNORECASE) is None
    if own:
        return True
    if key in _DEFINING and _leans_on_owner(evidence):
        return False
    if key == "noun:cause":
        single = subject is None and not evidence.subject.plural  # "viruses cause human diseases" is no answer
        return _BODY.search(text) is None and (single or _names(text, evidence))
    if key == "noun:treatment":
        return "disease" in (kind_of_head(evidence.subject.text), subject.phrase.kind if subject else "")
    if not key.startswith((*_USES, *_DEFINING)):
        return True
    if key.startswith(_USES) and any(found.search(text) for found in (_MAY_BE, _COMPARES, _TREATS)):
        return False
    uses = key.startswith(_USES) or re.search(r"\bused (?:to|in|for)\b", text) is not None
    return (
        subject is None
        or not uses
        or not (_ONE_CASE.search(text) or _TREATS.search(text) or _names_subject(reading, text, evidence))
    )


def _leans_on_owner(evidence: Evidence) -> bool:
    """Whether a phrase is a possession or a feature of something else: "Friedan's book", "a notable example"."""
    phrase = evidence.subject.text
    if kind_of_head(phrase) in ("disease", "work", "place", "event", "organisation"):
        return False
    head = noun_stem(re.split(r" (?:of|in|for) ", phrase)[0].split()[-1])
    return _POSSESSOR.search(phrase) is not None or head in _OF_SOMETHING


def _names(text: str, evidence: Evidence) -> bool:
    """Whether an answer opens with the thing that it is about, as "X is caused by Y" does and "Y causes X" does not."""
    return evidence.subject.text.casefold() in text[: len(evidence.subject.text) + len("The ")].casefold()


def _names_subject(reading: Reading, text: str, evidence: Evidence) -> bool:
    """Whether a sentence about something else speaks of the page's subject, by a telling word of the title."""
    own = evidence.subject.key.split()
    return any(
        word not in own and re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE)
        for word in (noun_stem(word) for word in re.findall(r"[A-Za-z]{4,}", reading.structure.title))
        if kind_of_head(word) == ""
    )
