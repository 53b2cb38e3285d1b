"""Held-out loss on the way: checkpoints of each training scored like its finished model, and drawn against tokens.

In: trainings that have left their checkpoints, and what models are scored on. Out: a ledger for each checkpoint, and
points of a plot on which arms compare, because all of them read the same text. The decision to question: checkpoints
are taken away once they are scored, optimiser and all; the ledgers stay.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fineinstructions.pretraining import CHECKPOINTS, PretrainResult
from fineinstructions.scores.ledger import ScoreRow, read_ledger
from fineinstructions.scores.results import BITS, NEUTRAL_FORMS, Measure, Trained, by_measure
from fineinstructions.scores.score import HeldOut, is_scored, score
from fineinstructions.training.metrics import PREFIX, step_of

FOLDER = "curves"
Points = list[tuple[float, float]]


class HeldOutCurves:
    """Scores of checkpoints of an experiment.

    Args:
        root: Folder of the experiment's scores.
        held_out: What finished models are scored on; checkpoints write no answers.
        num_points: Checkpoints of each training; 0 for none.
    """

    def __init__(self, root: Path, held_out: HeldOut, num_points: int) -> None:
        self._folder, self.num_points = root / FOLDER, num_points
        generate = held_out.config.generate.model_copy(update={"items": 0})
        self._held_out = replace(held_out, config=held_out.config.model_copy(update={"generate": generate}))
        first = next(iter(held_out.questions), "")
        self._measure = Measure(first, NEUTRAL_FORMS, BITS) if first else Measure(next(iter(held_out.texts)), "", BITS)

    @property
    def label(self) -> str:
        """What is drawn."""
        return f"bits per byte of held-out {self._measure.set_name}{' answers' if self._measure.form else ''}"

    def settings(self, steps: int) -> dict[str, Any]:
        """Settings of a training of so many steps that leaves as many checkpoints as are wanted."""
        if not self.num_points:
            return {}
        every = max(1, -(-steps // self.num_points))
        return {"save_every_steps": every, "keep_checkpoints": self.num_points, "leave_checkpoints": True}

    def score(self, name: str, done: PretrainResult, note: Callable[[str], None]) -> None:
        """Score what a training has left, and take it away."""
        folder = done.path / CHECKPOINTS
        for checkpoint in sorted(folder.glob(f"{PREFIX}*"), key=step_of) if self.num_points else ():
            note(f"score {name} after step {step_of(checkpoint):,}")
            score(checkpoint, self._held_out, self._ledger(name, step_of(checkpoint)))
        if self.num_points:
            shutil.rmtree(folder, ignore_errors=True)

    def _ledger(self, name: str, step: int) -> Path:
        return self._folder / f"{name}.{step}.jsonl"

    def points(self, name: str, done: PretrainResult, finished: Iterable[ScoreRow]) -> Points:
        """Tokens and loss of every scored checkpoint of a training, and of its model; none where none was scored."""
        per_step = int(done.facts["tokens_per_step"])
        steps = [path.name.removesuffix(".jsonl").removeprefix(f"{name}.") for path in self._folder.glob("*.jsonl")]
        ledgers = {int(step): self._ledger(name, int(step)) for step in steps if step.isdecimal()}
        whole = {step: path for step, path in ledgers.items() if is_scored(self._held_out, path)}
        found = {step * per_step: read_ledger(path)[1] for step, path in whole.items()}
        rows = {**found, done.tokens: list(finished)} if found else {}
        return [(float(tokens), self._loss(scored)) for tokens, scored in sorted(rows.items())]

    def _loss(self, rows: Iterable[ScoreRow]) -> float:
        items = by_measure(rows)[self._measure].values()
        return sum(top for top, _ in items) / sum(bottom for _, bottom in items)


def mean_curves(points: Mapping[Trained, Points], name_of: Callable[[Trained], str]) -> dict[str, Points]:
    """One curve for all trainings of a name: the mean over those that have a point after so many tokens."""
    values: dict[str, dict[float, list[float]]] = {}
    for trained, curve in points.items():
        for tokens, loss in curve:
            values.setdefault(name_of(trained), {}).setdefault(tokens, []).append(loss)
    return {
        name: [(tokens, sum(losses) / len(losses)) for tokens, losses in sorted(curve.items())]
        for name, curve in values.items()
    }
