"""Cuts token rows that are longer than a model's window, so that every scored token is scored once.

In: the length of a row and where scoring begins. Out: windows. The decision to question: each further window shows half
of what it holds as context already seen, so that no token is scored with less than half a window before it, at the
price of reading long rows twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a row that a model reads at once; half-open."""

    start: int
    stop: int
    first: int
    """From here on tokens are scored."""


def windows(num_tokens: int, first: int, limit: int) -> Iterator[Window]:
    """Windows of a row.

    Args:
        num_tokens: Length of the row.
        first: Place of the first token that is scored; what is before it is context. At least 1.
        limit: Longest window, at least 2.

    Yields:
        Windows that score every token from `first` on exactly once.

    Raises:
        ValueError: If there is no context at all, or no room for any.

    Example:
        >>> [(w.start, w.stop, w.first) for w in windows(10, 1, 4)]
        [(0, 4, 1), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    """
    if first < 1 or limit < 2:
        raise ValueError(f"scoring begins at {first} in windows of {limit}; both leave no context")
    done = first
    while done < num_tokens:
        start = 0 if done == first and first <= limit // 2 else max(0, done - limit // 2)
        stop = min(num_tokens, start + limit)
        yield Window(start, stop, done)
        done = stop
