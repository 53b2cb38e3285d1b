"""Weights with which a small model copies before it has learned anything: an induction head, laid out by hand.

In: a model of random weights that begins with a layer of convolutions and one of attention (LFM2). Out: the same model,
in which the convolution tells each token which ones stood before it, attention looks for places behind the same
tokens, and what stands there is said. Training finds this too, but it takes most of a small budget; what to copy and
when to stop is left to be learned. All other weights are small and random, and all of them are trained.

Shapes: V vocabulary, D width (a constant, N of a token's code, N of the codes before it, N of those up to it), T taps.
"""

import math
from typing import Any

CONSTANT = 0.3
"""Part of every token's vector that is the same, because gates of the convolution have no bias to be held open by."""
TOKENS_COMPARED = 6
"""How many tokens are compared, the last one included; two places are told apart by what differs among so many."""
FADING = 0.7
"""How much each token counts beside the one after it."""
STRENGTH = 4.0
"""How much louder a copied token is than the one that is read."""
SHARPNESS = 4.0
"""Scale of queries times that of keys; a perfect match has so many times the root of a head's width before softmax."""
OTHERS = 0.1
"""Factor of the random weights."""
FAR_TOKENS, MAX_TURN = 300, 0.5
"""Only dimensions that rotary positions turn by less than this over so many tokens compare tokens."""
CONVOLUTION, ATTENTION = "conv", "full_attention"


def lay_out(model: Any, seed: int) -> None:
    """Change a model's weights in place.

    Args:
        model: A causal model of transformers whose first layers are ``conv``, ``full_attention`` and ``conv``.
        seed: Of the codes, signs and projections.

    Raises:
        ValueError: If the layers are others, or a convolution sees fewer tokens than are compared.

    Source:
        Ours. Induction heads: arXiv:2209.11895; weights that begin like trained ones: arXiv:2305.09828.
    """
    import torch

    config = model.config
    if config.layer_types[:3] != [CONVOLUTION, ATTENTION, CONVOLUTION] or config.conv_L_cache <= TOKENS_COMPARED:
        raise ValueError(
            f"layers are {config.layer_types}, with convolutions over {config.conv_L_cache} tokens; the first three "
            f"must be conv, full_attention and conv, over more than {TOKENS_COMPARED}"
        )
    random = torch.Generator().manual_seed(seed)
    size = (config.hidden_size - 1) // 3
    with torch.no_grad():
        for part in (model.get_input_embeddings(), *model.model.layers[:2]):
            for weight in part.parameters():
                weight.mul_(OTHERS if weight.dim() > 1 else 1)
        code_vn = torch.randn(config.vocab_size, size, generator=random)
        embedding_vd = model.get_input_embeddings().weight
        embedding_vd[:, 0] = CONSTANT
        embedding_vd[:, 1 : 1 + size] = code_vn / code_vn.norm(dim=1, keepdim=True)
        _tell_what_stood_before(model.model.layers[0].conv, size, random)
        _find_and_say(model.model.layers[1].self_attn, config, size, random)
        _look_around(model.model.layers[2].conv, random)


def _norm(width: int, *parts: float) -> float:
    """What a normalised vector of `width` is multiplied by, beside its parts of these lengths."""
    return math.sqrt(width / sum(part**2 for part in parts))


def _open_gates(conv: Any, scale: float) -> None:
    conv.in_proj.weight[: 2 * conv.out_proj.weight.shape[0], 0] += 1 / (CONSTANT * scale)


def _tell_what_stood_before(conv: Any, size: int, random: Any) -> None:
    """The tokens before each, and those up to it, as a sum in which signs of their own tell the places apart."""
    import torch

    width = conv.out_proj.weight.shape[0]
    scale, identity = _norm(width, 1, CONSTANT), torch.eye(size)
    signs_tn = torch.randint(0, 2, (TOKENS_COMPARED, size), generator=random) * 2.0 - 1
    weight_t = FADING ** torch.arange(TOKENS_COMPARED)
    taps_nt = (signs_tn * (weight_t / weight_t.norm())[:, None]).T.flip(1)
    _open_gates(conv, scale)
    conv.conv.weight.zero_()
    for part, behind in ((0, 1), (1, 0)):  # the tokens before, and those up to this one
        channels = slice(part * size, (part + 1) * size)
        written = slice(1 + (1 + part) * size, 1 + (2 + part) * size)
        end = conv.conv.weight.shape[-1] - behind
        conv.in_proj.weight[2 * width :][channels, 1 : 1 + size] += identity / scale
        conv.conv.weight[channels, 0, end - TOKENS_COMPARED : end] = taps_nt
        conv.out_proj.weight[written, channels] += identity


def _look_around(conv: Any, random: Any) -> None:
    """A mixture of the last tokens, with gates that are open, from which it can be learned when to stop copying."""
    import torch

    width, taps = conv.out_proj.weight.shape[0], conv.conv.weight.shape[-1]
    _open_gates(conv, _norm(width, 1, CONSTANT, 1, 1, STRENGTH))
    conv.in_proj.weight[2 * width :] = torch.randn(width, width, generator=random) / math.sqrt(width)
    conv.conv.weight[:, 0] = torch.randn(width, taps, generator=random) / math.sqrt(taps)
    conv.out_proj.weight[:] = torch.randn(width, width, generator=random) / width  # no louder than a token's code


def _find_and_say(attention: Any, config: Any, size: int, random: Any) -> None:
    """Where the same tokens stand before, the token there is said; every head compares by other projections."""
    import torch

    width, heads = config.hidden_size, config.num_attention_heads
    head_dim, theta = width // heads, config.rope_parameters["rope_theta"]
    slow = [i for i in range(head_dim // 2) if FAR_TOKENS * theta ** (-2 * i / head_dim) < MAX_TURN]
    slow = slow[-(size // 2) :]
    dims = slow + [i + head_dim // 2 for i in slow]
    scale, identity = _norm(width, 1, CONSTANT, 1, 1), torch.eye(size)
    spoken = min(size, head_dim)
    own, before, up_to = (slice(1 + part * size, 1 + (part + 1) * size) for part in range(3))
    for head in range(heads):
        compared = torch.zeros(head_dim, size)
        compared[dims] = torch.linalg.qr(torch.randn(size, len(dims), generator=random))[0].T
        rows, said = slice(head * head_dim, (head + 1) * head_dim), slice(head * head_dim, head * head_dim + spoken)
        attention.q_proj.weight[rows, up_to] += compared / scale
        attention.k_proj.weight[rows, before] += compared / scale
        attention.v_proj.weight[said, own] += identity[:spoken] / scale
        attention.out_proj.weight[own, said] += STRENGTH / heads * identity[:, :spoken]
    attention.q_layernorm.weight.fill_(math.sqrt(SHARPNESS))
    attention.k_layernorm.weight.fill_(math.sqrt(SHARPNESS))
