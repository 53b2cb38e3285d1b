"""Models by size or config.json: what they count, what they cost, and their weights before training.

In: a name and a vocabulary. Out: a configuration of transformers, figures about it, and a model. The decision a reader
would question: named sizes begin with Lingua's weights (truncated normal, deviation one over the root of the inputs), a
config.json with those that its own ``initializer_range`` asks for.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fineinstructions.backends.tokenizer import TokenizerFacts
from fineinstructions.errors import ConfigError
from fineinstructions.llama_shapes import NORM_EPS, ROPE_THETA, SHAPES

if TYPE_CHECKING:
    import torch

EXTRA = "train"
INSTALL = f"pip install 'fineinstructions[{EXTRA}]'"
PEAK_FLOPS = (
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A10G", 70e12),
)
"""Dense bf16 operations a second by a part of the device's name, as their makers' data sheets have them."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model counts and costs."""

    num_parameters: int
    num_non_embedding: int
    """Without the table of input vectors, where the output has one of its own."""
    flops_per_token: float
    """Of forward and backward pass, attention counted to the diagonal, nothing counted twice."""
    bytes_per_sequence: float
    """About the memory that one sequence takes in a training step, in bf16."""
    lr: float | None
    """Learning rate to begin with, where the size has a usual one."""


def require_train() -> None:
    """Refuse to go on without the libraries of a training.

    Raises:
        ConfigError: If one is missing.
    """
    try:
        import accelerate
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(f"pretrain needs {error.name}; {INSTALL}") from None
    del accelerate, torch, transformers


def model_config(name: str, facts: TokenizerFacts, seq_len: int) -> Any:
    """A configuration of transformers.

    Args:
        name: A size of `SHAPES`, or the path of a config.json.
        facts: The tokenizer, which decides the vocabulary.
        seq_len: Longest sequence.

    Raises:
        ConfigError: If there is no such size or file, or it does not fit the tokenizer or the sequences.
    """
    from transformers import LlamaConfig

    if name not in SHAPES:
        return _config_of_file(Path(name), facts, seq_len)
    shape = SHAPES[name]
    return LlamaConfig(
        vocab_size=facts.vocab_size,
        hidden_size=shape.dim,
        intermediate_size=shape.ffn_dim,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        max_position_embeddings=seq_len,
        rms_norm_eps=NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        bos_token_id=facts.bos_id,
        eos_token_id=facts.eos_id,
        pad_token_id=None,
    )


def _config_of_file(path: Path, facts: TokenizerFacts, seq_len: int) -> Any:
    from transformers import AutoConfig

    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"model: {path}: no such size or file; there are {', '.join(SHAPES)}, or name a config.json")
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["model_type"]
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: {path}: not a config.json of a model that transformers knows ({line})") from None
    if config.vocab_size < facts.vocab_size:
        raise ConfigError(
            f"model: {path}: vocab_size {config.vocab_size:,}, but the tokenizer has {facts.vocab_size:,} ids; raise it"
        )
    longest = getattr(config, "max_position_embeddings", seq_len)
    if longest < seq_len:
        raise ConfigError(f"model: {path}: a {kind} of {longest:,} positions, fewer than seq_len {seq_len:,}; lower it")
    config.bos_token_id, config.eos_token_id = facts.bos_id, facts.eos_id
    return config


def model_facts(config: Any, seq_len: int, name: str = "") -> ModelFacts:
    """What a model counts and costs; its weights are never made.

    Args:
        config: Configuration of transformers.
        seq_len: Tokens of a sequence.
        name: Its size, if it has one.

    Source:
        6 operations per parameter and token, and 12 per layer, width and token that is looked back on, of which
        a causal mask leaves half (arXiv:2204.02311, appendix B). Memory of activations: arXiv:2205.05198, section
        4, with fused attention; logits in 32 bits, three times.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    num = sum(weight.numel() for weight in model.parameters())
    vectors = model.get_input_embeddings().weight
    tied = getattr(config, "tie_word_embeddings", False)
    num_non_embedding = num if tied else num - vectors.numel()
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    flops = 6 * num_non_embedding + 6 * layers * seq_len * width
    kept = seq_len * (34 * layers * config.hidden_size + 12 * config.vocab_size)
    lr = SHAPES[name].lr if name in SHAPES else None
    return ModelFacts(num, num_non_embedding, float(flops), float(kept), lr)


def build_model(config: Any, seed: int, *, like_lingua: bool) -> "torch.nn.Module":
    """A model with its weights before training, in 32 bits.

    Args:
        config: Configuration of transformers.
        seed: Decides the weights.
        like_lingua: Whether they are drawn as Lingua draws them.
    """
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    if like_lingua:
        _draw_like_lingua(model, seed)
    return model


def _draw_like_lingua(model: "torch.nn.Module", seed: int) -> None:
    """Truncated normal weights; norms stay at 1.

    Source:
        Lingua at 437d680: deviation 1 / sqrt(inputs), cut at three deviations.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                std = 1 / math.sqrt(weight.shape[1])
                torch.nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)


def only_looks_back(config: Any) -> bool:
    """Whether tokens reach each other by attention alone, so that a mask keeps rows that stand together apart.

    Convolutions and states, as LFM2 and Mamba have them, pass on what stood before a row.

    Args:
        config: Configuration of transformers.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    kinds = getattr(config, "layer_types", None) or []
    return not getattr(model, "_is_stateful", False) and all("attention" in kind for kind in kinds)


def peak_flops(device_name: str) -> float | None:
    """Most dense bf16 operations of a device in a second; ``None`` where that is not known.

    Example:
        >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("cpu")
        (989000000000000.0, None)
    """
    return next((flops for part, flops in PEAK_FLOPS if part in device_name), None)
