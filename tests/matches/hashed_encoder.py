"""A small real encoder for tests: every word has a random vector of its own."""

import hashlib
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.encoder import PooledDocument, TokenEmbeddings
from fineinstructions.backends.windows import pooled_by_windows
from fineinstructions.pooling import Pooling

DIMENSION = 128


@cache
def word_vector(word: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


class HashedEncoder:
    """Words of at most `window_tokens`; what lies behind is cut off. Common words weigh next to nothing."""

    encoder_id = "hashed-1"
    dimension = DIMENSION
    min_cosine = 0.5

    def __init__(self, window_tokens: int = 1_000_000) -> None:
        self.window_tokens = window_tokens
        self.num_calls = 0

    def encode_tokens(self, texts: Sequence[str]) -> list[TokenEmbeddings]:
        self.num_calls += 1
        found = []
        for text in texts:
            words = [(m.group().lower(), m.span()) for m in re.finditer(r"\w+", text)][: self.window_tokens]
            vectors = [word_vector(w) * (0.05 if len(w) < 4 else 1.0) for w, _ in words]
            found.append(
                TokenEmbeddings(
                    np.array(vectors, dtype=np.float32).reshape(len(words), DIMENSION),
                    np.array([span for _, span in words], dtype=np.int64).reshape(len(words), 2),
                )
            )
        return found

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        return [pooled_by_windows(t, self.encode_tokens, self.window_tokens, DIMENSION, pooling) for t in texts]

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        sums = np.stack([tokens.vectors.sum(axis=0) for tokens in self.encode_tokens(texts)])
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
