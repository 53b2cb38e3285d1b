"""Every kind of store keeps its promises, over HTTP; and trouble with one is a line that says what to do."""

import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import store_contract
from gs_server import serve_gs
from hub_store import NAME, serve_hub_store
from s3_server import BUCKET, Fault, Line, line_to, serve_s3, settings

from fineinstructions.errors import BackendError, ConfigError, FineInstructionsError
from fineinstructions.stores import Conflict, Objects, open_objects

SMALL, LARGE = 5120, 66 << 20


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


def some_url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def open_quickly(url: str) -> Objects:
    return open_objects(url, pauses=(0.01, 0.01, 0.01))


@pytest.mark.extra
@pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_s3(line: Line, size: int) -> None:
    store_contract.check(some_url(), size)


@pytest.mark.extra
@pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_gs(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    with serve_gs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        store_contract.check("gs://bucket/run", size)


@pytest.mark.extra
def test_hf(tmp_path: Path) -> None:
    """In a process of its own, because the library reads its settings once."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with serve_hub_store() as server:
        own = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_any", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        words = [sys.executable, str(store_contract.__file__), f"hf://datasets/{NAME}/run", str(SMALL)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=os.environ | own)
        assert done.returncode == 0, done.stderr
        assert len(server.commits) > 5


@pytest.mark.extra
@pytest.mark.parametrize("fault", ["slow_down", "broken", "reset"])
def test_passing_trouble_is_waited_out(line: Line, fault: Fault) -> None:
    line.fault = lambda method, path: fault if len(line.asked) % 3 else ""
    store_contract.check(some_url(), SMALL, pauses=(0.01, 0.01))


@pytest.mark.extra
def test_a_write_whose_reply_got_lost_conflicts_with_itself(line: Line) -> None:
    objects = open_quickly(some_url())
    line.fault = lambda method, path: "lost_reply" if len(line.asked) == 1 else ""
    with pytest.raises(Conflict):
        objects.put_new("key", b"content")
    assert objects.read("key") == b"content"


@pytest.mark.extra
@pytest.mark.parametrize("fault", ["slow_down", "broken", "reset"])
def test_lasting_trouble_is_told(line: Line, fault: Fault) -> None:
    line.fault = lambda method, path: fault
    for ask in (lambda o: o.put("k", b"c"), lambda o: o.read("k"), lambda o: list(o.list())):
        with pytest.raises(
            BackendError, match=r"s3://bucket/\w+: cannot (write|read|list) there .*run the same command"
        ):
            ask(open_quickly(some_url()))


def refused(ask: Callable[[], object]) -> str:
    with pytest.raises(FineInstructionsError) as caught:
        ask()
    assert isinstance(caught.value, ConfigError)
    assert "word" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.extra
def test_what_a_user_can_mend_is_told(line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "no such bucket" in refused(lambda: list(open_quickly("s3://absent/run").list()))
    assert "no such bucket" in refused(lambda: open_quickly("s3://absent/run").put_new("k", b""))
    assert "check the name" in refused(lambda: list(open_quickly("s3://No such name!/run").list()))
    line.fault = lambda method, path: "denied" if method == "PUT" else ""
    assert "may not write there" in refused(lambda: open_quickly(some_url()).put_new("k", b""))
    assert not list(open_quickly(some_url()).list())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET" in refused(lambda: list(open_quickly(some_url()).list()))


def test_a_place_that_is_no_store_is_refused() -> None:
    for url in ("ftp://host/run", "memory://run", "s3://", "hf://models/jo/cats", "hf://datasets/jo"):
        assert url.partition("://")[0] in refused(lambda url=url: open_objects(url))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "package"), [("s3://b/r", "s3fs"), ("gs://b/r", "gcsfs"), ("hf://datasets/a/b", "huggingface_hub")]
)
def test_a_missing_extra_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (package, f"{package}.core"):
        monkeypatch.setitem(sys.modules, name, None)
    extra = url.partition("://")[0]
    assert f"pip install 'fineinstructions[{extra}]'" in refused(lambda: open_objects(url))
