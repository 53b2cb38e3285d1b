"""What an audit has found, as a person reads it on a terminal: the figures that decide; the rest is in the report."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fineinstructions.cli.asked_view import asked_table
from fineinstructions.cli.show import flowing
from fineinstructions.errors import counted, printable
from fineinstructions.review.audit_page import exhausted


def audit_view(found: dict[str, Any]) -> Group:
    """The main figures of all audits."""
    quality, diversity, cost = found["quality"], found["diversity"], found["efficiency"]
    rates = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("of", "by", "fault", "found", "judged", "share", "95 %"):
        rates.add_column(name, justify="left" if name in ("of", "by", "fault") else "right", overflow="fold")
    for of, kind in ((quality, ""), (quality.get("templates"), "templates")):
        for by, said in {"people": of, **of["judges"]}.items() if of else ():
            for arm, of_arm in said["rates"].items():
                for rate in of_arm:
                    share = "" if rate["share"] is None else f"{rate['share']:.1%}"
                    interval = "" if rate["share"] is None else f"{rate['low']:.1%} to {rate['high']:.1%}"
                    numbers = str(rate["num_wrong"]), str(rate["num_judged"]), share, interval
                    rates.add_row(kind or arm, Text(printable(by)), rate["name"].replace("_", " "), *numbers)
    gaps = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("beside real queries, by", "Jensen-Shannon", "under-represented"):
        gaps.add_column(name, justify="right" if name == "Jensen-Shannon" else "left", overflow="fold")
    for one in found["distribution"]["comparisons"]:
        gaps.add_row(one["name"], f"{one['js']:.3f}", Text(flowing(", ".join(one["under_represented"][:6]))))
    grown, few = diversity["growth"], exhausted(found["distribution"])
    lines = [
        f"templates grow as x^{grown['exponent']:.2f} with documents (paper 0.24); the most frequent has "
        f"{grown['top_share']:.2%} of the pairs",
        f"near duplicates {diversity['generated']['near_duplicate_share']:.1%}; "
        f"self-BLEU {diversity['generated']['self_bleu']:.2f}",
    ]
    if cost["per_pair"]["worker_seconds"] is not None:
        lines.append(f"{cost['per_pair']['worker_seconds']:.3f} worker seconds for a kept pair")
    lines += [
        f"{printable(name)}: {counted(said['num_unparsed'], 'reply')} could not be read; these rows stay empty"
        for name, said in quality["judges"].items()
        if said["num_unparsed"]
    ]
    if few:
        lines.append(
            f"sample.target can hardly bring more pairs of {', '.join(few)} slots: nearly all finds are chosen"
        )
    asked = asked_table(cost["stages"], cost["num_pairs"])
    shown: list[RenderableType] = [rates, Text(""), gaps, Text(""), *(Text(line) for line in lines)]
    return Group(*shown, *((Text(""), asked) if asked else ()))
