"""A run over the first documents is continued over all of them, without making anything twice."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_inputs import content, in_process, take_documents, write_recipe

pytestmark = pytest.mark.xdist_group("limit")


@pytest.fixture
def recipe(tmp_path: Path, bank: Path) -> Path:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    templates = {"bank": str(bank)}
    return write_recipe(tmp_path, documents, queries=None, templates=templates, engine={"workers": 0, "unit_rows": 8})


def committed(run: Path) -> dict[str, int]:
    """When every unit of documents was committed."""
    found = [*run.glob("units/matches/*/manifest.json"), *run.glob("units/pairs/*/manifest.json")]
    return {str(p): p.stat().st_mtime_ns for p in found}


def as_lines(recipe: Path) -> None:
    """Let a recipe have its documents as compressed JSON lines."""
    documents = recipe.with_name("documents.parquet")
    lines = [json.dumps(row, default=str) + "\n" for row in pq.read_table(documents).to_pylist()]
    documents.with_suffix(".jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(".parquet\n", ".jsonl.gz\n"), encoding="utf-8")


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_a_limit_that_is_raised_keeps_the_finished_units(kind: str, tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    if kind == "jsonl.gz":
        as_lines(recipe)
    assert in_process("run", recipe, "--out", run, "--limit", "10")[0] == 0
    before = committed(run)
    assert len(before) == 4
    code, _, errors = in_process("run", recipe, "--out", run)
    assert code == 0, errors
    after = committed(run)
    assert len(after) == 6
    kept = {path for path in before if after.get(path) == before[path]}
    assert {Path(path).parents[1].name for path in kept} == {"matches", "pairs"}
    assert len(kept) == 2
    assert in_process("verify", run)[0] == 0
    assert in_process("run", recipe, "--out", tmp_path / "whole")[0] == 0
    for table in ("pairs", "matches", "rejected"):
        assert content(run / table) == content(tmp_path / "whole" / table)


def test_a_lower_limit_drops_nothing_unasked(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert in_process("run", recipe, "--out", run)[0] == 0
    before = content(run / "pairs")
    code, _, errors = in_process("run", recipe, "--out", run, "--limit", "10")
    assert code == 2
    assert "2 of 3 units would be lost" in errors
    assert content(run / "pairs") == before


def test_moved_documents_are_the_same_documents(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert in_process("run", recipe, "--out", run)[0] == 0
    before = committed(run)
    (tmp_path / "documents.parquet").rename(tmp_path / "moved.parquet")
    words = ["run", recipe, "--out", run, "--set", f"documents.path={tmp_path / 'moved.parquet'}"]
    code, out, errors = in_process(*words)
    assert code == 0, errors
    assert "nothing to do" in out
    assert committed(run) == before
    assert in_process("verify", run)[0] == 0


def test_new_documents_at_the_end_of_a_small_file_need_consent(tmp_path: Path, recipe: Path) -> None:
    """Other content is other content, even where the new unit covers more rows."""
    run = tmp_path / "run"
    take_documents(tmp_path / "documents.parquet", 4, every=16)
    assert in_process("run", recipe, "--out", run)[0] == 0
    take_documents(tmp_path / "documents.parquet", 6, every=16)
    code, _, errors = in_process("run", recipe, "--out", run)
    assert code == 2
    assert "--redo" in errors
