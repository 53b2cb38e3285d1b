"""Ten times the documents in one run: does memory stay flat, and does time grow with the documents?

    python benchmarks/bench_million.py --documents D.parquet --queries Q.parquet --folder SCRATCH --out NAME.md

Short documents are recombined from real paragraphs (`short_documents`), the templates come from a bank that is made
once. Each size is a run of the command line in a process of its own, followed by `status` and `verify`. The small size
runs before and after the large one, because other work on the machine slows both. Every figure of a finished run is
kept in the scratch folder, and a second call goes on behind it.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import watching
import yaml
from short_documents import write_short_documents

from fineinstructions.runs import RunFolder

RUNS = ("first", "large", "again")
MEGABYTE = 1e6


def main() -> None:
    """Run the sizes and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="Parquet file with title and text")
    parser.add_argument("--queries", type=Path, required=True, help="Parquet file with queries")
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="scratch: inputs, run folders, figures")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    bank = make_bank(arguments.queries, arguments.folder)
    figures = {}
    for name in RUNS:
        kept = arguments.folder / f"{name}.json"
        if not kept.exists():
            number = arguments.large if name == "large" else arguments.small
            found = measure(name, number, bank, arguments)
            kept.write_text(json.dumps(found), encoding="utf-8")
        figures[name] = json.loads(kept.read_text(encoding="utf-8"))
        print(name, {k: v for k, v in figures[name].items() if not isinstance(v, list | dict)}, flush=True)
    text = report(figures, arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


def make_bank(queries: Path, folder: Path) -> Path:
    """A template bank of all queries."""
    recipe = folder / "bank.yaml"
    recipe.write_text(yaml.safe_dump({"queries": {"path": str(queries)}}), encoding="utf-8")
    watching.run([*watching.PROGRAM, "templates", "build", str(recipe), "--out", str(folder / "bank")])
    return folder / "bank"


def measure(name: str, number: int, bank: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cost of a run over so many documents, of looking at it, and of checking it."""
    folder = arguments.folder
    documents = write_short_documents(arguments.documents, number, arguments.seed, folder / f"short-{number}.parquet")
    recipe, out = folder / f"{name}.yaml", folder / f"run-{name}"
    sections = {"templates": {"bank": str(bank)}, "documents": {"path": str(documents)}}
    recipe.write_text(yaml.safe_dump({**sections, "engine": {"workers": arguments.workers}}), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    began, load = time.time(), os.getloadavg()[0]
    cost = watching.run([*watching.PROGRAM, "run", str(recipe), "--out", str(out)], every_seconds=1.0)
    status = watching.run([*watching.PROGRAM, "status", str(out)])
    verify = watching.run([*watching.PROGRAM, "verify", str(out)])
    facts = {
        "documents": number,
        "load": load,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_anonymous": cost.peak_anonymous,
        "peak_pss": cost.peak_pss,
        "peak_driver": max(sample.driver for sample in cost.samples),
        "status_seconds": status.seconds,
        "status_peak": status.peak_anonymous,
        "verify_cpu_seconds": verify.cpu_seconds,
        "verify_peak": verify.peak_anonymous,
        "units": len(RunFolder.open(out).planned("pairs") or ()),
        **{table: sum(pq.read_metadata(part).num_rows for part in (out / table).glob("*.parquet"))
           for table in ("matches", "pairs", "rejected")},
        "phases": phases(out, cost, began),
        "memory": [(round(s.seconds), s.anonymous, s.driver) for s in cost.samples],
    }  # fmt: skip
    shutil.rmtree(out)
    return facts


def phases(out: Path, cost: watching.Cost, began: float) -> dict[str, dict[str, float]]:
    """Wall time and largest anonymous memory of every phase: the tree's and the driver's."""
    events = [json.loads(line) for line in (out / "logs" / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    starts = [(event["phase"], event["time"] - began) for event in events if event["event"] == "start"]
    starts = [("input", 0.0), *starts, ("end", cost.seconds)]
    found = {}
    for (phase, start), (_, stop) in itertools.pairwise(starts):
        inside = [sample for sample in cost.samples if start <= sample.seconds <= stop]
        found[phase] = {
            "seconds": stop - start,
            "peak": max((sample.anonymous for sample in inside), default=0),
            "driver": max((sample.driver for sample in inside), default=0),
        }
    return found


def report(figures: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The result file."""
    first, large, again = (figures[name] for name in RUNS)
    factor = large["documents"] / first["documents"]
    small_cpu = (first["cpu_seconds"] + again["cpu_seconds"]) / 2
    small_wall = (first["seconds"] + again["seconds"]) / 2
    small_peak = max(first["peak_anonymous"], again["peak_anonymous"])
    lines = [
        f"# {large['documents']:,} short documents in one run, {datetime.date.today()}",
        "",
        f"`python benchmarks/bench_million.py --documents {arguments.documents.name} --queries {arguments.queries.name}"
        f" --small {arguments.small} --large {arguments.large} --workers {arguments.workers} --seed {arguments.seed}`; "
        f"{os.cpu_count()} processors ({platform.machine()}), load {first['load']:.1f}, {large['load']:.1f} and "
        f"{again['load']:.1f} before the runs, Python {platform.python_version()}.",
        "",
        "| figure | " + " | ".join(f"{f['documents']:,}" for f in (first, large, again)) + " |",
        "| --- | --- | --- | --- |",
        *(
            f"| {label} | " + " | ".join(form(figures[name][key]) for name in RUNS) + " |"
            for label, key, form in FIGURES
        ),
        "",
        "| large against small, per document | measured | wanted |",
        "| --- | --- | --- |",
        f"| CPU time | {large['cpu_seconds'] / small_cpu / factor:.3f} | 0.90 to 1.10 |",
        f"| wall time | {large['seconds'] / small_wall / factor:.3f} | 0.90 to 1.10 |",
        f"| peak memory, not per document | {large['peak_anonymous'] / small_peak:.3f} | at most 1.10 |",
        "",
        "Wall seconds, largest memory and the driver's part of it in each phase (MB):",
        "",
        "| phase | " + " | ".join(f"{f['documents']:,}" for f in (first, large)) + " |",
        "| --- | --- | --- |",
        *(f"| {phase} | {_phase(first['phases'].get(phase))} | {_phase(found)} |"
          for phase, found in large["phases"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _phase(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['seconds']:.1f} s, {found['peak'] / MEGABYTE:.0f}, {found['driver'] / MEGABYTE:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _megabytes(value: float) -> str:
    return f"{value / MEGABYTE:.0f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


FIGURES = (
    ("wall seconds", "seconds", _seconds),
    ("CPU seconds of all processes", "cpu_seconds", _seconds),
    ("peak memory of the tree, anonymous, MB", "peak_anonymous", _megabytes),
    ("peak memory of the tree, PSS, MB", "peak_pss", _megabytes),
    ("peak of the driver alone, MB", "peak_driver", _megabytes),
    ("work units a phase", "units", _count),
    ("matches", "matches", _count),
    ("pairs", "pairs", _count),
    ("rejections", "rejected", _count),
    ("`status`, wall seconds", "status_seconds", _seconds),
    ("`status`, peak MB", "status_peak", _megabytes),
    ("`verify`, CPU seconds", "verify_cpu_seconds", _seconds),
    ("`verify`, peak MB", "verify_peak", _megabytes),
)


if __name__ == "__main__":
    main()
