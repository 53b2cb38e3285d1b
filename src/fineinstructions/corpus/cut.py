"""Cutting rows down to a number of tokens: a seeded random choice that needs neither sorting nor much memory.

In: tokens and random keys of all rows, as arrays that may lie on disk. Out: which rows stay. The decision a reader
would question: rows stay by their keys, not by their place, so that a corpus that was cut covers the same kinds of
documents. The last rows are chosen among a few thousand, so that what is missing in the end is a few tokens and not
half a document.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 1 << 16
_SHIFT = np.uint64(48)
BLOCK_ROWS = 1 << 20
BORDER_ROWS = 4096
"""Rows, about, among which the last ones are chosen. Ours."""


def keep_tokens(
    tokens: NDArray[np.int64], keys: NDArray[np.uint64], live: NDArray[np.bool_], wanted: int, kept: NDArray[np.bool_]
) -> int:
    """Choose rows whose tokens come to a wanted number, or to less than one row below it.

    Rows are taken in the order of their keys. Once the number is nearly reached, a row that is too long is passed over
    and the next is tried, for some thousand rows.

    Args:
        tokens: Tokens of every row.
        keys: Random bits of every row (`order.row_keys`).
        live: Rows that may be taken.
        wanted: Most tokens.
        kept: Filled with which rows are taken.

    Returns:
        The tokens of the rows that are taken.

    Example:
        >>> tokens, keys = np.array([5, 3, 4]), np.array([9, 1, 5], np.uint64)
        >>> kept = np.zeros(3, bool)
        >>> keep_tokens(tokens, keys, np.ones(3, bool), 8, kept), kept.tolist()
        (7, [False, True, True])
    """
    sums, counts = _bin_sums(tokens, keys, live)
    reached = np.cumsum(sums)
    first = int(np.searchsorted(reached, wanted, side="right"))
    total = int(reached[first - 1]) if first else 0
    seen = np.cumsum(counts[first:])
    end = first + int(np.searchsorted(seen, BORDER_ROWS)) + 1
    border: list[tuple[int, int, int]] = []
    for block in _blocks(len(tokens)):
        bins = _bins(keys[block])
        kept[block] = live[block] & (bins < first)
        for place in np.flatnonzero(live[block] & (bins >= first) & (bins < end)).tolist():
            row = block.start + place
            border.append((int(keys[row]), row, int(tokens[row])))
    for _, row, number in sorted(border):
        if total + number <= wanted:
            kept[row] = True
            total += number
    return total


def top_up(
    tokens: NDArray[np.int64], keys: NDArray[np.uint64], live: NDArray[np.bool_], left: int, kept: NDArray[np.bool_]
) -> int:
    """Take further rows as long as one fits into what is left.

    Args:
        tokens: Tokens of every row.
        keys: Random bits of every row; rows are tried in their order.
        live: Rows that may be taken.
        left: Most further tokens.
        kept: Which rows are taken already; the new ones are added.

    Returns:
        What is still left: less than any row that is not taken.

    Example:
        >>> tokens, keys = np.array([5, 3, 4]), np.array([9, 1, 5], np.uint64)
        >>> kept = np.array([False, True, False])
        >>> top_up(tokens, keys, np.ones(3, bool), 6, kept), kept.tolist()
        (2, [False, True, True])
    """
    while True:
        fitting = (
            (int(keys[row]), row, int(tokens[row]))
            for block in _blocks(len(tokens))
            for row in (block.start + np.flatnonzero(live[block] & ~kept[block] & (tokens[block] <= left))).tolist()
        )
        tried = heapq.nsmallest(BORDER_ROWS, fitting)
        for _, row, number in tried:
            if number <= left:
                kept[row] = True
                left -= number
        if not tried:
            return left


def key_ranges(
    tokens: NDArray[np.int64], keys: NDArray[np.uint64], live: NDArray[np.bool_], shares: Mapping[str, float]
) -> dict[str, range]:
    """Divide rows among sources by ranges of their keys, so that each range has its share of the tokens.

    Args:
        tokens: Tokens of every row.
        keys: Random bits of every row.
        live: Rows that count.
        shares: Shares of the tokens by source; they add up to 1.

    Returns:
        Ranges of the keys' first 16 bits, by source; together they hold all keys.

    Example:
        >>> keys = np.arange(0, 1 << 63, 1 << 60, np.uint64)
        >>> ranges = key_ranges(np.full(8, 10), keys, np.ones(8, bool), {"documents": 0.75, "pairs": 0.25})
        >>> {name: int(in_range(keys, found).sum()) for name, found in ranges.items()}
        {'documents': 6, 'pairs': 2}
    """
    reached = np.cumsum(_bin_sums(tokens, keys, live)[0])
    ends = np.minimum(np.cumsum(list(shares.values())) * (int(reached[-1]) + 1e-6), reached[-1])
    bins = [0, *np.searchsorted(reached, ends[:-1], side="right").tolist(), NUM_BINS]
    return {name: range(bins[place], bins[place + 1]) for place, name in enumerate(shares)}


def in_range(keys: NDArray[np.uint64], found: range) -> NDArray[np.bool_]:
    """Which keys lie in a range of `key_ranges`."""
    bins = _bins(keys)
    inside: NDArray[np.bool_] = (bins >= found.start) & (bins < found.stop)
    return inside


def _bins(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (keys >> _SHIFT).astype(np.int64)


def _bin_sums(
    tokens: NDArray[np.int64], keys: NDArray[np.uint64], live: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and number of the live rows by the first bits of their keys."""
    sums, counts = np.zeros(NUM_BINS, np.int64), np.zeros(NUM_BINS, np.int64)
    for block in _blocks(len(tokens)):
        bins = _bins(keys[block])
        np.add.at(sums, bins, np.where(live[block], tokens[block], 0))
        np.add.at(counts, bins, live[block])
    return sums, counts


def live_tokens(tokens: NDArray[np.int64], live: NDArray[np.bool_]) -> int:
    """Tokens of the rows that are there."""
    return sum(int(tokens[block][live[block]].sum()) for block in _blocks(len(tokens)))


def _blocks(number: int) -> Iterator[Any]:
    for start in range(0, number, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, number))
