"""Short codes for few queries at once, and what is said when memory is short."""

import numpy as np
import pytest
from listed_inputs import assert_same, build, sentences, unit

from fineinstructions.backends.vector_index import (
    ArraySource,
    add_vectors,
    build_vectors,
    building,
    memory,
    open_vectors,
    remove_vectors,
)
from fineinstructions.backends.vector_index.manifest import ONLINE_FILE
from fineinstructions.errors import ConfigError, DataError

pytestmark = pytest.mark.xdist_group("listed_index")


def test_lack_of_memory_is_told_before(vectors, queries, tmp_path, monkeypatch):
    free = memory.available_bytes()
    assert free is None or free > 1 << 20
    build(tmp_path, vectors)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ConfigError, match=r"building needs about 2 MiB of memory, 1 MiB are free; build on"):
        build(tmp_path, vectors)
    with pytest.raises(ConfigError, match=r"an exact index needs about 2 MiB.* \(index\.kind: ivf\)$"):
        build_vectors(ArraySource([vectors]), tmp_path, "e", kind="exact")
    index = open_vectors(tmp_path)  # still there
    with pytest.raises(ConfigError, match=r"^a search of 40 vectors needs about 128 MiB of memory, 1 MiB are free"):
        index.search(queries, 0.5, 10)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)  # nobody knows, so nothing is refused
    assert index.search(queries, 0.5, 10)


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes() == 2 << 20
    (tmp_path / "memory.current").write_text("1048000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.stat").write_text("anon 7\nactive_file 1000\ninactive_file 24\n")
    assert memory.available_bytes() == 576 + 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 2 << 20
    (tmp_path / "meminfo").unlink()
    assert memory.available_bytes() is None


@pytest.fixture(scope="module", params=[True, False])
def quick(request, vectors, tmp_path_factory):
    return build(tmp_path_factory.mktemp("quick"), vectors, online=True, keeps_vectors=request.param)


def test_short_codes_find_nearly_all_of_it_with_the_same_scores(quick, queries):
    assert quick.manifest.online
    assert ONLINE_FILE in quick.manifest.files
    at_10, wanted = 0, 0
    for listwise, soon in zip(quick.search(queries, -1, 10), quick.search(queries, -1, 10, online=True), strict=True):
        scores = dict(zip(listwise.ids.tolist(), listwise.cosines.tolist(), strict=True))
        at_10, wanted = at_10 + len(scores.keys() & set(soon.ids.tolist())), wanted + len(scores)
        shared = [
            (cosine, scores[row]) for row, cosine in zip(soon.ids.tolist(), soon.cosines, strict=True) if row in scores
        ]
        assert all(a == b for a, b in shared)
        assert np.all(np.diff(soon.cosines) <= 0)
    assert at_10 / wanted > 0.95
    above = quick.search(queries, 0.9, 10, online=True)
    assert all(np.all(found.cosines >= 0.9 - quick.manifest.scores.margin) for found in above)


def test_short_codes_that_propose_everything_lose_nothing(quick, queries):
    """With more proposals than vectors only the 8-bit codes decide, so it must be the list-major result."""
    assert_same(quick.search(queries, 0.5, 4000), quick.search(queries, 0.5, 4000, online=True))


def test_additions_and_removals_hold_for_short_codes_too(vectors, queries, tmp_path):
    build(tmp_path, vectors, online=True)
    add_vectors(tmp_path, ArraySource([queries]))
    found = open_vectors(tmp_path).search(queries, 0.9, 5, online=True)
    assert [n.ids[0] for n in found] == [len(vectors) + i for i in range(len(queries))]
    nearest = np.unique([row for n in found for row in n.ids.tolist()])
    remove_vectors(tmp_path, nearest)
    again = open_vectors(tmp_path).search(queries, 0.5, 5, online=True)
    assert not {row for n in again for row in n.ids.tolist()} & set(nearest.tolist())
    assert sum(len(n.ids) for n in again) > 100


def test_a_removed_crowd_hides_nobody_from_short_codes(vectors, tmp_path):
    crowd = unit(vectors[:1] + 1e-3 * np.random.default_rng(0).standard_normal((605, 48)))
    build(tmp_path, np.concatenate([vectors, crowd]), online=True)
    remove_vectors(tmp_path, np.arange(len(vectors), len(vectors) + 600))
    index = open_vectors(tmp_path)
    assert_same(index.search(vectors[:1], 0.95, 6), index.search(vectors[:1], 0.95, 6, online=True))
    assert len(index.search(vectors[:1], 0.95, 6, online=True)[0].ids) == 6


def test_an_open_index_keeps_its_short_codes_when_the_folder_is_built_anew(vectors, queries, tmp_path):
    old = build(tmp_path, vectors, online=True)
    build(tmp_path, vectors[:900], online=False)
    assert_same(old.search(queries, 0.5, 4000), old.search(queries, 0.5, 4000, online=True))


def test_short_codes_need_no_block_anew(vectors, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "merge_blocks", stop)
        build(tmp_path, vectors)
    monkeypatch.setattr(building, "_spill_block", stop)
    assert build(tmp_path, vectors, online=True, nprobe=5).manifest.online


def test_an_index_without_short_codes_searches_by_lists(coded, exact, queries, tmp_path):
    assert not coded.manifest.online
    assert_same(coded.search(queries, 0.8, 20), coded.search(queries, 0.8, 20, online=True))
    assert_same(exact.search(queries, 0.8, 20), exact.search(queries, 0.8, 20, online=True))
    few = build(tmp_path / "few", sentences(12, 48, seed=9), online=True, nlist=1)  # too few for a sub-quantiser
    assert not few.manifest.online
    assert len(few.search(queries[:1], -1, 12, online=True)[0].ids) == 12


def test_broken_short_codes_are_named(vectors, queries, tmp_path):
    build(tmp_path, vectors, online=True)
    path = tmp_path / ONLINE_FILE
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=r"online-000\.faiss: missing, cut short or changed"):
        open_vectors(tmp_path)
    with pytest.raises(DataError, match=r"online-000\.faiss: FAISS cannot read it"):
        open_vectors(tmp_path, verify=False).search(queries, 0.9, 5, online=True)


def test_short_codes_are_the_same_bytes_again(vectors, tmp_path):
    for name in ("a", "b"):
        build(tmp_path / name, vectors, online=True)
    assert (tmp_path / "a" / ONLINE_FILE).read_bytes() == (tmp_path / "b" / ONLINE_FILE).read_bytes()
