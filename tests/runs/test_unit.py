"""One unit: streams, accounts, rejections, commit; and the tables that it writes."""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_run import some_texts, write_documents

from fineinstructions.errors import DataError
from fineinstructions.recipe import OutputConfig
from fineinstructions.records import Document, Match, Rejection, content_id, failure, rejection, to_table
from fineinstructions.runs import Phase, RunFolder, Unit, UnitSpec, read_table, single_unit
from fineinstructions.runs import tables as runs_tables
from fineinstructions.runs.tables import ROW_GROUP_CHARS, TableWriter, tables_of, write_parts

SPEC = UnitSpec(ordinal=3, unit_id="u-1", row_start=0, row_stop=9)


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    run = RunFolder.create_or_open(tmp_path / "run", {}, [Phase("matches", "x", entry="read")])
    with run.lease(), run.unit("matches", SPEC) as opened:
        yield opened


def sieve(numbers: Iterable[Match]) -> Iterator[Match | Rejection]:
    for match in numbers:
        if match.chunk % 3 == 1:
            yield rejection("sieve", "odd", match.document_id, match, value=match.cosine)
        elif match.chunk % 3 == 2:
            yield failure("sieve", "timeout", match.document_id, match)
        else:
            yield match


def matches(number: int) -> list[Match]:
    return [Match(f"d{i}", "t", i, i / 7) for i in range(number)]


def test_every_record_is_accounted_for(unit: Unit) -> None:
    good = unit.through("sieve", unit.keep("read", matches(10)), sieve)
    assert unit.write(good, Match) == 4
    unit.count("calls", 2)
    unit.count("calls")
    manifest = unit.commit()
    account = manifest.stages["sieve"]
    assert (account.num_in, account.num_out, account.rejected, account.failed) == (10, 4, {"odd": 3}, {"timeout": 3})
    assert list(manifest.stages) == ["read", "sieve"]
    assert manifest.figure("sieve") == 4
    assert manifest.figure("calls") == 3
    assert {e.name: e.num_rows for e in manifest.files} == {"match.parquet": 4, "rejected-sieve.parquet": 6}
    folder = unit.layout.unit_folder("matches", SPEC)
    assert [m.chunk for m in read_table(folder / "match.parquet", Match)] == [0, 3, 6, 9]
    turned_away = list(read_table(folder / "rejected-sieve.parquet", Rejection))
    assert turned_away[0] == rejection("sieve", "odd", "d1", matches(2)[1], value=1 / 7)
    assert sum(r.failed for r in turned_away) == 3


def test_an_open_unit_is_invisible_and_leaves_nothing(unit: Unit) -> None:
    unit.write(matches(3), Match)
    (unit.folder / "own").mkdir()
    (unit.folder / "own" / "file").write_text("x")
    assert unit.layout.manifest("matches", SPEC) is None
    unit.close()
    assert list(unit.layout.units("matches").iterdir()) == []


def test_own_files_are_committed(unit: Unit) -> None:
    (unit.folder / "own").mkdir()
    (unit.folder / "own" / "file").write_text("x")
    assert [e.name for e in unit.commit().files] == ["own/file"]
    assert (unit.layout.unit_folder("matches", SPEC) / "own" / "file").read_text() == "x"


def test_merged_records_count_for_as_many_as_they_stand_for(unit: Unit) -> None:
    merged = unit.through("merge", matches(6), lambda ms: list(ms)[:1], stands_for=lambda m: 6)
    assert unit.write(merged, Match) == 1
    assert unit.commit().stages["merge"].num_merged == 5


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_what_passes_as_tables_is_kept_and_counted_as_records_are(tmp_path: Path, rows: int) -> None:
    """The same files and the same account, however the tables are cut."""
    made = {}
    for way in ("records", "tables"):
        run = RunFolder.create_or_open(tmp_path / way, {}, [Phase("matches", "x", entry="read")])
        with run.lease(), run.unit("matches", SPEC) as unit:
            if way == "records":
                unit.write(unit.through("sieve", matches(10), sieve), Match)
            else:
                whole = to_table(matches(10), Match)
                tables = (whole.slice(start, rows) for start in range(0, 10, rows))
                unit.write_tables(unit.sift("sieve", tables, is_third, sieve, Match), Match)
            made[way] = unit.commit()
    assert made["records"] == made["tables"], "digests of the files included"


def is_third(table: pa.Table) -> list[bool]:
    return [chunk % 3 == 0 for chunk in table["chunk"].to_pylist()]


def test_a_row_that_its_operator_lets_pass_is_not_lost(unit: Unit) -> None:
    tables = [to_table(matches(10), Match)]
    with pytest.raises(DataError, match="'sieve' lets a record pass that is not good"):
        unit.write_tables(unit.sift("sieve", tables, lambda t: [False] * len(t), sieve, Match), Match)


def test_a_lost_record_stops_the_commit(unit: Unit) -> None:
    unit.write(unit.through("lossy", matches(6), lambda ms: (m for m in ms if m.chunk != 2)), Match)
    with pytest.raises(DataError, match=r"stage 'lossy' does not add up: 6 in, 5 out.* 1 unaccounted"):
        unit.commit()


def test_an_operator_that_stops_early_is_found(unit: Unit) -> None:
    with pytest.raises(DataError, match="stopped before 4 of its 6 records"):
        unit.write(unit.through("lazy", matches(6), lambda ms: [next(ms), next(ms)]), Match)


def test_a_stream_that_was_not_read_stops_the_commit(unit: Unit) -> None:
    next(unit.through("half", matches(6), sieve_free))
    with pytest.raises(DataError, match="'half' was not read to its end"):
        unit.commit()


def sieve_free(items: Iterable[Match]) -> Iterator[Match]:
    yield from items


def test_a_rejection_belongs_to_its_stage(unit: Unit) -> None:
    with pytest.raises(DataError, match="rejection of stage 'sieve' came out of stage 'other'"):
        unit.write(unit.through("other", matches(6), sieve), Match)


def test_reading_upstream_needs_a_committed_unit(tmp_path: Path) -> None:
    run = RunFolder.create_or_open(tmp_path / "run", {}, [Phase("a", "x"), Phase("b", "y", upstream=("a",))])
    with run.lease():
        with pytest.raises(DataError, match="not committed"):
            list(run.unit_records("a", single_unit(), Match))
        with run.unit("a", single_unit()) as unit:
            unit.write(matches(5), Match, name="first")
            unit.commit()
        run.save_plan("a", [single_unit()])
        with run.unit("b", single_unit()) as unit:
            assert list(unit.read(Match, phase="a", name="first")) == matches(5)
            assert list(unit.read_all(Match, phase="a", name="first")) == matches(5)
            with pytest.raises(DataError, match=r"has no match\.parquet"):
                list(unit.read(Match, phase="a"))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 130), st.integers(0, 130))
def test_a_row_range_is_a_slice(tmp_path_factory: pytest.TempPathFactory, start: int, stop: int) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    if not path.exists():
        write_documents(path, some_texts(120), row_group_size=32)
    everything = list(read_table(path, Document))
    assert list(read_table(path, Document, start, stop)) == everything[start:stop]


@pytest.mark.parametrize(
    ("rows_per_part", "bytes_per_part", "parts"),
    [(None, 1 << 30, [10]), (4, 1 << 30, [4, 4, 2]), (10, 1 << 30, [10]), (1000, 1, [10])],
)
def test_parts(tmp_path: Path, rows_per_part: int | None, bytes_per_part: int, parts: list[int]) -> None:
    rows = write_parts(tmp_path, tables_of(matches(10), Match), Match, rows_per_part, bytes_per_part)
    assert rows == {f"part-{i:05d}.parquet": n for i, n in enumerate(parts)}
    assert [m for name in rows for m in read_table(tmp_path / name, Match)] == matches(10)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.lists(st.integers(0, 40), min_size=1, max_size=30), st.none() | st.integers(1, 12))
def test_rows_that_are_copied_as_tables_have_the_bytes_of_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, lengths: list[int], rows_per_part: int | None
) -> None:
    """However they are cut: in row groups, parts and pages as if each had come by itself."""
    folder = tmp_path_factory.mktemp("copied")
    rejections = [
        Rejection("s", "r" * (n % 3), f"id {i}", None if n % 2 else n / 7, "ä" * n) for i, n in enumerate(lengths)
    ]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lengths)), max_size=6)))
    whole = to_table(rejections, Rejection)
    tables = [whole.slice(a, b - a) for a, b in itertools.pairwise([0, *cuts, len(lengths)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_tables, "ROW_GROUP_ROWS", 5)
        patch.setattr(runs_tables, "ROW_GROUP_CHARS", 90)
        for name, given_as in {"tables": tables, "records": [to_table([r], Rejection) for r in rejections]}.items():
            (folder / name).mkdir()
            write_parts(folder / name, given_as, Rejection, rows_per_part, 1 << 30)
        with_records = TableWriter(folder / "alone.parquet", Rejection)
        for one in rejections:
            with_records.add(one)
        with_records.close()
    parts = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert parts == {path.name: path.read_bytes() for path in (folder / "records").iterdir()}
    if rows_per_part is None:
        assert list(parts.values()) == [(folder / "alone.parquet").read_bytes()]


def test_a_column_that_an_older_version_did_not_write_gets_its_default(tmp_path: Path) -> None:
    before = to_table(matches(3), Match).drop_columns("sampled")
    write_parts(tmp_path, [before, to_table(matches(3), Match)], Match, None, 1 << 30)
    assert list(read_table(tmp_path / "part-00000.parquet", Match)) == [*matches(3), *matches(3)]


@pytest.mark.parametrize("num_words", [20, 20_000])
def test_all_parts_but_the_last_have_the_size_that_was_asked_for(tmp_path: Path, num_words: int) -> None:
    words = [content_id("w", str(i)) for i in range(num_words)]  # few words shrink to a twentieth, many to a third
    chance = random.Random(7)
    documents = [Document(f"d{i}", " ".join(chance.choices(words, k=2000))) for i in range(900)]
    asked = 1 << 20
    rows = write_parts(tmp_path, tables_of(documents, Document), Document, None, asked)
    sizes = [(tmp_path / name).stat().st_size for name in sorted(rows)]
    assert len(sizes) > 2
    assert all(asked <= size <= asked + ROW_GROUP_CHARS for size in sizes[:-1])
    assert sizes[-1] <= asked + ROW_GROUP_CHARS
    assert sum(rows.values()) == 900


def test_parts_of_large_tables_have_64_to_512_megabytes() -> None:
    most_bytes_of_a_character = 4
    assert OutputConfig().rows_per_part is None
    assert OutputConfig().bytes_per_part >= 64 << 20
    assert OutputConfig().bytes_per_part + most_bytes_of_a_character * ROW_GROUP_CHARS <= 512 << 20


def test_no_records_still_give_a_readable_part(tmp_path: Path) -> None:
    assert write_parts(tmp_path, [], Match, 10, 10) == {"part-00000.parquet": 0}
    assert list(read_table(tmp_path / "part-00000.parquet", Match)) == []


def test_long_records_close_their_row_group_early(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "long.parquet", Document)
    for i in range(5):
        writer.add(Document(f"d{i}", "x" * (5 << 20)))
        assert writer.pending_chars < 10 << 20
    writer.close()
    assert writer.num_rows == 5
    assert sum(len(d.text) for d in read_table(writer.path, Document)) == 25 << 20


def test_a_flipped_bit_is_found_when_read(tmp_path: Path) -> None:
    documents = [Document(f"d{i}", f"text {i} " * 20) for i in range(500)]
    write_parts(tmp_path, tables_of(documents, Document), Document, 1000, 1 << 30)
    path = tmp_path / "part-00000.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"part-00000\.parquet: cannot be read"):
        list(read_table(path, Document))
