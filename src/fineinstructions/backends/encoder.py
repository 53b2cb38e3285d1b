"""The encoder behind matching: what any text encoder must offer, and what it returns.

Documents come back token by token, so that `pooling` can make the vector of the whole and of every coverage chunk from
one pass; descriptions come back as one vector each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Shape legend: B texts, T tokens, D width.


@dataclass(frozen=True)
class TokenEmbeddings:
    """One text's tokens as vectors.

    The plain mean of the vectors is the text's meaning; an encoder that weighs its tokens has scaled them already.
    """

    vectors: NDArray[np.float32]
    """Shape (T, D), not normalised."""
    spans: NDArray[np.int64]
    """Shape (T, 2): half-open character offsets of every token in the text."""


class Encoder(Protocol):
    """Maps documents and compatible document descriptions into one space, compared by cosine."""

    encoder_id: str
    """Name and content digest; stored with every index, so that an index is never searched with another encoder."""
    dimension: int
    """Width of a vector (D)."""
    window_tokens: int
    """Longest text, in the encoder's own tokens, that it encodes at once; what lies behind is cut off."""
    min_cosine: float
    """Calibrated default threshold for a candidate."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (B, D); a text without a known token gives a zero row."""
        ...

    def encode_tokens(self, texts: Sequence[str]) -> list[TokenEmbeddings]:
        """Token vectors of each text, in order."""
        ...
