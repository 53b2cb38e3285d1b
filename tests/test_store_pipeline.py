"""The whole pipeline with its run on S3: stopped hard, continued on another disk, read by every verb, without a key."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_inputs import call, command, content, in_process, look, output_json, take_documents, write_recipe
from s3_server import BUCKET, serve_s3, settings

from fineinstructions.runs.head import HEAD, Head, read_head
from fineinstructions.stores import open_objects
from fineinstructions.templates.bank import bank_files

URL = f"s3://{BUCKET}/runs/first"
SECRET = "wJalr-very-secret-0123456789"
TABLES = ("pairs", "matches", "templates", "rejected")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def recipe(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose documents lie in the bucket too, as JSON lines, so that they are converted on every machine."""
    for name, value in (settings(address) | {"AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    s3fs.S3FileSystem.clear_instance_cache()  # one that another test has left asks another server
    folder = tmp_path / "inputs"
    folder.mkdir()
    rows = pq.read_table(take_documents(folder / "documents.parquet", 24, every=20)).to_pylist()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    open_objects(f"s3://{BUCKET}").put("corpus/documents.jsonl", lines.encode())
    queries = {"path": "examples/data/queries.parquet", "limit": 1500}
    return write_recipe(folder, f"s3://{BUCKET}/corpus/documents.jsonl", queries=queries)


def on_disk(folder: Path) -> str:
    """All bytes below a folder, as text."""
    return "\n".join(p.read_bytes().decode("utf-8", "replace") for p in sorted(folder.rglob("*")) if p.is_file())


@pytest.mark.slow
@pytest.mark.extra
def test_killed_and_continued_on_another_disk(recipe: Path, tmp_path: Path) -> None:
    objects = open_objects(URL)
    words = command("run", recipe, "--out", URL, "--work", tmp_path / "a")
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while sum(1 for _ in objects.list("units/candidates/")) < 1:
        assert driver.poll() is None, driver.communicate()[1]
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    shutil.rmtree(tmp_path / "a")
    found = read_head(objects)
    assert found is not None
    quick = Head(**{**vars(found[0]), "seconds": 1.0})
    objects.replace(HEAD, quick.to_json(), found[1])
    second = call("run", recipe, "--out", URL, "--work", tmp_path / "b")
    assert second.returncode == 0, second.stderr
    assert "held this run when it was last heard of" in second.stderr
    assert f"{URL}/pairs/" in second.stdout
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "local", "--workers", "0")
    assert code == 0, errors
    for table in TABLES:
        there = {entry.key.rpartition("-")[0]: objects.read(entry.key) for entry in objects.list(f"{table}/")}
        local = content(tmp_path / "local" / table)
        assert there == {f"{table}/{name.removesuffix('.parquet')}": data for name, data in local.items()}
    assert [file.name.rpartition("-")[0] for file in bank_files(URL)] == [f"{URL}/templates/part-00000"]
    look_everywhere(tmp_path)
    shown = second.stdout + second.stderr + on_disk(tmp_path)
    shown += "\n".join(objects.read(entry.key).decode("utf-8", "replace") for entry in objects.list())
    assert SECRET not in shown


def look_everywhere(folder: Path) -> None:
    """Every verb reads the run from a third disk, where nothing lies yet."""
    work = ("--work", folder / "c")
    local = output_json(look("status", folder / "local", "--json"))
    state = output_json(look("status", URL, *work, "--json"))
    assert state["holder"] == ""
    assert (state["funnel"], state["rows"]) == (local["funnel"], local["rows"])
    pair = output_json(look("inspect", URL, *work, "--json"))["pairs"][0]["pair_id"]
    assert output_json(look("explain", URL, pair, *work, "--json"))["pair"]["pair_id"] == pair
    assert output_json(look("yields", URL, *work, "--json"))["model"]
    verified = look("verify", URL, *work)
    assert (verified.returncode, verified.stdout) == (0, f"{URL}: clean, nothing lost\n")


@pytest.mark.extra
def test_mistakes_are_one_line(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEINSTRUCTIONS_WORK", str(tmp_path / "work"))
    for words, told in {
        ("run", recipe, "--out", "s3://absent/run"): "no such bucket",
        ("status", "s3://absent/run"): "no such bucket",
        ("verify", f"s3://{BUCKET}/nothing"): "no run here",
        ("run", recipe, "--out", "ftp://host/run"): "choose another --out",
        ("run", recipe, "--out", "s3://"): "names no bucket",
    }.items():
        code, _, errors = in_process(*words)
        assert code == 2, errors
        assert told in errors
        assert errors.count("\n") == 1
    assert SECRET not in on_disk(tmp_path)
