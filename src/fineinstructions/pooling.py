"""Token vectors -> K + 1 document vectors: K local ones, weighted by Gaussians along the text, and one global mean.

In: the token vectors of one document, in text order, padding removed. Out: one matrix whose row ``k`` is coverage
chunk ``k`` and whose last row is the whole document, so that ``vectors[match.chunk]`` is right for every chunk,
`records.GLOBAL_CHUNK` (-1) included. Matching and training share this one definition.

The decision to question: all weights, the global mean included, form one (K + 1, T) matrix, so that a document costs
one matrix product, taken in double precision: it costs a tenth of a millisecond more, and the vectors then come out the
same whatever the number of threads. Matrices of short documents are kept, because documents of one length share them.

Shapes: K coverage chunks, T tokens, D width.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Centres = Literal["midpoint", "linspace"]
"""Where the Gaussians stand: at ``(k + 0.5) / K``, or evenly from the first token to the last."""

_NEGLIGIBLE = 1e-20
"""Weights this far below the largest of their row become zero: subnormal numbers would slow the product down."""
_MAX_CACHED_TOKENS = 2048
_MAX_CACHED_LENGTHS = 256
_BLOCK_TOKENS = 4096
"""Token vectors widened to double precision at once: bounds memory."""


def chunk_centres(coverage_chunks: int, centres: Centres = "midpoint") -> NDArray[np.float64]:
    """Centres of the coverage chunks, as fractions of the document.

    Args:
        coverage_chunks: Number of coverage chunks (K).
        centres: ``midpoint`` for ``(k + 0.5) / K``, ``linspace`` for ``k / (K - 1)``. One chunk alone stands at 0.5.

    Returns:
        Rising fractions between 0 and 1, shape (K,).

    Raises:
        ValueError: If the number is below 1 or the kind is unknown.

    Source:
        arXiv:2601.22146, section 3.2 says "evenly spaced", which both are; ``midpoint`` as the default is ours, because
        the outer Gaussians of ``linspace`` spend half of their weight outside the text.

    Example:
        >>> chunk_centres(5).tolist()
        [0.1, 0.3, 0.5, 0.7, 0.9]
    """
    if coverage_chunks < 1:
        raise ValueError(f"coverage_chunks must be at least 1, not {coverage_chunks}")
    if centres not in ("midpoint", "linspace"):
        raise ValueError(f"centres must be 'midpoint' or 'linspace', not {centres!r}")
    if centres == "linspace" and coverage_chunks > 1:
        return np.linspace(0.0, 1.0, coverage_chunks)
    return (np.arange(coverage_chunks) + 0.5) / coverage_chunks


def gaussian_weights(
    num_tokens: int, coverage_chunks: int, sigma: float, centres: Centres = "midpoint"
) -> NDArray[np.float32]:
    """Weight of every token in every coverage chunk.

    Token ``i`` stands at ``i / (T - 1)``, a lone token at the start. Exponents are shifted by their largest value in
    each row before they are taken, so a row never underflows to zero, however narrow the Gaussian or short the text.

    Args:
        num_tokens: Document length in encoder tokens (T).
        coverage_chunks: Number of coverage chunks (K).
        sigma: Standard deviation, as a fraction of the document length.
        centres: Where the Gaussians stand; see `chunk_centres`.

    Returns:
        Weights of shape (K, T); every row sums to 1.

    Raises:
        ValueError: If a count is below 1 or ``sigma`` is not positive.

    Source:
        arXiv:2601.22146, section 3.2; the formula is the reading of the authors' released pooling layer.
    """
    return _gaussians(num_tokens, coverage_chunks, sigma, centres).astype(np.float32)


def _gaussians(num_tokens: int, coverage_chunks: int, sigma: float, centres: Centres) -> NDArray[np.float64]:
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be at least 1, not {num_tokens}")
    variance = float(sigma) ** 2
    if not (sigma > 0 and variance > 0):
        raise ValueError(f"sigma must be positive, not {sigma}")
    positions_t = np.arange(num_tokens) / max(num_tokens - 1, 1)
    squares_kt = np.square(positions_t[None, :] - chunk_centres(coverage_chunks, centres)[:, None])
    squares_kt -= squares_kt.min(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a tiny sigma sends far tokens to exp(-inf) = 0, which is what is meant
        weights_kt = np.exp(squares_kt / (-2.0 * variance))
    weights_kt[weights_kt < _NEGLIGIBLE] = 0.0
    normalised_kt: NDArray[np.float64] = weights_kt / weights_kt.sum(axis=1, keepdims=True)
    return normalised_kt


def pooling_weights(
    num_tokens: int, coverage_chunks: int, sigma: float, alpha: float, centres: Centres = "midpoint"
) -> NDArray[np.float64]:
    """Weight of every token in every vector of a document: the matrix that `pool` multiplies by.

    Args:
        num_tokens: Document length in encoder tokens (T).
        coverage_chunks: Number of coverage chunks (K).
        sigma: Standard deviation, as a fraction of the document length.
        alpha: Share of the Gaussian mean in a local vector; the rest is the plain mean. 1 is purely local.
        centres: Where the Gaussians stand; see `chunk_centres`.

    Returns:
        Read-only weights of shape (K + 1, T); every row sums to 1, the last one is ``1 / T`` throughout.

    Raises:
        ValueError: If a count is below 1, ``sigma`` is not positive or ``alpha`` is outside 0 to 1.
    """
    weights = _cached_weights if num_tokens <= _MAX_CACHED_TOKENS else _weights
    return weights(num_tokens, coverage_chunks, sigma, alpha, centres)


def _weights(
    num_tokens: int, coverage_chunks: int, sigma: float, alpha: float, centres: Centres
) -> NDArray[np.float64]:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    local = _gaussians(num_tokens, coverage_chunks, sigma, centres)
    weights = np.full((coverage_chunks + 1, num_tokens), 1.0 / num_tokens)
    weights[:-1] = alpha * local + (1.0 - alpha) * weights[:-1]
    weights.flags.writeable = False
    return weights


_cached_weights = lru_cache(maxsize=_MAX_CACHED_LENGTHS)(_weights)


def weighted_sums(weights: NDArray[np.float64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of token vectors under each row of weights, in double precision.

    Args:
        weights: Shape (K + 1, T).
        vectors: Token vectors, shape (T, D).

    Returns:
        Shape (K + 1, D).
    """
    sums = np.zeros((len(weights), vectors.shape[1]))
    for start in range(0, len(vectors), _BLOCK_TOKENS):
        block = slice(start, start + _BLOCK_TOKENS)
        sums += weights[:, block] @ vectors[block].astype(np.float64)
    return sums


def unit_rows(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a row of zeros stays zero, so that its cosine with everything is 0.

    Raises:
        ValueError: If a value is not finite.
    """
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold a value that is not finite")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def pool(
    vectors: NDArray[np.float32],
    coverage_chunks: int,
    sigma: float,
    alpha: float,
    centres: Centres = "midpoint",
) -> NDArray[np.float32]:
    """Vectors of the coverage chunks and of the whole document.

    Args:
        vectors: Token vectors in text order, without padding, shape (T, D).
        coverage_chunks: Number of coverage chunks (K).
        sigma: Standard deviation, as a fraction of the document length.
        alpha: Share of the Gaussian mean in a local vector; the rest is the plain mean. The blend comes before the
            scaling to unit length.
        centres: Where the Gaussians stand; see `chunk_centres`.

    Returns:
        Unit vectors of shape (K + 1, D): row ``k`` is chunk ``k``, the last row the whole document. A row whose tokens
        cancel out is zero.

    Raises:
        ValueError: If there is no token, a vector is not finite or a parameter is out of range.

    Source:
        arXiv:2601.22146, section 3.2. The order of the rows is ours.

    Example:
        >>> pool(np.array([[2.0, 0.0], [0.0, 3.0]], dtype=np.float32), 2, 0.05, 1.0).tolist()[:2]
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (T, D), not {vectors.shape}")
    return unit_rows(weighted_sums(pooling_weights(len(vectors), coverage_chunks, sigma, alpha, centres), vectors))


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the tokens of a document become its vectors; what an encoder is told.

    Example:
        >>> Pooling(coverage_chunks=2).weights(4).shape
        (3, 4)
    """

    coverage_chunks: int = 5
    """Number of coverage chunks (K). Paper, section 3.2; so are the next two."""
    sigma: float = 0.05
    """Standard deviation, as a fraction of the document length."""
    alpha: float = 1.0
    """Share of the Gaussian mean in a local vector."""
    centres: Centres = "midpoint"
    """Where the Gaussians stand; see `chunk_centres`."""

    def weights(self, num_tokens: int) -> NDArray[np.float64]:
        """As `pooling_weights`: shape (K + 1, T), read-only."""
        return pooling_weights(num_tokens, self.coverage_chunks, self.sigma, self.alpha, self.centres)

    def pool(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `pool`: unit vectors of shape (K + 1, D)."""
        return pool(vectors, self.coverage_chunks, self.sigma, self.alpha, self.centres)
