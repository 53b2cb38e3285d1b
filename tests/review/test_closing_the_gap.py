"""That the weights which an audit proposes bring the next run nearer to real queries: two runs, one after the other."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_inputs import EXAMPLES, in_process, take_documents, write_recipe

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.review.audit_page import NEARLY_ALL, exhausted


def audited(recipe: Path, run: Path, **sections: Any) -> dict[str, Any]:
    """Run with some sections of a recipe and audit: the distribution, with its comparison by slots as ``slots``."""
    plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    recipe.write_text(yaml.safe_dump(plain | sections), encoding="utf-8")
    code, _, errors = in_process("run", recipe, "--out", run, "--redo")
    assert code == 0, errors
    code, _, errors = in_process("audit", run, "--pairs", "1")
    assert code == 0, errors
    found: dict[str, Any] = json.loads((run / "audit" / "distribution.json").read_text(encoding="utf-8"))
    (found["slots"],) = (one for one in found["comparisons"] if one["name"] == "slots")
    return found


@pytest.mark.slow
def test_a_run_with_the_proposed_weights_is_nearer_to_real_queries(tmp_path: Path) -> None:
    """Without a threshold documents find templates of all kinds, and a script refuses none: the choice decides."""
    documents = take_documents(tmp_path / "documents.parquet", 60)
    with ScriptedServer() as server:
        llm = {"base_url": server.base_url, "model": "scripted"}
        models = {
            "llm": llm,
            "instantiate": {"model": "openai"},
            "judge": {"model": "openai", "max_template_share": 1.0},
        }
        engine, retrieve = {"workers": 0, "query_unit_rows": 2000}, {"min_cosine": -1.0}
        recipe = write_recipe(tmp_path, documents, engine=engine, retrieve=retrieve, **models)
        before = audited(recipe, tmp_path / "run")
        after = audited(recipe, tmp_path / "run", sample={"target": before["target_proposed"]})
    assert min(sum(row["generated"] for row in one["slots"]["classes"]) for one in (before, after)) > 100
    for name in ("js", "kl_real_generated", "kl_generated_real"):
        assert after["slots"][name] < before["slots"][name] / 2, name


@pytest.mark.slow
def test_an_audit_says_where_weights_cannot_help(tmp_path: Path) -> None:
    """Few documents can fill a template of two slots by rules, and those are given it already."""
    recipe = write_recipe(tmp_path, EXAMPLES / "documents.parquet", engine={"workers": 0, "query_unit_rows": 2000})
    found = audited(recipe, tmp_path / "run")
    assert [row["found"] >= row["chosen"] for row in found["finds"]] == [True] * len(found["finds"])
    (two,) = (row for row in found["slots"]["classes"] if row["class"] == "2")
    assert found["finds"][2]["real"] == two["real"] > 0
    assert found["finds"][2]["chosen"] >= NEARLY_ALL * found["finds"][2]["found"] > 0
    page = (tmp_path / "run" / "audit" / "audit.md").read_text(encoding="utf-8")
    assert "found by documents" in page
    assert "Weights can hardly bring more pairs of 2 slots" in page


def test_only_kinds_of_real_queries_are_said_to_be_out_of_reach() -> None:
    finds = [
        {"real": 9, "found": 4, "chosen": 4},
        {"real": 9, "found": 9, "chosen": 2},
        {"real": 0, "found": 0, "chosen": 0},
    ]
    found = {"target_now": [0.2, 0.4, 0.4], "target_proposed": [0.25, 0.5, 0.45], "finds": finds}
    assert exhausted(found) == ["0"]
    assert exhausted({**found, "target_proposed": [0.2, 0.4, 0.4]}) == []
    assert exhausted({**found, "finds": None}) == []
