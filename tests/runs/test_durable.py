"""Places for outputs."""

from pathlib import Path

import pytest

from fineinstructions.errors import ConfigError
from fineinstructions.runs.durable import make_room_for


def test_folders_above_an_output_are_made_and_one_that_cannot_be_is_told(tmp_path: Path) -> None:
    make_room_for(tmp_path / "a" / "b" / "out")
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]
    make_room_for(tmp_path / "a" / "b" / "out")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file: cannot be made \(File exists\); choose another --out"):
        make_room_for(tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match=r"below: cannot be made \(Not a directory\); choose another --out"):
        make_room_for(tmp_path / "file" / "below" / "out")
