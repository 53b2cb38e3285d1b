"""How long a training goes, what it takes and whether it may begin; all of it is known before a token is packed.

In: the recipe, the tokens of the corpus and figures about the model. Out: a plan, or a refusal. The decision a reader
would question: what is left over below one step is not trained on, so that every step is alike.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fineinstructions.errors import ConfigError, counted
from fineinstructions.training.models import ModelFacts
from fineinstructions.training.recipe import PretrainConfig
from fineinstructions.training.sequences import num_sequences

BYTES_PER_PARAMETER = 16
"""Of memory: weight, gradient and two moments of AdamW, 32 bits each."""
CHECKPOINT_BYTES = 12
"""Of disk, per parameter: weight and two moments. The finished model takes 4."""
MOST_WARMUP_STEPS = 2000
USUAL_LR = 1e-3


@dataclass(frozen=True, slots=True)
class Plan:
    """A training before it begins."""

    num_parameters: int
    num_non_embedding: int
    corpus_tokens: int
    """Tokens of all rows of the arm."""
    steps: int
    tokens_per_step: int
    tokens: int
    """Tokens that are trained on, repetitions included."""
    unique_tokens: int
    epochs: float
    """How often the corpus is read."""
    left_over_tokens: int
    """Tokens of the corpus that are not trained on."""
    flops: float
    flops_per_token: float
    memory_bytes: int
    """About the memory of one device that holds all of the model; sharding takes the larger part off."""
    disk_bytes: int
    """Checkpoints, the model and packed tokens."""
    lr: float
    warmup_steps: int
    save_every_steps: int

    def to_plain(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def plan(config: PretrainConfig, corpus_tokens: int, vocab_size: int, model: ModelFacts, where: str) -> Plan:
    """What a recipe comes to.

    Args:
        config: The recipe.
        corpus_tokens: Tokens of the arm.
        vocab_size: Of the tokenizer.
        model: Figures about the model.
        where: The corpus, for messages.

    Raises:
        ConfigError: If there are not enough tokens for one step, or for what was asked.
    """
    unique = num_sequences(corpus_tokens, config.seq_len)
    per_step = config.seq_len * config.sequences_per_step
    steps = _steps(config, corpus_tokens, unique, per_step, where)
    tokens, kept = steps * per_step, min(steps * config.sequences_per_step, unique) * config.seq_len
    usual = min(MOST_WARMUP_STEPS, math.ceil(steps / 10))
    stated = config.optimiser.warmup_steps
    checkpoints = (config.keep_checkpoints + 1) * CHECKPOINT_BYTES + 4
    return Plan(
        num_parameters=model.num_parameters,
        num_non_embedding=model.num_non_embedding,
        corpus_tokens=corpus_tokens,
        steps=steps,
        tokens_per_step=per_step,
        tokens=tokens,
        unique_tokens=kept,
        epochs=round(tokens / (unique * config.seq_len), 6),
        left_over_tokens=corpus_tokens - kept,
        flops=model.flops_per_token * tokens,
        flops_per_token=model.flops_per_token,
        memory_bytes=int(BYTES_PER_PARAMETER * model.num_parameters + config.micro_batch * model.bytes_per_sequence),
        disk_bytes=checkpoints * model.num_parameters + corpus_tokens * (2 if vocab_size <= 1 << 16 else 4),
        lr=config.optimiser.lr or model.lr or USUAL_LR,
        warmup_steps=usual if stated is None else stated,
        save_every_steps=config.save_every_steps
        or math.ceil(steps / 10 / config.log_every_steps) * config.log_every_steps,
    )


def _steps(config: PretrainConfig, corpus_tokens: int, unique: int, per_step: int, where: str) -> int:
    """Steps that are asked for.

    Raises:
        ConfigError: If the corpus has not as many.
    """
    most = unique * config.epochs // config.sequences_per_step
    if config.steps is not None:
        steps = config.steps
    elif config.tokens is not None:
        steps = config.tokens // per_step
        if not steps:
            raise ConfigError(f"tokens: {config.tokens:,} are less than one step of {per_step:,}; ask for more")
    else:
        steps = most
    if not most:
        raise ConfigError(
            f"{where}: {corpus_tokens:,} tokens are less than one step of {per_step:,}; lower sequences_per_step or"
            " seq_len, or export more"
        )
    if steps > most:
        needed = math.ceil(steps * config.sequences_per_step / unique)
        raise ConfigError(
            f"{where}: {corpus_tokens:,} tokens are there, {steps * per_step:,} are asked for, which would begin"
            f" epoch {config.epochs + 1}; set epochs: {needed} to read the corpus so often, or ask for"
            f" {most * per_step:,} tokens ({counted(most, 'step')})"
        )
    return steps


def micro_batch(config: PretrainConfig, num_devices: int) -> tuple[int, int]:
    """Sequences that a device takes at once, and how many times it does in a step.

    Args:
        config: The recipe.
        num_devices: Devices that share the work.

    Raises:
        ConfigError: If they cannot share it evenly.
    """
    each, rest = divmod(config.sequences_per_step, num_devices)
    if rest or not each:
        raise ConfigError(
            f"sequences_per_step: {config.sequences_per_step} cannot be shared by {num_devices} devices; make it a"
            f" multiple of {num_devices}"
        )
    size = max(size for size in range(1, min(config.micro_batch, each) + 1) if each % size == 0)
    return size, each // size


def forecast_lines(found: Plan) -> list[str]:
    """What a user wants to know before a training begins."""
    again = f", {found.epochs:g} epochs" if found.epochs > 1 else f", {100 * found.epochs:.4g} % of one epoch"
    return [
        f"model: {found.num_parameters:,} parameters, {found.num_non_embedding:,} without input embeddings",
        f"tokens: {found.tokens:,} in {counted(found.steps, 'step')} of {found.tokens_per_step:,}{again};"
        f" {found.left_over_tokens:,} of {found.corpus_tokens:,} stay unread",
        f"work: {found.flops:.3g} operations; learning rate {found.lr:g} after {counted(found.warmup_steps, 'step')}",
        f"memory: about {found.memory_bytes / 1e9:.3g} GB on a device that holds it all;"
        f" disk: about {found.disk_bytes / 1e9:.3g} GB; a checkpoint every {counted(found.save_every_steps, 'step')}",
    ]
