"""Vectors for index benchmarks: the same from the same seed, in blocks that do not depend on one another."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def vectors() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("realistic_vectors")


@pytest.fixture(scope="module")
def base(vectors: ModuleType) -> Any:
    numbers = np.random.default_rng(0).integers(-100, 101, (500, vectors.WIDTH), dtype=np.int8)
    return vectors.Base(numbers, held_out=50, seed=1)


def test_blocks_are_addressed_by_number(base: Any) -> None:
    whole = np.concatenate(list(base.blocks(250, rows=100)))
    assert whole.shape == (250, 1024)
    assert np.array_equal(whole[200:], base.block(2, 50))
    assert np.array_equal(base.block(2, 50), base.block(2, 100)[:50])
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert not np.array_equal(base.block(0, 10), base.block(1, 10))


def test_the_seed_decides(vectors: ModuleType, base: Any) -> None:
    again, other = (vectors.Base(base.sentences, base.held_out, seed) for seed in (1, 2))
    assert np.array_equal(again.block(3, 20), base.block(3, 20))
    assert np.array_equal(again.queries(20, indexed=100), base.queries(20, indexed=100))
    assert not np.array_equal(other.block(3, 20), base.block(3, 20))
    assert not np.array_equal(base.queries(20, indexed=200), base.queries(20, indexed=100))


def test_statistics_are_those_of_brute_force(vectors: ModuleType, base: Any) -> None:
    queries = base.queries(20)
    cosines = queries @ np.concatenate(list(base.blocks(300, rows=128))).T
    found = vectors.statistics(base.blocks(300, rows=128), queries)
    assert found["NN1 p50"] == pytest.approx(np.median(cosines.max(axis=1)), abs=1e-5)
    assert found["hits mean"] == (cosines >= vectors.THRESHOLD).sum() / 20


@pytest.mark.slow
def test_the_same_texts_give_the_same_base(vectors: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="preparing a base needs scipy: pip install scipy")
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{word}" for word in rng.integers(0, 1500, 10)) for _ in range(1300)]
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"text": ["\n".join(lines[::2]), "\n".join(lines[1::2]), None]}), path)
    first, again = (vectors.prepare([path], tmp_path / name, seed=1) for name in ("first", "again"))
    assert np.array_equal(first.sentences, again.sentences)
    assert (len(first.sentences), first.held_out) == (1300, 50)
    assert np.array_equal(vectors.open_base(tmp_path / "first").block(3, 20), again.block(3, 20))
    with pytest.raises(SystemExit, match="another seed"):
        vectors.prepare([path], tmp_path / "first", seed=2)


def test_too_little_text_is_refused(vectors: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="preparing a base needs scipy: pip install scipy")
    path = tmp_path / "few.parquet"
    pq.write_table(pa.table({"text": ["one two three four five six seven eight"] * 3}), path)
    with pytest.raises(SystemExit, match="too little text"):
        vectors.prepare([path], tmp_path / "base")
