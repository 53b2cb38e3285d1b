"""Processes of the program make tables without importing pandas, which costs each of them half a second."""

import subprocess
import sys

import pytest

LOOK = "import sys, pyarrow as pa; from fineinstructions.parquet import leave_pandas_out\n"


def say(code: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", LOOK + code], check=True, capture_output=True, text=True).stdout


def test_pyarrow_does_not_bring_pandas_in() -> None:
    pytest.importorskip("pandas", reason="pyarrow brings in what is installed only")
    table = "table = pa.Table.from_pylist([{'a': 'x'}]); print(table['a'].to_pylist(), 'pandas' in sys.modules)"
    assert say(table) == "['x'] True\n"
    assert say(f"leave_pandas_out(); {table}") == "['x'] False\n"


def test_pandas_is_there_for_whoever_wants_it() -> None:
    pytest.importorskip("pandas", reason="nobody can want it")
    assert say("leave_pandas_out(); import pandas; print(pandas.Series([1]).sum(), len(sys.meta_path))").startswith(
        "1 "
    )
    assert say("import pandas; leave_pandas_out(); print(pa.array(pandas.Series([1])).to_pylist())") == "[1]\n"
