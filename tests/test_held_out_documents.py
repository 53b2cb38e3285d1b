"""Documents that hold a benchmark's text: in no arm, whatever its rows are made of, and every one of them told."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported import export, rows_of
from small_run import pair_of, some_texts, write_run

from fineinstructions.corpus.check import check_corpora

pytestmark = pytest.mark.xdist_group("corpora")
ARMS = ("--arm", "standard", "--arm", "ipt", "--arm", "fineinstructions", "--arm", "control=documents:0.9,pairs:0.1")
HOLDERS = {3, 14, 29}
"""Documents with an answer that is held out."""
SAID = "Copper conducts heat and current better than most metals do, and it has been mined for ten thousand years."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text + (f" {SAID}" if n in HOLDERS else "") for n, text in enumerate(some_texts(40))]
    return write_run(tmp_path_factory.mktemp("run"), texts, lambda n: n % 4)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A setting that names held-out questions and answers, among rows that are not held out."""
    path = tmp_path_factory.mktemp("benchmark") / "qa.jsonl"
    rows = [
        {"split": "val", "question": "How does copper conduct?", "answer": SAID},
        {"split": "val", "question": pair_of(6, 1)[0], "answer": "Something else."},
        {"split": "train", "question": pair_of(7, 1)[0], "answer": "Something else."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"sift.benchmarks=[{{path: {path}, columns: [question, answer], where: {{split: val}}}}]"


@pytest.mark.parametrize("documents", ["all", "with_pairs", "same"])
def test_no_arm_has_a_document_that_holds_a_benchmark(
    run: Path, tmp_path: Path, benchmark: str, documents: str
) -> None:
    facts = export(run, tmp_path / "out", *ARMS, "--set", benchmark, "--set", f"documents={documents}")
    holders = {f"d{n}" for n in HOLDERS}
    for arm in facts["arms"]:
        rows = rows_of(tmp_path / "out", arm)
        assert rows
        assert not holders & {row["document_id"] for row in rows}, arm
        assert not any(SAID in row["text"] or pair_of(6, 1)[0] in row["text"] for row in rows), arm
    hits = pq.read_table(tmp_path / "out" / "benchmark_hits.parquet").to_pylist()
    assert {hit["record_id"] for hit in hits if hit["part"] == "document"} == holders
    assert sum(hit["part"] == "instruction" for hit in hits) == 1
    assert sum(hit["rows"] for hit in facts["benchmark_hits"]) == len(hits) == 4
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    reasons = Counter((r["stage"], r["reason"]) for r in rejected)
    of_holders = sum(n % 4 for n in HOLDERS)
    assert reasons["decontaminate", "benchmark"] == 3
    assert reasons["sift", "benchmark_document"] == of_holders
    assert reasons["sift", "benchmark"] == 1
    lost = {source: s["benchmark_rows"] for f in facts["arms"].values() for source, s in f["sources"].items()}
    assert lost == {"documents": 3, "documents_with_pairs": 3, "pairs": of_holders + 1}
    assert facts["documents"]["rows"] == 37
    assert check_corpora(tmp_path / "out") == []
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| fineinstructions | pairs | {of_holders + 1} |" in card
    assert "| standard | documents | 3 |" in card


def test_their_tokens_are_no_budget(run: Path, tmp_path: Path, benchmark: str) -> None:
    with_them = export(run, tmp_path / "with", *ARMS)
    without = export(run, tmp_path / "without", *ARMS, "--set", benchmark)
    texts = {row["id"]: row["num_tokens"] for row in rows_of_all(run, tmp_path)}
    lost = sum(texts[f"d{n}"] for n in HOLDERS)
    assert with_them["documents"]["tokens"] - without["documents"]["tokens"] == lost


def rows_of_all(run: Path, tmp_path: Path) -> list[dict[str, int]]:
    export(run, tmp_path / "all", "--arm", "standard")
    return rows_of(tmp_path / "all", "standard")
