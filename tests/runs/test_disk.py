"""A disk that is full or has become read-only: one line, nothing torn, and the same command goes on."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_disk import SmallDisk, small_disk
from toy_run import Toy, check, command_of, content, run_toy, write_documents

from fineinstructions.errors import ConfigError
from fineinstructions.runs import RunFolder

ROOMY_KIB = 20_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "run", ROOMY_KIB) as disk:
        yield disk


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    chance = random.Random(1)
    texts = [f"the number {i} is {chance.randbytes(200).hex()} at length" for i in range(40)]
    return Toy(inputs=(str(write_documents(tmp_path / "documents.parquet", texts)),), out=str(tmp_path / "run"))


def whole(toy: Toy, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run on a large disk gives."""
    run_toy(replace(toy, out=str(tmp_path / "undisturbed"), workers=0))
    return content(tmp_path / "undisturbed")


def finish(toy: Toy) -> tuple[int, str]:
    """A driver in a process of its own, to its end."""
    done = subprocess.run(command_of(toy), capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


def test_a_disk_that_fills_up_anywhere_in_a_run(disk: SmallDisk, toy: Toy, tmp_path: Path) -> None:
    """In the lease, a plan, a unit, a manifest, a published table: whatever did not fit any more."""
    expected = whole(toy, tmp_path)
    run_toy(toy)
    used, stopped = disk.used_kib(), []
    for kib in range(8, used, used // 5):
        disk.empty()
        disk.resize(kib)
        with pytest.raises(ConfigError) as caught:
            run_toy(toy)
        assert str(caught.value) == (
            f"{toy.out}: no space left on the disk; make room and run again, what is committed is kept"
        )
        assert list(disk.root.rglob("tmp-*")) == []
        stopped.append(len(list(disk.root.glob("units/*/*/manifest.json"))))
        disk.resize(ROOMY_KIB)
        run_toy(toy)
        assert content(toy.out) == expected
        assert check(toy.out) == []
    assert stopped[0] == 0
    assert stopped[-1] == 8, "the last one had room for all units, and none for the tables"


@pytest.mark.slow
def test_a_disk_that_fills_up_under_workers(disk: SmallDisk, toy: Toy, tmp_path: Path) -> None:
    expected = whole(toy, tmp_path)
    disk.resize(100)
    toy = replace(toy, workers=2, open_units=2)
    line = f"ConfigError: {toy.out}: no space left on the disk; make room and run again, what is committed is kept\n"
    assert finish(toy) == (1, line)
    disk.resize(ROOMY_KIB)
    assert finish(toy) == (0, "")
    assert content(toy.out) == expected
    assert check(toy.out) == []


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_unit_that_fails_on_a_full_disk_still_tells(disk: SmallDisk, toy: Toy, tmp_path: Path, workers: int) -> None:
    """Its traceback has no room either; a worker that fell over that would leave its driver waiting for ever."""
    texts = ["the number one", "the FILL of the disk, then an error", "the number three"]
    documents = write_documents(tmp_path / "others.parquet", texts)
    toy = replace(toy, inputs=(str(documents),), workers=workers, unit_rows=1)
    disk.resize(400)
    code, line = finish(toy)
    assert (code, line.count("\n")) == (1, 1)
    assert line.startswith(f"ConfigError: {toy.out}: no space left on the disk;")


@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_a_disk_that_is_read_only(disk: SmallDisk, toy: Toy, tmp_path: Path, when: str) -> None:
    expected = whole(toy, tmp_path)
    line = "the disk has become read-only; mend it and run again, what is committed is kept"
    if when == "before":
        run_toy(toy)
    before = content(toy.out)
    if when == "before":
        disk.make_read_only()
        with pytest.raises(ConfigError, match=line):
            run_toy(replace(toy, words=2, redo=True))
        assert content(toy.out) == before
    else:
        with pytest.raises(ConfigError, match=line):
            run_toy(toy, between=disk.make_read_only)
    disk.make_writable()
    run_toy(toy)
    assert content(toy.out) == expected
    assert check(toy.out) == []


def test_a_folder_that_cannot_be_made(disk: SmallDisk, toy: Toy) -> None:
    disk.make_read_only()
    run = RunFolder.create_or_open(disk.root / "new", {}, toy.phases())
    line = r"new: cannot be made \(Read-only file system\); choose another --out"
    with pytest.raises(ConfigError, match=line), run.lease():
        raise AssertionError("a lease on a folder that is not there")
