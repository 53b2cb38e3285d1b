"""Slot kinds: what sort of thing belongs into a slot ("a person", "a disease"), read off the frame and the filler.

A frame's own words tell most ("symptoms of _" wants a disease, "who sang _" a song). Where they do not, the filler's
head noun or its corpus counts do ("syndrome", a word seen after "Mr.", a word seen after "in"). `DEFAULT_KIND` says
that neither told.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fineinstructions.embedded.words import (
    FUNCTION_WORDS,
    PREPOSITIONS,
    WORD_CLASSES,
    WordTable,
    read_word_lists,
    stem,
)

DEFAULT_KIND = "a topic"

_KIND_OF_HEAD = {stem(word): kind for kind, words in read_word_lists("kind_heads.txt").items() for word in words}
_DISEASE_ENDINGS = ("itis", "emia", "osis", "pathy", "algia", "oma", "trophy", "phobia", "plegia")
_NOT_DISEASE = WORD_CLASSES["not_disease"]
_YEAR = re.compile(r"^(?:1[0-9]{3}|20[0-9]{2})s?$")
_NUMBER = re.compile(r"^[\d.,]+$")
_MONTHS = WORD_CLASSES["months"]
_COMMAND = re.compile(r"^[a-z]+(?:-[a-z]+)+$")
_COMMAND_VERBS = WORD_CLASSES["command_verbs"]
_SIDE_BY_SIDE = re.compile(r"_ (?:and|or) _|\bfrom _ to _")


def is_class(noun: str) -> bool:
    """Whether a noun names a class of things that have names: "battle", "university"."""
    return stem(noun) in _KIND_OF_HEAD


def _read_hints() -> Iterator[tuple[re.Pattern[str], tuple[str, ...]]]:
    """Patterns of ``kind_hints.txt`` with the kinds they give."""
    for line in Path(__file__).with_name("kind_hints.txt").read_text(encoding="utf-8").splitlines():
        kinds, arrow, pattern = line.partition(" <- ")
        if arrow and not line.startswith("#"):
            yield re.compile(pattern), tuple("" if kind == "-" else kind for kind in kinds.split("|"))


_HINTS = tuple(_read_hints())


def hinted_kinds(frame: str, num_slots: int) -> tuple[str, ...]:
    """Kinds that a frame's own words ask for; an empty string where they leave it open.

    Example:
        >>> hinted_kinds("what are symptoms of _ in _", 2)
        ('a disease', '')
        >>> hinted_kinds("can _ cure _", 2)
        ('', 'a disease')
    """
    for pattern, kinds in _HINTS:
        if found := pattern.search(frame):
            first = frame[: found.start()].count("_") if "_" in found.group() else 0
            return (("",) * first + kinds + ("",) * num_slots)[:num_slots]
    return ("",) * num_slots


def alike(frame: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds of two slots that stand side by side made one: what one of them tells goes for both, unless they disagree.

    Example:
        >>> alike("did _ and _ meet", ["a topic", "a person"])
        ('a person', 'a person')
        >>> alike("do _ and _ meet", ["a place", "a person"])
        ('a topic', 'a topic')
    """
    if len(kinds) != 2 or not _SIDE_BY_SIDE.search(frame):
        return tuple(kinds)
    told = {kind.replace("another ", "a ", 1) for kind in kinds} - {DEFAULT_KIND}
    return (told.pop() if len(told) == 1 else DEFAULT_KIND,) * 2


def filler_kind(filler: str, table: WordTable) -> str:
    """Kind of thing that a filler names, or `DEFAULT_KIND`.

    Args:
        filler: The query's words in the slot, lower-case, without its article.
        table: Word counts.
    """
    words = filler.split()
    if len(words) == 1:
        word = words[0]
        if _YEAR.match(word):
            return "a year"
        if _NUMBER.match(word):
            return "a number"
        if _COMMAND.match(word) and word.split("-")[0] in _COMMAND_VERBS:
            return "a command"
        if word in _MONTHS:
            return "a month"
    if _NUMBER.match(words[0]) and len(words) == 2 and not _YEAR.match(words[1]):
        return "an amount"
    head = _head(words)
    root = stem(head)
    if root.endswith(_DISEASE_ENDINGS) and root not in _NOT_DISEASE and len(root) > 5:
        return "a disease"
    kind = _KIND_OF_HEAD.get(root)
    return kind or _name_kind(words, table)


def _head(words: list[str]) -> str:
    """The last word before the first preposition."""
    for position, word in enumerate(words):
        if position and word in PREPOSITIONS:
            return words[position - 1]
    return words[-1]


def _name_kind(words: list[str], table: WordTable) -> str:
    names = [w for w in words if w not in FUNCTION_WORDS]
    if not names or any(table.name_share(w) < 0.6 for w in names):
        return DEFAULT_KIND
    person = sum(table.get(w).person for w in names) / len(names)
    place = sum(table.get(w).place for w in names) / len(names)
    if person > max(1.0, place) and len(words) >= 1:
        return "a person"
    if place > max(2.0, 1.5 * person):
        return "a place"
    return "a person" if len(names) == 2 and person > 0 else DEFAULT_KIND


def vote_kind(fillers: list[str], table: WordTable) -> str:
    """Kind that a group of fillers shares: the most frequent informative one, if it covers more than half of them."""
    counts: dict[str, int] = {}
    for filler in fillers:
        kind = filler_kind(filler, table)
        counts[kind] = counts.get(kind, 0) + 1
    counts.pop(DEFAULT_KIND, None)
    if not counts:
        return DEFAULT_KIND
    kind = min(counts, key=lambda k: (-counts[k], k))
    return kind if counts[kind] * 2 > len(fillers) and counts[kind] >= 2 else DEFAULT_KIND
