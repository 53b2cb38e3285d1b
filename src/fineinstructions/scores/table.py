"""Figures of an experiment as tables: Markdown for people, CSV and JSON for programs, an SVG of the trainings.

In: what was trained and the figures. Out: texts. The same figures give the same bytes; only what was measured with a
clock (seconds) differs from one machine to another.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fineinstructions.markdown import table
from fineinstructions.plots import Curves, Series
from fineinstructions.scores.forms import PAIR
from fineinstructions.scores.results import BENCHMARK, BITS, NEUTRAL_FORMS, ROUGE, SECONDS, Figure

PLUMBING_NOTE = "**[PLUMBING]: the judge follows a script; these figures say nothing about any model.**"
FORM_TITLES = {"": "", NEUTRAL_FORMS: "neutral", PAIR: "pair"}


@dataclass(frozen=True, slots=True)
class ArmRow:
    """What an arm's models were trained on."""

    arm: str
    model: str
    seeds: tuple[int, ...]
    """Those that are trained and scored."""
    tokens: int
    unique_tokens: int
    epochs: float
    documents: int | None
    """That the rows of the arm's corpus are made of, where its figures say so; one that is read in part has fewer."""
    parameters: int
    flops: float
    """Of one training."""
    seconds_per_answer: float | None
    """Measured while answers were written; says something of this machine only."""


def markdown(title: str, arms: Sequence[ArmRow], found: Sequence[Figure], missing: Sequence[str]) -> str:
    """The whole result as one page."""
    lines = [f"# {title}", ""]
    if missing:
        lines += [f"Not done yet: {', '.join(missing)}.", ""]
    lines += [*_arms_table(arms), ""]
    lines += ["Intervals: 95 %, bootstrap over items and seeds; differences are paired over both.", ""]
    parts = (
        ("Bits per byte (less is better)", BITS),
        ("ROUGE-L of written answers", ROUGE),
        ("Benchmarks, as a judge scores them", BENCHMARK),
    )
    for heading, measure in parts:
        own = [f for f in found if f.measure == measure and (measure != BITS or f.form in FORM_TITLES)]
        if own:
            notes = [PLUMBING_NOTE, ""] if any("[PLUMBING]" in f.set_name for f in own) else []
            lines += [f"## {heading}", "", *notes, *_figures_table(own, is_difference=False), ""]
        of_size = [f for f in own if f.against_model in ("", f.model)]
        of_next = [f for f in own if f.against_model not in ("", f.model) and f.difference is not None]
        short = heading.split(" (")[0].split(",")[0]
        if any(f.difference is not None for f in of_size):
            lines += [f"### {short}, less that of the arm compared with", ""]
            lines += [*_figures_table(of_size, is_difference=True), ""]
        if of_next:
            lines += [f"### {short}, less that of a model of the next size", ""]
            lines += [*_next_size_table(of_next, arms), ""]
    if len({row.model for row in arms}) > 1:
        lines += ["## Scores beside their costs", "", *_costs_table(per_size(arms, found)), ""]
    return "\n".join(lines)


def _arms_table(arms: Sequence[ArmRow]) -> list[str]:
    head = [
        "arm",
        "model",
        "seeds",
        "tokens",
        "unique tokens",
        "epochs",
        "documents",
        "parameters",
        "training FLOPs",
        "s per answer",
    ]
    rows = [
        [
            row.arm,
            row.model,
            ", ".join(map(str, row.seeds)) or "-",
            f"{row.tokens:,}",
            f"{row.unique_tokens:,}",
            f"{row.epochs:.3g}",
            "-" if row.documents is None else f"{row.documents:,}",
            f"{row.parameters:,}",
            f"{row.flops:.3g}",
            _seconds(row),
        ]
        for row in arms
    ]
    return list(table(head, rows))


def _figures_table(found: Sequence[Figure], is_difference: bool) -> list[str]:
    columns = list(dict.fromkeys((f.set_name, f.form) for f in found))
    head = [
        "arm",
        "model",
        *(["against"] if is_difference else []),
        *(f"{s} {FORM_TITLES.get(f, f)}".strip() for s, f in columns),
    ]
    rows = []
    for key in dict.fromkeys((f.arm, f.model, f.against) for f in found):
        cells = {(f.set_name, f.form): f for f in found if (f.arm, f.model, f.against) == key}
        if is_difference and all(f.difference is None for f in cells.values()):
            continue
        told = [_cell(cells.get(column), is_difference) for column in columns]
        rows.append([*key[:2], *([key[2]] if is_difference else []), *told])
    if not is_difference:
        rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    return list(table(head, rows))


def _next_size_table(found: Sequence[Figure], arms: Sequence[ArmRow]) -> list[str]:
    """Differences from models of the next size, with the parameters and the seconds per answer of both."""
    costs = {(row.arm, row.model): row for row in arms}
    columns = list(dict.fromkeys((f.set_name, f.form) for f in found))
    head = ["arm", "model", "against", "its model", "parameters", "its parameters", "s per answer", "its s per answer"]
    head += [f"{name} {FORM_TITLES.get(form, form)}".strip() for name, form in columns]
    rows = []
    for key in dict.fromkeys((f.arm, f.model, f.against, f.against_model) for f in found):
        cells = {(f.set_name, f.form): f for f in found if (f.arm, f.model, f.against, f.against_model) == key}
        ours, theirs = costs[key[:2]], costs[key[2:]]
        both = [f"{row.parameters:,}" for row in (ours, theirs)] + [_seconds(row) for row in (ours, theirs)]
        rows.append([*key, *both, *(_cell(cells.get(column), is_difference=True) for column in columns)])
    return list(table(head, rows))


def _costs_table(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores of which more is better, over parameters and over what the training took."""
    head = ["arm", "model", "score", "value", "parameters", "training FLOPs", "s per answer"]
    rows = [
        [
            *(one["arm"], one["model"], f"{one['set_name']} {FORM_TITLES.get(one['form'], one['form'])}".strip()),
            *(f"{one['value']:.3f}", f"{one['parameters']:,}", f"{one['flops']:.3g}"),
            "-" if one["seconds_per_answer"] is None else f"{one['seconds_per_answer']:.3g}",
            *(f"{one['per_million_parameters']:.3g}", f"{one['per_exaflop']:.3g}"),
        ]
        for one in told
        if "per_exaflop" in one
    ]
    return list(table([*head, "per million parameters", "per exaFLOP"], rows))


def _seconds(row: ArmRow) -> str:
    return "-" if row.seconds_per_answer is None else f"{row.seconds_per_answer:.3g}"


def _cell(figure: Figure | None, is_difference: bool) -> str:
    if figure is None:
        return "-"
    if not is_difference:
        return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
    if figure.difference is None:
        return "-"
    return f"{figure.difference:+.3f} ({figure.difference_low:+.3f} to {figure.difference_high:+.3f})"


def csv_text(found: Iterable[Figure]) -> str:
    """All figures, one a line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Figure)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(figure) for figure in found)
    return out.getvalue()


def json_text(title: str, arms: Sequence[ArmRow], found: Sequence[Figure], missing: Sequence[str]) -> str:
    """Everything that is in the tables."""
    plain = {
        "title": title,
        "missing": list(missing),
        "arms": [asdict(row) for row in arms],
        "figures": [asdict(figure) for figure in found],
        "per_parameter_and_flop": per_size(arms, found),
    }
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def per_size(arms: Sequence[ArmRow], found: Sequence[Figure]) -> list[dict[str, Any]]:
    """Every arm's figures beside what they cost: parameters, FLOPs of the training, seconds per answer.

    A score over its cost is told of ROUGE-L and benchmarks, of which more is better; of a loss it would mean nothing.
    """
    costs = {(row.arm, row.model): row for row in arms}
    told = []
    once = {(f.arm, f.model, f.set_name, f.form, f.measure): f for f in reversed(found)}
    for figure in reversed(once.values()):
        row = costs.get((figure.arm, figure.model))
        if row is None or figure.measure == SECONDS:
            continue
        one: dict[str, Any] = {
            "arm": figure.arm,
            "model": figure.model,
            "set_name": figure.set_name,
            "form": figure.form,
            "measure": figure.measure,
            "value": figure.value,
            "parameters": row.parameters,
            "flops": row.flops,
            "seconds_per_answer": row.seconds_per_answer,
        }
        if figure.measure in (ROUGE, BENCHMARK):
            one |= {"per_million_parameters": figure.value / (row.parameters / 1e6)}
            one |= {"per_exaflop": figure.value / (row.flops / 1e18)}
        told.append(one)
    return told


Curve = Sequence[tuple[float, float]]
"""Tokens and loss."""


def training_curves(title: str, curves: Mapping[str, Curve]) -> Curves:
    """Loss of the training over tokens, one line per arm and model, and a title that warns of comparing arms by it.

    Args:
        title: What is shown.
        curves: Lines by name.
    """
    warning = f"{title}: training loss (each arm's own text; arms do not compare)"
    return _lines(warning, curves, "loss on own text, nats per token")


def held_out_curves(title: str, curves: Mapping[str, Curve], label: str) -> Curves:
    """Loss of checkpoints on text that no arm was trained on, over tokens; arms compare.

    Args:
        title: What is shown.
        curves: Lines by name.
        label: What was measured.
    """
    return _lines(f"{title}: held-out loss (the same text for all arms; less is better)", curves, label)


def _lines(title: str, curves: Mapping[str, Curve], label: str) -> Curves:
    series = [Series(name, [x for x, _ in curve], [y for _, y in curve]) for name, curve in curves.items()]
    return Curves(title, "tokens", label, series)
