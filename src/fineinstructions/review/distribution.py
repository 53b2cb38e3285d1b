"""How the instructions of a run are spread, beside what real users ask: where they differ, and what would mend it.

In: instructions and queries. Out: shares by class with divergences, and proposed sampling weights. The decision to
question: the intervals are those of the sample (rows are drawn again), not of the choice of documents.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fineinstructions.review.wording import LENGTHS, SUBJECTS, TYPES, instruction_type, length_class, subjects
from fineinstructions.statistics import js_divergence, kl_divergence, shares

RESAMPLES = 1000
MIN_EXPECTED = 5
"""Real queries of a class below which it is not called under-represented. Ours."""
MAX_SOURCES = 20
DIVERGENCES = ("kl_generated_real", "kl_real_generated", "js")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One way of classing, over generated and real rows."""

    name: str
    classes: tuple[str, ...]
    generated: tuple[int, ...]
    real: tuple[int, ...]
    kl_generated_real: float
    """Bits by which generated rows surprise who expects real ones."""
    kl_real_generated: float
    js: float
    """0 for the same shares, 1 for shares that have nothing in common."""
    js_low: float
    js_high: float
    kl_generated_real_low: float
    kl_generated_real_high: float
    kl_real_generated_low: float
    kl_real_generated_high: float
    missing: tuple[str, ...]
    """Classes that have less than half of their real share, the largest real share first."""

    def share(self, counts: Sequence[int]) -> list[float]:
        """Counts as shares."""
        total = sum(counts) or 1
        return [count / total for count in counts]


@dataclass
class Tally:
    """Counts of some texts by every way of classing."""

    types: Counter[str]
    lengths: Counter[str]
    subjects: Counter[str]
    sources: Counter[str]
    slots: Counter[int]

    @classmethod
    def empty(cls) -> "Tally":
        """Nothing counted."""
        return cls(Counter(), Counter(), Counter(), Counter(), Counter())

    def add_text(self, text: str) -> None:
        """Class a text by its words."""
        self.types[instruction_type(text)] += 1
        self.lengths[length_class(text)] += 1
        self.subjects.update(subjects(text))


def compare(
    name: str, generated: Mapping[str, int], real: Mapping[str, int], seed: int, classes: Iterable[str] = ()
) -> Comparison:
    """Two sets of counts beside each other.

    Args:
        name: What is classed by.
        generated: Generated rows of each class.
        real: Real rows of each class.
        seed: Of the resamples.
        classes: Order of the classes; by default the most frequent real one first.
    """
    names = list(classes) or sorted({*generated, *real}, key=lambda c: (-real.get(c, 0), -generated.get(c, 0), c))
    ours, theirs = ([int(counts.get(c, 0)) for c in names] for counts in (generated, real))
    p, q = shares(ours), shares(theirs)
    intervals = _intervals(ours, theirs, seed)
    return Comparison(
        name=name,
        classes=tuple(names),
        generated=tuple(ours),
        real=tuple(theirs),
        kl_generated_real=float(kl_divergence(p, q)),
        kl_real_generated=float(kl_divergence(q, p)),
        js=float(js_divergence(p, q)),
        **intervals,
        missing=_missing(names, ours, theirs),
    )


def _intervals(ours: Sequence[int], theirs: Sequence[int], seed: int) -> dict[str, float]:
    """Percentile intervals of all divergences by the names of their ends; rows of both sides are drawn again."""
    if not (sum(ours) and sum(theirs)):
        return {f"{name}_{end}": math.nan for name in DIVERGENCES for end in ("low", "high")}
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(sum(c), np.array(c) / sum(c), RESAMPLES).astype(np.float64) for c in (ours, theirs)]
    p, q = shares(drawn[0]), shares(drawn[1])
    values = (kl_divergence(p, q), kl_divergence(q, p), js_divergence(p, q))
    ends = {name: np.quantile(of_name, [0.025, 0.975]) for name, of_name in zip(DIVERGENCES, values, strict=True)}
    return {f"{name}_{end}": float(ends[name][at]) for name in DIVERGENCES for at, end in enumerate(("low", "high"))}


def _missing(names: Sequence[str], ours: Sequence[int], theirs: Sequence[int]) -> tuple[str, ...]:
    total_ours, total_theirs = sum(ours) or 1, sum(theirs) or 1
    rare = [
        (theirs[i] / total_theirs, name)
        for i, name in enumerate(names)
        if theirs[i] >= MIN_EXPECTED and ours[i] / total_ours < theirs[i] / total_theirs / 2
    ]
    return tuple(name for _, name in sorted(rare, key=lambda item: (-item[0], item[1])))


def comparisons(generated: Tally, real: Tally, seed: int) -> list[Comparison]:
    """All ways of classing."""
    most = max((*generated.slots, *real.slots), default=0)
    slots = [str(n) if n < 10 else "10+" for n in range(min(most, 10) + 1)]
    return [
        compare("type", generated.types, real.types, seed, TYPES),
        compare("words", generated.lengths, real.lengths, seed, LENGTHS),
        compare("subject", generated.subjects, real.subjects, seed, [*SUBJECTS, "none of them"]),
        compare("slots", _by_slots(generated.slots), _by_slots(real.slots), seed, slots),
        compare("source of the query", *_frequent(generated.sources, real.sources), seed),
    ]


def _by_slots(counts: Counter[int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for number, count in counts.items():
        found[str(number) if number < 10 else "10+"] += count
    return dict(found)


def _frequent(ours: Counter[str], theirs: Counter[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The sources that are frequent on either side; the others together."""
    both = ours + theirs
    kept = {name for name, _ in sorted(both.items(), key=lambda item: (-item[1], item[0]))[:MAX_SOURCES]}

    def grouped(counts: Counter[str]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for name, count in counts.items():
            found[(name or "no source") if name in kept else "others"] += count
        return dict(found)

    return grouped(ours), grouped(theirs)


def proposed_target(now: Sequence[float], generated: Counter[int], real: Counter[int]) -> list[float]:
    """Slot shares to ask for, so that the pairs come nearer to the real ones.

    Args:
        now: ``sample.target`` of the run.
        generated: Pairs by slots.
        real: Real queries by the slots of their templates.

    Returns:
        Shares for ``sample.target``: what was asked for, times real by generated shares, between a quarter and four
        times it, so that one step never overshoots far; a count that occurs on neither side keeps its share.
    """
    size = len(now)
    ours, theirs = (np.zeros(size), np.zeros(size))
    for counts, into in ((generated, ours), (real, theirs)):
        for number, count in counts.items():
            into[min(number, size - 1)] += count
    asked = np.asarray(now, np.float64) / sum(now)
    factors = np.where(ours + theirs > 0, np.clip(shares(theirs) / shares(ours), 0.25, 4.0), 1.0)
    wanted = asked * factors
    return [round(float(share), 4) for share in wanted / wanted.sum()]


def as_plain(found: Comparison) -> dict[str, Any]:
    """A comparison for JSON."""
    rows = zip(found.classes, found.generated, found.real, strict=True)
    names = [f"{name}{end}" for name in DIVERGENCES for end in ("", "_low", "_high")]
    figures = {name: _plain(getattr(found, name)) for name in names}
    return {
        "name": found.name,
        "classes": [{"class": c, "generated": g, "real": r} for c, g, r in rows],
        **figures,
        "under_represented": list(found.missing),
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
