"""What models were asked, as a person reads it on a terminal: beside a run and in an audit."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fineinstructions.errors import printable
from fineinstructions.review.efficiency import ASKED_HEAD, asked_rows


def asked_table(stages: Sequence[dict[str, Any]], num_pairs: int = 0) -> Table | None:
    """What each stage has asked of its model, for each of so many pairs in brackets; ``None`` where none asked one."""
    rows = asked_rows(stages, num_pairs)
    if not rows:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ASKED_HEAD:
        table.add_column(name, justify="left" if name in ("stage", "model") else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
