"""A run that lost something to an engine says so every time, until it is made good."""

from pathlib import Path

import pytest
from pipeline_inputs import in_process, take_documents, write_recipe

import fineinstructions
from fineinstructions.pipeline import RunResult
from fineinstructions.runs import RunFolder


def test_a_unit_that_was_set_aside_is_told_until_it_is_made_good(tmp_path: Path, bank: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    recipe = write_recipe(
        tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine={"workers": 0, "unit_rows": 8}
    )
    out = tmp_path / "[bold]run"
    assert in_process("run", recipe, "--out", out)[0] == 0
    run = RunFolder.open(out)
    _, last = (run.planned("candidates") or ())[::2]
    with run.lease():
        run.set_aside("candidates", last, "crashed")
    for _ in range(2):
        code, shown, errors = in_process("run", recipe, "--out", out)
        assert code == 1
        assert "8 records failed; run again with --retry-failed" in errors
        assert f"{out}/pairs/" in shown
    assert "nothing to do" in shown
    assert fineinstructions.verify(out) == []
    assert in_process("run", recipe, "--out", out, "--retry-failed")[0] == 0
    assert in_process("run", recipe, "--out", out)[0] == 0


@pytest.mark.slow
def test_a_unit_without_matches_loses_what_was_found_for_it(tmp_path: Path, bank: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    recipe = write_recipe(
        tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine={"workers": 0, "unit_rows": 8}
    )
    out = tmp_path / "run"
    assert in_process("run", recipe, "--out", out)[0] == 0
    run = RunFolder.open(out)
    first, *_ = run.planned("matches") or ()
    with run.lease():
        run.set_aside("matches", first, "crashed")
    assert in_process("run", recipe, "--out", out)[0] == 1
    assert fineinstructions.verify(out) == []
    (sampled,) = [figure for figure in RunResult(run).funnel() if figure.stage == "sample"]
    (found,) = [figure for figure in RunResult(run).funnel() if figure.stage == "retrieve"]
    assert sampled.account.num_in == found.account.num_out
    assert sampled.account.failed == {"crashed": run.entering("matches", first)}
