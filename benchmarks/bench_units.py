"""What 10^4, 10^5 and 10^6 work units cost a run that has nothing to do but to look at them: time and peak memory.

    python benchmarks/bench_units.py --units 10000 100000 1000000 --folder FOLDER --out benchmarks/results/NAME.md

For every size a run folder of two phases is made: units are planned by `plan_units` and written by `write_pack`, the
second phase made from the first unit by unit; only the workers' commits into folders are left out. Then a process of
its own does each step and tells its wall time, its processor time and how far its memory grew beyond the imports:
all of it, and what is the process's own, without pages of plans that are mapped and that the system may drop.
"""

import argparse
import datetime
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fineinstructions.engines.tally import Tally
from fineinstructions.parquet import leave_pandas_out
from fineinstructions.runs import Phase, RunFolder, plan_units, status
from fineinstructions.runs.container import Stored
from fineinstructions.runs.ledger import MANIFEST, Manifest, StageAccount
from fineinstructions.runs.packing import PACK_UNITS
from fineinstructions.runs.packs import write_pack
from fineinstructions.runs.plan import ParquetInput
from fineinstructions.runs.settle import settle
from fineinstructions.runs.specs import Plan
from fineinstructions.runs.undone import inputs_of

PHASES = [
    Phase("candidates", "a", entry="retrieve"),
    Phase("pairs", "b", upstream=("candidates",), entry="judge", entry_figure="retrieve"),
]
ROWS = 1000
UNITS_OF_A_FILE = 1000
HEADER = b"PK\x03\x04" + bytes(26)
"""Of a file in a container, as far as a reader looks at it."""


@dataclass(frozen=True)
class MadeFiles:
    """Files of a unit that was never in a folder; `UnitFiles`."""

    place: str
    files: dict[str, bytes]

    def find(self, name: str) -> Stored:
        """Bytes of a file, as if they lay in a container."""
        content = self.files[name]
        return Stored(name, partial(io.BytesIO, HEADER + content), 0, len(content))

    def names(self) -> Iterator[str]:
        """Names of all files."""
        return iter(self.files)


def inputs(number: int) -> list[ParquetInput]:
    """Files as planning sees them, each of as many row groups as it has units."""
    groups = tuple((ROWS, 1 << 20) for _ in range(UNITS_OF_A_FILE))
    return [ParquetInput(f"/data/{i:05d}.parquet", f"{i:032x}", groups) for i in range(-(-number // UNITS_OF_A_FILE))]


def plan(number: int) -> Plan:
    return plan_units(inputs(number), 1 << 20, ROWS, max_rows=number * ROWS)


def open_run(folder: Path) -> RunFolder:
    return RunFolder.create_or_open(folder, {}, PHASES)


def make(folder: Path, number: int) -> None:
    """Write a run whose units are all committed and packed."""
    run, whole = open_run(folder), plan(number)
    with run.lease():
        for phase in run.phases:
            settle(run, phase.name, whole, redo=False)
            run.units(phase.name).mkdir(parents=True)
        with multiprocessing.Pool() as processes:
            processes.starmap(make_packs, ((folder, start) for start in range(0, number, PACK_UNITS)))


def make_packs(folder: Path, start: int) -> None:
    """Write the units that begin at a place of the plan, one pack per phase."""
    run = open_run(folder)
    whole = run.planned("pairs") or Plan.of(())
    seals: dict[str, str] = {}
    for phase in run.phases:
        digest, units = run.digest(phase.name), []
        for spec in whole[start : start + PACK_UNITS]:
            account = StageAccount(num_in=ROWS, num_out=ROWS - 7, rejected={"too_short": 7})
            made_from = inputs_of([seals[spec.unit_id]] if phase.upstream else [])
            manifest = Manifest(
                phase.name, spec.unit_id, digest, made_from, {phase.entry: account}, {"tokens": 5}, ()
            )  # fmt: skip
            seals[spec.unit_id] = manifest.seal
            text = json.dumps({**manifest.to_plain(), "seal": manifest.seal})
            units.append((spec.unit_id, MadeFiles(spec.unit_id, {MANIFEST: text.encode()})))
        write_pack(run.units(phase.name), start, units)


# ---------------------------------------------------------------------------------------------------------------------
# Steps


def do_plan(_folder: Path, number: int) -> int:
    """`plan_units` over all files."""
    return len(plan(number))


def do_resume(folder: Path, number: int) -> int:
    """What a run does with a phase that is done: plan, compare with the last plan, find that nothing is left."""
    run, whole = open_run(folder), plan(number)
    with run.lease():
        left = run.todo("pairs", whole)
        with Tally(run, "pairs", left, 2) as tally:
            return len(whole) - len(left) + tally.finish().num_done


def do_todo(folder: Path, _number: int) -> int:
    """`RunFolder.todo` alone, from the stored plan."""
    run = open_run(folder)
    with run.lease():
        whole = run.planned("pairs") or Plan.of(())
        return len(whole) - len(run.todo("pairs", whole))


def do_status(folder: Path, number: int) -> int:
    """`status` with its funnel, over both phases."""
    state = status(RunFolder.open(folder))
    assert state.funnel[1].account.num_in == number * ROWS
    return state.phases[1].num_done


def do_content(folder: Path, number: int) -> int:
    """The digest of a whole phase, which the phases behind it are made from."""
    return number if RunFolder.open(folder).content("pairs") else 0


def do_read(folder: Path, number: int) -> int:
    """The manifests of 1,000 units that lie far apart."""
    run = RunFolder.open(folder)
    whole = run.planned("pairs") or Plan.of(())
    for spec in (whole[i] for i in range(0, number, max(1, number // 1000))):
        manifest = run.manifest("pairs", spec)
        assert manifest is not None
        assert manifest.unit_id == spec.unit_id
    return number


STEPS: dict[str, Callable[[Path, int], int]] = {
    "plan": do_plan,
    "todo": do_todo,
    "resume": do_resume,
    "status": do_status,
    "content": do_content,
    "read": do_read,
}


def one_step(name: str, folder: Path, number: int) -> None:
    """Do a step in this process and print what it took."""
    leave_pandas_out()  # as every process of the program does
    before, own = memory_bytes("VmHWM"), [memory_bytes("RssAnon")]
    is_over = threading.Event()
    watch = threading.Thread(target=watch_own, args=(own, is_over))
    watch.start()
    wall, cpu = time.perf_counter(), time.process_time()
    assert STEPS[name](folder, number) == number
    figures = [time.perf_counter() - wall, time.process_time() - cpu, memory_bytes("VmHWM") - before]
    is_over.set()
    watch.join()
    print(json.dumps([*figures, max(own) - own[0]]))


def memory_bytes(kind: str) -> int:
    """Memory of this process: VmHWM, the most so far, or RssAnon, what is its own now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith(f"{kind}:")]
    return int(kilobytes) << 10


def watch_own(own: list[int], is_over: threading.Event) -> None:
    """Note the process's own memory a hundred times a second."""
    while not is_over.wait(0.01):
        own.append(memory_bytes("RssAnon"))


def measured(name: str, folder: Path, number: int, rounds: int) -> list[list[float]]:
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--units", str(number)]
    return [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(rounds)]


def line(name: str, number: int, figures: list[list[float]]) -> str:
    wall, cpu, memory, own = (sorted(column) for column in zip(*figures, strict=True))
    cells = [
        name,
        f"{number:,}",
        f"{statistics.median(cpu):.2f} ({cpu[0]:.2f} to {cpu[-1]:.2f})",
        f"{statistics.median(wall):.2f} ({wall[0]:.2f} to {wall[-1]:.2f})",
        f"{statistics.median(memory) / (1 << 20):.0f}",
        f"{statistics.median(own) / (1 << 20):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def report(arguments: argparse.Namespace) -> str:
    load = os.getloadavg()[0]
    lines = []
    for number in arguments.units:
        folder = arguments.folder / f"run-{number}"
        if not folder.exists():
            make(folder, number)
        lines += [line(name, number, measured(name, folder, number, arguments.rounds)) for name in STEPS]
    told = "\n".join(f"- `{name}`: {(step.__doc__ or '').strip()}" for name, step in STEPS.items())
    return f"""# Planning and looking at many units, {datetime.date.today()}

`python {" ".join(sys.argv)}`,
{os.cpu_count()} processors ({platform.machine()}), load {load:.1f} at the start, Python {platform.python_version()}.
Median (least to most) of {arguments.rounds} processes per line; memory is how far the peak of a process grew beyond its
imports, and how far what is its own did: the rest is pages of mapped plans.

{told}

| step | units | processor s | wall s | memory, MB | of it its own, MB |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        one_step(arguments.step, arguments.folder, arguments.units[0])
        return
    text = report(arguments)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
