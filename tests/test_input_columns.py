"""Ids and columns of the user's input, from the file to the pair and back."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import EXAMPLES, in_process, reasons, rows, take_documents, write_recipe

import fineinstructions
from fineinstructions.records import content_id

pytestmark = pytest.mark.xdist_group("input_columns")


def recipe_for(folder: Path, bank: Path, **documents: Any) -> Path:
    """A recipe over documents with the settings given."""
    path = write_recipe(folder, Path(), queries=None, templates={"bank": str(bank)}, engine={"workers": 0})
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) | {"documents": documents}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def run(recipe: Path, out: Path, *words: str | Path) -> Path:
    code, _, errors = in_process("run", recipe, "--out", out, *words)
    assert code == 0, errors
    return out


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    table = pq.read_table(take_documents(tmp_path / "some.parquet", 16, every=24), columns=["text"])
    found: list[str] = table["text"].to_pylist()
    return found


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_documents_without_ids_can_be_verified_and_explained(
    tmp_path: Path, bank: Path, texts: list[str], kind: str
) -> None:
    path = tmp_path / f"documents.{kind}"
    if kind == "parquet":
        pq.write_table(pq.read_table(tmp_path / "some.parquet", columns=["text"]), path)
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    recipe = recipe_for(tmp_path, bank, path=str(path))
    made = run(recipe, tmp_path / "run")
    pairs = rows(made, "pairs")
    assert {pair["document_id"] for pair in pairs} <= {content_id("d", text) for text in texts}
    for words in (("verify", made), ("explain", made, pairs[0]["pair_id"]), ("run", recipe, "--out", made)):
        code, _, errors = in_process(*words)
        assert code == 0, errors
    resolved = made / "recipe.resolved.yaml"
    fineinstructions.run(resolved, out=tmp_path / "again", overrides=["judge.min_score=3"])
    assert fineinstructions.verify(tmp_path / "again") == []


def test_another_text_column_has_repetitions_of_its_own(tmp_path: Path, bank: Path, texts: list[str]) -> None:
    path = tmp_path / "documents.parquet"
    pq.write_table(pa.table({"text": [texts[0]] * 4 + texts[4:], "body": texts}), path)
    recipe, out = recipe_for(tmp_path, bank, path=str(path)), tmp_path / "run"
    run(recipe, out)
    repeated = {("documents", "repeated_id"): 3}
    assert {k: n for k, n in reasons(out).items() if k[0] == "documents"} == repeated
    run(recipe, out, "--set", "documents.text_column=body", "--redo")
    assert ("documents", "repeated_id") not in reasons(out)
    assert fineinstructions.verify(out) == []
    run(recipe, out, "--redo")
    assert {k: n for k, n in reasons(out).items() if k[0] == "documents"} == repeated


HALF = "\ud800"
"""Half of a character: JSON can escape it, UTF-8 cannot hold it."""

HALVES: list[dict[str, Any]] = [
    {"id": HALF, "text": ""},
    {"id": HALF, "text": None},
    {"id": HALF, "text": 5},
    {"id": HALF, "text": "who is who in here"},
    {"id": "text", "text": f"who is {HALF} in here"},
    {"id": "source", "text": "who was who in here", "source": HALF},
    {"id": "note", "text": "who are all the others in here", "note": HALF},
]


def test_half_characters_turn_single_queries_away(tmp_path: Path) -> None:
    good = pq.read_table(EXAMPLES / "queries.parquet").to_pylist()[:1500]
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in [*HALVES, *good]), encoding="utf-8")
    recipe = write_recipe(tmp_path, Path(), queries={"path": str(path)}, engine={"workers": 0})
    code, _, errors = in_process("templates", "build", recipe, "--out", tmp_path / "bank")
    assert code == 0, errors
    turned_away = [row for row in rows(tmp_path / "bank", "rejected") if row["reason"] == "invalid_utf8"]
    assert [row["record_id"] for row in turned_away] == [
        *(f"queries.jsonl:{line}" for line in range(1, 5)),
        "text",
        "source",
        "note",
    ]


def test_half_characters_turn_single_documents_away(tmp_path: Path, bank: Path, texts: list[str]) -> None:
    path = tmp_path / "documents.jsonl"
    good = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*HALVES, *good]), encoding="utf-8")
    out = run(recipe_for(tmp_path, bank, path=str(path)), tmp_path / "run")
    found = {key: number for key, number in reasons(out).items() if key[0] == "documents"}
    assert found == {("documents", "invalid_utf8"): len(HALVES)}
    assert fineinstructions.verify(out) == []
