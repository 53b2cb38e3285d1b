"""What becomes of a finished run when its inputs are moved, changed or removed afterwards."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, content, in_process, rows, take_documents, write_recipe

pytestmark = pytest.mark.xdist_group("changed_inputs")


@pytest.fixture
def recipe(tmp_path: Path, bank: Path) -> Path:
    shutil.copytree(bank, tmp_path / "bank")
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    templates = {"bank": str(tmp_path / "bank")}
    return write_recipe(tmp_path, documents, queries=None, templates=templates, engine={"workers": 0, "unit_rows": 8})


@pytest.fixture
def finished(tmp_path: Path, recipe: Path) -> Path:
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run")
    assert code == 0, errors
    assert rows(tmp_path / "run", "pairs")
    return tmp_path / "run"


def told(*words: str | Path) -> str:
    """The one line of a call that ends with exit code 2."""
    code, _, errors = in_process(*words)
    assert code == 2, errors
    assert errors.count("\n") == 1, errors
    return errors


def told_at_the_end(*words: str | Path) -> str:
    """The last line of a call that ends with exit code 2 after some work."""
    code, _, errors = in_process(*words)
    assert code == 2, errors
    return errors.splitlines()[-1]


def test_documents_that_are_gone_are_named(tmp_path: Path, recipe: Path, finished: Path) -> None:
    (tmp_path / "documents.parquet").rename(tmp_path / "elsewhere.parquet")
    pair_id = rows(finished, "pairs")[0]["pair_id"]
    for words in (("verify", finished), ("explain", finished, pair_id), ("run", recipe, "--out", finished)):
        assert "documents.parquet: no such file" in told(*words)
    assert in_process("status", finished)[0] == 0
    assert in_process("inspect", finished)[0] == 0
    (tmp_path / "elsewhere.parquet").rename(tmp_path / "documents.parquet")
    assert in_process("verify", finished)[0] == 0


def test_documents_that_changed_are_found_out(tmp_path: Path, recipe: Path, finished: Path) -> None:
    before = content(finished / "pairs")
    table = pq.read_table(tmp_path / "documents.parquet")
    changed = [text.replace("e", "a") for text in table["text"].to_pylist()]
    place = table.schema.get_field_index("text")
    pq.write_table(
        table.set_column(place, "text", pa.array(changed)), tmp_path / "documents.parquet", row_group_size=16
    )
    code, out, _ = in_process("verify", finished)
    assert code == 1
    assert "is not the text of its document" in out
    line = told("run", recipe, "--out", finished)
    assert "--redo" in line and "choose another --out" in line
    assert f"what changed: documents.path: {tmp_path / 'documents.parquet'} (" in line and " bytes)\n" in line
    assert content(finished / "pairs") == before
    for change, words in (
        ("engine.unit_rows=9", "engine.unit_rows: 8 -> 9"),
        ("documents.limit=9", "documents.limit: None -> 9"),
    ):
        assert words in told("run", recipe, "--out", finished, "--set", change)
    code, _, errors = in_process("run", recipe, "--out", finished, "--redo")
    assert code == 0, errors
    assert in_process("verify", finished)[0] == 0
    assert content(finished / "pairs") != before


def test_queries_that_changed_are_named(tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("what is a lake\n", encoding="utf-8")
    recipe = write_recipe(
        tmp_path,
        EXAMPLES / "documents.parquet",
        queries={"path": str(queries), "text_mode": "line"},
        merge={"min_queries": 9},
        engine={"workers": 0},
    )
    words = ("templates", "build", recipe, "--out", tmp_path / "bank")
    assert "no query became a template" in told_at_the_end(*words)
    queries.write_text("what is a river\n", encoding="utf-8")
    line = told(*words)
    assert "stale: queries, genericize" in line and "--redo" in line and "choose another --out" in line
    assert f"what changed: queries.path: {queries} (15 -> 16 bytes)" in line
    queries.rename(tmp_path / "others.txt")
    line = told(*words, "--set", f"queries.path={tmp_path / 'others.txt'}")
    assert f"queries.path: '{queries}' -> '{tmp_path / 'others.txt'}'" in line


def test_a_bank_is_needed_only_while_it_is_read(tmp_path: Path, recipe: Path, finished: Path) -> None:
    shutil.rmtree(tmp_path / "bank")
    assert in_process("verify", finished)[0] == 0
    assert "no template bank" in told("run", recipe, "--out", finished)


def test_documents_that_were_converted_need_not_stay(tmp_path: Path, recipe: Path) -> None:
    """JSON lines are kept in the run folder as Parquet, so the checks do not need the original."""
    path = tmp_path / "documents.jsonl"
    documents = pq.read_table(tmp_path / "documents.parquet", columns=["id", "text"]).to_pylist()
    path.write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
    words = ["run", recipe, "--out", tmp_path / "run", "--set", f"documents.path={path}"]
    assert in_process(*words)[0] == 0
    path.unlink()
    assert in_process("verify", tmp_path / "run")[0] == 0
    pair_id = rows(tmp_path / "run", "pairs")[0]["pair_id"]
    assert in_process("explain", tmp_path / "run", pair_id)[0] == 0
    assert "no such file" in told(*words)


def test_a_refused_run_changes_nothing(tmp_path: Path) -> None:
    """A converted file with a repeated id grows; the run that is refused must not harm what is committed."""
    rows = pq.read_table(EXAMPLES / "documents.parquet").slice(0, 6).to_pylist()
    lines = [json.dumps({"id": row["id"], "text": row["text"]}) for row in [*rows, rows[0]]]
    documents = tmp_path / "documents.jsonl"
    documents.write_text("\n".join(lines), encoding="utf-8")
    recipe = write_recipe(tmp_path, documents, engine={"workers": 0, "unit_rows": 100})
    assert in_process("run", recipe, "--out", tmp_path / "run")[0] == 0
    documents.write_text("\n".join([*lines, json.dumps({"id": "new", "text": "One more."})]), encoding="utf-8")
    in_process("run", recipe, "--out", tmp_path / "run")
    code, out, _ = in_process("verify", tmp_path / "run")
    assert (code, out.strip().endswith("clean, nothing lost")) == (0, True), out


def test_a_bank_is_never_its_own_output(tmp_path: Path) -> None:
    recipe = {"templates": {"bank": str(tmp_path / "bank")}, "documents": {"path": str(EXAMPLES / "documents.parquet")}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    code, _, err = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "bank", "--redo")
    assert code == 2
    assert "is the bank of the recipe too" in err


@pytest.mark.parametrize("place", ["run", "run/units/index/unit/index", "elsewhere/../run/index"])
def test_an_index_inside_the_run_folder_is_refused(tmp_path: Path, place: str) -> None:
    recipe = {"templates": {"index": str(tmp_path / place)}, "documents": {"path": str(EXAMPLES / "documents.parquet")}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    code, _, err = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--redo")
    assert (code, err.count("\n")) == (2, 1)
    assert "lies inside the run folder" in err
    assert not (tmp_path / "run").exists()


def test_a_server_stage_without_a_model_is_refused_at_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, EXAMPLES / "documents.parquet", judge={"model": "openai"})
    code, _, err = in_process("run", recipe, "--out", tmp_path / "run")
    assert code == 2
    assert "llm.model: missing, but judge asks a model" in err
