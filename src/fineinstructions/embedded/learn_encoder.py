"""Rows to start the encoder from: passages in, one vector per word stem out.

Classical all through: passages and their words, weighed by rarity, factorised by a randomised SVD. A word's row is the
unit vector of its directions, times its rarity, so that sums of rows find texts that share rare words before anything
is trained. The decision to question: all directions count alike, strong or weak, because what tells one word from
another lies in the weak ones.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.bags import bags, sparse
from fineinstructions.embedded.encoder import NUM_BUCKETS, token_key, word_spans

# Shape legend: N passages, V vocabulary, D width.

DIMENSIONS = 384
MAX_VOCABULARY = 48_000
MIN_PASSAGES = 4
PASSAGE_WORDS = 120
MAX_PASSAGES_PER_DOCUMENT = 24
RARITY_POWER = 1.3
"""Length of a row as a power of its word's inverse passage frequency. Ours, the better of 1 and 1.3."""
SPARE_DIRECTIONS = 16
POWER_ITERATIONS = 2
SEED = 20260122

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """A run of a document's words under one heading, as look-up keys."""

    keys: tuple[str, ...]
    heading: tuple[str, ...]


def passages(title: str, text: str) -> list[Passage]:
    """Cut a document at its headings, and every section into runs of `PASSAGE_WORDS`.

    Args:
        title: The document's title; it heads what stands before the first heading.
        text: The document's text, Markdown headings marked.
    """
    found = []
    marks = [(0, 0, title), *((m.start(), m.end(), m.group(1)) for m in _HEADING.finditer(text))]
    for (_, start, heading), following in zip(marks, [*marks[1:], (len(text), 0, "")], strict=True):
        keys = [token_key(word) for word, _, _ in word_spans(text[start : following[0]])]
        head = tuple(token_key(word) for word, _, _ in word_spans(heading))
        starts = range(0, len(keys), PASSAGE_WORDS)
        found += [Passage(tuple(keys[position : position + PASSAGE_WORDS]), head) for position in starts]
    return found[:MAX_PASSAGES_PER_DOCUMENT]


@dataclass(frozen=True)
class LearnedEncoder:
    """Look-up keys and their weighted vectors."""

    keys: list[str]
    vectors: NDArray[np.float32]
    """Shape (V, D), weight included."""


def learn_encoder(
    corpus: Sequence[Passage], extra_words: Iterable[str], dimensions: int = DIMENSIONS
) -> LearnedEncoder:
    """Learn word vectors from passages.

    Args:
        corpus: Passages of all documents.
        extra_words: Further texts' words (queries), which only help to choose the vocabulary.
        dimensions: Width of a vector, at most; small corpora have fewer directions.

    Returns:
        The encoder's table, rows in the order of falling passage frequency, then the rows of unknown words.
    """
    frequency = Counter(key for p in corpus for key in {*p.keys, *p.heading})
    frequency.update(k for k, n in Counter(map(token_key, extra_words)).items() if n >= MIN_PASSAGES and k in frequency)
    ranked = sorted(frequency, key=lambda k: (-frequency[k], k))
    keys = [k for k in ranked if frequency[k] >= MIN_PASSAGES][:MAX_VOCABULARY]
    number = {key: i for i, key in enumerate(keys)}
    known = [[number[k] for k in (*p.heading, *p.keys) if k in number] for p in corpus]
    counts_nv = bags([np.array(row, np.int32) for row in known], len(keys))
    rarity_v = np.log1p(len(corpus) / (1.0 + np.bincount(counts_nv.indices, minlength=len(keys))))
    counts_nv.data = (np.log1p(counts_nv.data) * rarity_v[counts_nv.indices]).astype(np.float32)
    lengths_n = np.sqrt(counts_nv.multiply(counts_nv).sum(axis=1).A1)
    scaled_nv = (sparse().diags((1.0 / np.maximum(lengths_n, 1e-9)).astype(np.float32)) @ counts_nv).tocsr()
    directions_vd = _directions(scaled_nv, min(dimensions, *scaled_nv.shape))
    weight_v = (rarity_v / rarity_v.max()) ** RARITY_POWER
    return _with_buckets(keys, (directions_vd * weight_v[:, None]).astype(np.float32))


def _directions(scaled_nv: Any, width: int) -> NDArray[np.float32]:
    """Unit rows of the right singular vectors, shape (V, D): a randomised SVD."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    columns = min(width + SPARE_DIRECTIONS, *scaled_nv.shape)
    basis_vc = generator.standard_normal((scaled_nv.shape[1], columns)).astype(np.float32)
    turned_vn = scaled_nv.T.tocsr()
    for _ in range(POWER_ITERATIONS):
        basis_vc, _ = np.linalg.qr(turned_vn @ (scaled_nv @ basis_vc))
    projected_nc = scaled_nv @ basis_vc
    _, axes_cc = np.linalg.eigh((projected_nc.T @ projected_nc).astype(np.float64))
    found_vd = basis_vc @ axes_cc[:, ::-1][:, :width].astype(np.float32)
    signs_d = np.sign(found_vd[np.abs(found_vd).argmax(axis=0), np.arange(width)])
    found_vd = found_vd * np.where(signs_d == 0, 1.0, signs_d)
    return np.asarray(found_vd / np.maximum(np.linalg.norm(found_vd, axis=1, keepdims=True), 1e-9), np.float32)


def _with_buckets(keys: list[str], vectors: NDArray[np.float32]) -> LearnedEncoder:
    """Add rows of random directions, as long as the longest words', for words outside the vocabulary."""
    generator = np.random.Generator(np.random.PCG64(SEED + 1))
    random = generator.standard_normal((NUM_BUCKETS, vectors.shape[1])).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    random *= np.quantile(np.linalg.norm(vectors, axis=1), 0.9) if len(vectors) else 1.0
    return LearnedEncoder([*keys, *(f"#{number}" for number in range(NUM_BUCKETS))], np.vstack([vectors, random]))


def quantised(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as signed bytes, and the scale of each row, shape (V, 1)."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    return np.round(vectors / largest * 127.0).astype(np.int8), (largest / 127.0).astype(np.float32)
