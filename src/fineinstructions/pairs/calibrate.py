"""Labelled answers -> a judge's verdicts -> how far the judge and the labels agree.

In: rows that people (or a better judge) have labelled, and the judge. Out: a `JudgedRow` each, and from all of them the
`Agreement`: figures with intervals, how often the judge had nothing to say, and how its scores are spread.

The decision to question: the judge scores one answer at a time, as it does in a run, also where a label compares two.
Which of two it prefers is then a comparison of two scores, and a tie counts half.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.judging import SCORES
from fineinstructions.pairs.judge import Judge, Judged, judge
from fineinstructions.pairs.labelled import LabelledRow, LabelledSet, Layout
from fineinstructions.records import Document, ExpandedDraft, Pair, Rejection, Template, content_id
from fineinstructions.statistics import Rows, auc, bootstrap_interval, numbered, quadratic_kappa, spearman

MAIN_FIGURES: dict[Layout, str] = {"pairwise": "accuracy", "scores": "spearman", "correctness": "auc"}
MAX_SUBSETS = 30
_TEMPLATE = Template("t-labelled", "", "", 0, ())


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A labelled row with what became of its answers."""

    row: LabelledRow
    outcomes: tuple[Pair | Rejection, ...]

    @property
    def is_judged(self) -> bool:
        """Whether every answer has a score."""
        return all(isinstance(outcome, Pair) for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of agreement."""

    name: str
    value: float | None
    """None where it has no meaning, for example where the judge gives one score only."""
    low: float | None
    """Lower end of the 95 % bootstrap interval over instructions."""
    high: float | None
    num_rows: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a judge agrees with the labels of one set."""

    name: str
    layout: Layout
    num_rows: int
    """Labelled rows that were judged or ought to have been."""
    num_judged: int
    """Of these, rows whose answers all got a score; the figures are about them."""
    num_answers: int
    unscored: dict[str, int]
    """Answers without a score by reason, such as ``unparseable``."""
    left_out: dict[str, int]
    columns: dict[str, str]
    histogram: dict[int, int]
    """Answers by score."""
    num_ties: int
    """Pairwise: rows whose two answers got the same score, each counted half."""
    figures: tuple[Figure, ...]
    subsets: tuple[Figure, ...]
    """The main figure for every subset that the file names."""


def judge_rows(labelled: LabelledSet, model: Judge) -> Iterator[JudgedRow]:
    """Put every answer of a set through the judge, by the operator that runs use.

    Args:
        labelled: The rows.
        model: The judge.

    Yields:
        Every row with one pair or rejection per answer, in order.

    Raises:
        BackendError: If the model as a whole gave up.
    """
    outcomes = judge((item for row in labelled.rows for item in _items(labelled.name, row)), model)
    for row in labelled.rows:
        yield JudgedRow(row, tuple(next(outcomes) for _ in row.answers))


def _items(name: str, row: LabelledRow) -> Iterator[Judged]:
    for place, answer in enumerate(row.answers):
        document = Document(content_id("d", name, row.row_id, str(place)), row.document)
        draft = ExpandedDraft(
            document_id=document.document_id,
            template_id=_TEMPLATE.template_id,
            chunk=0,
            cosine=0.0,
            instruction=row.instruction,
            answer=answer,
            slots=(),
            excerpts=(),
            excerpt_ratio=0.0,
            coverage_ratio=0.0,
        )
        yield draft, _TEMPLATE, document


def measure(labelled: LabelledSet, judged: Sequence[JudgedRow], seed: int, min_score: int) -> Agreement:
    """Figures of agreement between a judge and the labels of a set.

    Args:
        labelled: The set.
        judged: Its rows with their outcomes.
        seed: Decides the resamples of the intervals.
        min_score: Lowest score that a run keeps, for the shares of right and wrong answers that it would keep.

    Source:
        Ours.
    """
    good = [row for row in judged if row.is_judged]
    outcomes = [outcome for row in judged for outcome in row.outcomes]
    scores = Counter(outcome.judge_score for outcome in outcomes if isinstance(outcome, Pair))
    measured = _Measured(good, int(content_id("s", str(seed), "calibrate", labelled.name)[2:], 16))
    main = MAIN_FIGURES[labelled.layout]
    figures = _FIGURES[labelled.layout](measured, min_score)
    return Agreement(
        name=labelled.name,
        layout=labelled.layout,
        num_rows=len(judged),
        num_judged=len(good),
        num_answers=len(outcomes),
        unscored=dict(sorted(Counter(o.reason for o in outcomes if isinstance(o, Rejection)).items())),
        left_out=labelled.left_out,
        columns=labelled.columns,
        histogram={score: scores[score] for score in SCORES},
        num_ties=int(measured.ties().sum()) if labelled.layout == "pairwise" else 0,
        figures=tuple(figures),
        subsets=tuple(_by_subset(measured, labelled.layout, main, min_score)),
    )


class _Measured:
    """Rows with a score for every answer, as arrays of one row (R) or of rows and answers (R, A)."""

    def __init__(self, judged: Sequence[JudgedRow], seed: int) -> None:
        self.judged, self.seed = judged, seed
        self.group_of = numbered(row.row.instruction for row in judged)
        pairs = [[o for o in row.outcomes if isinstance(o, Pair)] for row in judged]
        self.labels_r = np.array([row.row.label for row in judged], np.float64)
        self.scores_ra = np.array([[float(pair.judge_score) for pair in row] for row in pairs], np.float64)
        expected = [[pair.judge_expected_score for pair in row] for row in pairs]
        self.expected_ra: NDArray[np.float64] | None = None
        if expected and all(value is not None for row in expected for value in row):
            self.expected_ra = np.array(expected, np.float64)

    def ties(self) -> NDArray[np.bool_]:
        """Rows whose two answers got the same score."""
        if not self.judged:
            return np.empty(0, np.bool_)
        return np.asarray(self.scores_ra[:, 0] == self.scores_ra[:, 1])

    def figure(self, name: str, of: Callable[[Rows], float]) -> Figure:
        """A figure over all rows, with its interval; rows with one instruction are drawn together."""
        number = len(self.judged)
        value = of(np.arange(number)) if number else math.nan
        if math.isnan(value):
            return Figure(name, None, None, None, number)
        interval = bootstrap_interval(of, self.group_of, self.seed)
        low, high = interval or (None, None)
        return Figure(name, value, low, high, number)

    def by_both_scores(self, name: str, of: Callable[[NDArray[np.float64], Rows], float]) -> Iterator[Figure]:
        """A figure of the scores, and the same of the expected scores where every answer has one."""
        yield self.figure(name, lambda rows: of(self.scores_ra, rows))
        expected = self.expected_ra
        if expected is not None:
            yield self.figure(f"{name} by expected score", lambda rows: of(expected, rows))


def _pairwise(measured: _Measured, min_score: int) -> Iterator[Figure]:
    del min_score
    labels = measured.labels_r

    def first_preferred(scores: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
        shown: NDArray[np.float64] = (np.sign(scores[rows, 0] - scores[rows, 1]) + 1) / 2
        return shown

    def accuracy(scores: NDArray[np.float64], rows: Rows) -> float:
        return float((1 - np.abs(first_preferred(scores, rows) - labels[rows])).mean())

    def position_bias(rows: Rows) -> float:
        return float(first_preferred(measured.scores_ra, rows).mean() - labels[rows].mean())

    yield from measured.by_both_scores("accuracy", accuracy)
    yield measured.figure("first preferred", lambda rows: float(first_preferred(measured.scores_ra, rows).mean()))
    yield measured.figure("first labelled better", lambda rows: float(labels[rows].mean()))
    yield measured.figure("position bias", position_bias)


def _scores(measured: _Measured, min_score: int) -> Iterator[Figure]:
    del min_score
    labels = measured.labels_r
    yield from measured.by_both_scores("spearman", lambda scores, rows: spearman(scores[rows, 0], labels[rows]))
    if len(labels) and labels.min() >= SCORES[0] and labels.max() <= SCORES[-1]:
        rounded = np.floor(labels + 0.5).astype(np.int64)
        ours = measured.scores_ra[:, 0].astype(np.int64)
        yield measured.figure(
            "quadratic kappa", lambda rows: quadratic_kappa(ours[rows].tolist(), rounded[rows].tolist(), SCORES)
        )


def _correctness(measured: _Measured, min_score: int) -> Iterator[Figure]:
    is_right = measured.labels_r == 1

    def kept(wanted: bool) -> Callable[[Rows], float]:
        def share(rows: Rows) -> float:
            mine = rows[is_right[rows] == wanted]
            return float((measured.scores_ra[mine, 0] >= min_score).mean()) if len(mine) else math.nan

        return share

    yield from measured.by_both_scores("auc", lambda scores, rows: auc(scores[rows, 0], is_right[rows]))
    yield measured.figure(f"right answers with {min_score} or more", kept(True))
    yield measured.figure(f"wrong answers with {min_score} or more", kept(False))
    yield measured.figure("labelled right", lambda rows: float(is_right[rows].mean()))


_FIGURES: dict[Layout, Callable[[_Measured, int], Iterator[Figure]]] = {
    "pairwise": _pairwise,
    "scores": _scores,
    "correctness": _correctness,
}


def _by_subset(measured: _Measured, layout: Layout, main: str, min_score: int) -> Iterator[Figure]:
    """The main figure of every subset, in the order of their names; nothing for one subset or very many."""
    names = sorted({row.row.subset for row in measured.judged})
    if not 1 < len(names) <= MAX_SUBSETS:
        return
    for name in names:
        mine = _Measured([row for row in measured.judged if row.row.subset == name], measured.seed)
        figure = next(found for found in _FIGURES[layout](mine, min_score) if found.name == main)
        yield Figure(name, figure.value, figure.low, figure.high, figure.num_rows)
