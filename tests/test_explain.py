"""Lineage of a pair where other units of the run were given up."""

from pathlib import Path

from pipeline_inputs import take_documents, write_recipe

import fineinstructions
from fineinstructions.runs import RunFolder


def test_a_unit_that_was_set_aside_hides_no_other(tmp_path: Path, bank: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    recipe = write_recipe(
        tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine={"workers": 0, "unit_rows": 8}
    )
    result = fineinstructions.run(str(recipe), out=tmp_path / "run")
    pair = list(result.pairs())[-1]
    run = RunFolder.open(tmp_path / "run")
    first, *_ = run.planned("matches") or ()
    with run.lease():
        run.set_aside("matches", first, "crashed")
    lineage = fineinstructions.explain(tmp_path / "run", pair.pair_id)
    assert lineage.document.document_id == pair.document_id
