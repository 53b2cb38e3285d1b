"""Real runs against a model server in a process of its own, struck by SIGKILL: for tests and `bench_faults.py`.

In: who is to die, and when. Out: what it cost, once the same command has brought the run to its end. The server writes
every answer down before it sends it, so that its own death loses no count; an answer that nobody was there to receive
counts too.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipeline_inputs import EXAMPLES, command, content, take_documents, write_recipe

import fineinstructions
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer

Victim = Literal["driver", "worker", "every worker", "server"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "every worker", "server")
TABLES = ("pairs", "matches", "templates", "rejected")
WORKERS = 2
WINDOW = 16
"""Requests under way per worker process."""
LATENCY_SECONDS = 0.05
MARK = "FINEINSTRUCTIONS_STRUCK_RUN"
"""Variable that every process of a run inherits, by which those that outlive it are found."""
MAX_CALLS = 6
"""Calls of the command after which a run that still has not come to its end is given up."""
PATIENCE_SECONDS = 300.0


def expect(condition: bool, problem: str) -> None:
    """Fail with a line, also where assertions are off."""
    if not condition:
        raise AssertionError(problem)


class ModelServer:
    """The scripted server as a process that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self._answers, self._gauge = folder / "answers", folder / "gauge"
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    @property
    def base_url(self) -> str:
        """Address for a client."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = [sys.executable, __file__, str(self._port), str(self._answers), str(self._gauge)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        expect(bool(self._process.stdout and self._process.stdout.readline()), "the model server did not start")

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def num_answers(self) -> int:
        """Chat requests that it has made an answer to, whoever received it."""
        return self._answers.stat().st_size if self._answers.exists() else 0

    def in_flight(self) -> int:
        """Requests that it is working on now."""
        self._gauge.unlink(missing_ok=True)
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        wait_until(lambda: self._gauge.exists() and self._gauge.stat().st_size > 0, "the model server does not answer")
        return int(self._gauge.read_text())


def serve(port: int, answers: Path, gauge: Path) -> None:
    """Be the server: one byte in `answers` for every answer, and the requests under way in `gauge` when asked.

    It ends with whoever started it, by the end of its standard input.
    """
    book = os.open(answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def written_down(body: Mapping[str, Any]) -> str:
        os.write(book, b".")
        return str(echo(body))

    async def run() -> None:
        server = ScriptedServer(written_down, port=port, latency_seconds=LATENCY_SECONDS)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: gauge.write_text(str(server.in_flight)))
        await server.start()
        print(server.base_url, flush=True)
        over = asyncio.Event()
        loop.add_reader(sys.stdin, over.set)
        await over.wait()

    asyncio.run(run())


def wait_until(condition: Any, problem: str, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, problem)
        time.sleep(0.002)


def recipe_of_all_phases(folder: Path) -> Path:
    """The smallest run with several units in every phase that has units, and three stages that ask a model."""
    llm = {"model": "scripted", "max_in_flight": WINDOW, "backoff_seconds": 0.05}
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", 12, every=33),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 40},
        llm=llm,
        genericize={"model": "openai"},
        instantiate={"model": "openai"},
        judge={"model": "openai", "max_template_share": 1.0},
        retrieve={"min_cosine": 0.0},
        engine={"workers": WORKERS, "unit_rows": 3, "query_unit_rows": 10},
    )


def processes_of(mark: str) -> dict[int, str]:
    """Command lines of the living processes that carry a mark."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or needle not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def is_worker(line: str) -> bool:
    """Whether a command line is that of a worker process."""
    return "spawn_main" in line


@dataclass(frozen=True)
class Undisturbed:
    """The run that nothing happens to."""

    recipe: Path
    tables: dict[str, dict[str, bytes]]
    num_calls: int
    """Answers of the model server that it takes."""
    seconds: float


@dataclass
class Blow:
    """What one SIGKILL cost."""

    victim: Victim
    number: int
    seconds_in: float
    """Moment of the blow, in seconds from the start of the driver."""
    in_flight: int = 0
    """Requests that the server worked on then."""
    num_killed: int = 0
    num_calls_of_command: int = 1
    """How often the command was given until the run had come to its end."""
    wasted_calls: int = 0
    """Answers beyond those of an undisturbed run."""
    problems: list[str] = field(default_factory=list)
    """Everything that is not as in an undisturbed run; empty when all is well."""


def tables_of(run: Path) -> dict[str, dict[str, bytes]]:
    """Bytes of every published file."""
    return {name: content(run / name) for name in TABLES}


def undisturbed(folder: Path) -> Undisturbed:
    """Make the run that others are compared with."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe, run = recipe_of_all_phases(folder), folder / "run"
    with ModelServer(folder / "server") as server:
        began = time.monotonic()
        driver = start_driver(recipe, run, server, "undisturbed")
        expect(driver.wait(PATIENCE_SECONDS) == 0, (folder / "errors").read_text())
        seconds = time.monotonic() - began
        return Undisturbed(recipe, tables_of(run), server.num_answers(), seconds)


def start_driver(recipe: Path, run: Path, server: ModelServer, mark: str) -> "subprocess.Popen[bytes]":
    """Give the command."""
    words = ["run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}"]
    with (run.parent / "errors").open("ab") as errors:
        return subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, MARK: mark}
        )


def strike(victim: Victim, number: int, seed: int, whole: Undisturbed, folder: Path) -> Blow:
    """Start a run, kill at a random moment, bring the run to its end, compare.

    Args:
        victim: Who dies.
        number: Which blow of this kind it is; with the seed it settles the moment, a share of the run's time where it
            is even, and of its calls where it is odd.
        seed: Seed of all blows.
        whole: What an undisturbed run gives.
        folder: Empty folder for the run and its server.
    """
    chance = random.Random(f"{seed} {victim} {number}")
    for attempt in range(20):
        home = folder / f"attempt-{attempt}"
        blow = _strike(victim, number, chance, whole, home)
        if blow is not None:
            return blow
    raise AssertionError(f"{victim} {number}: every run was over before it could be struck")


def _strike(victim: Victim, number: int, chance: random.Random, whole: Undisturbed, home: Path) -> Blow | None:
    """One try; None where the run was over first."""
    mark, run = uuid.uuid4().hex, home / "run"
    moment, which, pause = chance.random(), chance.random(), chance.uniform(0.0, 1.5)
    with ModelServer(home / "server") as server:
        driver = start_driver(whole.recipe, run, server, mark)
        try:
            began = time.monotonic()
            _wait_for(moment, by_calls=number % 2 == 1, whole=whole, server=server, driver=driver)
            pids = [] if driver.poll() is not None else _victims(victim, driver, server, mark, which)
            if not pids:
                return None
            blow = Blow(victim, number, round(time.monotonic() - began, 2), server.in_flight())
            blow.num_killed = _kill(victim, pids, server)
            if victim == "server":
                time.sleep(pause)
                server.start()
            _finish(driver, whole.recipe, run, server, mark, blow)
            blow.wasted_calls = server.num_answers() - whole.num_calls
        finally:
            driver.kill()
            driver.wait()
    if blow.num_killed == 0:
        return None
    _compare(run, whole, blow)
    return blow


def _wait_for(
    moment: float, *, by_calls: bool, whole: Undisturbed, server: ModelServer, driver: "subprocess.Popen[bytes]"
) -> None:
    """Wait for a moment of a run, as a share of its time or, as most of that is spent on starting, of its calls."""
    began = time.monotonic()
    while driver.poll() is None:
        share = server.num_answers() / whole.num_calls if by_calls else (time.monotonic() - began) / whole.seconds
        if share >= moment:
            return
        time.sleep(0.002)


def _victims(
    victim: Victim, driver: "subprocess.Popen[bytes]", server: ModelServer, mark: str, which: float
) -> list[int]:
    """Process ids to be killed; where there is no worker at the moment, the first that come."""
    if victim in ("driver", "server"):
        return [driver.pid]
    while driver.poll() is None:
        workers = sorted(pid for pid, line in processes_of(mark).items() if is_worker(line))
        if workers:
            return workers if victim == "every worker" else [workers[int(which * len(workers))]]
        time.sleep(0.002)
    return []


def _kill(victim: Victim, pids: list[int], server: ModelServer) -> int:
    if victim == "server":
        server.kill()
        return 1
    killed = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def _finish(
    driver: "subprocess.Popen[bytes]", recipe: Path, run: Path, server: ModelServer, mark: str, blow: Blow
) -> None:
    """Wait for the driver, and give its command again for as long as it does not come to its end."""
    while driver.wait(PATIENCE_SECONDS) != 0:
        left = _outlived(mark)
        blow.problems += [f"outlived its driver: {line}" for line in left.values()]
        if blow.num_calls_of_command == MAX_CALLS:
            blow.problems.append((run.parent / "errors").read_text()[-500:])
            return
        blow.num_calls_of_command += 1
        driver = start_driver(recipe, run, server, mark)
    blow.problems += [f"outlived its driver: {line}" for line in _outlived(mark).values()]


def _outlived(mark: str) -> dict[int, str]:
    """Processes of a run that are still there some time after their driver's end."""
    deadline = time.monotonic() + 15
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _compare(run: Path, whole: Undisturbed, blow: Blow) -> None:
    """Nothing lost, nothing twice, the same bytes."""
    blow.problems += [str(finding) for finding in fineinstructions.verify(run)]
    found = tables_of(run)
    blow.problems += [f"{name}: other bytes" for name in TABLES if found[name] != whole.tables[name]]
    leftovers = [str(path) for path in run.rglob("tmp-*")]
    blow.problems += [f"left behind: {path}" for path in leftovers]


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
