"""What a kept pair cost: records, tokens, seconds and money by stage.

In: the accounts and the log of a run. Out: one row for each stage. The decision to question: tokens and calls are those
of the units that stand, whatever was asked for units that a kill has undone, because their replies came out of the
cache when they were done again; seconds are those that the log has last for each unit, on whatever machines.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.config import from_mapping
from fineinstructions.runs import RunFolder, StageFigures, funnel

SECTIONS = {
    "screen": "compatibility",
    **{name: name for name in ("genericize", "instantiate", "judge", "compatibility")},
}
"""Stages that may ask a language model, and the section of the recipe that says which."""
MODEL_AMOUNTS = ("calls", "prompt_tokens", "completion_tokens", "seconds")
"""Amounts of `ModelCost` that add up over stages."""


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a stage has asked of its model."""

    model: str
    calls: int
    """Replies, re-asks included."""
    reasks: int
    """Replies that did not parse and were sent back."""
    prompt_tokens: int
    """As the server counts them; 0 where it does not."""
    completion_tokens: int
    seconds: float
    """From requests to their replies, all added up; many are under way at once."""
    money: float | None
    """By the prices in the recipe; ``None`` without prices."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of the funnel and its share of the work."""

    phase: str
    stage: str
    num_in: int
    num_out: int
    seconds: float | None
    """Of all workers together, of the whole phase; on its last stage only."""
    asked: ModelCost | None
    """``None`` where no language model was asked, or the run was made before its replies were counted."""


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
    def asked(self) -> list[ModelCost]:
        """What was asked of language models, by stage."""
        return [stage.asked for stage in self.stages if stage.asked]

    @property
    def worker_money(self) -> float | None:
        """What all workers cost; ``None`` without a price."""
        return None if self.hour_price is None else self.worker_seconds / 3600 * self.hour_price

    @property
    def model_money(self) -> float | None:
        """What models cost; ``None`` where one that was asked has no price."""
        known = [cost.money for cost in self.asked if cost.money is not None]
        return sum(known) if known and len(known) == len(self.asked) else None


def efficiency(run: RunFolder, hour_price: float | None = None) -> Efficiency:
    """What a run cost.

    Args:
        run: The run.
        hour_price: What one worker costs for an hour, in any currency.
    """
    figures = funnel(run)
    seconds, model_seconds = _seconds(run)
    last = {figure.phase: figure.stage for figure in figures}
    stages = tuple(
        StageCost(
            phase=figure.phase,
            stage=figure.stage,
            num_in=figure.account.num_in,
            num_out=figure.account.num_out,
            seconds=seconds.get(figure.phase) if last[figure.phase] == figure.stage else None,
            asked=_asked(run.config, figure, model_seconds.get(figure.stage, 0.0)),
        )
        for figure in figures
    )
    manifest = run.published("pairs")
    number = manifest.counts["rows"] if manifest else 0
    return Efficiency(number, stages, sum(seconds.values()), hour_price)


def _asked(recipe: Mapping[str, Any], figure: StageFigures, seconds: float) -> ModelCost | None:
    """What a stage has asked, of which model, for how much."""
    counts = {name: figure.counts.get(f"{figure.stage}.{name}", 0) for name in _COUNTED}
    if figure.stage not in SECTIONS or f"{figure.stage}.calls" not in figure.counts:
        return None
    own = (recipe.get(SECTIONS[figure.stage]) or {}).get("llm") or {}
    llm = with_overrides(from_mapping(dict(recipe.get("llm") or {}), LlmConfig, where="llm"), own)
    return ModelCost(model=llm.model, **counts, seconds=seconds, money=_money(llm, counts))


_COUNTED = ("calls", "reasks", "prompt_tokens", "completion_tokens")


def _money(llm: LlmConfig, counts: Mapping[str, int]) -> float | None:
    """What tokens cost; a price that is missing beside one that is there counts as 0."""
    if llm.prompt_price is None and llm.completion_price is None:
        return None
    prompt = counts["prompt_tokens"] * (llm.prompt_price or 0)
    return (prompt + counts["completion_tokens"] * (llm.completion_price or 0)) / 1e6


def _seconds(run: RunFolder) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of workers by phase, and of model servers by stage, as the log has them; a torn line says nothing."""
    units: dict[tuple[str, str], tuple[float, dict[str, float]]] = {}
    path = run.logs / "progress.jsonl"
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        try:
            event = json.loads(line)
            if event["event"] == "unit":
                of_models = {str(stage): float(s) for stage, s in event.get("model_seconds", {}).items()}
                units[str(event["phase"]), str(event["unit"])] = float(event["seconds"]), of_models
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    of_workers: dict[str, float] = {}
    by_stage: dict[str, float] = {}
    for (phase, _), (seconds, of_models) in units.items():
        of_workers[phase] = of_workers.get(phase, 0.0) + seconds
        for stage, spent in of_models.items():
            by_stage[stage] = by_stage.get(stage, 0.0) + spent
    return of_workers, by_stage


ASKED_HEAD = ("stage", "model", "calls", "prompt tokens", "generated tokens", "server seconds", "money")


def asked_rows(stages: Sequence[dict[str, Any]], num_pairs: int) -> list[tuple[str, ...]]:
    """What each stage has asked of its model, as texts under `ASKED_HEAD`; none where none asked one.

    Args:
        stages: Stages as `efficiency` tells them, plain.
        num_pairs: Kept pairs; 0 before there are any.
    """

    def cell(amount: float | None, decimals: int = 0) -> str:
        if amount is None:
            return "-"
        each = f" ({amount / num_pairs:.{max(1, decimals + 2)}f})" if num_pairs else ""
        return f"{amount:,.{decimals}f}{each}"

    return [
        (
            stage["stage"],
            asked["model"],
            cell(asked["calls"]),
            cell(asked["prompt_tokens"]),
            cell(asked["completion_tokens"]),
            cell(asked["seconds"], 1),
            cell(asked["money"], 4),
        )
        for stage in stages
        if (asked := stage["asked"])
    ]
