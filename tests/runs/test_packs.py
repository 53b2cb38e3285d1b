"""Packed units are the same units: however they were committed, packed, killed, made again or moved."""

import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_toy import loose_of, packs_of, places_of, tables, tables_without_packs
from toy_run import Toy, check, command_of, content, run_toy, some_texts, write_documents

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import Match
from fineinstructions.runs import (
    Phase,
    RunFolder,
    UnitSpec,
    funnel,
    packing,
    status,
)
from fineinstructions.runs.packing import Packer
from fineinstructions.runs.specs import ordinals

NUM_UNITS = 14
SPECS = [UnitSpec(i, f"u-{i * 7919 % 97:02d}", "f", 3 * i, 3 * i + 3, 10, "f-1") for i in range(NUM_UNITS)]


# ---------------------------------------------------------------------------------------------------------------------
# Any order


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of one phase whose units all have folders of their own."""
    run = RunFolder.create_or_open(tmp_path_factory.mktemp("whole") / "run", {}, [Phase("matches", "x", entry="read")])
    with run.lease():
        run.todo("matches", SPECS)
        for spec in SPECS:
            with run.unit("matches", spec) as unit:
                matches = [Match(f"d{row}", "t", row, 0.5) for row in range(spec.row_start, spec.row_stop)]
                unit.write(unit.keep("read", matches), Match)
                unit.count("calls", spec.ordinal)
                unit.commit()
    return run


def commit_again(whole: RunFolder, run: RunFolder, ordinal: int) -> None:
    """What a worker's commit leaves, whether the unit was there before or not."""
    target = run.unit_folder("matches", SPECS[ordinal])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole.unit_folder("matches", SPECS[ordinal]), target)


sessions = st.lists(
    st.tuples(st.lists(st.integers(0, NUM_UNITS - 1), unique=True, max_size=NUM_UNITS), st.booleans()), max_size=2
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sessions, st.permutations(range(NUM_UNITS)))
def test_any_order_of_commits_packs_and_kills_reads_back_the_same(
    whole: RunFolder,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    sessions: list[tuple[list[int], bool]],
    last: list[int],
) -> None:
    monkeypatch.setattr(packing, "PACK_UNITS", 4)
    monkeypatch.setattr(packing, "MAX_LOOSE", 2)
    run = RunFolder.create_or_open(tmp_path_factory.mktemp("any") / "run", {}, whole.phases)
    with run.lease():
        for made, comes_to_its_end in [*sessions, (last, True)]:
            todo = run.todo("matches", SPECS).ordinals
            with Packer(run, "matches", ordinals([SPECS[i] for i in {*made, *todo.tolist()}])) as packer:
                for ordinal in made:
                    commit_again(whole, run, ordinal)
                    packer.add(ordinal)
                if comes_to_its_end:
                    packer.finish()
            committed = {spec.ordinal for spec in SPECS} - set(run.todo("matches", SPECS).ordinals.tolist())
            assert committed >= set(made)
            for spec in SPECS:
                found, expected = run.committed("matches", spec), whole.committed("matches", spec)
                assert (found is not None) == (spec.ordinal in committed)
                if found is not None and expected is not None:
                    assert found.manifest == expected.manifest
                    assert list(run.unit_records("matches", spec, Match)) == list(
                        whole.unit_records("matches", spec, Match)
                    )
            assert sum(line.counts["calls"] for line in funnel(run)) == sum(committed)
            assert sum(line.account.num_in for line in funnel(run)) == 3 * len(committed)
            assert status(run).phases[0].num_done == len(committed)
    assert run.content("matches") == whole.content("matches")
    assert len(loose_of(run.root)) <= 2
    names = packs_of(run.root)
    assert all(len(name) <= 4 for name in names)
    places = [place for name in names for place in range(name.first, name.last + 1)]
    assert places == sorted(set(places)), "packs sort by name in plan order"


def test_without_room_for_a_pack_its_units_stay(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_LOOSE", 2)
    run = RunFolder.create_or_open(tmp_path / "run", {}, whole.phases)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with run.lease():
        run.todo("matches", SPECS)
        for ordinal in range(NUM_UNITS):
            commit_again(whole, run, ordinal)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limit[1]))  # less than a pack, more than a unit
            with (
                Packer(run, "matches", ordinals([])) as packer,
                pytest.raises(ConfigError, match=r"units/matches: units cannot be packed \(.*File too large"),
            ):
                packer.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert len(loose_of(run.root)) == NUM_UNITS
        assert len(list(run.units("matches").iterdir())) == NUM_UNITS, "nothing half written is left"
        assert run.todo("matches", SPECS) == []
        with Packer(run, "matches", ordinals([])) as packer:
            packer.finish()
    assert (len(packs_of(run.root)), loose_of(run.root)) == (1, [])


def test_a_packed_unit_that_grew_is_made_again_without_asking(
    toy: Toy, tmp_path: Path, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "PACK_UNITS", 4)
    monkeypatch.setattr(packing, "MAX_LOOSE", 2)
    run = RunFolder.create_or_open(tmp_path / "grown", {}, whole.phases)
    with run.lease():
        run.todo("matches", SPECS)
        for ordinal in range(NUM_UNITS):
            commit_again(whole, run, ordinal)
        with Packer(run, "matches", ordinals([])) as packer:
            packer.finish()
        assert run.todo("matches", SPECS) == []
        last = replace(SPECS[-1], unit_id="u-last", row_stop=SPECS[-1].row_stop + 1)
        assert run.todo("matches", [*SPECS[:-1], last]) == [last]
        with pytest.raises(ConfigError, match="1 of 14 units would be lost"):
            run.todo("matches", SPECS[:12])


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(60))
    return Toy(inputs=(str(documents),), out=str(tmp_path / "run"), unit_rows=4, pack=(5, 2))


def test_a_packed_run_publishes_the_same_bytes(toy: Toy) -> None:
    assert [outcome.num_done for outcome in run_toy(toy)] == [15, 15]
    assert places_of(toy.out) == [(0, 4), (5, 9), (10, 14)]
    assert loose_of(toy.out) == loose_of(toy.out, "pairs") == []
    assert tables(toy.out) == tables_without_packs(toy)
    assert check(toy.out) == []
    state, lines = status(RunFolder.open(toy.out)), funnel(RunFolder.open(toy.out))
    assert [(p.num_units, p.num_done, p.num_rows_done) for p in state.phases] == [(15, 15, 60), (15, 15, 60), (1, 1, 0)]
    assert {line.stage: line.account.num_in for line in lines} == {"read": 60, "match": 57, "judge": 54, "select": 54}
    before = content(toy.out)
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 0]
    assert content(toy.out) == before


def test_planning_and_status_open_no_packed_unit(toy: Toy) -> None:
    run_toy(toy)
    run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases())
    whole, before = run.content("matches"), status(run)
    for name in packs_of(toy.out):
        path = run.units("matches") / str(name)
        raw = path.read_bytes()
        summary = raw.rindex(b"units.arrow", 0, raw.rindex(b"PK\x01\x02") - 2000)
        path.write_bytes(b"x" * (summary - 30) + raw[summary - 30 :])
    with run.lease():
        assert run.todo("matches", run.planned("matches") or ()) == []
        assert run.todo("pairs", run.planned("pairs") or ()) == []
    assert (run.content("matches"), status(run)) == (whole, before)
    with pytest.raises(DataError, match="cannot be read"):
        list(run.records("matches", Match))


def test_a_small_run_keeps_its_folders(toy: Toy) -> None:
    run_toy(replace(toy, pack=(5, 15)))
    assert packs_of(toy.out) == []
    assert len(loose_of(toy.out)) == 15


def test_folders_of_an_earlier_run_are_packed_by_the_next(toy: Toy) -> None:
    run_toy(replace(toy, pack=None))
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 0]
    assert len(packs_of(toy.out)) == 3
    assert check(toy.out) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_between_a_pack_and_its_folders(toy: Toy, moment: Literal["before", "after"]) -> None:
    driver = subprocess.run(command_of(replace(toy, die_packing=moment)), check=False)
    assert driver.returncode == -signal.SIGKILL
    assert len(packs_of(toy.out)) == (moment == "after")
    assert len(loose_of(toy.out)) >= 5, "the folders are still there"
    assert status(RunFolder.open(toy.out)).phases[0].num_done >= 5
    run_toy(toy)
    assert loose_of(toy.out) == []
    assert tables(toy.out) == tables_without_packs(toy)
    assert check(toy.out) == []


def torn(raw: bytes) -> bytes:
    return raw[:-40]


def cut_in_half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def another_summary(raw: bytes) -> bytes:
    place = raw.rindex(b"accounts") - 3
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def no_zip(raw: bytes) -> bytes:
    return b"x" * len(raw)


@pytest.mark.parametrize(
    "damage",
    [torn, *(pytest.param(damage, marks=pytest.mark.slow) for damage in (cut_in_half, another_summary, no_zip))],
)
def test_a_damaged_pack_is_one_finding_and_its_units_are_made_again(toy: Toy, damage: Callable[[bytes], bytes]) -> None:
    run_toy(toy)
    before = content(toy.out)
    path = Path(toy.out) / "units" / "matches" / str(packs_of(toy.out)[1])
    path.write_bytes(damage(path.read_bytes()))
    lines = [str(finding) for finding in check(toy.out)]
    assert [line.startswith(f"matches/{path.name}: ") for line in lines].count(True) == 1
    assert not any("matches/00000" in line for line in lines)
    assert status(RunFolder.open(toy.out)).phases[0].num_done == 10
    assert [outcome.num_done for outcome in run_toy(toy)] == [5, 0]
    assert content(toy.out) == before


def test_a_pack_that_is_gone_is_made_again(toy: Toy) -> None:
    run_toy(toy)
    before = content(toy.out)
    (Path(toy.out) / "units" / "pairs" / str(packs_of(toy.out, "pairs")[0])).unlink()
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 5]
    assert content(toy.out) == before


def flip_bit(out: str, at: bytes = b"PAR1", number: int = 0) -> None:
    """In the first unit of a pack."""
    path = Path(out) / "units" / "matches" / str(packs_of(out)[number])
    raw = bytearray(path.read_bytes())
    raw[raw.index(at) + 9] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("at", [b"PAR1", b'"unit_id"'])
def test_a_flipped_bit_in_a_packed_unit_is_found_and_mended_by_the_next_run(toy: Toy, at: bytes) -> None:
    run_toy(toy)
    before = tables(toy.out)
    flip_bit(toy.out, at)
    (Path(toy.out) / "pairs" / "part-00000.parquet").write_bytes(b"x" * len(before["pairs/part-00000.parquet"]))
    run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases())
    plan = run.planned("matches") or ()
    with run.lease():
        assert run.todo("matches", plan) == []
        assert run.todo("matches", plan, thorough=True) == [plan[0]]
    lines = [str(finding) for finding in check(toy.out)]
    assert [line for line in lines if line.startswith("matches/000000-")]
    assert next(line for line in lines if line.startswith("pairs: part-00000")).endswith("run again to write it anew")
    assert [outcome.num_done for outcome in run_toy(toy)] == [1, 0]
    assert tables(toy.out) == before
    assert check(toy.out) == []
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 0]
    assert not (Path(toy.out) / "damaged.json").exists()


@pytest.mark.slow
def test_units_that_were_set_aside_are_tried_again_and_packed_anew(toy: Toy, tmp_path: Path) -> None:
    texts = some_texts(60)
    texts[6], texts[30], texts[33] = "BROKEN one here", "BROKEN two here", "BROKEN three here"
    write_documents(Path(toy.inputs[0]), texts)
    (tmp_path / "broken").touch()
    assert [len(outcome.set_aside) for outcome in run_toy(toy)] == [3, 0]
    assert loose_of(toy.out) == []
    assert [p.num_set_aside for p in status(RunFolder.open(toy.out)).phases] == [3, 0, 0]
    (tmp_path / "broken").unlink()
    assert [outcome.num_done for outcome in run_toy(toy)] == [0, 0]
    few = replace(toy, pack=(5, 9), retry_failed=True)
    assert [outcome.num_done for outcome in run_toy(few)] == [3, 3]
    assert len(loose_of(toy.out)) == 3, "a few folders may hide what packs hold"
    assert tables(toy.out) == tables_without_packs(toy)
    assert check(toy.out) == []
    lines = {line.stage: line.account for line in funnel(RunFolder.open(toy.out))}
    assert (lines["read"].num_in, lines["read"].failed) == (60, {})
    run_toy(toy)
    assert loose_of(toy.out) == []
    assert places_of(toy.out) == [(0, 4), (5, 9), (10, 14)]
    assert tables(toy.out) == tables_without_packs(toy)
    assert check(toy.out) == []


@pytest.mark.slow
def test_a_changed_recipe_drops_packs_only_when_asked(toy: Toy) -> None:
    run_toy(toy)
    before = content(toy.out)
    with pytest.raises(ConfigError, match="stale: matches, pairs, assemble"):
        run_toy(replace(toy, words=2))
    assert content(toy.out) == before
    other = replace(toy, words=2, redo=True)
    run_toy(other)
    assert tables(toy.out) == tables_without_packs(other)


@pytest.mark.parametrize("stays_behind", [False, True])
def test_status_counts_units_that_are_packed_while_it_looks(toy: Toy, stays_behind: bool) -> None:
    """What is listed is moved before it is read; a folder without a manifest may stay."""
    run_toy(replace(toy, pack=None))
    run = RunFolder.open(toy.out)
    plan = run.planned("matches")
    assert plan is not None
    whole = run.shelf("matches").accounts(plan)
    shelf = run.shelf("matches")
    run_toy(toy)  # packs all of it
    if stays_behind:
        (run.units("matches") / plan[3].folder_name).mkdir()
    assert shelf.accounts(plan) == whole
    renewed = run.shelf("matches")
    for name in packs_of(toy.out):  # as when packs are renamed
        (run.units("matches") / str(name)).rename(run.units("matches") / f"{name}.gone")
    run_toy(replace(toy, pack=(4, 2)))
    found = list(renewed.stretches(plan))
    assert all(seal for stretch in found for seal in stretch.seals)
    assert renewed.accounts(plan) == whole
