"""A trained student as a person reads it on a terminal: rows, losses, and figures beside what they should have been."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fineinstructions.errors import counted, printable
from fineinstructions.student_scores import Score
from fineinstructions.students import StudentResult


def student_view(result: StudentResult) -> Group:
    """What became of the rows, how the loss fell, what the student can do, and where it lies."""
    facts = result.facts
    told = [_rows(result), *map(_round, facts["rounds"])]
    lines: list[RenderableType] = [Text(printable(line)) for line in told]
    lines.append(_figures(result.scores) if result.scores else Text("no held-out rows, so nothing was measured"))
    if facts.get("no_threshold"):
        lines.append(Text(printable(f"no threshold was stored: {facts['no_threshold']}")))
    lines.append(Text(printable(f"{'was there already: ' if result.was_there else ''}{result.path}"), style="bold"))
    return Group(*lines)


def _rows(result: StudentResult) -> str:
    facts = result.facts
    aside = ", ".join(f"{reason} {number:,}" for reason, number in facts["set_aside"].items())
    return f"{counted(facts['rows_read'], 'row')} read; set aside: {aside or 'none'}"


def _round(trained: dict[str, object]) -> str:
    def number(name: str) -> str:
        value = trained[name]
        return "-" if value is None else f"{value:.4f}"

    held_out = f"held out {number('held_out_before')} -> {number('held_out_after')}"
    losses = f"loss {number('first_loss')} -> {number('last_loss')}, {held_out}"
    return f"{trained['name']}: {trained['rows']:,} rows, {trained['steps']:,} steps, {losses}"


def _figures(scores: list[Score]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("figure", "left"), ("value", "right"), ("rows", "right"), ("should reach", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("says who")
    for score in scores:
        style = {True: "green", False: "yellow", None: ""}[score.is_reached]
        value, target = ("-" if number is None else f"{number:.3f}" for number in (score.value, score.target))
        table.add_row(score.name, Text(value, style=style), f"{score.num_rows:,}", target, score.source)
    return table
