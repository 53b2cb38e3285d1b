"""Vector index: against plain NumPy, against itself in other batches, and against damaged files."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fineinstructions.backends.vector_index import (
    ArraySource,
    Settings,
    VectorIndex,
    add_vectors,
    build_vectors,
    open_vectors,
    remove_vectors,
)
from fineinstructions.errors import ConfigError, DataError


def unit(vectors: NDArray) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, dimension: int, seed: int, spread: float = 0.6) -> NDArray[np.float32]:
    """Vectors around common centres, as sentence vectors lie."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((60, dimension)))
    noise = unit(rng.standard_normal((count, dimension)))
    return unit(centres[rng.integers(0, len(centres), count)] + spread * noise)


def built(vectors: NDArray[np.float32], kind: str = "exact", folder: Path | None = None, **settings) -> VectorIndex:
    place = folder or Path(tempfile.mkdtemp(dir=os.environ["PYTEST_INDEX_DIR"]))
    return build_vectors(ArraySource([vectors]), place, "e-1", kind=kind, settings=Settings(**settings))


@pytest.fixture(autouse=True)
def _index_dir(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PYTEST_INDEX_DIR", str(tmp_path_factory.mktemp("indexes")))


def plain_search(vectors, query, min_cosine, max_candidates, allowed=None):
    """The definition, one vector at a time."""
    rows = range(len(vectors)) if allowed is None else sorted(set(allowed))
    scored = [(round(float(vectors[r].astype(float) @ query.astype(float)), 6), r) for r in rows]
    above = sorted(((c, r) for c, r in scored if c >= min_cosine), key=lambda cr: (-cr[0], cr[1]))
    return [r for _, r in above[:max_candidates]], [c for c, _ in above[:max_candidates]], len(above)


def assert_equal(found, expected):
    assert found.ids.tolist() == expected[0]
    np.testing.assert_allclose(found.cosines, expected[1], atol=1.1e-6)
    assert found.num_above == expected[2]


@given(
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
    st.floats(-1.0, 1.0),
    st.integers(1, 20),
    st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=12)),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exact_index_equals_plain_numpy(count, seed, min_cosine, max_candidates, allowed):
    rng = np.random.default_rng(seed)
    # A coarse grid gives many exact ties, also at the place where max_candidates cuts.
    vectors = unit(rng.integers(-2, 3, (count + 10, 4)) + 0.01)
    queries = unit(rng.integers(-2, 3, (7, 4)) + 0.01)
    index = built(vectors)
    rows = None if allowed is None else np.array(allowed, dtype=np.int64)
    for query, found in zip(queries, index.search(queries, min_cosine, max_candidates, rows), strict=True):
        assert_equal(found, plain_search(vectors, query, min_cosine, max_candidates, allowed))
    if allowed is None or allowed:
        _, cosines = index.best(queries, rows)
        everything = [plain_search(vectors, q, -2.0, 1, allowed)[1][0] for q in queries]
        np.testing.assert_allclose(cosines, everything, atol=1.1e-6)


def test_exact_index_equals_plain_numpy_on_wide_vectors():
    vectors, queries = clustered(3000, 128, seed=1), clustered(70, 128, seed=1)[::5]
    index = built(vectors)
    for min_cosine in (0.3, 0.6, 0.7):
        for query, found in zip(queries, index.search(queries, min_cosine, 64), strict=True):
            assert_equal(found, plain_search(vectors, query, min_cosine, 64))


def test_duplicates_come_back_in_row_order():
    vectors = np.tile(unit(np.ones((1, 16))), (100, 1))
    (found,) = built(vectors).search(vectors[:1], 0.9, 10)
    assert found.ids.tolist() == list(range(10))
    assert found.num_above == 100
    assert set(found.cosines) == {1.0}


def test_threshold_counts_the_stored_cosine():
    vectors = np.array([[0.865, np.sqrt(1 - 0.865**2)], [0.8649, np.sqrt(1 - 0.8649**2)]], dtype=np.float32)
    (found,) = built(vectors).search(np.array([[1, 0]], dtype=np.float32), 0.865, 10)
    assert found.ids.tolist() == [0]
    assert found.cosines.tolist() == [0.865]


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_results_do_not_depend_on_the_batch(kind):
    vectors, queries = clustered(2000, 64, seed=2), clustered(4000, 64, seed=3)[:40]
    index = built(vectors, kind=kind, nprobe=200)
    together = index.search(queries, 0.35, 40)
    alone = [index.search(q[None], 0.35, 40)[0] for q in queries]
    everything = np.arange(len(vectors))
    allowed = index.search(queries, 0.35, 40, everything)
    for a, b, c in zip(together, alone, allowed, strict=True):
        for other in (b, c) if kind == "exact" else (b,):
            np.testing.assert_array_equal(a.ids, other.ids)
            np.testing.assert_array_equal(a.cosines, other.cosines)
            assert a.num_above == other.num_above
    assert max(f.num_above for f in together) > 20


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_many_allowed_rows_take_the_selector_path(kind, monkeypatch):
    vectors, queries = clustered(3000, 32, seed=4), clustered(3000, 32, seed=5)[:30]
    index = built(vectors, kind=kind, nprobe=10_000)
    allowed = np.flatnonzero(np.random.default_rng(0).random(3000) < 0.5)
    gathered, nearest = index.search(queries, 0.3, 20, allowed), index.best(queries, allowed)
    monkeypatch.setattr("fineinstructions.backends.vector_index.exact._MAX_GATHERED", 10)
    for a, b in zip(gathered, index.search(queries, 0.3, 20, allowed), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.cosines, b.cosines)
        assert np.isin(a.ids, allowed).all()
    for expected, found in zip(nearest, index.best(queries, allowed), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_no_allowed_row_finds_nothing():
    index = built(clustered(50, 8, seed=0))
    nothing = np.empty(0, dtype=np.int64)
    (found,) = index.search(index.vectors(np.array([0])), -1.0, 5, nothing)
    assert (len(found.ids), found.num_above) == (0, 0)
    with pytest.raises(ValueError, match="no row is allowed"):
        index.best(index.vectors(np.array([0])), nothing)


def test_the_kind_follows_the_size_unless_it_is_given(tmp_path):
    source = ArraySource([clustered(2000, 16, seed=8)])
    assert build_vectors(source, tmp_path / "a", "e").kind == "exact"
    assert build_vectors(source, tmp_path / "b", "e", exact_up_to=1000).kind == "ivf"
    assert build_vectors(source, tmp_path / "c", "e", exact_up_to=1000, kind="exact").kind == "exact"
    few = ArraySource([clustered(20, 16, seed=8)])  # too few to train several lists
    assert build_vectors(few, tmp_path / "d", "e", kind="ivf").kind == "ivf"


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_a_built_index_is_the_same_bytes_again(kind, tmp_path):
    vectors, queries = clustered(3000, 32, seed=9), clustered(40, 32, seed=10)
    built_index, _ = (built(vectors, kind, tmp_path / name) for name in ("one", "two"))
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    opened = open_vectors(tmp_path / "one", encoder_id="e-1", dimension=32)
    assert (len(opened), opened.dimension, opened.kind, opened.encoder_id) == (3000, 32, kind, "e-1")
    for a, b in zip(built_index.search(queries, 0.2, 30), opened.search(queries, 0.2, 30), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.cosines, b.cosines)
    built(vectors[:1000], kind, tmp_path / "one")  # over the very files that are mapped
    assert len(open_vectors(tmp_path / "one")) == 1000
    assert len(opened.search(queries, 0.2, 30)) == len(queries)


def test_foreign_encoders_and_missing_folders_are_the_users_trouble(tmp_path):
    built(clustered(50, 8, seed=0), folder=tmp_path / "index")
    with pytest.raises(ConfigError, match="'e-1', this run uses 'yours'"):
        open_vectors(tmp_path / "index", encoder_id="yours")
    with pytest.raises(ConfigError, match="width 8, the encoder makes 16"):
        open_vectors(tmp_path / "index", dimension=16)
    with pytest.raises(ConfigError, match="no index here"):
        open_vectors(tmp_path / "elsewhere")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        open_vectors(tmp_path / "index")


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_damaged_files_are_refused_in_one_line(kind, tmp_path):
    built(clustered(500, 8, seed=0), kind, tmp_path)

    def refused(**options):
        with pytest.raises(DataError) as caught:
            open_vectors(tmp_path, **options)
        assert "\n" not in str(caught.value)

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in manifest["files"]:
        path = tmp_path / name
        data = path.read_bytes()
        path.write_bytes(data[:-8])
        refused(verify=False)
        place = len(data) // 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        refused()
        path.write_bytes(b"junk" + data[4:])
        refused(verify=False)
        path.unlink()
        refused(verify=False)
        path.write_bytes(data)
    open_vectors(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "count": 499}))
    refused()
    (tmp_path / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "files"}))
    refused()
    (tmp_path / "manifest.json").write_text("{")
    refused()


def test_bad_arguments():
    with pytest.raises(ValueError, match="unit length"):
        built(np.full((3, 4), 2.0, dtype=np.float32))
    with pytest.raises(ValueError, match="unit length"):
        built(np.full((3, 4), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="at least one"):
        built(np.zeros((0, 4), dtype=np.float32))
    for kind in ("exact", "ivf"):
        index = built(np.eye(4, dtype=np.float32), kind)
        with pytest.raises(ValueError, match="queries"):
            index.search(np.eye(3, dtype=np.float32), 0.5, 1)
        with pytest.raises(ValueError, match="max_candidates"):
            index.search(np.eye(4, dtype=np.float32), 0.5, 0)
        with pytest.raises(ValueError, match="allowed rows"):
            index.search(np.eye(4, dtype=np.float32), 0.5, 1, np.array([4]))


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_zero_vectors_are_near_to_nothing(kind):
    vectors = np.concatenate([np.eye(4, dtype=np.float32), np.zeros((1, 4), dtype=np.float32)])
    index = built(vectors, kind)
    found, zero = index.search(vectors[[0, 4]], 0.1, 10)
    assert found.ids.tolist() == [0]
    assert len(zero.ids) == 0


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_added_vectors_are_found_and_removed_ones_are_not(kind, tmp_path):
    """An index that was added to and taken from answers as one of what is left."""
    vectors, queries = clustered(3000, 32, seed=11), clustered(60, 32, seed=12)
    options = {"nlist": 20, "nprobe": 20}
    built(vectors[:2000], kind, tmp_path, **options)
    add_vectors(tmp_path, ArraySource([vectors[2000:2500]]), "later")
    add_vectors(tmp_path, ArraySource([vectors[2500:]]), "last")
    gone = np.arange(0, 3000, 7)
    assert remove_vectors(tmp_path, gone[:100]) == 100
    assert remove_vectors(tmp_path, gone) == len(gone) - 100
    index, whole = open_vectors(tmp_path), built(vectors, "exact")
    assert (len(index), index.manifest.rows_digest) == (3000, "last")
    left = np.setdiff1d(np.arange(3000), gone)
    np.testing.assert_array_equal(index.vectors(np.array([5, 2400, 2999])), vectors[[5, 2400, 2999]])
    for allowed in (None, np.arange(500, 2700)):
        expected = whole.search(queries, 0.3, 20, left if allowed is None else np.intersect1d(left, allowed))
        for a, b in zip(expected, index.search(queries, 0.3, 20, allowed), strict=True):
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_array_equal(a.cosines, b.cosines)
    np.testing.assert_array_equal(index.best(vectors[gone[:50]])[0] % 7 == 0, False)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*index.manifest.files, "manifest.json"}  # nothing of an earlier state is left
    with pytest.raises(ValueError, match="between 0 and 2999"):
        remove_vectors(tmp_path, np.array([3000]))
