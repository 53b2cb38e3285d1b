"""The commands of the README, on the data that come with the repository, through the front door."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fineinstructions.statistics import pearson

pytestmark = pytest.mark.xdist_group("quickstart")

ROOT = Path(__file__).parent.parent
PAIR_COLUMNS = {
    *("pair_id", "document_id", "template_id", "query_ids", "chunk", "cosine", "instruction", "answer", "slots"),
    *("excerpts", "excerpt_ratio", "coverage_ratio", "judge_score", "judge_feedback", "models", "licence", "source"),
    "text",
}


def fineinstructions(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = "from fineinstructions.cli import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo's recipe, on a fifth of its documents."""
    out = tmp_path_factory.mktemp("demo") / "run"
    done = fineinstructions("run", "recipes/quickstart.yaml", "--out", str(out), "--limit", "80")
    assert done.returncode == 0, done.stderr
    assert "pairs" in done.stdout
    assert "p-" in done.stdout
    return out


def test_pairs_have_the_promised_columns_and_quote_their_documents(demo: Path) -> None:
    texts = pq.read_table(ROOT / "examples/data/documents.parquet", columns=["id", "text"]).to_pydict()
    documents = dict(zip(texts["id"], texts["text"], strict=True))
    pairs = pq.read_table(demo / "pairs").to_pylist()
    assert len(pairs) >= 20
    for pair in pairs:
        assert set(pair) >= PAIR_COLUMNS
        assert pair["text"] == f"Instruction: {pair['instruction']}\n\nAnswer: {pair['answer']}"
        assert pair["excerpt_ratio"] >= 0.8
        for e in pair["excerpts"]:
            quoted = pair["answer"][e["answer_start"] : e["answer_end"]]
            assert documents[pair["document_id"]][e["document_start"] : e["document_end"]] == quoted


def test_answers_stand_where_the_chunk_is_that_found_their_template(demo: Path) -> None:
    texts = pq.read_table(ROOT / "examples/data/documents.parquet", columns=["id", "text"]).to_pydict()
    length = {name: len(text) for name, text in zip(texts["id"], texts["text"], strict=True)}
    found = [pair for pair in pq.read_table(demo / "pairs").to_pylist() if pair["chunk"] >= 0]
    first = [pair["excerpts"][0] for pair in found]
    places = [
        (e["document_start"] + e["document_end"]) / 2 / length[p["document_id"]]
        for p, e in zip(found, first, strict=True)
    ]
    assert len(found) >= 20
    assert pearson([pair["chunk"] for pair in found], places) >= 0.9


def test_a_second_call_has_nothing_to_do(demo: Path) -> None:
    done = fineinstructions("run", "recipes/quickstart.yaml", "--out", str(demo), "--limit", "80")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout


def test_looking_at_the_run(demo: Path) -> None:
    assert fineinstructions("verify", str(demo)).returncode == 0
    assert fineinstructions("status", str(demo)).returncode == 0
    drawn = fineinstructions("inspect", str(demo), "--seed", "1", "--pairs", "2", "--json")
    assert drawn.returncode == 0, drawn.stderr
    assert "judge_score" in drawn.stdout
    pair_id = pq.read_table(demo / "pairs", columns=["pair_id"])["pair_id"][0].as_py()
    explained = fineinstructions("explain", str(demo), pair_id)
    assert explained.returncode == 0, explained.stderr
    assert pair_id in explained.stdout


def test_every_reason_that_occurs_is_explained(demo: Path) -> None:
    page = (ROOT / "docs" / "rejections.md").read_text(encoding="utf-8")
    reasons = set(pq.read_table(demo / "rejected", columns=["reason"])["reason"].to_pylist())
    assert len(reasons) > 5
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in page] == []


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("querys: {path: a}\n", encoding="utf-8")
    done = fineinstructions("run", str(recipe), "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "did you mean 'queries'?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_schema_is_the_one_in_docs() -> None:
    done = fineinstructions("schema")
    assert json.loads(done.stdout) == json.loads((ROOT / "docs/recipe.schema.json").read_text(encoding="utf-8"))
