"""Two workers against one: work units per second, on this machine and, where asked, on a private Ray.

    python benchmarks/bench_workers.py --queries Q.parquet --documents D.parquet --out NAME.md     (5 minutes)

Wants a quiet machine with two processors. Short documents (`short_documents`) go through all phases from a ready bank;
1 worker and 2 take turns. Three figures: the whole command; the phases that are cut into units, from the first unit
that is handed out to the last that is done (what the target is about); and what is left, which one process does alone:
start-up, reading ids, templates and index, and merging.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import watching
import yaml
from short_documents import write_short_documents

SPREAD = ("candidates", "matches", "pairs")
"""Phases that are cut into units."""
WANTED = 1.8

Figures = dict[str, float]


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=Path, required=True, help="Parquet file with queries")
    parser.add_argument("--documents", type=Path, required=True, help="Parquet file with title and text")
    parser.add_argument("--number", type=int, default=30_000, help="number of short documents")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--engine", default="local", choices=("local", "ray"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watching.cache_bytecode(folder / "bytecode")
        documents = write_short_documents(arguments.documents, arguments.number, 0, folder / "short.parquet")
        bank = make_bank(arguments.queries, folder)
        turns = []
        for turn in range(arguments.turns):
            order = (1, 2) if turn % 2 else (2, 1)
            found = {workers: measure(workers, bank, documents, folder, arguments.engine) for workers in order}
            print(turn, found, flush=True)
            turns.append(found)
    text = "\n".join(report(turns, arguments, load)) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


def make_bank(queries: Path, folder: Path) -> Path:
    """A template bank of all queries."""
    recipe = folder / "bank.yaml"
    recipe.write_text(yaml.safe_dump({"queries": {"path": str(queries)}}), encoding="utf-8")
    watching.run([*watching.PROGRAM, "templates", "build", str(recipe), "--out", str(folder / "bank")], 0)
    return folder / "bank"


def measure(workers: int, bank: Path, documents: Path, folder: Path, engine: str) -> Figures:
    """One run: seconds of the whole, seconds and units of the phases that are cut into units, processor time."""
    recipe, out = folder / f"{workers}.yaml", folder / "run"
    sections = {
        "templates": {"bank": str(bank)},
        "documents": {"path": str(documents)},
        "engine": {"kind": engine, "workers": workers},
    }
    recipe.write_text(yaml.safe_dump(sections), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    cost = watching.run([*watching.PROGRAM, "run", str(recipe), "--out", str(out)], 0)
    units, seconds = 0, 0.0
    events = [json.loads(line) for line in (out / "logs" / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    for phase in SPREAD:
        done = [event for event in events if event["phase"] == phase and event["event"] == "unit"]
        first = min(event["time"] - event["seconds"] for event in done)
        units += len(done)
        seconds += max(event["time"] for event in done) - first
    return {
        "seconds": cost.seconds,
        "unit_seconds": seconds,
        "rate": units / seconds,
        "alone_seconds": cost.seconds - seconds,
        "cpu_seconds": cost.cpu_seconds,
    }


def report(turns: list[dict[int, Figures]], arguments: argparse.Namespace, load: float) -> Iterator[str]:
    """The result file."""
    yield f"# Two workers against one, {datetime.date.today()}"
    yield ""
    yield (
        f"`python benchmarks/bench_workers.py --queries {arguments.queries.name} --documents {arguments.documents.name}"
        f" --number {arguments.number} --turns {arguments.turns} --engine {arguments.engine}`; {os.cpu_count()} "
        f"processors ({platform.machine()}), load {load:.1f} at the start, Python {platform.python_version()}. Medians "
        f"(least to most) of {arguments.turns} turns."
    )
    yield ""
    yield "| figure | 1 worker | 2 workers | ratio |"
    yield "| --- | --- | --- | --- |"
    for label, key, invert in FIGURES:
        one, two = ([turn[workers][key] for turn in turns] for workers in (1, 2))
        ratios = [a / b if invert else b / a for a, b in zip(one, two, strict=True)]
        yield f"| {label} | {_spread(one)} | {_spread(two)} | {_spread(ratios)} |"
    yield ""
    yield f"Wanted: units per second at least {WANTED} times."


FIGURES = (
    ("units per second, phases that are cut into units", "rate", False),
    ("seconds of those phases (1 over 2)", "unit_seconds", True),
    ("seconds of the rest (1 over 2)", "alone_seconds", True),
    ("seconds of the whole command (1 over 2)", "seconds", True),
    ("CPU seconds of all processes (2 over 1)", "cpu_seconds", False),
)
"""What is told, and whether the ratio is that of 1 worker over 2."""


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
