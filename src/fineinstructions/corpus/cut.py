"""Cutting rows down to a number of tokens: a seeded random choice that needs neither sorting nor much memory.

In: tokens and random keys of all rows, as arrays that may lie on disk. Out: which rows stay. The decision a reader
would question: rows stay by their keys, not by their place, so that a corpus that was cut covers the same kinds of
documents; and what a smaller number keeps, a larger one keeps too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 1 << 16
_SHIFT = np.uint64(48)
BLOCK_ROWS = 1 << 20


def keep_tokens(
    tokens: NDArray[np.int64], keys: NDArray[np.uint64], live: NDArray[np.bool_], wanted: int, kept: NDArray[np.bool_]
) -> int:
    """Choose rows whose tokens come to a wanted number, or to less than one row below it.

    Rows are taken in the order of their keys; among the keys where the number is reached, one that is too long is
    passed over and the next is tried.

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
    sums = np.zeros(NUM_BINS, np.int64)
    for block in _blocks(len(tokens)):
        np.add.at(sums, (keys[block] >> _SHIFT).astype(np.int64), np.where(live[block], tokens[block], 0))
    reached = np.cumsum(sums)
    last = int(np.searchsorted(reached, wanted, side="right"))
    total = int(reached[last - 1]) if last else 0
    border: list[tuple[int, int, int]] = []
    for block in _blocks(len(tokens)):
        bins = (keys[block] >> _SHIFT).astype(np.int64)
        kept[block] = live[block] & (bins < last)
        for place in np.flatnonzero(live[block] & (bins == last)).tolist():
            row = block.start + place
            border.append((int(keys[row]), row, int(tokens[row])))
    for _, row, number in sorted(border):
        if total + number <= wanted:
            kept[row] = True
            total += number
    return total


def live_tokens(tokens: NDArray[np.int64], live: NDArray[np.bool_]) -> int:
    """Tokens of the rows that are there."""
    return sum(int(tokens[block][live[block]].sum()) for block in _blocks(len(tokens)))


def _blocks(number: int) -> Iterator[Any]:
    for start in range(0, number, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, number))
