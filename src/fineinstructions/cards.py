"""Parts of data cards: what is counted of rows, licences as the hub spells them, tables of frequent values.

Rows in, lines of Markdown out; the card of a run and that of a corpus are made of them. The decision to question: of
very many values the rare ones are let go, so that a card is made in bounded memory whatever the documents say.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from fineinstructions.markdown import Markdown, inert, table

UNKNOWN, OTHER = "unknown", "other"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
         (10_000_000_000, "1B<n<10B"))  # fmt: skip
"""Upper ends and names of the hub's size categories."""
LARGEST = "10B<n<100B"
_HUB_LICENCE = re.compile(
    r"apache-2\.0|mit|unlicense|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[1-4]\.0|odc-by|odbl|pddl|gpl-[23]\.0|bsd-[23]-clause"
    r"|mpl-2\.0|gfdl"
)
"""Identifiers of licences that the hub knows and that documents and queries are likely to have."""
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_].*)?")
"""A language's code, and a country or script that is left out."""
MAX_ROWS = 50
"""Most values that a table tells by themselves. Ours."""
MAX_HELD = 100_000
"""Most different values of a column in memory. Ours."""
MAX_NAME_CHARS = 200
"""Longest source or licence that is shown whole. Ours."""


class MadeWith(NamedTuple):
    """A model or bank behind the pairs."""

    role: str
    name: str
    revision: str
    licence: str
    served_as: str = ""
    """What its server calls it, where that is another name."""


def section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A section of a card, line by line."""
    yield from (f"## {title}\n", "\n".join(lines), "")


class Tally:
    """Rows by value. Of very many values the rarer half is let go, as often as it must be, and only its rows are known.

    Args:
        max_held: Most values that are held at a time.

    Example:
        >>> tally = Tally(max_held=2)
        >>> for value in ("often", "often", "once", "twice", "often"):
        ...     tally.add(value, 1)
        >>> tally.items(), tally.num_let_go, tally.num_rows
        ([('often', 3)], 2, 5)
    """

    def __init__(self, max_held: int = MAX_HELD) -> None:
        self._max_held = max_held
        self._counts: Counter[Any] = Counter()
        self.num_let_go = 0
        """Rows whose values are not known any more."""

    def add(self, value: Any, number: int) -> None:
        """Count some rows of one value."""
        self._counts[value] += number
        if len(self._counts) > self._max_held:
            held = Counter(dict(ranked(self._counts)[: self._max_held // 2]))
            self.num_let_go += self._counts.total() - held.total()
            self._counts = held

    def __contains__(self, value: Any) -> bool:
        return value in self._counts

    def items(self) -> list[tuple[Any, int]]:
        """Values and numbers, the most frequent first, equal ones by name."""
        return ranked(self._counts)

    @property
    def num_rows(self) -> int:
        """All rows."""
        return self._counts.total() + self.num_let_go


def add_licences(tally: Tally, on_hub: set[str], column: pa.Array) -> None:
    """Count the licences of some rows; of a row with several each is counted.

    Args:
        tally: Counts licences as they are written.
        on_hub: Gets their names on the hub.
        column: Licences of the rows, several of one row separated by ``; ``.
    """
    for counted in pc.value_counts(column).to_pylist():
        for licence in sorted({part.strip() for part in counted["values"].split(";")}):
            if licence not in tally:
                on_hub.add(hub_licence(licence))
            tally.add(licence, counted["counts"])


def languages_of(metadata: pa.StringArray) -> Iterator[str]:
    """Codes of the languages that documents name for themselves."""
    named = metadata.filter(pc.match_substring_regex(metadata, '"lang(uage)?"'))
    for facts in map(json.loads, pc.unique(named).to_pylist()):
        told = [facts[key] for key in ("lang", "language") if isinstance(facts.get(key), str)]
        code_found = _LANGUAGE.fullmatch(told[0].strip().lower()) if told else None
        if code_found:
            yield code_found[1]


def hub_licence(licence: str) -> str:
    """A licence as the hub spells it.

    Example:
        >>> [hub_licence(name) for name in ("CC-BY-SA 3.0", "Unlicense (public domain)", "", "as is")]
        ['cc-by-sa-3.0', 'unlicense', 'unknown', 'other']
    """
    plain = re.sub(r"[\s_]+", "-", re.sub(r"\(.*?\)", "", licence).strip().lower())
    if not plain:
        return UNKNOWN
    return plain if _HUB_LICENCE.fullmatch(plain) else OTHER


def licence_fields(on_hub: Set[str]) -> dict[str, Any]:
    """What the front matter of a card says of licences.

    Args:
        on_hub: All that occur, as the hub spells them.

    Example:
        >>> licence_fields({"mit", "other"})
        {'license': ['mit', 'other'], 'license_name': 'named-in-each-row'}
    """
    names = sorted(on_hub) or [UNKNOWN]
    named = {"license_name": "named-in-each-row"} if OTHER in names else {}
    return {"license": names[0] if len(names) == 1 else names, **named}


def size_category(num_rows: int) -> str:
    """The hub's word for a number of rows.

    Example:
        >>> size_category(5000)
        '1K<n<10K'
    """
    return next((name for end, name in SIZES if num_rows < end), LARGEST)


def licence_table(tally: Tally, noun: str = "pairs") -> Iterator[str]:
    """Licences as they are written and as the hub spells them, with the number of their rows, called `noun`."""
    names = dict(tally.items()[:MAX_ROWS])
    on_hub = {_shown(name): hub_licence(name) for name in names}
    rows = ((name, on_hub.get(name, ""), number) for name, number in tally_rows(tally))
    return table(("licence", "on the hub", noun), rows)


def licence_remedy(tally: Tally, section: str) -> Iterator[str]:
    """What to set where rows name no licence.

    Args:
        tally: Rows by licence.
        section: Section of the recipe that says where they come from.
    """
    if "" in tally:
        yield (
            f"\nWhere none is named, the input has no such column: name it in `{section}.licence_column`, or set"
            f" `{section}.licence` to the licence of all rows that name none, and run again with `--redo`."
        )


def _shown(value: str) -> Markdown:
    return inert(value or "none named", MAX_NAME_CHARS)


def tally_rows(tally: Tally, show: Callable[[str], Markdown] = _shown) -> Iterator[tuple[Markdown, int]]:
    """The most frequent values with their numbers, and one row for all others."""
    items = tally.items()
    yield from ((show(value), number) for value, number in items[:MAX_ROWS])
    others = sum(number for _, number in items[MAX_ROWS:]) + tally.num_let_go
    if others:
        too_many = f" (there are more than {MAX_HELD:,} different ones, so numbers may be too low)"
        yield Markdown(f"others{too_many if tally.num_let_go else ''}"), others


def ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """Values and numbers, the most frequent first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
