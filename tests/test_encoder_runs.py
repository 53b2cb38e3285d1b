"""Whole runs with an encoder other than the embedded one: on this machine, and behind a server."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_encoders
from pipeline_inputs import call, in_process, rows, take_documents, write_recipe

from fineinstructions.backends.model_folder import CALIBRATION_FILE
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.errors import ConfigError
from fineinstructions.forecast import forecast
from fineinstructions.models import Models
from fineinstructions.pipeline import _asks_a_server, verify
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.review.diagnostics import DIAGNOSTICS_FILE
from fineinstructions.setup import Setup
from fineinstructions.staleness import bank_phases, pair_phases
from fineinstructions.templates.index import open_index, remove_templates
from fineinstructions.trial import EMBEDDED_BANK, try_document

pytestmark = pytest.mark.xdist_group("torch")

EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A few documents and a part of the bank that ships."""
    documents = take_documents(tmp_path / "documents.parquet", 24, every=15)
    bank = pq.read_table(EMBEDDED_BANK)
    pq.write_table(bank.take(list(range(0, len(bank), 4))), tmp_path / "bank.parquet")
    return write_recipe(tmp_path, documents, queries=None, templates={"bank": str(tmp_path / "bank.parquet")})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("sentence_transformers", reason="needs the extra [embed]")
    return tiny_encoders.save_bert(tmp_path / "model")


def digests(config: RunConfig, folder: Path) -> dict[str, str]:
    models = Models(Setup(config, folder))
    return {p.name: p.digest for p in (*bank_phases(config, models), *pair_phases(config, models))}


@pytest.mark.extra
def test_a_whole_run_with_an_encoder_of_ones_own(tmp_path: Path, recipe: Path, model: Path) -> None:
    run, words = tmp_path / "run", ("--set", f"encoder.model={model}", "--set", "encoder.batch_tokens=2000")
    done = call("run", recipe, "--out", run, *words, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr
    assert "coverage chunks" not in done.stderr
    assert verify(run) == []
    chunks = {row["chunk"] for row in rows(run, "matches")}
    assert {-1, 0} < chunks <= {-1, 0, 1, 2, 3, 4}, "those that have an answer of the embedded instantiator"
    (name,) = {json.loads(row["models"])["encoder"] for row in rows(run, "pairs")}
    assert name.startswith("folder@")
    assert "float32" in name
    first = [row["pair_id"] for row in rows(run, "pairs")]
    code, _, said = in_process("run", recipe, "--out", tmp_path / "again", *words, "--workers", "0")
    assert code == 0, said
    assert [row["pair_id"] for row in rows(tmp_path / "again", "pairs")] == first


@pytest.mark.extra
def test_another_encoder_makes_the_index_stale_another_threshold_the_matches(
    tmp_path: Path, recipe: Path, model: Path
) -> None:
    def after(**changes: Any) -> set[str]:
        config = as_config(recipe, [f"encoder.{k}={v}" for k, v in changes.items()] + ["instantiate.model=openai"])
        new = digests(config, tmp_path)
        return {phase for phase in before if before[phase] != new[phase]}

    (model / CALIBRATION_FILE).write_text('{"min_cosine": 0.5}', encoding="utf-8")
    config = as_config(recipe, [f"encoder.model={model}", "instantiate.model=openai"])
    before = digests(config, tmp_path)
    moved = shutil.copytree(model, tmp_path / "moved")
    assert after(model=moved, batch_tokens=10) == set()
    assert after(model=model, special_tokens=False) == {"index"}
    (model / CALIBRATION_FILE).write_text('{"min_cosine": 0.6}', encoding="utf-8")
    assert after(model=model) == {"candidates"}
    (model / CALIBRATION_FILE).unlink()
    with pytest.raises(ConfigError, match=r"retrieve\.min_cosine: missing"):
        after(model=model)


@pytest.mark.extra
def test_a_trial_with_an_encoder_of_ones_own(recipe: Path, model: Path) -> None:
    text = "# Wordlist\n\nA wordlist is a list of words. " + "The word1 and the word2 are words. " * 60
    bank = recipe.parent / "bank.parquet"
    trial = try_document(text, recipe={"encoder": {"model": str(model)}}, bank=bank)
    assert len(trial.step("chunk").made[0].chunk_starts) == 5


def served(server: ScriptedServer, **more: str) -> list[str]:
    settings = {"model": "embedder", "backend": "endpoint", "llm.base_url": server.base_url, **more}
    return [word for key, value in settings.items() for word in ("--set", f"encoder.{key}={value}")]


@pytest.mark.slow
def test_a_whole_run_with_a_server_of_embeddings(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    with ScriptedServer() as server:
        done = call("run", recipe, "--out", run, *served(server), "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert server.requests[EMBEDDINGS] > 10
        asked = sum(server.requests.values())
        code, _, said = in_process("run", recipe, "--out", run, *served(server), "--workers", "0")
        assert code == 0, said
        assert sum(server.requests.values()) == asked
    assert "every match is one of the whole document (chunk -1)" in done.stderr
    assert verify(run) == []
    assert {row["chunk"] for row in rows(run, "matches")} == {-1}
    figures = json.loads((run / DIAGNOSTICS_FILE).read_text(encoding="utf-8"))
    assert [vector["chunk"] for vector in figures["vectors"]] == [-1]
    assert figures["all_vectors_share"] == figures["vectors"][0]["found_share"] > 0
    assert "all of them" not in in_process("status", run)[1]
    assert len(rows(run, "pairs")) > 0


def test_units_wait_for_a_server_of_embeddings_together(recipe: Path) -> None:
    for settings, phases in (
        ([], set()),
        (["encoder.model=m", "encoder.backend=endpoint"], {"candidates"}),
        (["judge.model=openai"], {"pairs"}),
    ):
        config = as_config(recipe, settings)
        names = ("queries", "genericize", "templates", "index", "candidates", "popularity", "matches", "pairs")
        assert {name for name in names if _asks_a_server(config, name)} == phases


def test_a_forecast_over_a_ready_index_of_another_encoder(tmp_path: Path, recipe: Path) -> None:
    index = tmp_path / "index"
    with ScriptedServer() as server:
        settings = ["engine.workers=0", *(w for w in served(server) if w != "--set")]
        code, _, said = in_process("index", "build", recipe, "--out", index, *served(server))
        assert code == 0, said
        removed = next(open_index(index).templates()).template_id
        remove_templates([removed], index)
        asked = sum(server.requests.values())
        of_bank = forecast(recipe, overrides=settings)
        found = forecast(recipe, overrides=[*settings, "templates.bank=null", f"templates.index={index}"])
        assert sum(server.requests.values()) == asked
    assert found.num_templates == of_bank.num_templates - 1
    assert found.num_matches > 0
    assert found.bytes_on_disk < of_bank.bytes_on_disk
    (call,), (with_templates,) = found.calls, of_bank.calls
    assert call.num_calls < with_templates.num_calls
    assert call.prompt_tokens < with_templates.prompt_tokens


@pytest.mark.slow
def test_what_is_asked_of_an_encoder_nobody_calibrated(tmp_path: Path, recipe: Path) -> None:
    """With the gate its threshold holds; without one the recipe has to name one, and no request is made before."""
    with ScriptedServer() as server:
        models = [f"{stage}.model=openai" for stage in ("instantiate", "judge")]
        words = [w for m in [*models, "llm.model=m"] for w in ("--set", m)]
        code, _, said = in_process("run", recipe, "--out", tmp_path / "run", *served(server), *words)
        assert code == 2
        assert "retrieve.min_cosine: missing, and this encoder has no calibrated threshold" in said
        assert sum(server.requests.values()) == 0
        config = as_config(recipe, [w for w in served(server) if w != "--set"])
        assert Models(Setup(config, tmp_path)).retrieve.min_cosine is None
        before = forecast(config)
        assert sum(server.requests.values()) == 0
    assert before.num_matches > 0
    calls = {c.stage: c for c in before.calls}
    assert calls["encoder"].model == "embedder"
    assert calls["encoder"].num_calls > 0


def test_doctor_tells_of_the_encoder(tmp_path: Path, recipe: Path) -> None:
    code, said, _ = in_process("doctor", recipe, "--out", tmp_path)
    assert code == 0
    assert "embedded: embedded-static-" in said
    assert "the one of the gate" in said
    code, said, _ = in_process("doctor", "--out", tmp_path)
    assert "sentence-transformers" in said
    bad = tmp_path / "bad.yaml"
    bad.write_text(recipe.read_text() + "encoder: {model: some/model}\n", encoding="utf-8")
    code, said, _ = in_process("doctor", bad, "--out", tmp_path)
    assert code == 1
    assert "FAIL  encoder" in said
    with ScriptedServer(models=("embedder",)) as server:
        section = f"encoder: {{model: embedder, backend: endpoint, llm: {{base_url: {server.base_url}}}}}\n"
        bad.write_text(recipe.read_text() + section, encoding="utf-8")
        code, said, _ = in_process("doctor", bad, "--out", tmp_path)
        assert server.requests[EMBEDDINGS] == 0
    assert code == 0, said
    assert f"{server.base_url} answers" in said
