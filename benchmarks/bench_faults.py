"""What SIGKILL costs: a small run with a model server is struck again and again, and has to end as if nothing had been.

    python benchmarks/bench_faults.py --work FOLDER --out benchmarks/results/NAME.md

Four victims (the driver, one worker, every worker, the model server), each struck as often as `--blows` says, at seeded
moments: half of them a share of the run's time, half a share of its calls. After each blow the same command is given
until it ends with 0; the model server is started again by itself. Then nothing may be lost, doubled or left running,
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

from strikes import LATENCY_SECONDS, VICTIMS, WINDOW, WORKERS, Blow, Undisturbed, strike, undisturbed

MOST_AT_RISK = {"driver": WORKERS * WINDOW, "worker": WINDOW, "every worker": WORKERS * WINDOW, "server": 0}
"""Requests that the victims can have under way; an answer that a dying server had begun counts as none."""


def struck(work: Path, number: int, seed: int, whole: Undisturbed) -> list[Blow]:
    """All blows: those that were kept, and the others now."""
    book = work / "blows.jsonl"
    lines = book.read_text().splitlines() if book.exists() else []
    kept = {(blow.victim, blow.number): blow for blow in (Blow(**json.loads(line)) for line in lines)}
    for i in range(number):
        for victim in VICTIMS:
            if (victim, i) in kept:
                continue
            folder = work / f"{victim.replace(' ', '-')}-{i}"
            shutil.rmtree(folder, ignore_errors=True)
            blow = strike(victim, i, seed, whole, folder)
            with book.open("a") as file:
                file.write(json.dumps(asdict(blow)) + "\n")
            kept[victim, i] = blow
            print(blow, flush=True)
            if not blow.problems:
                shutil.rmtree(folder)
    return list(kept.values())


def report(blows: list[Blow], whole: Undisturbed, seed: int) -> str:
    """The result as Markdown."""
    lines = [
        f"# Blows of SIGKILL, {datetime.date.today()}",
        "",
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()};"
        f" `bench_faults.py` with seed {seed}, {len(blows)} blows. The run: {WORKERS} workers, three stages that ask a"
        f" scripted server (mean latency {LATENCY_SECONDS:g} s, at most {WINDOW} requests under way per worker),"
        f" {whole.num_calls} calls when undisturbed.",
        "",
        "| victim | blows | with calls under way | command given again | runs with anything lost, doubled, other or"
        " left running | wasted calls: sum | median | most | possible under way |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for victim in VICTIMS:
        mine = [blow for blow in blows if blow.victim == victim]
        wasted = [blow.wasted_calls for blow in mine]
        busy = sum(blow.in_flight > 0 for blow in mine)
        again = sum(blow.num_calls_of_command - 1 for blow in mine)
        wrong = sum(bool(blow.problems) for blow in mine)
        lines.append(
            f"| {victim} | {len(mine)} | {busy} | {again} | {wrong} | {sum(wasted)} | {statistics.median(wasted):g}"
            f" | {max(wasted)} | {MOST_AT_RISK[victim]} |"
        )
    total = sum(blow.wasted_calls for blow in blows)
    calls = whole.num_calls * len(blows)
    lines += ["", f"Wasted in all: {total} of {calls + total} calls, {total / len(blows):.1f} a blow.", ""]
    problems = [f"- {blow.victim} {blow.number}: {problem}" for blow in blows for problem in blow.problems]
    return "\n".join([*lines, *problems])


def main() -> None:
    """Strike, and print the table."""
    parser = argparse.ArgumentParser(description="What SIGKILL costs.")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and for what was measured")
    parser.add_argument("--blows", type=int, default=25, help="of every kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the result")
    options = parser.parse_args()
    shutil.rmtree(options.work / "whole", ignore_errors=True)
    whole = undisturbed(options.work / "whole")
    text = report(struck(options.work, options.blows, options.seed, whole), whole, options.seed)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
