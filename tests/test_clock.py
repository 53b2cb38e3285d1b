"""A clock that jumps in the middle of a run, by days in both directions: nothing of the run depends on it."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from strikes import wait_until
from toy_run import Toy, check, command_of, content, run_toy, some_texts, write_documents

from fineinstructions.runs import RunFolder, status

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (Debian: apt install faketime)")
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(60))
    toy = Toy(inputs=(str(documents),), out=str(tmp_path / "run"), workers=2, open_units=2, seconds=0.02)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    faked["DONT_FAKE_MONOTONIC"] = "1"  # a clock that is set does not move the one that only counts
    driver = subprocess.Popen(command_of(toy), stderr=subprocess.PIPE, text=True, env={**os.environ, **faked})
    run = Path(toy.out)
    for number, jump in ((1, "-3d"), (4, "+400d"), (8, "-1h")):
        wait_until(
            lambda number=number: driver.poll() is not None or len(list(run.glob("units/*/*/manifest.json"))) >= number,
            "no unit was committed",
        )
        clock.write_text(jump)
    _, errors = driver.communicate(timeout=120)
    assert (driver.returncode, errors) == (0, "")
    rates = [phase.units_per_second for phase in status(RunFolder.open(run)).phases]
    assert all(rate is None or rate > 0 for rate in rates)
    run_toy(replace(toy, out=str(tmp_path / "undisturbed"), workers=0, seconds=0.0))
    assert content(run) == content(tmp_path / "undisturbed")
    assert check(run) == []
