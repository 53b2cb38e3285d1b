"""A document's own structure: blocks, sections and sentences, as offsets into the text exactly as it was read.

In: the text and title of a document. Out: a `DocumentText`, which never alters the text. The decision to question:
borders come from blank lines, Markdown marks and short title-like lines only, so a page without marks is one section.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

MAX_HEADING_WORDS = 12
"""A line without a mark is taken for a heading only if it is this short (ours)."""

_LINE = re.compile(r"[^\n]*(?:\n|\Z)")
_HEADING = re.compile(r"(#{1,6})\s+")
_ITEM = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)])\s+\S")
_TABLE = re.compile(r"\s*\|.*\|\s*\Z")
_RULE_MARKS = "|:+ -"
_MIN_RULE_CHARS = 6
_FENCE = re.compile(r"\s*(?:```|~~~)")
_TITLE_LIKE = re.compile(r"[A-Z0-9'(][^\n]*[\w)’'\"?!%]\Z")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s++[\"'“‘(\[]*+[A-Z0-9À-ÖØ-Þ•])")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[“\"'])(?:Mrs?|Ms|Dr|Prof|St|Sgt|Capt|Lt|Col|Gen|Gov|Sen|Rep|Rev|Hon|Jr|Sr|vs|v|cf|al|ca|approx|[Nn]os?|Vol|vol|pp?|"
    r"Figs?|fig|Eq|art|para|ch|sec|Inc|Ltd|Co|Corp|Bros|Mt|Ft|e\.g|i\.e|U\.S|U\.K|U\.N|D\.C|a\.m|p\.m|[A-Z]|[A-Z]\.[A-Z])\.\Z"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of lines of one kind."""

    kind: str
    """``heading``, ``paragraph``, ``item``, ``code`` or ``table``."""
    start: int
    end: int
    level: int = 0
    """Depth of a heading: 1-6 as marked, 7 for a line that only looks like one."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks up to the next heading of any depth."""

    heading: str
    level: int
    blocks: tuple[Block, ...]

    @property
    def start(self) -> int:
        """Where the body starts; only for sections with a body."""
        return self.blocks[0].start

    @property
    def end(self) -> int:
        """Where the body ends."""
        return self.blocks[-1].end


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a paragraph or list item."""

    start: int
    end: int
    section: int
    """Index of its section."""
    block: int
    """Index of its block among the document's blocks."""


class DocumentText:
    """Structure of one document.

    Args:
        text: The text as read.
        title: The document's title; empty where it has none.
    """

    def __init__(self, text: str, title: str = "") -> None:
        self.text = text
        self.title = " ".join(title.split())
        self.blocks: tuple[Block, ...] = tuple(_blocks(text, self.title))

    def words(self, start: int, end: int) -> int:
        """Number of blank-separated words in a span."""
        return len(self.text[start:end].split())

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The sections in order; the first is what stands before any heading and may have no blocks."""
        found: list[Section] = []
        heading, level, body = "", 0, list[Block]()
        for block in self.blocks:
            if block.kind == "heading":
                found.append(Section(heading, level, tuple(body)))
                heading, level, body = self._heading_words(block), block.level, []
            else:
                body.append(block)
        found.append(Section(heading, level, tuple(body)))
        return tuple(found)

    def _heading_words(self, block: Block) -> str:
        line = self.text[block.start : block.end]
        marked = _HEADING.match(line)
        words = line[marked.end() :].rstrip().rstrip("#").rstrip() if marked else line
        return " ".join(words.replace("*", "").replace("`", "").split()).rstrip(":")

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """Sentences of all paragraphs and list items, in order."""
        found: list[Sentence] = []
        section = 0
        for number, block in enumerate(self.blocks):
            if block.kind == "heading":
                section += 1
            elif block.kind in ("paragraph", "item"):
                spans = split_sentences(self.text, block.start, block.end)
                found.extend(Sentence(start, end, section, number) for start, end in spans)
        return tuple(found)

    @cached_property
    def _starts(self) -> list[int]:
        return [sentence.start for sentence in self.sentences]

    def sentence_after(self, sentence: Sentence) -> Sentence | None:
        """The next sentence of the same block, if there is one."""
        index = bisect_left(self._starts, sentence.start) + 1
        if index < len(self.sentences) and self.sentences[index].block == sentence.block:
            return self.sentences[index]
        return None

    def sentence_before(self, sentence: Sentence) -> Sentence | None:
        """The sentence before it in the same block, if there is one."""
        index = bisect_left(self._starts, sentence.start) - 1
        return self.sentences[index] if index >= 0 and self.sentences[index].block == sentence.block else None

    def sentence_ending(self, end: int) -> Sentence | None:
        """The sentence that ends at an offset, if there is one."""
        index = bisect_left(self._starts, end) - 1
        return self.sentences[index] if index >= 0 and self.sentences[index].end == end else None

    def items_after(self, block: int) -> tuple[Block, ...]:
        """The list items that directly follow a block."""
        items: list[Block] = []
        for candidate in self.blocks[block + 1 :]:
            if candidate.kind != "item":
                break
            items.append(candidate)
        return tuple(items)


def _blocks(text: str, title: str) -> list[Block]:
    """Blocks of a text in order, blank lines left out."""
    lines = [(m.start(), m.end()) for m in _LINE.finditer(text) if m.end() > m.start()]
    kinds = _line_kinds(text, lines, title)
    blocks: list[Block] = []
    for (start, end), (kind, level, opens) in zip(lines, kinds, strict=True):
        if kind == "blank":
            continue
        stripped_start, stripped_end = _strip(text, start, end)
        last = blocks[-1] if blocks else None
        if last and last.kind == kind and not opens:
            blocks[-1] = Block(kind, last.start, stripped_end, level)
        else:
            blocks.append(Block(kind, stripped_start, stripped_end, level))
    return blocks


def _line_kinds(text: str, lines: list[tuple[int, int]], title: str) -> list[tuple[str, int, bool]]:
    """Kind, heading level and "opens a new block" for every line."""
    kinds: list[tuple[str, int, bool]] = []
    fenced, before, listing = False, "blank", False
    for number, (start, end) in enumerate(lines):
        line = text[start:end].rstrip()
        level, opens = 0, before == "blank"
        if _FENCE.match(line):
            kind, opens, fenced = "code", not fenced, not fenced
        elif fenced:
            kind, opens = "code", False
        elif not line.strip():
            kind = "blank"
        elif marked := _HEADING.match(line):
            kind, level, opens, listing = "heading", len(marked.group(1)), True, False
        elif _is_table_line(line):
            kind = "table"
        elif _ITEM.match(line):
            kind, opens = "item", True
        else:
            kind = "item" if before == "item" and line[:1] in " \t" else "paragraph"
            opens = opens or before != kind or (kind == "paragraph" and line[:1] == " ")
            alone = opens and (number + 1 == len(lines) or not text[slice(*lines[number + 1])].strip())
            heading = alone and number + 1 < len(lines) and _looks_like_heading(line.strip(), title, number == 0)
            if listing and alone and len(line.split()) <= 20 and line[-1] != ":":
                kind = "item"
            elif heading:
                kind, level, opens = "heading", 1 if number == 0 else 7, True
            listing = line[-1] == ":" or (listing and kind == "item")
        kinds.append((kind, level, opens))
        before = kind
    return kinds


def _is_table_line(line: str) -> bool:
    """Whether a line is a row of a table or the rule below its head."""
    before_rule = line.rstrip(_RULE_MARKS)
    is_rule = len(line) - len(before_rule) >= _MIN_RULE_CHARS and not before_rule.strip()
    return is_rule or _TABLE.match(line) is not None


def _looks_like_heading(line: str, title: str, first: bool) -> bool:
    if first and title and line.casefold() == title.casefold():
        return True
    return (
        len(line) < 90
        and len(line.split()) <= MAX_HEADING_WORDS
        and line[-1] not in ".!:;,"
        and _TITLE_LIKE.fullmatch(line) is not None
    )


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def split_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans of the sentences in ``text[start:end]``; abbreviations, initials and decimals do not end one.

    Args:
        text: The whole text.
        start: Where the block starts.
        end: Where it ends.

    Returns:
        Half-open spans without surrounding blanks; together they hold every non-blank character of the block.

    Example:
        >>> text = "Dr. A. Smith came at 3.5 p.m. sharp. He left."
        >>> [text[a:b] for a, b in split_sentences(text, 0, len(text))]
        ['Dr. A. Smith came at 3.5 p.m. sharp.', 'He left.']
    """
    borders = [start]
    for match in _SENTENCE_END.finditer(text, start, end):
        if match.group()[0] == "." and _ABBREVIATION.search(text, max(start, match.start() - 8), match.start() + 1):
            continue
        borders.append(match.end())
    borders.append(end)
    spans = (_strip(text, a, b) for a, b in pairwise(borders))
    return [(a, b) for a, b in spans if b > a]
