"""The agreement of a judge with labels as a person reads it: cells for a terminal's tables, and a page of Markdown.

In: `Agreement` objects. Out: text. What a figure means stands beside it, because a position bias or an AUC is read
rarely.
"""

from collections.abc import Mapping, Sequence

from fineinstructions.errors import counted
from fineinstructions.markdown import Markdown, code, inert, table
from fineinstructions.pairs.calibrate import MAIN_FIGURES, Agreement, Figure

MEANINGS = {
    "accuracy": "share of rows in which the judge gives the better answer the higher score; ties count half",
    "first preferred": "share of rows in which the judge prefers the answer that stands first; ties count half",
    "first labelled better": "share of rows in which the label prefers the answer that stands first",
    "position bias": "the difference of those two. The judge sees one answer at a time, so the order cannot sway it: "
    "a difference beyond chance says that what it likes stands first more often than what the labels like",
    "spearman": "rank correlation with the labelled scores",
    "quadratic kappa": "agreement with the labelled scores beyond chance, far misses weighing more",
    "auc": "chance that a right answer scores higher than a wrong one; 0.5 is no better than a coin",
    "labelled right": "share of right answers among those that were judged",
}


def value_cells(figure: Figure) -> tuple[str, str, str]:
    """Value, interval and number of rows of a figure."""
    value = "none" if figure.value is None else f"{figure.value:.3f}"
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return value, interval, f"{figure.num_rows:,}"


def meaning(name: str) -> str:
    """What a figure says, in words; empty where its name says it."""
    return MEANINGS.get(name.removesuffix(" by expected score"), "")


def summary(found: Agreement) -> str:
    """What was judged, in one line."""
    parts = [
        f"{found.num_judged:,} of {counted(found.num_rows, 'row')} judged ({counted(found.num_answers, 'answer')})"
    ]
    if found.layout == "pairwise":
        parts.append(counted(found.num_ties, "tie"))
    parts.append(f"{counted(sum(found.unscored.values()), 'answer')} without a score{_counts(found.unscored)}")
    if found.left_out:
        parts.append(f"{counted(sum(found.left_out.values()), 'row')} left out{_counts(found.left_out)}")
    return ", ".join(parts)


def _counts(reasons: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{reason} {number:,}' for reason, number in reasons.items())})" if reasons else ""


def page(judge_model: str, sets: Sequence[Agreement]) -> str:
    """All sets as Markdown.

    Args:
        judge_model: The judge, as a JSON object.
        sets: Its agreement with every set.
    """
    lines = ["# Judge calibration", "", f"Judge: {code(judge_model)}", ""]
    lines += ["Intervals are 95 % of 1,000 bootstrap resamples of the instructions; every figure is about judged rows."]
    for found in sets:
        lines += ["", f"## {inert(found.name)} ({found.layout})", "", f"{summary(found)}.", ""]
        figures = ((f.name, *value_cells(f), Markdown(meaning(f.name))) for f in found.figures)
        lines += table(("figure", "value", "95 % interval", "rows", "meaning"), figures)
        lines += ["", *table(("score", *map(str, found.histogram)), [("answers", *found.histogram.values())])]
        if found.subsets:
            subsets = ((f.name or "(none)", *value_cells(f)) for f in found.subsets)
            lines += ["", *table(("subset", MAIN_FIGURES[found.layout], "95 % interval", "rows"), subsets)]
    return "\n".join(lines) + "\n"
