"""The embedded judge and trivial baselines on labelled answers: does it know more than an answer's length?

    python benchmarks/bench_judges.py LABELLED.parquet... --out benchmarks/results/NAME.md

Files are read as by `fineinstructions judge calibrate`. The baselines are what anybody would try first: longer is
better, more words of the instruction in the answer is better, and all answers are the same. Length and overlap are
continuous, so the first table shows them by their exact score; those of the subsets and kappa are by whole numbers.
"""

import argparse
import datetime
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fineinstructions.embedded.judge import EmbeddedJudge
from fineinstructions.inputs import list_inputs
from fineinstructions.pairs.calibrate import MAIN_FIGURES, Agreement, Figure, judge_rows, measure
from fineinstructions.pairs.calibration_page import value_cells
from fineinstructions.pairs.judge import Judge, Judged, pair_id
from fineinstructions.pairs.labelled import LabelledSet, read_labelled
from fineinstructions.records import Judgement, Rejection, to_json

_WORD = re.compile(r"\w+")
_TYPICAL_WORDS = 150
"""Words at which the length baseline is at 63 % of its way from 1 to 5."""


def length_share(instruction: str, answer: str) -> float:
    """0 for an empty answer, towards 1 for a long one."""
    del instruction
    return 1 - math.exp(-len(answer.split()) / _TYPICAL_WORDS)


def overlap_share(instruction: str, answer: str) -> float:
    """Share of the instruction's distinct words that the answer has too."""
    asked, given = (set(_WORD.findall(text.lower())) for text in (instruction, answer))
    return len(asked & given) / max(1, len(asked))


def same_share(instruction: str, answer: str) -> float:
    """The middle of the scale, whatever is said."""
    del instruction, answer
    return 0.5


@dataclass(frozen=True)
class Baseline:
    """A judge that puts one share, 0 to 1, on the scale from 1 to 5."""

    name: str
    share: Callable[[str, str], float]

    @property
    def model(self) -> str:
        """Name, as a JSON object."""
        return to_json({"name": self.name})

    def judge(self, items: Iterable[Judged]) -> Iterator[Judgement | Rejection]:
        """A judgement per item, with the unrounded score as the expected one."""
        for draft, _, _ in items:
            exact = 1 + 4 * self.share(draft.instruction, draft.answer)
            yield Judgement(pair_id(draft), math.floor(exact + 0.5), self.name, self.model, exact)


JUDGES: dict[str, Judge] = {
    "embedded": EmbeddedJudge(),
    "length": Baseline("length", length_share),
    "overlap": Baseline("overlap", overlap_share),
    "constant": Baseline("constant", same_share),
}


def cell(found: Agreement, figures: Sequence[Figure], name: str) -> str:
    """A figure with its interval: of the expected score where there is one."""
    by_name = {figure.name: figure for figure in figures}
    figure = by_name.get(f"{name} by expected score") or by_name.get(name)
    if figure is None:
        return ""
    value, interval, _ = value_cells(figure)
    ties = f", {found.num_ties:,} ties" if name == "accuracy" and figure.name == name else ""
    return f"{value} ({interval}{ties})" if interval else value


def table(found: dict[str, dict[str, Agreement]]) -> Iterator[str]:
    """One line per set and figure, one column per judge."""
    yield f"| set | rows | figure | {' | '.join(JUDGES)} |"
    yield "| --- | --- | --- |" + " --- |" * len(JUDGES)
    for name, judges in found.items():
        first = judges["embedded"]
        shown = [MAIN_FIGURES[first.layout]]
        shown += [f.name for f in first.figures if f.name == "quadratic kappa" or " answers with " in f.name]
        for figure in shown:
            cells = [cell(agreement, agreement.figures, figure) for agreement in judges.values()]
            yield f"| {name} | {first.num_judged:,} | {figure} | {' | '.join(cells)} |"


def subsets(judges: dict[str, Agreement]) -> Iterator[str]:
    """The main figure of every subset, by the scores as whole numbers."""
    yield f"| subset | rows | {' | '.join(JUDGES)} |"
    yield "| --- | --- |" + " --- |" * len(JUDGES)
    for lines in zip(*(agreement.subsets for agreement in judges.values()), strict=True):
        cells = [f"{value} ({interval})" if interval else value for value, interval, _ in map(value_cells, lines)]
        yield f"| {lines[0].name} | {lines[0].num_rows:,} | {' | '.join(cells)} |"


def histogram(judges: dict[str, Agreement]) -> str:
    """How the embedded judge's scores are spread."""
    return ", ".join(f"{score}: {number:,}" for score, number in judges["embedded"].histogram.items())


def measured(labelled: LabelledSet, seed: int) -> dict[str, Agreement]:
    """Every judge on one set."""
    return {name: measure(labelled, list(judge_rows(labelled, judge)), seed, 4) for name, judge in JUDGES.items()}


def main() -> None:
    """Judge all sets and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", help="labelled answers")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, left_out = {}, []
    for file in list_inputs(options.data, "data"):
        labelled = read_labelled(file, {}, seed=options.seed)
        found[labelled.name] = measured(labelled, options.seed)
        left_out += [f"{labelled.name}: {number:,} {reason}" for reason, number in labelled.left_out.items()]
    digest = json.loads(JUDGES["embedded"].model)["digest"]
    lines = [f"# Judges on labelled answers, {datetime.date.today()}", ""]
    lines += [
        f"`python benchmarks/bench_judges.py`, embedded judge {digest}, seed {options.seed}. In brackets: 95 % of"
    ]
    lines += ["1,000 bootstrap resamples of the instructions. Ties count half. Accuracy 0.5, AUC 0.5, Spearman 0 and"]
    lines += [f"kappa 0 are chance. Rows left out: {'; '.join(left_out) or 'none'}.", "", *table(found)]
    for name, judges in found.items():
        lines += ["", f"## {name}", "", f"Scores of the embedded judge: {histogram(judges)}."]
        lines += ["", *subsets(judges)] if judges["embedded"].subsets else []
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
