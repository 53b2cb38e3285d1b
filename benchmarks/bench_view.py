"""How long the viewer takes to start, and for its pages, on very many pairs; and how much memory it holds.

    python benchmarks/bench_view.py --run RUN --pairs 10000000 --out FOLDER

RUN is a finished run. FOLDER becomes a copy of it whose pairs are RUN's, repeated with other ids, scores and templates
until there are so many, and a tenth as many rejections. Then `fineinstructions view` is started on it, as a user does,
and asked for pages over HTTP. Prints a table of medians, and the peak memory of the viewer after each step.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.records import Pair, Rejection, to_table
from fineinstructions.runs import RunFolder
from fineinstructions.runs.tables import ROW_GROUP_ROWS

REPEATS = 7
BLOCK_ROWS = 1 << 16
BLOCKS_PER_PART = 8
PAGES = {
    "first page": "/pairs",
    "a page in the middle": "/pairs?start={middle}",
    "filtered by source and ratio": "/pairs?source={source}&min_ratio=0.95",
    "worst first": "/pairs?sort=worst",
    "of one template": "/pairs?template={template}",
    "search, found at once": "/pairs?q=what",
    "search, found nowhere (48 row groups)": "/pairs?q=no+such+words",
    "one pair by its place": "/pair?at={middle}",
    "one pair by its id, at the end": "/pair/{last}",
    "the audit's sample": "/pairs?sample=1",
    "rejections of one reason": "/rejections?stage={stage}&reason={reason}",
    "thresholds": "/thresholds?min_score=5&min_ratio=0.9",
}


def blocks(base: pa.Table, number: int) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Rows of a table, all of them again and again until there are so many, in blocks; and their numbers."""
    block = base.take(pa.array(np.arange(min(BLOCK_ROWS, number)) % base.num_rows)).combine_chunks()
    for start in range(0, number, BLOCK_ROWS):
        places = np.arange(start, min(start + BLOCK_ROWS, number))
        yield block.slice(0, len(places)), places


def many_pairs(run: RunFolder, number: int) -> Iterator[pa.Table]:
    """Pairs of a run with ids and figures of their own; most have one of many made-up templates."""
    base = to_table(run.published_records("pairs", Pair), Pair)
    own = pa.array(sorted(set(base.column("template_id").to_pylist())))
    for table, places in blocks(base, number):
        size = len(places)
        rng = np.random.default_rng(int(places[0]))
        rank = (rng.pareto(1.0, size) * 300).astype(np.int64) % 1_000_000
        made_up = pa.array([f"t-{n:016x}" for n in rank])
        changes = {
            "pair_id": pa.array([f"p-{n:016x}" for n in places]),
            "template_id": pa.array(np.where(rank < len(own), own.take(pa.array(rank % len(own))), made_up)),
            "judge_score": pa.array(rng.integers(4, 6, size)),
            "excerpt_ratio": pa.array(0.8 + 0.2 * rng.random(size)),
            "cosine": pa.array(rng.random(size)),
        }
        yield with_columns(table, changes)


def many_rejections(run: RunFolder, number: int) -> Iterator[pa.Table]:
    """Rejections of a run with ids of their own."""
    base = to_table(run.published_records("rejected", Rejection), Rejection)
    for table, places in blocks(base, number):
        yield with_columns(table, {"record_id": pa.array([f"r-{n:016x}" for n in places])})


def with_columns(table: pa.Table, changes: Mapping[str, pa.Array]) -> pa.Table:
    """A table with other columns in place of some."""
    for name, column in changes.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column.cast(table.schema.field(place).type))
    return table


def write_large(source: Path, folder: Path, number: int) -> Path:
    """A copy of a run with so many pairs, and a tenth as many rejections, in parts and row groups like a run's.

    Args:
        source: The run.
        folder: The copy, which is not there yet.
        number: Pairs.
    """
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("pairs", "rejected", "audit", "report"))
    run = RunFolder.open(source)
    for name, tables in (("pairs", many_pairs(run, number)), ("rejected", many_rejections(run, number // 10))):
        (folder / name).mkdir()
        for part, first in enumerate(tables):
            path = folder / name / f"part-{part:05d}.parquet"
            with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
                for table in (first, *islice(tables, BLOCKS_PER_PART - 1)):
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return folder


@contextmanager
def viewer(root: Path) -> Iterator[tuple[str, int, float]]:
    """A viewer of a run as a user starts it: its address, its process, and the seconds until it said so."""
    command = [sys.executable, "-m", "fineinstructions.cli", "view", str(root), "--port", "0"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.match(r"(http://\S+?)/ ", process.stdout.readline() if process.stdout else "")
        if found is None:
            raise SystemExit("the viewer did not start")
        yield found[1], process.pid, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()


def peak_mb(process: int) -> float:
    """The most memory that a process has held so far."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def started(root: Path) -> tuple[float, float]:
    """Milliseconds of a start, and the memory that it took."""
    with viewer(root) as (_, process, seconds):
        return seconds * 1000, peak_mb(process)


def timed(address: str) -> float:
    """Milliseconds of a page."""
    start = time.perf_counter()
    with urllib.request.urlopen(address, timeout=600) as answer:
        assert answer.status == 200
        answer.read()
    return (time.perf_counter() - start) * 1000


def asked_for(root: Path, number: int) -> dict[str, object]:
    """What stands in the addresses of the pages: the most frequent source, template and reason."""
    most: dict[str, object] = {"middle": number // 2, "last": f"p-{number - 1:016x}"}
    for name, table in (("source", "pairs"), ("template_id", "pairs"), ("stage", "rejected"), ("reason", "rejected")):
        counted = pq.ParquetFile(root / table / "part-00000.parquet").read_row_group(0, columns=[name]).column(0)
        most[name.removesuffix("_id")] = max(counted.value_counts().to_pylist(), key=lambda row: row["counts"])[
            "values"
        ]
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    root = given.out if given.out.exists() else write_large(given.run, given.out, given.pairs)
    size = sum(file.stat().st_size for file in (root / "pairs").glob("*.parquet"))
    values = asked_for(root, given.pairs)
    small = sum(file.metadata.num_rows for file in map(pq.ParquetFile, sorted((given.run / "pairs").glob("*.parquet"))))
    load = os.getloadavg()[0]
    print(f"{given.pairs:,} pairs, {size / 1e9:.2f} GB; load {load:.1f} on {os.cpu_count()} processors\n")
    print("| step | ms, first time | ms, median of 7 | peak MB after it |\n| --- | --- | --- | --- |")
    starts = [[started(folder) for folder in (given.run, root)] for _ in range(REPEATS)]  # one after the other
    for of_folder, number in zip(zip(*starts, strict=True), (small, given.pairs), strict=True):
        times, memory = zip(*of_folder, strict=True)
        told = f"{times[0]:,.0f} | {statistics.median(times):,.0f} | {statistics.median(memory):,.0f}"
        print(f"| start on {number:,} pairs, until the address is told | {told} |", flush=True)
    with viewer(root) as (address, process, _):
        for name, path in PAGES.items():
            first = timed(address + path.format(**values))
            again = [timed(address + path.format(**values)) for _ in range(REPEATS)]
            print(f"| {name} | {first:,.0f} | {statistics.median(again):,.0f} | {peak_mb(process):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
