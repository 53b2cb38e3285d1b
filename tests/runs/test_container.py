"""Many files in one: what goes in comes out, any zip program reads it, and damage is found."""

import hashlib
import io
import zipfile
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_run import some_texts, write_documents

from fineinstructions.errors import DataError
from fineinstructions.runs.container import Container, Member, write_container

files = st.dictionaries(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=9), st.binary(max_size=99)
)


def packed(contents: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    write_container(target, [Member(name, content) for name, content in contents.items()])
    return target.getvalue()


def opened(raw: bytes) -> Container:
    return Container(partial(io.BytesIO, raw), "box")


@given(files)
def test_what_goes_in_comes_out(contents: dict[str, bytes]) -> None:
    raw = packed(contents)
    assert raw == packed(contents)
    members = opened(raw).members
    assert {name: stored.read() for name, stored in members.items()} == contents
    assert list(members) == list(contents)
    assert all(members[name].sha256() == hashlib.sha256(content).hexdigest() for name, content in contents.items())
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents
    if contents:
        assert opened(raw).last() == list(contents.values())[-1]


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(-20, 250), st.integers(0, 2), st.integers(-1, 99))))
def test_a_member_is_a_file_of_its_own(content: bytes, moves: list[tuple[int, int, int]]) -> None:
    stored = opened(packed({"before": b"x" * 50, "it": content, "after": b"y" * 50})).members["it"]
    with stored.open() as file:
        alone = io.BytesIO(content)
        for offset, whence, size in moves:
            if {0: 0, 1: alone.tell(), 2: len(content)}[whence] + offset >= 0:
                assert file.seek(offset, whence) == alone.seek(offset, whence)
            assert file.read(size) == alone.read(size)


def test_tables_are_read_where_they_lie(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "documents.parquet", some_texts(500))
    with (tmp_path / "box").open("wb") as target:
        write_container(target, [Member("a", b"-"), Member("a.parquet", table), Member("b", b"last")])
    stored = Container.at(tmp_path / "box").members["a.parquet"]
    with stored.open() as file:
        assert pq.read_table(file).equals(pq.read_table(table))
    with (tmp_path / "again").open("wb") as target:
        write_container(target, [Member("a.parquet", stored, stored.sha256())])
    assert Container.at(tmp_path / "again").last() == table.read_bytes()


def test_other_content_than_was_promised_does_not_go_in() -> None:
    with pytest.raises(DataError, match="a: does not have the content that was committed"):
        write_container(io.BytesIO(), [Member("a", b"x", hashlib.sha256(b"y").hexdigest())])


@given(st.integers(0, 999))
def test_a_torn_container_is_never_read_as_a_whole(kept: int) -> None:
    raw = packed({"a": b"first", "b": b"last"})
    torn = raw[: kept % len(raw)]
    with pytest.raises(DataError, match="box: torn or damaged"):
        opened(torn).last()
    if kept % len(raw) < raw.index(b"PK\x05\x06") + 22:  # all that follows is where the last member is
        with pytest.raises(DataError, match="box: torn or damaged"):
            opened(torn).members  # noqa: B018


def test_a_changed_manifest_is_found() -> None:
    raw = packed({"a": b"first", "b": b"the last"})
    with pytest.raises(DataError, match="does not have its content"):
        opened(raw.replace(b"the last", b"the next")).last()


def test_another_program_packed_it() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", "x" * 100)
    with pytest.raises(DataError, match="compressed"):
        opened(target.getvalue()).members  # noqa: B018
    with pytest.raises(DataError, match="torn or damaged"):
        opened(target.getvalue()).last()


def test_a_directory_that_points_elsewhere() -> None:
    raw = packed({"a": b"first", "b": b"last"})
    (stored,) = [s for n, s in opened(raw).members.items() if n == "b"]
    damaged = raw[: stored.header] + b"XX" + raw[stored.header + 2 :]
    with pytest.raises(DataError, match="box:b: cannot be read"):
        opened(damaged).members["b"].open()
