"""The one object that drivers of a run on a store fight over: who holds it, who may take over, who has lost."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, Line, line_to, serve_s3, settings

from fineinstructions.errors import BackendError, ConfigError, DataError
from fineinstructions.runs.head import HEAD, Head, StoreLease, read_head
from fineinstructions.stores import Objects, open_objects

LONG_SECONDS = 600.0


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def line(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with line_to(s3) as line:
        for name, value in settings(line.address).items():
            monkeypatch.setenv(name, value)
        yield line


@pytest.fixture
def objects(line: Line) -> Objects:
    return open_objects(f"s3://{BUCKET}/{uuid.uuid4().hex}", pauses=(0.01, 0.01))


def lease(objects: Objects, token: str, own: str = "", seconds: float = LONG_SECONDS, **noted: list[str]) -> StoreLease:
    lost, notes = noted.get("lost", []), noted.get("notes", [])
    return StoreLease(objects, token, own, seconds, notes.append, lambda: lost.append(token))


def head_of(objects: Objects) -> Head:
    found = read_head(objects)
    assert found is not None
    return found[0]


@pytest.mark.extra
def test_who_comes_after_another_has_its_files(objects: Objects) -> None:
    with lease(objects, "a") as first:
        assert first.found is None
        first.name_files({"plan/run.json": "0123"})
        assert head_of(objects).held
    assert not head_of(objects).held
    with lease(objects, "b") as second:
        assert second.found is not None
        assert second.found.token == "a"
        assert second.files == {"plan/run.json": "0123"}


@pytest.mark.extra
def test_a_driver_that_works_is_not_disturbed(objects: Objects) -> None:
    told: list[str] = []
    notes: list[str] = []

    def come_second() -> None:
        try:
            with lease(objects, "b", notes=notes):
                told.append("in")
        except ConfigError as error:
            told.append(str(error))

    with lease(objects, "a", seconds=4.0) as first:
        second = threading.Thread(target=come_second)
        second.start()
        while second.is_alive():
            first.name_files({})  # what its thread does, only more often
            time.sleep(0.01)
        second.join()
        first.require()
    assert len(told) == 1
    assert "is working on this run; wait for it or choose another --out" in told[0]
    assert "waiting up to 4 s" in notes[0]


@pytest.mark.extra
def test_a_silent_driver_is_replaced_and_told(objects: Objects) -> None:
    lost: list[str] = []
    with lease(objects, "a", lost=lost) as first:
        quick = Head(**{**vars(head_of(objects)), "seconds": 0.2})
        objects.put(HEAD, quick.to_json())  # as if it had promised to be heard of more often
        with lease(objects, "b") as second:
            for _ in range(2):
                with pytest.raises(BackendError, match="lost to another run"):
                    first.name_files({"plan/run.json": "late"})
            assert lost == ["a"]
            second.name_files({"plan/run.json": "good"})
        assert head_of(objects).files == {"plan/run.json": "good"}
    assert head_of(objects).token == "b"


@pytest.mark.extra
def test_the_same_folder_need_not_wait(objects: Objects) -> None:
    objects.put_new(HEAD, Head("a", "process 1 on box", held=True, seconds=LONG_SECONDS).to_json())
    with lease(objects, "b", own="a") as second:
        assert second.found is not None
        second.require()


@pytest.mark.extra
def test_a_lost_reply_loses_nothing(objects: Objects, line: Line) -> None:
    def lose_some(method: str, path: str) -> str:
        return "lost_reply" if method == "PUT" and sum(m == "PUT" for m, _ in line.asked) % 2 else ""

    line.fault = lose_some  # type: ignore[assignment]
    with lease(objects, "a") as first:
        for number in range(5):
            first.name_files({"plan/run.json": str(number)})
            assert head_of(objects).files == {"plan/run.json": str(number)}
    assert not head_of(objects).held


@pytest.mark.extra
def test_a_driver_that_cannot_reach_its_store_gives_up_in_time(objects: Objects, line: Line) -> None:
    lost: list[str] = []
    with (
        pytest.raises(BackendError, match="could not be reached"),
        lease(objects, "a", seconds=0.8, lost=lost) as first,
    ):
        line.fault = lambda method, path: "broken"
        while not lost:
            time.sleep(0.05)
        first.require()


@pytest.mark.extra
def test_something_else_under_that_name_is_refused(objects: Objects, tmp_path: Path) -> None:
    objects.put(HEAD, b'{"what": "ever"}')
    with pytest.raises(DataError, match="is not a run's"), lease(objects, "a"):
        raise AssertionError("took it for a run")


@pytest.mark.extra
def test_a_file_outside_of_the_run_is_refused(objects: Objects) -> None:
    objects.put(HEAD, Head("a", "process 1 on box", held=False, seconds=60.0, files={"../letter": "0123"}).to_json())
    with pytest.raises(DataError, match=r"is not a run's \('../letter' leads out of its folder\)"), lease(objects, "b"):
        raise AssertionError("took it for a run")
