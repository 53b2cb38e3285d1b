"""Silver data from a whole run: by the embedded tier, and by a teacher behind a server that is the scripted one.

What the scripted teacher writes is plumbing, not data: these tests are about rows, counts, splits and resuming.
"""

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import EXAMPLES, call, command, content, in_process, reasons, rows, take_documents, write_recipe

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.config import load
from fineinstructions.pairs.instantiate import parse_reply
from fineinstructions.recipe import RunConfig
from fineinstructions.records import schema_of
from fineinstructions.silver.rows import PUBLISHED, REJECTED, TABLES
from fineinstructions.trial import EMBEDDED_BANK

pytestmark = pytest.mark.xdist_group("distill")

SIZES = {"genericizer_rows": 40, "instantiator_rows": 30, "embedder_rows": 120, "validation_share": 0.3}


def reasons_of(run: Path) -> Counter[tuple[str, str]]:
    return Counter((row["stage"], row["reason"]) for row in rows(run, REJECTED))


def test_the_embedded_tier_is_a_teacher_too_and_needs_nothing(tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "d.parquet", 24, every=16)
    recipe = write_recipe(
        tmp_path, documents, queries=None, templates={"bank": str(EMBEDDED_BANK)}, engine={"workers": 0},
        distill=SIZES,
    )  # fmt: skip
    run = tmp_path / "run"
    code, out, errors = in_process("distill", recipe, "--out", run)
    assert code == 0, errors
    assert "no rows for a genericizer" in errors
    assert in_process("verify", run)[0] == 0
    for name in PUBLISHED:
        table = pq.read_table(run / name)
        assert table.schema.names == schema_of(TABLES[name.rpartition("_")[0]]).names
        assert set(table["split"].to_pylist()) <= {name.rpartition("_")[2]}
    made = {name: rows(run, f"{name}_train") + rows(run, f"{name}_validation") for name in TABLES}
    assert made["genericizer"] == []
    front = yaml.safe_load((run / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    named = {c["config_name"]: c["data_files"] for c in front["configs"][2:]}
    filled = {name for name in PUBLISHED if pq.read_table(run / name).num_rows}
    assert {f"{part['path'].removesuffix('/*.parquet')}" for files in named.values() for part in files} == filled
    assert "genericizer" not in named
    assert len(made["instantiator_2"]) > 10
    assert {row["label"] for row in made["embedder"]} == {0.0, 1.0}
    told = dict(reversed(line.split()[:2]) for line in out.splitlines() if f"{run}/" in line.replace("\n", ""))
    assert told["embedder_train"] == str(len(rows(run, "embedder_train")))
    before = {name: content(run / name) for name in (*PUBLISHED, REJECTED)}
    code, again, errors = in_process("distill", recipe, "--out", run)
    assert (code, "nothing to do" in again) == (0, True), errors
    assert {name: content(run / name) for name in before} == before
    check_another_draw(recipe, run)


@pytest.fixture(scope="module")
def mined_high(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Recipe and run in which most documents have no near miss, so that `mine` turns them away."""
    folder = tmp_path_factory.mktemp("mined-high")
    documents = take_documents(folder / "d.parquet", 12, every=16)
    recipe = write_recipe(
        folder, documents, queries=None, templates={"bank": str(EMBEDDED_BANK)}, engine={"workers": 0},
        distill={**SIZES, "min_cosine": 0.6},
    )  # fmt: skip
    code, _, errors = in_process("distill", recipe, "--out", folder / "run")
    assert code == 0, errors
    return recipe, folder / "run"


def test_matches_are_asked_about_even_where_nothing_near_was_mined(mined_high: tuple[Path, Path]) -> None:
    _, run = mined_high
    sampled = {(m["document_id"], m["template_id"]) for m in rows(run, "matches") if m["sampled"]}
    found = pq.read_table(sorted((run / "units" / "compatibility").glob("*/compatibility.parquet"))).to_pylist()
    judged = [(verdict["document_id"], verdict["template_id"]) for verdict in found]
    without = {row["record_id"] for row in rows(run, REJECTED) if row["stage"] == "mine"}
    assert {document for document, _ in sampled} & without
    assert sampled <= set(judged)
    assert len(judged) == len(set(judged))
    assert in_process("verify", run)[0] == 0


@pytest.mark.parametrize("again", ["--redo", "--retry-failed"])
def test_a_moved_threshold_tells_every_rejection_once(
    mined_high: tuple[Path, Path], tmp_path: Path, again: str
) -> None:
    recipe, made = mined_high
    run = tmp_path / "run"
    shutil.copytree(made, run)
    if again == "--redo":
        words = ("--redo", "--set", "judge.min_score=5")
    else:
        shutil.rmtree(run / "rejected")
        words = ("--retry-failed",)
    code, _, errors = in_process("distill", recipe, "--out", run, *words)
    assert code == 0, errors
    assert not [line for line in errors.splitlines() if line.startswith("compatibility")]
    code, out, _ = in_process("verify", run)
    assert code == 0, out
    assert not {stage for stage, _ in reasons(run)} & {"mine", "compatibility"}


@pytest.mark.slow
def test_a_dry_run_counts_what_the_judge_would_be_asked_at_most(tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "d.parquet", 8, every=16)
    templates = {"bank": str(EMBEDDED_BANK)}
    recipe = write_recipe(tmp_path, documents, queries=None, templates=templates, engine={"workers": 0})
    asks = ("--set", "compatibility.model=openai", "--set", "llm.model=m", "--json")
    code, out, errors = in_process("distill", recipe, "--out", tmp_path / "run", "--dry-run", *asks)
    assert code == 0, errors
    figures = json.loads(out)
    (calls,) = figures["calls"]
    assert (calls["stage"], calls["model"]) == ("compatibility", "m")
    assert calls["num_calls"] == 8 * 6 * 2 + figures["num_matches"]
    assert not (tmp_path / "run").exists()
    assert json.loads(in_process("run", recipe, "--out", tmp_path / "run", "--dry-run", *asks)[1])["calls"] == []
    asks += ("--set", "compatibility.screen=true")
    (calls,) = json.loads(in_process("run", recipe, "--out", tmp_path / "run", "--dry-run", *asks)[1])["calls"]
    assert (calls["stage"], calls["num_calls"]) == ("compatibility", figures["num_matches"])


def check_another_draw(recipe: Path, run: Path) -> None:
    """Other sizes redo the draw alone, and say so first."""
    words = ("distill", recipe, "--out", run, "--set", "distill.instantiator_rows=10")
    code, _, errors = in_process(*words)
    assert code == 2
    assert "distill.instantiator_rows: 30 -> 10); stale: silver;" in " ".join(errors.split())
    old = {row["row_id"] for name in ("train", "validation") for row in rows(run, f"instantiator_1_{name}")}
    code, _, errors = in_process(*words, "--redo")
    assert code == 0, errors
    new = {row["row_id"] for name in ("train", "validation") for row in rows(run, f"instantiator_1_{name}")}
    assert len(new) == 10
    assert len(new - old) <= 1, "a smaller draw is part of the larger one, but for its one refusal"
    assert not [line for line in errors.splitlines() if line.startswith(("pairs", "compatibility"))]


def recipe_for(folder: Path, server: ScriptedServer, **distill: Any) -> Path:
    openai = {"model": "openai"}
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", 16, every=20),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 60},
        llm={"model": "teacher", "base_url": server.base_url, "max_in_flight": 16, "backoff_seconds": 0.01},
        genericize=openai,
        instantiate=openai,
        judge={**openai, "max_template_share": 1.0},
        compatibility=openai,
        retrieve={"min_cosine": 0.0},
        engine={"workers": 1, "unit_rows": 4, "query_unit_rows": 20},
        distill={**SIZES, **distill},
    )


@pytest.mark.slow
def test_a_teacher_behind_a_server_makes_rows_for_every_student(tmp_path: Path) -> None:
    with ScriptedServer() as server:
        recipe = recipe_for(tmp_path, server)
        done = call("distill", recipe, "--out", tmp_path / "run", "--json")
        assert done.returncode == 0, done.stderr
        asked = server.requests["/v1/chat/completions"]
        shutil.rmtree(tmp_path / "run" / "units" / "compatibility")
        assert call("distill", recipe, "--out", tmp_path / "run").returncode == 0
        assert server.requests["/v1/chat/completions"] == asked, "replies are cached"
    run = tmp_path / "run"
    assert call("verify", run).returncode == 0
    facts = json.loads(done.stdout)
    made = {name: rows(run, f"{name}_train") + rows(run, f"{name}_validation") for name in TABLES}
    assert {name: len(found) for name, found in made.items() if name != "embedder"} == {
        "genericizer": 40,
        "instantiator_1": 30,
        "instantiator_2": 30,
    }
    assert facts["rows"]["genericizer_train"] + facts["rows"]["genericizer_validation"] == 40
    check_rows(run, made)
    stages = {row["stage"]: row for row in facts["funnel"]}
    for name, stage in {"genericizer": "silver_genericizer", "embedder": "silver_embedder"}.items():
        assert stages[stage]["out"] == len(made[name])
        assert stages[stage]["in"] - stages[stage]["out"] == sum(stages[stage]["rejected"].values())
    assert reasons_of(run)["silver_round_2", "low_score"] > 0


def check_rows(run: Path, made: dict[str, list[dict[str, Any]]]) -> None:
    texts = pq.read_table(run.parent / "documents.parquet").to_pylist()
    documents = {row["id"]: row["text"] for row in texts}
    for row in made["instantiator_1"] + made["instantiator_2"]:
        shown = documents[row["document_id"]][row["window_start"] : row["window_end"]]
        (turn,) = row["prompt"]
        assert json.loads(turn["content"]) == {"instruction_template": row["template"], "document": shown}
        assert row["completion"] == [{"role": "assistant", "content": row["reply"]}]
        assert (parse_reply(row["reply"]) is None) == row["refusal"]
        assert json.loads(row["teacher"])["model"] == "teacher"
        assert row["licence"]
    assert Counter(row["refusal"] for row in made["instantiator_2"]) == {False: 28, True: 2}
    assert all(row["judge_score"] >= 4 for row in made["instantiator_2"] if not row["refusal"])
    labels = Counter(row["label"] for row in made["embedder"])
    assert min(labels[0.0], labels[1.0]) > 5
    assert all((row["quote_start"] >= 0) <= (row["label"] == 1.0) for row in made["embedder"])
    for row in made["genericizer"]:
        assert [turn["content"] for turn in row["prompt"]] == [row["query"]]


@pytest.mark.slow
def test_a_killed_call_is_continued_and_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    with ScriptedServer(latency_seconds=0.01) as server:
        recipe = recipe_for(tmp_path, server)
        assert call("distill", recipe, "--out", tmp_path / "whole", "--workers", "0").returncode == 0
        driver = subprocess.Popen(
            command("distill", recipe, "--out", tmp_path / "killed", "--workers", "2"), stderr=subprocess.DEVNULL
        )
        units = tmp_path / "killed" / "units" / "compatibility"
        deadline = time.monotonic() + 120
        while not list(units.glob("*/manifest.json")) and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert not (tmp_path / "killed" / "embedder_train").exists()
        time.sleep(1)
        done = call("distill", recipe, "--out", tmp_path / "killed", "--workers", "2")
        assert done.returncode == 0, done.stderr
    for name in (*PUBLISHED, REJECTED, "pairs"):
        assert content(tmp_path / "killed" / name) == content(tmp_path / "whole" / name), name
    cards = [(tmp_path / name / "README.md").read_bytes() for name in ("whole", "killed")]
    assert cards[0] == cards[1]
    front = yaml.safe_load(cards[0].decode().split("---\n")[1])
    assert [c["config_name"] for c in front["configs"]] == ["pairs", "templates", *TABLES]


def test_the_shipped_recipe_asks_a_teacher_for_every_stage() -> None:
    config = load(Path(__file__).parent.parent / "recipes" / "distill.yaml", RunConfig)
    stages = (config.genericize, config.instantiate, config.judge, config.compatibility)
    assert {stage.model for stage in stages} == {"openai"}
