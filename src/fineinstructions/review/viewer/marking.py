"""Texts as a page shows them: quotations and slots marked, and no character that could steer the page.

In: texts from anywhere and spans in code points. Out: pieces of text with the numbers of the spans that cover them;
`shown` keeps the length of a text, so offsets stay right.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fineinstructions.markup import TextSegment, parse_template
from fineinstructions.records import Pair

_CONTROLS = {c: chr(0x2400 + c) for c in range(0x20) if c not in (0x09, 0x0A)}
_CONTROLS[0x7F] = "\u2421"
_TURNING = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS |= dict.fromkeys((*range(0x80, 0xA0), *_TURNING, 0xFFFE, 0xFFFF), "\ufffd")
_HALVES = range(0xD800, 0xE000)


@dataclass(frozen=True)
class Piece:
    """A stretch of text."""

    text: str
    spans: tuple[int, ...] = ()
    """Numbers of the spans that cover it, from 1."""
    first_of: tuple[int, ...] = ()
    """Those among them that begin here."""


def shown(text: str) -> str:
    r"""A text of the same length that a page can hold; what would be invisible or turn its direction gets a sign.

    Example:
        >>> shown("a\x00b\u202ec\ud800")
        'a␀b�c�'
    """
    return "".join("\ufffd" if ord(c) in _HALVES else c for c in text.translate(_CONTROLS)) if _is_odd(text) else text


def _is_odd(text: str) -> bool:
    return not text.isascii() or not text.isprintable()


def pieces(text: str, spans: Iterable[tuple[int, int]]) -> list[Piece]:
    """A text cut where spans begin and end.

    Args:
        text: The text.
        spans: Half-open, in code points; they may overlap. Ends outside of the text are moved to its ends.

    Returns:
        Pieces that give the text again when joined; none is empty.

    Example:
        >>> [(p.text, p.spans) for p in pieces("abcdef", [(1, 4), (3, 5)])]
        [('a', ()), ('bc', (1,)), ('d', (1, 2)), ('e', (2,)), ('f', ())]
    """
    limited = [(max(0, min(a, len(text))), max(0, min(b, len(text)))) for a, b in spans]
    cuts = sorted({0, len(text), *(place for span in limited for place in span)})
    found = []
    safe = shown(text)
    for start, end in pairwise(cuts):
        covering = tuple(n for n, (a, b) in enumerate(limited, start=1) if a <= start and end <= b)
        begun = tuple(n for n in covering if limited[n - 1][0] == start)
        found.append(Piece(safe[start:end], covering, begun))
    return found


def answer_pieces(pair: Pair) -> list[Piece]:
    """The answer of a pair with its quotations."""
    return pieces(pair.answer, [(e.answer_start, e.answer_end) for e in pair.excerpts])


def template_pieces(template: str) -> list[Piece]:
    """A template with its slots marked, the tags themselves taken off; as it is where its tags are broken."""
    try:
        segments = parse_template(template)
    except ValueError:
        return [Piece(shown(template))]
    return [Piece(shown(s[0]), () if isinstance(s, TextSegment) else (1,)) for s in segments]
