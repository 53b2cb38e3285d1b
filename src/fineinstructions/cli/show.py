"""Records as a person reads them on a terminal: pairs with their quotes marked, rejections with their reason."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fineinstructions.records import GLOBAL_CHUNK, Pair, Rejection

_PREVIEW_CHARS = 300


def quoted(pair: Pair, max_chars: int | None = None) -> Text:
    """A pair's answer, with what is quoted from the document underlined in green.

    Args:
        pair: The pair.
        max_chars: Cut after this many characters; ``None`` shows everything.
    """
    text = Text(pair.answer)
    for excerpt in pair.excerpts:
        text.stylize("green", excerpt.answer_start, excerpt.answer_end)
    if max_chars is not None and len(pair.answer) > max_chars:
        text = text[:max_chars]
        text.append(" ...", style="dim")
    return text


def pair_panel(pair: Pair, max_chars: int | None = None) -> Panel:
    """One pair with its source, scores and ids."""
    where = "whole document" if pair.chunk == GLOBAL_CHUNK else f"coverage chunk {pair.chunk}"
    facts = (
        f"score {pair.judge_score}/5 · quoted {pair.excerpt_ratio:.0%} · cosine {pair.cosine:.3f} ({where}) · "
        f"{pair.source or 'no source column'} · {pair.licence or 'no licence column'}"
    )
    title = f" from: {pair.title}" if pair.title else f" from: {pair.document_id}"
    body = Group(
        Text.assemble(("Instruction  ", "bold"), pair.instruction),
        Text(""),
        Text.assemble(("Answer  ", "bold"), quoted(pair, max_chars)),
        Text(""),
        Text(facts, style="dim"),
    )
    return Panel(body, title=Text(pair.pair_id + title, style="cyan"), title_align="left", border_style="dim")


def rejection_panel(rejection: Rejection) -> Panel:
    """One rejection: where, why, the value that decided, and the beginning of the record."""
    value = "" if rejection.value is None else f" · value {rejection.value:.3f}"
    word = "failed" if rejection.failed else "rejected"
    record = json.loads(rejection.record)
    lines: list[RenderableType] = [Text(f"{word} at {rejection.stage}: {rejection.reason}{value}", style="yellow")]
    if isinstance(record, dict):
        for key in ("text", "template", "instruction", "answer", "raw", "judge_feedback"):
            if record.get(key):
                shown = str(record[key])
                cut = shown[:_PREVIEW_CHARS] + (" ..." if len(shown) > _PREVIEW_CHARS else "")
                lines.append(Text.assemble((f"{key}: ", "bold"), cut))
    return Panel(Group(*lines), title=Text(rejection.record_id, style="cyan"), title_align="left", border_style="dim")


def funnel_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The funnel: one row per stage with what came in, what went on, and why the rest did not.

    Args:
        rows: Dictionaries with ``stage``, ``unit`` (what is counted), ``in``, ``out``, ``rejected`` and ``failed``
            (reason to count).
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("in", justify="right")
    table.add_column("out", justify="right", style="green")
    table.add_column("of", style="dim")
    table.add_column("rejected, by reason", overflow="fold")
    for row in rows:
        reasons = _reasons(row["rejected"], "") + _reasons(row["failed"], " (failed)")
        table.add_row(row["stage"], f"{row['in']:,}", f"{row['out']:,}", row["unit"], ", ".join(reasons))
    return table


def _reasons(counts: dict[str, int], suffix: str) -> list[str]:
    return [f"{reason}{suffix} {n:,}" for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def print_pairs(console: Console, pairs: Iterable[Pair], max_chars: int | None = None) -> None:
    """Print pairs below each other."""
    for pair in pairs:
        console.print(Padding(pair_panel(pair, max_chars), (0, 0, 1, 0)))
