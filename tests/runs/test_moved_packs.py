"""Packs of a run whose plan becomes another: moved, split, dropped, grown; and run folders of other versions."""

import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from packed_toy import packs_of, places_of, tables, tables_without_packs
from toy_run import Toy, check, content, run_toy, some_texts, write_documents

from fineinstructions.errors import ConfigError
from fineinstructions.runs import RunFolder, describe_parquet, plan_units, status
from fineinstructions.runs.packs import PackName


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(60))
    return Toy(inputs=(str(documents),), out=str(tmp_path / "run"), unit_rows=4, pack=(5, 2))


def more_documents(toy: Toy, tmp_path: Path, place: int, number: int) -> Toy:
    other = write_documents(tmp_path / "more.parquet", some_texts(number), first=5000)
    inputs = list(toy.inputs)
    inputs.insert(place, str(other))
    return replace(toy, inputs=tuple(inputs))


def test_packs_move_when_documents_come_before_them(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    inodes = {(Path(toy.out) / "units" / "matches" / str(name)).stat().st_ino for name in packs_of(toy.out)}
    more = more_documents(toy, tmp_path, 0, 20)
    assert [outcome.num_done for outcome in run_toy(more)] == [5, 5]
    assert places_of(toy.out) == [(0, 4), (5, 9), (10, 14), (15, 19)]
    assert inodes <= {(Path(toy.out) / "units" / "matches" / str(name)).stat().st_ino for name in packs_of(toy.out)}
    assert tables(toy.out) == tables_without_packs(more)
    assert check(toy.out) == []


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_moved_units_is_put_right(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    more = more_documents(toy, tmp_path, 0, 20)
    plan = plan_units([describe_parquet(path) for path in more.inputs], 1 << 20, toy.unit_rows)
    run = RunFolder.open(toy.out)
    run.save_plan("matches", plan)
    first = packs_of(toy.out)[0]
    (run.units("matches") / str(first)).rename(run.units("matches") / str(PackName(5, 9, first.mark)))
    assert [outcome.num_done for outcome in run_toy(more)] == [5, 5]
    assert places_of(toy.out) == [(0, 4), (5, 9), (10, 14), (15, 19)]
    assert tables(toy.out) == tables_without_packs(more)
    assert check(toy.out) == []


@pytest.mark.slow
def test_packs_are_written_anew_where_documents_come_between_them(toy: Toy, tmp_path: Path) -> None:
    second = write_documents(tmp_path / "second.parquet", some_texts(30), first=900)
    two = replace(toy, inputs=(*toy.inputs, str(second)), pack=(9, 2))
    run_toy(two)
    assert places_of(toy.out) == [(0, 8), (9, 17), (18, 22)]
    more = more_documents(two, tmp_path, 1, 12)
    assert [outcome.num_done for outcome in run_toy(more)] == [3, 3]
    assert places_of(toy.out) == [(0, 8), (9, 14), (15, 17), (18, 20), (21, 25)]
    assert tables(toy.out) == tables_without_packs(more)
    assert check(toy.out) == []


def test_a_pack_with_a_damaged_unit_is_split_and_that_unit_made_again(toy: Toy, tmp_path: Path) -> None:
    second = write_documents(tmp_path / "second.parquet", some_texts(30), first=900)
    two = replace(toy, inputs=(*toy.inputs, str(second)), pack=(9, 2))
    run_toy(two)
    path = Path(toy.out) / "units" / "matches" / str(packs_of(toy.out)[1])  # holds units of both files
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PAR1") + 9] ^= 1
    path.write_bytes(raw)
    more = more_documents(two, tmp_path, 1, 12)
    assert [outcome.num_done for outcome in run_toy(more)] == [4, 3]
    assert tables(toy.out) == tables_without_packs(more)
    assert check(toy.out) == []


@pytest.mark.slow
def test_packed_units_of_documents_that_are_gone_are_dropped_only_on_redo(toy: Toy, tmp_path: Path) -> None:
    more = more_documents(toy, tmp_path, 0, 12)
    run_toy(more)
    before = content(toy.out)
    with pytest.raises(ConfigError, match=r"input of phase 'matches'.* 3 of 18 units would be lost.*--redo"):
        run_toy(toy)
    assert content(toy.out) == before
    assert [outcome.num_done for outcome in run_toy(replace(toy, redo=True))] == [0, 0]
    assert tables(toy.out) == tables_without_packs(toy)
    assert check(toy.out) == []


def old_layout(out: str) -> Iterator[str]:
    """Turn a run folder into one as it was before there were packs; gives the phases."""
    run = RunFolder.open(out)
    for phase in run.phases:
        specs = run.planned(phase.name)
        assert specs is not None
        run.plan_file(phase.name).unlink()
        (Path(out) / "plan" / f"{phase.name}.json").write_text(json.dumps([astuple(spec) for spec in specs]) + "\n")
        yield phase.name
    state = json.loads(run.state_file.read_text())
    run.state_file.write_text(json.dumps({**state, "layout": 1}))


def test_a_run_folder_of_the_old_layout_goes_on(toy: Toy) -> None:
    run_toy(replace(toy, pack=None))
    before = tables(toy.out)
    phases = list(old_layout(toy.out))
    assert status(RunFolder.open(toy.out)).phases[0].num_done == 15
    assert check(toy.out) == []
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 0]
    assert len(packs_of(toy.out)) == 3
    assert not any((Path(toy.out) / "plan" / f"{name}.json").exists() for name in phases[:2])
    assert tables(toy.out) == before
    assert check(toy.out) == []


def test_a_run_folder_of_a_newer_layout_is_refused(toy: Toy) -> None:
    run_toy(toy)
    path = Path(toy.out) / "plan" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layout": 99}))
    with pytest.raises(ConfigError, match="made by a newer version"):
        RunFolder.open(toy.out)
