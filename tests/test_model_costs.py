"""What a run tells of its models' replies, tokens and money, against what the scripted server was asked over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from pipeline_inputs import content, look, output_json, rows
from test_server_tier import CHAT, HERE, MODELS, recipe_for, start, wordy

from fineinstructions.backends.scripted_server import ScriptedServer

pytestmark = pytest.mark.slow


def asked_by(server: ScriptedServer) -> dict[str, dict[str, Any]]:
    """Replies and tokens by stage, counted from what was sent, without what finds out what a server can do."""
    stage_of = {model: stage for stage, model in MODELS.items()}
    amounts = ("calls", "reasks", "prompt_tokens", "completion_tokens")
    found = {s: {"model": model, **dict.fromkeys(amounts, 0), "money": None} for model, s in stage_of.items()}
    for body in list(server.bodies):
        said = " ".join(message["content"] for message in body["messages"])
        if "single word ready" in said or "zyxt" in said:
            continue
        of: dict[str, Any] = found[stage_of[body["model"]]]
        of["calls"] += 1
        of["prompt_tokens"] += len(said.split())
        of["completion_tokens"] += len(wordy(body).split())
    return found


def told_by(run: Path) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """The same from `status`, and the seconds."""
    found = output_json(look("status", run, "--json"))["asked"]
    return found, {stage: of.pop("seconds") for stage, of in found.items()}


def test_tokens_and_money_of_each_stage_are_those_that_the_server_counted(tmp_path: Path) -> None:
    """Units that are taken away and done again count once; prices change no byte and ask nobody."""
    recipe, run = recipe_for(tmp_path, documents=6, queries=20), tmp_path / "run"
    with ScriptedServer(wordy, models=tuple(MODELS.values()), keep_bodies=True) as server:
        assert start(recipe, run, server, *HERE).returncode == 0
        expected, calls = asked_by(server), server.requests[CHAT]
        assert min(of["completion_tokens"] for of in expected.values()) > 0
        told, seconds = told_by(run)
        assert told == expected
        assert min(seconds.values()) > 0
        next((run / "units" / "pairs").rglob("manifest.json")).unlink()
        prices = ("llm.prompt_price=2", "llm.completion_price=4", "judge.llm.prompt_price=1000")
        before = content(run / "pairs")
        assert start(recipe, run, server, *(w for p in prices for w in ("--set", p)), *HERE).returncode == 0
        assert (content(run / "pairs"), server.requests[CHAT]) == (before, calls), "all from the cache"
    told, again = told_by(run)
    assert again == pytest.approx(seconds), "seconds of a reply are those of when it was given"
    money = {stage: of.pop("money") for stage, of in told.items()}
    assert told == {stage: {k: v for k, v in of.items() if k != "money"} for stage, of in expected.items()}
    large, judge = expected["instantiate"], expected["judge"]
    assert money["instantiate"] == pytest.approx((large["prompt_tokens"] * 2 + large["completion_tokens"] * 4) / 1e6)
    assert money["genericize"] is None, "another model has prices of its own"
    assert money["judge"] == pytest.approx(judge["prompt_tokens"] / 1000)
    audited = output_json(look("audit", run, "--json"))["efficiency"]
    assert {s["stage"]: s["asked"]["money"] for s in audited["stages"] if s["asked"]} == pytest.approx(money)
    assert audited["model_money"] is None, "one of the models has no price"
    each = sum(of["calls"] for of in expected.values()) / len(rows(run, "pairs"))
    assert audited["per_pair"]["calls"] == pytest.approx(each, abs=1e-5)
    assert f"{judge['prompt_tokens']:,}" in look("status", run).stdout
    assert look("report", run).returncode == 0
    page = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert f"{judge['prompt_tokens']:,}" in page
    assert "generated tokens" in page
