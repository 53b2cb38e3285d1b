"""Real runs against a model server in a process of its own, struck by SIGKILL: for tests and `bench_faults.py`.

In: a seed. Out: what became of a run whose driver, workers and server were killed, once the same command has brought it
to its end. The server writes every answer down before it sends it, so that its own death loses no count; an answer that
nobody was there to receive counts too.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipeline_inputs import EXAMPLES, command, content, take_documents, write_recipe

import fineinstructions
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.engines.worker import NAME

Victim = Literal["driver", "worker", "every worker", "server"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "every worker", "server")
TABLES = ("pairs", "matches", "templates", "rejected")
WORKERS = 2
WINDOW = 16
"""Requests under way at the server, over all workers."""
LATENCY_SECONDS = 0.05
MARK = "FINEINSTRUCTIONS_STRUCK_RUN"
"""Variable that every process of a run inherits, by which those that outlive it are found."""
MAX_CALLS_OF_COMMAND = 8
"""After which a run that still has not come to its end is given up."""
DIGEST_BYTES = 8
PATIENCE_SECONDS = 600.0


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

    def answers(self) -> list[bytes]:
        """Digests of the chat requests that it has made an answer to, in order, whoever received it."""
        raw = self._answers.read_bytes() if self._answers.exists() else b""
        return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]

    def num_answers(self) -> int:
        """How many there are."""
        return self._answers.stat().st_size // DIGEST_BYTES if self._answers.exists() else 0

    def in_flight(self) -> int:
        """Requests that it is working on now."""
        self._gauge.unlink(missing_ok=True)
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        wait_until(lambda: self._gauge.exists() and self._gauge.stat().st_size > 0, "the model server does not answer")
        return int(self._gauge.read_text())


def serve(port: int, answers: Path, gauge: Path) -> None:
    """Be the server: the digest of every request answered in `answers`, those under way in `gauge` when asked.

    It ends with whoever started it, by the end of its standard input.
    """
    book = os.open(answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def written_down(body: Mapping[str, Any]) -> str:
        os.write(book, hashlib.blake2b(json.dumps(body).encode(), digest_size=DIGEST_BYTES).digest())
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
    """Names and command lines of the living processes that carry a mark."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or needle not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                name, line = (entry / "comm").read_text().strip(), (entry / "cmdline").read_text().replace("\0", " ")
                found[int(entry.name)] = f"{name}: {line}"
    return found


def is_worker(line: str) -> bool:
    """Whether a process is a worker, by its name and command line."""
    return line.startswith(f"{NAME}: ")


@dataclass(frozen=True)
class Undisturbed:
    """The run that nothing happens to."""

    recipe: Path
    tables: dict[str, dict[str, bytes]]
    answers: Counter[bytes]
    """Requests that the model server answered."""
    seconds: float


@dataclass
class Blow:
    """One SIGKILL, or several at once."""

    victim: Victim
    num_killed: int
    in_flight: int
    """Requests that the server worked on at that moment."""
    num_answers: int
    """Answers that it had given by then."""
    wasted_calls: int = 0
    """Answers given before that had to be asked for again after it."""


@dataclass
class Struck:
    """A run, all the blows to it, and what came of it."""

    number: int
    blows: list[Blow] = field(default_factory=list)
    num_calls_of_command: int = 1
    """How often the command was given until the run had come to its end."""
    num_retries: int = 0
    """How often of these with --retry-failed, because the server was away for longer than requests are made again."""
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
        return Undisturbed(recipe, tables_of(run), Counter(server.answers()), seconds)


def start_driver(recipe: Path, run: Path, server: ModelServer, mark: str, *more: str) -> "subprocess.Popen[bytes]":
    """Give the command."""
    words = ["run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}", *more]
    with (run.parent / "errors").open("ab") as errors:
        return subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, MARK: mark}
        )


def strike(number: int, seed: int, whole: Undisturbed, folder: Path) -> Struck:
    """Start a run, strike every victim once in turn, bring the run to its end, compare.

    Args:
        number: Which run it is; with the seed it settles order and moments of the blows. Every other one falls when a
            share of the calls is answered, as most of a small run's time is spent on starting processes.
        seed: Seed of all runs.
        whole: What an undisturbed run gives.
        folder: Empty folder for the run and its server.

    Returns:
        What came of it; blows that the run did not wait for are not among it.
    """
    chance = random.Random(f"{seed} {number}")
    victims = chance.sample(VICTIMS, len(VICTIMS))
    shares = sorted(chance.random() for _ in victims)
    with ModelServer(folder / "server") as server:
        assault = _Assault(whole, folder / "run", server, number)
        try:
            for turn, (victim, share) in enumerate(zip(victims, shares, strict=True)):
                pause = None if (turn + number) % 2 else chance.uniform(0.0, whole.seconds / 3)
                assault.wait(share, pause)
                assault.strike(victim, chance)
            assault.finish()
        finally:
            assault.end()
        return assault.struck


class _Assault:
    """A run while it is being struck."""

    def __init__(self, whole: Undisturbed, run: Path, server: ModelServer, number: int) -> None:
        self._whole, self._run, self._server = whole, run, server
        self._mark = uuid.uuid4().hex
        self.struck = Struck(number)
        self._driver = self._start()

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        return start_driver(self._whole.recipe, self._run, self._server, self._mark, *words)

    def wait(self, share: float, pause: float | None) -> None:
        """Wait for some seconds, or else until a share of the calls is answered; not beyond the end of the driver."""
        due = time.monotonic() + (pause or 0.0)
        while self._goes_on():
            share_done = self._server.num_answers() / self._whole.answers.total()
            if time.monotonic() >= due if pause is not None else share_done >= share:
                return
            time.sleep(0.002)

    def _goes_on(self) -> bool:
        """Whether the run is not at its end; where its driver stopped with a line, the command is given again."""
        code = self._driver.poll()
        if code is None:
            return True
        if code == 0:
            return False
        self._again()
        return True

    def _again(self) -> None:
        """Give the command again, once everything of the last one is gone."""
        self._look_for_orphans()
        self.struck.num_calls_of_command += 1
        said = (self._run.parent / "errors").read_text().splitlines()
        expect(self.struck.num_calls_of_command <= MAX_CALLS_OF_COMMAND, "\n".join(said[-5:]))
        has_failed = bool(said) and "run again with --retry-failed" in said[-1]
        self.struck.num_retries += has_failed
        self._driver = self._start(*["--retry-failed"] * has_failed)

    def strike(self, victim: Victim, chance: random.Random) -> None:
        """Kill, unless the run is at its end."""
        pids = self._pids(victim, chance)
        if not pids:
            return
        blow = Blow(victim, 0, self._server.in_flight(), self._server.num_answers())
        if victim == "server":
            self._server.kill()
            blow.num_killed = 1
            time.sleep(chance.uniform(0.0, 1.5))
            self._server.start()
        for pid in pids if victim != "server" else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                blow.num_killed += 1
        if blow.num_killed:
            self.struck.blows.append(blow)
        if victim == "driver":
            self._driver.wait()
            self._again()

    def _pids(self, victim: Victim, chance: random.Random) -> list[int]:
        """Who is to be killed; where there is no worker at the moment, the first that come."""
        while self._goes_on():
            if victim in ("driver", "server"):
                return [self._driver.pid]
            workers = sorted(pid for pid, line in processes_of(self._mark).items() if is_worker(line))
            if workers:
                return workers if victim == "every worker" else [chance.choice(workers)]
            time.sleep(0.02)
        return []

    def finish(self) -> None:
        """Bring the run to its end and compare it: nothing lost, nothing twice, the same bytes, nothing left."""
        while self._goes_on():
            self._driver.wait(PATIENCE_SECONDS)  # a run that hangs ends here
        self._look_for_orphans()
        self._count_waste()
        found, problems = tables_of(self._run), self.struck.problems
        problems += [str(finding) for finding in fineinstructions.verify(self._run)]
        problems += [f"{name}: other bytes" for name in TABLES if found[name] != self._whole.tables[name]]
        problems += [f"left behind: {path.relative_to(self._run)}" for path in self._run.rglob("tmp-*")]

    def _look_for_orphans(self) -> None:
        deadline = time.monotonic() + 60  # one that was just starting looks for its driver once it has imported
        while (left := processes_of(self._mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.struck.problems += [f"outlived its driver: {line}" for line in left.values()]

    def _count_waste(self) -> None:
        """Lay every answer that was given once too often at the door of the blow that came after the one before it."""
        answers = self._server.answers()
        self.struck.wasted_calls = len(answers) - self._whole.answers.total()
        left = Counter(self._whole.answers)
        last: dict[bytes, int] = {}
        for place, answer in enumerate(answers):
            left[answer] -= 1
            if left[answer] < 0 and answer in last:
                at_fault = [blow for blow in self.struck.blows if last[answer] < blow.num_answers + blow.in_flight]
                if at_fault:
                    at_fault[0].wasted_calls += 1
            last[answer] = place

    def end(self) -> None:
        """Leave nothing running."""
        self._driver.kill()
        self._driver.wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
