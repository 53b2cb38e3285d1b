"""Hallway 2: a run to corpora, one model per arm and seed, scores, and one table.

    run -> tokenizer -> corpora -> for every seed, model and arm: train -> score -> table
                                -> for every one of them: benchmarks -> table

In: a recipe. Out: a folder with all of it. Every step can be continued and is passed over when it is done, so a killed
experiment goes on where it was. The decisions a reader would question: seeds are the outer loop and the table is
written after every scoring, so that an experiment that is stopped early has compared all arms; and the same command may
run as often as there are processors or GPUs, each process taking trainings that no other one has.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fineinstructions import pipeline
from fineinstructions.config import differences, from_mapping, load, parse_yaml, to_plain, to_yaml
from fineinstructions.corpora import export
from fineinstructions.errors import ConfigError
from fineinstructions.experiment_benchmarks import TrainedModels, check_benchmarks
from fineinstructions.experiment_curves import HeldOutCurves
from fineinstructions.experiment_recipe import (
    BASE,
    ExperimentConfig,
    TokenizerConfig,
    merged,
    model_name,
    plain_for_comparison,
)
from fineinstructions.experiment_table import (
    BENCHMARKS_OF,
    ExperimentTable,
    Trainings,
    corpus_facts,
    ledger_of,
    name_of,
    trainings,
)
from fineinstructions.pretraining import PretrainResult, as_pretrain_config, pretrain, read_training
from fineinstructions.progress import Progress, Silent
from fineinstructions.readers import DocumentsConfig
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.runs.durable import watch_disk, write_text
from fineinstructions.runs.lease import HeldError, hold_lease
from fineinstructions.scores.results import Trained
from fineinstructions.scores.score import is_scored, read_held_out, score
from fineinstructions.setup import open_setup
from fineinstructions.tokenizer_training import train_tokenizer
from fineinstructions.training.sequences import num_sequences

RECIPE_FILE = "experiment.yaml"
LEASE_FILE = "lease"
LEASES = "leases"
"""Folder of the locks of single trainings."""


@dataclass
class ExperimentResult:
    """What an experiment made."""

    path: Path
    missing: list[str]
    """Trainings that the table lacks."""
    elsewhere: dict[str, str]
    """Those of them that other processes are at, and which ones, as they were when this one had nothing left to do."""

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

    Several processes may do so at the same time, on one machine or on many that share a disk: each takes trainings that
    nobody else is at, and ends when there are none left.

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
    with watch_disk(root):
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
        with self._alone():
            self._remember()
        self._models = TrainedModels(config, root)
        self._on_the_way = HeldOutCurves(root / "scores", self._held_out, config.curve_points)
        self._table = ExperimentTable(config, root, self._models, self._on_the_way)
        self._done: Trainings = {}
        self._elsewhere: dict[str, str] = {}
        self._learned: Path | None = None
        self._step = 0

    def do(self) -> ExperimentResult:
        """Make everything that is not there yet and that nobody else is making."""
        with self._alone():
            corpora = {variant: self._make_corpora(variant, arms) for variant, arms in self._config.variants.items()}
        corpus_of = {arm: corpora[variant] for variant, arms in self._config.variants.items() for arm in arms}
        tokens = self._tokens(corpus_of)
        for trained in self._mine("train", trainings(self._config), lambda t: t in self._there()):
            self._train(trained, corpus_of[trained.arm], tokens[trained.arm])
            self._score(trained)
            self._write_table()
        self._benchmark()
        missing = self._table.missing(self._there())
        lacking = {name.removeprefix(BENCHMARKS_OF) for name in missing}
        elsewhere = {name: holder for name, holder in self._elsewhere.items() if name in lacking}
        return ExperimentResult(self._root, missing, elsewhere)

    def _alone(self) -> AbstractContextManager[None]:
        """What only one process may do at a time; the others wait for it."""
        return hold_lease(self._root / LEASE_FILE, patience_seconds=math.inf)

    def _mine(self, what: str, all_: Iterable[Trained], is_done: Callable[[Trained], bool]) -> Iterator[Trained]:
        """Trainings in order, each held while it is worked on; those that other processes are at are passed over.

        What was passed over is looked at again at the end: its process may have died.
        """
        folder, waiting = self._root / LEASES, list(all_)
        folder.mkdir(exist_ok=True)
        while waiting:
            passed = []
            for trained in waiting:
                name = name_of(trained)
                with ExitStack() as stack:
                    try:
                        stack.enter_context(hold_lease(folder / name))
                    except HeldError as error:
                        if name not in self._elsewhere:
                            self._say(f"{what} {name}: {error.holder} is at it")
                        self._elsewhere[name] = error.holder
                        passed.append(trained)
                        continue
                    self._elsewhere.pop(name, None)
                    yield trained
            if len(passed) == len(waiting):
                return
            waiting = [trained for trained in passed if not is_done(trained)]

    def _say(self, what: str) -> None:
        self._step += 1
        num_trainings = len(list(trainings(self._config)))
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
        return num_sequences(int(corpus_facts(corpus)["arms"][arm]["tokens"]), seq_len) * seq_len

    # Models and scores

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
        out = self._root / "trainings" / name_of(trained)
        out.parent.mkdir(exist_ok=True)
        self._say(f"train {name_of(trained)}: {tokens:,} tokens, {out / 'metrics.jsonl'}")
        self._done[trained] = pretrain(plain | self._on_the_way.settings(self._steps(tokens)), out)

    def _score(self, trained: Trained) -> None:
        self._say(f"score {name_of(trained)}")
        score(self._done[trained].model, self._held_out, ledger_of(self._root, trained))

        self._on_the_way.score(name_of(trained), self._done[trained], self._progress.note)

    def _steps(self, tokens: int) -> int:
        config = as_pretrain_config({**self._config.pretrain, "corpora": "-"})
        return tokens // (config.seq_len * config.sequences_per_step)

    def _finished(self, trained: Trained) -> PretrainResult | None:
        """A training that lies there, trained and scored by an earlier call."""
        found = read_training(self._root / "trainings" / name_of(trained))
        return found if found and is_scored(self._held_out, ledger_of(self._root, trained)) else None

    def _benchmark(self) -> None:
        """Have every trained model answer the benchmarks, and compare arms by them."""
        if not self._models.names:
            return
        for trained in self._mine("benchmarks", self._there(), lambda t: bool(self._models.known(name_of(t)))):
            name = name_of(trained)
            self._say(f"benchmarks {name}: {', '.join(self._models.names)}")
            self._models.evaluate(name, self._there()[trained].model, self._progress)
            self._write_table()
        with self._alone():
            self._models.compare({t: name_of(t) for t in self._there() if self._models.known(name_of(t))})

    def _there(self) -> Trainings:
        """What is trained and scored, by this process or another one, now or earlier."""
        for trained in trainings(self._config):
            if trained not in self._done and (found := self._finished(trained)):
                self._done[trained] = found
        return {trained: self._done[trained] for trained in trainings(self._config) if trained in self._done}

    def _write_table(self) -> None:
        with self._alone():
            self._table.write(self._there())


def _run_config(config: ExperimentConfig, arm: str) -> RunConfig:
    """The recipe of the run that an arm is made of, with its own settings.

    Raises:
        ConfigError: If a key is wrong, or the recipe or run cannot be read.
    """
    under = to_plain(as_config(config.recipe) if config.recipe else open_setup(Path(config.run)).config)
    return from_mapping(merged(under, config.arms[arm].settings), RunConfig, where=f"arms.{arm}.settings")
