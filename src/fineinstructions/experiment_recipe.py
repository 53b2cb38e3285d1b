"""The recipe of an experiment: a run, arms, trainings with several seeds, and what they are scored on."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from fineinstructions.config import Config, from_mapping, to_plain
from fineinstructions.corpus.export import PRESETS, ExportConfig
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation_recipe import EvaluationConfig
from fineinstructions.llama_shapes import SHAPES
from fineinstructions.scores.config import ScoresConfig
from fineinstructions.training.recipe import PretrainConfig

BASE = "base"
"""Name of the run and the corpora of arms without settings of their own; no arm may have it."""
FREE = ("seeds", "resamples", "curve_points", "benchmarks")
"""Keys that may change in an experiment that is under way."""
BENCHMARKS = ("mixeval", "mt_bench_101", "alpaca_eval")
"""Those of the paper, where the recipe names none."""
DECIDED = {
    "export": ("arms", "tokenizer", "format", "view", "shuffle"),
    "pretrain": (
        "corpora",
        "arm",
        "tokenizer",
        "packed_dir",
        "model",
        "tokens",
        "steps",
        "epochs",
        "seed",
        "leave_checkpoints",
    ),
}
"""Keys of sections that the experiment itself decides."""


class TokenizerConfig(Config):
    """A tokenizer that is learned from the documents of the run."""

    vocab_size: int = Field(default=4096, ge=258)
    """Tokens. Ours."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents that it learns from, chosen by their ids. Ours."""


class ArmConfig(Config):
    """One leg of the comparison."""

    mixture: str | dict[str, float] = ""
    """An arm of `export` by its name, or weights of sources in tokens. Default: the name of the arm."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Sections of the run's recipe that are otherwise for this arm; it then has a run of its own."""
    export: dict[str, Any] = Field(default_factory=dict)
    """Settings of the export that are otherwise for this arm."""
    tokens_ratio: float = Field(default=1.0, gt=0, le=1)
    """Share of the other arms' tokens that it is trained on."""


class ExperimentConfig(Config):
    """Everything that decides an experiment."""

    run: str = ""
    """Folder of a finished run."""
    recipe: str = ""
    """Recipe of a run that the experiment makes, instead of `run`."""
    arms: dict[str, ArmConfig] = Field(min_length=1)
    """Arms by name; all are trained on the same number of tokens."""
    baseline: str = "standard"
    """The arm that others are compared with."""
    tokenizer: str | TokenizerConfig = TokenizerConfig()
    """As for `export --tokenizer`, or how one is learned from the documents."""
    export: dict[str, Any] = Field(default_factory=dict)
    """Settings of the export, for all arms."""
    models: list[str] = Field(default=["125m"], min_length=1)
    """Sizes, or paths of config.json, as for `pretrain`."""
    pretrain: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training, for all arms."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens that every arm is trained on. Default: those of the smallest arm."""
    max_epochs: int = Field(default=1, ge=1)
    """How often an arm may be read that has fewer tokens. Default: paper, section 4.2, for its large corpus."""
    seeds: list[int] = Field(default=[1, 2, 3], min_length=1)
    """Seeds of the weights; every arm is trained with each of them. More may be added later. Ours; the paper states no
    repetitions."""
    scores: ScoresConfig
    """What the trained models are scored on."""
    curve_points: int = Field(default=0, ge=0)
    """Checkpoints of each training, evenly spaced, whose losses on `scores` are drawn against tokens. Each takes as
    long as the losses of the finished model and, until it is scored, the room of a checkpoint. Ours: none."""
    benchmarks: dict[str, Any] = Field(default_factory=dict)
    """Benchmarks that the trained models answer and a judge scores: ``names``, and the settings of an evaluation
    (``judge``, ``data``, ``limit``, ...). May be added to a finished experiment."""
    resamples: int = Field(default=1000, ge=1)
    """Of the bootstrap. Ours."""

    @field_validator("arms", mode="before")
    @classmethod
    def _names_do(cls, arms: Any) -> Any:
        if isinstance(arms, list):
            return {name: {} for name in arms}
        return {name: arm or {} for name, arm in arms.items()} if isinstance(arms, dict) else arms

    @model_validator(mode="after")
    def _fits_together(self) -> "ExperimentConfig":
        if bool(self.run) == bool(self.recipe):
            raise ValueError("name either run, a folder, or recipe, a file")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline: {self.baseline!r} is no arm; there are {', '.join(self.arms)}")
        if BASE in self.arms:
            raise ValueError(f"arms: {BASE!r} is taken; use another name")
        for name, values in (("seeds", self.seeds), ("models", [model_name(model) for model in self.models])):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: two of them are called the same")
        for section, keys in DECIDED.items():
            wrong = [key for key in getattr(self, section) if key in keys]
            wrong += [key for arm in self.arms.values() for key in arm.export if section == "export" and key in keys]
            if wrong:
                raise ValueError(f"{section}.{wrong[0]}: the experiment decides it; leave it out")
        return self

    def check_sections(self) -> None:
        """Check the sections that other verbs own, before anything is done.

        Raises:
            ConfigError: If a key is wrong.
        """
        for name in self.arms:
            self.mixture_of(name)
        for variant in self.variants.values():
            self.export_config(variant, "bytes")
        for model in self.models:
            from_mapping({**self.pretrain, "corpora": "-", "model": model}, PretrainConfig, where="pretrain")
        self.evaluation()

    def evaluation(self) -> tuple[list[str], EvaluationConfig]:
        """Names of the benchmarks, none where the section is empty, and how models are evaluated on them.

        Raises:
            ConfigError: If a key is wrong.
        """
        plain = dict(self.benchmarks)
        names = plain.pop("names", list(BENCHMARKS) if plain else [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError("benchmarks.names: must be a list of names, such as [mixeval, mt_bench_101, alpaca_eval]")
        if wrong := {"engine", "model"} & set(plain.get("model") or ()):
            raise ConfigError(f"benchmarks.model.{min(wrong)}: the experiment decides it; leave it out")
        return names, from_mapping(plain, EvaluationConfig, where="benchmarks")

    def mixture_of(self, arm: str) -> dict[str, float]:
        """Weights of the sources of an arm.

        Raises:
            ConfigError: If its name says nothing.
        """
        mixture = self.arms[arm].mixture or arm
        if isinstance(mixture, dict):
            return mixture
        if mixture not in PRESETS:
            raise ConfigError(
                f"arms.{arm}.mixture: unknown {mixture!r}; there are {', '.join(PRESETS)}, or give weights"
            )
        return dict(PRESETS[mixture])

    @property
    def variants(self) -> dict[str, list[str]]:
        """Arms that share a run and an export, by the name of what they share."""
        found: dict[str, tuple[Any, list[str]]] = {}
        for name, arm in self.arms.items():
            shared = (arm.settings, arm.export)
            known = next((variant for variant, (other, _) in found.items() if other == shared), None)
            found.setdefault(known or (BASE if shared == ({}, {}) else name), (shared, []))[1].append(name)
        return {variant: names for variant, (_, names) in found.items()}

    def export_config(self, arms: list[str], tokenizer: str) -> ExportConfig:
        """Settings of the export of arms that share one.

        Raises:
            ConfigError: If a key is wrong.
        """
        own = self.arms[arms[0]].export
        mixtures = {name: self.mixture_of(name) for name in arms}
        plain = merged(self.export, own) | {"arms": mixtures, "tokenizer": tokenizer, "shuffle": True}
        return from_mapping(plain, ExportConfig, where="export")


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A mapping laid over another, section by section.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
    """
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def plain_for_comparison(config: ExperimentConfig) -> dict[str, Any]:
    """What must not change in an experiment that is under way. Seeds and benchmarks may be added."""
    plain = to_plain(config)
    return {key: value for key, value in plain.items() if key not in FREE}


def model_name(model: str) -> str:
    """A model as files and tables call it: a size, or the folder of its config.json.

    Example:
        >>> model_name("1.8b"), model_name("models/llama-1.8b/config.json"), model_name("models/llama-1.8b")
        ('1.8b', 'llama-1.8b', 'llama-1.8b')
    """
    if model in SHAPES:
        return model
    path = Path(model).absolute()
    return path.parent.name if path.name == "config.json" else path.name.removesuffix(".json")
