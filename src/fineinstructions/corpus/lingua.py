"""Recipes for Lingua (facebookresearch/lingua): YAML that trains on exported files, the paper's model and small ones.

In: the figures of an arm. Out: one YAML file per arm and size. The decision a reader would question: `steps` comes from
the rank that has the fewest tokens, less what the loader reads ahead. Lingua begins a second epoch without a word, so a
recipe that asked for more would break the promise that every token was seen once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from fineinstructions.backends.tokenizer import BYTES, TokenizerFacts
from fineinstructions.errors import ConfigError
from fineinstructions.llama_shapes import MULTIPLE_OF, NORM_EPS, ROPE_THETA, SHAPES

SEQ_LEN = 4096
BATCH_SIZE = 4
TOKENS_A_STEP = 1 << 20
"""Of the paper's runs: 4 rows of 4,096 tokens, accumulated 8 times, on 8 ranks."""
PREFETCH_SIZE = 1024
"""Batches that a rank reads ahead and shuffles, where there are enough of them. Authors' release."""
SIZES = ("1.8b", "350m", "125m", "30m", "5m")
"""Models that get a recipe: the paper's, and small ones."""


OPTIMISER: Mapping[str, Any] = MappingProxyType(
    {
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "epsilon": 1.0e-8,
        "clip": 1.0,
        "scheduler": "cosine",
        "lr_min_ratio": 1.0e-6,
    }
)
"""Authors' release; the learning rate and its warm-up depend on model and steps."""


DATA: Mapping[str, Any] = MappingProxyType(
    {"batch_size": BATCH_SIZE, "seq_len": SEQ_LEN, "n_views": 2, "seed": 42, "add_bos": True, "add_eos": True}
)
"""Authors' release."""


def check_tokenizer(facts: TokenizerFacts) -> None:
    """Refuse a tokenizer that Lingua cannot read.

    Raises:
        ConfigError: If it is a tokenizer.json.
    """
    if facts.kind == "hf":
        raise ConfigError(
            "--tokenizer: Lingua reads a tiktoken rank file (Llama 3's tokenizer.model) or bytes; name that"
        )


def steps_without_repeat(rank_tokens: Sequence[int], grad_acc_steps: int) -> tuple[int, int]:
    """Most steps in which no rank begins its file again, and how many batches may be read ahead.

    Args:
        rank_tokens: Tokens that every rank has.
        grad_acc_steps: Batches of a rank in a step.

    Returns:
        Steps, 0 where there are not enough tokens for one; and `prefetch_size`, at most an eighth of all batches.

    Example:
        >>> steps_without_repeat([2_884_000_000] * 8, 8), steps_without_repeat([100_000] * 2, 1)
        ((21875, 1024), (5, 1))
    """
    batches = max(0, min(rank_tokens, default=0) - 1) // (BATCH_SIZE * SEQ_LEN)
    prefetch = max(1, min(PREFETCH_SIZE, batches // 8))
    return max(0, batches - prefetch) // grad_acc_steps, prefetch


def recipe(name: str, arm: str, root_dir: str, rank_tokens: Sequence[int], tokenizer: TokenizerFacts, path: str) -> str:
    """A YAML recipe.

    Args:
        name: Size, one of `SIZES`.
        arm: The arm, which is the source's folder.
        root_dir: Folder of the export.
        rank_tokens: Tokens that every rank has.
        tokenizer: What the export was counted with.
        path: Its file, empty for bytes.

    Source:
        Values of the paper's run: model card of ``pretraining_experiments``. Keys: Lingua at 437d680.
    """
    shape, ranks = SHAPES[name], len(rank_tokens)
    grad_acc_steps = max(1, TOKENS_A_STEP // (BATCH_SIZE * SEQ_LEN * ranks))
    steps, prefetch = steps_without_repeat(rank_tokens, grad_acc_steps)
    named = {"name": tokenizer.kind, **({"path": path} if tokenizer.kind != BYTES else {})}
    plain: dict[str, Any] = {
        "name": f"{arm}-{name}",
        "dump_dir": f"lingua-runs/{arm}-{name}",
        "steps": steps,
        "seed": 777,
        "grad_acc_steps": grad_acc_steps,
        "optim": {**OPTIMISER, "lr": shape.lr, "warmup": min(2000, max(1, steps // 10))},
        "distributed": {
            "dp_replicate": ranks,
            "dp_shard": 1,
            "tp_size": 1,
            "fsdp_type": "no_shard",
            "compile": True,
            "model_dtype": "bf16",
        },
        "model": {
            "dim": shape.dim,
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
            "vocab_size": tokenizer.vocab_size,
            "multiple_of": MULTIPLE_OF,
            "rope_theta": ROPE_THETA,
            "norm_eps": NORM_EPS,
            "max_seqlen": SEQ_LEN,
            "weight_tying": False,
            "seed": 42,
        },
        "data": {**DATA, "root_dir": root_dir, "sources": {arm: 1.0}, "prefetch_size": prefetch, "tokenizer": named},
        "checkpoint": {"dump": {"every": max(1, steps // 10), "keep": 2}},
        "logging": {"freq": 10},
    }
    millions = shape.num_parameters(tokenizer.vocab_size) / 1e6
    tokens_a_step = BATCH_SIZE * SEQ_LEN * grad_acc_steps * ranks
    head = (
        f"# {arm}, {millions:,.1f} million parameters, {tokens_a_step:,} tokens a step, {ranks} data-parallel ranks.\n"
        f"# {steps:,} steps: no rank reads a row twice. current_iter in train_state_*.json must stay 0.\n"
        "# torchrun --nproc-per-node N -m apps.main.train config=THIS_FILE  (data.root_dir=... where the data moved)\n"
    )
    return head + yaml.safe_dump(plain, sort_keys=False)


def write_recipes(
    out: Path, target: Path, ranks: Mapping[str, Sequence[int]], tokenizer: TokenizerFacts, path: str
) -> None:
    """Write a recipe for every arm and size.

    Args:
        out: Folder that is written.
        target: Where it will lie.
        ranks: Tokens of every rank, by arm.
        tokenizer: What the export was counted with.
        path: Its file.
    """
    for arm, rank_tokens in ranks.items():
        for name in SIZES:
            text = recipe(name, arm, str(target.absolute()), rank_tokens, tokenizer, path)
            (out / f"lingua.{arm}.{name}.yaml").write_text(text, encoding="utf-8")
