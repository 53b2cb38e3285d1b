"""What a run finds out about its models, once, and keeps to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_inputs import EXAMPLES, call, in_process, look, output_json, take_documents, write_recipe

from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_replies import Reply
from fineinstructions.backends.scripted_server import ScriptedServer

CHAT = "/v1/chat/completions"


def recipe_for(folder: Path, **sections: Any) -> Path:
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", 4, every=40),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 12},
        llm={"model": "large", "backoff_seconds": 0.01},
        genericize={"model": "openai", "llm": {"model": "small"}},
        instantiate={"model": "openai"},
        judge={"model": "embedded"},
        retrieve={"min_cosine": 0.0},
        engine={"workers": 0, "unit_rows": 1, "query_unit_rows": 6},
        **sections,
    )


def start(recipe: Path, run: Path, server: ScriptedServer, *words: str) -> int:
    code, _, errors = in_process("run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}", *words)
    assert code == 0, errors
    return code


def entries(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "endpoints.json").read_text(encoding="utf-8"))
    return found


def ways(server: ScriptedServer) -> set[str]:
    """By which fields the stages' own requests ask for a schema."""
    own = [body for body in server.bodies if "single word ready" not in str(body)]
    return {name for body in own for name in ("guided_json", "response_format") if name in body}


def test_a_run_keeps_to_what_it_found_out_wherever_the_server_moves(tmp_path: Path) -> None:
    recipe, run = recipe_for(tmp_path), tmp_path / "run"
    with ScriptedServer(
        structured="guided_json", max_model_len=4096, keep_bodies=True, models=["small", "large"]
    ) as first:
        start(recipe, run, first)
        assert ways(first) == {"guided_json"}
    found = entries(run)
    assert {stage: entry["model"] for stage, entry in found.items()} == {"genericize": "small", "instantiate": "large"}
    for entry in found.values():
        assert entry["addresses"] == [first.base_url]
        assert (entry["engine"], entry["served_as"]) == ("server", entry["model"])
        assert (entry["structured"], entry["logprobs"], entry["context_tokens"]) == ("guided_json", True, 4096)
    with ScriptedServer(structured="schema", max_model_len=5000, keep_bodies=True) as moved:
        start(recipe, run, moved, "--set", "instantiate.max_document_chars=250", "--redo")
        assert ways(moved) == {"guided_json"}
        assert entries(run) == found
        assert set(moved.requests) == {CHAT}
        start(recipe, run, moved, "--set", "llm.model=another", "--redo")
        assert ways(moved) == {"guided_json", "response_format"}
        assert entries(run)["instantiate"]["context_tokens"] == 5000
        assert entries(run)["genericize"] == found["genericize"]


def test_another_model_that_answers_is_told_and_no_error(tmp_path: Path) -> None:
    def brain(body: Mapping[str, Any]) -> Reply:
        said = echo(body)
        return Reply(str(said), model="large-0613" if body["model"] == "large" else "qwen")

    recipe, run = recipe_for(tmp_path), tmp_path / "run"
    with ScriptedServer(brain, models=["small", "large"]) as server:
        start(recipe, run, server)
        checks = json.loads(in_process("doctor", recipe, "--set", f"llm.base_url={server.base_url}", "--json")[1])
    assert {stage: entry["answers_as"] for stage, entry in entries(run).items()} == {
        "genericize": "qwen",
        "instantiate": "large-0613",
    }
    lines = [json.loads(line) for line in (run / "logs" / "other-models.jsonl").read_text().splitlines()]
    assert {(line["asked"], line["answered"]) for line in lines} == {("small", "qwen")}, "a date makes no other model"
    funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
    assert sum(line["replies"] for line in lines) >= funnel["genericize"]["in"]
    assert "| instantiate | large (served as large-0613) |" in (run / "README.md").read_text()
    assert "| genericize | small (served as qwen) |" in (run / "README.md").read_text()
    assert any("large (answers as large-0613)" in check["detail"] for check in checks)


def test_a_stage_that_is_held_to_nothing_says_nothing_of_the_others(tmp_path: Path) -> None:
    """Two stages ask one model; one of them is set to ask without a schema."""
    recipe, run = recipe_for(tmp_path), tmp_path / "run"
    with ScriptedServer(structured="schema", keep_bodies=True) as server:
        words = ["--set", "genericize.llm={model: large, structured: none}"]
        start(recipe, run, server, *words)
        assert {stage: entry["structured"] for stage, entry in entries(run).items()} == {
            "genericize": "none",
            "instantiate": "schema",
        }
        own = [body for body in server.bodies if "single word ready" not in str(body)]
        assert {"response_format" in body for body in own} == {False, True}
        (run / "endpoints.json").unlink()
    with ScriptedServer(
        structured="ignore", keep_bodies=True
    ) as changed:  # and who removes the file has it found out anew
        start(recipe, run, changed, *words, "--set", "instantiate.max_document_chars=250", "--redo")
    assert entries(run)["instantiate"]["structured"] == "none"


@pytest.mark.slow
def test_workers_try_nothing_out_by_themselves(tmp_path: Path) -> None:
    recipe, run = recipe_for(tmp_path), tmp_path / "run"
    with ScriptedServer(keep_bodies=True) as server:
        done = call("run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}", "--workers", "3")
        assert done.returncode == 0, done.stderr
    probes = [json.dumps(body) for body in server.bodies if "single word ready" in str(body)]
    assert 2 < len(probes) == len(set(probes)) <= 12


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    recipe, run = recipe_for(tmp_path), tmp_path / "run"
    with ScriptedServer() as server:
        start(recipe, run, server)
        (run / "endpoints.json").write_text("{torn")
        words = ["--set", f"llm.base_url={server.base_url}", "--set", "instantiate.max_document_chars=250", "--redo"]
        code, _, errors = in_process("run", recipe, "--out", run, *words)
    assert code == 2
    assert "endpoints.json: cannot be read" in errors
    assert "remove it, and the models are asked again" in errors


def test_the_doctor_shows_what_every_model_can_do(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    with ScriptedServer(
        structured="schema", max_model_len=8192, models=["small", "large"], logprobs="reject"
    ) as server:
        plain = yaml.safe_load(recipe.read_text())
        plain["llm"]["base_url"] = server.base_url
        recipe.write_text(yaml.safe_dump(plain))
        checks = output_json(look("doctor", recipe, "--json"))
    abilities = [check["detail"] for check in checks if check["check"] == "abilities"]
    said = "server, structured output schema, logprobs no, context 8,192 tokens"
    assert sorted(abilities) == [f"large: {said}", f"small: {said}"]
    assert [check["detail"] for check in checks if check["check"] == "server"] == [f"{server.base_url} answers"]
    checks = json.loads(look("doctor", recipe, "--json").stdout)  # the server is gone
    assert {check["ok"] for check in checks if check["check"] == "server"} == {False}
    assert not [check for check in checks if check["check"] == "abilities"]
