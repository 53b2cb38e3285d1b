"""Pooling: the properties of method.md sections 3.3 and 11, and a slow, literal reference."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fineinstructions.pooling import chunk_centres, gaussian_weights, pool, pooling_weights, unit_rows
from fineinstructions.records import GLOBAL_CHUNK

lengths = st.integers(1, 300)
chunk_counts = st.integers(1, 12)
sigmas = st.floats(1e-4, 10.0)
alphas = st.floats(0.0, 1.0)
kinds = st.sampled_from(["midpoint", "linspace"])
seeds = st.integers(0, 2**32 - 1)


def random_tokens(num_tokens: int, seed: int, dimension: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((num_tokens, dimension)).astype(np.float32)


@given(lengths, chunk_counts, sigmas, kinds)
def test_rows_sum_to_one_and_mirror(num_tokens, chunks, sigma, kind):
    weights = gaussian_weights(num_tokens, chunks, sigma, kind)
    assert weights.shape == (chunks, num_tokens)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    if num_tokens > 1:
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-5)


@given(lengths, chunk_counts, alphas, kinds, seeds)
def test_reversed_text_gives_reversed_chunks(num_tokens, chunks, alpha, kind, seed):
    tokens = random_tokens(num_tokens, seed)
    forward, backward = pool(tokens, chunks, 0.05, alpha, kind), pool(tokens[::-1], chunks, 0.05, alpha, kind)
    np.testing.assert_allclose(forward[:-1], backward[:-1][::-1], atol=2e-4)
    np.testing.assert_allclose(forward[GLOBAL_CHUNK], backward[GLOBAL_CHUNK], atol=2e-4)


@given(st.integers(1, 40), chunk_counts, st.floats(0.02, 1.0), alphas, kinds, seeds, st.integers(0, 20))
def test_equals_the_padded_formula(num_tokens, chunks, sigma, alpha, kind, seed, padding):
    """The formula of method.md 3.3 token by token, on a padded batch of one: padding does not shift a position."""
    tokens = random_tokens(num_tokens, seed)
    padded = np.concatenate([tokens, np.full((padding, tokens.shape[1]), 7.0, dtype=np.float32)]).astype(np.float64)
    valid = [1] * num_tokens + [0] * padding
    mean = sum(m * h for m, h in zip(valid, padded, strict=True)) / num_tokens
    rows = []
    for centre in chunk_centres(chunks, kind):
        weights = []
        for i, is_token in enumerate(valid):
            position = i / (num_tokens - 1) if num_tokens > 1 else 0.0
            weights.append(is_token * math.exp(-((position - centre) ** 2) / (2 * sigma**2)))
        if sum(weights) == 0.0:  # the literal formula underflows where ours does not
            return
        local = sum(w * h for w, h in zip(weights, padded, strict=True)) / sum(weights)
        rows.append(alpha * local + (1 - alpha) * mean)
    expected = np.stack([*rows, mean])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(tokens, chunks, sigma, alpha, kind), expected, atol=1e-3)


@given(lengths, chunk_counts, seeds)
def test_alpha_zero_and_large_sigma_give_the_global_mean(num_tokens, chunks, seed):
    tokens = random_tokens(num_tokens, seed)
    for vectors in (pool(tokens, chunks, 0.05, 0.0), pool(tokens, chunks, 1e6, 1.0)):
        np.testing.assert_allclose(vectors, np.tile(vectors[GLOBAL_CHUNK], (chunks + 1, 1)), atol=1e-3)


@given(lengths, chunk_counts, sigmas, alphas, kinds, seeds)
def test_rows_are_unit_vectors(num_tokens, chunks, sigma, alpha, kind, seed):
    vectors = pool(random_tokens(num_tokens, seed), chunks, sigma, alpha, kind)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("sigma", [1e-150, 1e-9, 1e-3, 1e150])
def test_no_row_underflows(sigma):
    for num_tokens in (1, 2, 3, 7):
        weights = gaussian_weights(num_tokens, 5, sigma)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_one_token_is_every_vector():
    vectors = pool(np.array([[3.0, 4.0]], dtype=np.float32), 5, 0.05, 1.0)
    np.testing.assert_allclose(vectors, [[0.6, 0.8]] * 6, atol=1e-6)


def test_the_papers_setting_leaves_gaps_between_chunks():
    weights = gaussian_weights(1001, 5, 0.05)
    assert weights.argmax(axis=1).tolist() == [100, 300, 500, 700, 900]
    between = weights[:, 200] / weights.max(axis=1)
    np.testing.assert_allclose(between[:2], math.exp(-2), atol=1e-3)  # two standard deviations from either centre


def test_zero_tokens_stay_zero_and_infinite_ones_are_refused():
    assert not pool(np.zeros((4, 3), dtype=np.float32), 5, 0.05, 1.0).any()
    np.testing.assert_array_equal(unit_rows(np.array([[0.0, 0.0], [0.0, 2.0]])), [[0, 0], [0, 1]])
    with pytest.raises(ValueError, match="not finite"):
        pool(np.array([[np.inf, 1.0]], dtype=np.float32), 5, 0.05, 1.0)


def test_long_documents_are_summed_in_blocks():
    tokens = random_tokens(9000, seed=0)
    expected = pooling_weights(9000, 5, 0.05, 0.7) @ tokens.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(tokens, 5, 0.05, 0.7), expected, atol=1e-6)


def test_the_number_of_threads_changes_no_bit():
    script = """
import hashlib, numpy as np
from fineinstructions.pooling import pool
tokens = np.random.default_rng(0).standard_normal((6000, 256)).astype(np.float32)
print(hashlib.sha256(b"".join(pool(tokens[:n], 5, 0.05, 1.0).tobytes() for n in range(1, 6000, 97))).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_weights_are_shared_and_read_only():
    assert pooling_weights(50, 5, 0.05, 1.0) is pooling_weights(50, 5, 0.05, 1.0)
    assert pooling_weights(5000, 5, 0.05, 1.0) is not pooling_weights(5000, 5, 0.05, 1.0)
    for num_tokens in (50, 5000):
        with pytest.raises(ValueError, match="read-only"):
            pooling_weights(num_tokens, 5, 0.05, 1.0)[0, 0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 0.05, 1.0), "num_tokens"),
        ((3, 0, 0.05, 1.0), "coverage_chunks"),
        ((3, 5, 0.0, 1.0), "sigma"),
        ((3, 5, -1.0, 1.0), "sigma"),
        ((3, 5, math.nan, 1.0), "sigma"),
        ((3, 5, 0.05, 1.5), "alpha"),
        ((3, 5, 0.05, math.nan), "alpha"),
        ((3, 5, 0.05, 1.0, "ends"), "centres"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        pooling_weights(*arguments)


def test_bad_shapes():
    with pytest.raises(ValueError, match="num_tokens"):
        pool(np.zeros((0, 3), dtype=np.float32), 5, 0.05, 1.0)
    with pytest.raises(ValueError, match="shape"):
        pool(np.zeros(3, dtype=np.float32), 5, 0.05, 1.0)
