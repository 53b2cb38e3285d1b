"""Rows cut down to a number of tokens: never more, less than one row below, nested, whatever the order of the rows."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fineinstructions.corpus import cut
from fineinstructions.corpus.arms import Source, share_out
from fineinstructions.corpus.cut import keep_tokens, live_tokens, top_up
from fineinstructions.corpus.export import arm_tokens
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


@given(ROWS, st.integers(0, 5_000), st.integers(0, 5_000), st.integers(0, 5))
def test_what_is_left_is_less_than_any_row(rows: list[tuple[int, bool]], wanted: int, left: int, seed: int) -> None:
    kept, total = chosen(rows, wanted, seed)
    tokens, live = np.array([number for number, _ in rows]), live_of(rows)
    before = kept.copy()
    still = top_up(tokens, row_keys(seed, "cut", map(str, range(len(rows)))), live, left, kept)
    assert (kept & before == before).all()
    assert not (kept & ~live).any()
    assert tokens[kept].sum() == total + left - still
    assert not (live & ~kept & (tokens <= still)).any()


SOURCES = st.dictionaries(st.sampled_from("abc"), st.tuples(ROWS, st.floats(0.05, 1)), min_size=1, max_size=3)


@given(st.dictionaries(st.sampled_from("xyz"), SOURCES, min_size=2, max_size=3))
def test_arms_of_any_mixture_lack_less_than_one_row(
    arms: dict[str, dict[str, tuple[list[tuple[int, bool]], float]]],
) -> None:
    sources, mixtures = {}, {}
    for arm, mixture in arms.items():
        total = sum(share for _, share in mixture.values())
        mixtures[arm] = {f"{arm}{name}": share / total for name, (_, share) in mixture.items()}
        for name, (rows, _) in mixture.items():
            tokens, live = np.array([number for number, _ in rows]), live_of(rows)
            keys = row_keys(0, name, map(str, range(len(rows))))
            sources[f"{arm}{name}"] = Source(f"{arm}{name}", lambda: iter(()), tokens, keys, live, live)
    with TemporaryDirectory() as folder:
        shares = share_out(sources, mixtures, True, Path(folder))
        wanted = min(arm_tokens({n: live_tokens(s.tokens, s.live) for n, s in sources.items()}, mixtures).values())
        for arm, found in shares.items():
            tokens_of = [share.num_tokens for share in found]
            assert tokens_of == [int(share.source.tokens[share.kept].sum()) for share in found]
            missing = wanted - sum(tokens_of)
            assert missing >= 0
            for share in found:
                untaken = share.source.tokens[share.source.live & ~share.kept]
                assert not (untaken <= missing).any(), arm


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
