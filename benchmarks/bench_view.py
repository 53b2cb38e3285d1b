"""How long a page of the viewer takes on very many pairs: a synthetic run of the size that is asked for.

    python benchmarks/bench_view.py --pairs 10000000 --out FOLDER

Writes pairs and rejections by copying a thousand made ones with other ids and scores, then asks for pages as a browser
does, over HTTP in one process. Prints a table of medians, and the peak memory of the process.
"""

import argparse
import dataclasses
import json
import resource
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from small_run import some_texts, write_run

from fineinstructions.records import Pair, Rejection, Template, to_table
from fineinstructions.review.viewer.app import make_app, open_shop
from fineinstructions.review.viewer.guard import Access
from fineinstructions.review.viewer.serve import bound, serve
from fineinstructions.runs import RunFolder
from fineinstructions.runs.tables import tables_of
from fineinstructions.windows import reader_of

GROUP_ROWS = 1024
REPEATS = 7
PAGES = {
    "first page": "/pairs",
    "a page in the middle": "/pairs?start={middle}",
    "filtered by source and ratio": "/pairs?source=source+1&min_ratio=0.95",
    "worst first": "/pairs?sort=worst",
    "of one template": "/pairs?template=t-3",
    "search, found at once": "/pairs?q=pair+1+of",
    "search, found nowhere (48 row groups)": "/pairs?q=no+such+words",
    "one pair by its place": "/pair?at={middle}",
    "one pair by its id, at the end": "/pair/{last}",
    "rejections of one reason": "/rejections?stage=select&reason=low_score",
    "thresholds": "/thresholds?min_score=5&min_ratio=0.9",
}


def many_pairs(run: RunFolder, number: int) -> Iterator[pa.Table]:
    """Copies of the run's pairs with ids and figures of their own, in row groups."""
    base = to_table(run.published_records("pairs", Pair), Pair)
    for start in range(0, number, GROUP_ROWS):
        size = min(GROUP_ROWS, number - start)
        rng = np.random.default_rng(start)
        table = base.take(pa.array(np.arange(start, start + size) * base.num_rows // number))
        changes = {
            "pair_id": pa.array([f"p-{n:016x}" for n in range(start, start + size)]),
            "template_id": pa.array([f"t-{n}" for n in (rng.pareto(1.0, size) * 3).astype(np.int64) % 1_000_000]),
            "judge_score": pa.array(rng.integers(4, 6, size)),
            "excerpt_ratio": pa.array(0.8 + 0.2 * rng.random(size)),
            "cosine": pa.array(rng.random(size)),
        }
        for name, column in changes.items():
            table = table.set_column(table.schema.get_field_index(name), base.schema.field(name), column)
        yield table


def write_large(folder: Path, number: int) -> Path:
    """A run folder with so many pairs, and as many rejections."""
    folder.mkdir(parents=True)
    root = write_run(folder, some_texts(1000), pairs_of=lambda n: 1 + n % 2)
    run = RunFolder.open(root)
    low = Rejection("select", "low_score", "p-x", 3.0, json.dumps({"instruction": "What is it?", "answer": "a"}))
    with run.lease():
        rejected = (dataclasses.replace(low, record_id=f"p-{n}", value=float(1 + n % 3)) for n in range(number // 10))
        run.publish("rejected", Rejection, tables_of(rejected, Rejection), phase="assemble")
        bank = (Template(f"t-{n}", f"What is <fi>a thing</fi> {n}?", "A page.", 1, ("q1",)) for n in range(1000))
        run.publish("templates", Template, tables_of(bank, Template), phase="assemble")
    made = next(many_pairs(run, number)).schema
    part = root / "pairs" / "part-00000.parquet"
    writer = pq.ParquetWriter(part.with_suffix(".new"), made, compression="zstd")
    for table in many_pairs(run, number):
        writer.write_table(table, row_group_size=GROUP_ROWS)
    writer.close()
    for old in (root / "pairs").glob("*.parquet"):
        old.unlink()
    part.with_suffix(".new").rename(part)
    return root


def timed(address: str) -> float:
    """Milliseconds of a page."""
    start = time.perf_counter()
    with urllib.request.urlopen(address, timeout=600) as answer:
        assert answer.status == 200
        answer.read()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    root = given.out / "run" if given.out.exists() else write_large(given.out, given.pairs)
    run = RunFolder.open(root)
    begun = time.perf_counter()
    shop = open_shop(run, reader_of(root), [])
    shop.pairs.warm()
    shop.rejections.warm()
    opened = time.perf_counter() - begun
    listening: socket.socket = bound("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    threading.Thread(target=serve, args=(make_app(shop, Access("127.0.0.1")), listening), daemon=True).start()
    size = sum(file.stat().st_size for file in (root / "pairs").glob("*.parquet"))
    print(f"{len(shop.pairs.rows):,} pairs, {size / 1e9:.2f} GB; ready after {opened:.1f} s\n")
    print("| page | ms, first time | ms, median of 7 |\n| --- | --- | --- |")
    values = {"middle": len(shop.pairs.rows) // 2, "last": f"p-{len(shop.pairs.rows) - 1:016x}"}
    for name, path in PAGES.items():
        first = timed(address + path.format(**values))
        again = [timed(address + path.format(**values)) for _ in range(REPEATS)]
        print(f"| {name} | {first:,.0f} | {statistics.median(again):,.0f} |", flush=True)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
