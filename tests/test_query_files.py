"""Queries from the file to the accounts: every row is counted, and nothing personal is put on file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, in_process, rows


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def bank_of(tmp_path: Path, queries: Path) -> Path:
    """A bank of the queries, made through the command line."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("engine: {workers: 0}\n", encoding="utf-8")
    words = ["--set", f"queries.path={queries}"]
    code, _, errors = in_process("templates", "build", recipe, "--out", tmp_path / "bank", *words)
    assert code == 0, errors
    return tmp_path / "bank"


def test_personal_data_is_on_file_nowhere(tmp_path: Path) -> None:
    """Neither in what is kept nor in what is turned away, whatever for."""
    good = pq.read_table(EXAMPLES / "queries.parquet", columns=["id", "text"]).to_pylist()[:1500]
    texts = ["jo@example.org", "¿Dónde vive jo@example.org y qué hace todo el día?", "Who is jo@example.org?" * 300]
    leaks = [{"id": f"leak {number}", "text": text} for number, text in enumerate(texts)]
    path = lines(tmp_path / "queries.jsonl", *leaks, *good)
    bank = bank_of(tmp_path, path)
    rejected = [row for row in rows(bank, "rejected") if row["record_id"].startswith("leak")]
    assert [row["reason"] for row in rejected] == ["too_few_words", "foreign_language", "too_long"]
    assert all("[email]" in row["record"] and "jo@" not in row["record"] for row in rejected)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_row_of_the_queries_is_accounted_for(tmp_path: Path, kind: str) -> None:
    """Counted here from the file itself, in two files with bad rows among the good ones."""
    good = pq.read_table(EXAMPLES / "queries.parquet", columns=["id", "text"]).to_pylist()[:1500]
    whole = [*good[:700], {"id": "", "text": "who is who"}, {"id": "e", "text": ""}, good[3], *good[700:]]
    for name, part in (("a", whole[:500]), ("b", whole[500:])):
        path = tmp_path / "queries" / f"{name}.{kind}"
        path.parent.mkdir(exist_ok=True)
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(part), path, row_group_size=100)
        elif kind == "csv":
            pa_csv.write_csv(pa.Table.from_pylist(part), path)
        else:
            lines(path, *part, "{oops\n")
    code, out, _ = in_process("status", bank_of(tmp_path, tmp_path / "queries"), "--json")
    assert code == 0
    (figures,) = (figures for figures in json.loads(out)["funnel"] if figures["stage"] == "queries")
    assert figures["in"] == len(whole) + 2 * (kind == "jsonl")
    assert figures["in"] == figures["out"] + sum(figures["rejected"].values())
    assert figures["rejected"]["missing_id"] == figures["rejected"]["repeated_id"] == 1
