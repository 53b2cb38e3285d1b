"""A page as blocks that become HTML or Markdown: words, tables, plots, pairs.

In: blocks made by whoever has something to say. Out: one self-contained HTML page without any script, and Markdown. All
texts of a run are escaped in both; plots are in the page only, their figures stand in tables beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fineinstructions.markdown import inert, table
from fineinstructions.review.viewer.marking import Piece, shown

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    is_quiet: bool = False


@dataclass(frozen=True)
class Heads:
    """A row of large numbers with what they count."""

    figures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Grid:
    """A table; numbers are set right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Plots:
    """Plots beside each other, each with a caption."""

    drawn: Sequence[tuple[str, str]]
    """Caption and ``<svg>``."""


@dataclass(frozen=True)
class Example:
    """A pair, or what was to be one."""

    title: str
    answer: Sequence[Piece]
    facts: str
    document: str = ""
    """What it was made from, opened by a click; in the page only."""


Block = Words | Heads | Grid | Plots | Example


@dataclass
class Section:
    """A part of the page under a heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """One page that needs nothing else."""
    links = "".join(f'<a href="#s{n}">{_safe(s.title)}</a>' for n, s in enumerate(sections))
    body = "".join(
        f'<section id="s{n}"><h2>{_safe(s.title)}</h2>{"".join(_html(b) for b in s.blocks)}</section>\n'
        for n, s in enumerate(sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{_safe(title)}</h1><nav>{links}</nav>\n{body}</main></body></html>\n"
    )


def storable(text: str) -> str:
    """A text that UTF-8 can hold: halves of characters become question marks."""
    return text.encode("utf-8", "replace").decode()


def _safe(text: str) -> str:
    return escape(shown(text))


def _html(block: Block) -> str:
    if isinstance(block, Words):
        kind = ' class="quiet"' if block.is_quiet else ""
        return f"<p{kind}>{_safe(block.text)}</p>"
    if isinstance(block, Heads):
        return (
            f'<div class="heads">{"".join(f"<div><b>{_safe(n)}</b>{_safe(w)}</div>" for n, w in block.figures)}</div>'
        )
    if isinstance(block, Grid):
        return _html_table(block)
    if isinstance(block, Plots):
        drawn = (f"<figure><figcaption>{_safe(caption)}</figcaption>{svg}</figure>" for caption, svg in block.drawn)
        return f'<div class="figures">{"".join(drawn)}</div>'
    answer = "".join(f"<mark>{escape(p.text)}</mark>" if p.spans else escape(p.text) for p in block.answer)
    return (
        f'<article><h3 dir="auto">{_safe(block.title)}</h3><div class="text" dir="auto">{answer}</div>'
        f'<p class="quiet">{_safe(block.facts)}</p>{_document(block.document)}</article>'
    )


def _document(text: str) -> str:
    if not text:
        return ""
    return (
        f'<details><summary>the document, around the quotation</summary><div class="text">{_safe(text)}</div></details>'
    )


def _html_table(block: Grid) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in block.head)
    rows = ("".join(map(_html_cell, row)) for row in block.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_cell(value: Any) -> str:
    kind = ' class="n"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{_safe(_told(value))}</td>"


def _told(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same as Markdown, without the plots."""
    lines = [f"# {inert(title)}", ""]
    for section in sections:
        lines += [f"## {inert(section.title)}", ""]
        for block in section.blocks:
            lines += [*_markdown(block)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(block: Block) -> Iterator[str]:
    if isinstance(block, Plots):
        return
    if isinstance(block, Words):
        yield from (inert(block.text), "")
    elif isinstance(block, Heads):
        yield from ("; ".join(f"{number} {inert(what)}" for number, what in block.figures), "")
    elif isinstance(block, Grid):
        rows = [[value if isinstance(value, int) else _told(value) for value in row] for row in block.rows]
        yield from (*table([inert(name) for name in block.head], rows), "")
    else:
        answer = inert("".join(piece.text for piece in block.answer))
        yield from (f"**{inert(block.title)}**", "", f"> {answer}", "", inert(block.facts), "")
