"""Corpora on a hub: every file arrives, the card last, and a hub that is busy is asked again."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import HubServer, serve_hub
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions.backends import hub_upload
from fineinstructions.backends.hub_upload import upload
from fineinstructions.errors import BackendError, ConfigError

pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs the extra 'corpus'"),
]
NAME = "somebody/corpora"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    run = write_run(folder, some_texts(12))
    words = ("--format", "hf", "--arm", "standard", "--arm", "fineinstructions", "--workers", "0")
    code, _, errors = in_process("export", run, "--out", folder / "out", *words)
    assert code == 0, errors
    return folder / "out"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub({}) as server:
        import huggingface_hub.constants
        import huggingface_hub.hf_api

        for module in (huggingface_hub.constants, huggingface_hub.hf_api):
            if hasattr(module, "ENDPOINT"):
                monkeypatch.setattr(module, "ENDPOINT", server.address)
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield server


def test_every_file_arrives_and_the_card_last(made: Path, hub: HubServer) -> None:
    code, said, errors = in_process("push", made, NAME)
    assert code == 0, errors
    names = sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file())
    assert hub.files == {f"{NAME}/{name}": (made / name).read_bytes() for name in names}
    assert hub.commits[-1] == ["README.md", "corpus.json", "manifest.json"]
    assert len(hub.commits) == 2
    assert hub.private == {NAME: True}
    assert f"{len(names)} files in 2 commits" in said


def test_a_busy_hub_is_asked_again(made: Path, hub: HubServer) -> None:
    hub.refusals = [(429, {"Retry-After": "9"}), (503, {}), (500, {})]
    waits: list[float] = []
    assert upload(made, NAME, ["ledger.parquet"], ["README.md"], wait=waits.append) == 2
    assert [sorted(c) for c in hub.commits] == [["ledger.parquet"], ["README.md"]]
    assert waits[0] == 9
    assert waits[1:] == sorted(waits[1:])
    assert set(hub.files) == {f"{NAME}/ledger.parquet", f"{NAME}/README.md"}


def test_files_are_spread_over_commits(made: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_upload, "FILES_A_COMMIT", 2)
    files = ["ledger.parquet", "corpus.json", "manifest.json"]
    assert upload(made, NAME, files, ["README.md"]) == 3
    assert [len(commit) for commit in hub.commits] == [2, 1, 1]


def test_a_hub_that_refuses_or_is_gone_is_one_error(made: Path, hub: HubServer) -> None:
    hub.refusals = [(403, {})]
    with pytest.raises(ConfigError, match="hf auth login"):
        upload(made, NAME, ["ledger.parquet"], ["README.md"])
    hub.refusals = [(503, {})] * 99
    with pytest.raises(BackendError, match="run the same command again"):
        upload(made, NAME, ["ledger.parquet"], ["README.md"], wait=lambda _: None)
    with pytest.raises(ConfigError):
        upload(made, "no/such/name", ["ledger.parquet"], ["README.md"])


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    code, _, errors = in_process("push", tmp_path, NAME)
    assert (code, "holds no corpora" in errors) == (2, True)


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs the extra 'corpus'")
def test_data_sets_are_read_by_the_library_as_the_card_says(made: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    for arm in ("standard", "fineinstructions"):
        found = load_dataset(str(made), arm, split="train", cache_dir=str(tmp_path / "cache"))
        assert found.num_rows > 3
        assert all(isinstance(text, str) for text in found["text"])
