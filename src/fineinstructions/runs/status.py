"""How far a run is: units, rates, time left, and the funnel of records from stage to stage."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fineinstructions.runs import mirror
from fineinstructions.runs.detached import Detached
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.lease import lease_holder
from fineinstructions.runs.ledger import StageAccount

TAIL_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class PhaseStatus:
    """Progress of one phase."""

    name: str
    num_units: int | None
    """Planned units; ``None`` before the phase is planned."""
    num_done: int
    num_set_aside: int
    """Units given up, among those done."""
    num_rows: int
    num_rows_done: int
    units_per_second: float | None
    """Rate since the phase was last started; ``None`` where nothing finished since."""
    eta_seconds: float | None
    """Time left at that rate; ``None`` where it is unknown."""

    @property
    def complete(self) -> bool:
        """Whether every planned unit is committed."""
        return self.num_units is not None and self.num_done == self.num_units


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One line of the funnel: a stage's account over all units."""

    phase: str
    stage: str
    account: StageAccount
    counts: dict[str, int]
    """What the phase counted besides (candidates, sampled matches, tokens), over all units."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State of a run folder."""

    holder: str
    """Process that works in the folder now; empty when nobody does."""
    phases: tuple[PhaseStatus, ...]
    funnel: tuple[StageFigures, ...]
    published: dict[str, int]
    """Rows of the published tables."""
    detached: Detached | None = None
    """Jobs that go on with it while nobody waits, or why they do not."""


def status(run: RunFolder) -> RunStatus:
    """State of a run; safe to call while it is running.

    Raises:
        DataError: If the plan is damaged.
    """
    published = {}
    folder = run.published_folder("")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        manifest = run.published(path.name)
        if manifest:
            published[path.name] = manifest.counts["rows"]
    return RunStatus(
        holder=mirror.holder(run.root) or lease_holder(run.lease_file),
        phases=tuple(_phase_status(run, phase.name) for phase in run.phases),
        funnel=tuple(funnel(run)),
        published=published,
        detached=Detached.load(run.root),
    )


def _phase_status(run: RunFolder, phase: str) -> PhaseStatus:
    plan = run.planned(phase)
    done = set_aside = rows_done = 0
    digest = run.digest(phase)
    for found in run.shelf(phase).stretches(plan) if plan is not None else ():
        rows = plan[found.start : found.stop].row_counts if plan is not None else np.empty(0, np.int64)
        if found.is_all_of(digest):
            done += len(rows)
            rows_done += int(rows.sum())
            set_aside += len(rows) - found.set_aside.count("")
            continue
        good = [bool(seal) and other == digest for seal, other in zip(found.seals, found.digests, strict=True)]
        done += sum(good)
        rows_done += int(rows[good].sum())
        set_aside += sum(bool(reason) for reason, is_good in zip(found.set_aside, good, strict=True) if is_good)
    rate = _rate(run, phase)
    left = len(plan) - done if plan is not None else None
    return PhaseStatus(
        name=phase,
        num_units=None if plan is None else len(plan),
        num_done=done,
        num_set_aside=set_aside,
        num_rows=0 if plan is None else plan.num_rows,
        num_rows_done=rows_done,
        units_per_second=rate,
        eta_seconds=left / rate if rate and left is not None else None,
    )


def funnel(run: RunFolder) -> list[StageFigures]:
    """Accounts of all stages over all committed units, in flow order.

    Raises:
        DataError: If the plan is damaged.
    """
    figures: list[StageFigures] = []
    for phase in run.phases:
        plan = run.planned(phase.name)
        if plan is None:
            continue
        found = run.shelf(phase.name).accounts(plan)
        counts = dict(found.counts)
        figures += [StageFigures(phase.name, stage, account, counts) for stage, account in found.stages.items()]
    return figures


def log_progress(layout: Layout, events: Iterable[dict[str, Any]]) -> None:
    """Append events to ``logs/progress.jsonl``, each with the time: what rates are computed from.

    Args:
        layout: The run folder.
        events: ``{"event": "start" | "unit" | "server", "phase": ...}`` and whatever else is worth keeping.
    """
    layout.logs.mkdir(parents=True, exist_ok=True)
    with (layout.logs / "progress.jsonl").open("a", encoding="utf-8") as handle:
        for event in events:
            handle.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")


def _rate(layout: Layout, phase: str) -> float | None:
    """Units per second since the phase was last started."""
    path = layout.logs / "progress.jsonl"
    if not path.exists():
        return None
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - TAIL_BYTES))
        lines = handle.read().decode("utf-8", "replace").splitlines()
    begin = last = None
    units = 0
    for line in lines[1:] if size > TAIL_BYTES else lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or event.get("phase") != phase:
            continue
        if event["event"] == "start" or begin is None:
            begin, units = event["time"], 0
        elif event["event"] == "unit":
            units += 1
            last = event["time"]
    return units / (last - begin) if units and begin is not None and last is not None and last > begin else None
