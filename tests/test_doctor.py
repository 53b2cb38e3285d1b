"""What the doctor tells of a recipe with a ready template index, and of the server that a recipe names."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_inputs import EXAMPLES, doctor_checks, in_process

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.records import Template
from fineinstructions.templates.index import IndexConfig, build_index, remove_templates


def test_what_is_wrong_is_summed_up(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("documents: {path: nowhere.parquet}\n", encoding="utf-8")
    code, out, _ = in_process("doctor", tmp_path / "r.yaml")
    assert code == 1
    assert f"nowhere.parquet: no such file in {Path.cwd()}, or nothing" in out
    assert re.fullmatch(r"\d+ of \d+ checks failed", out.splitlines()[-1])
    code, out, _ = in_process("doctor")
    assert (out.splitlines()[-1] == "all is well") == (code == 0)


def test_a_ready_index_is_whole_and_of_the_recipes_encoder(tmp_path: Path) -> None:
    templates = [Template(f"t-{i}", "What is <fi>it</fi>?", f"a document about topic {i}", 1, ("q",)) for i in range(9)]
    index = tmp_path / "index"
    build_index(templates, EmbeddedEncoder(), IndexConfig(), index)
    remove_templates(["t-1"], index)

    def checked(**sections: Any) -> tuple[int, dict[str, tuple[bool, str]]]:
        recipe = {"templates": {"index": str(index)}, "documents": {"path": "nowhere.csv"}} | sections
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        code, out, _ = in_process("doctor", tmp_path / "r.yaml", "--json")
        return code, {check["check"]: (check["ok"], check["detail"]) for check in json.loads(out)}

    assert checked()[1]["index"] == (True, f"8 templates in {index}")
    _, found = checked(encoder={"model": "m", "backend": "endpoint", "llm": {"base_url": "http://127.0.0.1:9/v1"}})
    assert not found["index"][0]
    assert "build it again or name that encoder" in found["index"][1]
    code, found = checked(templates={"index": str(index), "bank": "nowhere"})
    assert (code, found["templates"][0]) == (1, False)
    assert "name only one of the two" in found["templates"][1]
    assert found["index"][0]
    assert not found["bank"][0]
    (index / "templates.arrow").write_bytes(b"no table")
    for instantiate in ({}, {"model": "openai"}):
        code, found = checked(instantiate=instantiate, llm={"base_url": "http://127.0.0.1:9/v1"})
        assert code == 1
        assert not found["index"][0]
        assert "build the index again" in found["index"][1]
        assert "encoder" in found
    assert "server" in found
    code, found = checked(templates={"index": str(tmp_path / "nowhere")})
    assert (code, found["index"][0]) == (1, False)
    assert "there is no index here; build one first" in found["index"][1]


def test_keys_can_be_overridden_as_in_a_run(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"documents": {"path": "nowhere.csv"}}))
    documents = EXAMPLES / "documents.parquet"
    assert not doctor_checks(recipe)[1]["documents"][0]
    assert doctor_checks(recipe, "--set", f"documents.path={documents}")[1]["documents"] == (True, str(documents))
    code, found = doctor_checks(recipe, "--set", "judge.model=nobody")
    assert (code, found["recipe"][0]) == (1, False)
    assert "judge.model" in found["recipe"][1]
    assert "name the recipe" in doctor_checks("--set", "seed=1")[1]["recipe"][1]


def test_doctor_asks_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    path = tmp_path / "r.yaml"

    def asking(model: str, address: str) -> Path:
        inputs = {name: {"path": str(EXAMPLES / f"{name}.parquet")} for name in ("queries", "documents")}
        llm = {"base_url": address, "model": model}
        path.write_text(yaml.safe_dump({**inputs, "llm": llm, "judge": {"model": "openai"}}))
        return path

    with ScriptedServer(models=("good-model", "other")) as server:
        code, found = doctor_checks(asking("good-model", server.base_url))
        assert code == 0, found
        assert found["server"] == (True, f"{server.base_url} answers")
        assert found["model"] == (True, "good-model")
        code, found = doctor_checks(asking("better-model", server.base_url))
        assert code == 1
        assert found["model"] == (False, "'better-model' is not served there; it has good-model, other")
        assert found.keys().isdisjoint({"abilities"})  # nothing is asked of a model that is not there
    code, found = doctor_checks(path)
    assert code == 1
    assert not found["server"][0]
    assert "start it, or set llm.base_url" in found["server"][1]
    assert "sk-never-shown" not in str(found)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:never-shown@127.0.0.1:9/v1")
    code, found = doctor_checks(asking("good-model", ""))
    assert code == 1
    assert found["server"] == (
        False,
        "OPENAI_BASE_URL: must not hold a user name or password; put the key into an environment variable",
    )
    monkeypatch.delenv("OPENAI_BASE_URL")
    with ScriptedServer(api_key="sk-another") as server:  # says which key it got
        code, found = doctor_checks(asking("good-model", server.base_url))
        assert code == 1
        assert "wrong key: Bearer ***" in found["server"][1]
    assert "never-shown" not in str(found)
