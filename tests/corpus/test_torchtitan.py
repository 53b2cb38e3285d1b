"""Settings for torchtitan: valid TOML that names a folder with text, and no more steps than there are tokens."""

import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported import export
from hypothesis import given
from hypothesis import strategies as st
from small_run import some_texts, write_run

from fineinstructions.corpus.torchtitan import settings, tokens_by_rank


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


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=9))
def test_no_token_is_read_twice_and_less_than_a_step_is_left(rank_tokens: list[int]) -> None:
    found = tomllib.loads(settings("a", Path("x"), rank_tokens))["training"]
    step = found["local_batch_size"] * (found["seq_len"] + 1)
    assert 0 <= min(rank_tokens) - found["steps"] * step < step


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 9), st.integers(1, 7))
def test_every_row_belongs_to_one_rank(rows: list[int], ranks: int, piece: int) -> None:
    pieces = [np.array(rows[start : start + piece]) for start in range(0, len(rows), piece)]
    found = tokens_by_rank(pieces, len(rows), ranks)
    assert (len(found), sum(found)) == (ranks, sum(rows))
    assert tokens_by_rank([np.array(rows, np.int64)], len(rows), ranks) == found


@pytest.mark.extra
@pytest.mark.parametrize("ranks", [1, 3, 7])
def test_ranks_read_what_the_library_deals_out(tmp_path: Path, ranks: int) -> None:
    """The real `datasets`, as torchtitan calls it: load the folder, split it by rank."""
    from datasets import load_dataset
    from datasets.distributed import split_dataset_by_node

    run = write_run(tmp_path, some_texts(25), lambda n: 2)
    words = ("--format", "torchtitan", "--arm", "standard", "--ranks", str(ranks), "--set", "rows_per_part=9")
    facts = export(run, tmp_path / "out", *words)
    rows = load_dataset(str(tmp_path / "out" / "standard"), split="train", cache_dir=str(tmp_path / "cache"))
    dealt = [sum(split_dataset_by_node(rows, rank, ranks)["num_tokens"]) for rank in range(ranks)]
    text = (tmp_path / "out" / "torchtitan.standard.toml").read_text(encoding="utf-8")
    assert f"{facts['arms']['standard']['tokens']:,} tokens" in text
    assert f"{min(dealt):,} by the one with the fewest" in text
