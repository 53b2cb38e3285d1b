"""The Ray engine on real clusters: the bytes of the local engine, whatever dies, and nothing lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_run
from toy_run import Toy, check, command_of, content, documents, expected, run_toy

from fineinstructions import __version__
from fineinstructions.engines.crew import Death
from fineinstructions.engines.ray import Actor, Actors, Home, RayConfig, RayEngine, UnitWorker
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.worker import Report
from fineinstructions.errors import ConfigError
from fineinstructions.runs import RunFolder, describe_parquet, plan_units
from fineinstructions.runs.specs import UnitSpec

pytestmark = pytest.mark.xdist_group("ray")
NODE = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A run of twelve units by two workers of Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tests = str(Path(toy_run.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")])))
    return Toy(inputs=(documents(tmp_path, {}),), out=str(tmp_path / "run"), engine="ray", workers=2, unit_rows=5)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on loopback, named in RAY_ADDRESS."""
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


def ray_processes() -> dict[int, str]:
    """Process ids and command lines of workers and of what runs them.

    Ray's two agents of a node are left out: after a SIGKILL of the driver they sit idle for about a minute.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                line = (entry / "cmdline").read_text().replace("\0", " ")
                program = line.partition(" ")[0]
                if line.startswith("ray::UnitWorker") or program.endswith(("/raylet", "/gcs_server")):
                    found[int(entry.name)] = line
    return found


def wait_until(happened: Any, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_driver(toy: Toy) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command_of(toy), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def num_committed(toy: Toy) -> int:
    return len(list(Path(toy.out).glob("units/*/*/manifest.json")))


@pytest.mark.slow
@pytest.mark.extra
def test_two_nodes_give_the_same_bytes_whatever_dies(toy: Toy, two_nodes: Any, tmp_path: Path) -> None:
    """Workers on both nodes; one is killed with SIGKILL, then a whole node goes."""
    toy = replace(toy, workers=4, open_units=2, seconds=0.2)

    def workers() -> list[int]:
        return [pid for pid, line in ray_processes().items() if line.startswith("ray::UnitWorker")]

    driver = start_driver(toy)
    wait_until(lambda: num_committed(toy) >= 1 and len(workers()) >= 2)
    os.kill(workers()[0], signal.SIGKILL)
    wait_until(lambda: num_committed(toy) >= 8)
    two_nodes.remove_node(two_nodes.list_all_nodes()[1], allow_graceful=False)
    _, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, errors
    assert content(toy.out) == expected(toy, tmp_path)
    assert check(toy.out) == []


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("again", [False, True])
def test_a_unit_is_not_blamed_for_a_worker_that_was_gone_before_it_came(two_nodes: Any, again: bool) -> None:
    import ray

    ray.init(address=two_nodes.address, log_to_driver=False)
    try:
        actors = Actors(ray, 1, Home(__version__, str(Path.cwd()), {}))
        actor = Actor(handle=actors._new(Resources()), resources=Resources())
        assert ray.get(actor.handle.is_there.remote())
        (pid,) = (pid for pid, line in ray_processes().items() if line.startswith("ray::UnitWorker"))
        os.kill(pid, signal.SIGKILL)
        actors.give(actor, UnitSpec(0, "u-0"), again=again)
        ((who, said),) = actors.listen([actor])
    finally:
        ray.shutdown()
    assert who is actor
    assert isinstance(said, Death)
    assert said.blameless == again


@pytest.mark.slow
@pytest.mark.extra
def test_a_private_cluster_is_apart_from_others_and_ends_with_its_run(
    toy: Toy, two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    toy = replace(toy, inputs=(documents(tmp_path, {26: "KILL"}),), open_units=2)
    before = set(ray_processes())
    own: dict[int, str] = {}
    matches, pairs = run_toy(toy, between=lambda: own.update(ray_processes()))
    started = [line for pid, line in own.items() if pid not in before]
    assert [line.partition(" ")[0].endswith("/gcs_server") for line in started].count(True) == 1, "a cluster of its own"
    assert [(a.spec.row_start, a.reason) for a in matches.set_aside] == [(25, "worker_died")]
    assert "3 times; 5 rows counted as failed" in matches.set_aside[0].detail
    assert (matches.num_done, matches.num_deaths, pairs.num_done) == (11, 3, 12)
    assert check(toy.out) == []
    wait_until(lambda: set(ray_processes()) <= before, seconds=20)


@pytest.mark.slow
@pytest.mark.extra
def test_workers_leave_the_gpus_of_a_server_alone(toy: Toy) -> None:
    """Ray counts GPUs and looks at none, so none is needed."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    ray.init(address="local", num_gpus=3, log_to_driver=False, **NODE)
    try:
        run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases())
        job = toy_run.job_of(replace(toy, gpus=1), run, "matches")
        with run.lease(), RayEngine(None, 1, RayConfig(), [job.resources], print) as engine:
            specs = plan_units([describe_parquet(path) for path in toy.inputs], 1 << 20, toy.unit_rows)
            run.todo("matches", specs)
            outcome = engine.run_units(replace(job, other_gpus=("0", "2")), specs)
            with pytest.raises(ConfigError, match="no node of the Ray cluster has"):
                engine._temporary = Path(toy.out)  # as in a cluster of its own, which does not grow
                engine.run_units(replace(job, other_gpus=("0", "1", "2")), specs)
            engine._temporary = None
    finally:
        ray.shutdown()
    assert outcome.num_done == 12
    assert set(Path(toy.out).with_suffix(".gpus").read_text().split()) == {"1"}


@pytest.mark.slow
@pytest.mark.extra
def test_encoders_have_the_gpus_of_a_cluster_for_themselves(toy: Toy, two_nodes: Any) -> None:
    """As on one machine, where the recipe says nothing; Ray counts GPUs and looks at none, so none is needed."""

    def outcome(name: str, could_use_gpu: bool, **changed: Any) -> tuple[int, set[str]]:
        mine = replace(toy, out=f"{toy.out}-{name}", could_use_gpu=could_use_gpu)
        run = RunFolder.create_or_open(mine.out, mine.settings(), mine.phases())
        job = replace(toy_run.job_of(mine, run, "matches"), **changed)
        with run.lease(), RayEngine(None, 1, RayConfig(), [job.resources], print) as engine:
            specs = plan_units([describe_parquet(path) for path in mine.inputs], 1 << 20, mine.unit_rows)
            run.todo("matches", specs)
            done = engine.run_units(job, specs).num_done
        return done, set(Path(mine.out).with_suffix(".gpus").read_text().split())

    none = outcome("none", could_use_gpu=True)
    two_nodes.add_node(**NODE, num_gpus=2)
    two_nodes.wait_for_nodes()
    done, seen = outcome("some", could_use_gpu=True, max_local_workers=1)
    assert done == 12
    assert seen and seen <= {"0", "1"}, "one GPU for each worker; the first may have done everything"
    assert outcome("other", could_use_gpu=False) == none
    assert none[0] == 12
    assert not none[1] & {"0", "1"}


@pytest.mark.slow
@pytest.mark.extra
def test_an_actor_goes_from_phase_to_phase(toy: Toy) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    run_toy(replace(toy, workers=1))
    first, second = Path(toy.out).with_suffix(".closed").read_text().split()
    assert first == second
    niceness = Path(toy.out).with_suffix(".niceness").read_text().split()
    assert set(niceness) == {str(os.nice(0))}, "not behind every other process of this machine"


def stopped(toy: Toy, number: int, sent: signal.Signals) -> tuple[int, str]:
    """Send a driver a signal when some units are done; gives its exit code, and what it said to an interrupt."""
    driver = start_driver(toy)
    wait_until(lambda: num_committed(toy) >= number or driver.poll() is not None)
    driver.send_signal(sent)
    _, errors = driver.communicate(timeout=60)
    return driver.returncode, errors if sent == signal.SIGINT else ""


@pytest.mark.slow
@pytest.mark.extra
def test_a_killed_or_interrupted_driver_leaves_nothing_behind(toy: Toy, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    toy = replace(toy, seconds=0.1)
    for number, sent, said in ((1, signal.SIGKILL, (-9, "")), (4, signal.SIGINT, (1, "interrupted\n"))):
        assert stopped(toy, number, sent) == said
        wait_until(lambda: not ray_processes(), seconds=30)
    run_toy(replace(toy, engine="local", workers=3, seconds=0.0))
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.slow
@pytest.mark.extra
def test_what_a_cluster_cannot_give_is_told(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    with pytest.raises(
        ConfigError, match=r"^engine\.resources\.matches: no node of the Ray cluster has cpus 1, gpus 9;"
    ):
        run_toy(replace(toy, gpus=9))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS: 127\.0\.0\.1:9: no Ray cluster there"):
        run_toy(toy)


# ---------------------------------------------------------------------------------------------------------------------
# Without Ray


def test_a_node_that_does_not_see_the_run_says_so(toy: Toy, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "elsewhere", phases=tuple(toy.phases()))
    job = replace(toy_run.job_of(toy, run, "matches"), lease="0" * 32)
    home = Home(__version__, str(tmp_path), {})
    said = UnitWorker().start(job, home)
    assert said.kind == "config_error"
    assert "does not see this folder" in said.message
    said = UnitWorker().start(job, replace(home, version="0.0"))
    assert "install the same on every node" in said.message
    with run.lease():
        job = replace(job, lease=toy_run.lease_of(run))
        assert UnitWorker().start(job, home) == Report(None, "ready")


def test_settings_that_make_no_sense_with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^engine\.workers: 0 works in this process"):
        RayEngine(0, 1, RayConfig(), [Resources()], print)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(
            ConfigError, match=r"^engine\.kind: ray is not installed; pip install 'fineinstructions\[ray\]'$"
        ),
        RayEngine(1, 1, RayConfig(), [Resources()], print),
    ):
        raise AssertionError("it started")
