"""A judge's agreement with labels as a person reads it on a terminal: figures with intervals, bars of its scores."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fineinstructions.errors import printable
from fineinstructions.judge_calibration import JudgeCalibration
from fineinstructions.pairs.calibrate import MAIN_FIGURES, Agreement
from fineinstructions.pairs.calibration_page import MEANINGS, summary, value_cells

_BAR_CHARS = 30


def judge_view(found: JudgeCalibration) -> Group:
    """Every set with its figures, the spread of scores and, where the file names some, its subsets."""
    lines: list[RenderableType] = [Text(printable(f"judge {found.judge}"))]
    for agreement in found.sets:
        lines += [
            Text(printable(f"{agreement.name}  ({agreement.layout})"), style="bold"),
            Text(summary(agreement)),
            _figures(agreement),
            _bars(agreement),
        ]
        lines += [_subsets(agreement)] if agreement.subsets else []
    if any(agreement.layout == "pairwise" for agreement in found.sets):
        lines.append(Text(f"position bias: {MEANINGS['position bias']}.", style="dim"))
    lines.append(Text(printable(f"written to {found.folder}") if found.folder else "not written; give --out"))
    return Group(*(part for line in lines for part in (line, Text(""))))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in ("value", "rows", "answers") else "left")
    return table


def _figures(found: Agreement) -> Table:
    table = _table("figure", "value", "95 % interval", "rows")
    for figure in found.figures:
        table.add_row(
            figure.name, *value_cells(figure), style="bold" if figure.name == MAIN_FIGURES[found.layout] else ""
        )
    return table


def _bars(found: Agreement) -> Table:
    table = _table("score", "answers", "")
    most = max(1, *found.histogram.values())
    for score, number in found.histogram.items():
        table.add_row(str(score), f"{number:,}", Text("█" * round(number * _BAR_CHARS / most), style="green"))
    return table


def _subsets(found: Agreement) -> Table:
    table = _table("subset", "value", "95 % interval", "rows")
    for figure in found.subsets:
        table.add_row(Text(printable(figure.name or "(none)")), *value_cells(figure))
    return table
