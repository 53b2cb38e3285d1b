"""Sequences: every token learned once an epoch, in order; rows kept apart where that is asked for."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import Row, packed_rows

from fineinstructions.training.packed import PackedTokens
from fineinstructions.training.sequences import IGNORED, Sequences, num_sequences

PLAIN = {"answers_only": False, "restart_positions": False}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedTokens:
    return packed_rows(tmp_path_factory.mktemp("p"), [["abcdefgh", "", "ij"], ["klmnopqrstuvwxyz", "0123"]])


@settings(max_examples=25)  # each one writes to a disk
@given(st.lists(st.text("ab", max_size=9), min_size=1, max_size=12), st.integers(2, 9), st.integers(1, 3))
def test_every_token_but_the_first_is_a_target_once_in_every_epoch(rows: list[str], seq_len: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = packed_rows(Path(folder), [rows])
        number = num_sequences(packed.num_tokens, seq_len)
        sequences = Sequences(packed, seq_len, number * epochs if number else 0, **PLAIN)
        items = [sequences[n] for n in range(len(sequences))]
        seen = packed.stretch(0, packed.num_tokens).tokens
        for epoch in range(epochs if number else 0):
            of_epoch = items[epoch * number : (epoch + 1) * number]
            assert np.concatenate([i["input_ids"] for i in of_epoch]).tolist() == seen[: number * seq_len].tolist()
            targets = np.concatenate([i["shift_labels"] for i in of_epoch])
            assert targets.tolist() == seen[1 : number * seq_len + 1].tolist()


def test_a_position_leads_back_to_epoch_and_rows(packed: PackedTokens) -> None:
    number = num_sequences(packed.num_tokens, 10)
    sequences = Sequences(packed, 10, 2 * number, **PLAIN)
    assert [sequences.place(n) for n in (0, 1, number, 2 * number - 1)] == [
        (0, 0), (0, 10), (1, 0), (1, 10 * (number - 1)),
    ]  # fmt: skip
    assert sequences.rows(0) == (0, [0])
    assert sequences.rows(number + 1) == (1, [1, 2, 3])
    assert [packed.row_id(row)[0] for row in sequences.rows(1)[1]] == ["r1", "r2", "r3"]
    with pytest.raises(IndexError):
        sequences[2 * number]


def test_positions_begin_with_every_row_and_every_sequence(packed: PackedTokens) -> None:
    sequences = Sequences(packed, 10, 3, answers_only=False, restart_positions=True)
    positions = [sequences[n]["position_ids"].tolist() for n in range(3)]
    assert positions[0] == list(range(10))
    assert positions[1] == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3]
    assert positions[2] == list(range(10))  # a row that began in the sequence before


def test_only_answers_are_learned(tmp_path: Path) -> None:
    pairs: list[Row] = [("ask", " me"), ("why", " so")]
    sequences = Sequences(packed_rows(tmp_path, [pairs]), 13, 1, answers_only=True, restart_positions=False)
    targets = sequences[0]["shift_labels"]
    assert [chr(t) if t < 256 else t for t in targets.tolist() if t != IGNORED] == [*" me", 257, *" s"]
    assert sequences[0]["input_ids"].tolist()[0] == 256


def test_too_few_tokens_for_a_sequence(packed: PackedTokens) -> None:
    with pytest.raises(ValueError, match="fewer tokens"):
        Sequences(packed, packed.num_tokens, 1, **PLAIN)
