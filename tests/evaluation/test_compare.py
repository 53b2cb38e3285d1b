"""Paired comparison: known differences, and none where there is none."""

import numpy as np
import pytest

from fineinstructions.evaluation.compare import compare, mean_of_parts
from fineinstructions.evaluation.comparison_page import cells, notes, page, plot
from fineinstructions.evaluation.items import ItemScore
from fineinstructions.evaluation.scoring import FIGURES, grouped

NAMES = ("old", "new")


def scores(values: list[float], part: str = "free-form", **facts: float) -> list[ItemScore]:
    base = {"source": "x", "model_chars": 1, "baseline_chars": 1}
    return [ItemScore(f"{part}/{n}", part, f"{part}/{n}", v, v, True, {**base, **facts}) for n, v in enumerate(values)]


def test_a_hand_made_pair() -> None:
    found = compare("mixeval", scores([0, 0.5, 1, 1]), scores([1, 0.5, 1, 0]), NAMES, 0)
    assert (found.wins, found.ties, found.losses, found.win_rate) == (1, 2, 1, 0.5)
    assert (found.first_value, found.second_value, found.difference) == (0.625, 0.625, 0.0)
    assert found.p_value == 1.0


def test_a_small_but_steady_gain_is_seen_where_two_intervals_would_overlap() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    found = compare("mixeval", scores((0.8 * hard).tolist()), scores((0.8 * hard + 0.05).tolist()), NAMES, 0)
    assert found.interval == pytest.approx((0.05, 0.05))
    assert found.p_value < 0.001
    assert found.win_rate == 1.0


def test_chance_is_called_chance_about_as_often_as_it_should_be() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(20):
        a, b = rng.random((2, 40))
        p_values.append(compare("mixeval", scores(a.tolist()), scores(b.tolist()), NAMES, 0).p_value)
    assert 0.25 < float(np.mean(p_values)) < 0.75
    assert sum(p < 0.05 for p in p_values) <= 4


def test_the_main_figure_is_the_benchmarks_own() -> None:
    turns = [
        ItemScore(f"{task}/{n}/{t}", task, f"{task}/{n}", float(rating), float(rating), True)
        for task, n, t, rating in [("CM", 1, 1, 9), ("CM", 1, 2, 3), ("CM", 2, 1, 5), ("GR", 1, 1, 8)]
    ]
    found = compare("mt_bench_101", turns, turns, NAMES, 0)
    assert found.first_value == FIGURES["mt_bench_101"](grouped("mt_bench_101", turns))["score"] == 6.0
    assert found.items == 3
    alpaca = scores([0.25, 0.5], "helpful", first_preferred=0.75)
    assert compare("alpaca_eval", alpaca, alpaca, NAMES, 0).first_value == FIGURES["alpaca_eval"](alpaca)["win_rate"]
    assert compare("alpaca_eval", alpaca, alpaca, NAMES, 0).position_bias == (0.25, 0.25)


def test_only_common_items_count_and_the_others_are_told() -> None:
    found = compare("mixeval", scores([1, 1, 1]), scores([0, 0]), NAMES, 0)
    assert (found.items, found.left_out, found.difference) == (2, 1, -1.0)
    assert "1 items left out" in "\n".join(notes([found]))
    with pytest.raises(ValueError, match="no common item"):
        compare("mixeval", scores([1]), scores([1], "multiple-choice"), NAMES, 0)


def test_one_item_has_no_interval() -> None:
    found = compare("mixeval", scores([1]), scores([0]), NAMES, 0)
    assert found.interval is None
    assert cells([found])[0][6] == "none"


def test_the_same_seed_gives_the_same_and_order_turns_the_sign() -> None:
    rng = np.random.default_rng(2)
    a, b = (scores(values.tolist()) for values in rng.random((2, 50)))
    first, again, turned = (
        compare("mixeval", a, b, NAMES, 3),
        compare("mixeval", a, b, NAMES, 3),
        compare("mixeval", b, a, NAMES, 3),
    )
    assert first == again
    assert first.interval is not None
    assert turned.interval is not None
    assert turned.difference == pytest.approx(-first.difference)
    assert turned.p_value == first.p_value
    assert turned.interval == pytest.approx((-first.interval[1], -first.interval[0]))


def test_parts_weigh_alike() -> None:
    assert mean_of_parts(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 2])) == 0.5


def test_names_of_models_are_text_in_table_and_plot() -> None:
    found = compare("mixeval", scores([1, 0]), scores([0, 1]), ("a|b<script>", "c&d"), 0)
    assert "<script>" not in plot([found])
    assert "c&amp;d" in plot([found])
    assert "a\\|b" in page([found])
