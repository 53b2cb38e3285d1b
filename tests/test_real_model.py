"""A real language model behind the stages: random weights, served over HTTP by transformers, and in this process.

It says nothing useful, so what is tested is that every one of its replies is accounted for: turned away with a reason,
the reply kept, nothing lost, nothing taken for an answer.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_inputs import EXAMPLES, in_process, look, output_json, take_documents, write_recipe
from tiny_llama import CONTEXT_TOKENS, save_llama

import fineinstructions
from fineinstructions.records import as_dict
from fineinstructions.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.xdist_group("real_model")]

REASONS = {
    "genericize": {"format", "length"},
    "instantiate": {"format", "length", "too_long"},
    "judge": {"unparseable", "length"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return save_llama(tmp_path_factory.mktemp("llama") / "model", ends_every=9, context_tokens=4 * CONTEXT_TOKENS)


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of ``transformers serve`` with the model."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
        serve = importlib.import_module("bench_small_students").served
    with serve(model, tmp_path_factory.mktemp("served") / "log.txt") as address:
        yield address


@pytest.fixture(params=["server", "transformers"])
def llm(request: pytest.FixtureRequest, model: Path) -> dict[str, Any]:
    address = request.getfixturevalue("served") if request.param == "server" else ""
    return {
        "engine": request.param, "base_url": address, "model": str(model), "max_tokens": 60, "max_in_flight": 8,
        "max_reasks": 1,
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["genericize", "instantiate", "judge"])
def test_every_reply_is_accounted_for(tmp_path: Path, bank: Path, llm: dict[str, Any], stage: str) -> None:
    sections: dict[str, Any] = {stage: {"model": "openai"}, "queries": None, "templates": {"bank": str(bank)}}
    sections["sample"] = {"templates_per_document": 2}
    if stage == "instantiate":
        sections[stage]["max_document_chars"] = 300  # a byte is a token here, and attention is quadratic
        sections["retrieve"] = {"min_cosine": 0.0}  # two templates for every document, so that replies differ
    if stage == "genericize":
        sections |= {"queries": {"path": str(EXAMPLES / "queries.parquet"), "limit": 12}, "templates": {}}
    documents = take_documents(tmp_path / "documents.parquet", 6, every=60)
    engine = {"workers": int(stage == "instantiate"), "unit_rows": 3, "query_unit_rows": 5}
    recipe, run = write_recipe(tmp_path, documents, llm=llm, engine=engine, **sections), tmp_path / "run"
    code, _, errors = in_process("run", recipe, "--out", run)
    if stage == "genericize":
        assert code == 2
        assert "no query became a template" in errors
    else:
        assert code == 0, errors
        assert fineinstructions.verify(run) == []
    (figure,) = [row for row in output_json(look("status", run, "--json"))["funnel"] if row["stage"] == stage]
    assert figure["in"] == sum(figure["rejected"].values()) > 3
    assert (figure["out"], figure["failed"]) == (0, {})
    assert set(figure["rejected"]) <= REASONS[stage]
    phase = "genericize" if stage == "genericize" else "pairs"
    turned_away = [as_dict(r) for r in RunFolder.open(run).rejections(phase) if r.stage == stage]
    assert len({json.loads(row["record"])["raw"] for row in turned_away}) > 1
    entry = json.loads((run / "endpoints.json").read_text())[stage]
    assert entry["structured"] == "none"
    assert entry["engine"] == llm["engine"]
    if llm["engine"] == "transformers":
        assert (entry["logprobs"], entry["context_tokens"]) == (True, 4 * CONTEXT_TOKENS)
    code, _, errors = in_process("run", recipe, "--out", run)  # nothing is asked again
    assert code == (2 if stage == "genericize" else 0), errors


def test_the_doctor_says_what_the_model_can_do(tmp_path: Path, llm: dict[str, Any]) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 1)
    recipe = write_recipe(tmp_path, documents, llm=llm, judge={"model": "openai"})
    checks = {check["check"]: check for check in output_json(look("doctor", recipe, "--json"))}
    assert checks["abilities"]["ok"]
    assert "structured output none" in checks["abilities"]["detail"]
