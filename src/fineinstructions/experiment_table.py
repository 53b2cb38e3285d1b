"""The table and plots of an experiment: what is done so far, by this process or by others, arm against arm.

In: trainings that are finished, and their ledgers of scores. Out: ``table.md``, ``table.csv``, ``table.json`` and the
plots. The decision to question: all of it is made anew from the folder every time, so that no process has to know what
another one has done.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fineinstructions.experiment_benchmarks import TrainedModels
from fineinstructions.experiment_curves import HeldOutCurves, Points, mean_curves
from fineinstructions.experiment_recipe import ExperimentConfig, model_name
from fineinstructions.plots import Curves
from fineinstructions.pretraining import PretrainResult
from fineinstructions.runs.durable import write_text
from fineinstructions.scores.ledger import WRITTEN, read_ledger
from fineinstructions.scores.results import Trained, figures
from fineinstructions.scores.table import ArmRow, csv_text, held_out_curves, json_text, markdown, training_curves
from fineinstructions.training.metrics import read_metrics

Trainings = dict[Trained, PretrainResult]
BENCHMARKS_OF = "benchmarks of "
"""Stands before a training's name where its benchmarks are missing."""


def trainings(config: ExperimentConfig) -> Iterator[Trained]:
    """All trainings of an experiment, in order: seeds are the outer loop."""
    return (Trained(a, model_name(m), s) for s in config.seeds for m in config.models for a in config.arms)


def name_of(trained: Trained) -> str:
    """What a training's files are called."""
    return f"{trained.arm}.{trained.model}.{trained.seed}"


def ledger_of(root: Path, trained: Trained) -> Path:
    """Scores of a training's model."""
    return root / "scores" / f"{name_of(trained)}.jsonl"


def corpus_facts(folder: Path) -> dict[str, Any]:
    """What an export says of itself."""
    facts: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    return facts


class ExperimentTable:
    """Tables and plots of one experiment.

    Args:
        config: The recipe.
        root: Folder of the experiment.
        models: Trained models before benchmarks.
        on_the_way: Scores of checkpoints.
    """

    def __init__(self, config: ExperimentConfig, root: Path, models: TrainedModels, on_the_way: HeldOutCurves) -> None:
        self._config, self._root, self._models, self._on_the_way = config, root, models, on_the_way

    def missing(self, shown: Iterable[Trained]) -> list[str]:
        """What the tables lack."""
        there = set(shown)
        missing = [name_of(t) for t in trainings(self._config) if t not in there]
        if self._models.names:
            names = [name_of(t) for t in trainings(self._config) if t in there]
            missing += [f"{BENCHMARKS_OF}{name}" for name in names if not self._models.known(name)]
        return missing

    def write(self, there: Trainings) -> None:
        """Write the tables of what is done, in any order."""
        done = {trained: there[trained] for trained in trainings(self._config) if trained in there}
        scores = {trained: read_ledger(ledger_of(self._root, trained))[1] for trained in done}
        benchmarks = {trained: self._models.known(name_of(trained)) for trained in done}
        found = list(figures(scores, self._pairs(done), self._config.resamples, more=benchmarks))
        shown = dict.fromkeys((t.arm, t.model) for t in done)
        arms = [_arm_row(arm, model, done, scores, self._num_documents(arm)) for arm, model in shown]
        title, missing = self._root.name, self.missing(done)
        write_text(self._root / "table.md", markdown(title, arms, found, missing) + "\n")
        write_text(self._root / "table.csv", csv_text(found))
        write_text(self._root / "table.json", json_text(title, arms, found, missing))
        self._draw("loss", training_curves(title, self._curves(done)))
        self._draw_held_out(title, done, scores)

    def _num_documents(self, arm: str) -> int | None:
        """Documents in an arm's corpus; none where its figures, of an earlier version, do not say."""
        variant = next(variant for variant, arms in self._config.variants.items() if arm in arms)
        number: int | None = corpus_facts(self._root / "corpora" / variant)["arms"][arm].get("documents")
        return number

    def _pairs(self, done: Trainings) -> Iterator[tuple[tuple[str, str], tuple[str, str] | None]]:
        """What is compared with what: every arm with the baseline of its size, and with all arms of the next size."""
        config = self._config
        sizes = {t.model: int(result.facts["num_parameters"]) for t, result in done.items()}
        models = sorted(sizes, key=lambda model: (sizes[model], model))
        for arm in config.arms:
            for place, model in enumerate(models):
                yield (arm, model), None if arm == config.baseline else (config.baseline, model)
                for larger in models[place + 1 : place + 2]:
                    yield from (((arm, model), (other, larger)) for other in config.arms)

    def _curves(self, done: Trainings) -> dict[str, Points]:
        """Mean loss of an arm's trainings over tokens."""
        lines = {trained: read_metrics(result.metrics) for trained, result in done.items()}
        points = {t: [(float(line["tokens"]), float(line["loss"])) for line in found] for t, found in lines.items()}
        return mean_curves(points, self._line_name)

    def _draw_held_out(self, title: str, done: Trainings, scores: dict[Trained, Any]) -> None:
        """Draw held-out loss over tokens, where checkpoints have been scored."""
        way = self._on_the_way
        points = {t: way.points(name_of(t), result, scores[t]) for t, result in done.items()}
        if any(points.values()):
            self._draw("heldout", held_out_curves(title, mean_curves(points, self._line_name), way.label))

    def _draw(self, name: str, curves: Curves) -> None:
        """Write curves as a plot, and as JSON that `report --curves` draws in the report of a run."""
        write_text(self._root / f"{name}.json", curves.as_json())
        write_text(self._root / f"{name}.svg", curves.drawn())

    def _line_name(self, trained: Trained) -> str:
        return trained.arm if len(self._config.models) == 1 else f"{trained.arm} {trained.model}"


def _arm_row(arm: str, model: str, there: Trainings, scores: dict[Trained, Any], documents: int | None) -> ArmRow:
    done = {t.seed: result for t, result in there.items() if (t.arm, t.model) == (arm, model)}
    first = next(iter(done.values()))
    seconds = [
        row.seconds
        for trained, rows in scores.items()
        if (trained.arm, trained.model) == (arm, model)
        for row in rows
        if row.kind == WRITTEN
    ]
    return ArmRow(
        arm=arm,
        model=model,
        seeds=tuple(done),
        tokens=first.tokens,
        unique_tokens=first.unique_tokens,
        epochs=first.epochs,
        documents=documents,
        parameters=int(first.facts["num_parameters"]),
        flops=float(first.facts["flops"]),
        seconds_per_answer=sum(seconds) / len(seconds) if seconds else None,
    )
