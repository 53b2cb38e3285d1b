"""The global shuffle: every row once, in the order of its key, whatever fits into memory and however rows come."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fineinstructions.corpus import shuffle
from fineinstructions.corpus.shuffle import shuffled
from fineinstructions.seeded_order import row_keys


def rows(number: int, seed: int = 0) -> pa.Table:
    ids = [f"row {n}" for n in range(number)]
    return pa.table({"id": ids, "key": row_keys(seed, "shuffle", ids), "text": ["x" * (n % 50) for n in range(number)]})


def cut_up(table: pa.Table, seed: int) -> list[pa.Table]:
    draw, place, parts = random.Random(seed), 0, []
    while place < table.num_rows:
        size = draw.randint(1, 90)
        parts.append(table.slice(place, size))
        place += size
    return parts


@pytest.mark.parametrize("max_bytes", [2_000, 40_000, 1 << 30])
def test_rows_come_in_the_order_of_their_keys(tmp_path: Path, max_bytes: int) -> None:
    table = rows(1500)
    found = pa.concat_tables(shuffled(cut_up(table, max_bytes), tmp_path / "buckets", max_bytes))
    assert found.equals(table.take(pa.array(np.argsort(table["key"].to_numpy()))))
    assert not (tmp_path / "buckets").exists()


def test_the_order_depends_on_the_seed_and_not_on_the_order_before(tmp_path: Path) -> None:
    table = rows(500)
    turned = table.take(list(range(499, -1, -1)))
    first, again = (pa.concat_tables(shuffled([t], tmp_path / "b")) for t in (table, turned))
    assert first.equals(again)
    other = pa.concat_tables(shuffled([rows(500, seed=1)], tmp_path / "b"))["id"].to_pylist()
    assert other != first["id"].to_pylist()
    assert sorted(other) == sorted(first["id"].to_pylist())


def test_neighbours_are_torn_apart(tmp_path: Path) -> None:
    places = pa.concat_tables(shuffled([rows(4000)], tmp_path / "b"))["id"].to_pylist()
    numbers = [int(name.split()[1]) for name in places]
    correlation = np.corrcoef(numbers, range(4000))[0, 1]
    assert abs(correlation) < 0.06


def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sorted at once is never much more than what was allowed."""
    held: list[int] = []
    before = shuffle._sorted
    monkeypatch.setattr(
        shuffle, "_sorted", lambda tables: (held.append(sum(t.nbytes for t in tables)), before(tables))[1]
    )
    table = rows(20_000)
    found = sum(t.num_rows for t in shuffled(cut_up(table, 3), tmp_path / "b", 50_000))
    assert found == 20_000
    assert len(held) > 16
    assert max(held) < 110_000 < table.nbytes / 8


def test_equal_keys_and_nothing_at_all(tmp_path: Path) -> None:
    same = pa.table({"id": ["a", "b"] * 500, "key": np.full(1000, 7, np.uint64)})
    assert pa.concat_tables(shuffled(cut_up(same, 1), tmp_path / "b", 200)).num_rows == 1000
    assert list(shuffled([], tmp_path / "b")) == []
