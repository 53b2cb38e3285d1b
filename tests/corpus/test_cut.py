"""Rows cut down to a number of tokens: never more, less than one row below, nested, whatever the order of the rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fineinstructions.corpus import cut
from fineinstructions.corpus.cut import keep_tokens, live_tokens
from fineinstructions.seeded_order import row_keys

ROWS = st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=60)


def chosen(rows: list[tuple[int, bool]], wanted: int, seed: int = 0) -> tuple[NDArray[np.bool_], int]:
    tokens = np.array([number for number, _ in rows])
    kept = np.ones(len(rows), np.bool_)
    total = keep_tokens(tokens, row_keys(seed, "cut", map(str, range(len(rows)))), live_of(rows), wanted, kept)
    return kept, total


def live_of(rows: list[tuple[int, bool]]) -> NDArray[np.bool_]:
    return np.array([is_live for _, is_live in rows])


@given(ROWS, st.integers(0, 20_000), st.integers(0, 5))
def test_what_is_kept_comes_to_the_wanted_number(rows: list[tuple[int, bool]], wanted: int, seed: int) -> None:
    kept, total = chosen(rows, wanted, seed)
    tokens, live = np.array([number for number, _ in rows]), live_of(rows)
    assert not (kept & ~live).any()
    assert total == tokens[kept].sum() <= wanted
    if live_tokens(tokens, live) > wanted:
        assert wanted - total < tokens[live & ~kept].min()
    else:
        assert (kept == live).all()


def test_what_fewer_tokens_keep_is_kept_by_more() -> None:
    """But for the last few rows, so that two cuts of one corpus hold the same documents."""
    rows = [(50 + n % 100, True) for n in range(20_000)]
    few, many = (chosen(rows, wanted)[0] for wanted in (700_000, 1_400_000))
    assert few.sum() > 6_000
    assert (few & ~many).sum() < 10


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(1 + n % 90, n % 7 != 0) for n in range(1000)]
    whole = chosen(rows, 12_345)
    monkeypatch.setattr(cut, "BLOCK_ROWS", 17)
    kept, total = chosen(rows, 12_345)
    assert (kept == whole[0]).all()
    assert total == whole[1] == 12_345


def test_what_is_kept_is_spread_over_all_rows() -> None:
    kept, _ = chosen([(10, True)] * 20_000, 100_000)
    quarters = kept.reshape(4, -1).mean(axis=1)
    assert abs(quarters - 0.5).max() < 0.03
