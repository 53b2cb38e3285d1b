"""A run on a store has the bytes of a local one, whatever happens to its drivers and their disks."""

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import stored_runs
from gs_server import serve_gs
from hub_store import NAME, serve_hub_store
from s3_server import BUCKET, Fault, Line, line_to, serve_s3, settings
from stored_runs import check, expect_whole, make_one, on, stored
from toy_run import Toy, command_of, run_toy, some_texts, write_documents

from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.records import Pair
from fineinstructions.runs import RunFolder, status
from fineinstructions.runs.head import HEAD, Head, read_head
from fineinstructions.runs.mirror import file_key
from fineinstructions.runs.places import look_at
from fineinstructions.stores import Objects, open_objects


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def url(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in settings(s3).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def line(s3: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with line_to(s3) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.address)
        yield line


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    path = write_documents(tmp_path / "documents.parquet", some_texts(60))
    return Toy(inputs=(str(path),), out=str(tmp_path / "local"))


def make_silent(objects: Objects) -> None:
    """As if the dead holder of a run had promised to be heard of every moment."""
    found = read_head(objects)
    assert found is not None
    objects.replace(HEAD, Head(**{**vars(found[0]), "seconds": 0.2}).to_json(), found[1])


@pytest.mark.extra
def test_same_bytes_as_in_a_folder_and_read_without_us(toy: Toy, url: str, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    expect_whole(toy, url, tmp_path / "work")
    names = [entry.key for entry in open_objects(url).list()]
    assert not [name for name in names if name.startswith("incoming/")]
    assert "recipe.resolved.yaml" in names
    assert pq.read_table(f"{url}/pairs/").num_rows == sum(
        pq.read_metadata(io.BytesIO(data)).num_rows for name, data in stored(url).items() if name.startswith("pairs/")
    )


@pytest.mark.extra
def test_google_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    with serve_gs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        make_one("gs://bucket/run", tmp_path)


@pytest.mark.slow
@pytest.mark.extra
def test_hub(tmp_path: Path) -> None:
    """In a process of its own, because the library reads its settings once."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with serve_hub_store() as server:
        own = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_any", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        words = [sys.executable, str(stored_runs.__file__), f"hf://datasets/{NAME}/run", str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False, env=os.environ | own)
        assert done.returncode == 0, done.stderr


@pytest.mark.extra
def test_a_finished_run_is_continued_from_an_empty_disk_without_work(toy: Toy, url: str, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    before = stored(url)
    other = on(toy, url, tmp_path / "elsewhere")
    outcomes = run_toy(other)
    assert [outcome.num_done for outcome in outcomes] == [0, 0]
    assert stored(url) == before
    assert not list(Path(other.out).glob("units/*/*/*.parquet")), "units were fetched that nobody read"
    look = RunFolder.open(look_at(url, tmp_path / "third"))
    assert all(phase.complete for phase in status(look).phases)
    assert {pair.judge_score for pair in look.published_records("pairs", Pair)} == {3}


@pytest.mark.extra
def test_a_store_that_was_emptied_is_the_truth(toy: Toy, url: str, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    objects = open_objects(url)
    objects.delete([entry.key for entry in objects.list()])
    with pytest.raises(ConfigError, match="no run here"):
        RunFolder.open(look_at(url, tmp_path / "work"))
    run_toy(on(toy, url, tmp_path / "work"))
    expect_whole(toy, url, tmp_path / "work")


@pytest.mark.extra
def test_another_recipe_is_refused_and_redone_from_an_empty_disk(toy: Toy, url: str, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    changed = replace(toy, words=2)
    with pytest.raises(ConfigError, match=rf"{url}: made with other settings \(match.words: 3 -> 2\).*--redo"):
        run_toy(on(changed, url, tmp_path / "elsewhere"))
    expect_whole(toy, url, tmp_path / "work")
    run_toy(on(replace(changed, redo=True), url, tmp_path / "elsewhere"))
    expect_whole(changed, url, tmp_path / "work")
    run_toy(on(changed, url, tmp_path / "work"))  # the folder that knew the old one


@pytest.mark.extra
def test_what_failed_is_tried_again_on_another_machine(toy: Toy, url: str, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "broken.parquet", [*some_texts(20), "the BROKEN document", *some_texts(20)])
    broken = replace(toy, inputs=(str(path),), workers=1)
    (tmp_path / "work" / "broken").parent.mkdir()
    (tmp_path / "work" / "broken").touch()
    (first, _) = run_toy(on(broken, url, tmp_path / "work"))
    assert len(first.set_aside) == 1
    (again, _) = run_toy(on(replace(broken, retry_failed=True), url, tmp_path / "elsewhere"))
    assert again.num_done == 1
    expect_whole(broken, url, tmp_path / "work")
    (tmp_path / "work" / "broken").unlink()
    (known, _) = run_toy(on(broken, url, tmp_path / "work"))
    assert known.num_done == 0, "the folder that had the failure believed itself more than the store"


@pytest.mark.extra
def test_a_retry_that_comes_to_nothing_loses_nothing(toy: Toy, url: str, line: Line, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "broken.parquet", [*some_texts(20), "the BROKEN document", *some_texts(20)])
    broken = replace(toy, inputs=(str(path),), workers=1)
    (tmp_path / "work" / "broken").parent.mkdir()
    (tmp_path / "work" / "broken").touch()
    (first, _) = run_toy(on(broken, url, tmp_path / "work"))
    assert len(first.set_aside) == 1
    before = units_of(url)
    line.fault = lambda method, path: "denied" if method == "PUT" and "/units/" in path else ""
    with pytest.raises(ConfigError, match="may not write there"):
        run_toy(on(replace(broken, retry_failed=True), url, tmp_path / "work"))
    assert units_of(url) == before, "what failed is replaced, not removed first"
    told: Counter[str] = Counter()

    def loses_the_first_reply(method: str, path: str) -> Fault:
        told[path] += method == "PUT" and "/units/" in path
        return "lost_reply" if method == "PUT" and told[path] == 1 else ""

    line.fault = loses_the_first_reply
    run_toy(on(replace(broken, retry_failed=True), url, tmp_path / "elsewhere"))
    line.fault = lambda method, path: ""
    expect_whole(broken, url, tmp_path / "work")


def units_of(url: str) -> dict[str, bytes]:
    return {name: data for name, data in stored(url).items() if name.startswith("units/")}


@pytest.mark.extra
def test_who_looks_while_files_are_replaced_sees_the_later_ones(toy: Toy, url: str, line: Line, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    found = read_head(open_objects(url))
    assert found is not None
    later = {**found[0].files, "recipe.resolved.yaml": "another"}
    old = file_key("recipe.resolved.yaml", found[0].files["recipe.resolved.yaml"])
    beside = open_objects(url)

    def replaced(method: str, path: str) -> Fault:
        """A driver puts another file in place, and sweeps, while the first is fetched."""
        if method == "GET" and path.endswith(old):
            content = b"changed: true"
            later["recipe.resolved.yaml"] = sha256(content).hexdigest()[:16]
            line.fault = lambda method, path: ""
            beside.put(file_key("recipe.resolved.yaml", later["recipe.resolved.yaml"]), content)
            beside.put(HEAD, Head(**{**vars(found[0]), "files": later}).to_json())
            beside.delete([old])
        return ""

    line.fault = replaced
    assert RunFolder.open(look_at(url, tmp_path / "third")).config == {"changed": True}


@pytest.mark.extra
def test_files_that_grow_while_they_are_sent_are_sent_as_they_were(toy: Toy, url: str, tmp_path: Path) -> None:
    root = on(toy, url, tmp_path / "work")
    cache = Path(root.out) / "cache"
    cache.mkdir(parents=True)
    (cache / "replies.jsonl").write_bytes(b"x" * (8 << 20))
    over = threading.Event()

    def grow() -> None:
        with (cache / "replies.jsonl").open("ab", buffering=0) as file:
            for _ in range(100_000):
                if over.is_set():
                    return
                file.write(b"y" * 100)
                time.sleep(0.001)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        run_toy(root)
    finally:
        over.set()
        thread.join()
    objects = open_objects(url)
    names = [entry.key for entry in objects.list("files/cache/")]
    assert names
    for name in names:
        assert sha256(objects.read(name)).hexdigest()[:16] == name.rpartition(".")[2]


@pytest.mark.extra
def test_damage_in_the_store_is_found_and_mended(toy: Toy, url: str, tmp_path: Path) -> None:
    run_toy(on(toy, url, tmp_path / "work"))
    objects = open_objects(url)
    unit, part = (next(e.key for e in objects.list(prefix)) for prefix in ("units/pairs/", "pairs/"))
    for key in (unit, part):
        whole = bytearray(objects.read(key))
        whole[len(whole) // 3] ^= 1
        objects.put(key, bytes(whole))
    found = "\n".join(map(str, check(url, tmp_path / "work")))
    assert f"{unit}: pair.parquet does not have the content" in found
    assert f"{part}: part-00000.parquet does not have the content" in found
    objects.delete([unit, part])
    run_toy(on(toy, url, tmp_path / "elsewhere"))
    expect_whole(toy, url, tmp_path / "work")


@pytest.mark.extra
def test_a_store_that_fails_for_long_ends_the_run_and_loses_nothing(
    toy: Toy, url: str, line: Line, tmp_path: Path
) -> None:
    root = on(toy, url, tmp_path / "work")
    line.fault = lambda method, path: "denied" if method == "PUT" and "/units/pairs/" in path else ""
    with pytest.raises(ConfigError, match="may not write there"):
        run_toy(root)
    assert not read_head(open_objects(url))[0].held  # type: ignore[index]
    line.fault = lambda method, path: ""
    run_toy(on(toy, url, tmp_path / "elsewhere"))
    expect_whole(toy, url, tmp_path / "work")


def start(toy: Toy) -> subprocess.Popen[str]:
    return subprocess.Popen(command_of(toy), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_units(url: str, phase: str, number: int, driver: subprocess.Popen[str]) -> None:
    objects = open_objects(url)
    while sum(1 for _ in objects.list(f"units/{phase}/")) < number:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("phase", ["matches", "pairs"])
def test_a_driver_killed_half_way_is_followed_by_one_with_an_empty_disk(
    toy: Toy, url: str, tmp_path: Path, phase: str
) -> None:
    driver = start(on(replace(toy, workers=2, seconds=0.1, unit_rows=5), url, tmp_path / "work"))
    wait_for_units(url, phase, 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    shutil.rmtree(tmp_path / "work")
    make_silent(open_objects(url))
    small = replace(toy, unit_rows=5)
    outcomes = run_toy(on(small, url, tmp_path / "elsewhere"))
    assert outcomes[0].num_done <= 10
    assert outcomes[phase == "pairs"].num_done <= 10
    expect_whole(small, url, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.extra
def test_a_driver_that_slept_too_long_commits_nothing_more(toy: Toy, url: str, tmp_path: Path) -> None:
    slow = replace(toy, workers=2, seconds=0.1, unit_rows=5, lease_seconds=2.0)
    first = start(on(slow, url, tmp_path / "work"))
    wait_for_units(url, "matches", 2, first)
    asleep = [first.pid, *_workers_of(first.pid)]
    for pid in asleep:
        _send(pid, signal.SIGSTOP)
    try:
        small = replace(toy, unit_rows=5)
        run_toy(on(small, url, tmp_path / "elsewhere"))
        whole = stored(url)
    finally:
        for pid in asleep:
            _send(pid, signal.SIGCONT)
    _, errors = first.communicate(timeout=120)
    assert "BackendError" in errors
    assert "lost to another" in errors
    assert stored(url) == whole
    expect_whole(small, url, tmp_path / "third")


def _workers_of(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.mark.extra
def test_a_late_commit_finds_its_place_taken(toy: Toy, url: str, tmp_path: Path) -> None:
    """Two workers with one unit, as after a driver was replaced: who comes second takes what is there."""
    first = on(toy, url, tmp_path / "work")
    run_toy(first)
    folder = RunFolder.open(Path(first.out))
    spec = (folder.planned("matches") or [])[0]
    before = stored(url)
    late = folder.unit("matches", spec)
    late.count("late", 1)
    manifest = late.commit()
    assert "late" not in manifest.counts
    assert folder.is_done("matches", spec)
    assert stored(url) == before


@pytest.mark.extra
def test_a_lost_run_is_told_in_one_line(toy: Toy, url: str, tmp_path: Path) -> None:
    def take_over() -> None:
        found = read_head(open_objects(url))
        assert found is not None
        open_objects(url).put(HEAD, Head("another", "process 1 on box", held=True, seconds=60.0).to_json())

    with pytest.raises(BackendError, match=f"{url}: lost to another run.*nothing more is committed"):
        run_toy(on(toy, url, tmp_path / "work"), between=take_over)
    assert not list(open_objects(url).list("pairs/"))
