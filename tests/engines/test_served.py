"""Workers of a Ray or a Slurm cluster ask the server that the driver has started.

In the group of the Ray tests, which look at every process of Ray on the machine.
"""

import contextlib
from pathlib import Path

import pytest
from engine_programs import MODEL, SOURCE, expect_gone, recipe_for, starts, write_program
from pipeline_inputs import call, content, in_process
from slurm_cluster import missing, slurm_cluster

from fineinstructions.backends.scripted_server import ScriptedServer

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.xdist_group("ray")]


@pytest.mark.parametrize("kind", ["ray", "slurm"])
def test_the_templates_are_those_of_a_server_that_was_found(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_program(tmp_path / "bin", "vllm")
    found, out = tmp_path / "found", tmp_path / "out"
    with ScriptedServer() as server:
        recipe = recipe_for(found, {"model": MODEL, "base_url": server.base_url})
        code, _, errors = in_process("templates", "build", recipe, "--out", found / "out", "--set", "engine.workers=0")
        assert code == 0, errors
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    serve = {"model": MODEL, "host": "127.0.0.1", "executable": str(program)}
    changes = [f"engine.kind={kind}", "engine.slurm.poll_seconds=0.2"]
    with contextlib.ExitStack() as stack:
        if kind == "ray":
            pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
        elif missing():
            pytest.skip(missing())
        else:
            for name, value in stack.enter_context(slurm_cluster()).items():
                monkeypatch.setenv(name, value)
        recipe = recipe_for(tmp_path / "served", {"serve": serve})
        done = call("templates", "build", recipe, "--out", out, *(w for change in changes for w in ("--set", change)))
    assert done.returncode == 0, done.stderr
    assert content(out / "templates") == content(found / "out" / "templates")
    assert len(starts(tmp_path / "bin")) == 1
    assert not (out / "serving.json").exists()
    expect_gone(tmp_path / "bin")
