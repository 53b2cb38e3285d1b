"""One limit for all workers of a run, in real processes over real HTTP."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asking_run
import pytest
from asking_run import Asking, run_asking

from fineinstructions.backends.llm import LlmConfig
from fineinstructions.backends.scripted_server import ScriptedServer
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


@pytest.mark.parametrize("workers", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
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


def test_the_slots_of_a_killed_worker_come_back(tmp_path: Path, expected: dict[str, bytes]) -> None:
    """One of two workers is stopped with all slots that it can get, then killed; the other has to do without them."""
    with ScriptedServer(latency_seconds=0.05) as server:
        run = asking(tmp_path, server, workers=2, llm={"max_in_flight": 4})
        outcomes: list[Any] = []
        thread = threading.Thread(target=lambda: outcomes.append(run_asking(run)))
        thread.start()
        workers = lambda: sorted(tmp_path.glob("worker-*"), key=lambda p: p.stat().st_mtime)  # noqa: E731
        wait_for(lambda: len(workers()) == 2 and server.requests.total() >= 8, "both workers ask")
        victim = int(workers()[0].name.partition("-")[2])
        os.kill(victim, signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        thread.join(120)
        assert not thread.is_alive()
        assert outcomes[0].num_deaths == 1
        assert outcomes[0].set_aside == []
    assert replies(run.out) == expected
    (event,) = server_events(run.out)
    assert event["peak_in_flight"] <= 4


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


def test_workers_that_cannot_reach_the_desk_keep_to_their_part_and_the_user_is_told_once(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable(asking_run.open_engine.__globals__["LocalEngine"]):  # type: ignore[misc, name-defined]
        """An engine whose workers are told a port where nobody listens."""

        def run_units(self, job: Any, *rest: Any) -> Any:
            equip = self._shares.equip

            def misled(job: Any, num_workers: int, host: str | None = None) -> Any:
                equipped = equip(job, num_workers, host)
                return replace(equipped, desk=replace(equipped.desk, port=9))

            monkeypatch.setattr(self._shares, "equip", misled)
            return super().run_units(job, *rest)

    monkeypatch.setattr("fineinstructions.engines.engine.LocalEngine", Unreachable)
    notes: list[str] = []
    with ScriptedServer(latency_seconds=0.02) as server:
        run = asking(tmp_path, server, workers=2)
        assert run_asking(run, notes.append).num_done == 12
        assert server.max_in_flight <= 6
    assert replies(run.out) == expected
    assert [note for note in notes if "reaches the driver" in note] == notes
    assert len(notes) == 1


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.xdist_group("ray")
def test_the_limit_holds_for_actors_of_ray(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    paths = (str(Path(asking_run.__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    with ScriptedServer(latency_seconds=0.05) as server:
        run = asking(tmp_path, server, workers=3, engine="ray")
        assert run_asking(run, lambda line: None).num_done == 12
        assert server.max_in_flight <= 6
    assert replies(run.out) == expected
    (event,) = server_events(run.out)
    assert event["calls"] == 120, "actors report to the desk"
