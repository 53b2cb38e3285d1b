"""Documents -> coverage chunks: where they lie in the text, and one vector for each and for the whole.

In: documents. Out: `ChunkedDocument`, or a rejection where there is no token to stand for the text.

The decision to question: a document longer than the encoder's window is read window by window, and positions count over
the whole of it; nothing is cut off. Where all token vectors of a very long one would not fit in memory, its windows are
encoded twice: once to count the tokens, once to add them up.

Shapes: K coverage chunks, T tokens, D width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from fineinstructions.backends.encoder import Encoder, TokenEmbeddings
from fineinstructions.config import Config
from fineinstructions.pooling import Centres, chunk_centres, pool, pooling_weights, unit_rows, weighted_sums
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, rejection

_MAX_WINDOW_CHARS = 65_536
"""Longest piece of text handed to an encoder, whatever window it claims: bounds memory."""
_MAX_CHARS_PER_TOKEN = 8
"""Text offered per token of the window; what the encoder leaves of it opens the next window."""
_BATCH_CHARS = 131_072
_BATCH_DOCUMENTS = 32
_MAX_HELD_TOKENS = 65_536
"""Longest document whose token vectors are held at once (64 MiB at a width of 256)."""


class ChunkConfig(Config):
    """How a document becomes vectors."""

    coverage_chunks: PositiveInt = 5
    """Number of coverage chunks (K). Paper, section 3.2; the authors' released helper has 10."""
    sigma: PositiveFloat = 0.05
    """Width of a chunk's Gaussian, as a fraction of the document's length. Paper, section 3.2."""
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Share of the Gaussian mean in a chunk's vector; the rest is the document's mean. Paper, section 3.2."""
    centres: Centres = "midpoint"
    """Where the Gaussians stand: ``midpoint`` at (k + 0.5) / K, ``linspace`` from the first token to the last. Ours;
    the paper says evenly spaced."""


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document with its coverage chunks."""

    document: Document
    vectors: NDArray[np.float32]
    """Unit vectors of shape (K + 1, D): row ``k`` is chunk ``k``, the last row (-1) the whole document."""
    chunk_spans: tuple[tuple[int, int], ...]
    """Character span of each of the K chunks. They cover the text without gap or overlap, except that each chunk is the
    whole text where there are fewer tokens than chunks."""
    num_tokens: int
    """Tokens of the document (T), over all windows."""

    def span(self, chunk: int) -> tuple[int, int]:
        """Character span of a chunk; the whole text for `records.GLOBAL_CHUNK`.

        Raises:
            ValueError: If there is no such chunk.
        """
        return chunk_span(self.chunk_spans, self.document, chunk)


def chunk_span(chunk_spans: tuple[tuple[int, int], ...], document: Document, chunk: int) -> tuple[int, int]:
    """Character span of a chunk; the whole text for `records.GLOBAL_CHUNK`.

    Raises:
        ValueError: If there is no such chunk.
    """
    if chunk == GLOBAL_CHUNK:
        return 0, len(document.text)
    if not 0 <= chunk < len(chunk_spans):
        raise ValueError(f"chunk {chunk}: document {document.document_id} has chunks 0 to {len(chunk_spans) - 1}")
    return chunk_spans[chunk]


def chunk(
    documents: Iterable[Document], encoder: Encoder, config: ChunkConfig
) -> Iterator[ChunkedDocument | Rejection]:
    """Encode documents and pool their tokens into coverage chunks.

    Documents are encoded in batches whose borders depend on the documents alone.

    Args:
        documents: Documents, their text as read.
        encoder: Makes the token vectors.
        config: How to pool.

    Yields:
        One item per document, in order: the chunked document, or a rejection with the reason ``no_tokens``.

    Source:
        arXiv:2601.22146, section 3.2. Reading long documents window by window is ours.
    """
    for batch in _batches(documents):
        first_windows = encoder.encode_tokens([_piece(d.text, 0, encoder) for d in batch])
        for document, first in zip(batch, first_windows, strict=True):
            yield _chunked(document, first, encoder, config)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_chars = 0
    for document in documents:
        length = min(len(document.text), _MAX_WINDOW_CHARS)
        if batch and (num_chars + length > _BATCH_CHARS or len(batch) == _BATCH_DOCUMENTS):
            yield batch
            batch, num_chars = [], 0
        batch.append(document)
        num_chars += length
    if batch:
        yield batch


def _chunked(
    document: Document, first: TokenEmbeddings, encoder: Encoder, config: ChunkConfig
) -> ChunkedDocument | Rejection:
    held: list[NDArray[np.float32]] = []
    spans: list[NDArray[np.int64]] = []
    num_tokens = 0
    for start, window in _windows(document.text, first, encoder):
        spans.append(window.spans + start)
        num_tokens += len(window.spans)
        if num_tokens <= _MAX_HELD_TOKENS:
            held.append(window.vectors)
    if num_tokens == 0:
        facts = {"document_id": document.document_id, "num_chars": len(document.text)}
        return rejection("chunk", "no_tokens", document.document_id, facts)
    if num_tokens <= _MAX_HELD_TOKENS:
        tokens = held[0] if len(held) == 1 else np.concatenate(held)
        vectors = pool(tokens, config.coverage_chunks, config.sigma, config.alpha, config.centres)
    else:
        held.clear()
        vectors = _pooled_by_window(document.text, num_tokens, first, encoder, config)
    starts = np.concatenate(spans)[:, 0]
    return ChunkedDocument(document, vectors, _chunk_spans(starts, len(document.text), config), num_tokens)


def _windows(text: str, first: TokenEmbeddings, encoder: Encoder) -> Iterator[tuple[int, TokenEmbeddings]]:
    """Windows over a text, the first one being encoded already, each with the character it starts at."""
    start, window = 0, first
    while True:
        yield start, window
        piece_end = start + len(_piece(text, start, encoder))
        tokens_end = start + int(window.spans[-1, 1]) if len(window.spans) else piece_end
        if tokens_end > start and any(c.isalnum() for c in text[tokens_end:piece_end]):
            start = tokens_end  # the encoder's window was full, and words are left
        elif piece_end < len(text):
            start = piece_end
        else:
            return
        (window,) = encoder.encode_tokens([_piece(text, start, encoder)])


def _piece(text: str, start: int, encoder: Encoder) -> str:
    """Text from a position on, as far as one window can reach; never through a word, if the word has an end."""
    limit = min(encoder.window_tokens * _MAX_CHARS_PER_TOKEN, _MAX_WINDOW_CHARS)
    piece = text[start : start + limit + 1]
    if len(piece) <= limit:
        return piece
    for end in range(limit, limit // 2, -1):
        if piece[end].isspace():
            return piece[:end]
    return piece[:limit]


def _pooled_by_window(
    text: str, num_tokens: int, first: TokenEmbeddings, encoder: Encoder, config: ChunkConfig
) -> NDArray[np.float32]:
    """What `pool` returns, added up window by window."""
    weights = pooling_weights(num_tokens, config.coverage_chunks, config.sigma, config.alpha, config.centres)
    sums = np.zeros((config.coverage_chunks + 1, encoder.dimension))
    done = 0
    for _, window in _windows(text, first, encoder):
        sums += weighted_sums(weights[:, done : done + len(window.spans)], window.vectors)
        done += len(window.spans)
    return unit_rows(sums)


def _chunk_spans(starts: NDArray[np.int64], num_chars: int, config: ChunkConfig) -> tuple[tuple[int, int], ...]:
    """Cut a text where one centre becomes nearer than the one before, at the start of a token."""
    count = config.coverage_chunks
    if len(starts) < count:
        return ((0, num_chars),) * count
    centres = chunk_centres(count, config.centres)
    borders = (centres[:-1] + centres[1:]) / 2 * (len(starts) - 1)
    cuts = [0, *starts[np.ceil(borders - 1e-9).astype(np.int64)].tolist(), num_chars]
    return tuple(pairwise(cuts))
