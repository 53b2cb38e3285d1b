"""The lock that keeps two runs off one folder."""

import fcntl
import threading
import time
from pathlib import Path

import pytest

from fineinstructions.errors import ConfigError
from fineinstructions.runs.lease import hold_lease, lease_holder


def test_a_glance_at_the_holder_turns_no_run_away(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.touch()
    looking = threading.Event()

    def look() -> None:
        with path.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            looking.set()
            time.sleep(0.1)

    onlooker = threading.Thread(target=look)
    onlooker.start()
    assert looking.wait(5)
    with hold_lease(path):
        assert lease_holder(path).startswith("process ")
    onlooker.join()
    assert lease_holder(path) == ""


def test_a_second_run_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with (
        hold_lease(path),
        pytest.raises(ConfigError, match=r"process \d+ on .* is working in this folder"),
        hold_lease(path),
    ):
        raise AssertionError("two at once")
