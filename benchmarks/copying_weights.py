"""Weights with which a small model copies before it has learned anything: an induction head, laid out by hand.

In: a model of random weights that begins with a layer of convolutions and one of attention (LFM2). Out: the same model,
in which the convolution tells each token which two stood before it, attention looks for places behind the same
tokens, and what stands there is said. Training finds this too, but it takes most of a small budget; what to copy and
when to stop is left to be learned. All other weights are small and random, and all of them are trained.

Shapes: V vocabulary, D width (a constant, N of a token's code, N of the codes before it, a spare one).
"""

import math
from typing import Any

CONSTANT = 0.3
"""Part of every token's vector that is the same, because gates of the convolution have no bias to be held open by."""
SECOND = 0.6
"""How much the token before the last one counts beside the last."""
STRENGTH = 4.0
"""How much louder a copied token is than the one that is read."""
SHARPNESS = 3.0
"""Scale of queries times that of keys; a perfect match has eight times as much before softmax."""
OTHERS = 0.3
"""Factor of the random weights."""
FAR_TOKENS, MAX_TURN = 300, 0.5
"""Only dimensions that rotary positions turn by less than this over so many tokens compare tokens."""


def lay_out(model: Any, seed: int) -> None:
    """Change a model's weights in place.

    Args:
        model: A causal model of transformers with layers ``conv`` and ``full_attention``.
        seed: Of the codes and the rotations.

    Source:
        Ours. Induction heads: arXiv:2209.11895; weights that begin like trained ones: arXiv:2305.09828.
    """
    import torch

    config = model.config
    if config.layer_types != ["conv", "full_attention", "conv"]:
        raise ValueError(f"layers are {config.layer_types}, not conv, full_attention and conv")
    random = torch.Generator().manual_seed(seed)
    size = config.hidden_size // 2 - 1
    rotation_nn = torch.linalg.qr(torch.randn(size, size, generator=random))[0]
    with torch.no_grad():
        for part in (model.get_input_embeddings(), *model.model.layers[:2]):
            for weight in part.parameters():
                weight.mul_(OTHERS if weight.dim() > 1 else 1)
        code_vn = torch.randn(config.vocab_size, size, generator=random)
        embedding_vd = model.get_input_embeddings().weight
        embedding_vd[:, 0] = CONSTANT
        embedding_vd[:, 1 : 1 + size] = code_vn / code_vn.norm(dim=1, keepdim=True)
        _tell_what_stood_before(model.model.layers[0].conv, rotation_nn)
        _find_and_say(model.model.layers[1].self_attn, config, rotation_nn, random)
        _look_around(model.model.layers[2].conv, random)


def _norm(width: int, *parts: float) -> float:
    """What a normalised vector of `width` is multiplied by, beside its parts of these lengths."""
    return math.sqrt(width / sum(part**2 for part in parts))


def _tell_what_stood_before(conv: Any, rotation_nn: Any) -> None:
    """Both tokens before, the farther one rotated so that order counts, into the second half."""
    import torch

    size, width = len(rotation_nn), conv.out_proj.weight.shape[0]
    scale, identity, before = _norm(width, 1, CONSTANT), torch.eye(size), slice(width // 2, width // 2 + size)
    conv.in_proj.weight[: 2 * width, 0] += 1 / (CONSTANT * scale)  # both gates open
    conv.conv.weight.zero_()
    for part, tap, written in ((0, -2, identity), (1, -3, SECOND * rotation_nn)):
        channels = slice(part * size, (part + 1) * size)
        conv.in_proj.weight[2 * width + part * size : 2 * width + (part + 1) * size, 1 : 1 + size] += identity / scale
        conv.conv.weight[channels, 0, tap] = 1
        conv.out_proj.weight[before, channels] += written


def _look_around(conv: Any, random: Any) -> None:
    """A mixture of the last tokens, with gates that are open, from which it can be learned when to stop copying."""
    import torch

    width, taps = conv.out_proj.weight.shape[0], conv.conv.weight.shape[-1]
    scale = _norm(width, 1, CONSTANT, 1, SECOND, STRENGTH)
    conv.in_proj.weight[: 2 * width, 0] += 1 / (CONSTANT * scale)
    conv.in_proj.weight[2 * width :] = torch.randn(width, width, generator=random) / math.sqrt(width)
    conv.conv.weight[:, 0] = torch.randn(width, taps, generator=random) / math.sqrt(taps)


def _find_and_say(attention: Any, config: Any, rotation_nn: Any, random: Any) -> None:
    """Where the same two tokens stand before, the token there is said; every head compares by other projections."""
    import torch

    size, width, heads = len(rotation_nn), config.hidden_size, config.num_attention_heads
    head_dim, theta = width // heads, config.rope_parameters["rope_theta"]
    slow = [i for i in range(head_dim // 2) if FAR_TOKENS * theta ** (-2 * i / head_dim) < MAX_TURN]
    dims = slow + [i + head_dim // 2 for i in slow]
    scale, identity = _norm(width, 1, CONSTANT, 1, SECOND), torch.eye(size)
    own, before = slice(1, 1 + size), slice(width // 2, width // 2 + size)
    for head in range(heads):
        compared = torch.zeros(head_dim, size)
        compared[dims] = torch.linalg.qr(torch.randn(size, len(dims), generator=random))[0].T
        rows, said = slice(head * head_dim, (head + 1) * head_dim), slice(head * head_dim, head * head_dim + size)
        attention.q_proj.weight[rows, own] += compared / scale
        attention.q_proj.weight[rows, before] += SECOND * compared @ rotation_nn / scale
        attention.k_proj.weight[rows, before] += compared / scale
        attention.v_proj.weight[said, own] += identity / scale
        attention.out_proj.weight[own, said] += STRENGTH / heads * identity
    attention.q_layernorm.weight.fill_(math.sqrt(SHARPNESS))
    attention.k_layernorm.weight.fill_(math.sqrt(SHARPNESS))
