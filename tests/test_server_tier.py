"""The whole job with a model server behind every stage: the scripted one, over real HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import (
    AWKWARD,
    EXAMPLES,
    awkward_documents,
    call,
    command,
    content,
    look,
    output_json,
    rows,
    take_documents,
    write_recipe,
)
from window_watch import UnitsWatch

import fineinstructions
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer, seeded_faults
from fineinstructions.recipe import as_config
from fineinstructions.trial import try_document

pytestmark = pytest.mark.xdist_group("server_tier")

KEY = "sk-a-key-that-must-stay-secret"
TABLES = ("pairs", "matches", "templates", "rejected")
MODELS = {"genericize": "scripted-small", "instantiate": "scripted-large", "judge": "scripted-judge"}
WINDOW = 16
MAX_PROBES = 6 * len(MODELS)
"""Short questions that find out what a server can do; this one ignores most of them."""
CHAT = "/v1/chat/completions"
HERE = ("--workers", "0")
"""Work in the driver's own process, where workers are not what is tested: starting one takes a second per phase."""
FAULTS = {"rate_limit": 0.03, "server_error": 0.03, "reset": 0.02, "garbage": 0.02, "surrogate": 0.02}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def wordy(body: Mapping[str, Any]) -> str:
    """Some answers get an introduction of the model's own, long enough to push the excerpt ratio under 0.8."""
    reply = str(echo(body))
    if body["model"] == MODELS["instantiate"] and reply != "null":
        draft = json.loads(reply)
        if len(draft["answer"]) % 3 == 0:
            draft["answer"] = "Here is what the text has to say about that, in its own words: " + draft["answer"]
        reply = json.dumps(draft)
    return reply


def server_of(**settings: Any) -> ScriptedServer:
    settings = {"api_key": KEY, "models": tuple(MODELS.values()), "retry_after": "0.02", **settings}
    return ScriptedServer(wordy, **settings)


def recipe_for(folder: Path, documents: int, queries: int, **llm: Any) -> Path:
    """All three stages ask a server, whose address comes with the call."""
    defaults = {"model": MODELS["instantiate"], "max_in_flight": WINDOW, "backoff_seconds": 0.01}
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", documents, every=max(1, 400 // documents)),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": queries},
        llm={**defaults, **llm},
        genericize={"model": "openai", "llm": {"model": MODELS["genericize"]}},
        instantiate={"model": "openai"},
        judge={"model": "openai", "llm": {"model": MODELS["judge"]}, "max_template_share": 1.0},
        retrieve={"min_cosine": 0.0},
        engine={"workers": 1, "unit_rows": 4, "query_unit_rows": 20},
    )


def start(recipe: Path, run: Path, server: ScriptedServer, *words: str) -> subprocess.CompletedProcess[str]:
    return call("run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}", *words)


def tables(run: Path) -> dict[str, dict[str, bytes]]:
    return {name: content(run / name) for name in TABLES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    return recipe_for(folder, documents=14, queries=40)


@pytest.fixture(scope="module")
def finished(folder: Path, recipe: Path) -> Iterator[tuple[Path, ScriptedServer]]:
    """A finished run and the server that it asked, still up."""
    with pytest.MonkeyPatch.context() as patch, server_of(latency_seconds=0.01) as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        done = start(recipe, folder / "run", server, *HERE)
        assert done.returncode == 0, done.stderr
        yield folder / "run", server


def test_pairs_come_out_and_name_their_models(finished: tuple[Path, ScriptedServer]) -> None:
    run, _ = finished
    pairs = rows(run, "pairs")
    assert len(pairs) >= 20
    assert fineinstructions.verify(run) == []
    for pair in pairs:
        models = json.loads(pair["models"])
        named = {role: models[role]["model"] for role in ("genericizer", "instantiator", "judge")}
        assert list(named.values()) == list(MODELS.values())
        assert all(len(models[role]["prompt"]) >= 16 for role in named)
        assert models["encoder"]
        assert pair["judge_feedback"]
        assert abs(pair["judge_expected_score"] - pair["judge_score"]) < 1.2
    shown = output_json(look("explain", run, pairs[0]["pair_id"], "--json"))
    assert shown["template"]["template_id"] == pairs[0]["template_id"]


def test_a_query_of_one_person_is_enough_for_a_template(finished: tuple[Path, ScriptedServer]) -> None:
    """A model server's templates need not be shared by two queries, as the embedded tier's must."""
    assert min(len(row["query_ids"]) for row in rows(finished[0], "templates")) == 1


def test_no_file_of_the_run_holds_the_key(finished: tuple[Path, ScriptedServer]) -> None:
    for path in finished[0].rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_one_question_is_asked_once(finished: tuple[Path, ScriptedServer]) -> None:
    """Queries, drafts and pairs make one call each; a handful goes into finding out what the server can do."""
    run, server = finished
    funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
    asked = sum(funnel[stage]["in"] for stage in ("genericize", "instantiate", "judge"))
    assert asked <= server.requests[CHAT] <= asked + MAX_PROBES
    assert WINDOW * 0.75 <= server.max_in_flight <= WINDOW


def asked(run: Path) -> dict[str, dict[str, Any]]:
    """What `status` says that each stage has asked, without what a clock measured."""
    found = output_json(look("status", run, "--json"))["asked"]
    return {stage: {k: v for k, v in of.items() if k != "seconds"} for stage, of in found.items()}


def test_faults_and_a_second_server_change_no_byte(
    tmp_path: Path, recipe: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    faults = seeded_faults(FAULTS, seed=4)
    with server_of(faults=faults) as server, server_of(faults=faults, capacity=3) as other:
        words = ["--workers", "2", "--set", f"llm.base_url=[{server.base_url}, {other.base_url}]"]
        done = start(recipe, tmp_path / "run", server, *words)
        assert done.returncode == 0, done.stderr
        assert other.requests[CHAT] > 10
        assert max(server.max_in_flight, other.max_in_flight) <= WINDOW
        sent = server.faults_sent + other.faults_sent  # which of them a request goes to depends on who is free
        assert set(sent) == set(FAULTS)
        assert sum(sent.values()) > 0.05 * (server.requests[CHAT] + other.requests[CHAT])
    assert tables(tmp_path / "run") == tables(finished[0])


def test_a_moved_threshold_asks_nobody(recipe: Path, finished: tuple[Path, ScriptedServer]) -> None:
    run, server = finished
    before, asked = tables(run), server.requests.total()
    done = start(recipe, run, server, "--set", "judge.min_score=2", "--redo", *HERE)
    assert done.returncode == 0, done.stderr
    assert len(rows(run, "pairs")) > len(before["pairs"])
    assert start(recipe, run, server, "--redo", *HERE).returncode == 0
    assert tables(run) == before
    assert server.requests.total() == asked


@pytest.mark.slow
def test_a_screened_run_fills_only_what_the_judge_calls_compatible(
    tmp_path: Path, recipe: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    """Of the same matches, the pairs are those of the run without a screen, less what it turned away."""
    without, server = finished
    run = shutil.copytree(without, tmp_path / "run")
    screened = ("--set", f"compatibility={{model: openai, screen: true, llm: {{model: {MODELS['judge']}}}}}")
    assert "stale: pairs, assemble;" in " ".join(start(recipe, run, server, *screened, *HERE).stderr.split())
    asked = server.requests[CHAT]
    done = start(recipe, run, server, *screened, "--redo", *HERE)
    assert done.returncode == 0, done.stderr
    assert fineinstructions.verify(run) == []
    funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
    matches = sum(row["sampled"] for row in rows(run, "matches"))
    assert matches == funnel["screen"]["in"] > funnel["screen"]["out"] == funnel["instantiate"]["in"] > 0
    assert 0 <= server.requests[CHAT] - asked - matches <= MAX_PROBES
    away = {row["record_id"] for row in rows(run, "rejected") if row["stage"] == "screen"}
    expected, pairs = {pair["pair_id"] for pair in rows(without, "pairs")}, rows(run, "pairs")
    assert away & expected
    assert {pair["pair_id"] for pair in pairs} == expected - away
    assert {json.loads(pair["models"])["compatibility"]["model"] for pair in pairs} == {MODELS["judge"]}
    assert "| compatibility |" in (run / "README.md").read_text(encoding="utf-8")
    (figures,) = output_json(look("yields", run, "--by", "model", "--json"))["model"]
    assert figures["reasons"]["screen: incompatible"] == len(away)
    assert start(recipe, run, server, "--redo", *HERE).returncode == 0
    assert tables(run) == tables(without)


@pytest.mark.slow
def test_a_lower_excerpt_ratio_asks_the_judge_about_new_drafts_only(
    recipe: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    run, server = finished
    before, asked = tables(run), server.requests[CHAT]
    turned_away = [row for row in rows(run, "rejected") if row["stage"] == "excerpts" and row["value"] is not None]
    admitted = sum(row["value"] >= 0.5 for row in turned_away)
    assert admitted > 0
    done = start(recipe, run, server, "--set", "excerpts.min_ratio=0.5", "--redo", *HERE)
    assert done.returncode == 0, done.stderr
    assert server.requests[CHAT] == asked + admitted
    assert min(pair["excerpt_ratio"] for pair in rows(run, "pairs")) < 0.8
    assert start(recipe, run, server, "--redo", *HERE).returncode == 0
    assert tables(run) == before
    assert server.requests[CHAT] == asked + admitted


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(60,), (5, 20, 45, 70, 90, 120)], ids=["once", "many times"])
def test_driver_killed_in_the_middle_of_its_calls(
    tmp_path: Path, recipe: Path, finished: tuple[Path, ScriptedServer], kills: tuple[int, ...]
) -> None:
    """What was answered before a kill is not asked again, but for what was under way."""
    run, (whole, _) = tmp_path / "run", finished
    with server_of(latency_seconds=0.03) as server:
        for stop_after in kills:
            words = ["run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}"]
            driver = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while server.requests[CHAT] < stop_after and driver.poll() is None:
                time.sleep(0.002)
            driver.send_signal(signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL
        assert start(recipe, run, server).returncode == 0
        repeated = server.requests[CHAT] - finished_calls(whole)
    assert repeated <= (WINDOW + 3) * len(kills) + MAX_PROBES
    assert tables(run) == tables(whole)
    assert asked(run) == asked(whole), "what was done again counts once"
    assert fineinstructions.verify(run) == []


def test_no_connection_outlives_its_work(tmp_path: Path, recipe: Path) -> None:
    with server_of() as server:
        changes = [f"llm.base_url={server.base_url}", "engine.workers=0", "queries.limit=5"]
        fineinstructions.build_templates(recipe, tmp_path / "bank", overrides=changes)
        assert not any(thread.name == "chat-client" for thread in threading.enumerate())
        config = as_config(recipe, changes)
        trial = try_document(
            "Rivers carry sand until they slow down.", query="How do rivers carry sand?", recipe=config
        )
        assert trial.step("genericize").made
        assert not any(thread.name == "chat-client" for thread in threading.enumerate())
        asked = server.requests.total()
        fineinstructions.build_templates(recipe, tmp_path / "bank", overrides=changes)
        assert server.requests.total() == asked


def finished_calls(run: Path) -> int:
    funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
    return sum(int(funnel[stage]["in"]) for stage in ("genericize", "instantiate", "judge"))


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}/v1"


def one_line_of_trouble(done: subprocess.CompletedProcess[str]) -> str:
    """Exit code 1 and, after the progress, one line with the trouble and one with how to go on."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    *progress, trouble, remedy = done.stderr.splitlines()
    assert all(": progress," in line or ": done," in line or "no answer for" in line for line in progress), done.stderr
    assert "what is committed stays; run the same command again to continue" in remedy
    assert KEY not in done.stderr
    return trouble


@pytest.mark.slow
def test_a_server_that_is_down_and_comes_up(
    tmp_path: Path, recipe: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    address, run = free_address(), tmp_path / "run"
    began = time.monotonic()
    trouble = one_line_of_trouble(call("run", recipe, "--out", run, "--set", f"llm.base_url={address}", *HERE))
    assert time.monotonic() - began < 30
    assert trouble.startswith(f"fineinstructions: {address}: connection failed")
    assert "start the server" in trouble
    with server_of() as server:
        done = start(recipe, run, server, *HERE)
        assert done.returncode == 0, done.stderr
    assert tables(run) == tables(finished[0])


def test_a_wrong_model_or_key_is_one_line(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_of() as server:
        done = start(recipe, tmp_path / "run", server, "--set", "genericize.llm.model=no-such-model", *HERE)
        trouble = one_line_of_trouble(done)
        assert "no-such-model" in trouble
        assert "does not exist" in trouble
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}-wrong")
        trouble = one_line_of_trouble(start(recipe, tmp_path / "run", server, "--redo", *HERE))
        assert "access denied (check the key in OPENAI_API_KEY)" in trouble


@pytest.mark.slow
def test_awkward_documents_reach_the_model_unaltered(tmp_path: Path, recipe: Path) -> None:
    texts = awkward_documents()
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"id": list(texts), "text": list(texts.values())}), path)
    with server_of(keep_bodies=True) as server:
        words = ["--set", f"documents.path={path}", "--set", "instantiate.max_document_chars=1000000", *HERE]
        done = start(recipe, tmp_path / "run", server, *words)
        assert done.returncode == 0, done.stderr
    asked = [body["messages"][-1]["content"] for body in server.bodies if body["model"] == MODELS["instantiate"]]
    documents = [json.loads(said)["document"] for said in asked if said.startswith("{")]
    assert len(set(documents)) > len(AWKWARD)
    assert set(documents) <= set(texts.values())
    assert rows(tmp_path / "run", "pairs")
    assert fineinstructions.verify(tmp_path / "run") == []


@pytest.mark.slow
def test_records_that_a_server_failed_on_can_be_tried_again(
    tmp_path: Path, recipe: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    run, (whole, _) = tmp_path / "run", finished

    def judge_is_broken(body: Mapping[str, Any], times: int) -> Any:
        """From its first pair on: one that does not answer at the start ends the run there."""
        is_probe = "single word ready" in str(body["messages"])
        return "server_error" if body["model"] == MODELS["judge"] and not is_probe else None

    words = ["--set", "llm.max_retries=1", "--set", "llm.max_failures_in_a_row=1000", *HERE]
    with server_of(faults=judge_is_broken) as server:
        done = start(recipe, run, server, *words)
        assert done.returncode == 1, done.stderr
    funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
    lost = funnel["judge"]["failed"]["transport"]
    assert lost == funnel["judge"]["in"] > 0
    assert f"{lost} records failed; run again with --retry-failed" in done.stderr
    assert fineinstructions.verify(run) == []
    with server_of() as server:
        assert start(recipe, run, server, "--retry-failed", *HERE).returncode == 0
        assert lost <= server.requests[CHAT] <= lost + MAX_PROBES
    assert tables(run) == tables(whole)


@pytest.mark.slow
def test_unit_borders_do_not_drain_the_window(tmp_path: Path) -> None:
    """While a unit waits for its last replies, the next ones ask; with one unit open, none does."""
    recipe = recipe_for(tmp_path, documents=20, queries=20)
    texts = pq.read_table(tmp_path / "documents.parquet")["text"].to_pylist()
    units_at_once = {}
    for open_units in (1, 3):
        run, awaited = tmp_path / f"run-{open_units}", open_units - 1
        settings = {"api_key": KEY, "models": tuple(MODELS.values())}
        with UnitsWatch(wordy, texts, 4, awaited, **settings) as server:
            done = start(recipe, run, server, "--set", f"engine.open_units={open_units}")
            assert done.returncode == 0, done.stderr
        assert not server.gave_up, "the next units asked nothing until the first one had all of its replies"
        assert (server.num_held > 0) == (awaited > 0)
        units_at_once[open_units] = server.most_units
    assert units_at_once[1] == 1
    assert 2 <= units_at_once[3] <= 3, units_at_once
    assert tables(tmp_path / "run-1") == tables(tmp_path / "run-3")


@pytest.mark.slow
def test_a_thousand_pairs(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, documents=400, queries=200)
    with server_of(latency_seconds=0.05, faults=seeded_faults({"rate_limit": 0.01, "reset": 0.01})) as server:
        words = ["--workers", str(os.cpu_count() or 1), "--set", "engine.unit_rows=10"]
        words += ["--set", "sample.templates_per_document=10"]
        done = start(recipe, tmp_path / "run", server, *words)
        assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run", "pairs")) >= 1000
    assert fineinstructions.verify(tmp_path / "run") == []
