"""One limit for all workers of a run, in real processes over real HTTP."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asking_run
import pytest
from asking_run import Asking, job_of, plan, run_asking
from slurm_cluster import missing, slurm_cluster

from fineinstructions.backends.allotments import Allotments
from fineinstructions.backends.desk import Desk
from fineinstructions.backends.llm import LlmConfig
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.engines.crew import Crew
from fineinstructions.engines.shares import Shares
from fineinstructions.engines.staff import Staff
from fineinstructions.engines.tally import Tally
from fineinstructions.runs import RunFolder


def asking(folder: Path, *servers: ScriptedServer, **settings: Any) -> Asking:
    limits = {"max_in_flight": 6, "backoff_seconds": 0.01} | settings.pop("llm", {})
    llm = LlmConfig(base_url=[server.base_url for server in servers], model="m", **limits)
    return Asking(str(folder / "run"), llm, **settings)


def replies(out: str) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(Path(out).glob("units/ask/*/document.parquet"))}


def server_events(out: str) -> list[dict[str, Any]]:
    lines = (RunFolder.open(out).logs / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "server"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The replies that one process gets."""
    with ScriptedServer() as server:
        alone = asking(tmp_path_factory.mktemp("alone"), server, workers=0)
        run_asking(alone)
        return replies(alone.out)


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_the_limit_does_not_multiply_with_workers(tmp_path: Path, expected: dict[str, bytes], workers: int) -> None:
    notes: list[str] = []
    with ScriptedServer(latency_seconds=0.02) as server:
        run = asking(tmp_path, server, workers=workers)
        assert run_asking(run, notes.append).num_done == 12
        assert server.max_in_flight <= 6
    assert len(list(tmp_path.glob("worker-*"))) == workers
    assert replies(run.out) == expected
    (event,) = server_events(run.out)
    assert (event["phase"], event["server"], event["calls"]) == ("ask", server.base_url, 120)
    assert 1 <= event["mean_in_flight"] <= event["peak_in_flight"] <= event["limit"] == event["window"] == 6
    (note,) = notes
    assert note.startswith(f"ask: {server.base_url}: {event['mean_in_flight']:.1f} requests in flight on average")
    assert note.endswith("window of 6; 120 calls, 0 turned back, 0 retries")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.mark.slow
def test_the_slots_of_a_killed_worker_come_back(tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Two workers share one slot; whoever has it is killed, and the run ends only if it comes back."""
    with ScriptedServer(latency_seconds=0.02) as server:
        run = asking(tmp_path, server, workers=2, llm={"max_in_flight": 1})
        outcomes: list[Any] = []
        thread = threading.Thread(target=lambda: outcomes.append(run_asking(run)), daemon=True)
        thread.start()
        wait_for(lambda: len(list(tmp_path.glob("worker-*"))) == 2, "both workers are there")
        for worker in tmp_path.glob("worker-*"):
            asked = server.requests.total()
            wait_for(lambda asked=asked: server.requests.total() > asked + 3, "the server is asked")
            os.kill(int(worker.name.partition("-")[2]), signal.SIGKILL)
        thread.join(120)
        assert not thread.is_alive()
        assert server.max_in_flight <= 2, "the server ends what a killed worker had under way a moment later"
    assert (outcomes[0].num_deaths, outcomes[0].set_aside) == (2, [])
    assert replies(run.out) == expected


@pytest.mark.slow
def test_two_servers_one_of_them_full(tmp_path: Path, expected: dict[str, bytes]) -> None:
    with ScriptedServer(latency_seconds=0.05, capacity=2) as small, ScriptedServer(latency_seconds=0.05) as large:
        run = asking(tmp_path, small, large, workers=2)
        assert run_asking(run).num_done == 12
        assert (small.max_in_flight, large.max_in_flight <= 6) == (2, True)
    assert replies(run.out) == expected
    events = {event["server"]: event for event in server_events(run.out)}
    assert events.keys() == {small.base_url, large.base_url}
    assert events[small.base_url]["turned_back"] == small.load.num_turned_back > 0
    assert events[small.base_url]["least_window"] <= 3


@pytest.mark.slow
def test_workers_that_do_not_reach_the_desk_keep_to_their_part_and_the_user_is_told_once(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    notes: list[str] = []
    with Desk(Allotments()) as gone:
        address = gone.address(2)
    with ScriptedServer(latency_seconds=0.02) as server, Staff() as staff, Shares(notes.append) as shares:
        run = asking(tmp_path, server)
        job = replace(job_of(run), desk=address)
        with job.run.lease():
            specs = plan(job)
            tally = Tally(job.run, "ask", specs, 2, note=shares.note_once)
            Crew(job, staff, 2, tally.take).work_off(specs)
        assert server.max_in_flight <= 6
    assert replies(run.out) == expected
    (note,) = notes
    assert f"not every worker reaches the driver (127.0.0.1 port {address.port})" in note
    assert note.endswith("one that does not keeps to one part in 2 of llm.max_in_flight")


def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers that are started by others find the functions of the run."""
    tests = Path(asking_run.__file__).parent
    paths = (str(tests.parent / "src"), str(tests), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if missing():
        pytest.skip(missing())
    with slurm_cluster() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("ray", marks=(pytest.mark.extra, pytest.mark.xdist_group("ray"))),
        pytest.param("slurm", marks=pytest.mark.xdist_group("slurm")),
    ],
)
def test_the_limit_holds_on_a_cluster(
    tmp_path: Path,
    expected: dict[str, bytes],
    engine: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request.getfixturevalue(engine)
    importable(monkeypatch)
    with ScriptedServer(latency_seconds=0.05) as server:
        run = asking(tmp_path, server, workers=3, engine=engine)
        assert run_asking(run, lambda line: None).num_done == 12
        assert server.max_in_flight <= 6
    assert replies(run.out) == expected
    (event,) = server_events(run.out)
    assert event["calls"] == 120, "their workers report to the desk"
