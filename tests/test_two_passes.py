"""Two passes over the corpus: sampling knows all of it, costs no second search, and depends on no order."""

import json
from pathlib import Path

import pytest
import yaml
from pipeline_inputs import content, in_process, rows, take_documents

import fineinstructions
from fineinstructions.records import GLOBAL_CHUNK
from fineinstructions.trial import EMBEDDED_BANK

pytestmark = pytest.mark.xdist_group("two_passes")

DAMPED = ("--set", "sample.hubness_damping=1")
LIMITED = (*DAMPED, "--set", "sample.max_sampled_share=0.1")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 documents and the bank that ships, so that nothing but matching and what follows takes time."""
    folder = tmp_path_factory.mktemp("two-passes")
    recipe = {
        "templates": {"bank": str(EMBEDDED_BANK)},
        "documents": {"path": str(take_documents(folder / "documents.parquet", 48, every=8))},
        "engine": {"workers": 0, "unit_rows": 20},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def plain(recipe: Path) -> Path:
    assert in_process("run", recipe, "--out", recipe.parent / "plain")[0] == 0
    return recipe.parent / "plain"


def written(run: Path, phase: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (run / "units" / phase).rglob("*.*")}


def test_sampling_anew_searches_nothing_anew(recipe: Path, plain: Path) -> None:
    searched, chosen = written(plain, "candidates"), content(plain / "matches")
    assert len(searched) >= 9
    code, _, errors = in_process("run", recipe, "--out", plain, *DAMPED)
    assert code == 2
    assert "sample.hubness_damping: 0.0 -> 1" in errors
    assert "keep templates, index, candidates" in errors
    assert in_process("run", recipe, "--out", plain, *DAMPED, "--redo")[0] == 0
    assert written(plain, "candidates") == searched
    assert content(plain / "matches") != chosen
    assert fineinstructions.verify(plain) == []
    assert in_process("run", recipe, "--out", plain, "--redo")[0] == 0
    assert written(plain, "candidates") == searched
    assert content(plain / "matches") == chosen


@pytest.mark.slow
def test_the_same_bytes_from_one_worker_and_from_two(tmp_path: Path, recipe: Path) -> None:
    for workers in ("1", "2"):
        assert in_process("run", recipe, "--out", tmp_path / workers, "--workers", workers, *LIMITED)[0] == 0
    for table in ("matches", "pairs", "rejected"):
        assert content(tmp_path / "1" / table) == content(tmp_path / "2" / table)
    one, two = (tmp_path / workers / "diagnostics.json" for workers in ("1", "2"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_new_documents_count_for_the_old_ones(tmp_path: Path, recipe: Path) -> None:
    """With damping on, documents that come later change what was counted, and the choice is made again for all."""
    assert in_process("run", recipe, "--out", tmp_path / "run", *LIMITED, "--limit", "20")[0] == 0
    first = {p: time for p, time in written(tmp_path / "run", "candidates").items() if p.parent.name[:6] == "000000"}
    assert in_process("run", recipe, "--out", tmp_path / "run", *LIMITED)[0] == 0
    assert first.items() <= written(tmp_path / "run", "candidates").items()
    assert fineinstructions.verify(tmp_path / "run") == []
    assert in_process("run", recipe, "--out", tmp_path / "whole", *LIMITED)[0] == 0
    assert content(tmp_path / "run" / "matches") == content(tmp_path / "whole" / "matches")


def test_a_limit_that_cannot_hold_is_one_line(tmp_path: Path, recipe: Path) -> None:
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--set", "sample.max_sampled_share=0.0001")
    assert code == 2
    assert "sample.max_sampled_share: in a sample of" in errors
    assert in_process("run", recipe, "--out", tmp_path / "run", "--redo")[0] == 0


def test_diagnostics_are_those_of_the_matches(recipe: Path, plain: Path) -> None:
    assert in_process("run", recipe, "--out", plain, "--redo")[0] == 0
    figures = json.loads((plain / "diagnostics.json").read_text(encoding="utf-8"))
    matches = rows(plain, "matches")
    sampled = [match for match in matches if match["sampled"]]
    with_any = {match["document_id"] for match in matches}
    assert figures["num_documents"] == 48
    assert figures["without_candidate_share"] == pytest.approx(1 - len(with_any) / 48)
    assert figures["candidates_mean"] == pytest.approx(len(matches) / len(with_any))
    assert figures["num_sampled"] == len(sampled)
    by_vector = {vector["chunk"]: vector["num_sampled"] for vector in figures["vectors"]}
    assert by_vector == {chunk: sum(m["chunk"] == chunk for m in sampled) for chunk in range(GLOBAL_CHUNK, 5)}
    finds = {(match["document_id"], match["template_id"]) for match in matches}
    for hub in figures["hubs"]:
        assert hub["num_documents"] == sum(template_id == hub["template_id"] for _, template_id in finds)
        assert hub["num_sampled"] == sum(match["template_id"] == hub["template_id"] for match in sampled)
    assert figures["num_never_retrieved"] == len(rows(plain, "templates")) - len({t for _, t in finds})


def test_status_shows_the_diagnostics_while_they_are_true(recipe: Path, plain: Path) -> None:
    assert in_process("run", recipe, "--out", plain, "--redo")[0] == 0
    code, out, _ = in_process("status", plain)
    assert code == 0
    assert "candidates per document" in out
    assert "most found templates" in out
    stored = json.loads((plain / "diagnostics.json").read_text(encoding="utf-8"))
    assert json.loads(in_process("status", plain, "--json")[1])["diagnostics"] == stored
    (unit, *_) = sorted((plain / "units" / "matches").iterdir())
    (unit / "manifest.json").unlink()
    assert json.loads(in_process("status", plain, "--json")[1])["diagnostics"] is None
    assert "most found templates" not in in_process("status", plain)[1]
    assert in_process("run", recipe, "--out", plain)[0] == 0
    assert json.loads((plain / "diagnostics.json").read_text(encoding="utf-8")) == stored
