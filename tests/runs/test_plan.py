"""Planning: every row in exactly one unit, within the limits, under ids that come from content."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_run import some_texts, write_documents

from fineinstructions.errors import ConfigError
from fineinstructions.runs import ParquetInput, describe_parquet, plan_units

row_groups = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), max_size=6)


@given(st.lists(row_groups, max_size=4), st.integers(1, 3000), st.integers(1, 40))
def test_units_cover_every_row_once(groups: list[list[tuple[int, int]]], unit_bytes: int, unit_rows: int) -> None:
    files = [ParquetInput(f"f{i}", f"print{i}", tuple(g)) for i, g in enumerate(groups)]
    specs = plan_units(files, unit_bytes, unit_rows)
    rows = [(spec.path, row) for spec in specs for row in range(spec.row_start, spec.row_stop)]
    assert rows == [(file.path, row) for file in files for row in range(file.num_rows)]
    assert [spec.ordinal for spec in specs] == list(range(len(specs)))
    assert len({spec.unit_id for spec in specs}) == len(specs)
    for spec in specs:
        assert 1 <= spec.num_rows <= unit_rows
        assert spec.num_bytes <= unit_bytes or spec.num_rows == 1 or spec.num_bytes <= unit_bytes + 5000


@given(row_groups, st.integers(1, 120))
def test_limit_takes_rows_from_the_start(groups: list[tuple[int, int]], max_rows: int) -> None:
    files = [ParquetInput("f", "print", tuple(groups)), ParquetInput("g", "other", tuple(groups))]
    specs = plan_units(files, 1000, 10, max_rows)
    rows = [(spec.path, row) for spec in specs for row in range(spec.row_start, spec.row_stop)]
    assert rows == [(file.path, row) for file in files for row in range(file.num_rows)][:max_rows]


def test_ids_follow_content_and_not_the_path(tmp_path: Path) -> None:
    first = write_documents(tmp_path / "a.parquet", some_texts(60))
    moved = tmp_path / "elsewhere.parquet"
    shutil.copy(first, moved)
    plan = plan_units([describe_parquet(first)], 1 << 20, 20)
    assert [s.unit_id for s in plan] == [s.unit_id for s in plan_units([describe_parquet(moved)], 1 << 20, 20)]
    twice = plan_units([describe_parquet(first), describe_parquet(moved)], 1 << 20, 20)
    assert len({s.unit_id for s in twice}) == 2 * len(plan)


def test_one_changed_letter_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = []
    for letter in "bc":
        table = pa.table({"text": ["a" * 100, letter * 100, "z" * 100]})
        pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
        prints.append(describe_parquet(tmp_path / "a.parquet").fingerprint)
    assert prints[0] != prints[1]


def test_a_large_file_is_fingerprinted_in_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.runs.plan.WHOLE_READ_BYTES", 1000)
    monkeypatch.setattr("fineinstructions.runs.plan.BLOCK_BYTES", 16)
    prints = []
    for number in (400, 401):
        path = write_documents(tmp_path / "a.parquet", some_texts(number))
        prints.append(describe_parquet(path).fingerprint)
        assert describe_parquet(path).fingerprint == prints[-1]
    assert prints[0] != prints[1]


@pytest.mark.parametrize("kept", [0, 3, 500])
def test_a_truncated_file_is_the_users_trouble(tmp_path: Path, kept: int) -> None:
    path = write_documents(tmp_path / "a.parquet", some_texts(60))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"a\.parquet: not a readable Parquet file"):
        describe_parquet(path)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan_units([], 0, 1)
