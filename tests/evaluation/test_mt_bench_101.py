"""MT-Bench-101's scorer on cases worked out by hand, and every trap of the original."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import DIALOGUES, write_benchmarks

from fineinstructions.backends.chat import ChatReply
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.items import Answer, ItemScore, Judgement
from fineinstructions.evaluation.mt_bench_101 import TASKS, MtBench101, MtBench101Config, dialogues
from fineinstructions.evaluation.scoring import figures_of


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_benchmarks(tmp_path) / "mtbench101" / "mtbench101.jsonl")


def scored(benchmark: MtBench101, ratings: dict[str, float | None]) -> list[ItemScore]:
    """Item scores where the judge gave these ratings; None for a reply that could not be read."""
    said = {
        name: Judgement(None, "?") if rating is None else Judgement({"value": rating}, "")
        for name, rating in ratings.items()
    }
    return [benchmark.score(item, Answer("x"), {"": said[item.item_id]}) for item in benchmark.items]


def test_turns_are_answered_after_the_given_history(path: str) -> None:
    items = {item.item_id: item for item in MtBench101(MtBench101Config(path=path)).items}
    assert list(items) == ["CM/1/2", "CM/1/3", "GR/2/1", "GR/2/2", "SI/3/1", "SI/3/2"]
    assert items["CM/1/3"].messages == (
        ("user", "My boat is called Wren."),
        ("assistant", "A fine name."),
        ("user", "What is it called?"),
        ("assistant", "Wren, gold says."),
        ("user", "And is it a car?"),
    )


def test_the_first_turn_alone(path: str) -> None:
    benchmark = MtBench101(MtBench101Config(path=path, turns="first"))
    assert [item.item_id for item in benchmark.items] == ["CM/1/2", "GR/2/1", "SI/3/1"]
    assert benchmark.turns == "first"


def test_the_least_of_a_dialogue_the_mean_of_a_task_the_mean_of_tasks(path: str) -> None:
    benchmark = MtBench101(MtBench101Config(path=path))
    ratings = {"CM/1/2": 9, "CM/1/3": 4, "GR/2/1": 2, "GR/2/2": 8, "SI/3/1": 6, "SI/3/2": 6}
    found = benchmark.figures(dialogues(scored(benchmark, ratings)))
    assert found["score"] == found["parsed_only"] == found["as_original"] == pytest.approx((4 + 2 + 6) / 3)
    assert [found[f"task_{task}"] for task in ("CM", "SI", "GR")] == [4, 6, 2]


def test_tasks_weigh_alike_whatever_their_number_of_dialogues() -> None:
    scores = [ItemScore(f"CM/{n}/2", "CM", f"CM/{n}", 2.0, 2.0, True) for n in range(9)]
    scores.append(ItemScore("GR/1/1", "GR", "GR/1", 8.0, 8.0, True))
    assert MtBench101.figures(dialogues(scores))["score"] == 5.0


def test_an_unread_rating_never_raises_a_score(path: str) -> None:
    """Trap: the original drops it before the least is taken, so that the bad turn of a dialogue vanishes."""
    benchmark = MtBench101(MtBench101Config(path=path))
    ratings: dict[str, float | None] = {"CM/1/2": 9, "CM/1/3": None, "GR/2/1": 2, "GR/2/2": 8, "SI/3/1": 6, "SI/3/2": 7}
    found = benchmark.figures(dialogues(scored(benchmark, ratings)))
    assert found["score"] == pytest.approx((0 + 2 + 6) / 3)
    assert found["parsed_only"] == pytest.approx((2 + 6) / 2)
    assert found["as_original"] == pytest.approx((9 + 2 + 6) / 3)


def test_a_missing_answer_is_worth_nothing_and_is_no_unread_rating(path: str) -> None:
    benchmark = MtBench101(MtBench101Config(path=path))
    score = benchmark.score(benchmark.items[0], Answer("", "too_long"), {})
    assert (score.score, score.is_parsed) == (0.0, True)


@pytest.mark.parametrize("text", ["Rating: [[7]]", "[[7]] because. Rating: [[ 7 ]]", "<think>[[1]]</think>[[7]]"])
def test_a_rating_is_read(path: str, text: str) -> None:
    benchmark = MtBench101(MtBench101Config(path=path))
    (question,) = benchmark.questions(benchmark.items[0], Answer("x"))
    assert question.read(ChatReply(text, "stop", 0, 0))["value"] == 7


@pytest.mark.parametrize(
    "text", ["[[2]] of the points are met. Rating: [[8]]", "[[0]]", "[[11]]", "[[6.5]]", "6", "[[six]]"]
)
def test_a_doubtful_rating_is_none(path: str, text: str) -> None:
    """Trap: the original takes the first integer in brackets, here the 2."""
    benchmark = MtBench101(MtBench101Config(path=path))
    (question,) = benchmark.questions(benchmark.items[0], Answer("x"))
    with pytest.raises(ValueError, match=r"brackets|not from|whole"):
        question.read(ChatReply(text, "stop", 0, 0))


def test_the_given_reply_is_shown_for_reasoning_only(path: str) -> None:
    benchmark = MtBench101(MtBench101Config(path=path))
    for protocol in ("marks", "prometheus"):
        judge = MtBench101(MtBench101Config(path=path), protocol)  # type: ignore[arg-type]
        for item in benchmark.items:
            gold = item.record["history"][item.record["turn"]]["bot"]
            (question,) = judge.questions(item, Answer("MY REPLY"))
            said = question.messages[-1][1]
            assert "MY REPLY" in said
            assert (gold in said) is (item.part == "GR")


def test_intervals_are_of_dialogues_and_keep_a_dialogue_drawn_twice() -> None:
    """Trap: a floor effect hides differences, so there are intervals; dialogues are drawn, not turns."""
    scores = [
        ItemScore(f"GR/{n}/{turn}", "GR", f"GR/{n}", float(rating), float(rating), True)
        for n, rating in enumerate([1, 1, 1, 9])
        for turn in range(3)
    ]
    figure = figures_of("mt_bench_101", scores, seed=0)["score"]
    assert figure.value == 3.0
    assert figure.low is not None
    assert figure.high is not None
    assert (figure.low, figure.high) == (1.0, 7.0)  # none to three of four drawn are the 9
    assert figures_of("mt_bench_101", scores, seed=0)["score"] == figure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "XX"}, "unknown task 'XX'"),
        ({"history": [{"user": "Only one", "bot": "turn"}]}, "no turn to judge; task CM needs 2"),
        ({"history": "none"}, "'history' is no list of turns"),
        ({"history": [{"user": "a"}, {"user": "b", "bot": "c"}]}, "'bot' is no text"),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**DIALOGUES[0], **change}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        MtBench101(MtBench101Config(path=str(file))).items  # noqa: B018
    assert "rows.jsonl, row 1" in str(caught.value)


def test_two_dialogues_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(DIALOGUES[0])}\n" * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match="is there twice"):
        MtBench101(MtBench101Config(path=str(file))).items  # noqa: B018


def test_rubrics_of_your_own(path: str, tmp_path: Path) -> None:
    file = tmp_path / "rubrics.txt"
    file.write_text("".join(f"{task}: Look at {task} alone.\n" for task in TASKS), encoding="utf-8")
    benchmark = MtBench101(MtBench101Config(path=path, rubrics=str(file)))
    (question,) = benchmark.questions(benchmark.items[0], Answer("x"))
    assert "Look at CM alone." in question.messages[-1][1]
    file.write_text("CM: one only\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no line 'AR: "):
        MtBench101(MtBench101Config(path=path, rubrics=str(file)))
