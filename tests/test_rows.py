"""Given rows through single stages: one row out per row in, whatever is in it."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import AWKWARD, EXAMPLES, in_process

from fineinstructions import rows as hallway
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer, StatusError
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.rows import instantiate_rows
from fineinstructions.runs import Phase, RunFolder, describe_parquet, plan_units

TEMPLATE = "What is <fi>name of a thing</fi>?"
NAMED = ("id", "instruction", "answer", "excerpts", "excerpt_ratio", "judge_score", "rejected_stage", "reason", "draft")
WINDOW = 8


def real_texts(number: int) -> list[str]:
    texts: list[str] = pq.read_table(EXAMPLES / "documents.parquet", columns=["text"])["text"].to_pylist()[:number]
    return texts


def write_rows(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=16)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def check(out: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
    """What holds for every output, whatever the input."""
    assert [row["id"] for row in out] == [row["id"] for row in given]
    for row, source in zip(out, given, strict=True):
        assert (row["answer"] is None) == (row["rejected_stage"] is not None)
        assert (row["reason"] is None) == (row["rejected_stage"] is None)
        assert row["draft"] is None or row["answer"] is None
        text = row["answer"] if row["answer"] is not None else row["draft"]
        for e in row["excerpts"]:
            quoted = text[e["answer_start"] : e["answer_end"]]
            assert quoted == source["document"][e["document_start"] : e["document_end"]] != ""


MIXED: list[dict[str, Any]] = [
    {"id": "a", "query": "What is a glacier?", "document": "A glacier is a body of dense ice that is always moving "
     "downhill under its own weight. It carves valleys as it goes."},
    {"id": "a", "template": TEMPLATE, "document": "A fjord is a long, deep, narrow body of water that reaches "
     "far inland. Fjords are often set in a U-shaped valley with steep walls of rock on either side."},
    {"id": "b", "query": None, "document": "Nothing is asked of this one."},
    {"id": "c", "query": " ", "document": "Nothing is asked of this one either."},
    {"id": "d", "query": "What is a fjord?", "document": None},
    {"id": "e", "query": "What is a fjord?", "document": " \n"},
    {"id": None, "query": "What is a fjord?", "document": "A fjord is a long, deep, narrow body of water."},
    {"id": "f", "template": "What is <fi>?", "document": "A broken template."},
    {"id": "g", "template": "What is this?", "document": "A template without a slot."},
    {"id": "h", "query": "hm", "document": "No question at all."},
    {"id": "i", "query": "What is a glacier?", "template": TEMPLATE, "document": "A glacier is a body of dense ice "
     "that is always moving downhill under its own weight. The template counts where both are given, not the query."},
]  # fmt: skip
EXPECTED = [
    *((None, None), (None, None), ("rows", "missing_query"), ("rows", "empty_query"), ("rows", "missing_document")),
    *(("rows", "empty_document"), ("rows", "missing_id"), ("templates", "broken_template"), ("templates", "no_slot")),
    *(("genericize", "not_a_question"), (None, None)),
]


def test_every_row_comes_out_once_and_in_order(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.parquet", MIXED)
    code, told, errors = in_process("instantiate", source, "--out", tmp_path / "out.parquet", "--json")
    assert code == 0, errors
    out = read(tmp_path / "out.parquet")
    check(out, MIXED)
    assert [(row["rejected_stage"], row["reason"]) for row in out] == EXPECTED
    assert set(NAMED) <= set(out[0])
    assert out[1]["instruction"].startswith("What is")
    assert out[1]["excerpt_ratio"] == 1.0
    assert out[1]["judge_score"] >= 4
    assert 0 < out[1]["answer_tokens"] <= out[1]["generated_tokens"]
    assert set(json.loads(out[0]["models"])) == {"genericizer", "instantiator", "judge"}
    assert set(json.loads(out[1]["models"])) == {"instantiator", "judge"}
    facts = json.loads(told)
    assert (facts["rows"], facts["kept"], facts["failed"]) == (11, 3, 0)
    assert sum(item["rows"] for item in facts["rejected"]) == 8
    assert [(g["slots"], g["tries"], g["kept"]) for g in facts["slots"]] == [("1-3", 3, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "rows.parquet"]


def test_numbers_stay_numbers_and_other_names_are_known(tmp_path: Path) -> None:
    rows = [{"row_id": 7, "question": "What is a fjord?", "text": MIXED[1]["document"]}]
    source = write_rows(tmp_path / "rows.parquet", rows, row_id=pa.int32())
    instantiate_rows(source, tmp_path / "out.parquet", overrides=["judge.min_score=5", "excerpts.min_ratio=0.5"])
    (row,) = read(tmp_path / "out.parquet")
    assert row["id"] == 7
    assert pq.read_schema(tmp_path / "out.parquet").field("id").type == pa.int32()


def test_no_row_in_no_row_out(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.parquet", MIXED[:1])
    pq.write_table(pq.read_table(source).slice(0, 0), source)
    assert instantiate_rows(source, tmp_path / "out.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    code, out, _ = in_process("instantiate", source, "--out", tmp_path / "out [x] :smile:.parquet")
    assert code == 0
    assert "0 rows, 0 kept" in out
    assert out.endswith("out [x] :smile:.parquet\n")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"id": "a", "body": "x", "query": "y"}], "(document, text, context); columns found: id, body, query"),
        ([{"id": "a", "document": "x", "prompt": "y"}], "no column for the query or template"),
        ([{"key": "a", "document": "x", "query": "y"}], "no column for the id"),
    ],
)  # fmt: skip
def test_an_unknown_layout_is_told_with_the_columns_found(tmp_path: Path, rows: Any, line: str) -> None:
    source = write_rows(tmp_path / "rows.parquet", rows)
    code, _, errors = in_process("instantiate", source, "--out", tmp_path / "out.parquet")
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert line in errors
    assert not (tmp_path / "out.parquet").exists()


def test_wrong_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("no parquet", encoding="utf-8")
    assert in_process("instantiate", tmp_path / "rows.parquet", "--out", tmp_path / "out.parquet")[0] == 2
    source = write_rows(tmp_path / "rows.parquet", MIXED)
    for out in (source, tmp_path, source / "below" / "out.parquet"):
        with pytest.raises(ConfigError):
            instantiate_rows(source, out)
    assert len(read(source)) == len(MIXED)


def test_an_output_is_made_again_only_on_demand(tmp_path: Path) -> None:
    source, out = write_rows(tmp_path / "rows.parquet", MIXED), tmp_path / "out.parquet"
    words = ("instantiate", source, "--out", out)
    assert in_process(*words)[0] == 0
    before = out.stat().st_mtime_ns, read(out)
    assert in_process(*words)[0] == 0
    assert (out.stat().st_mtime_ns, read(out)) == before, "the same command does nothing again"
    code, _, errors = in_process(*words, "--set", "judge.min_score=5")
    assert code == 2
    assert errors.endswith("was made of other rows or with other settings; choose another --out, or say --redo\n")
    assert in_process(*words, "--set", "judge.min_score=5", "--redo")[0] == 0
    assert {row["judge_score"] for row in read(out) if row["rejected_stage"] is None} <= {5}
    write_rows(source, MIXED[:1])
    assert "was made of other rows" in in_process(*words, "--set", "judge.min_score=5")[2]
    code, _, errors = in_process(
        "instantiate", source, "--out", write_rows(tmp_path / "foreign.parquet", MIXED), "--redo"
    )
    assert code == 2
    assert "is no output of `instantiate`" in errors
    code, _, errors = in_process("instantiate", tmp_path / "nope.parquet", "--out", tmp_path / "o.parquet")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "nope.parquet: no such file; name a Parquet file with documents" in errors


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_rows_of_another_format_are_refused_with_a_command_that_converts_them(tmp_path: Path, ending: str) -> None:
    table = pq.read_table(write_rows(tmp_path / "kept.parquet", MIXED[:1])).select(["id", "query", "document"])
    source = tmp_path / f"the rows{ending}"
    if ending == ".csv":
        csv.write_csv(table, source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
    code, _, errors = in_process("instantiate", source, "--out", tmp_path / "out.parquet")
    assert (code, errors.count("\n")) == (2, 1)
    assert "rows are read from Parquet only" in errors
    _, _, shown = errors.strip().partition("with python ")
    subprocess.run([sys.executable, *shlex.split(shown)], check=True)
    assert pq.read_table(tmp_path / "the rows.parquet").select(table.column_names).to_pylist() == table.to_pylist()


def test_columns_can_be_named(tmp_path: Path) -> None:
    given = MIXED[0]
    other = [{"key": "k", "body": given["document"], "text": "not this", "query": given["query"]}]
    source = write_rows(tmp_path / "rows.parquet", other)
    words = ("instantiate", source, "--out", tmp_path / "out.parquet", "--column", "document=body")
    assert "no column for the id (id, row_id)" in in_process(*words)[2]
    code, _, errors = in_process(*words, "--column", "id=key")
    assert code == 0, errors
    (row,) = read(tmp_path / "out.parquet")
    assert (row["id"], row["document_chars"]) == ("k", len(given["document"]))
    assert "no such role; known are id, document" in in_process(*words, "--column", "body=key")[2]
    assert "no column 'x' for the id; columns found: key, body" in in_process(*words, "--column", "id=x")[2]


def awkward_rows(number: int) -> list[dict[str, Any]]:
    """Real documents with awkward text in them, with awkward queries and templates."""
    texts = real_texts(number)
    awkward = [*AWKWARD.values()]
    return [
        {
            "id": f"{n % 5}",
            "document": f"{awkward[n % len(awkward)]}\n{text[:3000]}" if n % 2 else text[:3000],
            "query": f"What is {awkward[n % len(awkward)]}?" if n % 3 == 0 else "How do I fix my bike in London?",
            "template": None if n % 4 else TEMPLATE,
        }
        for n, text in enumerate(texts)
    ]


def asking(server: ScriptedServer, **engine: Any) -> dict[str, Any]:
    stages: dict[str, Any] = {name: {"model": "openai"} for name in ("genericize", "instantiate", "judge")}
    llm = {
        "base_url": server.base_url,
        "model": "m",
        "max_in_flight": WINDOW,
        "backoff_seconds": 0.01,
        "max_retries": 1,
    }
    return {**stages, "llm": llm, "engine": {"workers": 1, "unit_rows": 8, **engine}}


def faulty(body: Mapping[str, Any]) -> str:
    """Some drafts quote too little or nothing that is there; some replies are no JSON."""
    reply = str(echo(body))
    if '"instruction_template"' not in str(body["messages"][:2]) or reply == "null":
        return reply
    draft = json.loads(reply)
    kind = len(draft["answer"]) % 5
    if kind == 0:
        draft["answer"] = "I should say, and I have thought about it at some length: " + draft["answer"]
    if kind == 1:
        draft["answer"] = draft["answer"].replace("<excerpt>", "<excerpt>Nowhere to be found in it, ")
    return "Sorry, no JSON today." if kind == 2 else json.dumps(draft)


def test_a_server_is_asked_ahead_and_every_fault_has_its_row(tmp_path: Path) -> None:
    given = awkward_rows(40)
    source = write_rows(tmp_path / "rows.parquet", given)
    with ScriptedServer(faulty, latency_seconds=0.02) as server:
        result = instantiate_rows(source, tmp_path / "out.parquet", asking(server))
        assert WINDOW / 2 < server.max_in_flight <= WINDOW
    assert (result.num_rows, result.num_failed) == (40, 0)
    out = read(tmp_path / "out.parquet")
    check(out, given)
    found = {(row["rejected_stage"], row["reason"]) for row in out}
    assert {("excerpts", "low_excerpt_ratio"), ("excerpts", "excerpt_not_found"), ("select", "low_score")} <= found
    assert {("instantiate", "format"), (None, None)} <= found
    for row in out:
        if row["reason"] == "low_excerpt_ratio":
            assert row["excerpt_ratio"] < 0.8
            assert row["draft"].startswith("I should say")
            assert row["excerpts"]
        if row["reason"] == "excerpt_not_found":
            assert "<excerpt>Nowhere" in row["draft"]
        if row["reason"] == "format":
            assert row["draft"] == "Sorry, no JSON today."
        if row["reason"] == "low_score":
            assert row["draft"]
            assert row["judge_score"] < 4


def test_what_an_engine_failed_on_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    given = awkward_rows(16)
    source = write_rows(tmp_path / "rows.parquet", given)
    with ScriptedServer(faults=lambda body, _: "server_error" if "bike" in str(body) else None) as server:
        result = instantiate_rows(source, tmp_path / "out.parquet", asking(server, workers=0))
        assert result.num_failed > 0
        out = read(tmp_path / "out.parquet")
        check(out, given)
        assert {row["reason"] for row in out if row["failed"]} == {"transport"}
        told = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"fineinstructions.endpoints"])
        assert {stage: entry["answers_as"] for stage, entry in told.items()} == dict.fromkeys(
            ("genericize", "instantiate", "judge"), "m"
        )
        assert "addresses" not in told["judge"]
    with ScriptedServer() as server:
        recipe = asking(server, workers=0)
        again = instantiate_rows(source, tmp_path / "out.parquet", recipe)
        assert again.num_failed == 0
        asked = server.requests.total()
        check(read(tmp_path / "out.parquet"), given)
        whole = read(tmp_path / "out.parquet")
        instantiate_rows(source, tmp_path / "whole.parquet", recipe)
        assert read(tmp_path / "whole.parquet") == whole
        assert server.requests.total() - asked > asked  # the first call's replies were not asked for again
    assert not list(tmp_path.glob("*.work"))


@pytest.mark.slow
def test_a_stopped_call_leaves_nothing_half_and_goes_on(tmp_path: Path) -> None:
    given = awkward_rows(32)
    source = write_rows(tmp_path / "rows.parquet", given)
    asked = []

    def until_it_breaks(body: Mapping[str, Any]) -> str:
        asked.append(body)
        if len(asked) > 40:
            raise StatusError(401, "the key ran out")
        return echo(body)

    with ScriptedServer(until_it_breaks) as server:
        recipe = asking(server, workers=0)
        with pytest.raises(BackendError, match="access denied"):
            instantiate_rows(source, tmp_path / "out.parquet", recipe)
    assert not (tmp_path / "out.parquet").exists()
    with ScriptedServer() as server:
        instantiate_rows(source, tmp_path / "out.parquet", asking(server, workers=0))
        rest = server.requests.total()
        instantiate_rows(source, tmp_path / "whole.parquet", asking(server, workers=0))
        assert server.requests.total() - rest > rest
    assert read(tmp_path / "out.parquet") == read(tmp_path / "whole.parquet")


@pytest.mark.slow
def test_workers_change_no_row(tmp_path: Path) -> None:
    given = awkward_rows(60)
    source = write_rows(tmp_path / "rows.parquet", given)
    for workers in (0, 2):
        instantiate_rows(
            source, tmp_path / f"{workers}.parquet", overrides=[f"engine.workers={workers}", "engine.unit_rows=7"]
        )
    assert read(tmp_path / "0.parquet") == read(tmp_path / "2.parquet")
    check(read(tmp_path / "0.parquet"), given)


def test_a_unit_that_was_given_up_still_has_its_rows(tmp_path: Path) -> None:
    """As the engine leaves it when a worker has died over it three times."""
    given = awkward_rows(24)
    source = write_rows(tmp_path / "rows.parquet", given)
    run = RunFolder.create_or_open(tmp_path / "work", {}, [Phase("rows", "", entry="rows")])
    with run.lease():
        specs = plan_units([describe_parquet(source)], 1 << 30, 8)
        for spec in run.todo("rows", specs):
            run.set_aside("rows", spec, "worker_died")
        tables = [table for spec in specs for table in hallway._outcomes(run, spec)]
    out = pa.concat_tables(tables).to_pylist()
    check(out, given)
    assert {(row["rejected_stage"], row["reason"], row["failed"]) for row in out} == {("rows", "worker_died", True)}


def test_a_title_tells_the_embedded_tier_what_a_document_is_about(tmp_path: Path) -> None:
    table = pq.read_table(EXAMPLES / "documents.parquet", columns=["text", "title", "source"]).to_pylist()
    named = [row for row in table if row["source"].startswith("nih") and row["title"]][:12]
    kept = {}
    for titled in (False, True):
        given = [
            {"id": str(i), "document": row["text"], "query": f"What causes {row['title']}?"}
            | ({"title": row["title"]} if titled else {})
            for i, row in enumerate(named)
        ]
        code, _, errors = in_process(
            "instantiate", write_rows(tmp_path / "r.parquet", given), "--out", tmp_path / "o.parquet", "--redo"
        )
        assert code == 0, errors
        out = read(tmp_path / "o.parquet")
        check(out, given)
        kept[titled] = sum(row["answer"] is not None for row in out)
    assert kept[True] > kept[False]
