"""Tables of Markdown whose cells are text from anywhere: it is shown as it is, and does nothing.

In: plain values. Out: lines of Markdown. The decision to question: only what makes comments, tags, links, pictures,
code and cells is escaped; a stray asterisk at most slants a word, and `names_like_this` stay readable in the source.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fineinstructions.errors import printable

MAX_CELL_CHARS = 2000
"""Longest value that is shown whole. Ours."""
_ACTIVE = re.compile(r"[\\<\[!`|@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


class Markdown(str):
    """Text that is Markdown already, and one line."""

    __slots__ = ()


def inert(text: str, max_chars: int = MAX_CELL_CHARS) -> Markdown:
    r"""A text as Markdown that shows it, on one line.

    Example:
        >>> print(inert("a [link](http://x) | <!-- no comment"))
        a \[link](http\://x) \| \<\!-- no comment
    """
    line = _one_line(text, max_chars)
    return Markdown(_ACTIVE.sub(r"\\\g<0>", line))


def code(text: str, max_chars: int = MAX_CELL_CHARS) -> Markdown:
    """A text as a span of code, for a table too.

    Example:
        >>> code("a`b"), code("x")
        ('`` a`b ``', '`x`')
    """
    line = _one_line(text, max_chars).replace("|", "/")
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return Markdown(f"{fence}{space}{line}{space}{fence}")


def _one_line(text: str, max_chars: int) -> str:
    line = " ".join(printable(text[: max_chars + 1]).split())
    return line if len(text) <= max_chars else f"{line[:max_chars]}..."


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A table, line by line.

    Args:
        head: Names of the columns, as Markdown.
        rows: Cells: Markdown as it is, whole numbers with separators, everything else as inert text.
    """
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: Any) -> Markdown:
    if isinstance(value, Markdown):
        return value
    return Markdown(f"{value:,}") if isinstance(value, int) else inert(str(value))
