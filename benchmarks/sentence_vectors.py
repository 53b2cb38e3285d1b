"""Real texts to centred sentence vectors whose spectrum is that of a sentence encoder.

Comes in: Parquet files with a `text` column. Goes out: one vector a sentence, as 8-bit numbers in a file that can be
mapped into memory. TF-IDF of words and word pairs is projected by a randomized SVD, and every direction is then
stretched to the wanted share of the variance: the neighbourhoods are those of real sentences, the spectrum is set by
hand. No vector of a trained encoder is involved. Needs scipy (`pip install scipy`).

Shapes: S sentences, F features, K sketch, D width.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

WIDTH = 1024
SKETCH = WIDTH + 64
SAMPLE = 150_000
"""Sentences from which the directions are learnt; all are projected on them."""

MAX_SENTENCES = 520_000
MIN_WORDS, MAX_WORDS = 8, 64
"""Shorter sentences ("what is ...") are too alike: with them, a few queries have nearly all of the close pairs."""

MAX_FEATURES = 120_000
MIN_FEATURE_COUNT = 5

ENERGY = {64: 0.59, 128: 0.71, 256: 0.82, 512: 0.92, 1024: 1.0}
"""Wanted share of the variance in the first directions."""

FIRST_DECAY = 0.6
"""Exponent of the decay inside the first 64 directions; further ones decay as the shares ask."""

NORM_BOUNDS = (0.8, 1.6)
"""Least and largest norm of a sentence, as a share of the root mean square: without them, sentences that the
directions hardly know lie near the common mean, where each has thousands of neighbours."""

STEP = 8 / 127 / WIDTH**0.5
"""Unit of the stored numbers: 127 is 8 times the root mean square of a coordinate."""

CHUNK = 8192

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\s*\n\s*")
WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")

Floats = NDArray[np.float32]


def parquet_files(paths: list[Path]) -> list[Path]:
    """The files named and those in the folders named, in order.

    Raises:
        SystemExit: If there is none.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.parquet")) if path.is_dir() else [path])]
    if not files:
        raise SystemExit(f"no Parquet file in {', '.join(map(str, paths))}")
    return files


def sentences(files: list[Path], seed: int) -> list[str]:
    """Different sentences as lower-case words, shuffled, at most `MAX_SENTENCES`."""
    found: dict[str, None] = {}
    for file in files:
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist():
            for sentence in SENTENCE_END.split(text or ""):
                words = WORD.findall(sentence.lower())
                if MIN_WORDS <= len(words) <= MAX_WORDS:
                    found[" ".join(words)] = None
    texts = list(found)
    order = np.random.default_rng([seed, 0]).permutation(len(texts))[:MAX_SENTENCES]
    return [texts[place] for place in order]


def tf_idf(texts: list[str]) -> Any:
    """Weights of words and word pairs, rows of length 1.

    Args:
        texts: Sentences, words parted by blanks.

    Returns:
        Sparse rows (S', F) in the order of the texts; sentences without a known feature are left out.
    """
    sparse = scipy_sparse()
    ids: dict[str, int] = {}
    words = np.fromiter((ids.setdefault(word, len(ids)) for text in texts for word in text.split()), np.int64)
    rows = np.repeat(np.arange(len(texts), dtype=np.int32), [text.count(" ") + 1 for text in texts])
    inside = rows[1:] == rows[:-1]
    pairs = (words[:-1] * len(ids) + words[1:])[inside]
    keys = np.concatenate([words - len(ids), pairs])
    rows = np.concatenate([rows, rows[1:][inside]])
    _, features, counts = np.unique(keys, return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:MAX_FEATURES]
    frequent = frequent[counts[frequent] >= MIN_FEATURE_COUNT]
    columns = np.full(len(counts), -1, np.int32)
    columns[frequent] = np.arange(len(frequent))
    columns = columns[features]
    known = columns >= 0
    ones = np.ones(known.sum(), np.float32)
    weights = sparse.csr_matrix((ones, (rows[known], columns[known])), shape=(len(texts), len(frequent)))
    weights.sum_duplicates()
    documents = np.bincount(weights.indices, minlength=len(frequent))
    idf = (np.log((1 + len(texts)) / (1 + documents)) + 1).astype(np.float32)
    weights.data = (1 + np.log(weights.data)) * idf[weights.indices]
    weights = weights[np.diff(weights.indptr) > 0]
    lengths = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    return (sparse.diags(1 / lengths).astype(np.float32) @ weights).tocsr()


def scipy_sparse() -> Any:
    """The sparse matrices of scipy.

    Raises:
        SystemExit: If scipy is not installed.
    """
    try:
        import scipy.sparse
    except ImportError:
        raise SystemExit("scipy is missing: pip install scipy") from None
    return scipy.sparse


def spectrum() -> NDArray[np.float64]:
    """Wanted variance of every direction (D,), falling, with sum 1."""
    variance = np.empty(WIDTH)
    edges = [0, *ENERGY]
    shares = np.diff([0.0, *ENERGY.values()])
    densities = shares / np.diff(edges)
    for part, (first, last) in enumerate(itertools.pairwise(edges)):
        if first == 0:
            power = FIRST_DECAY
        else:
            # Steepness between the geometric means with the neighbours, so that parts meet without a jump.
            before = np.sqrt(densities[part - 1] * densities[part])
            after = np.sqrt(densities[part] * densities[min(part + 1, len(shares) - 1)])
            power = np.log(before / after) / np.log(last / first)
        decay = np.arange(first + 1, last + 1, dtype=np.float64) ** -power
        variance[first:last] = decay / decay.sum() * shares[part]
    return variance


def orthonormal(matrix: Floats) -> Floats:
    """Columns of the same span, orthonormal to about 1e-3: far cheaper than QR, and whitening follows anyway."""
    values, vectors = np.linalg.eigh((matrix.T @ matrix).astype(np.float64))
    return matrix @ (vectors / np.sqrt(np.maximum(values, values[-1] * 1e-9))).astype(np.float32)


@dataclass(frozen=True)
class Projection:
    """Linear map from features to centred vectors."""

    matrix: Floats
    offset: Floats
    scale: float
    """Root mean square of the norms once they are bounded."""

    def __call__(self, weights: Any) -> Floats:
        """Vectors (S, D) of sparse rows (S, F), norms bounded, their root mean square 1."""
        vectors: Floats = weights @ self.matrix - self.offset
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors *= (np.clip(norms, *NORM_BOUNDS) / np.maximum(norms, 1e-6) / self.scale).astype(np.float32)[:, None]
        return vectors


def learn_projection(weights: Any, seed: int) -> Projection:
    """Randomized SVD with one power step, then the wanted spectrum and a random rotation.

    Args:
        weights: Sparse rows (S, F).
        seed: Seed of the sketch and of the rotation.

    Raises:
        SystemExit: If the texts are too few for the width.
    """
    sample = weights[:SAMPLE]
    sketch = min(SKETCH, *sample.shape)
    if sketch < WIDTH:
        raise SystemExit(f"too little text: {sample.shape[0]} sentences, {sample.shape[1]} features, {WIDTH} needed")
    rng = np.random.default_rng([seed, 1])
    span = orthonormal(sample @ rng.standard_normal((sample.shape[1], sketch), dtype=np.float32))
    directions = orthonormal(sample.T.tocsr() @ span)
    projected = sample @ directions
    mean = projected.mean(axis=0, dtype=np.float64)
    covariance = (projected.T @ projected).astype(np.float64) / len(projected) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values)[:WIDTH]
    stretch = np.sqrt(spectrum() / np.maximum(values[order], values[-1] * 1e-9))
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    turn = (vectors[:, order] * stretch) @ rotation
    offset = mean @ turn
    placed = projected @ turn.astype(np.float32) - offset.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", placed, placed))
    mean_norm = float(np.sqrt(np.mean(norms**2)))
    scale = float(np.sqrt(np.mean(np.clip(norms / mean_norm, *NORM_BOUNDS) ** 2)))
    matrix = directions @ (turn / mean_norm).astype(np.float32)
    return Projection(matrix, (offset / mean_norm).astype(np.float32), scale)


def stored_chunks(weights: Any, projection: Projection) -> Iterator[NDArray[np.int8]]:
    """Vectors of all sentences in units of `STEP`, `CHUNK` rows at a time."""
    for first in range(0, weights.shape[0], CHUNK):
        vectors = projection(weights[first : first + CHUNK]) / np.float32(STEP)
        yield np.clip(np.rint(vectors), -127, 127).astype(np.int8)


def write_vectors(files: list[Path], path: Path, seed: int) -> int:
    """Write one vector a sentence to a .npy file.

    Args:
        files: Parquet files with a `text` column.
        path: Where the array goes, int8 of shape (S, D).
        seed: Seed of the order, the sketch and the rotation.

    Returns:
        Number of sentences (S).
    """
    weights = tf_idf(sentences(files, seed))
    projection = learn_projection(weights, seed)
    stored = np.lib.format.open_memmap(path, "w+", np.int8, (weights.shape[0], WIDTH))
    first = 0
    for chunk in stored_chunks(weights, projection):
        stored[first : first + len(chunk)] = chunk
        first += len(chunk)
    stored.flush()
    return first
