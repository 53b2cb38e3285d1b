"""That the weights which an audit proposes bring the next run nearer to real queries: two runs, one after the other."""

import json
from pathlib import Path

import pytest
import yaml
from pipeline_inputs import EXAMPLES, in_process, write_recipe


def audited(recipe: Path, run: Path) -> tuple[float, float, list[float]]:
    """Run and audit: Jensen-Shannon divergence by slots, Kullback-Leibler of real from generated, proposed target."""
    code, _, errors = in_process("run", recipe, "--out", run, "--redo")
    assert code == 0, errors
    code, _, errors = in_process("audit", run, "--pairs", "1")
    assert code == 0, errors
    found = json.loads((run / "audit" / "distribution.json").read_text(encoding="utf-8"))
    (slots,) = (one for one in found["comparisons"] if one["name"] == "slots")
    assert sum(row["generated"] for row in slots["classes"]) > 100, "enough pairs to speak of a distribution"
    return slots["js"], slots["kl_real_generated"], found["target_proposed"]


@pytest.mark.slow
def test_a_run_with_the_proposed_weights_is_nearer_to_real_queries(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        EXAMPLES / "documents.parquet",
        queries={"path": str(EXAMPLES / "queries.parquet")},
        engine={"workers": 0},
    )
    js, kl, proposed = audited(recipe, tmp_path / "run")
    plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    recipe.write_text(yaml.safe_dump(plain | {"sample": {"target": proposed}}), encoding="utf-8")
    js_then, kl_then, _ = audited(recipe, tmp_path / "run")
    assert js_then < js
    assert kl_then < kl
