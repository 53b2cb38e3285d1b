"""What SIGKILL costs: small runs with a model server are struck again and again, and must end as if nothing had been.

    python benchmarks/bench_faults.py --work FOLDER --out benchmarks/results/NAME.md

Four victims: the driver, one worker, every worker, the model server. Each of them dies once in every run, in an order
and at moments that the seed settles, until each has had as many blows as `--blows` says. The driver's command is given
again when it ends, and the server is started again after a moment. Then nothing may be lost, doubled or left running,
and every published byte has to be that of an undisturbed run. Wasted calls are answers of the server beyond those that
an undisturbed run takes. What was measured is kept in FOLDER, so that the command can be stopped and given again.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from strikes import LATENCY_SECONDS, VICTIMS, WINDOW, WORKERS, Blow, Struck, Undisturbed, strike, undisturbed

MOST_AT_RISK = {"driver": WINDOW, "worker": WINDOW, "every worker": WINDOW, "server": 0}
"""Requests that a victim can have under way; what a dying server was working on was no answer yet."""


def struck_runs(work: Path, num_blows: int, seed: int, whole: Undisturbed) -> list[Struck]:
    """All runs: those that were kept, and more until every victim has had its blows."""
    book = work / "runs.jsonl"
    lines = book.read_text().splitlines() if book.exists() else []
    kept = [Struck(**{**plain, "blows": [Blow(**blow) for blow in plain["blows"]]}) for plain in map(json.loads, lines)]
    while min(count(kept).values()) < num_blows:
        folder = work / f"run-{len(kept)}"
        shutil.rmtree(folder, ignore_errors=True)
        struck = strike(len(kept), seed, whole, folder)
        with book.open("a") as file:
            file.write(json.dumps(asdict(struck)) + "\n")
        kept.append(struck)
        print(struck, flush=True)
        if not struck.problems:
            shutil.rmtree(folder)
    return kept


def count(runs: list[Struck]) -> dict[str, int]:
    """Blows so far, by victim."""
    return {victim: sum(blow.victim == victim for run in runs for blow in run.blows) for victim in VICTIMS}


def report(runs: list[Struck], whole: Undisturbed, seed: int) -> str:
    """The result as Markdown."""
    calls, blows = whole.answers.total(), [blow for run in runs for blow in run.blows]
    wasted = sum(run.wasted_calls for run in runs)
    lines = [
        f"# Blows of SIGKILL, {datetime.date.today()}",
        "",
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}; `bench_faults.py` with"
        f" seed {seed}. A run: {WORKERS} workers, three stages that ask a scripted server (mean latency"
        f" {LATENCY_SECONDS:g} s, at most {WINDOW} requests under way), {calls} calls when undisturbed.",
        "",
        f"{len(runs)} runs were struck {len(blows)} times. Runs with anything lost, doubled, other than undisturbed or"
        f" left running: {sum(bool(run.problems) for run in runs)}. The command was given"
        f" {sum(run.num_calls_of_command - 1 for run in runs)} times again,"
        f" {sum(run.num_retries for run in runs)} of these with --retry-failed. Wasted calls: {wasted} beside"
        f" {calls * len(runs)} needed, {wasted / len(blows):.1f} a blow.",
        "",
        "| victim | blows | with calls under way | wasted calls, sum | mean | most | a victim can have under way |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for victim in VICTIMS:
        mine = [blow for blow in blows if blow.victim == victim]
        costs = [blow.wasted_calls for blow in mine]
        busy = sum(blow.in_flight > 0 for blow in mine)
        lines.append(
            f"| {victim} | {len(mine)} | {busy} | {sum(costs)} | {statistics.mean(costs):.1f} | {max(costs)}"
            f" | {MOST_AT_RISK[victim]} |"
        )
    problems = [f"- run {run.number}: {problem}" for run in runs for problem in run.problems]
    return "\n".join([*lines, "", *problems])


def main() -> None:
    """Strike, and print the table."""
    parser = argparse.ArgumentParser(description="What SIGKILL costs.")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and for what was measured")
    parser.add_argument("--blows", type=int, default=25, help="for every victim")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args()
    shutil.rmtree(options.work / "whole", ignore_errors=True)
    whole = undisturbed(options.work / "whole")
    text = report(struck_runs(options.work, options.blows, options.seed, whole), whole, options.seed)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
