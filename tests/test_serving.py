"""A run that starts its model servers itself: programs with the options of vLLM and SGLang, over real HTTP."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from engine_programs import MODEL, behave, expect_gone, recipe_for, starts, wait_for, write_program
from pipeline_inputs import (
    call,
    command,
    content,
    in_process,
    rows,
)

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.backends.serve_config import KEY_VARIABLE, ServeConfig, engine_version, server_command
from fineinstructions.backends.served import ServedModel
from fineinstructions.config import to_plain
from fineinstructions.endpoints import asked_models
from fineinstructions.errors import ConfigError
from fineinstructions.pipeline import as_config
from fineinstructions.runs import RunFolder
from fineinstructions.setup import open_setup

pytestmark = pytest.mark.xdist_group("serving")

TABLES = ("pairs", "matches", "templates", "rejected")
JUDGE = "acme/judge"
HERE = ("--workers", "0")
SECRETS = {"AWS_SECRET_ACCESS_KEY": "aws-secret", "OPENAI_API_KEY": "sk-for-somebody-else", "WANDB_API_KEY": "w"}


def tables(run: Path) -> dict[str, dict[str, bytes]]:
    return {name: content(run / name) for name in TABLES}


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


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a vllm that is on the PATH."""
    folder = write_program(tmp_path / "bin", "vllm").parent
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_server_that_the_run_starts_gives_the_same_bytes(
    tmp_path: Path, name: str, expected: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, secret in SECRETS.items():
        monkeypatch.setenv(variable, secret)
    monkeypatch.setenv("HF_TOKEN", "hf_needed")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    program = write_program(tmp_path / "bin", name)
    length = "--max-model-len" if name == "vllm" else "--context-length"
    serve = {"model": MODEL, "args": [length, "4096"], "executable": str(program)}
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
    for path in (tmp_path / "run").rglob("*"):
        told = path.read_bytes() if path.is_file() else b""
        assert not any(start["key"].encode() in told for start in found), path
    assert "api_key=***: loading" in (tmp_path / "run" / "logs" / "serve-pairs-1.log").read_text()
    assert tables(tmp_path / "run") == expected
    again = call("run", recipe, "--out", tmp_path / "run", *HERE)
    assert again.returncode == 0, again.stderr
    assert len(starts(tmp_path / "bin")) == 2, "nothing was left to ask"


@pytest.mark.slow
def test_another_model_of_a_stage_has_a_server_and_gpus_of_its_own(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a,6,7")
    recipe = recipe_for(tmp_path / "in", {"serve": {"model": MODEL, "gpus": 2}}, judge={"serve": JUDGE})
    done = call("run", recipe, "--out", tmp_path / "run", *HERE)
    assert done.returncode == 0, done.stderr
    seen = [
        (s["options"]["model_tag"], s["environment"]["CUDA_VISIBLE_DEVICES"], s["options"]["tensor_parallel_size"])
        for s in starts(engine)
    ]
    assert seen[0] == (MODEL, "6,7", 2)
    assert sorted(seen[1:]) == [(JUDGE, "6,7", 2), (MODEL, "4,GPU-a", 2)]
    models = json.loads(rows(tmp_path / "run", "pairs")[0]["models"])
    assert (models["instantiator"]["model"], models["judge"]["model"]) == (MODEL, JUDGE)
    for changes, line in {
        ("llm.serve.gpus=null",): "phase 'pairs' has 2 servers on this machine with 4 GPUs, so say how many each",
        ("judge.llm.serve={model: b, gpus: 3}",): "phase 'pairs' wants 5 GPUs, but this machine shows 4",
        ("engine.resources.pairs.gpus=1",): "phase 'pairs' wants 5 GPUs",
    }.items():
        words = [word for change in changes for word in ("--set", change)]
        code, _, errors = in_process("run", recipe, "--out", tmp_path / "none", *words)
        assert code == 2
        assert line in errors.splitlines()[-1]
    assert len(starts(engine)) == 3


@pytest.mark.slow
def test_a_driver_that_is_killed_takes_its_servers_with_it(
    tmp_path: Path, engine: Path, expected: dict[str, dict[str, bytes]]
) -> None:
    """Killed while a server loads, and while it answers."""
    gate, run = tmp_path / "gate", tmp_path / "run"
    behave(engine, waits_for=str(gate), latency_seconds=0.05)
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL, "revision": "0f3c1"})

    def kill_when(condition: Callable[[], Any]) -> None:
        driver = subprocess.Popen(
            command("run", recipe, "--out", run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        wait_for(condition, driver)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
        expect_gone(engine)

    kill_when(lambda: len(starts(engine)) == 1)
    gate.touch()
    kill_when(lambda: list(run.glob("units/pairs/*/manifest.json")))
    assert (run / "serving.json").exists()
    behave(engine)
    done = call("run", recipe, "--out", run)
    assert done.returncode == 0, done.stderr
    assert not (run / "serving.json").exists()
    assert tables(run) == expected
    expect_gone(engine)


@pytest.mark.slow
def test_a_server_that_dies_is_started_again_while_requests_wait(
    tmp_path: Path, engine: Path, expected: dict[str, dict[str, bytes]]
) -> None:
    behave(engine, dies_after=[10, 1000, 10, 3])
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL, "revision": "0f3c1", "max_retries": 3})
    done = call("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    again = [line for line in done.stderr.splitlines() if "is started again" in line]
    assert ["(1 of 3)" in again[0], "(1 of 3)" in again[1], "(2 of 3)" in again[2], len(again)] == [True, True, True, 3]
    assert "ended with exit code 7" in again[0]
    assert "its log ends: " in again[0]
    assert again[0].endswith("the engine core died")
    ports = [start["options"]["port"] for start in starts(engine)]
    assert (ports[0], ports[2]) == (ports[1], ports[3])
    assert ports[3] == ports[4]
    assert tables(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_server_that_dies_again_and_again_ends_the_run(tmp_path: Path, engine: Path, workers: str) -> None:
    behave(engine, dies_after=[2] * 20)
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL})
    done = call("run", recipe, "--out", tmp_path / "run", "--workers", workers)
    assert done.returncode == 1, done.stderr
    trouble, remedy = done.stderr.splitlines()[-2:]
    assert "llm.serve: vllm ended 4 times, the last with exit code 7; its log ends: " in trouble
    assert "run the same command again to continue" in remedy
    assert len(starts(engine)) == 4
    expect_gone(engine)


@contextlib.contextmanager
def served(folder: Path, gate: Path, notes: list[str]) -> Iterator[ServedModel]:
    """A server that was ready once and waits for a file before it is again; who waits for it does so for a moment."""
    gate.touch()
    behave(folder, waits_for=str(gate))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = ServeConfig(model=MODEL, executable=str(folder / "vllm"))
    log = folder / "logs" / "serve.log"
    with ServedModel(config, MODEL, None, "127.0.0.1", port, gpus=None, log=log, note=notes.append) as server:
        server.wait_until_ready()
        server._serve = config.model_copy(update={"ready_seconds": 0.3})
        yield server


def refusal(server: ServedModel) -> str:
    """What requests are told at the address of a server that is gone for good."""
    told: list[str] = []

    def is_refused() -> bool:
        try:
            urllib.request.urlopen(server.base_url, timeout=60).close()
        except urllib.error.HTTPError as error:
            told.append(error.read().decode() if error.code == 410 else "")
        except OSError:
            told.append("")
        return bool(told[-1:] and told[-1])

    wait_for(is_refused)
    return str(json.loads(told[-1])["error"]["message"])


def test_a_server_that_does_not_get_ready_again_is_not_waited_for(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "made-up")
    notes: list[str] = []
    with served(engine, tmp_path / "gate", notes) as server:
        (tmp_path / "gate").unlink()
        os.kill(starts(engine)[0]["pids"][0], signal.SIGKILL)
        assert refusal(server).startswith("llm.serve: vllm was not ready again after 0.3 s; its log ends: ")
        assert "is started again, requests wait (1 of 3)" in notes[-1]
        expect_gone(engine)


def test_a_server_that_cannot_be_started_again_is_not_waited_for(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has no place any more; the thread that watches must outlive that."""
    monkeypatch.setenv(KEY_VARIABLE, "made-up")
    with served(engine, tmp_path / "gate", []) as server:
        shutil.rmtree(engine / "logs")
        (engine / "logs").touch()
        os.kill(starts(engine)[0]["pids"][0], signal.SIGKILL)
        line = refusal(server)
        assert line.startswith("llm.serve: vllm ended with exit code 137 and cannot be started again (")
        expect_gone(engine)


def test_a_server_that_dies_at_its_start_is_one_line(tmp_path: Path, engine: Path) -> None:
    behave(engine, dies_at_start=True)
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL})
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--set", "queries.limit=5", *HERE)
    assert code == 1
    trouble = errors.splitlines()[-2]
    assert trouble.startswith("fineinstructions: llm.serve: vllm ended with exit code 1 before it was ready; its log")
    assert trouble.endswith("loading | RuntimeError: CUDA out of memory")
    assert len(starts(engine)) == 1
    expect_gone(engine)


def test_a_server_that_never_gets_ready_is_one_line(tmp_path: Path, engine: Path) -> None:
    behave(engine, waits_for=str(tmp_path / "never"))
    recipe = recipe_for(tmp_path / "in", {"serve": {"model": MODEL, "ready_seconds": 0.3}})
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--set", "queries.limit=5", *HERE)
    assert code == 1
    assert "vllm was not ready after 0.3 s" in errors
    assert "raise llm.serve.ready_seconds" in errors
    wait_for(lambda: not any("fineinstructions.backends.guard" in words for words in command_lines(str(tmp_path))))


@pytest.mark.slow
def test_single_stages_serve_their_models_too(tmp_path: Path, engine: Path) -> None:
    """`instantiate`, `judge calibrate` and `try`, each with the models that it asks and no other."""
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL}, judge={"serve": JUDGE})
    text = "Rivers carry sand until they slow down. Then the sand sinks and builds a delta."
    given = {"id": ["a"], "document": [text], "template": ["How do <fi>something that flows</fi> carry sand?"]}
    pq.write_table(pa.table(given), tmp_path / "rows.parquet")
    code, out, errors = in_process("instantiate", tmp_path / "rows.parquet", "-o", tmp_path / "o.parquet", "-c", recipe)
    assert code == 0, errors
    assert sorted(start["options"]["model_tag"] for start in starts(engine)) == [JUDGE, MODEL]
    pairs = {"instruction": ["Why?"] * 2, "answer": ["Because."] * 2, "label": [0, 1]}
    pq.write_table(pa.table(pairs), tmp_path / "labelled.parquet")
    code, out, errors = in_process("judge", "calibrate", tmp_path / "labelled.parquet", "-c", recipe, "--json")
    assert code == 0, errors
    assert json.loads(out)["judge"]["model"] == JUDGE
    assert [start["options"]["model_tag"] for start in starts(engine)][2:] == [JUDGE]
    (tmp_path / "d.txt").write_text(text)
    code, out, errors = in_process(
        "try", tmp_path / "d.txt", "--query", "How do rivers carry sand?", "--recipe", recipe
    )
    assert code == 0, errors
    assert sorted(start["options"]["model_tag"] for start in starts(engine)[3:]) == [JUDGE, MODEL]
    expect_gone(engine)


def test_workers_that_are_sent_no_objects_read_whom_to_ask(tmp_path: Path) -> None:
    """As the tasks of a Slurm array do."""
    config = as_config(recipe_for(tmp_path, {"serve": MODEL, "max_tokens": 7}))
    run = RunFolder.create_or_open(tmp_path / "run", to_plain(config), [])
    with run.lease():
        assert open_setup(run.root).config.judge.llm == {}
        llm = {"model": MODEL, "base_url": "http://10.1.2.3:8000/v1", "api_key_env": KEY_VARIABLE, "max_tokens": 7}
        open_setup(run.root).serving_file.write_text(json.dumps({"judge": llm}))
        asked = asked_models(open_setup(run.root).config)
    assert (asked["judge"].addresses, asked["judge"].max_tokens) == (("http://10.1.2.3:8000/v1",), 7)
    assert asked["judge"].serve is None
    assert asked["instantiate"].serve == ServeConfig(model=MODEL)


def command_lines(place: str) -> list[str]:
    """Command lines of living processes that name a place."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [words for words in found if place in words]


def test_the_doctor_tells_the_engine_and_starts_nothing(tmp_path: Path, engine: Path) -> None:
    recipe = recipe_for(tmp_path / "in", {"serve": MODEL}, judge={"serve": "./nowhere"})
    checks = json.loads(in_process("doctor", recipe, "--json")[1])
    found = [(check["ok"], check["detail"]) for check in checks if check["check"] == "serve"]
    told = f"{MODEL}: vllm 0.30.1 at {engine}/vllm; started by a run only, so not asked now"
    assert found == [(True, told), (False, "llm.serve.model: there is no folder ./nowhere")]
    write_program(engine, "sglang")
    for serve, version in {"sglang": "sglang 0.6.2", "vllm": "vllm 0.30.1"}.items():
        assert engine_version(ServeConfig(model="m", executable=str(engine / serve))).startswith(version)
    python = ServeConfig(model="m", engine="vllm", executable=sys.executable)
    with pytest.raises(ConfigError, match=r"does not tell its version .*PackageNotFoundError"):
        engine_version(python)  # no vllm in this environment
    command = server_command(python, "name", None, "127.0.0.1", 8000, "")
    assert command[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "m"]
    assert starts(engine) == []


def test_what_cannot_be_started_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_for(tmp_path, {"serve": MODEL})
    monkeypatch.setenv("PATH", str(tmp_path))
    for change, line in {
        "seed=0": "llm.serve: no vllm or sglang on the PATH; install it in an environment of its own",
        "llm.serve.engine=sglang": "no sglang on the PATH",
        "llm.serve.executable=/opt/nowhere/vllm": "llm.serve.executable: /opt/nowhere/vllm is no program",
        "llm.base_url=http://127.0.0.1:9/v1": "llm: serve and base_url: name only one",
        "llm.engine=batch": "llm: serve: starts a server, but engine is batch",
        "judge.llm.model=b": "llm.model: b is not what llm.serve starts; say `serve: b` in that stage's llm",
        "llm.serve.args=[--api-key, secret]": "--api-key cannot stand here",
        "encoder={backend: endpoint, model: e}": "encoder.llm.base_url: missing; a run starts servers of language",
    }.items():
        words = ["--set", "llm.serve={model: acme/large}", "--set", change, "--set", "retrieve.min_cosine=0.5"]
        code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", *words)
        assert code == 2
        assert line in errors.splitlines()[-1]
        assert len([told for told in errors.splitlines() if not told.startswith("input: ")]) == 1
    assert not list((tmp_path / "run").glob("units/queries/*"))
