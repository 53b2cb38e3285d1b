"""The run folder over several runs: resume, changed recipe, changed input, damage, lease."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_run import Toy, check, content, run_toy, some_texts, write_documents

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.runs import Phase, RunFolder, funnel, status


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(60))
    return Toy(inputs=(str(documents),), out=str(tmp_path / "run"))


def units_done(toy: Toy) -> list[int]:
    return [outcome.num_done for outcome in run_toy(toy)]


def unit_folders(toy: Toy, phase: str) -> list[Path]:
    return sorted((Path(toy.out) / "units" / phase).iterdir())


def test_a_second_run_has_nothing_to_do(toy: Toy) -> None:
    assert units_done(toy) == [6, 6]
    before = content(toy.out)
    assert units_done(toy) == [0, 0]
    assert content(toy.out) == before
    assert check(toy.out) == []


def test_the_folder_may_be_moved(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    moved = tmp_path / "documents2.parquet"
    Path(toy.inputs[0]).rename(moved)
    Path(toy.out).rename(tmp_path / "run2")
    toy = replace(toy, inputs=(str(moved),), out=str(tmp_path / "run2"))
    assert units_done(toy) == [0, 0]
    assert check(toy.out) == []


def test_nothing_below_pairs_tells_where_or_when(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    (tmp_path / "far").mkdir()
    far = write_documents(tmp_path / "far" / "other.parquet", some_texts(60))
    other = replace(toy, inputs=(str(far),), out=str(tmp_path / "far" / "run"))
    run_toy(other)
    assert content(other.out) == content(toy.out)


def test_a_changed_recipe_names_fields_and_stale_phases(toy: Toy) -> None:
    run_toy(toy)
    before = content(toy.out)
    with pytest.raises(ConfigError) as caught:
        run_toy(replace(toy, words=2))
    line = str(caught.value)
    assert "match.words: 3 -> 2" in line
    assert "stale: matches, pairs, assemble" in line
    assert "--redo" in line
    assert content(toy.out) == before


def test_redo_gives_what_a_fresh_run_gives(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    assert units_done(replace(toy, words=2, redo=True)) == [6, 6]
    run_toy(replace(toy, words=2, out=str(tmp_path / "fresh")))
    assert content(toy.out) == content(tmp_path / "fresh")


def test_a_late_threshold_redoes_only_the_last_phase(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    with pytest.raises(ConfigError, match=r"select.min_score: 2 -> 1.*stale: assemble; .*keep matches, pairs"):
        run_toy(replace(toy, min_score=1))
    assert units_done(replace(toy, min_score=1, redo=True)) == [0, 0]
    run_toy(replace(toy, min_score=1, out=str(tmp_path / "fresh")))
    assert content(toy.out) == content(tmp_path / "fresh")
    assert check(toy.out) == []


def test_a_field_that_decides_no_bytes_may_change(toy: Toy) -> None:
    run_toy(toy)
    assert units_done(replace(toy, workers=1)) == [0, 0]
    assert "workers: 1" in (Path(toy.out) / "recipe.resolved.yaml").read_text()


def test_a_mistake_that_made_nothing_may_be_mended(toy: Toy) -> None:
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        run_toy(replace(toy, inputs=("nowhere.parquet",), words=9))
    assert units_done(toy) == [6, 6]


def test_added_documents_redo_nothing_but_the_merge(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    earlier = write_documents(tmp_path / "earlier.parquet", some_texts(20), first=1000)
    more = replace(toy, inputs=(str(earlier), *toy.inputs))
    assert units_done(more) == [2, 2]
    run_toy(replace(more, out=str(tmp_path / "fresh")))
    assert content(toy.out) == content(tmp_path / "fresh")
    assert check(toy.out) == []


def test_results_of_documents_that_are_gone_are_dropped_only_on_redo(toy: Toy, tmp_path: Path) -> None:
    run_toy(toy)
    other = replace(toy, inputs=(str(write_documents(tmp_path / "other.parquet", some_texts(30), first=99)),))
    before = content(toy.out)
    with pytest.raises(ConfigError, match=r"input of phase 'matches'.* 6 of 6 units would be lost.*--redo"):
        run_toy(other)
    assert content(toy.out) == before
    assert units_done(replace(other, redo=True)) == [3, 3]
    run_toy(replace(other, out=str(tmp_path / "fresh")))
    assert content(toy.out) == content(tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["torn", "edited", "gone", "empty"])
def test_a_damaged_manifest_means_not_done(toy: Toy, damage: str) -> None:
    run_toy(toy)
    before = content(toy.out)
    path = unit_folders(toy, "matches")[2] / "manifest.json"
    text = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        edited = text.replace('"out": 9', '"out": 8')
        path.write_text({"torn": text[: len(text) // 2], "edited": edited, "empty": ""}[damage])
    assert any("000002" in finding.place for finding in check(toy.out))
    assert units_done(toy) == [1, 0]
    assert content(toy.out) == before


@pytest.mark.parametrize("phase", ["matches", "pairs"])
def test_a_truncated_or_missing_file_means_not_done(toy: Toy, phase: str) -> None:
    run_toy(toy)
    before = content(toy.out)
    table = {"matches": "match", "pairs": "pair"}[phase] + ".parquet"
    folders = unit_folders(toy, phase)
    (folders[1] / table).write_bytes((folders[1] / table).read_bytes()[:-10])
    (folders[4] / table).unlink()
    assert {f.place for f in check(toy.out)} >= {f"{phase}/{folders[1].name}", f"{phase}/{folders[4].name}"}
    assert units_done(toy) == ([2, 0] if phase == "matches" else [0, 2])
    assert content(toy.out) == before


def test_a_damaged_published_part_is_made_again(toy: Toy) -> None:
    run_toy(toy)
    before = content(toy.out)
    (Path(toy.out) / "pairs" / "part-00000.parquet").write_bytes(b"PAR1")
    assert units_done(toy) == [0, 0]
    assert content(toy.out) == before


def test_a_torn_manifest_of_a_table_makes_it_again(toy: Toy) -> None:
    run_toy(toy)
    before = content(toy.out)
    path = Path(toy.out) / "plan" / "published" / "pairs" / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert "pairs: not published; run again to finish it" in map(str, check(toy.out))
    assert units_done(toy) == [0, 0]
    assert content(toy.out) == before
    assert check(toy.out) == []


@pytest.mark.parametrize(
    ("name", "remedy"), [("run.json", "choose another --out"), ("matches.arrow", "delete the file and run again")]
)
def test_a_torn_plan_is_one_line_that_says_what_to_do(toy: Toy, name: str, remedy: str) -> None:
    run_toy(toy)
    path = Path(toy.out) / "plan" / name
    raw = path.read_bytes()
    for length in (0, 1, len(raw) // 2, len(raw) - 3):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError, match=f"{name}: damaged.*{remedy}"):
            run_toy(toy)
    before = content(toy.out)
    if name == "matches.arrow":
        path.unlink()
        assert units_done(toy) == [0, 0]
        assert content(toy.out) == before


def test_changed_content_of_the_same_size_is_found_by_a_thorough_look(toy: Toy) -> None:
    run_toy(toy)
    path = unit_folders(toy, "matches")[0] / "match.parquet"
    raw = bytearray(path.read_bytes())
    raw[60] ^= 1
    path.write_bytes(raw)
    run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases())
    specs = run.planned("matches") or []
    assert run.todo("matches", specs) == []
    assert run.todo("matches", specs, thorough=True) == [specs[0]]


def test_a_strangers_folder_is_left_alone(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.tex' and no run"):
        run_toy(toy)
    assert (tmp_path / "run" / "thesis.tex").exists()
    with pytest.raises(ConfigError, match="no run here"):
        RunFolder.open(tmp_path / "run")


def test_a_file_in_the_place_of_the_folder(toy: Toy) -> None:
    Path(toy.out).write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run_toy(toy)


def test_two_leases_never_overlap(toy: Toy) -> None:
    run = RunFolder.create_or_open(toy.out, {}, toy.phases())
    again = RunFolder.create_or_open(toy.out, {}, toy.phases())
    with run.lease():
        assert "process" in status(run).holder
        with pytest.raises(ConfigError, match=r"process \d+ on .* is working in this folder"), again.lease():
            raise AssertionError("two leases at once")
    with again.lease():
        pass
    assert status(run).holder == ""


def test_leftovers_of_a_killed_run_are_cleared(toy: Toy) -> None:
    run_toy(toy)
    leftovers = [Path(toy.out) / "units" / "matches" / "tmp-1-x", Path(toy.out) / "tmp-pairs"]
    for folder in leftovers:
        folder.mkdir()
        (folder / "half").write_text("x")
    run_toy(toy)
    assert not any(folder.exists() for folder in leftovers)


def test_more_phases_may_join_later(toy: Toy) -> None:
    first = RunFolder.create_or_open(toy.out, {}, toy.phases()[:1])
    with first.lease():
        pass
    with RunFolder.create_or_open(toy.out, {}, toy.phases()).lease():
        pass
    with first.lease():
        pass
    names = [plain["name"] for plain in json.loads(first.state_file.read_text())["phases"]]
    assert names == ["matches", "pairs", "assemble"]


def test_phases_stand_in_flow_order(toy: Toy) -> None:
    with pytest.raises(ValueError, match="before one of its upstream"):
        RunFolder.create_or_open(toy.out, {}, [Phase("b", "", upstream=("a",)), Phase("a", "")])


def test_status_and_funnel(toy: Toy) -> None:
    run_toy(toy)
    run = RunFolder.open(toy.out)
    state = status(run)
    assert [(p.name, p.num_units, p.num_done, p.complete) for p in state.phases] == [
        ("matches", 6, 6, True),
        ("pairs", 6, 6, True),
        ("assemble", 1, 1, True),
    ]
    assert state.phases[0].num_rows == state.phases[0].num_rows_done == 60
    assert state.phases[0].units_per_second is not None
    assert state.phases[0].eta_seconds == 0
    figures = {line.stage: line.account for line in funnel(run)}
    assert list(figures) == ["read", "match", "judge", "select"]
    assert figures["read"].rejected == {"empty": 3}
    assert figures["match"].rejected == {"skipped": 3}
    assert figures["select"].rejected == {"low_score": 3}
    assert state.published == {"matches": 54, "pairs": 51, "rejected": 9}
