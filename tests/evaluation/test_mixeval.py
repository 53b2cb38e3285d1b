"""MixEval's scorer on cases worked out by hand, and every trap of the original."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from benchmark_files import FREE_FORM, MULTIPLE_CHOICE, write_benchmarks

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.prompt import Message
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.items import Answer, Judgement
from fineinstructions.evaluation.mixeval import MixEval, MixEvalConfig
from fineinstructions.evaluation.options import option_facts
from fineinstructions.evaluation.short_answer import chosen_letter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_benchmarks(tmp_path) / "mixeval"


def reply(text: str) -> ChatReply:
    return ChatReply(text, "stop", 0, 0)


def read(benchmark: MixEval, name: str, text: str) -> Any:
    (item,) = [item for item in benchmark.items if item.item_id == name]
    (question,) = benchmark.questions(item, Answer("x"))
    return question.read(reply(text))["value"]


def figures(benchmark: MixEval, values: dict[str, float | None]) -> dict[str, float]:
    """Figures where the judge said these values; None for a reply that could not be read."""
    scores = []
    for item in benchmark.items:
        value = values[item.item_id]
        said = Judgement(None, "?") if value is None else Judgement({"value": value}, "")
        scores.append(benchmark.score(item, Answer("whatever"), {"": said}))
    return benchmark.figures(scores)


def test_both_kinds_weigh_by_their_number(folder: Path) -> None:
    benchmark = MixEval(MixEvalConfig(path=str(folder)), hard=False)
    assert [item.item_id for item in benchmark.items] == [
        *(f"free-form/{number}" for number in range(3)),
        *(f"multiple-choice/{number}" for number in range(2)),
    ]
    values = {"free-form/0": 1.0, "free-form/1": 0.5, "free-form/2": 0.0, "multiple-choice/0": 1.0}
    found = figures(benchmark, {**values, "multiple-choice/1": 0.0})
    assert found["score"] == pytest.approx(2.5 / 5)
    assert found["free_form"] == pytest.approx(0.5)
    assert found["multiple_choice"] == pytest.approx(0.5)


def test_an_unread_choice_is_never_a_random_option(folder: Path) -> None:
    """Trap 1: the original draws an option after ten retries; here it is 0, and 1/n in a figure of its own."""
    benchmark = MixEval(MixEvalConfig(path=str(folder)), hard=False)
    values = dict.fromkeys(("free-form/0", "free-form/1", "free-form/2"), 0.0)
    found = figures(benchmark, {**values, "multiple-choice/0": None, "multiple-choice/1": None})
    assert found["multiple_choice"] == 0
    assert found["multiple_choice_at_chance"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["score_at_chance"] == pytest.approx(0.75 / 5)
    free = figures(benchmark, {**dict.fromkeys(values, None), "multiple-choice/0": 1.0, "multiple-choice/1": 0.0})
    assert free["score"] == free["score_at_chance"] == pytest.approx(1 / 5)


def test_the_judge_never_sees_the_context_unless_told_to(folder: Path) -> None:
    """Trap 2: the original's judge sees no context; ours neither, and there is a key that shows it."""
    for shown in (False, True):
        benchmark = MixEval(MixEvalConfig(path=str(folder), judge_sees_context=shown), hard=False)
        for item in benchmark.items:
            (question,) = benchmark.questions(item, Answer("fifteen"))
            said = "\n".join(text for _, text in question.messages)
            context = item.record["context"]
            if isinstance(context, str) and context != "none":
                assert (context in said) is shown
                assert context in item.messages[0][1]
            assert str(item.record["prompt"]) in said
            assert "fifteen" in said


def test_nothing_is_cut_from_an_answer(folder: Path) -> None:
    """Trap 3: the original cuts a base model's answer at the first empty line; long answers are judged whole here."""
    benchmark = MixEval(MixEvalConfig(path=str(folder)), hard=False)
    answer = "Let me think.\n\nThe old town lies on a river.\n\nSo the answer is the Elm."
    for protocol in ("marks", "flow", "prometheus", "json"):
        (question,) = list(
            MixEval(MixEvalConfig(path=str(folder)), False, protocol).questions(benchmark.items[0], Answer(answer))
        )
        assert answer in question.messages[-1][1]
    assert benchmark.items[0].messages == (
        ("user", "Question: What runs through the old town?\nAnswer the question in a few words."),
    )


def test_rules_give_whole_figures_by_themselves(folder: Path) -> None:
    """Trap 5: the original's rule-based path lacks the counts that its total needs; ours stands beside the judge's."""
    benchmark = MixEval(MixEvalConfig(path=str(folder)), hard=False)
    answers = ["It is the river Elm.", "15", "She adds.\nSo the answer is 8.", "(B)", "The answer is A."]
    scores = [
        benchmark.score(item, Answer(text), {"": Judgement(None, "")})
        for item, text in zip(benchmark.items, answers, strict=True)
    ]
    found = benchmark.figures(scores)
    assert found["rule_exact"] == pytest.approx(1 / 3)
    assert found["rule_holds"] == pytest.approx(2 / 3)
    assert found["rule_choice"] == found["rule_choice_at_chance"] == pytest.approx(1 / 2)
    assert found["rule_unread"] == 0
    assert found["score"] == 0


def test_three_ways_to_count_an_options_probability_may_choose_three_options(folder: Path) -> None:
    """The letter says trout, the text heron, and the text for each of its characters the grey heron."""
    chances = {"A": -0.5, "B": -2.0, "C": -3.0, "trout": -5.0, "heron": -4.0, "a grey heron": -6.0}
    asked: list[str] = []

    def probability_of(messages: Sequence[Message], beginnings: Sequence[str]) -> list[float]:
        asked.append(messages[-1][1])
        return [chances[beginning] for beginning in beginnings]

    items = MixEval(MixEvalConfig(path=str(folder)), hard=False).items
    bird = next(item for item in items if item.item_id == "multiple-choice/0")
    names = ("option_letter", "option_text", "option_text_per_char")
    for right, name in enumerate(names):
        row = {**bird.record, "options": ["trout", "heron", "a grey heron"], "target": [right]}
        found = option_facts(dataclasses.replace(bird, record=row), probability_of)
        assert [other for other in names if found[other]] == [name]
        assert found["option_letter_mass"] == pytest.approx(math.exp(-0.5) + math.exp(-2) + math.exp(-3))
    assert asked == [bird.messages[-1][1], "Which is a bird?"] * 3, "texts of options go after the bare question"


def test_steps_are_asked_for_where_the_original_does(folder: Path) -> None:
    items = {item.item_id: item.messages[0][1] for item in MixEval(MixEvalConfig(path=str(folder)), hard=False).items}
    assert items["free-form/2"] == (
        "Question: Ann has 3 jars and buys 4. How many are there?\nAnswer the question. Think step by step."
    )
    assert items["free-form/1"].startswith("Question: The mill ground 40 sacks on Monday")
    assert items["multiple-choice/1"] == (
        "The bridge was built of stone.\nis the bridge made of wood\nA. Yes\nB. No\n"
        "Answer with the letter of the right option."
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("free-form/0", "Right. Mark: [[1.0]]", 1.0),
        ("free-form/0", "Near. Mark: [[0.5]] and so [[0.5]]", 0.5),
        ("free-form/0", "<think>[[0.1]]</think>Mark: [[ 0.9 ]]", 0.9),
        ("free-form/0", "[[1]]", 1.0),
        ("multiple-choice/0", "It says heron. Option: [[B]]", 1.0),
        ("multiple-choice/0", "Option: [[A]]", 0.0),
        ("multiple-choice/0", "Option: [[none]]", 0.0),
    ],
)
def test_what_a_reply_means(folder: Path, name: str, text: str, value: float) -> None:
    assert read(MixEval(MixEvalConfig(path=str(folder)), hard=False), name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("free-form/0", "I would say half."),
        ("free-form/0", "[[1.5]]"),
        ("free-form/0", "[[0.2]] or [[0.8]]"),
        ("free-form/0", "[[-1]]"),
        ("multiple-choice/0", "[[E]]"),
        ("multiple-choice/0", "[[A]] or [[B]]"),
        ("multiple-choice/0", "B"),
        ("multiple-choice/1", "[[C]]"),
    ],
)
def test_what_has_no_meaning(folder: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"double brackets|not from"):
        read(MixEval(MixEvalConfig(path=str(folder)), hard=False), name, text)


def test_flow_and_prometheus_judges_have_no_floor(folder: Path) -> None:
    """The trap of dividing 1..5 by five, where every wrong answer earns a fifth; and white space around the digit."""
    for protocol, form in (
        ("flow", "<feedback>x</feedback>\n<score>{}</score>"),
        ("prometheus", "Feedback: x [RESULT] {}"),
    ):
        benchmark = MixEval(MixEvalConfig(path=str(folder)), False, protocol)  # type: ignore[arg-type]
        assert [read(benchmark, "free-form/0", form.format(score)) for score in (1, 3, 5)] == [0, 0.5, 1]
        assert [read(benchmark, "multiple-choice/0", form.format(score)) for score in (1, 3, 4, 5)] == [0, 0, 1, 1]
    flow = MixEval(MixEvalConfig(path=str(folder)), False, "flow")
    assert read(flow, "free-form/0", "<score>4</score>") == read(flow, "free-form/0", "<score>\n4\n</score>") == 0.75


def test_any_name_of_a_model_will_do() -> None:
    """Trap 4: the original knows only models that are registered in its code."""
    from fineinstructions.evaluation_recipe import named_model

    named = named_model("nobody/knows-this-7b-instruct@http://127.0.0.1:1/v1")
    assert named["model"] == "nobody/knows-this-7b-instruct"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ["B"]}, "is not the number of one of"),
        ({"target": [4]}, "is not the number of one of"),
        ({"options": ["one"]}, "is not the number of one of"),
        ({"prompt": None}, "'prompt' is no text"),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = {"0": {**MULTIPLE_CHOICE["0"], **change}}
    (tmp_path / "free-form.json").write_text(json.dumps(FREE_FORM), encoding="utf-8")
    (tmp_path / "multiple-choice.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        MixEval(MixEvalConfig(path=str(tmp_path)), hard=False).items  # noqa: B018
    assert "multiple-choice.json, row 0" in str(caught.value)


def test_the_wrong_set_and_a_missing_one_are_named(folder: Path) -> None:
    whole = folder / "mixeval-2024-08-11"
    with pytest.raises(ConfigError, match="the other of the two sets"):
        MixEval(MixEvalConfig(path=str(whole / "mixeval-hard")), hard=False).items  # noqa: B018
    with pytest.raises(ConfigError, match=r"holds no free-form.json, nor mixeval-2024-06-01/mixeval"):
        MixEval(MixEvalConfig(path=str(folder), version="2024-06-01"), hard=False).items  # noqa: B018
    with pytest.raises(ConfigError, match="not part of this package"):
        MixEval(MixEvalConfig(), hard=False).items  # noqa: B018
    assert len(MixEval(MixEvalConfig(path=str(whole)), hard=True).items) == 5


def test_files_are_read_from_a_url() -> None:
    memory = fsspec.filesystem("memory")
    for kind, rows in (("free-form", FREE_FORM), ("multiple-choice", MULTIPLE_CHOICE)):
        memory.pipe(f"/eval-test/mixeval-hard/{kind}.json", json.dumps(rows).encode())
    items = MixEval(MixEvalConfig(path="memory://eval-test/mixeval-hard/"), hard=True).items
    assert [item.item_id for item in items][-1] == "multiple-choice/1"
    assert len(items) == 5


def test_a_part_of_the_items_keeps_both_kinds(folder: Path) -> None:
    items = MixEval(MixEvalConfig(path=str(folder)), hard=False, limit=1).items
    assert [item.item_id for item in items] == ["free-form/0", "multiple-choice/0"]


def test_nothing_scored_is_no_figure() -> None:
    assert math.isnan(MixEval.figures([])["score"])


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("B. heron", "B"),
        ("**B**", "B"),
        ("A good question. The answer is (C).", "C"),
        ("Answer: D", "D"),
        ("At first I thought the answer is A, but the answer is B", "B"),
        ("A heron is a bird", "B"),
        ("Being alive, all are.", None),
        ("heron or otter", None),
        ("", None),
    ],
)
def test_letters_by_rule(response: str, letter: str | None) -> None:
    assert chosen_letter(response, ["trout", "heron", "otter", "newt"]) == letter
