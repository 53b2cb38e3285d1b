"""What a kept pair cost: records, tokens, seconds and money by stage.

In: the funnel and the log of a run. Out: one row for each stage. The decision to question: seconds are those of units
that were committed, on whatever machines; a unit that was done twice is counted twice.
"""

import json
from dataclasses import dataclass

from fineinstructions.runs import RunFolder, funnel

_SECTIONS = {"screen": "compatibility", **{name: name for name in ("genericize", "instantiate", "judge")}}
"""Stages that may ask a language model, and the section of the recipe that says which."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of the funnel and its share of the work."""

    phase: str
    stage: str
    num_in: int
    num_out: int
    num_asked: int
    """Records about which a language model was asked; 0 for models that ship with the package."""
    generated_tokens: int
    seconds: float | None
    """Of all workers together, of the whole phase; on its last stage only."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a run cost."""

    num_pairs: int
    stages: tuple[StageCost, ...]
    worker_seconds: float
    hour_price: float | None
    """What a worker costs for an hour, as given."""

    def per_pair(self, amount: float) -> float | None:
        """An amount for each kept pair; ``None`` without pairs."""
        return amount / self.num_pairs if self.num_pairs else None

    @property
    def money(self) -> float | None:
        """What all workers cost."""
        return None if self.hour_price is None else self.worker_seconds / 3600 * self.hour_price


def efficiency(run: RunFolder, hour_price: float | None = None) -> Efficiency:
    """What a run cost.

    Args:
        run: The run.
        hour_price: What one worker costs for an hour, in any currency; servers of models are not in it.
    """
    figures = funnel(run)
    seconds = _seconds(run)
    last = {figure.phase: figure.stage for figure in figures}
    stages = tuple(
        StageCost(
            phase=figure.phase,
            stage=figure.stage,
            num_in=figure.account.num_in,
            num_out=figure.account.num_out,
            num_asked=figure.account.num_in if _asks(run, figure.stage) else 0,
            generated_tokens=figure.counts.get("generated_tokens", 0) if figure.stage == "instantiate" else 0,
            seconds=seconds.get(figure.phase) if last[figure.phase] == figure.stage else None,
        )
        for figure in figures
    )
    manifest = run.published("pairs")
    number = manifest.counts["rows"] if manifest else 0
    return Efficiency(number, stages, sum(seconds.values()), hour_price)


def _asks(run: RunFolder, stage: str) -> bool:
    return (run.config.get(_SECTIONS.get(stage, "")) or {}).get("model") == "openai"


def _seconds(run: RunFolder) -> dict[str, float]:
    """Seconds of units by phase, as the run's log has them; a line that is torn says nothing."""
    found: dict[str, float] = {}
    path = run.logs / "progress.jsonl"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
            if event["event"] == "unit":
                found[str(event["phase"])] = found.get(str(event["phase"]), 0.0) + float(event["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
