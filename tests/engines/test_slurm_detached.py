"""Detached runs on a real Slurm cluster of one node: nobody waits, and the bytes are those of the local engine."""

import functools
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_inputs import content as table_bytes
from pipeline_inputs import in_process, take_documents, write_recipe
from slurm_cluster import slurm, wait_for
from slurm_runs import jobs, tasks_of, toy_on
from toy_run import Toy, check, content, documents, expected, run_toy

from fineinstructions.engines.engine import LaunchConfig, open_engine
from fineinstructions.engines.slurm_relay import main, told
from fineinstructions.errors import ConfigError, HandedOverError
from fineinstructions.runs import RunFolder
from fineinstructions.runs.detached import FILE, LINK_VARIABLE, Detached, goes_on
from fineinstructions.runs.lease import lease_holder, lease_token

pytestmark = pytest.mark.xdist_group("slurm")

wait = functools.partial(wait_for, seconds=900)
"""A chain of six jobs takes long on a busy machine."""


@pytest.fixture
def toy(cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A detached run of six units in each of two phases, by four workers."""
    toy = toy_on(cluster, tmp_path, monkeypatch)
    return replace(toy, unit_rows=10, workers=4, slurm={"detach": True})


def detach(toy: Toy) -> str:
    """Begin a run; gives the line that its driver leaves with."""
    with pytest.raises(HandedOverError) as left:
        run_toy(toy)
    return str(left.value)


def num_started(toy: Toy) -> int:
    """Relays that were started."""
    return len(list(Path(toy.out).glob("logs/slurm/relay-*.log")))


def relays(cluster: dict[str, str], toy: Toy) -> list[dict[str, str]]:
    return [job for job in jobs(cluster, toy) if job["Comment"] == "relay"]


@pytest.mark.slow
def test_nothing_waits_and_the_bytes_are_those_of_one_machine(
    toy: Toy, tmp_path: Path, cluster: dict[str, str]
) -> None:
    toy = replace(toy, slurm={"detach": True, "units_per_task": 1})
    line = detach(toy)
    assert re.search(r"Slurm job \d+ goes on with the run, nothing waits here; .* `scancel --name=fineinst", line)
    wait(lambda: Detached.load(Path(toy.out)) is None)
    wait(lambda: not slurm(cluster, "squeue", "--noheader"))
    assert content(toy.out) == expected(toy, tmp_path)
    assert check(toy.out) == []
    arrays = {job["ArrayJobId"] for job in jobs(cluster, toy) if job["Comment"] == "matches"}
    assert len(arrays) == 2, "six tasks, four to an array"
    assert not (Path(toy.out) / "slurm").exists()
    assert lease_token(Path(toy.out) / "lease") == ""


@pytest.mark.slow
def test_relays_and_tasks_that_are_killed_lose_nothing(toy: Toy, tmp_path: Path, cluster: dict[str, str]) -> None:
    """The first relay with its driver, a task, and the second relay put back into the queue as by pre-emption."""
    toy = replace(toy, seconds=0.1)
    detach(toy)
    wait(lambda: len(relays(cluster, toy)) == 2)
    first, _ = (job["JobId"] for job in relays(cluster, toy))
    slurm(cluster, "scancel", "--signal=KILL", "--full", first)
    wait(lambda: bool(tasks_of(toy)))
    os.kill(tasks_of(toy)[0], signal.SIGKILL)
    wait(lambda: was_put_back(toy, cluster))
    wait(lambda: Detached.load(Path(toy.out)) is None)
    assert content(toy.out) == expected(toy, tmp_path)
    assert list(Path(toy.out).glob("logs/*.log")) == [], "no unit was given up"


def was_put_back(toy: Toy, cluster: dict[str, str]) -> bool:
    """Put a relay back into the queue that runs after the first array; whether one was, or the run came to its end."""
    state = Detached.load(Path(toy.out))
    if state is not None and state.begun:
        for job in relays(cluster, toy):
            if job["JobState"] == "RUNNING" and job["Restarts"] == "0":
                slurm(cluster, "scontrol", "requeue", job["JobId"])
            if job["JobState"] == "PENDING" and job["Restarts"] == "1":
                slurm(cluster, "scontrol", "update", f"jobid={job['JobId']}", "StartTime=now")
                return True
    return state is None


@pytest.mark.slow
def test_one_command_stops_it_and_the_same_command_goes_on(toy: Toy, tmp_path: Path, cluster: dict[str, str]) -> None:
    """Its first array would take half an hour; as long as it is there, no other driver takes the folder."""
    toy = replace(toy, seconds=180.0, slurm={"detach": True, "time_minutes": 50})
    line = detach(toy)
    wait(lambda: bool(tasks_of(toy)) and bool((Detached.load(Path(toy.out)) or Detached("", "")).arrays))
    with pytest.raises(ConfigError, match=r"Slurm jobs \d+.* go on with this run; see `fineinstructions status"):
        run_toy(replace(toy, engine="local", workers=0))
    state = Detached.load(Path(toy.out))
    assert state is not None
    assert told(Path(toy.out), state).startswith(f"detached, phase matches: waiting for Slurm job {state.arrays[0]} (")
    command = re.search(r"`(scancel --name=\S+)`", line)
    assert command is not None
    slurm(cluster, *command[1].split())
    wait(lambda: not slurm(cluster, "squeue", "--noheader"))
    assert "none of its jobs is in Slurm's queue any more" in told(Path(toy.out), state)
    assert detach(replace(toy, seconds=0.0)) != line
    wait(lambda: Detached.load(Path(toy.out)) is None)
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "why"),
    [("RAISE", r"^DataError: phase 'matches': the first 5 units all failed"), ("BACKEND", r"^BackendError: backend")],
)
def test_a_run_that_only_fails_ends_and_says_why(
    toy: Toy, tmp_path: Path, cluster: dict[str, str], fate: str, why: str
) -> None:
    detach(replace(toy, inputs=(documents(tmp_path, dict.fromkeys(range(60), fate)),)))
    state = wait_for_end(toy)
    wait(lambda: not slurm(cluster, "squeue", "--noheader"))
    assert re.search(why, state.ended), state
    assert why.strip("^")[:9] in Path(state.log).read_text(encoding="utf-8")
    assert num_started(toy) == 2, "the first and the one that ended the run, which took its successor back"


@pytest.mark.slow
def test_relays_that_are_killed_every_time_come_to_an_end(toy: Toy, cluster: dict[str, str]) -> None:
    run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases())
    launch = LaunchConfig(kind="slurm", workers=2, slurm={"detach": True, "poll_seconds": 0.1})
    engine = open_engine(run, launch, [], print, again=["bash", "-c", "kill -9 $$"])
    with pytest.raises(HandedOverError), run.lease(), engine:
        raise AssertionError("a relay was submitted")
    state = wait_for_end(toy)
    assert state.ended.startswith("3 relays were killed one after the other")
    wait(lambda: not slurm(cluster, "squeue", "--noheader"))
    assert num_started(toy) == 4


def wait_for_end(toy: Toy) -> Detached:
    """Wait until a detached run is over that does not come to its end; gives what the folder says."""
    found: list[Detached] = []

    def has_ended() -> bool:
        state = Detached.load(Path(toy.out))
        assert state is not None
        found.extend([state] if state.ended else [])
        return bool(found)

    wait(has_ended)
    return found[0]


@pytest.mark.slow
def test_a_whole_run_by_the_command_line(
    cluster: dict[str, str], bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline with its phases of one unit, which relays do themselves."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    documents = take_documents(tmp_path / "documents.parquet", 20, every=20)
    engine = {"workers": 2, "unit_rows": 10, "slurm": {"detach": True}}
    recipe = write_recipe(tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine=engine)
    assert in_process("run", recipe, "--out", tmp_path / "local")[0] == 0
    run = tmp_path / "run"
    code, _, errors = in_process("run", recipe, "--out", run, "--engine", "slurm")
    assert (code, "goes on with the run, nothing waits here" in errors) == (3, True), errors
    wait(lambda: Detached.load(run) is None)
    for table in ("pairs", "matches", "rejected"):
        assert table_bytes(run / table) == table_bytes(tmp_path / "local" / table)
    assert len(list(run.glob("logs/slurm/relay-*.log"))) == 4, "one before, and one after each of three arrays"
    code, shown, _ = in_process("run", recipe, "--out", run)
    assert (code, "nothing to do" in shown) == (0, True)


@pytest.mark.slow
def test_records_that_failed_are_tried_again_once(toy: Toy, tmp_path: Path, cluster: dict[str, str]) -> None:
    """With ``retry_failed`` in every relay, a unit that fails again is not tried for ever."""
    toy = replace(toy, inputs=(documents(tmp_path, {25: "BROKEN"}),), retry_failed=True)
    (tmp_path / "broken").touch()
    for _ in range(2):
        detach(toy)
        wait(lambda: Detached.load(Path(toy.out)) is None)
        wait(lambda: not slurm(cluster, "squeue", "--noheader"))
    log = (Path(toy.out) / "logs" / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).get("kind") for line in log].count("unit_error") == 2
    (tmp_path / "broken").unlink()
    detach(toy)
    wait(lambda: Detached.load(Path(toy.out)) is None)
    assert content(toy.out) == expected(toy, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Without a cluster


def test_jobs_keep_the_lease_of_who_has_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create_or_open(tmp_path / "run", {}, [])
    with pytest.raises(HandedOverError), run.lease():
        token = lease_token(run.lease_file)
        Detached(token, "fineinstructions-0", relays=("7",)).save(run.root)
        raise HandedOverError("job 7 goes on")
    assert lease_holder(run.lease_file) == ""
    assert lease_token(run.lease_file) == token, "its tasks may commit"
    monkeypatch.setenv(LINK_VARIABLE, token)
    with run.lease():
        assert lease_token(run.lease_file) == token
        assert goes_on(run.root) == Detached(token, "fineinstructions-0", relays=("7",))
    monkeypatch.delenv(LINK_VARIABLE)
    with run.lease():
        assert lease_token(run.lease_file) not in ("", token), "they may no longer"
        assert not (run.root / FILE).exists()


def test_a_relay_of_a_run_that_was_taken_over_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for state in (None, Detached("other", "name"), Detached("mine", "name", relays=("9",))):
        (tmp_path / FILE).unlink(missing_ok=True)
        if state:
            state.save(tmp_path)
        assert main([str(tmp_path), "mine", "7", "[]", "script", "false"]) == 0
        assert "relay 8: the run has another driver" in capsys.readouterr().out


def test_what_is_told_of_a_detached_run_where_there_is_no_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    going = Detached("t", "fineinstructions-0", phase="pairs", arrays=("12",), relays=("13",))
    line = told(tmp_path, going)
    assert line.startswith("detached: Slurm jobs 12 and 13 go on with it, says the folder; no squeue here")
    assert line.endswith("`scancel --name=fineinstructions-0` stops it")
    ended = replace(going, ended="DataError: broken", log="logs/slurm/relay-13.log")
    assert told(tmp_path, ended) == "detached, and ended: DataError: broken; its log is logs/slurm/relay-13.log"
    (tmp_path / FILE).write_text('{"token": 1', encoding="utf-8")
    assert Detached.load(tmp_path) is None


def test_status_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create_or_open(tmp_path / "run", {}, [])
    with run.lease():
        Detached("t", "name", relays=("13",), ended="llm.model: gone", log="relay-13.log").save(run.root)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "detached, and ended: llm.model: gone; its log is relay-13.log" in in_process("status", run.root)[1]
    shown = json.loads(in_process("status", run.root, "--json")[1])
    assert shown["detached"] == "detached, and ended: llm.model: gone; its log is relay-13.log"


@pytest.mark.slow
def test_what_needs_a_driver_is_not_detached(tmp_path: Path, bank: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        take_documents(tmp_path / "d.parquet", 8),
        queries=None,
        templates={"bank": str(bank)},
        engine={"kind": "slurm", "workers": 2, "slurm": {"detach": True}},
        judge={"model": "openai"},
        llm={"serve": {"model": "m", "engine": "vllm"}},
    )
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run")
    assert (code, "engine.slurm.detach: a run starts the server of judge" in errors) == (2, True), errors
