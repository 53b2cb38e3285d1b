"""AlpacaEval's scorer on cases worked out by hand, and every trap of the original."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_files import INSTRUCTIONS, write_benchmarks

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.logprobs import TokenLogprob
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.alpaca_eval import AlpacaEval, AlpacaEvalConfig, pair_prompt, second_preferred
from fineinstructions.evaluation.items import Answer, Judgement
from fineinstructions.evaluation.length_control import (
    controlled_win_rate,
    length_term,
    official_win_rate,
    style_win_rate,
)
from fineinstructions.evaluation.report import rows

ORIGINAL = """<|im_start|>system
You pick.
<|im_end|>
<|im_start|>user
{
    "instruction": \"\"\"{instruction}\"\"\",
}
m: {output_1}
M: {output_2}
<|im_end|>"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_benchmarks(tmp_path) / "alpaca_eval" / "alpaca_eval.json")


def token(text: str, **chances: float) -> tuple[TokenLogprob, ...]:
    others = tuple((name, math.log(chance)) for name, chance in chances.items())
    return (TokenLogprob(text, math.log(chances.get(text, 0.5)), others),)


@pytest.mark.parametrize(
    ("text", "logprobs", "value"),
    [
        ("M", None, 1.0),
        (" m\n", None, 0.0),
        ('"M".', None, 1.0),
        ("m", token("m", m=0.6, M=0.3, Both=0.1), 0.3 / 0.9),
        ("M", token("M", M=1.0), 1.0),
        ("Both", token("Both", Both=0.8, m=0.15, M=0.05), 0.25),
    ],
)
def test_the_share_of_a_name_in_both(text: str, logprobs: tuple[TokenLogprob, ...] | None, value: float) -> None:
    assert second_preferred(text, logprobs) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Both", "m or M", "mM", "Model M is better"])
def test_a_reply_without_a_choice_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="neither m nor M"):
        second_preferred(text, None)


def test_both_orders_are_shown_and_their_mean_is_taken(path: str) -> None:
    benchmark = AlpacaEval(AlpacaEvalConfig(path=path))
    item = benchmark.items[0]
    shown = {question.name: question for question in benchmark.questions(item, Answer("MINE"))}
    assert list(shown) == ["as_second", "as_first"]
    for name, first in (("as_second", "Elm, Ash and Oak."), ("as_first", "MINE")):
        said = shown[name].messages[-1][1]
        assert said.index("<response_m>") < said.index(first) < said.index("<response_M>")
    read = {name: shown[name].read(ChatReply("m", "length", 0, 1)) for name in shown}
    assert (read["as_second"]["value"], read["as_first"]["value"]) == (0.0, 1.0)
    score = benchmark.score(item, Answer("MINE"), {name: Judgement(value) for name, value in read.items()})
    assert score.score == 0.5
    assert score.facts["first_preferred"] == 1.0


def test_figures_of_a_hand_made_table(path: str) -> None:
    benchmark = AlpacaEval(AlpacaEvalConfig(path=path))
    verdicts = [(1.0, 0.8), (0.2, 0.4), (0.5, 0.5)]
    scores = [
        benchmark.score(
            item, Answer("12345"), {"as_second": Judgement({"value": s}), "as_first": Judgement({"value": f})}
        )
        for item, (s, f) in zip(benchmark.items, verdicts, strict=True)
    ]
    found = benchmark.figures(scores)
    assert found["win_rate"] == pytest.approx((0.9 + 0.3 + 0.5) / 3)
    assert found["discrete_win_rate"] == pytest.approx(1.5 / 3)
    assert found["first_preferred"] == pytest.approx((0.4 + 0.6 + 0.5) / 3)
    assert found["position_bias"] == pytest.approx(0.0)
    assert found["model_chars"] == 5
    assert found["baseline_chars"] == pytest.approx(sum(len(row["output"]) for row in INSTRUCTIONS) / 3)


def test_an_unread_verdict_counts_for_the_baseline_and_is_told_apart(path: str) -> None:
    benchmark = AlpacaEval(AlpacaEvalConfig(path=path))
    known = {"as_second": Judgement({"value": 1.0}), "as_first": Judgement(None, "Both", "unparsed")}
    scores = [benchmark.score(item, Answer("x"), known) for item in benchmark.items[:1]]
    whole = {name: Judgement({"value": 1.0}) for name in known}
    scores += [benchmark.score(item, Answer("x"), whole) for item in benchmark.items[1:]]
    found = benchmark.figures(scores)
    assert found["win_rate"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["parsed_only"] == 1.0
    assert [score.is_parsed for score in scores] == [False, True, True]


def test_one_order_as_in_the_original(path: str) -> None:
    benchmark = AlpacaEval(AlpacaEvalConfig(path=path, orders="original"))
    assert [question.name for question in benchmark.questions(benchmark.items[0], Answer("x"))] == ["as_second"]
    score = benchmark.score(benchmark.items[0], Answer("x"), {"as_second": Judgement({"value": 0.7})})
    assert score.score == 0.7
    assert "first_preferred" not in score.facts


def test_the_prompt_of_the_original_is_read_as_it_is(tmp_path: Path) -> None:
    """Trap: the original looks for templates beside the annotator's folder; here a path is a path."""
    file = tmp_path / "clf.txt"
    file.write_text(ORIGINAL, encoding="utf-8")
    filled = pair_prompt(str(file)).fill({"instruction": "{output_1}", "first": "a {x}", "second": "b"})
    assert filled[0] == ("system", "You pick.")
    assert filled[1][1] == '{\n    "instruction": """{output_1}""",\n}\nm: a {x}\nM: b'
    file.write_text(ORIGINAL.replace("{output_2}", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match="needs one user turn"):
        pair_prompt(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        pair_prompt(str(tmp_path / "nowhere.txt"))


def test_a_baseline_from_a_file_is_laid_over_by_instruction(path: str, tmp_path: Path) -> None:
    outputs = [{**row, "output": f"other {number}", "generator": "b"} for number, row in enumerate(INSTRUCTIONS)]
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(outputs[::-1]), encoding="utf-8")
    items = AlpacaEval(AlpacaEvalConfig(path=path, baseline=str(file))).items
    assert [item.record["baseline"] for item in items] == ["other 0", "other 1", "other 2"]
    assert {item.record["baseline_name"] for item in items} == {"b"}
    file.write_text(json.dumps(outputs[:2]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no answer to instruction 2 \('Write a line about rain.'\)"):
        AlpacaEval(AlpacaEvalConfig(path=path, baseline=str(file))).items  # noqa: B018
    file.write_text(json.dumps([*outputs, outputs[0]]), encoding="utf-8")
    with pytest.raises(ConfigError, match="a second answer to the same instruction"):
        AlpacaEval(AlpacaEvalConfig(path=path, baseline=str(file))).items  # noqa: B018


def test_judges_that_grade_compare_two_grades(path: str) -> None:
    benchmark = AlpacaEval(AlpacaEvalConfig(path=path), "prometheus")
    item = benchmark.items[0]
    assert [question.name for question in benchmark.questions(item, Answer("x"))] == ["model", "baseline"]

    def score(model: dict[str, float] | None, baseline: dict[str, float]) -> float:
        said = {"model": Judgement(model), "baseline": Judgement(baseline)}
        return benchmark.score(item, Answer("x"), said).score

    assert score({"score": 4, "value": 0.75}, {"score": 3, "value": 0.5}) == 1.0
    assert score({"score": 4, "value": 0.75}, {"score": 4, "value": 0.75}) == 0.5
    assert score({"score": 4, "value": 0.75, "expected": 4.1}, {"score": 4, "value": 0.75, "expected": 4.2}) == 0.0
    assert score(None, {"score": 1, "value": 0.0}) == 0.0


def test_official_coefficients_give_the_official_figure() -> None:
    """Worked out by hand: the logistic of 0, of log 3 and of -log 3."""
    assert official_win_rate(0.0, math.log(3), [0.0, 1.0, -1.0]) == pytest.approx((0.5 + 0.75 + 0.25) / 3)
    assert official_win_rate(-math.log(3), 0.0, [5.0, 7.0]) == pytest.approx(0.25)


def test_the_length_term_is_the_originals() -> None:
    model, baseline = [10, 20, 60], [40, 40, 40]
    difference = np.array([30.0, 20.0, -20.0])
    assert length_term(model, baseline) == pytest.approx(np.tanh(difference / difference.std(ddof=1)))
    assert length_term([5, 5], [9, 9]).tolist() == [0.0, 0.0]


def test_the_style_figure_takes_the_length_out() -> None:
    """A model that wins by length alone is worth half; one that wins at any length keeps its rate."""
    rng = np.random.default_rng(0)
    model, baseline = rng.integers(50, 500, 2000), np.full(2000, 200)
    longer = -length_term(model.tolist(), baseline.tolist())
    by_length = 1 / (1 + np.exp(-3 * longer))
    raw = float(by_length.mean())
    assert raw > 0.58
    assert style_win_rate(by_length, model.tolist(), baseline.tolist()) == pytest.approx(0.5, abs=0.01)
    assert style_win_rate(np.full(2000, 0.8), model.tolist(), baseline.tolist()) == pytest.approx(0.8, abs=1e-3)
    assert style_win_rate(np.ones(2000), model.tolist(), baseline.tolist()) > 0.99
    assert math.isnan(style_win_rate([1.0, 0.0], [1, 2], [3, 4]))


def test_the_difficulty_of_instructions_is_a_term_of_its_own(path: str, tmp_path: Path) -> None:
    file = tmp_path / "difficulty.csv"
    file.write_text(",instruction_difficulty\n0,0.5\n1,-1.25\n2,0\n", encoding="utf-8")
    items = AlpacaEval(AlpacaEvalConfig(path=path, difficulty=str(file))).items
    assert [item.record["difficulty"] for item in items] == [0.5, -1.25, 0.0]
    file.write_text(",instruction_difficulty\n0,0.5\n1,-1.25\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no value for instruction 2"):
        AlpacaEval(AlpacaEvalConfig(path=path, difficulty=str(file))).items  # noqa: B018
    rng = np.random.default_rng(1)
    hard = rng.normal(size=3000)
    model, baseline = rng.integers(50, 500, 3000).tolist(), [200] * 3000
    wins = 1 / (1 + np.exp(-(2 * hard - 1 - 2 * length_term(model, baseline))))
    wanted = float((1 / (1 + np.exp(-(2 * hard - 1)))).mean())
    assert style_win_rate(wins, model, baseline, hard) == pytest.approx(wanted, abs=0.002)


def test_a_rate_of_our_own_is_never_called_the_published_one() -> None:
    """Trap: AlpacaEval's coefficients are fitted for one judge and one baseline; ours is another quantity."""
    figures = {"length_controlled_style": {"value": 0.3, "low": 0.2, "high": 0.4}}
    ((name, value, interval, meaning),) = rows({"benchmark": "alpaca_eval", "figures": figures})
    assert (name, value, interval) == ("length_controlled_style", "30.0 %", "20.0 % to 40.0 %")
    assert meaning.startswith("LC-style: ")
    assert "not the published figure" in meaning


def logistic(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def test_the_regression_with_published_items_takes_the_length_from_them_too() -> None:
    """Answers of one length say nothing about length; the baseline's own at other lengths do, with a tenth each."""
    rng = np.random.default_rng(2)
    hard = rng.normal(size=900)
    model, baseline = rng.integers(50, 500, 900).tolist(), [200] * 900
    lengths = rng.normal(size=(900, 2))
    preferred = logistic(-1.5 * np.tanh(lengths) + 0.8 * hard[:, None])
    gamed = [list(zip(*row, strict=True)) for row in zip(lengths.tolist(), preferred.tolist(), strict=True)]
    wins = logistic(0.8 * hard - 1 - 1.5 * length_term(model, baseline))
    wanted = float(logistic(0.8 * hard - 1).mean())
    assert controlled_win_rate(wins, model, baseline, hard, gamed) == pytest.approx(wanted, abs=1e-6)
    others = logistic(0.4 * hard - 1 - 3.0 * length_term(model, baseline))
    alone = style_win_rate(others, model, baseline, hard)
    assert controlled_win_rate(others, model, baseline, hard, gamed) != pytest.approx(alone, abs=0.003)
    assert math.isnan(controlled_win_rate([1.0], [1], [2], [0.0], [[(0.0, 0.5)]]))


def test_published_items_name_the_figure(path: str, tmp_path: Path) -> None:
    file = tmp_path / "df_gamed.csv"
    head = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    rows = [f"m{n},{0.6 - n / 5},{i},{n - 0.5},{i / 2},False" for n in (0, 1) for i in (2, 0, 1)]
    file.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")

    def figures(difficulty: str | None) -> dict[str, float]:
        benchmark = AlpacaEval(AlpacaEvalConfig(path=path, difficulty=difficulty, orders="original"))
        said = {"as_second": Judgement({"value": 0.25})}
        scores = [benchmark.score(item, Answer("an answer"), said) for item in benchmark.items]
        if difficulty:
            assert scores[2].facts["gamed"] == [(-0.5, 0.6), (0.5, pytest.approx(0.4))]
            assert scores[2].facts["difficulty"] == 1.0
        return AlpacaEval.figures(scores)

    assert "length_controlled" in figures(str(file)) and "length_controlled_style" not in figures(str(file))
    assert "length_controlled_style" in figures(None) and "length_controlled" not in figures(None)
    file.write_text(head + "\n".join(rows[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not as many rows for every instruction"):
        figures(str(file))
