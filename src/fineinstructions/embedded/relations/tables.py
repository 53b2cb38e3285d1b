"""The rules that are data: word lists, question forms, predicates and long patterns, as text beside this file.

In: names. Out: word sets, groups and compiled patterns. The decision to question: rules stand in text files, one a
line, so that a reader can add one without reading code; they are read once, at import.
"""

import re
from functools import cache
from importlib.resources import files


def _lines(name: str) -> list[str]:
    text = files("fineinstructions.embedded.relations").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


@cache
def _section(name: str) -> tuple[str, ...]:
    """Lines of one section of the word lists."""
    found: list[str] = []
    inside = False
    for line in _lines("word_lists.txt"):
        if line.startswith("["):
            inside = line == f"[{name}]"
        elif inside:
            found.append(line)
    if not found:
        raise ValueError(f"word_lists.txt has no section [{name}]")
    return tuple(found)


def words(section: str) -> frozenset[str]:
    """The words of a plain list.

    Example:
        >>> "DNA" in words("known_acronyms")
        True
    """
    return frozenset(" ".join(_section(section)).split())


def groups(section: str) -> dict[str, tuple[str, ...]]:
    """The groups of a list, in order; indented lines continue a group.

    Example:
        >>> groups("irregular_verbs")["write"]
        ('wrote', 'written')
    """
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in _section(section):
        if line.startswith(" "):
            found[name] += tuple(line.split())
        else:
            name, _, rest = line.partition(": ")
            found[name] = tuple(rest.split())
    return found


def by_member(section: str) -> dict[str, str]:
    """Group name by member."""
    return {member: name for name, members in groups(section).items() for member in members}


def rules(name: str) -> list[tuple[str, str]]:
    """Key and expression of every line of a table of rules."""
    pairs = (line.split(maxsplit=1) for line in _lines(name))
    return [(key, expression) for key, expression in pairs]


@cache
def _patterns() -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in _lines("patterns.txt"):
        if line.startswith("    "):
            found[name] += line[4:]
        else:
            name = line.strip()
            found[name] = ""
    return found


def pattern(name: str, flags: int = 0) -> re.Pattern[str]:
    """A long pattern by its name.

    Example:
        >>> pattern("date").search("was founded in 1960") is not None
        True
    """
    return re.compile(_patterns()[name], flags)
