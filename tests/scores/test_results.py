"""Figures of an experiment: what the bootstrap keeps to, and what the tables tell."""

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fineinstructions.scores.ledger import ANSWER, TEXT, WRITTEN, ScoreRow
from fineinstructions.scores.results import BENCHMARK, BITS, NEUTRAL_FORMS, ROUGE, Measure, Trained, figures
from fineinstructions.scores.rouge import rouge_l
from fineinstructions.scores.table import ArmRow, csv_text, json_text, markdown, training_curves
from fineinstructions.statistics import ratio_interval

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12))


@st.composite
def sums(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    values = st.floats(0.5, 100, allow_nan=False)
    first, second, bottoms = (draw(arrays(np.float64, shape, elements=values)) for _ in range(3))
    return first, second, bottoms


@given(sums())
def test_intervals_lie_among_the_items_and_hold_the_ratio_of_the_same_items(
    given_sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    tops, _, bottoms = given_sums
    low, high = ratio_interval(tops, bottoms, 1, resamples=50)
    each = tops / bottoms
    assert each.min() * (1 - 1e-9) <= low <= high <= each.max() * (1 + 1e-9)
    assert ratio_interval(bottoms * 2.5, bottoms, 1, resamples=20) == pytest.approx((2.5, 2.5))
    assert (low, high) == ratio_interval(tops, bottoms, 1, resamples=50)


@given(sums())
def test_differences_are_paired_and_change_sign_when_sides_are_swapped(
    given_sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    tops, other, bottoms = given_sums
    low, high = ratio_interval(tops, bottoms, 3, less_tops=other, less_bottoms=bottoms, resamples=40)
    back = ratio_interval(other, bottoms, 3, less_tops=tops, less_bottoms=bottoms, resamples=40)
    assert back == pytest.approx((-high, -low))
    assert ratio_interval(tops, bottoms, 3, less_tops=tops, less_bottoms=bottoms, resamples=9) == (0.0, 0.0)
    # what is harder by the same amount for both sides, item by item, does not widen a paired interval
    shifted = ratio_interval(tops + bottoms, bottoms, 3, less_tops=tops, less_bottoms=bottoms, resamples=40)
    assert shifted == pytest.approx((1.0, 1.0))


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw, covered = np.random.default_rng(5), 0
    for trial in range(60):
        tops = 2.0 + draw.normal(size=(1, 80)) * 0.5
        low, high = ratio_interval(tops, np.ones((1, 80)), trial, resamples=200)
        covered += low <= 2.0 <= high
    assert 48 <= covered <= 60


def test_seeds_that_disagree_widen_the_interval() -> None:
    same, apart = np.full((4, 50), 2.0), np.repeat([[1.0], [2.0], [2.0], [3.0]], 50, axis=1)
    assert ratio_interval(same, np.ones((4, 50)), 0) == (2.0, 2.0)
    low, high = ratio_interval(apart, np.ones((4, 50)), 0)
    assert low < 1.6 < 2.4 < high


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        ratio_interval(np.ones((1, 2)), np.ones((2, 1)), 0)
    with pytest.raises(ValueError, match="shape"):
        ratio_interval(np.ones((0, 0)), np.ones((0, 0)), 0)


@given(st.text(max_size=60), st.text(max_size=60))
def test_rouge_is_symmetric_and_between_0_and_1(first: str, second: str) -> None:
    assert rouge_l(first, second) == rouge_l(second, first)
    assert 0 <= rouge_l(first, second) <= 1
    assert rouge_l(first, first) in (0.0, 1.0)


def test_rouge_by_hand() -> None:
    assert rouge_l("police killed the gunman", "the gunman police killed") == 0.5
    assert rouge_l("a b c d e f", "A, C; F!") == pytest.approx(2 * 3 / 9)


def ledger(loss: float) -> list[ScoreRow]:
    rows = [
        ScoreRow(ANSWER, "qa", form, f"q{n}", nats=loss * 10 * math.log(2), num_tokens=5, num_bytes=10)
        for form in ("lines", "speakers", "reported", "pair")
        for n in range(4)
    ]
    rows.append(ScoreRow(TEXT, "raw", "", "t0", nats=loss, num_tokens=4, num_bytes=8))
    return [*rows, ScoreRow(WRITTEN, "qa", "lines", "q0", num_tokens=2, rouge_l=0.25, seconds=0.5)]


def test_figures_and_tables_tell_what_the_ledgers_hold() -> None:
    losses = {("standard", 1): 2.0, ("standard", 2): 2.2, ("pairs", 1): 1.5, ("pairs", 2): 1.7}
    scores = {Trained(arm, "5m", seed): ledger(loss) for (arm, seed), loss in losses.items()}
    found = list(figures(scores, [(("standard", "5m"), None), (("pairs", "5m"), ("standard", "5m"))], resamples=50))
    (neutral,) = [f for f in found if (f.arm, f.measure, f.form) == ("pairs", BITS, NEUTRAL_FORMS)]
    assert neutral.value == pytest.approx(1.6)
    assert (neutral.num_items, neutral.num_seeds, neutral.against) == (4, 2, "standard")
    assert (neutral.low, neutral.high) == pytest.approx((1.5, 1.7))
    assert (neutral.difference, neutral.difference_low, neutral.difference_high) == pytest.approx((-0.5, -0.5, -0.5))
    (rouge,) = [f for f in found if f.arm == "standard" and f.measure == ROUGE]
    assert (rouge.value, rouge.difference) == (0.25, None)
    arms = [ArmRow(arm, "5m", (1, 2), 100, 90, 1.1, 7, 5_000_000, 3e15, 0.5) for arm in ("standard", "pairs")]
    page = markdown("small", arms, found, ["pairs.5m.3"])
    assert "Not done yet: pairs.5m.3." in page
    assert "| pairs | 5m | 1, 2 | 100 | 90 | 1.1 | 7 | 5,000,000 | 3e+15 | 0.5 |" in page
    assert "-0.500 (-0.500 to -0.500)" in page
    assert len(list(csv.DictReader(io.StringIO(csv_text(found))))) == len(found)
    plain = json.loads(json_text("small", arms, found, []))
    (told,) = [o for o in plain["per_parameter_and_flop"] if o["arm"] == "pairs" and o["measure"] == ROUGE]
    assert told["per_million_parameters"] == 0.05
    assert told["per_exaflop"] == pytest.approx(0.25 / 0.003)


def test_costs_tell_a_figure_once_however_many_it_is_compared_with() -> None:
    scores = {Trained(arm, model, 1): ledger(2) for arm in ("standard", "pairs") for model in ("5m", "9m")}
    ours, same, next_size = ("pairs", "5m"), ("standard", "5m"), ("standard", "9m")
    found = list(figures(scores, [(same, None), (ours, same), (ours, next_size)], resamples=5))
    assert {(f.against, f.against_model) for f in found if f.arm == "pairs"} == {("standard", "5m"), ("standard", "9m")}
    arms = [ArmRow(arm, "5m", (1,), 100, 90, 1.0, 7, 5_000_000, 3e15, 0.5) for arm in ("standard", "pairs")]
    told = json.loads(json_text("small", arms, found, []))["per_parameter_and_flop"]
    keys = [(one["arm"], one["model"], one["set_name"], one["form"], one["measure"]) for one in told]
    assert len(keys) == len(set(keys)) == len({k for k in keys if k[0] == "pairs"}) * 2


def test_sizes_stand_side_by_side() -> None:
    """An arm and one of the next size, with the parameters and the seconds of both; scores over what they cost."""
    losses = {("standard", "5m"): 2.0, ("pairs", "5m"): 1.5, ("standard", "9m"): 1.75, ("pairs", "9m"): 1.25}
    scores = {Trained(arm, model, 1): ledger(loss) for (arm, model), loss in losses.items()}
    next_size = [((a, "5m"), (b, "9m")) for a in ("standard", "pairs") for b in ("standard", "pairs")]
    same = [(("standard", m), None) for m in ("5m", "9m")] + [(("pairs", m), ("standard", m)) for m in ("5m", "9m")]
    more = {t: {Measure("MixEval", "", BENCHMARK): {"m1": (0.5, 1.0)}} for t in scores}
    found = list(figures(scores, [*same, *next_size], resamples=5, more=more))
    costs = {"5m": (5_000_000, 0.5), "9m": (9_000_000, 0.8)}
    arms = [ArmRow(a, m, (1,), 100, 90, 1.0, 7, costs[m][0], 3e15, costs[m][1]) for a, m in losses]
    page = markdown("sizes", arms, found, [])
    bits, _, rest = page.partition("## ROUGE-L")
    assert "less that of a model of the next size" in bits
    line = next(row for row in bits.splitlines() if row.startswith("| pairs | 5m | standard | 9m |"))
    assert line.startswith("| pairs | 5m | standard | 9m | 5,000,000 | 9,000,000 | 0.5 | 0.8 |")
    assert "-0.250" in line
    assert sum("| 5m | " in row and "| 9m | 5,000,000 |" in row for row in bits.splitlines()) == 4
    costs_part = rest.partition("## Scores beside their costs")[2]
    assert "| pairs | 5m | qa lines | 0.250 | 5,000,000 | 3e+15 | 0.5 | 0.05 | 83.3 |" in costs_part
    assert "| standard | 9m | MixEval | 0.500 | 9,000,000 | 3e+15 | 0.8 | 0.0556 | 167 |" in costs_part
    one_size = [row for row in arms if row.model == "5m"]
    assert "beside their costs" not in markdown("one", one_size, [f for f in found if f.model == "5m"][:4], [])


def test_further_measures_stand_beside_those_of_the_ledgers() -> None:
    """A benchmark that one training lacks is told of the others, and scripted judges are named in every table."""
    trained = {(arm, seed): Trained(arm, "5m", seed) for arm in ("standard", "pairs") for seed in (1, 2)}
    measure = Measure("MixEval [PLUMBING]", "", BENCHMARK)
    values = {("standard", 1): 0.2, ("standard", 2): 0.4, ("pairs", 1): 0.5}
    more = {trained[key]: {measure: {"a": (value, 1.0), "b": (value, 1.0)}} for key, value in values.items()}
    pairs = [(("standard", "5m"), None), (("pairs", "5m"), ("standard", "5m"))]
    found = list(figures({t: ledger(2) for t in trained.values()}, pairs, resamples=20, more=more))
    base, ours = (f for f in found if f.measure == BENCHMARK)
    assert (base.value, base.num_seeds, base.num_items) == (pytest.approx(0.3), 2, 2)
    assert (ours.value, ours.num_seeds, ours.difference) == (0.5, 1, pytest.approx(0.3))
    arms = [ArmRow(arm, "5m", (1, 2), 100, 90, 1.1, 7, 5_000_000, 3e15, 0.5) for arm in ("standard", "pairs")]
    page = markdown("small", arms, found, [])
    assert "## Benchmarks, as a judge scores them" in page
    assert "the judge follows a script" in page
    assert "MixEval [PLUMBING]" in csv_text(found)


def test_arms_without_common_seeds_are_not_compared() -> None:
    scores = {Trained("standard", "5m", 1): ledger(2), Trained("pairs", "5m", 2): ledger(1)}
    found = list(figures(scores, [(("pairs", "5m"), ("standard", "5m"))], resamples=5))
    assert found
    assert all(f.difference is None for f in found)


def test_the_plot_names_every_arm() -> None:
    drawn = training_curves("losses", {"standard": [(0, 8.0), (100, 6.0)], "a<b": [(0, 8.0), (100, 5.0)]}).drawn()
    assert drawn.startswith("<svg")
    assert "standard" in drawn
    assert "a<b" not in drawn
    assert "arms do not compare" in drawn
