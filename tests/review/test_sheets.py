"""The audit's sheet, filled in by people and by a judge over HTTP: whose marks they are, and that none is lost."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions.backends.llm import ChatClient, LlmConfig
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.records import Pair, Rejection, Template
from fineinstructions.review.audit_page import sheet_page
from fineinstructions.review.labels import FAULTS, PAIRS, TEMPLATE_FAULTS, TEMPLATES, Label, add_labels, read_labels
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import drawn_places
from fineinstructions.review.sheet import SheetRow, sheet_text
from fineinstructions.review.sheet_judge import SheetVerdict, judge_sheet, read_verdicts, sheet_prompt
from fineinstructions.review.viewer.catalogue import PairList
from fineinstructions.review.viewer.wanted import Wanted
from fineinstructions.runs import RunFolder
from fineinstructions.runs.tables import tables_of
from fineinstructions.statistics import wilson_interval

CHAT = "/v1/chat/completions"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of some dozens of pairs."""
    root = write_run(tmp_path, some_texts(20), lambda n: n % 3)
    folder = RunFolder.open(root)
    with folder.lease():
        bank = [Template(f"t{n}", f"What is <fi>a thing</fi> {n}?", "A page.", 1, ("q1",)) for n in range(5)]
        folder.publish("templates", Template, tables_of(bank, Template), phase="assemble")
        folder.publish("rejected", Rejection, tables_of([], Rejection), phase="assemble")
    return root


def sheet_of(run: Path) -> list[dict[str, str]]:
    with (run / "audit" / "sheet.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write_sheet(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def quality_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "audit" / "quality.json").read_text(encoding="utf-8"))
    return found


def brain(body: Mapping[str, Any]) -> str:
    """Finds fault with pairs number 1, says nothing sensible of pairs of document 19."""
    said = body["messages"][1]["content"]  # however often it is asked
    if '"description"' in said:
        return json.dumps({"reason": "a name", **dict.fromkeys(TEMPLATE_FAULTS, False), "particulars": " 3?" in said})
    if "of document 19 " in said:
        return "I would rather not."
    faults = dict.fromkeys(FAULTS, False) | {"hallucination": "pair 1 of" in said, "unanswerable": "direct" in said}
    return json.dumps({"reason": "so it seems", **faults})


def test_a_judge_fills_in_the_sheet_under_its_own_name(run: Path, tmp_path: Path) -> None:
    direct = {"instruction": [f"A direct question {n}?" for n in range(4)], "answer": ["yes"] * 4}
    pq.write_table(pa.table(direct), tmp_path / "direct.parquet")
    words = ["audit", run, "--pairs", "19", "--against", tmp_path / "direct.parquet"]
    code, _, errors = in_process(*words)
    assert code == 0, errors
    first = next(row["pair_id"] for row in sheet_of(run) if "pair 0 of" in row["instruction"])
    add_labels(run, [Label(first, ("factual_error",), "says a person")])
    with ScriptedServer(brain, models=["judge-8b"]) as server:
        judged = [*words, "--judge", f"judge-8b@{server.base_url}"]
        code, printed, errors = in_process(*judged)
        assert code == 0, errors
        asked = server.requests[CHAT]
        assert in_process(*judged)[0] == 0
        new = server.requests[CHAT] - asked
        assert new < 19, "what is judged is not asked again, but for what the server can do"
    found = quality_of(run)
    said = found["judges"]["judge-8b"]
    rows = sheet_of(run)
    mute = [row for row in rows if "of document 19 " in row["instruction"]]
    wrong = [row for row in rows if "pair 1 of" in row["instruction"] and row not in mute]
    assert said["num_unparsed"] == len(mute) > 0
    rate = {arm: {r["name"]: (r["num_wrong"], r["num_judged"]) for r in of} for arm, of in said["rates"].items()}
    assert rate["run"]["hallucination"] == (len(wrong), 19 - len(mute))
    assert rate["direct"]["unanswerable"] == (4, 4)
    assert said["difference"]["unanswerable"][1] < 0, "fewer than among the direct ones"
    assert (said["num_both"], said["num_agreed"]) == (1, 0)
    assert found["rates"]["run"][0]["num_judged"] == 1, "people's figures are theirs alone"
    by = {row["pair_id"]: (row["by"], row["judged"], row["note"]) for row in rows}
    assert by[first] == ("", "x", "says a person")
    assert all(by[row["pair_id"]] == ("", "", "") for row in mute), "what could not be read stays empty"
    assert all(by[row["pair_id"]] == ("judge judge-8b", "x", "so it seems") for row in wrong)
    verdicts = read_verdicts(run)["judge-8b"]
    assert {verdicts[row["pair_id"]].raw for row in mute} == {"I would rather not."}
    assert len(verdicts) == 23
    assert set(read_labels(run)) == {first}, "a judge's marks in the sheet are nobody's labels"
    assert "judge-8b" in printed
    for page in ("audit.md", "index.html"):
        assert "By judge-8b, a language model and no person" in (run / "audit" / page).read_text(encoding="utf-8")
    sheet = (run / "audit" / "sheet.html").read_text(encoding="utf-8")
    assert sheet.index(rows[0]["pair_id"]) < sheet.index(rows[-1]["pair_id"])
    assert "judge-8b" not in sheet


def test_a_judge_that_follows_a_script_is_called_so_and_one_that_fails_leaves_rows(run: Path) -> None:
    with ScriptedServer(brain) as server:  # calls itself "scripted"
        code, _, errors = in_process("audit", run, "--pairs", "12", "--judge", f"m@{server.base_url}")
        assert code == 0, errors
    assert list(quality_of(run)["judges"]) == ["m [PLUMBING]"]

    def faulty(body: Mapping[str, Any], _: int) -> Any:
        return "server_error" if "pair 0 of" in str(body) else None

    recipe = run / "recipe.resolved.yaml"
    plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    recipe.write_text(yaml.safe_dump(plain | {"llm": plain["llm"] | {"max_retries": 0}}), encoding="utf-8")
    words = ["audit", run, "--pairs", "12", "--judge"]
    with ScriptedServer(brain, models=["other"], faults=faulty) as server:
        code, _, errors = in_process(*words, f"other@{server.base_url}")
    failed = sum("pair 0 of" in row["instruction"] for row in sheet_of(run))
    assert 0 < failed < 12
    assert (code, f"{failed} row" in errors) == (1, True), errors
    assert len(read_verdicts(run)["other"]) == 12 - failed
    with ScriptedServer(brain, models=["other"]) as server:
        assert in_process(*words, f"other@{server.base_url}")[0] == 0
    assert len(read_verdicts(run)["other"]) == 12


def test_the_judge_sees_template_and_query_unless_direct_pairs_are_judged_beside(run: Path, tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    def note(body: Mapping[str, Any]) -> str:
        said = body["messages"][-1]["content"]
        asked.extend([json.loads(said)] if said.startswith("{") and '"answer"' in said else [])
        return json.dumps({"reason": "", **dict.fromkeys((*FAULTS, *TEMPLATE_FAULTS), False)})

    pairs = {pair.pair_id: pair for pair in RunFolder.open(run).published_records("pairs", Pair)}
    with ScriptedServer(note, models=["m", "other"]) as server:
        assert in_process("audit", run, "--pairs", "5", "--judge", f"m@{server.base_url}")[0] == 0
        drawn = {pairs[row["pair_id"]].instruction: pairs[row["pair_id"]].template_id for row in sheet_of(run)}
        words = {f"t{n}": f"What is <fi>a thing</fi> {n}?" for n in range(5)}
        assert {job["instruction"]: job.get("template") for job in asked} == {
            instruction: words.get(template_id) for instruction, template_id in drawn.items()
        }
        assert any("template" in job for job in asked)
        assert {row["instruction"]: row["template"] or None for row in sheet_of(run)} == {
            instruction: words.get(template_id) for instruction, template_id in drawn.items()
        }
        page = run / "audit" / "sheet.html"
        assert "template: What is &lt;fi&gt;a thing" in page.read_text(encoding="utf-8")
        asked.clear()
        pq.write_table(pa.table({"instruction": ["A direct question?"], "answer": ["yes"]}), tmp_path / "d.parquet")
        against = ("--against", tmp_path / "d.parquet", "--judge", f"other@{server.base_url}")
        assert in_process("audit", run, "--pairs", "5", *against)[0] == 0
        assert len(asked) == 6 and not any("template" in job for job in asked)
        assert [(row["template"], row["query"]) for row in sheet_of(run)] == [("", "")] * 6
        assert "template: " not in page.read_text(encoding="utf-8")
        asked.clear()
        row = SheetRow(
            "p", "run", ("What is a lake?", "Water.", "Text.", "What is <fi>a thing</fi>?", "what is a pond")
        )
        with ChatClient(LlmConfig(base_url=server.base_url, model="m")) as client:
            (verdict,) = judge_sheet([row], client, "m", sheet_prompt(None))
        assert isinstance(verdict, SheetVerdict) and verdict.faults == ()
        assert [(job["template"], job["query"]) for job in asked] == [row.texts[3:]]
    (cells,) = csv.DictReader(sheet_text([row], {}, 0).splitlines())
    assert (cells["template"], cells["query"]) == row.texts[3:]
    assert "query: what is a pond \u00b7 p<" in sheet_page([row])


def test_the_prompt_names_the_faults_and_may_be_another(run: Path, tmp_path: Path) -> None:
    for of in (PAIRS, TEMPLATES):
        text = sheet_prompt(None, of).system
        assert all(text.count(f"\n{fault}: ") == text.count(f'"{fault}": true or false') == 1 for fault in of.faults)
    (tmp_path / "own.txt").write_text("Be strict.\n=== user ===\n{{instruction}} {{nothing}}", encoding="utf-8")
    code, _, errors = in_process("audit", run, "--judge", "m@http://127.0.0.1:9/v1", "--prompt", tmp_path / "own.txt")
    assert (code, "unknown place {{nothing}}" in errors) == (2, True)
    code, _, errors = in_process("audit", run, "--prompt", tmp_path / "own.txt")
    assert (code, "--judge" in errors) == (2, True)


def test_templates_have_a_sheet_of_their_own(run: Path, tmp_path: Path) -> None:
    """Filled in by a person and by a judge; two of five judged, one of them wrong."""
    with ScriptedServer(brain, models=["judge-8b"]) as server:
        code, _, errors = in_process("audit", run, "--judge", f"judge-8b@{server.base_url}")
    assert code == 0, errors
    with (run / "audit" / "templates.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["template_id"] for row in rows} == {f"t{n}" for n in range(5)}
    assert [row["template_id"] for row in rows if row["particulars"]] == ["t3"]
    assert {row["by"] for row in rows} == {"judge judge-8b"}
    assert {row["description"] for row in rows} == {"A page."}
    one, other = ({**row, "by": "", "particulars": ""} for row in rows[:2])
    write_sheet(tmp_path / "filled.csv", [one | {"bad_slot": "x", "note": "of what?"}, other])
    code, printed, errors = in_process("audit", run, "--sheet", tmp_path / "filled.csv")
    assert code == 0, errors
    labels = {one["template_id"]: Label(one["template_id"], ("bad_slot",), "of what?")}
    assert read_labels(run, TEMPLATES) == labels | {
        other["template_id"]: Label(other["template_id"], (), other["note"])
    }
    assert read_labels(run) == {}, "no pair was labelled"
    found = quality_of(run)["templates"]
    rates = {rate["name"]: (rate["num_wrong"], rate["num_judged"]) for rate in found["rates"]["run"]}
    assert rates == {"any": (1, 2), **dict.fromkeys(TEMPLATE_FAULTS, (0, 2)), "bad_slot": (1, 2)}
    assert (found["rates"]["run"][0]["low"], found["rates"]["run"][0]["high"]) == pytest.approx(
        wilson_interval(1, 2), abs=1e-6
    )
    judged = found["judges"]["judge-8b"]
    assert {rate["name"]: rate["num_wrong"] for rate in judged["rates"]["run"]}["particulars"] == 1
    assert judged["num_both"] == 2
    assert "bad slot" in printed and "templates" in printed
    for page in ("audit.md", "index.html"):
        assert "A sample of 5 templates" in (run / "audit" / page).read_text(encoding="utf-8")
    write_sheet(tmp_path / "filled.csv", [one | {"template_id": "t9"}])
    code, _, errors = in_process("audit", run, "--sheet", tmp_path / "filled.csv")
    assert (code, "template 't9' is not in this audit" in errors) == (2, True)


def test_marks_in_the_audits_own_sheet_are_taken_over(run: Path) -> None:
    assert in_process("audit", run, "--pairs", "6")[0] == 0
    rows = sheet_of(run)
    rows[0] |= {"semantic_drift": "x", "note": "=drifts, \u2028 he said"}
    rows[1] |= {"judged": "x"}
    write_sheet(run / "audit" / "sheet.csv", rows)
    code, _, errors = in_process("audit", run, "--pairs", "6", "--seed", "9")  # draws other pairs
    assert code == 0, errors
    assert read_labels(run) == {
        rows[0]["pair_id"]: Label(rows[0]["pair_id"], ("semantic_drift",), "=drifts, \u2028 he said"),
        rows[1]["pair_id"]: Label(rows[1]["pair_id"], ()),
    }
    assert in_process("audit", run, "--pairs", "6")[0] == 0
    assert quality_of(run)["rates"]["run"][0]["num_judged"] == 2


def test_a_sheet_goes_back_with_the_options_that_it_was_made_with(run: Path, tmp_path: Path) -> None:
    assert in_process("audit", run, "--pairs", "6", "--seed", "3")[0] == 0
    rows = [row | {"judged": "x"} for row in sheet_of(run)]
    write_sheet(tmp_path / "filled.csv", rows)
    assert in_process("audit", run, "--pairs", "6", "--seed", "3", "--sheet", tmp_path / "filled.csv")[0] == 0
    assert quality_of(run)["rates"]["run"][0]["num_judged"] == 6
    code, _, errors = in_process("audit", run, "--pairs", "1", "--seed", "3", "--sheet", tmp_path / "filled.csv")
    assert (code, "--pairs" in errors) == (2, True)


def test_labels_with_line_separators_stay_whole(tmp_path: Path) -> None:
    labels = [Label("p-1", (), "one\u2028two\u2029three\x85four\x0bfive"), Label("p-2", ("hallucination",))]
    add_labels(tmp_path, labels)
    assert list(read_labels(tmp_path).values()) == labels


def test_a_search_in_the_audits_sample_keeps_the_places_of_the_draw(run: Path) -> None:
    rows = Rows(sorted((run / "pairs").glob("*.parquet")))
    pairs = PairList(rows, 4, seed=1)
    assert (np.diff(pairs.drawn) < 0).any(), "drawn in another order than that of the table"
    for row in pairs.drawn.tolist():
        wanted = rows.take([row], ["instruction"])[0]["instruction"]
        page = pairs.page(Wanted(sample=1, q=wanted))
        assert page.rows == [row]
        listed = pairs.listed(Wanted(sample=1, q=wanted))
        assert [int(listed[place]) for place in page.places] == [row], "the link leads to the pair that was found"


def test_a_draw_depends_on_seed_and_ids_alone(tmp_path: Path) -> None:
    ids = [f"p-{n:016x}" for n in range(5000)]

    def drawn(order: list[str], count: int, seed: int, group_rows: int) -> list[str]:
        pq.write_table(pa.table({"pair_id": order}), tmp_path / "part.parquet", row_group_size=group_rows)
        rows = Rows([tmp_path / "part.parquet"])
        return [order[place] for place in drawn_places(rows, "pair_id", count, seed)]

    few = drawn(ids, 100, 3, 64)
    assert drawn(ids[::-1], 100, 3, 1000) == few == drawn(ids, 200, 3, 64)[:100]
    assert set(drawn(ids, 100, 4, 64)) != set(few)
    assert len(set(drawn(ids, 6000, 3, 64))) == 5000
    assert drawn(ids, 0, 3, 64) == []
    quarters = np.bincount([ids.index(one) // 1250 for one in drawn(ids, 1000, 5, 64)], minlength=4)
    assert (np.abs(quarters - 250) < 75).all(), "every quarter of the table is drawn from"


def test_ids_are_found_however_long_and_alike_they_are(tmp_path: Path) -> None:
    tail = "x" * 30
    ids = ["", "a", "ab", "ä", *(f"{n}{tail}" for n in range(100)), "last"]
    for number, part in enumerate((ids[:50], ids[50:])):
        pq.write_table(pa.table({"pair_id": part}), tmp_path / f"part-{number}.parquet", row_group_size=7)
    rows = Rows(sorted(tmp_path.glob("*.parquet")))
    assert [rows.find("pair_id", one) for one in ids] == list(range(len(ids)))
    assert [rows.find("pair_id", one) for one in ("b", f"z{tail}", "lost", f"100{tail}")] == [None] * 4


def test_a_reply_of_a_judge_is_read_strictly() -> None:
    from fineinstructions.backends.chat import ChatReply
    from fineinstructions.review.sheet_judge import _read

    whole = dict.fromkeys(FAULTS, False) | {"semantic_drift": True, "reason": "r"}
    text = f"<think>hm</think>```json\n{json.dumps(whole)}\n```"
    assert _read(ChatReply(text, "stop", 1, 1), PAIRS) == (("semantic_drift",), "r", text)
    for wrong in (whole | {"hallucination": "no"}, {k: v for k, v in whole.items() if k != "unanswerable"}):
        with pytest.raises(ValueError, match=r"hallucination|unanswerable"):
            _read(ChatReply(json.dumps(wrong), "stop", 1, 1), PAIRS)
