"""Workers that are forked ahead of all work: when they may be, and that they die with their driver."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fineinstructions.runs.lease import hold_lease

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks soundly")

ALONE = """
import sys
from fineinstructions.engines.threads import libraries_without_threads
with libraries_without_threads():
    from fineinstructions import pipeline
from fineinstructions.engines.staff import Staff
from fineinstructions.engines.threads import may_fork
"""


def in_a_process_of_its_own(program: str, folder: Path) -> str:
    """What a program says that starts as the command line does, without the threads of this process."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE + program, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_workers_are_forked_before_there_are_threads_and_spawned_afterwards(tmp_path: Path) -> None:
    told = in_a_process_of_its_own(
        """
import threading
assert may_fork()
calls = []
with Staff() as staff:
    staff.fork_ahead(2, lambda: calls.append(1))
    idle = [(type(worker.process).__name__, worker.process.is_alive()) for worker in staff._idle]
is_over = threading.Event()
thread = threading.Thread(target=is_over.wait)
thread.start()
with Staff() as staff:
    staff.fork_ahead(2, lambda: calls.append(1))
    print(idle, calls, may_fork(), staff._idle)
is_over.set()
""",
        tmp_path,
    )
    assert told == "[('ForkProcess', True), ('ForkProcess', True)] [1] False []\n"


def test_a_forked_worker_dies_with_its_driver_and_holds_no_lease(tmp_path: Path) -> None:
    """The driver holds a lock when it forks and is killed: its workers are gone, and the lock is free."""
    program = """
import os, signal, time
from pathlib import Path
from fineinstructions.runs.lease import hold_lease
with hold_lease(Path(sys.argv[1]) / "lease"), Staff() as staff:
    staff.fork_ahead(2, lambda: None)
    pids = [worker.process.pid for worker in staff._idle]
    while any(Path(f"/proc/{pid}/comm").read_text() != "fi-worker\\n" for pid in pids):
        time.sleep(0.02)
    os.kill(pids[0], signal.SIGSTOP)  # so that it cannot leave by itself
    print(*pids, flush=True)
    time.sleep(600)
"""
    driver = subprocess.Popen([sys.executable, "-c", ALONE + program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2
    driver.kill()
    driver.wait()
    with hold_lease(tmp_path / "lease"):
        pass
    driver.stdout.close()
    deadline = time.monotonic() + 60
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process is there; a dead one that nobody has waited for has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_workers_would_import_is_there_before_the_fork_and_starts_no_thread(tmp_path: Path) -> None:
    """FAISS for all, the HTTP client where a stage asks a server: imported once, and the process may still fork."""
    told = in_a_process_of_its_own(
        """
from pathlib import Path
from fineinstructions.config import from_mapping
from fineinstructions.models import Models
from fineinstructions.recipe import RunConfig
from fineinstructions.setup import Setup
asks = {stage: {"model": "openai"} for stage in ("genericize", "instantiate", "judge")}
for sections in ({}, asks):
    setup = Setup(from_mapping(sections, RunConfig, where="test"), Path(sys.argv[1]))
    with Staff() as staff:
        staff.fork_ahead(1, Models(setup).import_modules)
        print(len(staff._idle), "faiss" in sys.modules, "aiohttp" in sys.modules)
""",
        tmp_path,
    )
    assert told == "1 True False\n1 True True\n"


def test_workers_are_not_forked_where_an_import_starts_a_thread(tmp_path: Path) -> None:
    told = in_a_process_of_its_own(
        """
import threading
is_over = threading.Event()
with Staff() as staff:
    staff.fork_ahead(2, threading.Thread(target=is_over.wait).start)
    print(staff._idle)
is_over.set()
""",
        tmp_path,
    )
    assert told == "[]\n"
