"""Cutting rows down to a number of tokens: a seeded random choice that needs neither sorting nor much memory.

In: tokens and random keys of all rows, as arrays that may lie on disk. Out: which rows stay. The decision a reader
would question: rows stay by their keys, not by their place, so that a corpus that was cut covers the same kinds of
documents. The last rows are chosen among a few thousand, so that what is missing in the end is a few tokens and not
half a document.
"""

from collections.abc import Iterator
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
    sums, counts = np.zeros(NUM_BINS, np.int64), np.zeros(NUM_BINS, np.int64)
    for block in _blocks(len(tokens)):
        bins = _bins(keys[block])
        np.add.at(sums, bins, np.where(live[block], tokens[block], 0))
        np.add.at(counts, bins, live[block])
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


def _bins(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (keys >> _SHIFT).astype(np.int64)


def live_tokens(tokens: NDArray[np.int64], live: NDArray[np.bool_]) -> int:
    """Tokens of the rows that are there."""
    return sum(int(tokens[block][live[block]].sum()) for block in _blocks(len(tokens)))


def _blocks(number: int) -> Iterator[Any]:
    for start in range(0, number, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, number))
