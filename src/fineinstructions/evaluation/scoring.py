"""Scores of all items of a benchmark -> its figures with intervals, and the same as plain JSON.

In: `ItemScore`s. Out: for each figure its value and a 95 % interval of a bootstrap over groups of items. The decision
to question: a benchmark's figures are functions of the item scores alone, so that two evaluations can be compared, and
another interval made, from the files that they wrote.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.alpaca_eval import AlpacaEval
from fineinstructions.evaluation.items import Answer, ItemScore, Judgement
from fineinstructions.evaluation.mixeval import MixEval
from fineinstructions.evaluation.mt_bench_101 import MtBench101, dialogues
from fineinstructions.records import as_dict
from fineinstructions.statistics import interval_of, resampled_rows

RESAMPLES = 1000
Figures = Callable[[Sequence[ItemScore]], dict[str, float]]
FIGURES: Mapping[str, Figures] = {
    "mixeval": MixEval.figures,
    "mixeval_hard": MixEval.figures,
    "mt_bench_101": MtBench101.figures,
    "alpaca_eval": AlpacaEval.figures,
}
"""Every benchmark by its name, with what makes figures of its item scores; the first figure is the main one."""
TITLES: Mapping[str, str] = {
    "mixeval": "MixEval",
    "mixeval_hard": "MixEval-Hard",
    "mt_bench_101": "MT-Bench-101",
    "alpaca_eval": "AlpacaEval 2",
}
_COUNTS = frozenset({"model_chars", "baseline_chars"})


class Figure(NamedTuple):
    """One figure of a benchmark."""

    value: float | None
    """None where it has no meaning, such as the mean over no items."""
    low: float | None
    """Lower end of the 95 % interval; None where there is none."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of what."""

    items: int
    groups: int
    answers: int
    """Items that the model answered."""
    cut: int
    """Answers that are as long as allowed."""
    unanswered: dict[str, int]
    """Items without an answer by reason; they are worth nothing."""
    judgements: int
    unparsed: int
    """Judgements whose reply could not be read, after all re-asks."""


def is_share(benchmark: str, figure: str) -> bool:
    """Whether a figure is a share, shown in per cent; ratings and lengths are not."""
    return benchmark != "mt_bench_101" and figure not in _COUNTS


def grouped(benchmark: str, scores: Sequence[ItemScore]) -> list[ItemScore]:
    """Scores of what is drawn by the bootstrap and compared: dialogues in MT-Bench-101, items elsewhere."""
    return dialogues(scores) if benchmark == "mt_bench_101" else list(scores)


def figures_of(benchmark: str, scores: Sequence[ItemScore], seed: int) -> dict[str, Figure]:
    """All figures of a benchmark.

    Args:
        benchmark: Its name.
        scores: Of its items.
        seed: Decides the resamples of the intervals.
    """
    of, whole = FIGURES[benchmark], grouped(benchmark, scores)
    drawn: list[dict[str, float]] = []
    if len(whole) > 1:
        drawn = [of([whole[row] for row in rows]) for rows in resampled_rows(range(len(whole)), seed, RESAMPLES)]
    found: dict[str, Figure] = {}
    for name, value in of(whole).items():
        interval = interval_of([resample.get(name, math.nan) for resample in drawn])
        found[name] = Figure(None, None, None) if math.isnan(value) else Figure(value, *(interval or (None, None)))
    return found


def count(
    answers: Mapping[str, Answer], judgements: Mapping[str, Mapping[str, Judgement]], scores: Sequence[ItemScore]
) -> Counts:
    """Count answers and judgements of the items that have a score."""
    known = [answers[score.item_id] for score in scores]
    said = [j for score in scores for j in judgements.get(score.item_id, {}).values()]
    reasons = Counter(answer.reason for answer in known if answer.reason)
    return Counts(
        items=len(scores),
        groups=len({score.group for score in scores}),
        answers=len(known) - reasons.total(),
        cut=sum(answer.is_cut for answer in known),
        unanswered=dict(sorted(reasons.items())),
        judgements=len(said),
        unparsed=sum(judgement.reading is None for judgement in said),
    )


def score_lines(scores: Iterable[ItemScore]) -> str:
    """Item scores as JSON lines."""
    return "".join(f"{json.dumps({**as_dict(s), 'facts': dict(s.facts)}, ensure_ascii=False)}\n" for s in scores)


def read_scores(path: Path) -> list[ItemScore]:
    """The item scores that an evaluation wrote.

    Raises:
        ConfigError: If the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [ItemScore(**json.loads(line)) for line in lines if line]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); run `fineinstructions eval` for it again") from None


def plain_figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as plain JSON values."""
    return {name: figure._asdict() for name, figure in figures.items()}
