"""What a document as a whole is about: its title, made fit for a sentence, and the sentence that defines it.

In: a `Reading`. Out: a `Subject` or nothing. The decision to question: a title that is a label ("Introduction", "part
3", "List of ...", "about_Scopes") names no subject; such a document is answered from its sentences only.
"""

import re

from fineinstructions.embedded.relations.grammar import Phrase, is_plural, kind_of_complement, noun_phrase, noun_stem
from fineinstructions.embedded.relations.reading import Reading, Subject
from fineinstructions.embedded.relations.tables import pattern

_LABEL = pattern("label", re.IGNORECASE)
_COMMAND = re.compile(r"[A-Z][A-Za-z]+-[A-Z]\w*[a-z]\w*\Z")
_QUALIFIER = re.compile(r"\s*\((?P<what>[^()]*)\)\s*\Z")
_COPULA = pattern("copula", re.DOTALL)
_HEALTH = frozenset(("symptoms", "inheritance", "genetic changes", "treatment", "exams and tests", "susceptibility"))


def subject_of(reading: Reading) -> Subject | None:
    """The document's subject, or ``None`` when its title names none or it is a tale or a conversation."""
    title = re.sub(r"\s*\(part \d+\)\Z", "", reading.structure.title)
    if (
        not title
        or len(title) > 80
        or _LABEL.match(title)
        or ("," in title and not re.search(r", [A-Z]", title))
        or " vs" in title
    ):
        return None
    if _COMMAND.match(title):
        return Subject(
            Phrase(title, kind="command"),
            False,
            "cmdlet",
            frozenset(("The cmdlet", "This cmdlet", f"The `{title}` cmdlet", "This command")),
        )
    headings = {section.heading.casefold() for section in reading.structure.sections}
    if "ingredients" in headings and title.count('"') % 2 == 0:
        name = _QUALIFIER.sub("", title)
        return Subject(
            Phrase(name if any(c.isupper() for c in name[1:]) else name.lower(), plural=is_plural(name), kind="dish")
        )
    if reading.is_narrative:
        return None
    name = title
    while found := _QUALIFIER.search(name):
        name = name[: found.start()]
    return _defined(reading, name) or _by_headings(reading, name, headings)


def _defined(reading: Reading, name: str) -> Subject | None:
    """Subject whose first sentence defines it."""
    sentence = reading.first_sentence
    if sentence is None or not (found := _COPULA.match(reading.text, sentence.start, sentence.end)):
        return None
    opening = found.group("name").replace("*", "").replace("`", "").strip('"“” ')
    if not _same_name(opening, name):
        return None
    kind = kind_of_complement(found.group("rest"))
    if (
        not kind
        and found.group("paren")
        and re.search(r"\bborn\b|\d{4}\)?\s?[–-]\s?\w* ?\w* ?\d{4}", found.group("paren") or "")
    ):
        kind = "person"
    article = (
        "the" if (found.group("article") or "").strip().lower() == "the" else "a" if found.group("article") else ""
    )
    plural = found.group("be") in ("are", "were", "refer to")
    same_words = [noun_stem(word) for word in opening.casefold().split()] == [
        noun_stem(word) for word in name.casefold().split()
    ]
    shown = opening if same_words else name
    named = Phrase(shown, article, plural, kind)
    is_name = any(word[0].isupper() for word in opening.split()[1:]) and not reading.is_inside(shown)
    phrase = named if kind == "person" or (is_name and same_words) else reading.spelled(named, unseen_lower=False)
    past = found.group("be") in ("was", "were")
    rest = re.split(
        r"\b(?:that|which|who|in|of|for|from|by|with|on|at|to|and)\b|[,.;(]", found.group("rest"), maxsplit=1
    )[0].split()
    head = rest[-1].lower() if rest and found.group("rest").startswith(("a ", "an ", "the ")) else ""
    return Subject(phrase, past, head if head.isalpha() else "", _pronouns(reading, kind, plural, head))


def _same_name(opening: str, name: str) -> bool:
    a, b = opening.casefold().split(), name.casefold().split()
    if not a or len(a) > 12:
        return False
    return (
        a == b
        or [noun_stem(w) for w in a] == [noun_stem(w) for w in b]
        or (a[0] == b[0] and a[-1] == b[-1] and len(b) > 1)
        or a[: len(b)] == b
    )


def _pronouns(reading: Reading, kind: str, plural: bool, head: str) -> frozenset[str]:
    """Openings of sentences that mean the subject."""
    found = {f"The {head}"} if head and head.isalpha() and kind != "person" else set()
    if kind == "person":
        he = len(re.findall(r"\b(?:he|his|him)\b", reading.text, re.IGNORECASE))
        she = len(re.findall(r"\b(?:she|her)\b", reading.text, re.IGNORECASE))
        if he > 4 * she:
            found.add("He")
        elif she > 4 * he:
            found.add("She")
    elif plural:
        found.add("They")
    else:
        found.add("It")
    return frozenset(found)


def _by_headings(reading: Reading, name: str, headings: set[str]) -> Subject | None:
    """Subject of a page that does not open with a definition: only names, and health topics by their headings."""
    if "-" in name and " - " in name:
        return None
    kind = "disease" if len(headings & _HEALTH) >= 2 else ""
    phrase = noun_phrase(name)
    if phrase is None or " and " in name or any(mark in name for mark in "–:&/"):
        return None
    if not kind and (len(reading.structure.sections) < 3 or reading.folded.count(name) < 4):
        return None
    named = Phrase(phrase.text, phrase.article, is_plural(phrase.text), kind)
    return Subject(reading.spelled(named, unseen_lower=False))
