"""eval and compare over real HTTP: what is kept, what is asked again, what is refused, what is told."""

import json
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import DIALOGUES, write_benchmarks
from pipeline_inputs import command, in_process

from fineinstructions.backends.scripted_replies import Reply, StatusError
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.evaluate import _as_answer
from fineinstructions.evaluation.items import Answer

CHAT = "/v1/chat/completions"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_benchmarks(tmp_path / "data")


def said_of(body: Any) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def brain(body: Any) -> str | Reply:
    """Model ``m`` answers; every other model judges."""
    said = said_of(body)
    if body["model"] == "m":
        return Reply("A river, the Elm.\n\nAnd B.", "length") if "old town" in said else "(B)"
    if "Option: [[A]]" in said:
        return "Option: [[B]]"
    if "Rating: [[6]]" in said:
        return "Rating: [[4]]" if "Estuary" in said else "Rating: [[8]]"
    if "<response_M>" in said:
        return "m"
    return "Mark: [[0.5]]"


def arguments(server: ScriptedServer, data: Path, out: Path, *more: str | Path) -> list[str | Path]:
    few = ["model.max_retries=1", "model.backoff_seconds=0.002", "judge.max_retries=1", "judge.backoff_seconds=0.002"]
    sets = [word for key in few for word in ("--set", key)]
    models = ["--model", f"m@{server.base_url}", "--judge", f"judge@{server.base_url}"]
    return ["eval", *models, "--data", data, "--out", out, *sets, *more]


def scores(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name / "scores.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_all_benchmarks_in_one_command(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedServer(brain, keep_bodies=True, models=["m", "judge"], structured="reject") as server:
        code, printed, errors = in_process(*arguments(server, data, out, "all"))
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
        calls = server.requests[CHAT]
        assert code == 0, errors
        again, _, errors = in_process(*arguments(server, data, out, "all"))
        assert again == 0, errors
        assert server.requests[CHAT] == calls, "what is done asks nobody"
    repeated = [body for body, times in asked.items() if times > 1 and "zyxt" not in body and "ready" not in body]
    assert repeated == []
    values = {name: scores(out, name)["figures"] for name in ("mixeval", "mixeval_hard", "mt_bench_101", "alpaca_eval")}
    assert values["mixeval"]["score"]["value"] == pytest.approx((3 * 0.5 + 2) / 5)
    assert values["mixeval"]["rule_holds"]["value"] == pytest.approx(1 / 3)
    assert values["mt_bench_101"]["score"]["value"] == pytest.approx((8 + 8 + 4) / 3)
    assert values["alpaca_eval"]["win_rate"]["value"] == 0.5
    assert values["alpaca_eval"]["position_bias"]["value"] == 0.5
    assert scores(out, "mixeval")["counts"]["cut"] == 1
    assert "PLUMBING" not in printed
    assert "MT-Bench-101: m, judged by judge" in printed
    assert "turns all" in printed
    assert "| score | 70.0 % |" in (out / "report.md").read_text(encoding="utf-8")


def test_answers_stand_in_the_formats_of_the_originals(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedServer(brain, models=["m", "judge"]) as server:
        code, _, errors = in_process(*arguments(server, data, out, "all"))
        assert code == 0, errors
    lines = (out / "mixeval_hard/responses/m/mixeval_hard/2024-08-11/m_close_freeform_hard.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert rows[0] == {
        "id": "0", "problem_type": "free-form", "context": None, "prompt": "What runs through the old town?",
        "target": ["the Elm", "River Elm"], "benchmark_name": "TriviaQA",
        "formated_input": "Question: What runs through the old town?\nAnswer the question in a few words.",
        "response": "A river, the Elm.\n\nAnd B.",
    }  # fmt: skip
    choices = (out / "mixeval/responses/m/mixeval/2024-08-11/m_close_multichoice.jsonl").read_text("utf-8")
    assert [json.loads(line)["options"][1] for line in choices.splitlines()] == ["heron", "No"]
    dialogues = json.loads((out / "mt_bench_101/responses/m/mtbench101.json").read_text("utf-8"))
    assert list(dialogues) == [str(number) for number in range(6)]
    assert [one.keys() for one in dialogues.values()] == [{"gold", "origin_prompt", "prediction"}] * 6
    assert [turn["role"] for turn in dialogues["1"]["origin_prompt"]] == ["user", "assistant"] * 2 + ["user"]
    assert dialogues["1"]["gold"] == DIALOGUES[0]["history"][2]["bot"]
    outputs = json.loads((out / "alpaca_eval/responses/model_outputs.json").read_text("utf-8"))
    assert outputs[0] == {
        "instruction": "Name three rivers.", "dataset": "helpful", "output": "(B)", "generator": "m",
    }  # fmt: skip
    annotations = json.loads((out / "alpaca_eval/responses/annotations.json").read_text("utf-8"))
    assert [row["preference"] for row in annotations] == [1.5] * 3
    assert annotations[0]["generator_1"] == "base"


@pytest.mark.slow
def test_a_scripted_judge_is_plumbing_wherever_its_figures_stand(data: Path, tmp_path: Path) -> None:
    with ScriptedServer() as server:  # names its model "scripted", whatever it is asked for
        for name in ("a", "b"):
            code, printed, errors = in_process(*arguments(server, data, tmp_path / name, "alpaca_eval"))
            assert code == 0, errors
            assert "PLUMBING: the judge follows a script" in " ".join(printed.split())
    assert scores(tmp_path / "a", "alpaca_eval")["is_plumbing"] is True
    assert "**PLUMBING" in (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    code, printed, errors = in_process("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert code == 0, errors
    assert "PLUMBING" in printed
    assert "[PLUMBING]" in (tmp_path / "c" / "comparison.md").read_text(encoding="utf-8")
    assert "[PLUMBING]" in (tmp_path / "c" / "comparison.svg").read_text(encoding="utf-8")


def test_what_the_judge_does_not_say_is_kept_and_counted(data: Path, tmp_path: Path) -> None:
    def mute(body: Any) -> str | Reply:
        return "I would rather not." if body["model"] != "m" and "Option" in said_of(body) else brain(body)

    with ScriptedServer(mute, models=["m", "judge"]) as server:
        code, printed, errors = in_process(*arguments(server, data, tmp_path / "out", "mixeval"))
        assert code == 0, errors
    found = scores(tmp_path / "out", "mixeval")
    assert found["counts"]["unparsed"] == 2
    assert "2 unread" in printed
    assert found["figures"]["multiple_choice"]["value"] == 0
    assert found["figures"]["multiple_choice_at_chance"]["value"] == pytest.approx(3 / 8)
    entries = [json.loads(line) for line in (tmp_path / "out/mixeval/ledger.jsonl").read_text("utf-8").splitlines()]
    unread = [entry for entry in entries if entry["step"] == "judge" and entry["reading"] is None]
    assert [(entry["raw"], entry["reason"]) for entry in unread] == [("I would rather not.", "unparsed")] * 2


def test_what_an_engine_failed_on_waits_and_takes_its_dialogue_along(data: Path, tmp_path: Path) -> None:
    """A turn that nobody could judge must not raise the least of its dialogue."""
    is_ill = True

    def ill(body: Any) -> str | Reply:
        if is_ill and body["model"] == "judge" and "And is it a car?" in said_of(body):
            raise StatusError(500, "out of order")
        return brain(body)

    out = tmp_path / "out"
    with ScriptedServer(ill, models=["m", "judge"]) as server:
        code, _, errors = in_process(*arguments(server, data, out, "mt_bench_101"))
        assert code == 1
        assert "1 question failed" in errors
        assert scores(out, "mt_bench_101")["num_waiting"] == 2
        assert scores(out, "mt_bench_101")["figures"]["score"]["value"] == pytest.approx((8 + 4) / 2)
        is_ill = False
        calls = server.requests[CHAT]
        code, _, errors = in_process(*arguments(server, data, out, "mt_bench_101"))
        assert code == 0, errors
        assert server.requests[CHAT] == calls + 1
    assert scores(out, "mt_bench_101")["num_waiting"] == 0


def test_another_judge_keeps_the_answers(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedServer(brain, models=["m", "judge", "other"], keep_bodies=True) as server:
        assert in_process(*arguments(server, data, out, "alpaca_eval"))[0] == 0
        other = ["--judge", f"other@{server.base_url}"]
        code, _, errors = in_process(*arguments(server, data, out, "alpaca_eval", *other))
        assert code == 2
        assert "was made with judgements.model = 'judge', not 'other'" in errors
        server.bodies.clear()
        code, _, errors = in_process(*arguments(server, data, out, "alpaca_eval", *other, "--redo"))
        assert code == 0, errors
        assert {body["model"] for body in server.bodies} == {"other"}
        code, _, errors = in_process(
            *arguments(server, data, out, "alpaca_eval", *other, "--set", "model.temperature=1")
        )
        assert code == 2
        assert "answers.temperature = 0.0, not 1.0" in errors


def test_names_of_models_with_instruct_in_them_are_asked_like_all_others(data: Path, tmp_path: Path) -> None:
    """Trap: the original sends these to an interface for bare completions."""
    with ScriptedServer(lambda body: "m" if "<response_M>" in said_of(body) else "Yes.") as server:
        models = [
            "--model",
            f"falcon-7b-instruct@{server.base_url}",
            "--judge",
            f"gpt-3.5-turbo-instruct@{server.base_url}",
        ]
        code, _, errors = in_process("eval", "alpaca_eval", *models, "--data", data, "--out", tmp_path / "out")
        assert code == 0, errors
        assert {path for path in server.requests if path.startswith("/v1/") and path != "/v1/models"} == {CHAT}


def test_the_judge_is_asked_coldly_and_answers_are_not_cut_short(data: Path, tmp_path: Path) -> None:
    """Traps of another harness: a judge sampled at 0.8, and answers capped at 100 tokens."""
    with ScriptedServer(brain, keep_bodies=True, models=["m", "judge"]) as server:
        assert in_process(*arguments(server, data, tmp_path / "out", "mixeval"))[0] == 0
    limits = {body["model"]: (body["temperature"], body["max_tokens"]) for body in server.bodies}
    assert limits == {"m": (0.0, 512), "judge": (0.0, 1024)}


@pytest.mark.parametrize(
    ("text", "is_cut", "form", "kept"),
    [
        ("A.\n\nB.", False, "instruction", Answer("A.\n\nB.")),
        ("A.\n\nB.", True, "instruction", Answer("A.\n\nB.", is_cut=True)),
        ("A.\n\nB.\n\nInstruction: And C?\n\nAnswer: D", True, "instruction", Answer("A.\n\nB.")),
        ("A.\n\nInstruction: B", True, "chat", Answer("A.\n\nInstruction: B", is_cut=True)),
    ],
)
def test_a_model_of_bare_text_keeps_its_whole_answer(text: str, is_cut: bool, form: str, kept: Answer) -> None:
    """Trap: the original cuts a base model's answer at the first empty line; ours ends where it asks itself anew."""
    assert _as_answer(text, is_cut, form) == kept


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--model", "m@http://h/v1", "--judge", "j@http://h/v1"], "unknown benchmark 'nothing'"),
        (["mixeval", "--judge", "j@http://h/v1"], "model: no model; say --model FOLDER"),
        (["mixeval", "--model", "m@http://h/v1"], "judge: no model; say --judge FOLDER"),
        (["mixeval", "--model", "/no/where", "--judge", "j@http://h/v1"], "there is no folder /no/where"),
        (["mixeval", "--model", "m@http://h/v1", "--judge", "j@http://h/v1"], "mixeval.path: missing"),
        (["mixeval", "--model", "m", "--judge", "j", "--data", "/no/where"], "data: there is no folder"),
        (["mixeval", "--model", "m", "--judge", "j", "--set", "model.engine=batch"], "neither batch files nor serve"),
        (["mixeval", "--model", "m", "--judge", "j", "--set", "turns=all"], "turns"),
        (["mixeval", "--model", "m", "--judge", "j", "--out", "s3://bucket/x"], "lies in a folder of this machine"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    code, _, errors = in_process("eval", "--out", tmp_path / "out", *words)
    assert code == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_what_cannot_be_compared_is_refused(data: Path, tmp_path: Path) -> None:
    with ScriptedServer(brain, models=["m", "judge", "other"]) as server:
        for name, more in (
            ("a", ["alpaca_eval"]),
            ("b", ["mixeval"]),
            ("c", ["alpaca_eval", "--set", "judge.model=other"]),
        ):
            assert in_process(*arguments(server, data, tmp_path / name, *more))[0] == 0
    (tmp_path / "empty").mkdir()
    for other, message in (
        ("b", "have no benchmark in common"),
        ("c", "were measured differently (judge and other)"),
        ("empty", "holds no evaluation"),
    ):
        code, _, errors = in_process("compare", tmp_path / "a", tmp_path / other)
        assert (code, message in errors) == (2, True), errors
    code, _, errors = in_process("compare", tmp_path / "a")
    assert (code, "needs two or more" in errors) == (2, True)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_files_and_no_item_twice(data: Path, tmp_path: Path) -> None:
    with ScriptedServer(brain, models=["m", "judge"], latency_seconds=0.02) as server:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        assert in_process(*arguments(server, data, whole, "all"))[0] == 0
        ledgers = [Path(name) / "ledger.jsonl" for name in ("mixeval", "mt_bench_101", "alpaca_eval")]
        for ledger in ledgers:  # killed as soon as the ledger has grown
            before = _size(broken / ledger)
            with subprocess.Popen(
                command(*arguments(server, data, broken, "all")), stderr=subprocess.DEVNULL
            ) as process:
                while process.poll() is None and _size(broken / ledger) == before:
                    time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
        code, _, errors = in_process(*arguments(server, data, broken, "all"))
        assert code == 0, errors
    for path in sorted(whole.rglob("*.json*")):
        if "cache" not in path.parts:
            name = path.relative_to(whole)
            text = (broken / name).read_text(encoding="utf-8").replace(str(broken), str(whole))
            assert text == path.read_text(encoding="utf-8"), name


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
@pytest.mark.extra
def test_small_models_through_all_benchmarks_and_compared(data: Path, tmp_path: Path) -> None:
    """A checkpoint with a chat template and one of bare text, scored in one command each by a judge over HTTP."""
    pytest.importorskip("transformers")
    from tiny_llama import save_llama

    save_llama(tmp_path / "chat", ends_every=16)
    save_llama(tmp_path / "bare", ends_every=16, seed=1, chat_template=None)
    tokens = [f"{name}.answer_tokens=16" for name in ("mixeval", "mt_bench_101", "alpaca_eval")]
    sets = [word for key in tokens for word in ("--set", key)]
    with ScriptedServer() as server:
        for name in ("chat", "bare"):
            words = [
                "--model",
                tmp_path / name,
                "--judge",
                f"j@{server.base_url}",
                "--data",
                data,
                "--out",
                tmp_path / f"{name}.out",
            ]
            code, printed, errors = in_process("eval", "all", *words, *sets)
            assert code == 0, errors
            assert "PLUMBING" in printed
    for name, form in (("chat", "chat"), ("bare", "instruction")):
        found = scores(tmp_path / f"{name}.out", "mixeval")
        assert found["facts"]["format"] == form
        assert found["model"] == name
        assert 0 < found["figures"]["option_letter_mass"]["value"] < 0.5
        assert found["figures"]["option_text"]["value"] is not None
        assert found["counts"]["unparsed"] == 0
    code, printed, errors = in_process("compare", tmp_path / "chat.out", tmp_path / "bare.out", "--json")
    assert code == 0, errors
    assert [row["benchmark"] for row in json.loads(printed)] == [
        "mixeval",
        "mixeval_hard",
        "mt_bench_101",
        "alpaca_eval",
    ]
    assert re.fullmatch(r"(chat|bare)", json.loads(printed)[0]["first"])
