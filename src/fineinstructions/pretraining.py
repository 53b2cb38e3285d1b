"""Hallway: one arm of exported corpora to a trained model.

    corpus -> pack -> plan -> train -> model

In: a recipe. Out: a folder with the model in ordinary Hugging Face format, the metrics of the training and what tells
about it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.config import from_mapping, load, to_plain
from fineinstructions.progress import Progress
from fineinstructions.training.recipe import PretrainConfig


@dataclass
class PretrainResult:
    """What a training made."""

    path: Path
    """The output folder."""
    model: Path
    """Ordinary Hugging Face folder: config.json, model.safetensors, tokenizer.json and what belongs to them."""
    metrics: Path
    """JSON lines: step, tokens, loss, lr, grad_norm, tokens_per_second, mfu."""
    facts: dict[str, Any]
    """What stands in ``pretrain.json``."""
    was_there: bool = False
    """Whether an earlier call had made it."""

    @property
    def tokens(self) -> int:
        """Tokens that were trained on, repetitions included."""
        return int(self.facts["tokens"])

    @property
    def unique_tokens(self) -> int:
        """Different tokens among them."""
        return int(self.facts["unique_tokens"])

    @property
    def epochs(self) -> float:
        """How often the corpus was read; 1 or less unless the recipe asks for more."""
        return float(self.facts["epochs"])


def as_pretrain_config(
    config: PretrainConfig | dict[str, Any] | str | Path, overrides: Iterable[str] = ()
) -> PretrainConfig:
    """A recipe, given as a path, as a mapping or checked.

    Raises:
        ConfigError: If it cannot be read or a key is wrong.
    """
    if isinstance(config, str | Path):
        return load(config, PretrainConfig, list(overrides))
    plain = to_plain(config) if isinstance(config, PretrainConfig) else config
    return from_mapping(plain, PretrainConfig, list(overrides), where="pretrain")


def pretrain(
    config: PretrainConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> PretrainResult:
    """Train a model on one arm of exported corpora; continue where an earlier call was stopped.

    Args:
        config: The recipe.
        out: Output folder.
        overrides: ``a.b=value`` strings.
        progress: Told what goes on; by default nobody.

    Raises:
        ConfigError: If a setting is wrong, tokens run out, or the folder holds another training.
        DataError: If the corpus or the packed tokens are damaged.
    """
    raise NotImplementedError
