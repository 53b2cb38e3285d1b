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
from pipeline_inputs import call, command, content, in_process, take_documents, write_recipe
from strikes import VICTIMS, WINDOW, Struck, strike, undisturbed

import fineinstructions

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
    """Processes that have no parent any more end; one that was just starting does so once it has imported."""
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in pids if is_alive(pid)}
    assert not left, "processes outlived their driver"


def num_committed(run: Path) -> int:
    """Units that are done."""
    return len(list(run.glob("units/*/*/manifest.json")))


@pytest.mark.slow
def test_driver_killed_at_random_moments(tmp_path: Path) -> None:
    """The small version of the driver's blows in `benchmarks/bench_faults.py`: once in every part of a run."""
    recipe = write_recipe(tmp_path, take_documents(tmp_path / "documents.parquet", 16, every=25))
    assert in_process("run", recipe, "--out", tmp_path / "whole", "--workers", "0")[0] == 0
    expected = {table: content(tmp_path / "whole" / table) for table in TABLES}
    number, num_units = 6, num_committed(tmp_path / "whole")
    chance = random.Random(int(os.environ.get("KILL_SEED", "7")))
    for attempt in range(number):
        run = tmp_path / f"killed-{attempt}"
        driver = subprocess.Popen(command("run", recipe, "--out", run), stderr=subprocess.DEVNULL, stdout=-3)
        least = chance.randrange(attempt * num_units // number, (attempt + 1) * num_units // number)
        while num_committed(run) < least and driver.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        workers = children_of(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        expect_gone(workers)
        assert in_process("run", recipe, "--out", run, "--workers", "0")[0] == 0
        assert {table: content(run / table) for table in TABLES} == expected
        assert fineinstructions.verify(run) == []


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
