"""The whole job on real example data, through the command line and the Python API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, call, content, look, output_json, reasons, rows, take_documents, write_recipe

import fineinstructions
from fineinstructions.errors import ConfigError
from fineinstructions.records import Match, Pair, Rejection, Template, schema_of

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    return write_recipe(folder, take_documents(folder / "documents.parquet", 48, every=8))


@pytest.fixture(scope="module")
def finished(folder: Path, recipe: Path) -> Path:
    result = call("run", recipe, "--out", folder / "run")
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture
def documents(folder: Path, finished: Path) -> Iterator[dict[str, str]]:
    table = pq.read_table(folder / "documents.parquet", columns=["id", "text"]).to_pylist()
    yield {row["id"]: row["text"] for row in table}


def test_outputs_have_the_columns_that_are_promised(finished: Path) -> None:
    for name, record_type in (("pairs", Pair), ("matches", Match), ("templates", Template), ("rejected", Rejection)):
        (file,) = sorted((finished / name).glob("part-*.parquet"))
        assert pq.read_schema(file).names == schema_of(record_type).names
        assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_every_pair_quotes_its_document(finished: Path, documents: dict[str, str]) -> None:
    pairs = rows(finished, "pairs")
    assert len(pairs) >= 10
    for pair in pairs:
        assert pair["text"] == f"Instruction: {pair['instruction']}\n\nAnswer: {pair['answer']}"
        assert "<fi>" not in pair["text"]
        assert "<excerpt>" not in pair["text"]
        assert pair["judge_score"] >= 4
        quoted = set()
        for e in pair["excerpts"]:
            span = pair["answer"][e["answer_start"] : e["answer_end"]]
            assert span == documents[pair["document_id"]][e["document_start"] : e["document_end"]]
            quoted.update(range(e["answer_start"], e["answer_end"]))
        assert pair["excerpt_ratio"] == pytest.approx(len(quoted) / len(pair["answer"]))
        assert pair["excerpt_ratio"] >= 0.8


def test_pairs_carry_their_lineage(finished: Path) -> None:
    templates = {row["template_id"]: row for row in rows(finished, "templates")}
    queries = {row["id"] for row in pq.read_table(EXAMPLES / "queries.parquet", columns=["id"]).to_pylist()}
    for pair in rows(finished, "pairs"):
        template = templates[pair["template_id"]]
        assert pair["query_ids"] == template["query_ids"]
        assert set(pair["query_ids"]) <= queries
        assert len(pair["slots"]) == template["num_slots"]
        assert set(json.loads(pair["models"])) == {"genericizer", "encoder", "instantiator", "judge"}
        assert pair["licence"]


def test_matches_hold_to_the_sampling_rules(finished: Path) -> None:
    sampled: dict[str, list[str]] = {}
    vectors: dict[tuple[str, int], int] = {}
    for match in rows(finished, "matches"):
        key = (match["document_id"], match["chunk"])
        vectors[key] = vectors.get(key, 0) + 1
        assert -1 <= match["chunk"] < 5
        if match["sampled"]:
            sampled.setdefault(match["document_id"], []).append(match["template_id"])
    assert max(vectors.values()) <= 64
    assert all(len(ids) == len(set(ids)) <= 6 for ids in sampled.values())


def test_verify_is_clean_and_finds_a_loss(finished: Path) -> None:
    assert fineinstructions.verify(finished) == []
    result = call("verify", finished)
    assert (result.returncode, result.stdout.strip()) == (0, f"{finished}: clean, nothing lost")
    (part,) = (finished / "pairs").glob("part-*.parquet")
    whole = part.read_bytes()
    table = pq.read_table(part)
    pq.write_table(table.slice(1), part)
    try:
        assert look("verify", finished).returncode == 1
    finally:
        part.write_bytes(whole)
    assert fineinstructions.verify(finished) == []


def test_funnel_accounts_for_every_record(finished: Path) -> None:
    state = output_json(look("status", finished, "--json"))
    funnel = {row["stage"]: row for row in state["funnel"]}
    stages = ["queries", "genericize", "merge", "documents", "chunk", "retrieve", "sample", "instantiate"]
    assert list(funnel) == [*stages, "excerpts", "judge", "select"]
    for row in funnel.values():
        assert row["in"] == row["out"] + sum(row["rejected"].values()) + sum(row["failed"].values())
    counted = reasons(finished)
    for stage, row in funnel.items():
        listed = {reason: n for (where, reason), n in counted.items() if where == stage}
        assert listed == {reason: n for reason, n in row["rejected"].items() if reason != "merged with another"}
    assert funnel["documents"]["in"] == 48
    assert funnel["select"]["out"] == len(rows(finished, "pairs"))


def test_a_second_call_has_nothing_to_do(finished: Path, recipe: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in finished.rglob("*.parquet")}
    result = call("run", recipe, "--out", finished)
    assert result.returncode == 0
    assert "nothing to do" in result.stdout
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in finished.rglob("*.parquet")} == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 3])
def test_bytes_do_not_depend_on_workers(tmp_path: Path, finished: Path, recipe: Path, workers: int) -> None:
    assert call("run", recipe, "--out", tmp_path / "run", "--workers", str(workers)).returncode == 0
    for table in ("pairs", "matches", "templates", "rejected"):
        assert content(tmp_path / "run" / table) == content(finished / table)
    assert (tmp_path / "run" / "diagnostics.json").read_bytes() == (finished / "diagnostics.json").read_bytes()


def test_a_changed_recipe_names_fields_and_phases(tmp_path: Path, finished: Path, recipe: Path) -> None:
    changed = call("run", recipe, "--out", finished, "--set", "judge.min_score=5")
    assert changed.returncode == 2
    assert "judge.min_score: 4 -> 5" in changed.stderr
    assert "stale: assemble" in changed.stderr
    assert "--redo" in changed.stderr
    assert changed.stderr.count("\n") == 1


def test_thresholds_move_without_redoing_units(folder: Path, finished: Path, recipe: Path) -> None:
    units = {p: p.stat().st_mtime_ns for p in (finished / "units" / "pairs").rglob("*.parquet")}
    before, kept = content(finished / "pairs"), len(rows(finished, "pairs"))
    assert call("run", recipe, "--out", finished, "--set", "judge.min_score=1", "--redo").returncode == 0
    assert len(rows(finished, "pairs")) >= kept
    assert {p: p.stat().st_mtime_ns for p in (finished / "units" / "pairs").rglob("*.parquet")} == units
    assert call("run", recipe, "--out", finished, "--redo").returncode == 0
    assert content(finished / "pairs") == before


@pytest.mark.slow
def test_template_cap_holds(tmp_path: Path, finished: Path, recipe: Path) -> None:
    sets = ("judge.max_template_share=0.2", "judge.template_cap_floor=0", "seed=3")
    run = call("run", recipe, "--out", tmp_path / "run", *(word for item in sets for word in ("--set", item)))
    assert run.returncode == 0
    pairs = rows(tmp_path / "run", "pairs")
    counts = {pair["template_id"]: 0 for pair in pairs}
    for pair in pairs:
        counts[pair["template_id"]] += 1
    assert max(counts.values()) <= 0.2 * len(pairs)


@pytest.mark.slow
def test_a_bank_serves_another_run(tmp_path: Path, finished: Path, folder: Path, recipe: Path) -> None:
    assert call("templates", "build", recipe, "--out", tmp_path / "bank").returncode == 0
    assert content(tmp_path / "bank" / "templates") == content(finished / "templates")
    assert fineinstructions.verify(tmp_path / "bank") == []
    run = fineinstructions.run(
        {
            "templates": {"bank": str(tmp_path / "bank")},
            "documents": {"path": str(folder / "documents.parquet")},
            "engine": {"workers": 0, "unit_rows": 8},
        },
        out=tmp_path / "run",
    )
    theirs = [pair.text for pair in run.pairs()]
    assert theirs == [pair["text"] for pair in rows(finished, "pairs")]
    assert fineinstructions.verify(tmp_path / "run") == []


def test_inspect_draws_the_same_pairs_again(finished: Path) -> None:
    first = output_json(look("inspect", finished, "--seed", "1", "--pairs", "5", "--json"))
    again = output_json(look("inspect", finished, "--seed", "1", "--pairs", "5", "--json"))
    other = output_json(look("inspect", finished, "--seed", "2", "--pairs", "5", "--json"))
    assert first == again
    assert len(first["pairs"]) == len(first["rejections"]) == 5
    assert [p["pair_id"] for p in first["pairs"]] != [p["pair_id"] for p in other["pairs"]]


def test_explain_shows_where_a_pair_comes_from(finished: Path, documents: dict[str, str]) -> None:
    pair = rows(finished, "pairs")[-1]
    lineage = output_json(look("explain", finished, pair["pair_id"], "--json"))
    assert [q["query_id"] for q in lineage["queries"]] != []
    assert {q["query_id"] for q in lineage["queries"]} == set(pair["query_ids"])
    assert lineage["document"]["text"] == documents[pair["document_id"]]
    assert [q["text"] for q in lineage["quotes"]] == [
        pair["answer"][e["answer_start"] : e["answer_end"]] for e in pair["excerpts"]
    ]
    assert any(m["sampled"] and m["chunk"] == pair["chunk"] for m in lineage["matches"])
    shown = look("explain", finished, pair["pair_id"]).stdout
    assert lineage["template"]["template_id"] in shown
    missing = look("explain", finished, "p-0")
    assert missing.returncode == 2
    assert "no kept pair 'p-0'" in missing.stderr


def test_python_api_gives_records(finished: Path) -> None:
    result = fineinstructions.run(str(finished.parent / "recipe.yaml"), out=finished)
    assert result.num_units_done == 0
    assert [pair.pair_id for pair in result.pairs()] == [row["pair_id"] for row in rows(finished, "pairs")]
    with pytest.raises(ConfigError, match=r"documents\.path: missing"):
        fineinstructions.run({"queries": {"path": "x.parquet"}}, out=finished)


@pytest.mark.slow
def test_dry_run_forecasts_and_writes_nothing(tmp_path: Path, recipe: Path) -> None:
    figures = output_json(call("run", recipe, "--out", tmp_path / "run", "--dry-run", "--json"))
    assert figures["num_documents"] == 48
    assert figures["num_pairs"] > 0
    assert figures["seconds"] > 0
    assert not (tmp_path / "run").exists()
    asked = output_json(
        call("run", recipe, "--out", tmp_path / "run", "--dry-run", "--json", "--set", "judge.model=openai")
    )
    assert [calls["stage"] for calls in asked["calls"]] == ["judge"]
    assert asked["calls"][0]["num_calls"] > 0


@pytest.mark.slow
def test_limit_takes_the_first_documents(tmp_path: Path, recipe: Path, finished: Path) -> None:
    assert call("run", recipe, "--out", tmp_path / "run", "--limit", "10").returncode == 0
    funnel = {row["stage"]: row for row in output_json(look("status", tmp_path / "run", "--json"))["funnel"]}
    assert funnel["documents"]["in"] == 10
