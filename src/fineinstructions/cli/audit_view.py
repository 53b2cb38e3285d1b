"""What an audit has found, as a person reads it on a terminal: the figures that decide; the rest is in the report."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fineinstructions.cli.show import flowing


def audit_view(found: dict[str, Any]) -> Group:
    """The main figures of all audits."""
    quality, diversity, cost = found["quality"], found["diversity"], found["efficiency"]
    rates = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("pairs", "fault", "found", "judged", "share", "95 %"):
        rates.add_column(name, justify="left" if name in ("pairs", "fault") else "right")
    for arm, of_arm in quality["rates"].items():
        for rate in of_arm:
            share = "" if rate["share"] is None else f"{rate['share']:.1%}"
            interval = "" if rate["share"] is None else f"{rate['low']:.1%} to {rate['high']:.1%}"
            rates.add_row(arm, rate["name"], str(rate["num_wrong"]), str(rate["num_judged"]), share, interval)
    gaps = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("beside real queries, by", "Jensen-Shannon", "under-represented"):
        gaps.add_column(name, justify="right" if name == "Jensen-Shannon" else "left", overflow="fold")
    for one in found["distribution"]["comparisons"]:
        gaps.add_row(one["name"], f"{one['js']:.3f}", Text(flowing(", ".join(one["under_represented"][:6]))))
    grown = diversity["growth"]
    lines = [
        f"templates grow as x^{grown['exponent']:.2f} with documents (paper 0.24); the most frequent has "
        f"{grown['top_share']:.2%} of the pairs",
        f"near duplicates {diversity['generated']['near_duplicate_share']:.1%}; "
        f"self-BLEU {diversity['generated']['self_bleu']:.2f}",
    ]
    if cost["seconds_per_pair"] is not None:
        lines.append(f"{cost['seconds_per_pair']:.3f} worker seconds for a kept pair")
    return Group(rates, Text(""), gaps, Text(""), *(Text(line) for line in lines))
