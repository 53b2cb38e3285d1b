"""A run that is killed at any moment and started again gives the same bytes and leaves no process behind."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from pipeline_inputs import call, command, content, take_documents, write_recipe
from strikes import VICTIMS, WINDOW, Struck, strike, undisturbed

TABLES = ("pairs", "matches", "templates", "rejected")
MAX_PROBES = 10
"""Short questions about what the server can do, asked again where the answers were not written down yet."""


def children_of(pid: int) -> set[int]:
    """All living descendants of a process."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found |= {child} | children_of(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def expect_gone(pids: set[int]) -> None:
    """Processes that have no parent any more end within seconds."""
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids if is_alive(pid)}
    assert not left, "processes outlived their driver"


def kill_and_rerun(folder: Path, number: int, seed: int) -> None:
    recipe = write_recipe(folder, take_documents(folder / "documents.parquet", 40, every=10))
    began = time.monotonic()
    assert call("run", recipe, "--out", folder / "whole").returncode == 0
    seconds = time.monotonic() - began
    expected = {table: content(folder / "whole" / table) for table in TABLES}
    chance = random.Random(seed)
    killed = 0
    for attempt in range(number):
        run = folder / f"killed-{attempt}"
        driver = subprocess.Popen(command("run", recipe, "--out", run), stderr=subprocess.DEVNULL, stdout=-3)
        time.sleep(chance.uniform(0.2, seconds))
        workers = children_of(driver.pid)
        driver.send_signal(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL
        expect_gone(workers)
        assert call("run", recipe, "--out", run).returncode == 0
        assert {table: content(run / table) for table in TABLES} == expected
        assert call("verify", run).returncode == 0
    assert killed >= number // 2, "most runs were over before they could be killed"


@pytest.mark.slow
def test_driver_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    kill_and_rerun(tmp_path, 20, seed=int(os.environ.get("KILL_SEED", "7")))


@pytest.mark.slow
def test_interrupt_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, take_documents(tmp_path / "documents.parquet", 40, every=10))
    driver = subprocess.Popen(
        command("run", recipe, "--out", tmp_path / "run"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("units/*/*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children_of(driver.pid)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "run the same command again to continue" in errors
    assert "Traceback" not in errors
    expect_gone(workers)
    assert call("run", recipe, "--out", tmp_path / "run").returncode == 0
    assert call("verify", tmp_path / "run").returncode == 0


@pytest.mark.slow
def test_driver_workers_and_server_killed_in_the_middle_of_their_calls(tmp_path: Path) -> None:
    """The small version of `benchmarks/bench_faults.py`: runs until every kind of blow was dealt twice."""
    whole = undisturbed(tmp_path / "whole")
    runs: list[Struck] = []
    while min(Counter([*VICTIMS, *(blow.victim for run in runs for blow in run.blows)]).values()) < 3:
        assert len(runs) < 12, "runs were over before they could be struck"
        runs.append(strike(len(runs), 1, whole, tmp_path / f"struck-{len(runs)}"))
        assert runs[-1].problems == []
        at_risk = sum(WINDOW for blow in runs[-1].blows if blow.victim != "server")
        assert runs[-1].wasted_calls <= at_risk + MAX_PROBES
