"""One small set of vectors, and its exact and list-major indexes, for all tests of the vector index."""

import pytest
from listed_inputs import build, sentences

from fineinstructions.backends.vector_index import ArraySource, build_vectors


@pytest.fixture(scope="module")
def vectors():
    return sentences(4000, 48, seed=1)


@pytest.fixture(scope="module")
def queries():
    return sentences(40, 48, seed=2)


@pytest.fixture(scope="module")
def exact(vectors, tmp_path_factory):
    return build_vectors(ArraySource([vectors]), tmp_path_factory.mktemp("exact"), "e", kind="exact")


@pytest.fixture(scope="module")
def kept(vectors, tmp_path_factory):
    return build(tmp_path_factory.mktemp("kept"), vectors)


@pytest.fixture(scope="module")
def coded(vectors, tmp_path_factory):
    return build(tmp_path_factory.mktemp("coded"), vectors, keeps_vectors=False)
