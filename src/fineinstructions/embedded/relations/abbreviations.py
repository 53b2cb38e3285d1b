"""Abbreviations in slots: written out where the document does so, refused where nobody outside it knows them.

In: a `Reading` and evidence. Out: the evidence with its phrases written out, or nothing. The decision to question: the
words that the document puts before the brackets are taken for the long form wherever the short one stands.

Source:
    The search for the long form is that of Schwartz and Hearst, "A simple algorithm for identifying abbreviation
    definitions in biomedical text", 2003.
"""

import re
from dataclasses import replace

from fineinstructions.embedded.relations.grammar import Phrase, noun_stem
from fineinstructions.embedded.relations.reading import Evidence, Reading
from fineinstructions.embedded.relations.tables import words

_KNOWN = words("known_acronyms")
_SHORT = re.compile(r"(?<![\w.$])(?<![A-Za-z]-)(?<!^-)(?<! -)[A-Z]{2,6}s?\b(?![(:]|[-/.&][A-Z\d])")
_TWICE = re.compile(r"\b(\w+) \1\b", re.IGNORECASE)
"""A word of the long form that stands behind the abbreviation too: "the CUP project"."""
_NUMERAL = re.compile(r"[IVX]+")
_NAMES_A_GENE = re.compile(
    r" (?:genes?|proteins?|receptors?|mutations?|variants?|channels?|antibod(?:y|ies)|enzymes?)\b"
)
_SMALL = frozenset(("of", "the", "and", "for", "in", "a", "an", "to", "on", "with"))
_HEAD_END = re.compile(r" (?:of|in|for|with|to|on) ")
"""Behind it stands no head noun: "of war" of "prisoners of war"."""
_EXEMPT = ("stand", "task")
"""Relations that ask for the long form, or whose slot holds a whole sentence's words."""
_MORE_WORDS = 5


def written_out(reading: Reading, evidence: Evidence) -> Evidence | None:
    """Evidence whose phrases hold no abbreviation that its reader cannot know.

    Args:
        reading: The document.
        evidence: Evidence of it.

    Returns:
        The evidence, its abbreviations written out as the document does, or ``None``.
    """
    if evidence.key in _EXEMPT:
        return evidence
    subject = _explained(reading, evidence.subject)
    other = evidence.other and _explained(reading, evidence.other)
    if subject is None or (evidence.other and other is None):
        return None
    return (
        evidence
        if (subject, other) == (evidence.subject, evidence.other)
        else replace(evidence, subject=subject, other=other)
    )


def _explained(reading: Reading, phrase: Phrase) -> Phrase | None:
    """A phrase with its abbreviations written out, or ``None``."""
    found = [short for short in _SHORT.finditer(phrase.text) if not _is_known(reading, phrase.text, short)]
    if not found or (" " in phrase.text and phrase.text.isupper()):
        return phrase
    text, article = phrase.text, phrase.article
    for short in reversed(found):
        plural = short.group().endswith("s")
        long = long_form(reading, short.group().removesuffix("s"))
        if not long:
            return None
        bare = _in_number(long.removeprefix("the "), plural)
        if long.startswith("the ") and short.group() == phrase.text and not article:
            article = "the"
        text = text[: short.start()] + bare + text[short.end() :]
    return replace(phrase, text=_TWICE.sub(r"\1", text), article=article)


def _in_number(long: str, plural: bool) -> str:
    """A long form whose head noun is plural where the abbreviation is: "letters of intent" for "LOIs"."""
    head = _HEAD_END.split(long, maxsplit=1)[0]
    return f"{head}s{long[len(head) :]}" if plural and not head.endswith("s") else long


def _is_known(reading: Reading, text: str, short: re.Match[str]) -> bool:
    """Whether everybody knows an abbreviation, or it is the name of the page's subject or of a gene."""
    word = short.group().removesuffix("s")
    titled = re.search(rf"\b{re.escape(word)}\b", reading.structure.title) is not None
    return (
        word in _KNOWN
        or titled
        or _NUMERAL.fullmatch(word) is not None
        or _NAMES_A_GENE.match(text, short.end()) is not None
    )


def long_form(reading: Reading, short: str) -> str:
    """The words that a document puts before an abbreviation in brackets, or a title whose initials it is; or nothing.

    Words before an abbreviation in the plural, "(LOIs)", come back in the singular.

    Example:
        >>> long_form(Reading("It is kept by the prisoners of war (POW) there.", ""), "POW")
        'the prisoners of war'
    """
    introduced = re.search(rf"\({re.escape(short)}(?P<plural>s?)\)", reading.folded)
    if introduced is None:
        name = re.sub(r"\s*\([^()]*\)\Z", "", reading.structure.title)
        initials = "".join(word[0] for word in re.split(r"[ -]", name) if word and word not in _SMALL)
        return reading.spelled(Phrase(name)).text if initials.upper() == short.upper() else ""
    before = " ".join(reading.folded[: introduced.start()].rsplit("\n", 1)[-1].split()[-(len(short) + _MORE_WORDS) :])
    found = _shortest_end(short, before)
    long = re.sub(r"\A(?:[Tt]he|[Aa]n?) ", "", found)
    if not long:
        return ""
    the = re.search(r"\b[Tt]he \Z", before[: len(before) - len(long)]) is not None
    spelled = reading.spelled(Phrase(long)).text
    return ("the " if the else "") + (_singular(spelled) if introduced.group("plural") else spelled)


def _singular(long: str) -> str:
    """A long form with its head noun in the singular."""
    head = _HEAD_END.split(long, maxsplit=1)[0]
    before, noun = head[: head.rfind(" ") + 1], head[head.rfind(" ") + 1 :]
    return before + noun[:1] + noun_stem(noun)[1:] + long[len(head) :]


def _shortest_end(short: str, before: str) -> str:
    """The shortest end of some words with the letters of an abbreviation in order, the first at a word's start."""
    place = len(before)
    for position in range(len(short) - 1, -1, -1):
        letter = short[position].lower()
        place -= 1
        while place >= 0 and (
            before[place].lower() != letter or (position == 0 and place > 0 and before[place - 1].isalnum())
        ):
            place -= 1
        if place < 0:
            return ""
    found = before[place:]
    broken = any(mark in found for mark in ",.;:()") or len(found) < 2 * len(short)
    return "" if broken else found
