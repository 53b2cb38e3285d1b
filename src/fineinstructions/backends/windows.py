"""Long texts, window by window: for encoders that read a limited number of tokens at once.

In: texts of any length. Out: stretches of text that an encoder takes, or the pooled vectors of the whole.

The decision to question: positions count over the whole of a text, and nothing is cut off. Where all token vectors of a
very long one would not fit in memory, its windows are encoded twice: once to count the tokens, once to add them up.

Shapes: K coverage chunks, T tokens, D width.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.encoder import PooledDocument, TokenEmbeddings
from fineinstructions.pooling import Pooling, unit_rows, weighted_sums

MAX_WINDOW_CHARS = 65_536
"""Longest piece of text handed to an encoder of token vectors, whatever window it claims: bounds memory."""
_MAX_CHARS_PER_TOKEN = 8
"""Text offered per token of the window; what the encoder leaves of it opens the next window."""
_MAX_HELD_TOKENS = 65_536
"""Longest document whose token vectors are held at once (64 MiB at a width of 256)."""

EncodeTokens = Callable[[Sequence[str]], list[TokenEmbeddings]]
"""Token vectors of each text, in order, as far as one window reaches."""


def pooled_by_windows(
    text: str, encode_tokens: EncodeTokens, window_tokens: int, dimension: int, pooling: Pooling
) -> PooledDocument:
    """A document's vectors from an encoder that gives token vectors of as much as fits its window.

    Args:
        text: The document.
        encode_tokens: The encoder.
        window_tokens: Longest text, in its own tokens, that it encodes at once; what lies behind is cut off.
        dimension: Width of a vector (D).
        pooling: How to pool.

    Returns:
        Its K + 1 vectors, the positions of the tokens counted over the whole text.
    """
    limit = min(window_tokens * _MAX_CHARS_PER_TOKEN, MAX_WINDOW_CHARS)
    held: list[NDArray[np.float32]] = []
    starts: list[NDArray[np.int64]] = []
    num_tokens = 0
    for start, window in _windows(text, encode_tokens, limit):
        starts.append(window.spans[:, 0] + start)
        num_tokens += len(window.spans)
        if num_tokens <= _MAX_HELD_TOKENS:
            held.append(window.vectors)
        else:
            held.clear()
    if num_tokens == 0:
        return no_tokens(dimension, pooling)
    if num_tokens <= _MAX_HELD_TOKENS:
        vectors = pooling.pool(held[0] if len(held) == 1 else np.concatenate(held))
    else:
        vectors = _added_up(text, num_tokens, encode_tokens, limit, dimension, pooling)
    return PooledDocument(vectors, np.concatenate(starts))


def no_tokens(dimension: int, pooling: Pooling) -> PooledDocument:
    """What a text without a token gives: zero vectors."""
    zeros = np.zeros((pooling.coverage_chunks + 1, dimension), np.float32)
    return PooledDocument(zeros, np.empty(0, np.int64))


def piece_at(text: str, start: int, limit: int) -> str:
    """Text from a position on, of at most `limit` characters; never through a word, if a space is in reach."""
    piece = text[start : start + limit + 1]
    if len(piece) <= limit:
        return piece
    for end in range(limit, limit // 2, -1):
        if piece[end].isspace():
            return piece[:end]
    return piece[:limit]


def pieces(text: str, limit: int) -> Iterator[tuple[int, str]]:
    """A text in pieces of at most `limit` characters, each with the character it starts at; an empty text is one piece.

    Example:
        >>> list(pieces("one two three", 8))
        [(0, 'one two'), (7, ' three')]
    """
    start = 0
    while True:
        piece = piece_at(text, start, limit)
        yield start, piece
        start += len(piece)
        if start >= len(text):
            return


def _windows(text: str, encode_tokens: EncodeTokens, limit: int) -> Iterator[tuple[int, TokenEmbeddings]]:
    """Windows over a text, each with the character it starts at."""
    start = 0
    while True:
        piece = piece_at(text, start, limit)
        (window,) = encode_tokens([piece])
        yield start, window
        piece_end = start + len(piece)
        tokens_end = start + int(window.spans[-1, 1]) if len(window.spans) else piece_end
        if tokens_end > start and any(c.isalnum() for c in text[tokens_end:piece_end]):
            start = tokens_end  # the encoder's window was full, and words are left
        elif piece_end < len(text):
            start = piece_end
        else:
            return


def _added_up(
    text: str, num_tokens: int, encode_tokens: EncodeTokens, limit: int, dimension: int, pooling: Pooling
) -> NDArray[np.float32]:
    """What `Pooling.pool` returns, added up window by window."""
    weights = pooling.weights(num_tokens)
    sums = np.zeros((pooling.coverage_chunks + 1, dimension))
    done = 0
    for _, window in _windows(text, encode_tokens, limit):
        sums += weighted_sums(weights[:, done : done + len(window.spans)], window.vectors)
        done += len(window.spans)
    return unit_rows(sums)
