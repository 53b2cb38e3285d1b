"""The pieces of a plot as SVG text: rectangles, dots, paths, rules, words.

In: places on the paper in pixels, and texts from anywhere. Out: elements. `plots` puts them together. The decision to
question: colours are presentation attributes, never styles, so that a page's own rules and its content policy hold.
"""

from collections.abc import Iterator, Sequence
from html import escape

from fineinstructions.errors import printable

COLOURS = ("#2878b5", "#e07b39", "#3a9d6e", "#b5539c", "#8a6d3b", "#6c6fc9")
"""Of the series, in their order; classes ``s0`` to ``s5`` where they fill, ``l0`` to ``l5`` where they are lines."""
FONT_PX = 13
CHAR_PX = 7.6
"""Width of a character of a label, about."""
MAX_LABEL_CHARS = 34
_RULES = {
    "grid": 'stroke="#e5e7eb"',
    "axis": 'stroke="#6b7280"',
    "mark": 'stroke="#374151" stroke-dasharray="4 3"',
}


def svg(title: str, width: float, height: float, body: Sequence[str]) -> str:
    """The whole drawing, with its title for who cannot see it."""
    name = safe(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {px(width)} {px(height)}" '
        f'width="{px(width)}" height="{px(height)}" role="img" aria-label="{name}" '
        f'font-family="system-ui, sans-serif" font-size="{FONT_PX}"><title>{name}</title>{"".join(body)}</svg>'
    )


def text(
    x: float, y: float, words: str, *, anchor: str = "start", kind: str = "label", room: float = 0, full: str = ""
) -> str:
    """Words; `full` is shown on hovering where `words` is cut. With `room` they stand upright, pressed into so much."""
    turn = f' transform="rotate(-90 {px(x)} {px(y)})"' if room else ""
    if room and CHAR_PX * len(words) > room:
        turn += f' textLength="{px(room)}" lengthAdjust="spacingAndGlyphs"'
    hint = f"<title>{safe(full)}</title>" if full and full != words else ""
    shade = "#6b7280" if kind == "quiet" else "#374151"
    place = f'x="{px(x)}" y="{px(y)}"{turn} text-anchor="{anchor}"'
    return f'<text class="{kind}" {place} fill="{shade}">{safe(words)}{hint}</text>'


def bar(x: float, y: float, width: float, height: float, number: int, hint: str) -> str:
    """A filled rectangle in the colour of a series."""
    place = f'x="{px(x)}" y="{px(y)}" width="{px(width)}" height="{px(height)}" rx="1.5"'
    return f'<rect class="s{number % 6}" {place} fill="{colour(number)}"><title>{safe(hint)}</title></rect>'


def dot(x: float, y: float, number: int) -> str:
    """A dot in the colour of a series."""
    place = f'cx="{px(x)}" cy="{px(y)}" r="2.6"'
    return f'<circle class="s{number % 6}" {place} fill="{colour(number)}" fill-opacity="0.8"/>'


def path(points: Sequence[tuple[float, float]], number: int, *, is_dashed: bool = False) -> str:
    """A line through points, in the colour of a series."""
    steps = "L".join(f"{px(x)} {px(y)}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if is_dashed else ""
    look = f'fill="none" stroke="{colour(number)}" stroke-width="1.8" stroke-linejoin="round"{dash}'
    return f'<path class="l{number % 6}" d="M{steps}" {look}/>'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line: ``grid``, ``axis`` or ``mark``."""
    return f'<line class="{kind}" x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}" {_RULES[kind]}/>'


def whisker(low: float, high: float, y: float) -> Iterator[str]:
    """An interval, with its ends."""
    yield rule(low, y, high, y, "axis")
    yield from (rule(x, y - 3, x, y + 3, "axis") for x in (low, high))


def colour(number: int) -> str:
    """Colour of a series."""
    return COLOURS[number % len(COLOURS)]


def cut(label: str) -> str:
    """A label that fits."""
    return label if len(label) <= MAX_LABEL_CHARS else f"{label[: MAX_LABEL_CHARS - 1]}\u2026"


def px(value: float) -> str:
    """A place on the paper, to a tenth of a pixel.

    Example:
        >>> px(2.0), px(-0.01), px(3.14)
        ('2', '0', '3.1')
    """
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def safe(text: str) -> str:
    """Text for XML: without the characters that it cannot hold."""
    return escape(printable(text).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd"))
