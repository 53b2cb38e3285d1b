"""8-bit products: the same pairs as with floats, and chosen by the processor."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_inputs import assert_same, build, sentences

from fineinstructions.backends.vector_index import open_vectors, products, scoring
from fineinstructions.backends.vector_index.products import int8_product
from fineinstructions.errors import ConfigError

pytestmark = pytest.mark.xdist_group("listed_index")


@pytest.mark.extra
@pytest.mark.parametrize("min_cosine", [-1.0, 0.5, 0.9])
def test_products_change_no_result(kept, coded, queries, min_cosine, monkeypatch):
    for index in (kept, coded):
        codes = open_vectors(index.folder, products="int8")
        floats = open_vectors(index.folder, products="float")
        assert_same(floats.search(queries, min_cosine, 30), codes.search(queries, min_cosine, 30))
        assert_same(floats.search(queries[:1], min_cosine, 30), codes.search(queries[:1], min_cosine, 30))
    monkeypatch.setattr(scoring, "_ROWS_AT_ONCE", 11)
    assert_same(floats.search(queries, min_cosine, 30), codes.search(queries, min_cosine, 30))


@pytest.mark.extra
def test_products_of_codes_keep_what_lies_at_the_threshold(tmp_path):
    """Many pairs exactly at the threshold, and queries whose one great coordinate makes their codes coarse."""
    rng = np.random.default_rng(3)
    vectors = sentences(1500, 48, seed=5)
    coarse = 0.1 * vectors[:20] + np.eye(48, dtype=np.float32)[rng.integers(0, 48, 20)]
    queries = np.concatenate([vectors[::50], coarse / np.linalg.norm(coarse, axis=1, keepdims=True)]).astype(np.float32)
    build(tmp_path, vectors, keeps_vectors=False)
    codes, floats = (open_vectors(tmp_path, products=name) for name in ("int8", "float"))
    for found in floats.search(queries, 0.3, 5)[:10]:
        cut = float(found.cosines[2])
        assert_same(floats.search(queries, cut, 2000), codes.search(queries, cut, 2000))


@pytest.mark.extra
@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 384), st.integers(0, 2**32))
def test_the_8_bit_product_is_exact(num_queries, num_records, dims, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-127, 128, (number, dims)).astype(np.int8) for number in (num_queries, num_records))
    product = int8_product("int8")
    assert product is not None
    np.testing.assert_array_equal(product(a, b), a.astype(np.int64) @ b.astype(np.int64).T)


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("fpu avx2 avx512_vnni", True), ("fpu avx_vnni", True), ("amx_tile amx_int8", True), ("fpu avx2 avx512f", False)],
)
def test_the_processor_decides(flags, fast, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx512_vnni\n")
    monkeypatch.setattr(products, "_CPUINFO", path)
    monkeypatch.setattr(products.importlib.util, "find_spec", lambda name: object())
    products._is_fast_at_8_bit.cache_clear()
    assert (int8_product("auto") is not None) == fast
    assert int8_product("float") is None
    monkeypatch.setattr(products, "_CPUINFO", tmp_path / "none")
    products._is_fast_at_8_bit.cache_clear()
    assert int8_product("auto") is None
    products._is_fast_at_8_bit.cache_clear()


def test_without_pytorch_floats_are_multiplied(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(products.importlib.util, "find_spec", lambda name: None)
    assert int8_product("auto") is None
    with pytest.raises(ConfigError, match=r"index\.products: int8 needs PyTorch; pip install"):
        int8_product("int8")
