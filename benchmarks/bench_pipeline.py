"""The main job on real input: time, memory, yield; and how both grow with five times the documents.

    python benchmarks/bench_pipeline.py --queries Q.parquet --documents D.parquet --out benchmarks/results/NAME.md

Every figure comes from a real run of the command line in a process of its own. Memory is the largest sum of the
proportional set sizes (PSS) of the run's processes, sampled five times a second. Growth is measured from a ready
template bank, so that the bank's cost, which does not depend on the documents, cannot flatter it; the two sizes take
turns and the medians are compared.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

COPIES = 5
CODE = "from fineinstructions.cli import main; main()"


@dataclass(frozen=True)
class Cost:
    """What one run of the program took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measured(*words: str) -> Cost:
    """Run the program to its end and watch its processes."""
    before = os.times()
    began = time.monotonic()
    program = subprocess.Popen([sys.executable, "-c", CODE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while program.poll() is None:
        peak = max(peak, sum(pss(pid) for pid in tree(program.pid)))
        time.sleep(0.2)
    if program.returncode:
        error = program.stderr.read().decode() if program.stderr else ""
        raise SystemExit(f"fineinstructions {' '.join(words)} ended with {program.returncode}: {error}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.monotonic() - began, cpu, peak)


def tree(pid: int) -> list[int]:
    """A process and all of its descendants."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += tree(int(child))
    return found


def pss(pid: int) -> int:
    """Proportional set size of a process in bytes, 0 once it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def copies(documents: Path, number: int, path: Path) -> Path:
    """The documents several times over, every copy with ids of its own, in row groups as large as the original's."""
    table = pq.read_table(documents)
    place = table.schema.get_field_index("id")
    parts = [
        table.set_column(place, "id", pc.binary_join_element_wise(table["id"], str(copy), "-"))
        for copy in range(number)
    ]
    rows = pq.read_metadata(documents).row_group(0).num_rows
    pq.write_table(pa.concat_tables(parts), path, compression="zstd", row_group_size=rows)
    return path


def recipe(path: Path, workers: int, **sections: Any) -> str:
    """A recipe file; its path."""
    path.write_text(yaml.safe_dump({**sections, "engine": {"workers": workers}}), encoding="utf-8")
    return str(path)


def yields(run: Path) -> dict[str, Any]:
    """How many pairs were kept, and how they are spread."""
    pairs = [row for part in sorted((run / "pairs").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    domains = Counter(json.loads(pair["metadata"]).get("domain", pair["source"]) for pair in pairs)
    templates = Counter(pair["template_id"] for pair in pairs)
    return {
        "pairs kept": len(pairs),
        "documents with a pair": len({pair["document_id"] for pair in pairs}),
        "domains": ", ".join(f"{name} {n} ({n / len(pairs):.0%})" for name, n in domains.most_common()),
        "templates used": len(templates),
        "largest template share": f"{templates.most_common(1)[0][1] / len(pairs):.1%}",
        "median answer, words": statistics.median(len(pair["answer"].split()) for pair in pairs),
    }


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    workers = arguments.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queries, documents = {"path": str(arguments.queries)}, {"path": str(arguments.documents)}
        whole = recipe(folder / "whole.yaml", workers, queries=queries, documents=documents)
        cost = measured("run", whole, "--out", str(folder / "whole"))
        measured("verify", str(folder / "whole"))
        facts: dict[str, Any] = {
            "seconds, all of the job": f"{cost.seconds:.0f}",
            "CPU seconds": f"{cost.cpu_seconds:.0f}",
            "peak memory, MB": f"{cost.peak_bytes / 1e6:.0f}",
            **yields(folder / "whole"),
            "verify": "clean",
        }
        bank = {"bank": str(folder / "whole")}
        many = copies(arguments.documents, COPIES, folder / "many.parquet")
        once = recipe(folder / "once.yaml", workers, templates=bank, documents=documents)
        times5 = recipe(folder / "times5.yaml", workers, templates=bank, documents={"path": str(many)})
        small, large = [], []
        for repeat in range(arguments.repeats):
            small.append(measured("run", once, "--out", str(folder / f"once-{repeat}")))
            large.append(measured("run", times5, "--out", str(folder / f"times5-{repeat}")))
    ratios = {
        "wall time": [b.seconds / a.seconds for a, b in zip(small, large, strict=True)],
        "CPU time": [b.cpu_seconds / a.cpu_seconds for a, b in zip(small, large, strict=True)],
        "peak memory": [b.peak_bytes / a.peak_bytes for a, b in zip(small, large, strict=True)],
    }
    report = [
        f"# Main job, {datetime.date.today()}",
        "",
        f"{platform.machine()}, {workers} workers, Python {platform.python_version()}; "
        f"`bench_pipeline.py` on {pq.read_metadata(arguments.documents).num_rows:,} documents and "
        f"{pq.read_metadata(arguments.queries).num_rows:,} queries.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {figure} | {value} |" for figure, value in facts.items()),
        "",
        f"Documents x{COPIES} over documents x1, from a ready bank, {arguments.repeats} turns:",
        "",
        "| ratio | median | least | most |",
        "| --- | --- | --- | --- |",
        *(f"| {figure} | {statistics.median(r):.2f} | {min(r):.2f} | {max(r):.2f} |" for figure, r in ratios.items()),
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(report) + "\n", encoding="utf-8")
    print("\n".join(report))


if __name__ == "__main__":
    main()
