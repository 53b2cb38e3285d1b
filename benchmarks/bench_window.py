"""How full the request window of a server is kept, as the server sees it: across unit borders, workers and engines.

    python benchmarks/bench_window.py --out benchmarks/results/NAME.md

A scripted server in a process of its own answers after 100 ms on average, exponentially distributed. Workers ask it as
the stages do, ahead of the row that they wait for, with three work units open, each of 500 requests: a unit of a run
has 250 documents of 4 kB, and several requests for each. All workers have started before, in a phase whose units wait
for each other: what a cluster takes to start them is not the window's loss. The server adds up how many requests are
under way. What is told is the mean between the moments when it has taken a tenth and four fifths of the requests, over
the limit: the window fills before, and the last units end after. Beside it in every round stands a bare semaphore in
one process, without units, cache or retries: what other work on the machine takes from both is not the window's loss.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.backends.llm import ChatClient, ChatRequest, LlmConfig
from fineinstructions.backends.ordered import in_order
from fineinstructions.backends.wire import CHAT, Wire
from fineinstructions.engines.engine import LaunchConfig, open_engine
from fineinstructions.engines.worker import Job
from fineinstructions.progress import SILENT
from fineinstructions.records import Document
from fineinstructions.runs import Phase, RunFolder, Unit, describe_parquet, plan_units

OPEN_UNITS = 3
LOOK_SECONDS = 0.1
START_SECONDS = 900.0
SYSTEM = "Turn the query into an instruction template and describe a compatible document. Reply with JSON. " * 12
"""About as long as our own prompts."""


@dataclass(frozen=True)
class Measured:
    """How one run kept the window."""

    share: float
    """Mean number of requests under way over the limit."""
    most: int
    """Most of them, since the server was started."""
    requests_per_second: float


class Asker:
    """The chat client of a worker."""

    def __init__(self, llm: LlmConfig) -> None:
        self.client, self.llm = ChatClient(llm), llm

    def look_again(self) -> None:
        """Find replies that others have stored; here there is no cache."""
        self.client.look_again()

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def ask(unit: Unit, models: Asker, llm: LlmConfig) -> None:
    """Work of a unit: one question for each of its rows."""

    def start(document: Document) -> Any:
        return models.client.submit(ChatRequest((("system", SYSTEM), ("user", document.text))))

    def replies(documents: Iterator[Document]) -> Iterator[Document]:
        for document, future in in_order(documents, start, ahead=llm.ahead):
            yield Document(document.document_id, future.result().text)

    unit.write(unit.through("ask", unit.keep("read", unit.rows(Document)), replies), Document)


@dataclass(frozen=True)
class Meeting:
    """Where as many units as there are workers wait for each other."""

    folder: Path
    size: int

    def look_again(self) -> None:
        """Nothing to look for."""

    def close(self) -> None:
        """Nothing is open."""


def meeting_itself(meeting: Meeting) -> Meeting:
    """The models of the first phase."""
    return meeting


def meet(unit: Unit, models: Meeting, meeting: Meeting) -> None:
    """Work of the first phase: be there until every worker is; each has one unit open."""
    del models
    (meeting.folder / f"here-{unit.spec.ordinal}").touch()
    deadline = time.monotonic() + START_SECONDS
    while len(list(meeting.folder.glob("here-*"))) < meeting.size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {meeting.size} workers have started")
        time.sleep(LOOK_SECONDS)
    unit.write(unit.keep("read", unit.rows(Document)), Document)


@contextmanager
def scripted_server(latency_seconds: float) -> Iterator[str]:
    """Address of a scripted server in a process of its own."""
    words = ["--port", "0", "--latency-seconds", str(latency_seconds)]
    command = [sys.executable, "-m", "fineinstructions.backends.scripted_server", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def load_of(address: str) -> dict[str, Any]:
    """What the server has under way and has taken so far."""
    with urllib.request.urlopen(address.removesuffix("/v1") + "/load", timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found


async def ask_bare(address: str, texts: list[str], slots: int) -> None:
    """All questions behind one semaphore, over connections like ours."""
    wire, semaphore = Wire(address, "none"), asyncio.Semaphore(slots)

    async def ask_one(text: str) -> None:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        async with semaphore:
            reply = await wire.send(CHAT, {"model": "scripted", "messages": messages})
        assert reply.status == 200

    await asyncio.gather(*map(ask_one, texts))
    await wire.close()


def work_off(address: str, folder: Path, options: argparse.Namespace, kind: str, workers: int, turn: int) -> None:
    """One run: a phase of many small units."""
    names = [f"{kind}-{workers}-{turn}-{n}" for n in range(options.requests)]
    if kind == "bare":
        asyncio.run(ask_bare(address, names, options.slots))
        return
    llm = LlmConfig(base_url=address, model="scripted", max_in_flight=options.slots)
    run = RunFolder.create_or_open(
        folder / "run", {}, [Phase("meet", "1", entry="read"), Phase("ask", "1", entry="read")]
    )
    pq.write_table(pa.table({"document_id": names, "text": names}), folder / "rows.parquet")
    with run.lease(), open_engine(run, LaunchConfig(kind=kind, workers=workers), [], SILENT.note) as engine:
        rows = describe_parquet(folder / "rows.parquet")
        first = plan_units([rows], 1 << 30, -(-options.requests // workers))
        engine.run_units(Job(run, "meet", meet, meeting_itself, Meeting(folder, len(first))), run.todo("meet", first))
        specs = plan_units([rows], 1 << 30, options.rows_per_unit)
        job = Job(run, "ask", ask, Asker, llm, open_units=OPEN_UNITS, asks_servers=True)
        done = engine.run_units(job, run.todo("ask", specs))
    assert done.num_done == len(specs), done


def measure(options: argparse.Namespace, kind: str, workers: int, turn: int) -> Measured:
    """How full the window was in one run."""
    with scripted_server(options.latency_seconds) as address, tempfile.TemporaryDirectory() as folder:
        looks, is_over = [load_of(address)], threading.Event()

        def look() -> None:
            while not is_over.wait(LOOK_SECONDS):
                looks.append(load_of(address))

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            work_off(address, Path(folder), options, kind, workers, turn)
        finally:
            is_over.set()
            watcher.join()
        middle = [seen for seen in looks if 0.1 <= seen["taken"] / options.requests <= 0.8]
        first, last = middle[0], middle[-1]
        seconds = last["seconds"] - first["seconds"]
        mean = (last["slot_seconds"] - first["slot_seconds"]) / seconds
        rate = (last["taken"] - first["taken"]) / seconds
        return Measured(mean / options.slots, looks[-1]["max_in_flight"], rate)


def spread(values: list[float], digits: int = 3) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def places(names: list[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        kind, _, workers = name.partition(":")
        yield kind, int(workers)


def rows(options: argparse.Namespace) -> Iterator[str]:
    bare = ("bare", 1)
    found: dict[tuple[str, int], list[Measured]] = {place: [] for place in [bare, *places(options.places)]}
    for turn in range(options.rounds):  # in turns: other work on the machine comes and goes
        for (kind, workers), measured in found.items():
            measured.append(measure(options, kind, workers, turn))
            print(f"{kind}, {workers} workers: {measured[-1]}", file=sys.stderr, flush=True)
    for (kind, workers), measured in found.items():
        shares = spread([m.share for m in measured])
        ratios = spread([m.share / b.share for m, b in zip(measured, found[bare], strict=True)])
        rates = spread([m.requests_per_second for m in measured], 0)
        yield f"| {kind} | {workers} | {shares} | {ratios} | {max(m.most for m in measured)} | {rates} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--rows-per-unit", type=int, default=500)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--latency-seconds", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--places", nargs="+", default=["local:1", "local:2", "ray:2"], help="engine:workers")
    parser.add_argument("--out", type=Path, help="Markdown file of the result")
    options = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    with contextlib.suppress(KeyError):
        del os.environ["RAY_ADDRESS"]
    lines = [
        "| engine | workers | mean under way over the limit | against bare | most under way | requests per second |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows(options),
    ]
    head = [
        f"# How full the request window is kept, {datetime.date.today()}",
        "",
        f"`python benchmarks/bench_window.py --requests {options.requests} --rows-per-unit {options.rows_per_unit} "
        f"--slots {options.slots} --latency-seconds {options.latency_seconds} --rounds {options.rounds} --places "
        f"{' '.join(options.places)}`, {os.cpu_count()} processors ({platform.machine()}), load {load:.1f} at the "
        f"start, {time.monotonic() - began:.0f} s, Python {platform.python_version()}. Median (least to most) of "
        f"{options.rounds} rounds in turns. As the server sees it, between a tenth and four fifths of the requests; "
        f"{OPEN_UNITS} units open per worker. Without any wait but the server's, {options.slots} slots make "
        f"{options.slots / options.latency_seconds:.0f} requests per second.",
        "",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
