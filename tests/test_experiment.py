"""Experiments: arms to corpora, models, scores and one table; killed and continued; refusals."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmark_files import write_benchmarks
from pipeline_inputs import EXAMPLES, command, in_process
from small_experiment import table_of, write_experiment, write_held_out, write_model
from small_run import some_texts, write_run

from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.errors import ConfigError
from fineinstructions.experiment import as_experiment_config, experiment
from fineinstructions.progress import Silent
from fineinstructions.records import Rejection, Template
from fineinstructions.runs import RunFolder
from fineinstructions.runs.lease import hold_lease
from fineinstructions.runs.tables import tables_of
from fineinstructions.scores.forms import FORMS
from fineinstructions.scores.ledger import WRITTEN, read_ledger

ROOT = Path(__file__).parent.parent
RECIPES = [path for path in sorted((ROOT / "recipes" / "experiments").glob("*.yaml")) if "arms:" in path.read_text()]


@pytest.mark.extra
@pytest.mark.slow
def test_a_killed_experiment_goes_on_and_tells_the_same(tmp_path: Path) -> None:
    """Killed in the middle of the second training; the finished arm is left as it is. Then seeds and benchmarks."""
    recipe = write_experiment(tmp_path)
    code, out, errors = in_process("experiment", recipe, "--out", tmp_path / "whole")
    assert code == 0, errors
    assert "| fineinstructions | tiny | 1 | 640 |" in out
    expected = table_of(tmp_path / "whole")
    killed = tmp_path / "killed"
    driver = subprocess.Popen(command("experiment", recipe, "--out", killed), stderr=-3, stdout=-3)
    while not list(killed.glob("trainings/fineinstructions.tiny.1/checkpoints/*")) and driver.poll() is None:
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL, "it must not have ended before"
    done = killed / "trainings" / "standard.tiny.1" / "pretrain.json"
    before = done.read_bytes()
    code, out, errors = in_process("experiment", recipe, "--out", killed, "--json")
    assert code == 0, errors
    assert table_of(killed) == expected
    assert done.read_bytes() == before
    assert (killed / "loss.svg").read_text(encoding="utf-8").startswith("<svg")
    _check_table(killed)
    _add_a_seed(recipe, killed, expected)
    _add_benchmarks(recipe, killed, write_benchmarks(tmp_path / "data"))


def _check_table(out: Path) -> None:
    plain = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert plain["missing"] == []
    standard, pairs = plain["arms"]
    assert (standard["tokens"], pairs["tokens"], standard["unique_tokens"], standard["epochs"] <= 1) == (
        640,
        640,
        640,
        True,
    )
    assert standard["parameters"] == pairs["parameters"] > 5000
    assert standard["flops"] > 640 * standard["parameters"]
    forms = {f["form"] for f in plain["figures"] if f["set_name"] == "qa" and f["measure"] == "bits_per_byte"}
    assert forms == {*FORMS, "neutral"}
    for figure in plain["figures"]:
        assert figure["low"] <= figure["value"] * (1 + 1e-9)
        assert (figure["difference"] is None) == (
            figure["arm"] == "standard" or figure["measure"].startswith("seconds")
        )


class Looks(Silent):
    """Keeps the table as it is when the first training of a call begins."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.seen: dict[str, Any] = {}

    def note(self, line: str) -> None:
        """Look at the table once the first training of another seed is in it."""
        if "train fineinstructions.tiny.2" in line:
            self.seen = table_of(self._out)


def _add_a_seed(recipe: Path, out: Path, before: dict[str, Any]) -> None:
    """Another seed, which comes first now, goes on in the same folder; another number of tokens does not."""
    looks = Looks(out)
    result = experiment(recipe, out, overrides=["seeds=[2, 1]", "curve_points=3"], progress=looks)
    assert result.missing == []
    assert [row["seeds"] for row in looks.seen["arms"]] == [[2, 1], [1]], "what lies done is shown before it is reached"
    assert looks.seen["missing"] == ["fineinstructions.tiny.2"]
    _check_curves(out)
    assert [row["seeds"] for row in table_of(out)["arms"]] == [[2, 1], [2, 1]]
    assert [row["seeds"] for row in before["arms"]] == [[1], [1]]
    with pytest.raises(ConfigError, match=r"other settings \(tokens\)"):
        experiment(recipe, out, overrides=["tokens=320", "seeds=[1, 2]"])


def _check_curves(out: Path) -> None:
    """Checkpoints of the new seed are scored on what finished models are scored on, and taken away."""
    assert "bits per byte of held-out qa answers" in (out / "heldout.svg").read_text(encoding="utf-8")
    for name in ("loss", "heldout"):
        curves = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert [one["name"] for one in curves["series"]] == ["standard", "fineinstructions"]
        assert all(len(one["x"]) == len(one["y"]) > 1 and one["x"][-1] == 640 for one in curves["series"])
    assert curves["y_label"] == "bits per byte of held-out qa answers"
    _check_report(out)
    assert not (out / "trainings" / "standard.tiny.2" / "checkpoints").exists()
    steps = sorted(
        int(path.name.split(".")[-2]) for path in (out / "scores" / "curves").glob("standard.tiny.2.*.jsonl")
    )
    assert steps[:2] == [4, 8], "ten steps in three parts"
    of_first, finished = (
        {row.key: row.nats for row in read_ledger(path)[1] if row.kind != WRITTEN}
        for path in (
            out / "scores" / "curves" / "standard.tiny.2.4.jsonl",
            out / "scores" / "standard.tiny.2.jsonl",
        )
    )
    assert of_first.keys() == finished.keys()
    assert sum(of_first.values()) > sum(finished.values()), "it had learned less by then"


def _check_report(out: Path) -> None:
    """The report of a run draws the experiment's curves."""
    (out.parent / "reported").mkdir()
    run = write_run(out.parent / "reported", some_texts(6), lambda n: n % 3)
    folder = RunFolder.open(run)
    with folder.lease():
        folder.publish("templates", Template, tables_of([], Template), phase="assemble")
        folder.publish("rejected", Rejection, tables_of([], Rejection), phase="assemble")
    code, _, errors = in_process("report", run, "--curves", out)
    assert code == 0, errors
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert ": held-out loss (the same text for all arms; less is better)</figcaption>" in page
    assert ": training loss (each arm" in page
    code, _, errors = in_process("report", run, "--curves", run)
    assert (code, "no curves (loss.json or heldout.json); name the folder of an experiment" in errors) == (2, True)


def _add_benchmarks(recipe: Path, out: Path, data: Path) -> None:
    """All three benchmarks over HTTP in one command; a scripted judge's figures are plumbing wherever they stand."""
    few = {f"{name}.answer_tokens": 4 for name in ("mixeval", "mt_bench_101", "alpaca_eval")}
    with ScriptedServer() as judge:  # it calls itself "scripted", whatever it is asked for
        section = {"data": str(data), "judge": {"model": "judge", "base_url": judge.base_url}, "model.device": "cpu"}
        sets = ["seeds=[1, 2]", *(f"benchmarks.{key}={json.dumps(value)}" for key, value in (section | few).items())]
        words = [word for one in sets for word in ("--set", one)]
        code, printed, errors = in_process("experiment", recipe, "--out", out, *words)
        assert code == 0, errors
        asked = judge.requests.total()
        assert in_process("experiment", recipe, "--out", out, *words)[0] == 0
        assert judge.requests.total() == asked, "what is known asks nobody"
    plain = table_of(out)
    assert plain["missing"] == []
    found = {(f["arm"], f["set_name"]): f for f in plain["figures"] if f["measure"] == "benchmark_score"}
    titles = [f"{name} [PLUMBING]" for name in ("MixEval", "MT-Bench-101", "AlpacaEval 2")]
    assert set(found) == {(arm, title) for arm in ("standard", "fineinstructions") for title in titles}
    for arm in ("standard", "fineinstructions"):
        scores = [
            json.loads((out / "benchmarks" / f"{arm}.tiny.{seed}" / "mt_bench_101" / "scores.json").read_text("utf-8"))
            for seed in (1, 2)
        ]
        assert scores[0]["model"] == f"{arm}.tiny.1"
        assert scores[0]["counts"]["judgements"] > 0
        mean = sum(of_seed["figures"]["score"]["value"] for of_seed in scores) / 2
        assert found[arm, titles[1]]["value"] == pytest.approx(mean)
    assert (found["standard", titles[0]]["num_items"], found["standard", titles[0]]["num_seeds"]) == (5, 2)
    for name in ("table.md", "table.csv", "benchmarks/comparison.md", "benchmarks/comparison.svg"):
        assert "[PLUMBING]" in (out / name).read_text(encoding="utf-8"), name
    assert "the judge follows a script" in printed
    assert "fineinstructions.tiny.2" in (out / "benchmarks" / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.extra
@pytest.mark.slow
def test_processes_share_the_trainings_of_an_experiment(tmp_path: Path) -> None:
    """What another process is at is passed over; what nobody is at any more is taken; two at once tell the same."""
    recipe, shared = write_experiment(tmp_path, seeds=[1, 2]), tmp_path / "shared"
    together = [subprocess.Popen(command("experiment", recipe, "--out", shared), stderr=-1, stdout=-3) for _ in "ab"]
    said = [process.communicate()[1].decode() for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    assert table_of(shared)["missing"] == []
    alone = tmp_path / "alone"
    name = "fineinstructions.tiny.1"
    (alone / "leases").mkdir(parents=True)
    with hold_lease(alone / "leases" / name):
        code, _, errors = in_process("experiment", recipe, "--out", alone)
        assert code == 0, errors
        assert f"{name}: process {os.getpid()} on {socket.gethostname()} is at it" in errors
        assert table_of(alone)["missing"] == [name]
    assert not (alone / "trainings" / name).exists()
    done = {path: path.read_bytes() for path in alone.glob("trainings/*/pretrain.json")}
    assert len(done) == 3
    code, _, errors = in_process("experiment", recipe, "--out", alone)
    assert code == 0, errors
    assert "is at it" not in errors
    assert table_of(alone) == table_of(shared)
    assert all(path.read_bytes() == before for path, before in done.items())


@pytest.mark.extra
@pytest.mark.slow
def test_an_arm_may_have_a_run_of_its_own_and_fewer_tokens(tmp_path: Path) -> None:
    """One template a document against six, from one recipe of a run; half of the tokens; two sizes."""
    run = {
        "queries": {"path": str(EXAMPLES / "queries.parquet"), "limit": 800},
        "documents": {"path": str(EXAMPLES / "documents.parquet"), "limit": 60},
        "engine": {"workers": 0},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    larger = json.loads(Path(write_model(tmp_path / "larger")).read_text(encoding="utf-8")) | {"hidden_size": 32}
    (tmp_path / "larger" / "config.json").write_text(json.dumps(larger), encoding="utf-8")
    recipe = write_experiment(
        tmp_path,
        run="",
        recipe=str(tmp_path / "run.yaml"),
        arms={
            "standard": {},
            "one": {
                "mixture": {"documents": 1},
                "settings": {"sample": {"templates_per_document": 1}},
                "tokens_ratio": 0.5,
            },
        },
        models=[str(tmp_path / name / "config.json") for name in ("tiny", "larger")],
        scores=write_held_out(tmp_path) | {"generate": {"items": 0}},
    )
    experiment(recipe, tmp_path / "out")
    six, one = (
        json.loads((tmp_path / "out" / "corpora" / name / "corpus.json").read_text(encoding="utf-8"))
        for name in ("base", "one")
    )
    assert six["pairs"]["rows"] > one["pairs"]["rows"] > 0
    plain = table_of(tmp_path / "out")
    assert {(row["arm"], row["model"], row["tokens"]) for row in plain["arms"]} == {
        *(("standard", model, 640) for model in ("tiny", "larger")),
        *(("one", model, 320) for model in ("tiny", "larger")),
    }
    against = {(f["arm"], f["model"], f["against"], f["against_model"]) for f in plain["figures"]}
    next_size = {found for found in against if found[1] == "tiny" and found[3] == "larger"}
    both = ("standard", "one")
    assert next_size == {(arm, "tiny", other, "larger") for arm in both for other in both}
    assert not any(model == "larger" and its == "tiny" for _, model, _, its in against)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": ["standard", "nothing"]}, "arms.nothing.mixture"),
        ({"arms": ["fineinstructions"]}, "baseline"),
        ({"recipe": "x.yaml"}, "either run"),
        ({"arms": {"standard": {}, "one": {"mixture": "ipt", "settings": {"sample": {"per": 1}}}}}, r"arms\.one.*per"),
        ({"export": {"arms": ["ipt"]}}, r"export\.arms"),
        ({"export": {"sift": {"min_scores": 3}}}, "min_scores"),
        ({"pretrain": {"tokens": 5}}, r"pretrain\.tokens"),
        ({"pretrain": {"sequence": 5}}, "sequence"),
        ({"seeds": [1, 1]}, "called the same"),
        ({"models": ["a/llama/config.json", "b/llama/config.json"]}, "models: two of them are called the same"),
        ({"arms": {"standard": {}, "base": {"mixture": "ipt"}}}, "'base' is taken"),
        ({"scores": {}}, "at least one set"),
        ({"benchmarks": {"names": ["mmlu"]}}, r"benchmarks: .*mmlu"),
        ({"benchmarks": {"limit": 5}}, "benchmarks: judge: no model"),
        ({"benchmarks": {"model": {"model": "x"}}}, r"benchmarks\.model\.model"),
        ({"benchmarks": {"judge": {"model": "m", "colour": "red"}}}, "colour"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    recipe = write_experiment(tmp_path, **changes)
    with pytest.raises(ConfigError, match=told):
        experiment(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "corpora").exists()


@pytest.mark.extra
def test_tokens_that_are_not_there_are_not_asked_for(tmp_path: Path) -> None:
    recipe = write_experiment(tmp_path, tokens=10**7, tokenizer="bytes")
    code, _, errors = in_process("experiment", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert "raise max_epochs (now 1)" in errors


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_are_valid(path: Path) -> None:
    config = as_experiment_config(path)
    config.check_sections()
    assert f"experiment {path.relative_to(ROOT)}" in path.read_text(encoding="utf-8")
    assert config.baseline in config.arms
