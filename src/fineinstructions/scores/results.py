"""Ledgers of scores to figures with intervals: every arm by itself, and against the baseline.

In: what each training scored. Out: one `Figure` per arm, model and measure. The decision to question: losses are told
as bits per byte, a ratio of sums, so that tokenizers and long answers compare; a mean over items of losses per token
would be that of the short answers.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.scores.forms import NEUTRAL
from fineinstructions.scores.ledger import ANSWER, TEXT, WRITTEN, ScoreRow
from fineinstructions.statistics import ratio_interval

BITS, NATS, ROUGE, SECONDS = "bits_per_byte", "nats_per_token", "rouge_l", "seconds_per_answer"
BENCHMARK = "benchmark_score"
NEUTRAL_FORMS = "neutral"
"""All neutral forms together."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What identifies one training of an experiment."""

    arm: str
    model: str
    seed: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of one arm and model, over items and seeds."""

    arm: str
    model: str
    set_name: str
    form: str
    measure: str
    value: float
    low: float
    high: float
    against: str
    """The arm that it is compared with; empty for the baseline itself."""
    against_model: str
    """That arm's model: the same, or the next size up."""
    difference: float | None
    """This one less that one, over the same items and seeds."""
    difference_low: float | None
    difference_high: float | None
    num_items: int
    num_seeds: int


@dataclass(frozen=True, slots=True)
class Measure:
    """What a figure is a figure of."""

    set_name: str
    form: str
    name: str


Sums = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Numerators and denominators, shape (S, I)."""
ByItem = dict[str, tuple[float, float]]
"""Numerator and denominator of every item."""


def figures(
    scores: Mapping[Trained, Sequence[ScoreRow]],
    pairs: Iterable[tuple[tuple[str, str], tuple[str, str] | None]],
    resamples: int,
    seed: int = 0,
    more: Mapping[Trained, Mapping[Measure, ByItem]] | None = None,
) -> Iterator[Figure]:
    """Figures of arms and models.

    Args:
        scores: Ledgers of whole scorings.
        pairs: Arm and model, and arm and model that they are compared with.
        resamples: Of the bootstrap.
        seed: Decides what it draws.
        more: Further measures, of trainings that have them.

    Yields:
        Figures of what has scores; a difference where both sides share at least one seed and all items.
    """
    sums = {trained: by_measure(rows) | dict((more or {}).get(trained, {})) for trained, rows in scores.items()}
    for ours, theirs in pairs:
        mine = _of(sums, ours)
        other = _of(sums, theirs) if theirs is not None else {}
        for measure in _measures(mine.values()):
            with_it = [one for one, known in mine.items() if measure in known]
            found = _matrix(mine, measure, with_it)
            low, high = ratio_interval(*found, seed, resamples=resamples)
            both = sorted(s for s in with_it if measure in other.get(s, {})) if measure.name != SECONDS else []
            less, less_low, less_high = (
                _difference(mine, other, measure, both, resamples, seed) if both else (None, None, None)
            )
            against = theirs or ("", "")
            yield Figure(
                arm=ours[0],
                model=ours[1],
                set_name=measure.set_name,
                form=measure.form,
                measure=measure.name,
                value=_ratio(found),
                low=low,
                high=high,
                against=against[0],
                against_model=against[1],
                difference=less,
                difference_low=less_low,
                difference_high=less_high,
                num_items=found[0].shape[1],
                num_seeds=len(with_it),
            )


def _of(sums: Mapping[Trained, dict[Measure, ByItem]], whose: tuple[str, str]) -> dict[int, dict[Measure, ByItem]]:
    """Measures of an arm and model by seed."""
    return {t.seed: found for t, found in sorted(sums.items(), key=_seed) if (t.arm, t.model) == whose}


def _seed(entry: tuple[Trained, object]) -> int:
    return entry[0].seed


def _measures(by_seed: Iterable[dict[Measure, ByItem]]) -> list[Measure]:
    return list(dict.fromkeys(measure for found in by_seed for measure in found))


def _matrix(mine: Mapping[int, dict[Measure, ByItem]], measure: Measure, seeds: Iterable[int]) -> Sums:
    rows = [mine[seed][measure] for seed in seeds]
    items = sorted(rows[0])
    values = np.array([[row[item] for item in items] for row in rows], np.float64)
    return values[:, :, 0], values[:, :, 1]


def _difference(
    mine: Mapping[int, dict[Measure, ByItem]],
    other: Mapping[int, dict[Measure, ByItem]],
    measure: Measure,
    seeds: Sequence[int],
    resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    ours, theirs = _matrix(mine, measure, seeds), _matrix(other, measure, seeds)
    low, high = ratio_interval(*ours, seed, less_tops=theirs[0], less_bottoms=theirs[1], resamples=resamples)
    return _ratio(ours) - _ratio(theirs), low, high


def _ratio(sums: Sums) -> float:
    return float(sums[0].sum() / sums[1].sum())


def by_measure(rows: Iterable[ScoreRow]) -> dict[Measure, ByItem]:
    """Numerator and denominator of every item, by measure."""
    found: dict[Measure, ByItem] = {}

    def add(set_name: str, form: str, name: str, item: str, top: float, bottom: float) -> None:
        kept = found.setdefault(Measure(set_name, form, name), {})
        before = kept.get(item, (0.0, 0.0))
        kept[item] = (before[0] + top, before[1] + bottom)

    for row in rows:
        if row.kind in (ANSWER, TEXT):
            forms = [row.form, *([NEUTRAL_FORMS] if row.form in NEUTRAL else [])]
            for form in forms:
                add(row.set_name, form, BITS, row.item_id, row.nats / math.log(2), row.num_bytes)
                add(row.set_name, form, NATS, row.item_id, row.nats, row.num_tokens)
        elif row.kind == WRITTEN:
            add(row.set_name, row.form, ROUGE, row.item_id, row.rouge_l, 1)
            add(row.set_name, row.form, SECONDS, row.item_id, row.seconds, 1)
    return found
