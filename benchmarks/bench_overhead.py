"""What a run costs beside its stages: processor time of the whole run over that of the bare stage functions.

    python benchmarks/bench_overhead.py --queries Q.parquet --documents D.parquet --out NAME.md

The run is started as a user starts it; its figure is the processor time of all of its processes, starting Python and
importing modules included. The stages are `bare_stages.py`: the same functions in one process, whose start-up is left
out. Both take turns, and both must keep the same pairs. As many bare processes run at once as the run has workers, each
of which does everything, and the mean counts: what busy processors take from each other (caches, memory) is then in
both figures. Two tiers: the embedded one, and language models at a scripted
server, which has a process of its own that is not counted. Short documents (`short_documents`) come in two numbers:
what grows from the smaller to the larger is the overhead at scale, the rest is start-up. They are so short that little
is done to each; the given documents as they are stand beside them.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import watching
import yaml
from short_documents import write_short_documents

BARE = Path(__file__).with_name("bare_stages.py")
TIERS = ("embedded", "language models")
WANTED = 1.15
AS_THEY_ARE = 0
"""Stands for the given documents in the place of a number of short ones."""

WARM_UP, WARM_UP_DOCUMENTS = -1, 40
"""The turn that does not count, and its short documents."""

Found = dict[tuple[str, int], list[tuple[float, float]]]
"""Processor time of the run and of the bare stages, turn by turn, by tier and number of documents."""


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=Path, required=True, help="Parquet file with queries")
    parser.add_argument("--documents", type=Path, required=True, help="Parquet file with title and text")
    parser.add_argument("--embedded", type=int, nargs=2, default=(5_000, 20_000), help="numbers of short documents")
    parser.add_argument("--asked", type=int, nargs=2, default=(250, 1_000), help="the same for language models")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--as-they-are-only", action="store_true", help="no short documents")
    only.add_argument("--asked-only", action="store_true", help="language models only")
    parser.add_argument("--asked-queries", type=int, default=500, help="queries for language models")
    parser.add_argument("--latency-seconds", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as name,
        watching.scripted_server(arguments.latency_seconds) as address,
    ):
        folder = Path(name)
        watching.cache_bytecode(folder / "bytecode")
        sizes = sizes_of(arguments)
        for tier in dict.fromkeys(tier for tier, _ in sizes):  # compiles modules, as an installation has done before
            turn_of(tier, WARM_UP_DOCUMENTS, address, folder, arguments, WARM_UP)
        found: Found = {size: [] for size in sizes}
        for turn in range(arguments.turns):
            for tier, number in sizes:
                found[tier, number].append(turn_of(tier, number, address, folder, arguments, turn))
            text = "\n".join(report(found, arguments, load)) + "\n"
            arguments.out.write_text(text, encoding="utf-8")  # after every turn: all of them take a while
    print(text)


def numbers_of(arguments: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Numbers of short documents of each tier that is measured with them, the smaller one first."""
    numbers = {TIERS[0]: tuple(arguments.embedded), TIERS[1]: tuple(arguments.asked)}
    if arguments.as_they_are_only:
        return {}
    return {tier: numbers[tier] for tier in (TIERS[1:] if arguments.asked_only else TIERS)}


def sizes_of(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """What is measured: tiers with numbers of documents."""
    short = [(tier, number) for tier, numbers in numbers_of(arguments).items() for number in numbers]
    return short if arguments.asked_only else [*short, (TIERS[0], AS_THEY_ARE)]


def recipe(tier: str, number: int, address: str, folder: Path, arguments: argparse.Namespace) -> Path:
    """A recipe file over so many short documents."""
    documents = arguments.documents if number == AS_THEY_ARE else folder / f"short-{number}.parquet"
    if not documents.exists():
        write_short_documents(arguments.documents, number, 0, documents)
    sections: dict[str, Any] = {
        "queries": {"path": str(arguments.queries)},
        "documents": {"path": str(documents)},
        "engine": {"workers": arguments.workers},
    }
    if tier != TIERS[0]:
        sections["queries"]["limit"] = arguments.asked_queries
        sections["llm"] = {"base_url": address, "model": "scripted"}
        sections |= {stage: {"model": "openai"} for stage in ("genericize", "instantiate", "judge")}
    path = folder / f"{tier}-{number}.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def turn_of(
    tier: str, number: int, address: str, folder: Path, arguments: argparse.Namespace, turn: int
) -> tuple[float, float]:
    """Processor time of one run and of the bare stages, which go first every other time."""
    path = recipe(tier, number, address, folder, arguments)
    out, kept = folder / f"run-{tier}-{number}-{turn}", folder / "bare.parquet"
    costs = {}
    for kind in ("run", "bare") if turn % 2 else ("bare", "run"):
        if kind == "run":
            costs[kind] = watching.run([*watching.PROGRAM, "run", str(path), "--out", str(out)], 0).cpu_seconds
        else:
            costs[kind] = bare_cpu_seconds(path, kept, arguments.workers)
    made = pq.read_table(sorted((out / "pairs").glob("*.parquet"))).combine_chunks()
    if not made.equals(pq.read_table(kept).combine_chunks()):
        raise SystemExit(f"{path}: the run and the bare stages kept other pairs")
    if not len(made) and turn != WARM_UP:
        raise SystemExit(f"{path}: no pairs, so nothing is compared; give more documents or queries")
    print(tier, number, turn, {kind: round(cost, 2) for kind, cost in costs.items()}, len(made), flush=True)
    return costs["run"], costs["bare"]


def bare_cpu_seconds(path: Path, kept: Path, at_once: int) -> float:
    """Mean processor time of the bare stages of a recipe, in so many processes at once."""
    command = [sys.executable, str(BARE), str(path)]
    outs = [kept.with_suffix(f".{number}") for number in range(at_once - 1)]
    others = [subprocess.Popen([*command, str(out)], stdout=subprocess.PIPE, text=True) for out in outs]
    said = [subprocess.run([*command, str(kept)], check=True, stdout=subprocess.PIPE, text=True).stdout]
    said += [process.communicate()[0] for process in others]
    if any(process.returncode for process in others):
        raise SystemExit(f"{path}: the bare stages failed")
    return statistics.fmean(float(json.loads(text.splitlines()[-1])["cpu_seconds"]) for text in said)


def report(found: Found, arguments: argparse.Namespace, load: float) -> Iterator[str]:
    """The result file."""
    only = " --as-they-are-only" if arguments.as_they_are_only else " --asked-only" if arguments.asked_only else ""
    yield f"# Overhead of a run over its bare stages, {datetime.date.today()}"
    yield ""
    yield (
        f"`python benchmarks/bench_overhead.py --queries {arguments.queries.name} --documents "
        f"{arguments.documents.name} --embedded {arguments.embedded[0]} {arguments.embedded[1]} --asked "
        f"{arguments.asked[0]} {arguments.asked[1]} --asked-queries {arguments.asked_queries} --workers "
        f"{arguments.workers} --turns {arguments.turns}{only}`; {os.cpu_count()} processors ({platform.machine()}), "
        f"load {load:.1f} at the start, Python {platform.python_version()}. Medians (least to most) of "
        f"{len(next(iter(found.values())))} turns; every turn kept the same pairs both ways."
    )
    yield ""
    yield "| tier | documents | CPU seconds, run | CPU seconds, bare stages | ratio |"
    yield "| --- | --- | --- | --- | --- |"
    for (tier, number), turns in found.items():
        ratios = [run / bare for run, bare in turns]
        seconds = " | ".join(_spread([turn[side] for turn in turns], 1) for side in (0, 1))
        what = "as they are" if number == AS_THEY_ARE else f"{number:,} short"
        yield f"| {tier} | {what} | {seconds} | {_spread(ratios, 2)} |"
    if arguments.as_they_are_only:
        yield from ("", f"Wanted: at most {WANTED}.")
        return
    yield ""
    yield "| tier | ratio of what more documents cost | how many more | start-up, CPU seconds |"
    yield "| --- | --- | --- | --- |"
    for tier, (fewer, more) in numbers_of(arguments).items():
        slopes = [
            (lr - sr) / (lb - sb) for (sr, sb), (lr, lb) in zip(found[tier, fewer], found[tier, more], strict=True)
        ]
        starts = [sr - slope * sb for (sr, sb), slope in zip(found[tier, fewer], slopes, strict=True)]
        yield f"| {tier} | {_spread(slopes, 2)} | {more - fewer:,} | {_spread(starts, 1)} |"
    yield ""
    yield (
        f"Wanted: at most {WANTED}. Start-up is what the run would cost over stages that cost nothing: Python and "
        "modules of the driver and of every worker, models once per worker instead of once, publishing of templates."
    )


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
