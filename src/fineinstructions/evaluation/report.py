"""Figures of evaluations as a page that people read: Markdown, and the same cells for a terminal.

In: what evaluations wrote, as plain values. Out: text. The decision to question: figures of a judge that follows a
script are not left out but marked at the title and in every row, so that nobody quotes them by accident.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fineinstructions.evaluation.scoring import TITLES, is_share

PLUMBING = "PLUMBING: the judge follows a script; these figures say nothing about the model"
PLUMBING_MARK = "[PLUMBING]"
"""The same, beside a name in a table or a plot."""
_MEANINGS = {
    "score": "unread judgements and missing answers count 0",
    "score_at_chance": "unread multiple-choice judgements count as a guess",
    "multiple_choice_at_chance": "the same, multiple choice alone",
    "parsed_only": "without what has an unread judgement",
    "as_original": "unread judgements dropped before the least is taken, as the original does",
    "win_rate": "unread judgements and missing answers count for the baseline",
    "discrete_win_rate": "wins and half of the ties",
    "length_controlled": "AlpacaEval 2's regression with its published items",
    "length_controlled_style": "LC-style: a regression over these answers alone, not the published figure's",
    "first_preferred": "how often the judge prefers what stands first",
    "position_bias": "the same, less a half",
    "rule_exact": "free-form, no judge: the extracted short answer is a known one",
    "rule_holds": "free-form, no judge: a known answer stands in the response",
    "rule_overlap": "free-form, no judge: words shared with the nearest known answer",
    "rule_choice": "multiple choice, no judge: the letter or text that rules find",
    "rule_choice_at_chance": "the same, where rules find nothing counted as a guess",
    "rule_unread": "multiple choice where rules find no option",
    "option_letter": "no reply: the option whose letter is the most probable",
    "option_letter_mass": "no reply: probability of all letters together",
    "option_text": "no reply: the option whose text is the most probable",
    "option_text_per_char": "the same, per character",
}


def shown(benchmark: str, figure: str, value: float | None) -> str:
    """A value as people read it: shares in per cent.

    Example:
        >>> shown("mixeval", "score", 0.317), shown("mt_bench_101", "score", 2.8), shown("mixeval", "score", None)
        ('31.7 %', '2.80', 'none')
    """
    if value is None:
        return "none"
    if is_share(benchmark, figure):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if figure.endswith("_chars") else f"{value:.2f}"


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, interval and meaning of every figure of an evaluation."""
    benchmark = str(found["benchmark"])
    made = []
    for name, figure in found["figures"].items():
        ends = [shown(benchmark, name, figure[end]) for end in ("low", "high")]
        interval = "" if figure["low"] is None else f"{ends[0]} to {ends[1]}"
        made.append((name, shown(benchmark, name, figure["value"]), interval, _MEANINGS.get(name, "")))
    return made


def summary(found: Mapping[str, Any]) -> str:
    """One line about what was counted."""
    counts, facts = found["counts"], found["facts"]
    lost = "".join(f", {number:,} {reason}" for reason, number in counts["unanswered"].items())
    failed = f"; {found['num_failed']:,} failed and are asked again by the same command" if found["num_failed"] else ""
    failed += f"; {found['num_waiting']:,} left out until then" if found["num_waiting"] else ""
    return (
        f"{counts['items']:,} items, {counts['answers']:,} answered ({counts['cut']:,} cut at the limit{lost}); "
        f"{counts['judgements']:,} judgements, {counts['unparsed']:,} unread{failed}; "
        + ", ".join(f"{name} {value}" for name, value in facts.items())
    )


def title(found: Mapping[str, Any]) -> str:
    """Benchmark, model and judge, and whether it is plumbing."""
    mark = f" [{PLUMBING}]" if found["is_plumbing"] else ""
    return f"{TITLES[str(found['benchmark'])]}: {found['model']}, judged by {found['judge']}{mark}"


def page(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Every benchmark of an evaluation, as Markdown."""
    lines = ["# Evaluation", ""]
    if any(found["is_plumbing"] for found in evaluations):
        lines += [f"**{PLUMBING}.**", ""]
    for found in evaluations:
        lines += [f"## {_cell(title(found))}", "", _cell(summary(found)), ""]
        lines += ["| figure | value | 95 % interval | what counts |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows(found)]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
