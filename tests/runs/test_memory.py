"""Memory does not grow with the rows: ten times as many through the same phases, counted and not timed."""

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from toy_run import Toy, run_toy, some_texts, write_documents

UNIT_ROWS = 100
SMALL, LARGE = 400, 4_000
MAX_GROWTH = 1.6
"""Room for what does grow, some kilobytes a unit; holding one record per row would give 3 and more."""


def peak_bytes(folder: Path, number: int) -> int:
    """Most memory that Python and Arrow held at once during a run in this process."""
    documents = write_documents(folder / f"{number}.parquet", some_texts(number), row_group_size=UNIT_ROWS)
    toy = Toy((str(documents),), str(folder / f"run-{number}"), unit_rows=UNIT_ROWS)
    tracemalloc.start()
    before = pa.default_memory_pool().bytes_allocated()
    try:
        run_toy(toy)
        return tracemalloc.get_traced_memory()[1] + max(0, pa.default_memory_pool().bytes_allocated() - before)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    peak_bytes(tmp_path, SMALL // 10)  # imports and caches
    small, large = peak_bytes(tmp_path, SMALL), peak_bytes(tmp_path, LARGE)
    assert large < small * MAX_GROWTH, f"{SMALL:,} rows: {small:,} bytes, {LARGE:,} rows: {large:,} bytes"
