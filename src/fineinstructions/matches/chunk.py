"""Documents -> coverage chunks: where they lie in the text, and one vector for each and for the whole.

In: documents. Out: `ChunkedDocument`, or a rejection where there is no token to stand for the text.

The decision to question: an encoder without token vectors gives the vector of the whole alone, and such a document has
no coverage chunk; nothing pretends otherwise.

Shapes: K coverage chunks, T tokens, D width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from fineinstructions.backends.encoder import Encoder, PooledDocument
from fineinstructions.config import Config
from fineinstructions.pooling import Centres, Pooling, chunk_centres
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, failure, rejection

_GROUP_CHARS = 2 << 20
_GROUP_DOCUMENTS = 512
"""Documents handed to the encoder at once: enough for batches of texts of one length, whatever the encoder's own."""


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

    @property
    def pooling(self) -> Pooling:
        """What an encoder is told."""
        return Pooling(self.coverage_chunks, self.sigma, self.alpha, self.centres)


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document with its coverage chunks."""

    document: Document
    vectors: NDArray[np.float32]
    """Unit vectors of shape (K + 1, D): row ``k`` is chunk ``k``, the last row (-1) the whole document."""
    chunk_spans: tuple[tuple[int, int], ...]
    """Character span of each of the K chunks; none where the encoder gives the whole only. They cover the text without
    gap or overlap, except that each chunk is the whole text where there are too few tokens to cut it."""
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

    Documents are encoded in groups whose borders depend on the documents alone.

    Args:
        documents: Documents, their text as read.
        encoder: Makes the vectors.
        config: How to pool.

    Yields:
        One item per document, in order: the chunked document, or a rejection with the reason ``no_tokens``, or a
        failure with the reason ``request`` where an engine did not take the text.

    Source:
        arXiv:2601.22146, section 3.2.
    """
    for group in _groups(documents):
        pooled = encoder.encode_documents([d.text for d in group], config.pooling)
        for document, found in zip(group, pooled, strict=True):
            yield _chunked(document, found, config)


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    num_chars = 0
    for document in documents:
        if group and (num_chars + len(document.text) > _GROUP_CHARS or len(group) == _GROUP_DOCUMENTS):
            yield group
            group, num_chars = [], 0
        group.append(document)
        num_chars += len(document.text)
    if group:
        yield group


def _chunked(document: Document, found: PooledDocument, config: ChunkConfig) -> ChunkedDocument | Rejection:
    facts = {"document_id": document.document_id, "num_chars": len(document.text)}
    if found.refused:
        return failure("chunk", "request", document.document_id, facts | {"error": found.refused})
    if len(found.token_starts) == 0:
        return rejection("chunk", "no_tokens", document.document_id, facts)
    spans = _chunk_spans(found.token_starts, len(document.text), config) if len(found.vectors) > 1 else ()
    return ChunkedDocument(document, found.vectors, spans, len(found.token_starts))


def _chunk_spans(starts: NDArray[np.int64], num_chars: int, config: ChunkConfig) -> tuple[tuple[int, int], ...]:
    """Cut a text where one centre becomes nearer than the one before, at the start of a token."""
    count = config.coverage_chunks
    if len(starts) >= count:
        centres = chunk_centres(count, config.centres)
        borders = (centres[:-1] + centres[1:]) / 2 * (len(starts) - 1)
        cuts = [0, *starts[np.ceil(borders - 1e-9).astype(np.int64)].tolist(), num_chars]
        if all(start < end for start, end in pairwise(cuts)):  # several tokens may begin at one character
            return tuple(pairwise(cuts))
    return ((0, num_chars),) * count
