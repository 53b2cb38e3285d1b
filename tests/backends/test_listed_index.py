"""List-major index: nothing above the threshold is lost in a probed list, whatever the batch, blocks or parts."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listed_inputs import assert_same, build, unit

from fineinstructions.backends.vector_index import (
    ArraySource,
    Settings,
    add_vectors,
    build_vectors,
    building,
    listed,
    open_vectors,
    remove_vectors,
    scoring,
    segments,
)
from fineinstructions.backends.vector_index.neighbours import merged_shards
from fineinstructions.errors import ConfigError

pytestmark = pytest.mark.xdist_group("listed_index")


@pytest.mark.parametrize("min_cosine", [-1.0, 0.3, 0.8, 0.95])
def test_with_float_vectors_and_all_lists_it_is_exact(exact, kept, queries, min_cosine):
    assert_same(exact.search(queries, min_cosine, 40), kept.search(queries, min_cosine, 40), counts=False)
    rows, cosines = kept.best(queries)
    assert np.mean(rows == exact.best(queries)[0]) > 0.8  # only the nearest lists are looked into
    np.testing.assert_allclose(cosines, exact.best(queries)[1], atol=0.05)


@pytest.mark.parametrize("min_cosine", [0.3, 0.8, 0.9])
def test_codes_lose_nothing_above_the_threshold(exact, coded, queries, min_cosine):
    margin = coded.manifest.scores.margin
    for found, wanted in zip(coded.search(queries, min_cosine, 6000), exact.search(queries, -1, 6000), strict=True):
        truth = dict(zip(wanted.ids.tolist(), wanted.cosines.tolist(), strict=True))
        assert {row for row, cosine in truth.items() if cosine >= min_cosine} <= set(found.ids.tolist())
        assert all(truth[row] >= min_cosine - 2 * margin for row in found.ids.tolist())
        assert found.num_above == len(found.ids)
        assert np.all(np.diff(found.cosines) <= 0)
        np.testing.assert_allclose(found.cosines, [truth[row] for row in found.ids.tolist()], atol=margin)


def test_the_manifest_says_how_good_it_is(kept, coded, exact, queries):
    for index in (kept, coded):
        scores, recall = index.manifest.scores, index.manifest.recall
        assert 0 < scores.error_sd < scores.error_max <= scores.margin
        assert recall.at_10 == 1.0 if index is kept else 0.98 < recall.at_10 <= 1.0  # codes may swap the tenth
        assert recall.num_queries == 1000
        assert coded.manifest.keeps_vectors is False
        sample = index.search(queries, 0.5, 50)
        assert sum(n.num_above for n in sample) > 500


def test_recall_falls_with_the_lists_that_are_probed(vectors, tmp_path):
    recalls = [
        build(tmp_path / str(nprobe), vectors, nprobe=nprobe, min_cosine=0.9).manifest.recall for nprobe in (1, 4, 30)
    ]
    assert recalls[0].at_10 < recalls[1].at_10 < recalls[2].at_10 == 1.0
    assert recalls[0].above < recalls[2].above == 1.0
    assert all(recall.num_above > 500 for recall in recalls)


@pytest.mark.parametrize("name", ["kept", "coded"])
@pytest.mark.parametrize("min_cosine", [0.2, 0.9])
def test_a_query_finds_the_same_in_any_company(name, min_cosine, queries, request, monkeypatch):
    index = request.getfixturevalue(name)
    together = index.search(queries, min_cosine, 30)
    assert_same(together, [index.search(query[None], min_cosine, 30)[0] for query in queries])
    assert_same(together[::-1], index.search(queries[::-1].copy(), min_cosine, 30))
    monkeypatch.setattr(listed, "QUERIES_PER_PASS", 7)
    monkeypatch.setattr(scoring, "_TILE_SCORES", 100)
    monkeypatch.setattr(scoring, "_ROWS_AT_ONCE", 11)
    for module in (scoring, listed):
        monkeypatch.setattr(module, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(segments, "_READ_BYTES", 1000)
    assert_same(together, index.search(queries, min_cosine, 30))


def test_hits_that_are_settled_early_change_nothing(coded, kept, queries, monkeypatch):
    for index in (coded, kept):
        whole = index.search(queries, 0.2, 5)
        monkeypatch.setattr(listed, "_MAX_HITS", 500)
        assert_same(whole, index.search(queries, 0.2, 5))
        monkeypatch.undo()


def test_blocks_and_parts_change_nothing_but_the_files(vectors, queries, kept, tmp_path, monkeypatch):
    expected = kept.search(queries, 0.7, 30)
    many_parts = build(tmp_path / "parts", vectors, part_bytes=20_000)
    assert len(many_parts.manifest.segments[0]) > 5
    assert_same(expected, many_parts.search(queries, 0.7, 30))
    monkeypatch.setattr(building, "BLOCK_ROWS", 1000)
    blocks = build(tmp_path / "blocks", vectors)
    assert_same(expected, blocks.search(queries, 0.7, 30))
    assert sorted(p.name for p in blocks.folder.iterdir()) == sorted(p.name for p in kept.folder.iterdir())


@pytest.mark.parametrize("name", ["kept", "coded"])
def test_shards_of_lists_give_the_whole(name, queries, request):
    index = request.getfixturevalue(name)
    for min_cosine in (0.3, 0.9):
        shards = [index.search(queries, min_cosine, 25, lists=range(a, b)) for a, b in ((0, 7), (7, 8), (8, 30))]
        assert_same(index.search(queries, min_cosine, 25), merged_shards(shards, 25), counts=name == "coded")


BUILD = """
import sys, numpy as np
from pathlib import Path
from fineinstructions.backends.vector_index import ArraySource, Settings, build_vectors, building
building.BLOCK_ROWS = 800
source = ArraySource([np.load(sys.argv[1])])
def told(rows):
    print("block", flush=True)
    if len(sys.argv) > 3:
        sys.stdin.readline()
build_vectors(source, Path(sys.argv[2]), "e", kind="ivf", on_progress=told,
              settings=Settings(nlist=30, nprobe=30, head_dims=16, list_dims=8))
"""


def test_a_build_that_was_killed_goes_on(vectors, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "vectors.npy")]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [*command, str(killed), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as builder:
        for _ in range(3):
            builder.stdout.readline()
            builder.stdin.write("\n")
            builder.stdin.flush()
        builder.stdout.readline()
        builder.send_signal(signal.SIGKILL)
    done = {path.name: path.stat().st_mtime_ns for path in (killed / ".building").glob("block-*")}
    assert len(done) >= 9  # three files for each of three blocks
    assert not (killed / "manifest.json").exists()
    with pytest.raises(ConfigError, match="no index here"):
        open_vectors(killed)
    subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in killed.iterdir())
    for name in names:
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_build_uses_no_block_of_another_build(vectors, tmp_path):
    work = tmp_path / ".building"
    work.mkdir()
    (work / "key.json").write_text('{"key": "another"}')
    (work / "block-00000-done.npz").write_bytes(b"no")
    build(tmp_path, vectors)
    assert not work.exists()


def test_vectors_of_an_earlier_build_are_not_served(vectors, queries, tmp_path):
    build(tmp_path, vectors[::-1].copy(), part_bytes=100_000)
    index = build(tmp_path, vectors, keeps_vectors=False)
    assert not list(tmp_path.glob("vectors-*"))
    assert len(list(tmp_path.glob("part-*"))) == len(index.manifest.segments[0])
    decoded = index.vectors(np.arange(50))
    assert np.einsum("ij,ij->i", decoded, vectors[:50]).min() > 0.995
    everything = index.search(queries, 0.8, 50, np.arange(len(vectors)))
    for a, b in zip(index.search(queries, 0.8, 50), everything, strict=True):
        assert len(np.setxor1d(a.ids, b.ids)) <= 2  # at the place where 50 are cut


@pytest.mark.parametrize("added", [False, True])
def test_vectors_unlike_the_sample_are_found_too(vectors, tmp_path, added, monkeypatch):
    """A stretch of another topic that training does not see, inside the bank or added to it."""
    rng = np.random.default_rng(5)
    direction = unit(rng.standard_normal((1, 48)))
    strange = unit(direction + 0.4 * unit(rng.standard_normal((300, 48))) * np.linspace(0, 1, 48)[::-1])
    monkeypatch.setattr(building, "_SAMPLE_RUNS", 4)
    monkeypatch.setattr(building, "_MAX_SAMPLE", 1000)
    whole = np.concatenate([vectors[:600], strange, vectors[600:]])
    first = vectors if added else whole
    index = build(tmp_path, first, keeps_vectors=False)
    if added:
        add_vectors(tmp_path, ArraySource([strange]))
        index, whole = open_vectors(tmp_path), np.concatenate([vectors, strange])
    exact = build_vectors(ArraySource([whole]), tmp_path / "exact", "e", kind="exact")
    wanted = found = 0
    for a, b in zip(exact.search(strange[:60], 0.8, 400), index.search(strange[:60], 0.8, 10_000), strict=True):
        wanted, found = wanted + len(a.ids), found + len(np.intersect1d(a.ids, b.ids))
    assert wanted > 500
    assert found == wanted
    assert index.manifest.scores.margin < 0.02


def test_a_list_of_removed_rows_hides_nothing(vectors, queries, tmp_path):
    build(tmp_path, vectors)
    gone = open_vectors(tmp_path).search(queries[:1], 0.0, 3000)[0].ids
    remove_vectors(tmp_path, gone)
    rows, cosines = open_vectors(tmp_path).best(queries[:1])
    assert rows[0] not in gone
    assert np.isfinite(cosines).all()
    remove_vectors(tmp_path, np.arange(len(vectors)))
    with pytest.raises(ValueError, match="every row was removed"):
        open_vectors(tmp_path).best(queries)


def test_an_empty_shard_finds_nothing(coded, queries):
    assert sum(len(n.ids) for n in coded.search(queries, 0.2, 10, lists=range(5, 5))) == 0
    with pytest.raises(ValueError, match="either some rows or some lists"):
        coded.search(queries, 0.2, 10, np.arange(5), lists=range(3))


def test_the_best_is_the_same_in_any_company(kept, coded, queries):
    for index in (kept, coded):
        rows, cosines = index.best(queries)
        alone = [index.best(query[None]) for query in queries]
        np.testing.assert_array_equal(rows, [row[0] for row, _ in alone])
        np.testing.assert_array_equal(cosines, [cosine[0] for _, cosine in alone])


def test_no_room_is_told_before(vectors, tmp_path, monkeypatch):
    class Huge(ArraySource):
        @property
        def count(self) -> int:
            return 10**12

    with pytest.raises(ConfigError, match=r"needs about [\d,]+ MiB of disk"):
        build_vectors(Huge([vectors]), tmp_path, "e", kind="ivf")


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(-1, 1), st.integers(1, 9))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_equals_the_exact_search(tmp_path_factory, count, dimension, seed, min_cosine, lists):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.integers(-2, 3, (count, dimension)) + 0.01)
    queries = unit(rng.integers(-2, 3, (5, dimension)) + 0.01)
    folder = tmp_path_factory.mktemp("any")
    exact = build_vectors(ArraySource([vectors]), folder / "exact", "e", kind="exact")
    options = Settings(nlist=lists, nprobe=lists, head_dims=8, list_dims=4)
    index = build_vectors(ArraySource([vectors]), folder / "ivf", "e", kind="ivf", settings=options)
    assert_same(exact.search(queries, min_cosine, 10), index.search(queries, min_cosine, 10), counts=False)
