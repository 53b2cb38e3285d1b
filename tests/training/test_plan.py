"""How long a training goes: never a token twice unless that was asked for, and every refusal says what to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.training.metrics import append_metrics, forget_after, read_metrics
from fineinstructions.training.models import ModelFacts
from fineinstructions.training.plan import Plan, forecast_lines, micro_batch, plan
from fineinstructions.training.recipe import PretrainConfig

PAPER = ModelFacts(1_809_946_624, 1_547_278_336, 1e10, 1e9, 1e-3)


def recipe(**keys: Any) -> PretrainConfig:
    return from_mapping({"corpora": "c", **keys}, PretrainConfig)


def planned(corpus_tokens: int, **keys: Any) -> Plan:
    return plan(recipe(**keys), corpus_tokens, 128_256, PAPER, "c/standard")


def test_the_papers_run() -> None:
    found = planned(23_068_672_001, steps=22_000)
    assert found.tokens_per_step == 1_048_576
    assert found.tokens == found.unique_tokens == 23_068_672_000
    assert found.epochs == 1
    assert (found.lr, found.warmup_steps, found.save_every_steps) == (1e-3, 2000, 2200)
    assert micro_batch(recipe(), 8) == (4, 8)


def test_a_second_epoch_is_refused_unless_it_was_asked_for() -> None:
    small = {"seq_len": 10, "sequences_per_step": 10}
    with pytest.raises(ConfigError) as error:
        planned(1001, steps=11, **small)
    line = str(error.value)
    assert "1,001 tokens are there, 1,100 are asked for" in line
    assert "set epochs: 2" in line
    assert "1,000 tokens (10 steps)" in line
    twice = planned(1001, steps=11, epochs=2, **small)
    assert (twice.tokens, twice.unique_tokens, twice.epochs) == (1100, 1000, 1.1)
    with pytest.raises(ConfigError, match="would begin epoch 3; set epochs: 3"):
        planned(1001, steps=21, epochs=2, **small)


@given(st.integers(1, 5000), st.integers(2, 30), st.integers(1, 9), st.integers(1, 3))
def test_no_plan_reads_more_than_was_asked_for(corpus: int, seq_len: int, size: int, epochs: int) -> None:
    try:
        found = planned(corpus, seq_len=seq_len, sequences_per_step=size, epochs=epochs)
    except ConfigError:
        assert epochs * ((corpus - 1) // seq_len) < size
        return
    assert found.tokens <= epochs * (corpus - 1)
    assert found.unique_tokens + found.left_over_tokens == corpus
    assert found.tokens + found.tokens_per_step > epochs * ((corpus - 1) // seq_len) * seq_len
    assert found.epochs <= epochs


def test_tokens_are_rounded_down_to_steps() -> None:
    small = {"seq_len": 10, "sequences_per_step": 10}
    assert planned(1001, tokens=599, **small).steps == 5
    with pytest.raises(ConfigError, match="less than one step of 100"):
        planned(1001, tokens=99, **small)
    with pytest.raises(ConfigError, match="c/standard: 90 tokens are less than one step"):
        planned(90, **small)
    with pytest.raises(ConfigError, match="not both"):
        recipe(tokens=1, steps=1)


def test_devices_share_a_step_evenly() -> None:
    assert micro_batch(recipe(sequences_per_step=12, micro_batch=4), 2) == (3, 2)
    assert micro_batch(recipe(sequences_per_step=7, micro_batch=4), 1) == (1, 7)
    for number in (3, 16):
        with pytest.raises(ConfigError, match=f"cannot be shared by {number} devices"):
            micro_batch(recipe(sequences_per_step=8), number)


def test_what_a_user_is_told_before_it_begins() -> None:
    lines = "\n".join(forecast_lines(planned(23_068_672_001, steps=22_000)))
    assert "1,809,946,624 parameters" in lines
    assert "23,068,672,000 in 22,000 steps of 1,048,576" in lines
    assert "100 % of one epoch" in lines
    assert "2.31e+20 operations" in lines
    assert "3 epochs" in "\n".join(forecast_lines(replace(planned(10**9), epochs=3.0)))


def test_metrics_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    for step in (10, 20, 30):
        append_metrics(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 4')  # what a kill leaves
    forget_after(path, 20)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
    append_metrics(path, {"step": 30})
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
