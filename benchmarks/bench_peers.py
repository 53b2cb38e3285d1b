"""This package beside others that ask a language model about every document: speed, cost, and what a kill costs.

    python -m venv PEER && PEER/bin/pip install ...        (a folder outside of the repository for each)
        datatrove:     "datatrove[io,processing]" aiofiles aiosqlite httpx
        distilabel:    "distilabel[openai]" requests
        NeMo Curator:  nemo-curator
    python benchmarks/bench_peers.py --documents D.parquet --peer datatrove=PEER/bin/python --out NAME.md

Every program asks the same scripted server, which runs in a process of its own, the same question about the same
documents: the published instantiation prompt with one template. Ours is `fineinstructions instantiate` with one worker,
which also finds the excerpts of every reply in its document and judges the pair; the others store replies
(`peers/*_client.py`). All have one window of the same size. Each is killed (SIGKILL, all of its processes at once) when
the server has had half of the requests, and started again with the same command: rows that are missing or double in the
output are counted, and calls beyond one for each row of the output. Then they take turns, undisturbed.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import watching
import yaml

from fineinstructions.pairs.instantiate import published_messages

PEERS = Path(__file__).with_name("peers")
OURS = "fineinstructions"
TEMPLATE = "What does this text say about <fi>name of a person, place or thing</fi>?"
CLIENTS = {
    "datatrove": "datatrove_client.py",
    "distilabel": "distilabel_client.py",
    "nemo-curator": "nemo_curator_client.py",
}
LONGEST_SECONDS = 240.0


@dataclass
class Server:
    """The counting server and its figures."""

    address: str
    process: subprocess.Popen[str]

    def figures(self) -> dict[str, float]:
        """What happened since the last question."""
        return self._ask("figures")

    def calls(self) -> int:
        """Requests answered since `figures` was last asked."""
        return int(self._ask("calls")["calls"])

    def _ask(self, word: str) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@contextmanager
def counting_server(latency_seconds: float) -> Iterator[Server]:
    """A scripted server in a process of its own."""
    command = [sys.executable, str(PEERS / "counting_server.py"), str(latency_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().strip(), process)
        finally:
            process.terminate()


def write_rows(documents: Path, number: int, folder: Path) -> tuple[Path, Path]:
    """The same rows for us, as Parquet, and for the others, as JSON lines with the whole message."""
    table = pq.read_table(documents, columns=["id", "text"])
    texts = table["text"].to_pylist()
    rows = [(f"row-{i:05d}", f"{texts[i % len(texts)][:1500]} ({i})") for i in range(number)]
    ours, theirs = folder / "rows.parquet", folder / "rows" / "rows.jsonl"
    theirs.parent.mkdir()
    columns = {"id": [r for r, _ in rows], "document": [t for _, t in rows], "template": [TEMPLATE] * number}
    pq.write_table(pa.table(columns), ours)
    with theirs.open("w", encoding="utf-8") as lines:
        for row_id, text in rows:
            ((_, message),) = published_messages(TEMPLATE, text)
            lines.write(json.dumps({"id": row_id, "user": message}, ensure_ascii=False) + "\n")
    return ours, theirs


def our_command(rows: Path, address: str, window: int, out: Path) -> list[str]:
    """How a user of this package asks."""
    recipe = out.parent / "ours.yaml"
    sections: dict[str, Any] = {
        "llm": {"base_url": address, "model": "scripted", "max_in_flight": window, "structured": "none"},
        "instantiate": {"model": "openai", "prompt": "published"},
        "engine": {"workers": 1},
    }
    recipe.write_text(yaml.safe_dump(sections), encoding="utf-8")
    words = ["instantiate", str(rows), "--out", str(out / "replies.parquet"), "--config", str(recipe)]
    return [*watching.PROGRAM, *words]


def ids_of(out: Path) -> Counter[str]:
    """Ids of the rows of an output that have a reply or a reason, and how often each occurs."""
    found: Counter[str] = Counter()
    for path in sorted(out.rglob("*.parquet")):
        if "replies" in str(path) and ".work" not in str(path) and "cache" not in str(path.relative_to(out)):
            table = pq.read_table(path)
            found.update(table["row_id" if "row_id" in table.column_names else "id"].to_pylist())
    for path in sorted((out / "replies").glob("*.jsonl")):
        found.update(json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines())
    return found


def measure_speed(command: list[str], server: Server, number: int) -> dict[str, float]:
    """One undisturbed run."""
    server.figures()
    cost = watching.run(command, 0, environment=ENVIRONMENT)
    told = server.figures()
    return {
        "seconds": cost.seconds,
        "rate": told["calls"] / told["seconds"],
        "whole_rate": number / cost.seconds,
        "cpu_ms": cost.cpu_seconds / number * 1e3,
        "mean_in_flight": told["mean_in_flight"],
        "calls": told["calls"],
    }


ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip


def measure_kill(command: list[str], server: Server, number: int, out: Path) -> dict[str, Any]:
    """A run that is killed in the middle, and the same command again."""
    server.figures()
    environment = {**os.environ, **ENVIRONMENT}
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while server.calls() < number // 2 and program.poll() is None:
        time.sleep(0.02)
    kill_all(program)
    settle(server)
    before = server.figures()
    again = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        ended = str(again.wait(LONGEST_SECONDS))
    except subprocess.TimeoutExpired:
        ended = f"none in {LONGEST_SECONDS:.0f} s"
        kill_all(again)
    after = server.figures()
    found = ids_of(out)
    return {
        "calls_before": int(before["calls"]),
        "calls_again": int(after["calls"]),
        "wasted": int(before["calls"] + after["calls"]) - len(found),
        "lost": number - len(found),
        "doubled": sum(times - 1 for times in found.values()),
        "ended": ended,
    }


def kill_all(program: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for a program and all of its descendants."""
    for pid in watching.tree(program.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    program.wait()


def settle(server: Server) -> None:
    """Wait until requests of a killed client have been answered into the void."""
    seen = -1
    while (calls := server.calls()) != seen:
        seen = calls
        time.sleep(1.0)


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=", ".join(CLIENTS))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--latency-seconds", type=float, default=0.1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    peers = dict(pair.split("=", 1) for pair in arguments.peer)
    load, named = os.getloadavg()[0], versions(peers)
    speed: dict[str, list[dict[str, float]]] = {name: [] for name in (OURS, *peers)}
    killed: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, counting_server(arguments.latency_seconds) as server:
        folder = Path(name)
        ours, theirs = write_rows(arguments.documents, arguments.rows, folder)

        def command(client: str, out: Path) -> list[str]:
            if client == OURS:
                return our_command(ours, server.address, arguments.window, out)
            script = str(PEERS / CLIENTS[client])
            path = f"PATH={Path(peers[client]).parent}:{os.environ['PATH']}"  # some start programs of their own
            words = [peers[client], script, str(theirs), str(out), server.address, str(arguments.window)]
            return ["/usr/bin/env", path, *words]

        def tell() -> str:
            text = "\n".join(report(speed, killed, named, arguments, load)) + "\n"
            arguments.out.write_text(text, encoding="utf-8")  # after every step: all of them take a while
            return text

        for client in speed:
            with fresh(folder / f"{client}-killed") as out:
                killed[client] = measure_kill(command(client, out), server, arguments.rows, out)
            print(client, killed[client], flush=True)
        for turn in range(arguments.turns):
            for client in list(speed) if turn % 2 else list(reversed(speed)):
                with fresh(folder / f"{client}-{turn}") as out:
                    speed[client].append(measure_speed(command(client, out), server, arguments.rows))
                print(client, speed[client][-1], flush=True)
            tell()
    print(tell())


@contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """An empty folder that vanishes."""
    out.mkdir()
    yield out
    shutil.rmtree(out, ignore_errors=True)


def versions(peers: dict[str, str]) -> dict[str, str]:
    """Installed version of every peer."""
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    said: Callable[[str, str], str] = lambda python, name: subprocess.run(  # noqa: E731
        [python, "-c", code, name], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {name: said(python, name) for name, python in peers.items()}


def report(
    speed: dict[str, list[dict[str, float]]],
    killed: dict[str, dict[str, Any]],
    version: dict[str, str],
    arguments: argparse.Namespace,
    load: float,
) -> Iterator[str]:
    """The result file."""
    named = ", ".join(f"{name} {number}" for name, number in version.items())
    yield f"# Beside others at the same server, {datetime.date.today()}"
    yield ""
    yield (
        f"`python benchmarks/bench_peers.py --documents {arguments.documents.name} --rows {arguments.rows} --window "
        f"{arguments.window} --latency-seconds {arguments.latency_seconds} --turns {arguments.turns}` with {named}; "
        f"{os.cpu_count()} processors ({platform.machine()}), load {load:.1f} at the start, Python "
        f"{platform.python_version()}. Medians (least to most) of {len(speed[OURS])} turns. Replies take "
        f"{arguments.latency_seconds * 1e3:.0f} ms on average (exponential)."
    )
    yield ""
    yield (
        "| program | requests per second, first to last | rows per second, whole program | CPU per row, ms | "
        f"mean in flight of {arguments.window} | calls for {arguments.rows:,} rows |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, turns in speed.items():
        cells = [(key, 1 if key == "cpu_ms" else 0) for key in ("rate", "whole_rate", "cpu_ms", "mean_in_flight")]
        spread = " | ".join(_spread([turn[key] for turn in turns], digits) for key, digits in cells)
        yield f"| {name} | {spread} | {_spread([turn['calls'] for turn in turns], 0)} |"
    yield ""
    yield "Killed with SIGKILL when the server had answered half, and started again with the same command:"
    yield ""
    yield "| program | calls until killed | calls of the second start | wasted | rows lost | rows doubled | exit code |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, found in killed.items():
        keys = ("calls_before", "calls_again", "wasted", "lost", "doubled", "ended")
        yield f"| {name} | " + " | ".join(str(found[key]) for key in keys) + " |"


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
