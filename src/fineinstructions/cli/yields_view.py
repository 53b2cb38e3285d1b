"""What instantiation yields, as a person reads it on a terminal: one table per way of telling attempts apart."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fineinstructions.cli.show import flowing

if TYPE_CHECKING:
    from fineinstructions.outcomes import PrunedTemplate
    from fineinstructions.review.yields import Figures

_MAX_REASONS = 3
_MAX_PRUNED = 40


def yields_rows(keys: Sequence[str], groups: "dict[tuple[str, ...], Figures]") -> list[dict[str, Any]]:
    """A table of figures as plain values, one dictionary per group."""
    return [
        {
            **dict(zip(keys, values, strict=True)),
            "tries": figures.num_tries,
            "kept": figures.num_kept,
            "yield": figures.kept_share,
            "excerpt_ratio": figures.excerpt_ratio,
            "judge_score": figures.judge_score,
            "generated_tokens_per_answer_token": figures.generated_tokens_ratio,
            "failed": figures.num_failed,
            "reasons": dict(figures.reasons.most_common()),
        }
        for values, figures in groups.items()
    ]


def yields_table(keys: Sequence[str], rows: Iterable[dict[str, Any]]) -> Group:
    """The same as a table, and below it why tries failed; figures that nothing is known of stay empty.

    Reasons stand in lines of their own, so that 80 columns break no word: one of a group is as long as a sentence.
    """
    legend = (
        "kept: before the template cap; quoted: mean excerpt ratio; tokens: generated tokens per token of the answer"
    )
    table = Table(box=None, pad_edge=False, header_style="bold", caption=legend, caption_justify="left")
    for key in keys:
        table.add_column(key, overflow="ellipsis")  # a long name gives way, no figure does
    for name in ("tries", "kept", "yield", "quoted", "score", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    lost: list[Text] = []
    for row in rows:
        figures = (row["excerpt_ratio"], row["judge_score"], row["generated_tokens_per_answer_token"])
        told = ["" if value is None else f"{value:.2f}" for value in figures]
        counts = f"{row['tries']:,}", f"{row['kept']:,}", f"{row['yield']:.1%}"
        names = [Text(flowing(row[key])) for key in keys]
        table.add_row(*names, *counts, *told)
        why = [*_reasons(row["reasons"]), *([f"failed {row['failed']:,}"] if row["failed"] else [])]
        if why:
            group = ", ".join(f"{key} {row[key]}" for key in keys)
            lost.append(Text(flowing(f"{group}: {', '.join(why)}")))
    heading = [Text("rejected, by reason", style="bold")] if lost else []
    return Group(table, *heading, *lost)


def _reasons(counts: dict[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ordered = [(reason.partition(": ")[2] or reason, number) for reason, number in ordered]
    more = sum(number for _, number in ordered[_MAX_REASONS:])
    return [f"{reason} {number:,}" for reason, number in ordered[:_MAX_REASONS]] + (
        [f"others {more:,}"] if more else []
    )


def pruned_table(pruned: "Sequence[PrunedTemplate]") -> Table:
    """Templates that were taken out, the most tried first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("tries", "kept"):
        table.add_column(name, justify="right")
    for name in ("template", "rejected, by reason"):
        table.add_column(name, overflow="fold")
    for template in pruned[:_MAX_PRUNED]:
        why = Text(flowing(", ".join(_reasons(json.loads(template.reasons)))))
        table.add_row(f"{template.num_tries:,}", f"{template.num_kept:,}", Text(flowing(template.template)), why)
    if len(pruned) > _MAX_PRUNED:
        table.add_row("", "", f"... and {len(pruned) - _MAX_PRUNED:,} more", "")
    return table
