"""The command line as people and programs meet it: help, progress, looking at runs, the doctor."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import (
    EXAMPLES,
    call,
    command,
    doctor_checks,
    ended,
    in_process,
    output_json,
    rows,
    take_documents,
    write_recipe,
)
from rich.console import Console
from rich.text import Text

from fineinstructions.cli.reporters import Lines
from fineinstructions.cli.show import Shown

pytestmark = pytest.mark.xdist_group("cli")

ROOT = Path(__file__).parent.parent
HEAVY = ("faiss", "openai", "pyarrow.dataset", "rensa", "py3langid", "torch", "rich.progress", "fsspec", "pandas")
VERBS = (
    "run",
    "status",
    "verify",
    "pack",
    "inspect",
    "explain",
    "try",
    "doctor",
    "schema",
    "templates",
    "instantiate",
    "yields",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """A recipe over a bank of the first example queries."""
    documents = take_documents(folder / "documents.parquet", 24, every=16)
    queries = {"path": str(EXAMPLES / "queries.parquet"), "limit": 2000}
    path = write_recipe(folder, documents, queries=queries, engine={"workers": 0, "unit_rows": 8})
    assert call("templates", "build", path, "--out", folder / "bank").returncode == 0
    return write_recipe(
        folder,
        documents,
        queries=None,
        templates={"bank": str(folder / "bank")},
        engine={"workers": 0, "unit_rows": 8},
    )


@pytest.fixture(scope="module")
def finished(folder: Path, recipe: Path) -> Path:
    code, _, errors = in_process("run", recipe, "--out", folder / "run")
    assert code == 0, errors
    return folder / "run"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(word: str) -> None:
    program = f"""
import sys
sys.argv = ["fineinstructions", "{word}"]
from fineinstructions.cli import main
try:
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    if word == "--help":
        assert all(f" {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", ["status", "inspect"])
def test_looking_at_a_run_imports_nothing_for_others(verb: str, finished: Path) -> None:
    unneeded = set(HEAVY) - {"fsspec", "pyarrow.dataset"}  # with which files are found and tables are read
    program = f"""
import sys
sys.argv = ["fineinstructions", "{verb}", {str(finished)!r}]
from fineinstructions.cli import main
try:
    main()
except SystemExit:
    pass
unneeded = {unneeded!r} | {{"fineinstructions.pipeline", "fineinstructions.engines.worker", "aiohttp"}}
unneeded |= {{"fineinstructions.review.audit_page", "fineinstructions.review.diversity"}}
print(sorted(unneeded & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    code, out, _ = in_process(verb, "--help")
    assert code == 0
    assert "Usage: fineinstructions" in out


def test_a_wrong_word_is_told_with_the_nearest_option(tmp_path: Path, recipe: Path) -> None:
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--wrokers", "1")
    assert code == 2
    assert "--workers" in errors
    assert in_process("rnu")[0] == 2
    assert in_process("run", recipe)[0] == 2


def test_progress_is_json_lines_for_machines(tmp_path: Path, recipe: Path) -> None:
    done = call("run", recipe, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    phases = ["input", "templates", "index", "candidates", "popularity", "matches", "pairs", "assemble"]
    assert [e["phase"] for e in events if e["event"] == "start"] == phases
    assert [e["phase"] for e in events if e["event"] == "done"] == phases
    assert all(e["units_done"] == e["units"] for e in events if e["event"] == "done")
    facts = json.loads(done.stdout)
    assert facts["rows"]["pairs"] == len(rows(tmp_path / "run", "pairs"))
    assert [stage["stage"] for stage in facts["funnel"]][:2] == ["templates", "documents"]
    again = call("run", recipe, "--out", tmp_path / "run", "--json")
    assert json.loads(again.stdout)["units_done"] == 0
    assert again.stderr == ""


def test_progress_is_plain_lines_in_a_log(tmp_path: Path, recipe: Path) -> None:
    code, out, errors = in_process("run", recipe, "--out", tmp_path / "run")
    assert code == 0
    assert ": start" not in errors
    assert errors.count("pairs: done, 3/3 units") == errors.count("pairs: done") == 1
    assert "\x1b" not in out + errors
    assert f"{tmp_path / 'run'}/pairs/" in out.replace("\n", "")


def on_a_terminal(*words: str | Path, columns: int = 100) -> tuple[int, str]:
    """Run the program on a pseudo-terminal; gives the exit code and everything it painted."""
    mine, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
    driver = subprocess.Popen(command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    painted = b""
    while True:
        if select.select([mine], [], [], 0.1)[0]:
            try:
                piece = os.read(mine, 1 << 16)
            except OSError:  # how Linux says that the other end is closed
                break
            painted += piece
        elif driver.poll() is not None:
            break
    os.close(mine)
    return driver.wait(timeout=60), painted.decode("utf-8", "replace")


def test_progress_is_bars_on_a_terminal(tmp_path: Path, recipe: Path) -> None:
    code, painted = on_a_terminal("run", recipe, "--out", tmp_path / "run")
    assert code == 0, painted
    assert "Traceback" not in painted
    assert all(phase in painted for phase in ("matches", "pairs", "assemble", "━━━"))
    assert "rows/s" in painted
    code, painted = on_a_terminal("run", recipe, "--out", tmp_path / "run", columns=60)
    assert code == 0, painted
    assert "nothing to do" in painted
    assert "━━━" not in painted


def test_a_mistake_on_a_terminal_is_one_line(tmp_path: Path, recipe: Path) -> None:
    code, painted = on_a_terminal("run", recipe, "--out", tmp_path / "run", "--set", "documents.path=nowhere.parquet")
    assert code == 2
    assert "Traceback" not in painted
    assert "nowhere.parquet: no such file" in painted


def test_a_log_has_a_line_while_a_phase_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fineinstructions.cli.reporters._FIRST_LINE_SECONDS", 0.01)
    with Lines() as lines:
        lines.start("index", 1, 0)
        told = ""
        while not told:
            told += capsys.readouterr().err
        assert re.fullmatch(r"index: progress, 0/1 units, \d+\.\d s\n", told)
        lines.finish("index")
        assert re.fullmatch(r"index: done, 1/1 units, \d+\.\d s\n", capsys.readouterr().err)
        lines.start("pairs", 2, 2)
        lines.finish("pairs")
    assert capsys.readouterr().err == ""


def test_what_is_quoted_is_marked_where_nothing_is_coloured() -> None:
    shown = Shown(Text("It is said: to be or not."), ((12, 17), (21, 24)), max_chars=23)
    for colours, expected in ((None, "It is said: «to be» or «no» ...\n"), ("truecolor", "to be\x1b[0m or")):
        console = Console(file=io.StringIO(), force_terminal=bool(colours), color_system=colours, width=80)
        console.print(shown)
        painted = console.file.getvalue()
        assert expected in painted and ("«" in painted) == (colours is None)


def test_inspect_and_explain_mark_quotations_in_a_pipe(finished: Path) -> None:
    pair = next(pair for pair in rows(finished, "pairs") if pair["excerpts"])
    excerpt = pair["excerpts"][0]
    start = pair["answer"][excerpt["answer_start"] : excerpt["answer_end"]].split()[0]
    assert f"«{start}" in ended("explain", finished, pair["pair_id"])
    assert "«" in ended("inspect", finished, "--pairs", "1", "--rejections", "0")


def test_documents_cannot_steer_the_terminal(tmp_path: Path, recipe: Path) -> None:
    """Escape sequences of a document are not sent on; its title and answer are shown as plain text."""
    row = {
        "id": "a\x1b[2J",
        "title": "Evil \x1b]0;title\x07 \u202e",
        "text": "Plants turn \x1b[31mlight, water and carbon dioxide into sugar and oxygen by photosynthesis.",
    }
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    words = ["--set", f"documents.path={tmp_path / 'd.jsonl'}", "--set", "retrieve.min_cosine=-1.0"]
    shown = ended("run", recipe, "--out", tmp_path / "run", *words)
    shown += ended("inspect", tmp_path / "run")
    for pair in rows(tmp_path / "run", "pairs"):
        shown += ended("explain", tmp_path / "run", pair["pair_id"])
    shown += ended("try", tmp_path / "d.jsonl", "--query", "What is photosynthesis?", "--title", row["title"])
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_doctor_looks_at_the_machine_and_the_recipe(tmp_path: Path, recipe: Path, folder: Path) -> None:
    code, found = doctor_checks(recipe, "--out", tmp_path / "not" / "yet" / "there")
    assert code == 0, found
    assert found["documents"] == (True, str(folder / "documents.parquet"))
    assert found["bank"][1].endswith(f"templates in {folder / 'bank'}")
    assert "disk" in found
    assert "ok    python" in ended("doctor")
    code, found = doctor_checks(tmp_path / "absent.yaml")
    assert code == 1
    assert "no such recipe" in found["recipe"][1]
    broken = tmp_path / "r.yaml"
    broken.write_text(yaml.safe_dump({"documents": {"path": "nowhere.csv"}, "templates": {"bank": "nowhere"}}))
    code, found = doctor_checks(broken)
    assert code == 1
    assert not found["documents"][0]
    assert not found["bank"][0]


def test_schema_describes_every_recipe_that_ships() -> None:
    schema = json.loads(ended("schema"))
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    for path in sorted(set((ROOT / "recipes").glob("*.yaml")) - {ROOT / "recipes" / "pretrain.yaml"}):
        check_against(schema, schema, yaml.safe_load(path.read_text(encoding="utf-8")), path.name)


def check_against(schema: dict[str, Any], part: dict[str, Any], value: Any, place: str) -> None:
    """As much of JSON schema as our recipes need: keys, types and references."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if "anyOf" in part:
        fitting = [p for p in part["anyOf"] if "$ref" in p or p.get("type") == kind_of(value)]
        assert fitting, f"{place}: {value!r}"
        part = schema["$defs"][fitting[0]["$ref"].rpartition("/")[2]] if "$ref" in fitting[0] else fitting[0]
    assert part.get("type", kind_of(value)) == kind_of(value), f"{place}: {value!r}"
    assert value in part.get("enum", [value]), f"{place}: {value!r}"
    for key, inner in value.items() if isinstance(value, dict) and "properties" in part else ():
        assert key in part["properties"], f"{place}.{key}"
        check_against(schema, part["properties"][key], inner, f"{place}.{key}")


def kind_of(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return kinds.get(type(value), "null")


def test_status_of_a_run_that_is_half_done(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    ended("run", recipe, "--out", run)
    (unit, *_) = sorted((run / "units" / "pairs").iterdir())
    (unit / "manifest.json").unlink()
    state = json.loads(ended("status", run, "--json"))
    phases = {phase["name"]: phase for phase in state["phases"]}
    assert (phases["matches"]["num_done"], phases["matches"]["num_units"]) == (3, 3)
    assert (phases["pairs"]["num_done"], phases["pairs"]["num_units"]) == (2, 3)
    assert state["holder"] == ""
    shown = ended("status", run)
    assert "2/3" in shown
    assert "nobody is working on it" in shown
    code, out, _ = in_process("verify", run)
    assert code == 1
    assert out.splitlines()[-1].startswith(
        f"{run}: not finished (pairs 2/3 units); run the same command again to finish it"
    )
    assert "not committed" not in out
    ended("run", recipe, "--out", run)
    assert "clean, nothing lost" in ended("verify", run).replace("\n", " ")


def test_status_before_anything_is_done(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert in_process("run", recipe, "--out", run, "--set", "documents.path=nowhere.csv")[0] == 2
    assert "not planned" in ended("status", run)
    code, _, errors = in_process("inspect", run)
    assert code == 2
    assert "no pairs yet; finish the run first" in errors


def test_inspect_shows_what_is_asked_for(finished: Path) -> None:
    turned_away = rows(finished, "rejected")
    stage, reason = turned_away[0]["stage"], turned_away[0]["reason"]
    words = ["--stage", stage, "--reason", reason, "--rejections", "1000", "--pairs", "0", "--json"]
    drawn = json.loads(ended("inspect", finished, *words))
    expected = [row["record_id"] for row in turned_away if (row["stage"], row["reason"]) == (stage, reason)]
    assert sorted(row["record_id"] for row in drawn["rejections"]) == sorted(expected)
    assert drawn["pairs"] == []
    shown = ended("inspect", finished, "--stage", stage, "--reason", reason, "--rejections", "1", "--pairs", "0")
    assert f"rejected at {stage}: {reason}" in shown
    code, _, errors = in_process("inspect", finished, "--stage", "nowhere")
    assert code == 2
    assert errors.startswith("fineinstructions: --stage nowhere: no such stage in this run; it has templates, ")
    assert len(errors.splitlines()) == 1
    assert json.loads(ended("inspect", finished, "--reason", "nothing", "--json"))["rejections"] == []


def test_inspect_draws_every_reason_before_any_comes_twice(finished: Path) -> None:
    kinds = {(row["stage"], row["reason"]) for row in rows(finished, "rejected")}
    drawn = json.loads(ended("inspect", finished, "--rejections", str(len(kinds)), "--json"))["rejections"]
    assert {(row["stage"], row["reason"]) for row in drawn} == kinds


def test_a_bank_can_be_looked_at_too(folder: Path, recipe: Path) -> None:
    drawn = json.loads(ended("inspect", folder / "bank", "--json"))
    assert drawn["pairs"] == []
    assert {row["stage"] for row in drawn["rejections"]} <= {"queries", "genericize", "merge"}
    assert len(drawn["rejections"]) == 5
    assert "clean, nothing lost" in ended("verify", folder / "bank").replace("\n", " ")


def test_results_can_be_piped_to_a_program_that_stops_reading(finished: Path) -> None:
    program = " ".join(map(repr, command("inspect", finished, "--pairs", "100", "--json")))
    done = subprocess.run(f"{program} | head -n 1", shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_explain_as_json_and_for_a_bank(finished: Path, folder: Path) -> None:
    pair = rows(finished, "pairs")[0]
    lineage = output_json(call("explain", finished, pair["pair_id"], "--json"))
    documents = pq.read_table(folder / "documents.parquet", columns=["id", "text"]).to_pylist()
    texts = {row["id"]: row["text"] for row in documents}
    assert lineage["document"]["text"] == texts[pair["document_id"]]
    assert lineage["queries"] == []
    assert pair["query_ids"][0] in ended("explain", finished, pair["pair_id"])
