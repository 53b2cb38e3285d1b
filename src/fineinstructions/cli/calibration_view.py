"""A calibration as a person reads it on a terminal: bars of good and bad pairs, and what every threshold is worth."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fineinstructions.errors import printable
from fineinstructions.matches.calibrate import Calibration

_BAR_CHARS = 30


def calibration_view(found: Calibration, encoder_id: str, stored: Path | None) -> Group:
    """The histogram, the thresholds with the chosen one marked, and the line to put into a recipe.

    Args:
        found: The calibration.
        encoder_id: Encoder it holds for.
        stored: Where it was stored; ``None`` for nowhere.
    """
    chosen = found.chosen
    by_hand = f"not stored; say --set retrieve.min_cosine={chosen.min_cosine:.6f}, or give --write"
    lines: list[RenderableType] = [
        Text(f"{found.num_good:,} good and {found.num_bad:,} bad pairs, encoder {printable(encoder_id)}"),
        _bars(found),
        _thresholds(found),
        Text(f"min_cosine {chosen.min_cosine:.4f}: {found.rule}", style="bold"),
        Text(printable(f"stored in {stored}") if stored else by_hand),
    ]
    spaced: list[RenderableType] = [part for line in lines for part in (line, Text(""))]
    return Group(*spaced)


def _bars(found: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cosine from", "good", "", "bad", " "):
        table.add_column(name, justify="left" if not name.strip() else "right")
    most = max(max(bar.num_good, bar.num_bad) for bar in found.histogram)
    for bar in found.histogram:
        good, bad = (
            Text("█" * round(n * _BAR_CHARS / most), style=s)
            for n, s in ((bar.num_good, "green"), (bar.num_bad, "red"))
        )
        table.add_row(f"{bar.from_cosine:.2f}", f"{bar.num_good:,}", good, f"{bar.num_bad:,}", bad)
    return table


def _thresholds(found: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("min_cosine", "kept", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for figures in found.thresholds:
        style = "bold green" if figures == found.chosen else ""
        values = (figures.precision, figures.recall, figures.f1)
        table.add_row(
            f"{figures.min_cosine:.4f}", f"{figures.num_kept:,}", *(f"{value:.3f}" for value in values), style=style
        )
    return table
