"""Choosing templates for many documents: processor time per document, whatever the bank.

    python benchmarks/bench_sample.py --out benchmarks/results/NAME.md

Candidates are drawn at random: what is measured depends on how many there are and on the size of the bank, not on what
they say. Times are processor times of this process, the best of several rounds, because other work on the machine only
ever adds to them.
"""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fineinstructions.matches.candidates import Candidates, candidate_table, match_table, read_candidates
from fineinstructions.matches.popularity import add_documents, log_damping
from fineinstructions.matches.sample import Popularity, SampleConfig, Sampler, sample

ROUNDS = 9
NUM_VECTORS = 6


@dataclass
class Bank:
    """What sampling reads of a template index."""

    num_slots: Any
    keys: Any
    ids: Any
    vectors: Any = None
    min_cosine: float = 0.5

    def template_ids(self, rows: Any) -> list[str]:
        """Ids of the templates in some rows, as the template index looks them up."""
        ids: list[str] = self.ids.take(pa.array(rows)).to_pylist()
        return ids


def make_candidates(rng: Any, number: int, num_templates: int, per_document: int) -> list[Candidates]:
    """Documents whose vectors find partly the same templates."""
    found = []
    for document in range(number):
        pool = rng.integers(0, num_templates, per_document)
        rows, chunks = [], []
        for chunk in range(-1, NUM_VECTORS - 1):
            mine = np.unique(np.concatenate([rng.choice(pool, per_document // 12), pool[chunk + 1 :: 12]]))
            rows.append(mine)
            chunks.append(np.full(len(mine), chunk))
        joined = np.concatenate(rows)
        count = len(joined)
        cosines, marks = np.round(rng.random(count), 6), np.zeros(count, np.bool_)
        above = np.full(count, count)
        found.append(Candidates(f"document-{document}", joined, np.concatenate(chunks), cosines, above, marks))
    return found


def best_seconds(work: Callable[[], Any]) -> float:
    """Least processor time of several rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=2048)
    parser.add_argument("--templates", type=int, nargs="+", default=[1_000_000, 18_000_000])
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    lines = [
        f"# Choosing templates, {datetime.date.today()}",
        "",
        f"`python benchmarks/bench_sample.py`, {options.documents:,} documents, {os.cpu_count()} processors "
        f"({platform.machine()}), load {os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, "
        f"NumPy {np.__version__}. Microseconds of processor time per document, best of {ROUNDS}.",
        "",
        "| templates | candidates per document | sample | with damping | with a limit | count popularity | "
        "read candidates | to match rows |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for num_templates in options.templates:
        keys = rng.integers(0, 2**64, num_templates, dtype=np.uint64)
        ids = pa.array(np.arange(10**15, 10**15 + num_templates)).cast(pa.string())
        bank = Bank(rng.integers(0, 12, num_templates), keys, ids)
        for per_document in (40, 440):
            items = make_candidates(rng, options.documents, num_templates, per_document)
            lines.append(measured(bank, items))
            print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(bank: Bank, items: list[Candidates]) -> str:
    """One row of the table."""
    tables = [candidate_table(items[start : start + 512]) for start in range(0, len(items), 512)]
    counts = np.zeros(len(bank.keys), np.int64)
    for table in tables:
        add_documents(counts, table)
    damped = SampleConfig(hubness_damping=0.5)
    factors = log_damping(counts, damped)
    limited = SampleConfig(max_sampled_share=0.001)
    works: list[Callable[[], Any]] = []
    for config, known in (
        (SampleConfig(), None),
        (damped, Popularity(factors)),
        (limited, Popularity(None, np.full(len(counts), 0.9))),
    ):
        sampler = Sampler(bank, config, 0, known)
        works.append(lambda sampler=sampler: list(sample(items, sampler)))
    works.append(lambda: [add_documents(counts, table) for table in tables])
    works.append(lambda: [list(read_candidates(table)) for table in tables])
    works.append(lambda: match_table(items, bank))
    times = [f"{best_seconds(work) / len(items) * 1e6:.1f}" for work in works]
    mean = np.mean([len(item.rows) for item in items])
    return f"| {len(bank.keys):,} | {mean:.0f} | {' | '.join(times)} |"


if __name__ == "__main__":
    main()
