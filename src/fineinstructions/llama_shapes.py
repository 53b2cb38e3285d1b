"""Llama models by size: the paper's 1.8B as released, and others for experiments; one definition for all trainers.

In: a name. Out: a shape, with its parameters and the work of a token. The decision a reader would question: names of
the small sizes count blocks and a small vocabulary. With Llama 3's 128,256 tokens embeddings outweigh their blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MULTIPLE_OF = 256
ROPE_THETA = 10000.0
NORM_EPS = 1.0e-5
"""Authors' release."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of Lingua: Llama's architecture, with untied embeddings and as many key heads as heads."""

    dim: int
    n_layers: int
    n_heads: int
    lr: float
    """Learning rate to begin with."""

    @property
    def ffn_dim(self) -> int:
        """Width inside the feed-forward blocks: two thirds of four times `dim`, rounded up to `MULTIPLE_OF`."""
        return -(-int(2 * 4 * self.dim / 3) // MULTIPLE_OF) * MULTIPLE_OF

    def num_parameters(self, vocab_size: int) -> int:
        """Parameters with a vocabulary of that size.

        Example:
            >>> SHAPES["1.8b"].num_parameters(128_256)
            1809946624
        """
        block = 4 * self.dim**2 + 3 * self.dim * self.ffn_dim + 2 * self.dim
        return self.n_layers * block + self.dim + 2 * vocab_size * self.dim


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "7b": Shape(dim=4096, n_layers=32, n_heads=32, lr=3e-4),
        "1.8b": Shape(dim=2048, n_layers=25, n_heads=16, lr=1e-3),
        "350m": Shape(dim=1024, n_layers=24, n_heads=16, lr=1e-3),
        "300m": Shape(dim=768, n_layers=14, n_heads=12, lr=1e-3),
        "125m": Shape(dim=768, n_layers=12, n_heads=12, lr=1e-3),
        "30m": Shape(dim=512, n_layers=9, n_heads=8, lr=2e-3),
        "5m": Shape(dim=256, n_layers=6, n_heads=4, lr=3e-3),
    }
)
"""1.8b: the paper's as released (model card of ``pretraining_experiments``). 7b: the preset of Lingua. 300m: 296
million parameters with Llama 3's vocabulary; the paper does not say what its 300M looked like. Others: usual small
ones. Learning rates but that of 1.8b are ours."""
