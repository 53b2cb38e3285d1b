"""Small list-major indexes of vectors that lie as sentence vectors do."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index import ArraySource, Settings, VectorIndex, build_vectors


def unit(vectors: NDArray) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sentences(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Vectors with a common mean and a falling spectrum around a hundred topics, as sentence vectors lie."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((100, dimension))
    spectrum = (1.0 + np.arange(dimension)) ** -0.5
    drawn = topics[rng.integers(0, 100, count)] + 0.5 * rng.standard_normal((count, dimension))
    return unit(drawn * spectrum + 0.15)


def build(folder: Path, vectors: NDArray[np.float32], **options) -> VectorIndex:
    options = {"nlist": 30, "nprobe": 30, "head_dims": 16, "list_dims": 8, **options}
    return build_vectors(ArraySource([vectors]), folder, "e", kind="ivf", settings=Settings(**options))


def assert_same(expected, found, *, counts: bool = True):
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.cosines, b.cosines)
        assert not counts or a.num_above == b.num_above
