"""A run that starts its model servers itself: programs with the options of vLLM and SGLang, over real HTTP."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_programs import behave, starts, write_program
from pipeline_inputs import EXAMPLES, call, command, content, in_process, output_json, look, rows, take_documents, write_recipe

import fineinstructions
from fineinstructions.backends.scripted_server import ScriptedServer

pytestmark = pytest.mark.xdist_group("serving")

TABLES = ("pairs", "matches", "templates", "rejected")
MODEL, JUDGE = "acme/large", "acme/judge"
HERE = ("--workers", "0")
SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws-secret", "OPENAI_API_KEY": "sk-for-somebody-else", "WANDB_API_KEY": "w"}


def recipe_for(folder: Path, llm: dict[str, Any], judge: dict[str, Any] | None = None) -> Path:
    """All three stages ask a model, the judge perhaps another."""
    folder.mkdir(exist_ok=True)
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", 8, every=50),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 20},
        llm={"max_in_flight": 8, "backoff_seconds": 0.01, **llm},
        genericize={"model": "openai"},
        instantiate={"model": "openai"},
        judge={"model": "openai", "max_template_share": 1.0, "llm": judge or {}},
        retrieve={"min_cosine": 0.0},
        engine={"workers": 1, "unit_rows": 2, "query_unit_rows": 10},
    )


def tables(run: Path) -> dict[str, dict[str, bytes]]:
    return {name: content(run / name) for name in TABLES}


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_for(condition: Callable[[], Any], driver: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 60
    while not condition() and (driver is None or driver.poll() is None):
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.02)


def expect_gone(folder: Path) -> None:
    """No process of any start is left, also not the child that each has put into a session of its own."""
    pids = [pid for start in starts(folder) for pid in start["pids"]]
    assert pids
    wait_for(lambda: not any(map(is_alive, pids)))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What the same recipe makes with a server that somebody else runs."""
    folder = tmp_path_factory.mktemp("found")
    with ScriptedServer() as server:
        recipe = recipe_for(folder, {"model": MODEL, "base_url": server.base_url, "revision": "0f3c1"})
        code, _, errors = in_process("run", recipe, "--out", folder / "run", *HERE)
        assert code == 0, errors
    assert rows(folder / "run", "pairs")
    return tables(folder / "run")


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_server_that_the_run_starts_gives_the_same_bytes(
    tmp_path: Path, name: str, expected: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, secret in SECRETS.items():
        monkeypatch.setenv(variable, secret)
    monkeypatch.setenv("HF_TOKEN", "hf_needed")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    write_program(tmp_path / "bin", name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    length = "--max-model-len" if name == "vllm" else "--context-length"
    serve = {"model": MODEL, "args": [length, "4096"]}
    recipe = recipe_for(tmp_path / "served", {"serve": serve, "revision": "0f3c1"})
    done = call("run", recipe, "--out", tmp_path / "run", *(HERE if name == "sglang" else ()))
    assert done.returncode == 0, done.stderr
    assert f"llm.serve: {name} is ready after" in done.stderr
    expect_gone(tmp_path / "bin")
    found = starts(tmp_path / "bin")
    assert len(found) == 2, "one for the templates, one for the pairs"
    for start in found:
        options, environment = start["options"], start["environment"]
        assert options["model_tag" if name == "vllm" else "model_path"] == MODEL
        assert (options["served_model_name"], options["host"], options["revision"]) == (MODEL, "127.0.0.1", "0f3c1")
        assert options[length.strip("-").replace("-", "_")] == 4096
        assert environment["HF_TOKEN"] == "hf_needed"
        assert not {"VIRTUAL_ENV", "PYTHONPATH", *SECRETS} & set(environment)
    key = found[0]["environment"].get("VLLM_API_KEY", "")
    assert bool(key) == (name == "vllm")
    for path in (tmp_path / "run").rglob("*"):
        assert not (key and path.is_file() and key.encode() in path.read_bytes()), path
    assert "api_key=***: loading" in (tmp_path / "run" / "logs" / "serve-pairs-1.log").read_text()
    assert tables(tmp_path / "run") == expected
    again = call("run", recipe, "--out", tmp_path / "run", *HERE)
    assert again.returncode == 0, again.stderr
    assert len(starts(tmp_path / "bin")) == 2, "nothing was left to ask"
