"""Hallway 2: a run to corpora, one model per arm and seed, scores, and one table.

    run -> tokenizer -> corpora -> for every seed, model and arm: train -> score -> table
                                -> for every one of them: benchmarks -> table

In: a recipe. Out: a folder with all of it. Every step can be continued and is passed over when it is done, so a killed
experiment goes on where it was. The decision a reader would question: seeds are the outer loop and the table is written
after every scoring, so that an experiment that is stopped early has compared all arms.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fineinstructions import pipeline
from fineinstructions.config import differences, from_mapping, load, parse_yaml, to_plain, to_yaml
from fineinstructions.corpora import export
from fineinstructions.errors import ConfigError
from fineinstructions.experiment_benchmarks import TrainedModels, check_benchmarks
from fineinstructions.experiment_curves import HeldOutCurves, Points, mean_curves
from fineinstructions.experiment_recipe import (
    BASE,
    ExperimentConfig,
    TokenizerConfig,
    merged,
    model_name,
    plain_for_comparison,
)
from fineinstructions.plots import Curves
from fineinstructions.pretraining import PretrainResult, as_pretrain_config, pretrain, read_training
from fineinstructions.progress import Progress, Silent
from fineinstructions.readers import DocumentsConfig
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.runs.durable import watch_disk, write_text
from fineinstructions.runs.lease import hold_lease
from fineinstructions.scores.ledger import WRITTEN, read_ledger
from fineinstructions.scores.results import Trained, figures
from fineinstructions.scores.score import is_scored, read_held_out, score
from fineinstructions.scores.table import ArmRow, csv_text, held_out_curves, json_text, markdown, training_curves
from fineinstructions.setup import open_setup
from fineinstructions.tokenizer_training import train_tokenizer
from fineinstructions.training.metrics import read_metrics
from fineinstructions.training.sequences import num_sequences

RECIPE_FILE = "experiment.yaml"
Trainings = dict[Trained, PretrainResult]


@dataclass
class ExperimentResult:
    """What an experiment made."""

    path: Path
    missing: list[str]
    """Trainings that the table lacks."""

    @property
    def table(self) -> Path:
        """The table for people."""
        return self.path / "table.md"


def as_experiment_config(
    config: ExperimentConfig | dict[str, Any] | str | Path, overrides: Iterable[str] = ()
) -> ExperimentConfig:
    """A recipe, given as a path, as a mapping or checked.

    Raises:
        ConfigError: If it cannot be read or a key is wrong.
    """
    if isinstance(config, str | Path):
        return load(config, ExperimentConfig, list(overrides))
    plain = to_plain(config) if isinstance(config, ExperimentConfig) else config
    return from_mapping(plain, ExperimentConfig, list(overrides), where="experiment")


def experiment(
    recipe: ExperimentConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> ExperimentResult:
    """Compare arms by training on them; continue where an earlier call was stopped.

    Args:
        recipe: Path of a YAML recipe, a mapping, or a config.
        out: Folder of the experiment.
        overrides: ``a.b=value`` strings.
        progress: Told one line at every step; by default nobody.

    Raises:
        ConfigError: If a setting or an input is wrong, or the folder holds another experiment.
        BackendError: If an engine of a run failed for good.
        DataError: If something that was made is damaged.
    """
    config = as_experiment_config(recipe, overrides)
    config.check_sections()
    check_benchmarks(config)
    for arm in config.arms if config.recipe else [arm for arm, of in config.arms.items() if of.settings]:
        _run_config(config, arm)
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    with watch_disk(root), hold_lease(root / "lease"):
        return Experiment(config, root, progress or Silent()).do()


class Experiment:
    """One experiment under way.

    Args:
        config: The recipe.
        root: Its folder.
        progress: Told one line at every step.
    """

    def __init__(self, config: ExperimentConfig, root: Path, progress: Progress) -> None:
        self._config, self._root, self._progress = config, root, progress
        self._held_out = read_held_out(config.scores)
        self._remember()
        self._models = TrainedModels(config, root)
        self._on_the_way = HeldOutCurves(root / "scores", self._held_out, config.curve_points)
        self._done: dict[Trained, PretrainResult] = {}
        self._lying = {t: found for t in self._trainings() if (found := self._finished(t))}
        self._learned: Path | None = None
        self._step = 0

    def do(self) -> ExperimentResult:
        """Make everything that is not there yet."""
        corpora = {variant: self._make_corpora(variant, arms) for variant, arms in self._config.variants.items()}
        corpus_of = {arm: corpora[variant] for variant, arms in self._config.variants.items() for arm in arms}
        tokens = self._tokens(corpus_of)
        for trained in self._trainings():
            self._train(trained, corpus_of[trained.arm], tokens[trained.arm])
            self._score(trained)
            self._write_table()
        self._benchmark()
        return ExperimentResult(self._root, self._missing(self._done))

    def _trainings(self) -> Iterator[Trained]:
        config = self._config
        return (Trained(a, model_name(m), s) for s in config.seeds for m in config.models for a in config.arms)

    def _say(self, what: str) -> None:
        self._step += 1
        num_trainings = len(list(self._trainings()))
        total = 2 * len(self._config.variants) + (3 if self._models.names else 2) * num_trainings
        total += isinstance(self._config.tokenizer, TokenizerConfig)
        self._progress.note(f"[{self._step}/{total}] {what}")

    def _remember(self) -> None:
        """Keep the recipe, and refuse another one in the same folder.

        Raises:
            ConfigError: With the keys that differ.
        """
        path = self._root / RECIPE_FILE
        plain = plain_for_comparison(self._config)
        if path.exists():
            before = from_mapping(parse_yaml(path.read_text(encoding="utf-8")), ExperimentConfig, where=str(path))
            changed = [key for key, _, _ in differences(plain_for_comparison(before), plain)]
            if changed:
                raise ConfigError(
                    f"{self._root}: holds an experiment with other settings ({', '.join(changed[:5])}); choose another"
                    " --out, or go on with those of its experiment.yaml"
                )
        write_text(path, to_yaml(self._config))

    # What is trained on

    @cached_property
    def _run_dirs(self) -> dict[str, Path]:
        """Where the run of every variant lies; variants with the same settings share one."""
        config, names, dirs = self._config, dict[str, str](), dict[str, Path]()
        for variant, arms in config.variants.items():
            settings = json.dumps(config.arms[arms[0]].settings, sort_keys=True)
            name = names.setdefault(settings, BASE if settings == "{}" else variant)
            dirs[variant] = Path(config.run) if name == BASE and config.run else self._root / "runs" / name
        return dirs

    def _run(self, variant: str, arms: list[str]) -> Path:
        """The run of a variant, made where the experiment makes it."""
        config, folder = self._config, self._run_dirs[variant]
        settings = config.arms[arms[0]].settings
        if config.run and not settings:
            self._say(f"run {folder}: as it is")
            return folder
        self._say(f"run {folder}: making pairs")
        folder.parent.mkdir(exist_ok=True)
        result = pipeline.run(_run_config(config, arms[0]), folder)
        if result.set_aside:
            raise ConfigError(f"{folder}: units failed; mend it with 'fineinstructions run' and --retry-failed")
        return folder

    def _tokenizer(self, run_dir: Path) -> str:
        wanted = self._config.tokenizer
        if isinstance(wanted, str):
            return wanted
        if self._learned is None:
            folder = self._root / "tokenizer"
            self._say(f"tokenizer: {wanted.vocab_size:,} tokens")
            documents = open_setup(run_dir).config.documents or DocumentsConfig(path=[])
            self._learned = train_tokenizer(documents, folder, vocab_size=wanted.vocab_size, share=wanted.share).path
        return str(self._learned)

    def _make_corpora(self, variant: str, arms: list[str]) -> Path:
        run_dir = self._run(variant, arms)
        out = self._root / "corpora" / variant
        out.parent.mkdir(exist_ok=True)
        settings = self._config.export_config(arms, self._tokenizer(run_dir))
        self._say(f"corpora {variant}: {', '.join(arms)}")
        result = export(run_dir, out, settings)
        told = ", ".join(f"{arm} {figures['tokens']:,}" for arm, figures in result.facts["arms"].items())
        self._progress.note(f"corpora {variant}: tokens {told}")
        return out

    def _tokens(self, corpus_of: dict[str, Path]) -> dict[str, int]:
        """Tokens that each arm is trained on.

        Raises:
            ConfigError: If an arm has too few.
        """
        config = self._config
        there = {arm: self._usable(folder, arm) for arm, folder in corpus_of.items()}
        wanted = config.tokens or min(int(there[arm] / config.arms[arm].tokens_ratio) for arm in there)
        tokens = {arm: int(wanted * config.arms[arm].tokens_ratio) for arm in there}
        for arm, number in tokens.items():
            if number > there[arm] * config.max_epochs:
                has_same = config.export.get("documents") == "same"
                remedy = "" if has_same else ", or set export.equal_tokens: false where it was cut"
                raise ConfigError(
                    f"arms.{arm}: has {there[arm]:,} tokens and needs {number:,}; lower tokens, or raise max_epochs"
                    f" (now {config.max_epochs}){remedy}"
                )
        return tokens

    def _usable(self, corpus: Path, arm: str) -> int:
        """Tokens of an arm that fill whole sequences, which is what one epoch reads."""
        seq_len = as_pretrain_config({**self._config.pretrain, "corpora": "-"}).seq_len
        return num_sequences(int(_corpus_facts(corpus)["arms"][arm]["tokens"]), seq_len) * seq_len

    # Models and scores

    def _name(self, trained: Trained) -> str:
        return f"{trained.arm}.{trained.model}.{trained.seed}"

    def _ledger(self, trained: Trained) -> Path:
        return self._root / "scores" / f"{self._name(trained)}.jsonl"

    def _train(self, trained: Trained, corpus: Path, tokens: int) -> None:
        there = self._usable(corpus, trained.arm)
        model = next(model for model in self._config.models if model_name(model) == trained.model)
        plain = self._config.pretrain | {
            "corpora": str(corpus),
            "arm": trained.arm,
            "model": model,
            "seed": trained.seed,
            "tokens": tokens,
            "epochs": -(-tokens // there),
            "packed_dir": str(self._root / "packed" / trained.arm),
        }
        out = self._root / "trainings" / self._name(trained)
        out.parent.mkdir(exist_ok=True)
        self._say(f"train {self._name(trained)}: {tokens:,} tokens, {out / 'metrics.jsonl'}")
        self._done[trained] = pretrain(plain | self._on_the_way.settings(self._steps(tokens)), out)

    def _score(self, trained: Trained) -> None:
        self._say(f"score {self._name(trained)}")
        score(self._done[trained].model, self._held_out, self._ledger(trained))

        self._on_the_way.score(self._name(trained), self._done[trained], self._progress.note)

    def _steps(self, tokens: int) -> int:
        config = as_pretrain_config({**self._config.pretrain, "corpora": "-"})
        return tokens // (config.seq_len * config.sequences_per_step)

    def _finished(self, trained: Trained) -> PretrainResult | None:
        """A training that lies there, trained and scored by an earlier call."""
        found = read_training(self._root / "trainings" / self._name(trained))
        return found if found and is_scored(self._held_out, self._ledger(trained)) else None

    def _benchmark(self) -> None:
        """Have every trained model answer the benchmarks, and compare arms by them."""
        if not self._models.names:
            return
        for trained, done in self._done.items():
            name = self._name(trained)
            self._say(f"benchmarks {name}: {', '.join(self._models.names)}")
            self._models.evaluate(name, done.model, self._progress)
            self._write_table()
        self._models.compare({t: self._name(t) for t in self._done if self._models.known(self._name(t))})

    def _missing(self, shown: Iterable[Trained]) -> list[str]:
        """What the tables lack."""
        there = set(shown)
        missing = [self._name(t) for t in self._trainings() if t not in there]
        if self._models.names:
            names = [self._name(t) for t in self._trainings() if t in there]
            missing += [f"benchmarks of {name}" for name in names if not self._models.known(name)]
        return missing

    def _write_table(self) -> None:
        """Write the tables of what is done, by this call or an earlier one."""
        there = self._lying | self._done
        done = {trained: there[trained] for trained in self._trainings() if trained in there}
        scores = {trained: read_ledger(self._ledger(trained))[1] for trained in done}
        benchmarks = {trained: self._models.known(self._name(trained)) for trained in done}
        found = list(figures(scores, self._pairs(done), self._config.resamples, more=benchmarks))
        shown = dict.fromkeys((t.arm, t.model) for t in done)
        arms = [_arm_row(arm, model, done, scores, self._num_documents(arm)) for arm, model in shown]
        title, missing = self._root.name, self._missing(done)
        write_text(self._root / "table.md", markdown(title, arms, found, missing) + "\n")
        write_text(self._root / "table.csv", csv_text(found))
        write_text(self._root / "table.json", json_text(title, arms, found, missing))
        self._draw("loss", training_curves(title, self._curves(done)))
        self._draw_held_out(title, done, scores)

    def _num_documents(self, arm: str) -> int | None:
        """Documents in an arm's corpus; none where its figures, of an earlier version, do not say."""
        variant = next(variant for variant, arms in self._config.variants.items() if arm in arms)
        number: int | None = _corpus_facts(self._root / "corpora" / variant)["arms"][arm].get("documents")
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
        points = {t: way.points(self._name(t), result, scores[t]) for t, result in done.items()}
        if any(points.values()):
            self._draw("heldout", held_out_curves(title, mean_curves(points, self._line_name), way.label))

    def _draw(self, name: str, curves: Curves) -> None:
        """Write curves as a plot, and as JSON that `report --curves` draws in the report of a run."""
        write_text(self._root / f"{name}.json", curves.as_json())
        write_text(self._root / f"{name}.svg", curves.drawn())

    def _line_name(self, trained: Trained) -> str:
        return trained.arm if len(self._config.models) == 1 else f"{trained.arm} {trained.model}"


def _arm_row(arm: str, model: str, trainings: Trainings, scores: dict[Trained, Any], documents: int | None) -> ArmRow:
    done = {t.seed: result for t, result in trainings.items() if (t.arm, t.model) == (arm, model)}
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


def _run_config(config: ExperimentConfig, arm: str) -> RunConfig:
    """The recipe of the run that an arm is made of, with its own settings.

    Raises:
        ConfigError: If a key is wrong, or the recipe or run cannot be read.
    """
    under = to_plain(as_config(config.recipe) if config.recipe else open_setup(Path(config.run)).config)
    return from_mapping(merged(under, config.arms[arm].settings), RunConfig, where=f"arms.{arm}.settings")


def _corpus_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    return facts
