"""The trained models of an experiment on benchmarks: scored by a judge, and set against the baseline item by item.

In: the recipe's section ``benchmarks`` and finished trainings. Out: for each training a folder of `evaluate`, one table
and one plot of all comparisons, and item scores for the experiment's own table. The decision to question: benchmarks
come last, when every arm is trained and scored, so that a judge that is not there holds nothing up.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fineinstructions.comparison import compare_evaluations, write_comparisons
from fineinstructions.errors import ConfigError
from fineinstructions.evaluate import ITEMS_FILE, SCORES_FILE, chosen_names, evaluate, read_evaluation, require_engine
from fineinstructions.evaluation.compare import MEAN_OF_PARTS
from fineinstructions.evaluation.report import PLUMBING_MARK
from fineinstructions.evaluation.scoring import TITLES, grouped, read_scores
from fineinstructions.evaluation_recipe import EvaluationConfig, found_files
from fineinstructions.experiment_recipe import ExperimentConfig
from fineinstructions.progress import Progress
from fineinstructions.scores.results import BENCHMARK, ByItem, Measure, Trained

FOLDER = "benchmarks"


class TrainedModels:
    """Trained models before the benchmarks that a recipe names.

    Args:
        config: The recipe.
        root: Folder of the experiment.

    Raises:
        ConfigError: If the section is wrong.
    """

    def __init__(self, config: ExperimentConfig, root: Path) -> None:
        self._config, self._root = config, root / FOLDER
        self.names, self._settings = config.evaluation()
        if self.names:
            self.names = chosen_names(self.names)
            require_engine("judge", self._settings.judge)
            found_files(self._settings)

    def evaluate(self, name: str, model: Path, progress: Progress) -> None:
        """Score one model; what is known already asks nobody."""
        evaluate(self.names, self._of(model), self._root / name, progress=progress)

    def known(self, name: str) -> dict[Measure, ByItem]:
        """Main figures of a model by item, where every item of every benchmark has a score; else nothing."""
        found = [self._root / name / benchmark for benchmark in self.names]
        told = [read_evaluation(folder) for folder in found if (folder / SCORES_FILE).is_file()]
        if len(told) < len(found) or any(facts["num_waiting"] for facts in told):
            return {}
        return dict(_by_item(folder, facts) for folder, facts in zip(found, told, strict=True))

    def _of(self, model: Path) -> EvaluationConfig:
        llm = self._settings.model.model_copy(update={"engine": "transformers", "model": str(model)})
        return self._settings.model_copy(update={"model": llm})

    def compare(self, folders: Mapping[Trained, str]) -> None:
        """Write ``comparison.md`` and its plot: every arm against the baseline of the same model and seed."""
        baseline = self._config.baseline
        rows = []
        for trained, name in folders.items():
            base = replace(trained, arm=baseline)
            if trained.arm != baseline and base in folders:
                both = folders[base], name
                found = compare_evaluations([self._root / folder for folder in both])
                rows += [replace(one, first=both[0], second=both[1]) for one in found]
        if rows:
            write_comparisons(sorted(rows, key=lambda row: list(TITLES).index(row.benchmark)), self._root)


def _by_item(folder: Path, facts: Mapping[str, Any]) -> tuple[Measure, ByItem]:
    """The main figure of a benchmark as sums over items, which is what the experiment's table draws from.

    Dialogues of MT-Bench-101 weigh as much as their task lets them: its figure is the mean of the tasks' means.
    """
    name = str(facts["benchmark"])
    scores = grouped(name, read_scores(folder / ITEMS_FILE))
    size = Counter(score.part for score in scores)
    weight = {s.item_id: 1 / size[s.part] if name in MEAN_OF_PARTS else 1.0 for s in scores}
    title = TITLES[name] + (f" {PLUMBING_MARK}" if facts["is_plumbing"] else "")
    return Measure(title, "", BENCHMARK), {s.item_id: (s.score * weight[s.item_id], weight[s.item_id]) for s in scores}


def check_benchmarks(config: ExperimentConfig) -> None:
    """Check the section before anything is made.

    Raises:
        ConfigError: If it is wrong.
    """
    try:
        TrainedModels(config, Path())
    except ConfigError as error:
        raise ConfigError(f"benchmarks: {error}") from None
