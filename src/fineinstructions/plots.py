"""Plots as SVG text: lines, horizontal bars, histograms.

In: numbers and names. Out: one ``<svg>`` element that stands alone in a file or inside a page, the same bytes from the
same numbers. Names may come from anywhere: they are shown as text. Colours are attributes with a class beside them, so
that a page can change them for a dark screen, and a strict content policy has nothing to refuse.

The decision to question: no plotting library. What is needed fits a page of code, draws the same on every machine and
adds nothing to the base install.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fineinstructions.svg import (
    CHAR_PX,
    MAX_LABEL_CHARS,
    bar,
    colour,
    cut,
    dot,
    path,
    px,
    rule,
    svg,
    text,
    whisker,
)

WIDTH = 520
HEIGHT = 260
_MAX_POINTS = 2 * WIDTH
"""Points of a line beyond which it is thinned."""
_TICKS = 5

Tell = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line, or the dots of one kind."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    """A value that is no number interrupts the line."""
    low: Sequence[float] = ()
    """Lower ends of a band around the line; empty for no band."""
    high: Sequence[float] = ()
    has_dots: bool = False
    """Dots instead of a line."""
    is_dashed: bool = False


@dataclass(frozen=True)
class Curves:
    """Lines of one plot, as they are drawn now and written down to be drawn again elsewhere."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]

    def as_json(self) -> str:
        """The lines as JSON, the format of docs/report.md."""
        lines = [{"name": one.name, "x": list(one.x), "y": list(one.y)} for one in self.series]
        plain = {"title": self.title, "x_label": self.x_label, "y_label": self.y_label, "series": lines}
        return json.dumps(plain, ensure_ascii=False) + "\n"

    def drawn(self) -> str:
        """The plot."""
        return line(self.series, title=self.title, x_label=self.x_label, y_label=self.y_label)


@dataclass(frozen=True)
class Mark:
    """A place on the x axis that is pointed out, for example a threshold."""

    x: float
    label: str


def told(value: float) -> str:
    """A number as short as a label needs it.

    Example:
        >>> [told(v) for v in (0, 0.25, 3, 12_500, 2_300_000, 0.00012)]
        ['0', '0.25', '3', '12.5k', '2.3M', '0.00012']
    """
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{value / scale:.3g}{unit}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def percent(value: float) -> str:
    """A share as a label.

    Example:
        >>> percent(0.125), percent(0.0004), percent(1)
        ('12.5%', '0.04%', '100%')
    """
    return f"{100 * value:.3g}%"


def line(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[Mark] = (),
    tell_y: Tell = told,
) -> str:
    """Lines or dots over numbers.

    Args:
        series: What is drawn; long series are thinned so that every peak stays.
        title: What the plot shows.
        x_label: What the x axis counts.
        y_label: What the y axis counts.
        log_x: Whether x goes by powers of ten; values of 0 and below are left out then.
        log_y: Likewise for y.
        marks: Places on the x axis that are pointed out.
        tell_y: Writes a value of the y axis.

    Returns:
        One ``<svg>`` element.
    """
    drawn = [_usable(one, log_x, log_y) for one in series]
    xs = [x for one in drawn for x in one.x] + [mark.x for mark in marks if mark.x > 0 or not log_x]
    ys = [v for one in drawn for v in (*one.y, *one.low, *one.high) if math.isfinite(v)]
    frame = _Frame.around(xs, ys, log_x, log_y, tell_y, has_legend=len(drawn) > 1)
    body = [*frame.axes(x_label, y_label), *_legend([one.name for one in drawn])]
    for number, one in enumerate(drawn):
        body += _drawn(one, number, frame)
    return svg(title, WIDTH, HEIGHT, [*body, *frame.marks(marks)])


def bars(
    labels: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    title: str,
    tell: Tell = told,
    intervals: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
) -> str:
    """Horizontal bars, one group for each label, with the value written at each end.

    Args:
        labels: Names, from top to bottom; long ones are cut, with the whole name on hovering.
        values: Bars of each series by its name, as many as labels, none negative.
        title: What the plot shows.
        tell: Writes a value.
        intervals: Ends of the interval around each bar, by series; ``None`` where there is none.

    Returns:
        One ``<svg>`` element, as high as it must be.

    Raises:
        ValueError: If a series has not as many values as there are labels.
    """
    if any(len(of_series) != len(labels) for of_series in values.values()):
        raise ValueError("not as many values as labels")
    given = intervals or {}
    ends = [end[1] for of_series in given.values() for end in of_series if end]
    highest = max([v for of_series in values.values() for v in of_series] + ends, default=0.0) or 1.0
    left = 14 + CHAR_PX * max([min(len(label), MAX_LABEL_CHARS) for label in labels], default=0)
    room = WIDTH - left - 18 - CHAR_PX * max([len(tell(v)) for row in values.values() for v in row], default=0)
    thick = 20 if len(values) == 1 else 16
    top = 8 + (24 if len(values) > 1 else 0)
    step = thick * len(values) + 8
    body = list(_legend(list(values)))
    for row, label in enumerate(labels):
        y = top + row * step
        body.append(text(left - 8, y + (step - 8) / 2 + 4.5, cut(label), anchor="end", full=label))
        for number, (name, of_series) in enumerate(values.items()):
            value = of_series[row]
            width, place = max(0.0, value) / highest * room, y + number * thick
            hint = f"{label}: {tell(value)}" + (f" ({name})" if len(values) > 1 else "")
            body.append(bar(left, place, max(width, 0.8 if value else 0.0), thick - 2, number, hint))
            end = (given.get(name) or [None] * len(labels))[row]
            if end:
                body += whisker(left + end[0] / highest * room, left + end[1] / highest * room, place + thick / 2 - 1)
                width = max(width, end[1] / highest * room)
            body.append(text(left + width + 6, place + thick / 2 + 3.5, tell(value), kind="quiet"))
    return svg(title, WIDTH, top + step * len(labels) + 4, body)


def histogram(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    tell_y: Tell = told,
    log_x: bool = False,
) -> str:
    """How often values lie between edges.

    Args:
        edges: Borders of the bins, rising.
        counts: Heights of the bins by series, one fewer than edges; the first is filled, the others are outlines.
        title: What the plot shows.
        x_label: What lies along the x axis.
        y_label: What is counted.
        marks: Places on the x axis that are pointed out.
        tell_y: Writes a value of the y axis.
        log_x: Whether x goes by powers of ten; the first edge must be above 0 then.

    Returns:
        One ``<svg>`` element.

    Raises:
        ValueError: If a series has not one value for each bin.
    """
    if any(len(of_series) != len(edges) - 1 for of_series in counts.values()):
        raise ValueError("not one count for each bin")
    ys = [0.0, *(v for of_series in counts.values() for v in of_series)]
    xs = [*edges, *(mark.x for mark in marks)]
    frame = _Frame.around(xs, ys, log_x, False, tell_y, has_legend=len(counts) > 1, is_tight=True)
    body = [*frame.axes(x_label, y_label), *_legend(list(counts))]
    for number, (name, of_series) in enumerate(counts.items()):
        places = list(zip(edges, edges[1:], of_series, strict=False))
        if number:
            steps = [point for low, high, v in places for point in ((low, v), (high, v))]
            outline = [(edges[0], 0.0), *steps, (edges[-1], 0.0)]
            body.append(path([(frame.x(x), frame.y(y)) for x, y in outline], number))
            continue
        for low, high, value in places:
            left, right, top = frame.x(low), frame.x(high), frame.y(value)
            hint = f"{told(low)} to {told(high)}: {tell_y(value)}" + (f" ({name})" if len(counts) > 1 else "")
            height = frame.y(0) - top
            if value > 0:
                body.append(bar(left + 0.5, top, max(right - left - 1, 0.6), max(height, 0.8), number, hint))
    return svg(title, WIDTH, HEIGHT, [*body, *frame.marks(marks)])


@dataclass(frozen=True)
class _Scale:
    """From values to places on the paper."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1,) if len(powers) > 3 else (1, 2, 5)
            found = [step * 10.0**power for power in powers for step in steps]
        else:
            size = _round_step((self.high - self.low) / _TICKS)
            first = math.ceil(self.low / size - 1e-9)
            found = [number * size for number in range(first, math.floor(self.high / size + 1e-9) + 1)]
        return [value for value in found if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9) or value == 0]


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return power * next(step for step in (1, 2, 5, 10) if step * power >= size * (1 - 1e-9))


@dataclass(frozen=True)
class _Frame:
    """Axes, and what they carry."""

    x: _Scale
    y: _Scale
    tell_y: Tell

    @classmethod
    def around(
        cls,
        xs: Sequence[float],
        ys: Sequence[float],
        log_x: bool,
        log_y: bool,
        tell_y: Tell,
        *,
        has_legend: bool,
        is_tight: bool = False,
    ) -> "_Frame":
        """The frame that holds all values; `is_tight` starts y at its least value without air below."""
        low_x, high_x = _ends(xs, log_x)
        low_y, high_y = _ends(ys, log_y)
        air = 0.06 * (high_y - low_y)
        if not log_y:
            low_y, high_y = (low_y if is_tight or low_y == 0 else low_y - air), high_y + air
        top = 32 if has_legend else 14
        unplaced = _Scale(low_y, high_y, HEIGHT - 44, top, log_y)
        left = 30 + CHAR_PX * max(len(tell_y(tick)) for tick in unplaced.ticks() or [high_y])
        return cls(_Scale(low_x, high_x, left, WIDTH - 16, log_x), unplaced, tell_y)

    def axes(self, x_label: str, y_label: str) -> Iterator[str]:
        """Grid, ticks and labels."""
        left, right, bottom, top = self.x.start, self.x.stop, self.y.start, self.y.stop
        for tick in self.y.ticks():
            y = self.y(tick)
            yield rule(left, y, right, y, "grid")
            yield text(left - 6, y + 4.5, self.tell_y(tick), anchor="end", kind="quiet")
        for tick in self.x.ticks():
            yield rule(self.x(tick), bottom, self.x(tick), bottom + 4, "axis")
            yield text(self.x(tick), bottom + 18, told(tick), anchor="middle", kind="quiet")
        yield rule(left, bottom, right, bottom, "axis")
        yield text((left + right) / 2, HEIGHT - 6, x_label, anchor="middle")
        yield text(13, (top + bottom) / 2, y_label, anchor="middle", room=bottom - top)

    def marks(self, marks: Sequence[Mark]) -> Iterator[str]:
        """Dashed lines with a label each, left of the line where there is no room on its right."""
        for mark in marks:
            x = self.x(mark.x)
            fits = x + CHAR_PX * len(mark.label) + 6 < WIDTH
            yield rule(x, self.y.start, x, self.y.stop, "mark")
            yield text(x + (5 if fits else -5), self.y.stop + 11, mark.label, anchor="start" if fits else "end")


def _ends(values: Sequence[float], is_log: bool) -> tuple[float, float]:
    """Ends of an axis that has a length."""
    low, high = min(values, default=1.0), max(values, default=2.0)
    if high - low > max(1e-12 * max(abs(low), abs(high)), 1e-300):
        return low, high
    return (low / 2, high * 2) if is_log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _usable(one: Series, log_x: bool, log_y: bool) -> Series:
    """A series without what a logarithm cannot show, thinned."""
    if len(one.y) != len(one.x) or any(ends and len(ends) != len(one.x) for ends in (one.low, one.high)):
        raise ValueError(f"{one.name}: not as many values as places")
    keep = [i for i, x in enumerate(one.x) if math.isfinite(x) and (x > 0 or not log_x) and (one.y[i] > 0 or not log_y)]
    if len(keep) > _MAX_POINTS and not one.has_dots:
        keep = _thinned(keep, one.y)

    def pick(column: Sequence[float]) -> list[float]:
        return [column[i] for i in keep] if column else []

    low, high, y = pick(one.low), pick(one.high), pick(one.y)
    if log_y and y:
        low, high = ([max(end, min(y)) for end in ends] for ends in (low, high))
    return replace(one, x=pick(one.x), y=y, low=low, high=high)


def _thinned(places: Sequence[int], values: Sequence[float]) -> list[int]:
    """The lowest and the highest place of every stretch, in order."""
    size = math.ceil(2 * len(places) / _MAX_POINTS)
    stretches = [places[start : start + size] for start in range(0, len(places), size)]
    kept = [{min(part, key=lambda i: values[i]), max(part, key=lambda i: values[i])} for part in stretches]
    return [places[0], *(i for part in kept for i in sorted(part) if i not in (places[0], places[-1])), places[-1]]


def _drawn(one: Series, number: int, frame: _Frame) -> Iterator[str]:
    points = [(frame.x(x), frame.y(y)) if math.isfinite(y) else None for x, y in zip(one.x, one.y, strict=True)]
    if one.has_dots:
        yield from (dot(*point, number) for point in points if point)
        return
    if one.low and one.high:
        upper = [(frame.x(x), frame.y(y)) for x, y in zip(one.x, one.high, strict=True) if math.isfinite(y)]
        lower = [(frame.x(x), frame.y(y)) for x, y in zip(one.x, one.low, strict=True) if math.isfinite(y)]
        corners = " ".join(f"{px(x)},{px(y)}" for x, y in [*upper, *reversed(lower)])
        yield f'<polygon class="s{number % 6}" points="{corners}" fill="{colour(number)}" fill-opacity="0.18"/>'
    stretch: list[tuple[float, float]] = []
    for point in [*points, None]:
        if point:
            stretch.append(point)
        elif stretch:
            yield path(stretch, number, is_dashed=one.is_dashed) if len(stretch) > 1 else dot(*stretch[0], number)
            stretch = []


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = 14.0
    for number, name in enumerate(names if len(names) > 1 else ()):
        yield bar(x, 6, 12, 12, number, name)
        yield text(x + 17, 16.5, cut(name), full=name)
        x += 36 + CHAR_PX * min(len(name), MAX_LABEL_CHARS)
