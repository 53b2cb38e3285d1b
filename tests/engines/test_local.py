"""The local engine under fire: the same bytes for any number of workers and after any death, and nothing lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_run
from toy_run import (
    Toy,
    build_and_die,
    build_nothing,
    check,
    command_of,
    content,
    documents,
    expected,
    run_toy,
)

from fineinstructions.engines.local import LocalEngine
from fineinstructions.engines.tally import Progress
from fineinstructions.engines.worker import NAME
from fineinstructions.errors import BackendError, ConfigError, DataError
from fineinstructions.runs import RunFolder, describe_parquet, funnel, plan_units, status


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(inputs=(documents(tmp_path, {}),), out=str(tmp_path / "run"))


def failed(out: str) -> dict[str, dict[str, int]]:
    return {line.stage: line.account.failed for line in funnel(RunFolder.open(out)) if line.account.failed}


@pytest.mark.parametrize(("workers", "open_units"), [(1, 3), (2, 1)])
def test_the_same_bytes_for_any_number_of_workers(toy: Toy, tmp_path: Path, workers: int, open_units: int) -> None:
    outcomes = run_toy(replace(toy, workers=workers, open_units=open_units))
    assert [(o.num_done, o.set_aside, o.num_deaths) for o in outcomes] == [(6, [], 0), (6, [], 0)]
    assert content(toy.out) == expected(toy, tmp_path)


def test_progress_counts_up_to_the_end(toy: Toy) -> None:
    run = RunFolder.create_or_open(toy.out, {}, toy.phases())
    seen: list[Progress] = []
    with run.lease(), LocalEngine(0) as engine:
        specs = plan_units([describe_parquet(toy.inputs[0])], 1 << 20, 10)
        engine.run_units(toy_run.job_of(toy, run, "matches"), run.todo("matches", specs), seen.append)
    assert [p.num_done for p in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].num_rows_done == seen[-1].num_rows == 60


@pytest.mark.parametrize("open_units", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_unit_that_kills_its_worker_is_set_aside_alone(tmp_path: Path, open_units: int) -> None:
    toy = Toy(inputs=(documents(tmp_path, {25: "KILL"}),), out=str(tmp_path / "run"), workers=2, open_units=open_units)
    matches, pairs = run_toy(toy)
    assert (matches.num_done, [a.reason for a in matches.set_aside]) == (5, ["worker_died"])
    assert matches.set_aside[0].spec.row_start == 20
    assert "exit code -9, 3 times; 10 rows counted as failed" in matches.set_aside[0].detail
    assert matches.num_deaths == 3
    assert (pairs.num_done, pairs.set_aside) == (6, [])
    assert failed(toy.out) == {"read": {"worker_died": 10}}
    assert check(toy.out) == []
    assert status(RunFolder.open(toy.out)).phases[0].num_set_aside == 1
    assert len(set(Path(toy.out).with_suffix(".again").read_text().split())) >= 2, (
        "looked for what the dead ones stored"
    )
    again = run_toy(toy)
    assert [o.num_done for o in again] == [0, 0]


def test_a_unit_that_was_set_aside_can_be_tried_again(tmp_path: Path) -> None:
    toy = Toy(inputs=(documents(tmp_path, {25: "BROKEN for now"}),), out=str(tmp_path / "run"))
    (tmp_path / "broken").touch()
    first, _ = run_toy(toy)
    assert [a.reason for a in first.set_aside] == ["unit_error"]
    assert "OSError: a disk is full somewhere (traceback in" in first.set_aside[0].detail
    log = next((tmp_path / "run" / "logs").glob("matches-000002-*.log"))
    assert "Traceback" in log.read_text()
    assert [len(o.set_aside) for o in run_toy(replace(toy, retry_failed=True))] == [1, 0]
    (tmp_path / "broken").unlink()
    assert [o.num_done for o in run_toy(toy)] == [0, 0]
    assert [o.num_done for o in run_toy(replace(toy, retry_failed=True))] == [1, 1], "its pairs follow"
    assert failed(toy.out) == {}
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.parametrize(("word", "reason"), [("RAISE", "unit_error"), ("DATA", "data_error")])
def test_a_unit_that_raises_does_not_stop_the_others(tmp_path: Path, word: str, reason: str) -> None:
    toy = Toy(inputs=(documents(tmp_path, {25: word}),), out=str(tmp_path / "run"))
    matches, _ = run_toy(toy)
    assert (matches.num_done, [a.reason for a in matches.set_aside]) == (5, [reason])
    assert failed(toy.out) == {"read": {reason: 10}}
    assert check(toy.out) == []


def test_a_death_in_a_later_phase_counts_what_entered_it(tmp_path: Path) -> None:
    toy = Toy(inputs=(documents(tmp_path, {5: "the LATE number"}),), out=str(tmp_path / "run"), workers=1)
    _, pairs = run_toy(toy)
    assert [a.reason for a in pairs.set_aside] == ["worker_died"]
    assert failed(toy.out) == {"judge": {"worker_died": 9}}  # ten rows, one of them empty
    assert check(toy.out) == []


@pytest.mark.parametrize(
    ("word", "error", "line", "workers"),
    [
        ("CONFIG", ConfigError, "^config trouble$", 2),
        ("BACKEND", BackendError, "^backend trouble$", 1),
        ("FULL", ConfigError, "run: no space left on the disk; make room", 0),
    ],
)
def test_the_users_and_the_engines_trouble_stop_the_run(
    tmp_path: Path, word: str, error: type[Exception], line: str, workers: int
) -> None:
    toy = Toy(inputs=(documents(tmp_path, {55: word}),), out=str(tmp_path / "run"), workers=workers)
    with pytest.raises(error, match=line):
        run_toy(toy)
    assert multiprocessing_children() == []
    assert len(list((tmp_path / "run" / "units" / "matches").glob("*/manifest.json"))) >= 4 - workers


def test_when_everything_fails_the_run_stops(tmp_path: Path) -> None:
    toy = Toy(inputs=(documents(tmp_path, dict.fromkeys(range(60), "RAISE")),), out=str(tmp_path / "run"), workers=1)
    with pytest.raises(DataError, match=r"first 5 units all failed.*RuntimeError: the text said so.*--retry-failed"):
        run_toy(toy)


@pytest.mark.parametrize("workers", [0, 2])
def test_models_are_closed_after_the_last_unit(toy: Toy, workers: int) -> None:
    run_toy(replace(toy, workers=workers))
    closed = Path(toy.out).with_suffix(".closed").read_text().split()
    # Once in every worker of both phases; a worker that was still starting when the work was over had built none.
    assert 2 <= len(closed) <= 2 * max(1, workers)
    assert (str(os.getpid()) in closed) == (workers == 0)


def pids_of_models(toy: Toy) -> list[str]:
    """Process ids of the workers that closed their models, one per phase."""
    return Path(toy.out).with_suffix(".closed").read_text().split()


def test_a_worker_goes_from_phase_to_phase(toy: Toy) -> None:
    run_toy(replace(toy, workers=1))
    first, second = pids_of_models(toy)
    assert first == second
    assert not Path(f"/proc/{first}").exists(), "it ends with the run"


def test_workers_that_die_between_two_phases_are_replaced(toy: Toy, tmp_path: Path) -> None:
    toy = replace(toy, workers=3)
    killed = []

    def kill_all() -> None:
        killed.extend(workers_of(os.getpid()))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        for pid in killed:  # until its last thread is gone, and with it its end of the pipe
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    outcomes = run_toy(toy, between=kill_all)
    assert killed
    assert [(o.num_done, o.set_aside, o.num_deaths) for o in outcomes] == [(6, [], 0), (6, [], 0)]
    assert workers_of(os.getpid()) == []
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.parametrize("build", [toy_run.build_what_cannot_be_closed, toy_run.build_what_never_closes])
def test_models_that_do_not_close_stop_nothing(
    toy: Toy, tmp_path: Path, build: Callable[[Toy], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fineinstructions.engines.staff.SHUTDOWN_SECONDS", 0.5)
    outcomes = run_toy(replace(toy, workers=3), build)
    assert [(o.num_done, o.set_aside, o.num_deaths) for o in outcomes] == [(6, [], 0), (6, [], 0)]
    assert workers_of(os.getpid()) == []
    assert content(toy.out) == expected(toy, tmp_path)
    if build is toy_run.build_what_cannot_be_closed:
        assert "TimeoutError: no answer" in (tmp_path / "run" / "logs" / "matches-close.log").read_text()


def test_models_that_cannot_be_built(toy: Toy) -> None:
    with pytest.raises(ConfigError, match=r"^model\.path: no such model$"):
        run_toy(replace(toy, workers=2), build=build_nothing)
    with pytest.raises(BackendError, match=r"3 worker processes died before their models were loaded \(exit code 3\)"):
        run_toy(replace(toy, workers=1), build=build_and_die)


# ---------------------------------------------------------------------------------------------------------------------
# A driver in a process of its own, killed


def multiprocessing_children() -> list[str]:
    """Command lines of this process's live worker processes."""
    return [line for pid, line in processes() if is_worker(pid, line) and parent_of(pid) == os.getpid()]


def is_worker(pid: int, line: str) -> bool:
    """Whether a living process is a worker, or is just being spawned as one; a dead one has no command line."""
    try:
        return "spawn_main" in line or (bool(line) and Path(f"/proc/{pid}/comm").read_text().strip() == NAME)
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def workers_of(driver: int) -> list[int]:
    return [pid for pid, line in processes() if is_worker(pid, line) and parent_of(pid) == driver]


def start_driver(toy: Toy) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command_of(toy), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(driver: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = driver.communicate(timeout=60)
    return driver.returncode, err


def wait_for_units(toy: Toy, number: int, driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while len(list(Path(toy.out).glob("units/*/*/manifest.json"))) < number and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(pids: list[int], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_worker(pid, dict(processes()).get(pid, "")) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill_and_rerun(toy: Toy, tmp_path: Path, kills: int, rng: random.Random) -> None:
    """SIGKILL the driver at random moments, then let it finish: same bytes, no worker left behind."""
    toy = replace(toy, workers=2, open_units=2, seconds=0.005)
    for _ in range(kills):
        driver = start_driver(toy)
        wait_for_units(toy, rng.randint(0, 6), driver)
        time.sleep(rng.random() * 0.15)
        workers = workers_of(driver.pid)
        driver.kill()
        finish(driver)
        assert gone(workers)
    assert finish(start_driver(toy)) == (0, "")
    assert content(toy.out) == expected(toy, tmp_path)
    assert check(toy.out) == []


def test_a_killed_driver_leaves_no_orphan_and_loses_nothing(toy: Toy, tmp_path: Path) -> None:
    kill_and_rerun(toy, tmp_path, kills=2, rng=random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_driver_killed_many_times(toy: Toy, tmp_path: Path, seed: int) -> None:
    kill_and_rerun(toy, tmp_path, kills=8, rng=random.Random(seed))


def test_killed_workers_cost_nothing_but_time(toy: Toy, tmp_path: Path) -> None:
    toy = replace(toy, workers=2, open_units=2, seconds=0.02)
    rng = random.Random(2)
    driver = start_driver(toy)
    killed = 0
    while driver.poll() is None and killed < 2:
        wait_for_units(toy, 1 + 5 * killed, driver)
        for pid in workers_of(driver.pid)[:1]:
            time.sleep(rng.random() * 0.05)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert finish(driver) == (0, "")
    assert killed == 2
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.slow
def test_two_drivers_share_no_folder(toy: Toy, tmp_path: Path) -> None:
    slow = replace(toy, workers=1, seconds=0.05)
    first = start_driver(slow)
    wait_for_units(toy, 1, first)
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the second has looked
    try:
        code, line = finish(start_driver(slow))
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert (code, line.count("\n")) == (1, 1)
    assert line.startswith(f"HeldError: {toy.out}: process {first.pid} on ")
    assert finish(first) == (0, "")
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.parametrize("to_group", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ctrl_c_stops_cleanly(toy: Toy, tmp_path: Path, to_group: bool) -> None:
    """A terminal sends Ctrl-C to the whole group: the workers must not answer with tracebacks."""
    driver = start_driver(replace(toy, workers=2, seconds=0.02))
    wait_for_units(toy, 1, driver)
    workers = workers_of(driver.pid)
    assert workers
    (os.killpg if to_group else os.kill)(driver.pid, signal.SIGINT)
    assert finish(driver) == (1, "interrupted\n")
    assert gone(workers)
    run_toy(toy)
    assert content(toy.out) == expected(toy, tmp_path)


def test_ctrl_c_waits_until_a_worker_is_started() -> None:
    """Another thread of the driver may take the signal; a start that is cut in half leaves a traceback."""
    script = (
        "import os, signal, threading, time\n"
        "from fineinstructions.engines.interrupts import interrupts_held_back\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "try:\n"
        "    with interrupts_held_back():\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.2)\n"
        "        print('started')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (said.stdout.split(), said.stderr) == (["started", "interrupted"], "")
