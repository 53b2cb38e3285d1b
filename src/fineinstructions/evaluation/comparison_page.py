"""Comparisons as one table and one plot: Markdown for people, SVG with intervals around the line of no difference."""

from collections.abc import Sequence

from fineinstructions.evaluation.compare import Comparison
from fineinstructions.evaluation.report import PLUMBING, PLUMBING_MARK, shown
from fineinstructions.evaluation.scoring import TITLES, is_share
from fineinstructions.statistics import holm
from fineinstructions.svg import cut, dot, rule, svg, text, whisker

HEAD = ("benchmark", "A", "B", "A scores", "B scores", "B - A", "95 %", "p", "p (Holm)", "B wins", "W/T/L", "items")
_ROW, _LEFT, _WIDTH, _PLOT = 30, 260, 760, 300
ALPHA = 0.05


def cells(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """One row of text for each comparison."""
    adjusted = holm([found.p_value for found in comparisons])
    return [_cells(found, p) for found, p in zip(comparisons, adjusted, strict=True)]


def _cells(found: Comparison, adjusted: float) -> tuple[str, ...]:
    scale = found.benchmark, "win_rate" if is_share(found.benchmark, "score") else "score"
    ends = "none" if found.interval is None else " to ".join(shown(*scale, end) for end in found.interval)
    rate = shown("alpaca_eval", "win_rate", found.win_rate)
    if found.win_rate_interval is not None:
        rate += " ({} to {})".format(*(shown("alpaca_eval", "win_rate", end) for end in found.win_rate_interval))
    return (
        TITLES[found.benchmark] + (f" {PLUMBING_MARK}" if found.is_plumbing else ""),
        found.first,
        found.second,
        shown(*scale, found.first_value),
        shown(*scale, found.second_value),
        shown(*scale, found.difference),
        ends,
        f"{found.p_value:.3f}",
        f"{adjusted:.3f}" + (" *" if adjusted < ALPHA else ""),
        rate,
        f"{found.wins}/{found.ties}/{found.losses}",
        f"{found.items:,}",
    )


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """What a reader must know about the rows, a line each."""
    lines = [PLUMBING] if any(found.is_plumbing for found in comparisons) else []
    for found in comparisons:
        who = f"{TITLES[found.benchmark]}, {found.first} and {found.second}"
        if found.left_out:
            lines.append(f"{who}: {found.left_out:,} items left out that only one of them has")
        if any(found.unparsed):
            lines.append(
                f"{who}: {found.unparsed[0]:,} and {found.unparsed[1]:,} items with an unread judgement, worth 0"
            )
        for model, bias in zip((found.first, found.second), found.position_bias, strict=True):
            if bias is not None:
                lines.append(f"{who}: beside {model} the judge preferred what stood first by {100 * bias:+.1f} points")
    lines.append("p: swapping the two scores of every item at random; Holm: for all rows of this table; * below 0.05.")
    return lines


def page(comparisons: Sequence[Comparison]) -> str:
    """The table, as Markdown."""
    lines = ["# Comparison", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells(comparisons)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(comparisons)), "", "![plot](comparison.svg)", ""])


def plot(comparisons: Sequence[Comparison]) -> str:
    """Differences with their intervals as an SVG; each benchmark's own scale is stretched to its widest interval."""
    height = _ROW * len(comparisons) + 50
    middle = _LEFT + _PLOT / 2
    body = [rule(middle, 10, middle, height - 30, "mark")]
    for number, (found, row) in enumerate(zip(comparisons, cells(comparisons), strict=True)):
        y = 24 + _ROW * number
        low, high = found.interval or (found.difference, found.difference)
        sure = 2 if low > 0 else 1 if high < 0 else 0  # colours of the series: green, orange, blue
        name = f"{found.second} less {found.first}, {row[0]}"
        body.append(text(_LEFT - 10, y + 4.5, cut(name), anchor="end", full=name))
        body += whisker(_place(found, comparisons, low), _place(found, comparisons, high), y)
        body.append(dot(_place(found, comparisons, found.difference), y, sure))
        body.append(text(_LEFT + _PLOT + 12, y + 4.5, f"{row[5]} ({row[6]})", kind="quiet"))
    body.append(text(middle - 12, height - 10, "A better", anchor="end", kind="quiet"))
    body.append(text(middle + 12, height - 10, "B better", kind="quiet"))
    return svg("Differences between models, B less A, with 95 % intervals", _WIDTH, height, body) + "\n"


def _place(found: Comparison, comparisons: Sequence[Comparison], value: float) -> float:
    alike = [other for other in comparisons if other.benchmark == found.benchmark]
    ends = [abs(end) for other in alike for end in (*(other.interval or ()), other.difference)]
    return _LEFT + _PLOT / 2 * (1 + value / (max(ends) or 1.0))
