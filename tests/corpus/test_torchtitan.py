"""Settings for torchtitan: valid TOML that names a folder with text, and no more steps than there are tokens."""

import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported import export
from small_run import some_texts, write_run

from fineinstructions.corpus.torchtitan import settings


def test_the_settings_name_the_files_of_an_arm(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_texts(20), lambda n: 3)
    facts = export(run, tmp_path / 'with "quotes"', "--format", "torchtitan", "--arm", "fineinstructions")
    out = tmp_path / 'with "quotes"'
    found = tomllib.loads((out / "torchtitan.fineinstructions.toml").read_text(encoding="utf-8"))["training"]
    folder = Path(found["dataset_path"])
    assert folder == out / "fineinstructions"
    (file,) = folder.iterdir()
    assert file.name == "train-00000-of-00001.parquet"
    assert pq.read_table(file)["text"].null_count == 0
    assert pq.read_metadata(file).num_rows == facts["arms"]["fineinstructions"]["rows"]


@pytest.mark.parametrize(("tokens", "ranks"), [(0, 1), (10**5, 1), (10**9, 8), (23_068_672_000, 8)])
def test_no_token_is_read_twice(tmp_path: Path, tokens: int, ranks: int) -> None:
    found = tomllib.loads(settings("a", tmp_path, tokens, ranks))["training"]
    read = found["steps"] * found["local_batch_size"] * (found["seq_len"] + 1) * ranks
    assert read <= tokens
    assert tokens < 10**8 or read > 0.98 * tokens
