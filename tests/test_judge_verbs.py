"""judge calibrate through the command line: the embedded judge, a served one over HTTP, and the judge of a run."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import in_process, take_documents, write_recipe

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.config import load, to_plain
from fineinstructions.recipe import RunConfig
from fineinstructions.runs import RunFolder

QUESTIONS = [f"What is the capital of country number {number}?" for number in range(24)]
GOOD = "The capital of that country is a large city on a river, and its name is on every map."
BAD = "of and the"
CHAT = "/v1/chat/completions"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs whose better answer is plain to see, shown first in every other row."""
    rows = [
        {
            "instruction": question,
            "output_1": GOOD if number % 2 else BAD,
            "output_2": BAD if number % 2 else GOOD,
            "label": 1 if number % 2 else 2,
            "subset": "odd" if number % 2 else "even",
        }
        for number, question in enumerate(QUESTIONS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def grade(body: Any) -> str:
    """Knows a good answer by its length, is sure of nothing, and has nothing to say about one question."""
    said = next(m["content"] for m in body["messages"] if m["role"] == "user")
    if QUESTIONS[3] in said:
        return "I would rather not say."
    return f"Feedback: 4 of 5 words are well chosen. [RESULT] {4 if GOOD in said else 3}"


def recipe(folder: Path, server: ScriptedServer, **judge: Any) -> Path:
    settings = {"model": "openai", "protocol": "prometheus", **judge}
    llm = {"base_url": server.base_url, "model": "m", "max_reasks": 0, "max_retries": 1, "backoff_seconds": 0.002}
    (folder / "judge.yaml").write_text(yaml.safe_dump({"judge": settings, "llm": llm}), encoding="utf-8")
    return folder / "judge.yaml"


def values(facts: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in facts["sets"][0]["figures"]}


def test_the_embedded_judge_and_what_is_written(pairs: Path, tmp_path: Path) -> None:
    code, out, errors = in_process("judge", "calibrate", pairs, "--out", tmp_path / "out", "--json")
    assert code == 0, errors
    facts = json.loads(out)
    assert facts == json.loads((tmp_path / "out" / "judge-calibration.json").read_text(encoding="utf-8"))
    assert facts["judge"]["name"] == "embedded-judge"
    assert values(facts) == {
        "accuracy": 1.0,
        "first preferred": 0.5,
        "first labelled better": 0.5,
        "position bias": 0.0,
    }
    assert facts["sets"][0]["columns"]["first"] == "output_1"
    page = (tmp_path / "out" / "judge-calibration.md").read_text(encoding="utf-8")
    assert "24 of 24 rows judged (48 answers), 0 ties" in page
    assert "| even | 1.000 | 1.000 to 1.000 | 12 |" in page
    verdicts = pq.read_table(tmp_path / "out" / "judge-verdicts.parquet").to_pylist()
    assert len(verdicts) == 48
    assert [v["judge_score"] > 3 for v in verdicts] == [
        shown == GOOD for n in range(24) for shown in ((GOOD, BAD) if n % 2 else (BAD, GOOD))
    ]


def test_names_of_subsets_are_text_and_nothing_else(pairs: Path, tmp_path: Path) -> None:
    rows = pq.read_table(pairs).to_pylist()
    names = {"odd": "a [/b] :smile: [red]c[/]", "even": "d | e <!-- f"}
    table = pa.Table.from_pylist([row | {"subset": names[row["subset"]]} for row in rows])
    path = tmp_path / "set [bold].parquet"
    pq.write_table(table, path)
    out_folder = tmp_path / "out [/bold]"
    code, out, errors = in_process("judge", "calibrate", path, "--out", out_folder)
    assert code == 0, errors
    assert all(name in out for name in names.values())
    assert "set [bold]" in out
    page = (out_folder / "judge-calibration.md").read_text(encoding="utf-8")
    assert "| a \\[/b] :smile: \\[red]c\\[/] | 1.000 |" in page
    assert "| d \\| e \\<\\!-- f | 1.000 |" in page
    assert "## set \\[bold]" in page


def test_a_person_sees_tables(pairs: Path, tmp_path: Path) -> None:
    code, out, errors = in_process("judge", "calibrate", pairs, "--limit", "10")
    assert code == 0, errors
    assert "10 of 10 rows judged (20 answers)" in out
    assert "14 rows left out (beyond the limit 14)" in " ".join(out.split())
    assert "position bias: the difference of those two" in out
    assert "not written; give --out" in out
    assert list(tmp_path.iterdir()) == [pairs]


def test_a_served_judge_is_asked_once_whatever_happens_in_between(pairs: Path, tmp_path: Path) -> None:
    with ScriptedServer(grade, models=["m"], max_model_len=4096) as server:
        words = ("judge", "calibrate", pairs, "--config", recipe(tmp_path, server), "--out", tmp_path / "out", "--json")
        code, out, errors = in_process(*words)
        assert code == 0, errors
        asked = server.requests[CHAT]
        again = in_process(*words)
        assert (again[0], again[1]) == (0, out)
        assert 48 < asked <= 48 + 6  # and a few to find out what the model can do, which is kept
        assert server.requests[CHAT] == asked
        assert json.loads((tmp_path / "out" / "endpoints.json").read_text())["judge"]["logprobs"] is True
    facts = json.loads(out)
    (found,) = facts["sets"]
    assert (facts["judge"]["protocol"], facts["judge"]["max_model_len"]) == ("prometheus", 4096)
    assert (found["num_rows"], found["num_judged"], found["unscored"]) == (24, 23, {"unparseable": 2})
    assert values(facts)["accuracy"] == values(facts)["accuracy by expected score"] == 1.0
    verdicts = pq.read_table(tmp_path / "out" / "judge-verdicts.parquet").to_pylist()
    mute = [v for v in verdicts if v["reason"]]
    assert [(v["reason"], json.loads(v["record"])["raw"]) for v in mute] == [
        ("unparseable", "I would rather not say.")
    ] * 2
    assert all(3 < v["judge_expected_score"] < 4 for v in verdicts if v["judge_score"] == 4)


def test_answers_that_an_engine_failed_on_are_told_and_asked_again(pairs: Path, tmp_path: Path) -> None:
    down = [True]

    def faults(body: Any, times: int) -> Any:
        return "unavailable" if down[0] and QUESTIONS[5] in json.dumps(body) else None

    with ScriptedServer(grade, faults=faults) as server:
        words = ("judge", "calibrate", pairs, "--config", recipe(tmp_path, server), "--out", tmp_path / "out", "--json")
        code, out, errors = in_process(*words)
        assert code == 1
        assert "2 answers failed; run the same command again" in errors
        assert json.loads(out)["sets"][0]["unscored"] == {"transport": 2, "unparseable": 2}
        down[0] = False
        code, out, _ = in_process(*words)
        assert code == 0
        assert json.loads(out)["sets"][0]["unscored"] == {"unparseable": 2}


def test_the_document_is_shown_where_a_recipe_wants_it(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": "So.", "label": 1, "context": "A text about whales."}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "label": 0, "question": "How?"}), encoding="utf-8")
    with ScriptedServer(lambda body: "[RESULT] 4", keep_bodies=True) as server:
        config = recipe(tmp_path, server, with_document=True, logprobs=False)
        assert in_process("judge", "calibrate", path, "--config", config)[0] == 0
        asked = [body["messages"][-1]["content"] for body in server.bodies if body["messages"][-1]["content"] != "Go."]
        assert asked
        assert all("A text about whales." in content for content in asked)
        path.write_text(json.dumps({"question": "Why?", "answer": "So.", "label": 1}), encoding="utf-8")
        code, _, errors = in_process("judge", "calibrate", path, "--config", config)
    assert code == 2
    assert "--column document=NAME or set judge.with_document=false" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-file.parquet"], ".txt); check the path\n"),
        (["{pairs}", "--column", "instruction"], "say ROLE=NAME"),
        (["{pairs}", "--set", "judge.protocol=grades"], "judge.protocol"),
        (["{pairs}", "--config", "a.yaml", "--run", "b"], "give either --config or --run"),
    ],
)
def test_mistakes_are_one_line(pairs: Path, words: list[str], said: str) -> None:
    code, _, errors = in_process("judge", "calibrate", *(word.format(pairs=pairs) for word in words))
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_the_judge_of_a_run_is_measured_into_its_report(tmp_path: Path, pairs: Path, bank: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 12, every=30)
    path = write_recipe(tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine={"workers": 0})
    assert in_process("run", path, "--out", tmp_path / "run")[0] == 0
    code, out, errors = in_process("judge", "calibrate", pairs, "--run", tmp_path / "run", "--json")
    assert code == 0, errors
    assert json.loads(out)["sets"][0]["num_judged"] == 24
    report = tmp_path / "run" / "report"
    assert (report / "judge-calibration.md").exists()
    assert in_process("verify", tmp_path / "run")[0] == 0
    code, _, errors = in_process("report", tmp_path / "run")
    assert code == 0, errors
    page = (report / "report.md").read_text(encoding="utf-8")
    section = page.split("## The judge beside labelled answers")[1].split("\n## ")[0]
    for figure in json.loads(out)["sets"][0]["figures"]:
        assert f"| {figure['name']} | {figure['value']:.3f} |" in section
    assert "The judge beside labelled answers" in (report / "index.html").read_text(encoding="utf-8")
    (report / "judge-calibration.json").write_text("[]", encoding="utf-8")
    code, _, errors = in_process("report", tmp_path / "run")
    assert (code, "no calibration" in errors) == (1, True)


def test_another_judge_leaves_the_run_as_it_is(pairs: Path, tmp_path: Path) -> None:
    """Who only looks at a run has not its lease: what is found out about a model is kept beside it."""
    with ScriptedServer(grade, max_model_len=4096) as server:
        config = load(recipe(tmp_path, server), RunConfig)
        run = RunFolder.create_or_open(tmp_path / "run", to_plain(config), [])
        with run.lease():
            known = {"judge": {"engine": "server", "model": "of the run"}}
            (run.root / "endpoints.json").write_text(json.dumps(known), encoding="utf-8")
        words = ("judge", "calibrate", pairs, "--run", run.root, "--json")
        code, out, errors = in_process(*words)
        assert code == 0, errors
        asked = server.requests[CHAT]
        assert in_process(*words)[1] == out
        assert server.requests[CHAT] == asked
    assert json.loads(out)["judge"]["max_model_len"] == 4096
    assert json.loads((run.root / "endpoints.json").read_text(encoding="utf-8")) == known
    assert json.loads((run.root / "report" / "endpoints.json").read_text())["judge"]["model"] == "m"
