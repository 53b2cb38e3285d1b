"""A run that lost something to an engine says so every time, until it is made good."""

from pathlib import Path

from pipeline_inputs import EXAMPLES, in_process, take_documents, write_recipe

from fineinstructions.runs import RunFolder


def test_a_unit_that_was_set_aside_is_told_until_it_is_made_good(tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    queries = {"path": str(EXAMPLES / "queries.parquet"), "limit": 3000}
    recipe = write_recipe(tmp_path, documents, queries=queries, engine={"workers": 0, "unit_rows": 8})
    out = tmp_path / "[bold]run"
    assert in_process("run", recipe, "--out", out)[0] == 0
    run = RunFolder.open(out)
    _, last = (run.planned("matches") or ())[::2]
    with run.lease():
        run.set_aside("matches", last, "crashed")
    for _ in range(2):
        code, shown, errors = in_process("run", recipe, "--out", out)
        assert code == 1
        assert "8 records failed; run again with --retry-failed" in errors
        assert f"{out}/pairs/" in shown
    assert "nothing to do" in shown
    assert in_process("run", recipe, "--out", out, "--retry-failed")[0] == 0
    assert in_process("run", recipe, "--out", out)[0] == 0
