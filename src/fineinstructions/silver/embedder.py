"""Verdicts of the compatibility judge to training rows of an embedder.

In: verdicts with their documents and templates. Out: rows or rejections, one per verdict. The decision a reader would
question: negatives are not drawn at random. They are templates that the present index places near the document and that
the judge turned down, because only those teach the encoder something.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fineinstructions.records import Compatibility, Document, Rejection, Template, content_id, rejection
from fineinstructions.silver.choose import DistillConfig, luck, split_of
from fineinstructions.silver.rows import EmbedderRow

STAGE = "silver_embedder"


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with what it is about."""

    verdict: Compatibility
    template: Template
    document: Document
    chunk_spans: tuple[tuple[int, int], ...]
    """Character span of every coverage chunk of the document."""
    contradicted: bool = False
    """Whether the run made a pair of what was turned down, one that the judge of pairs keeps."""


def last_drawn(document_ids: Iterable[str], config: DistillConfig, seed: int) -> int:
    """Highest luck of a document that is still drawn; whole documents are taken, as many as give the wanted rows.

    Args:
        document_ids: Document of every verdict; eight bytes are kept of each.
        config: How many rows are wanted.
        seed: Seed of the run.
    """
    luck_n = np.fromiter((luck(seed, STAGE, document_id) for document_id in document_ids), np.uint64)
    drawn, verdicts = np.unique(luck_n, return_counts=True)
    count = int(np.count_nonzero(np.cumsum(verdicts) <= config.embedder_rows))
    return int(drawn[count - 1]) if count else -1


def embedder_rows(
    items: Iterable[Judged], last: int, config: DistillConfig, seed: int
) -> Iterator[EmbedderRow | Rejection]:
    """Rows of the drawn documents.

    Args:
        items: Verdicts.
        last: What `last_drawn` says.
        config: The share of validation.
        seed: Seed of the run.

    Yields:
        One row or rejection per verdict: ``surplus`` where its document is not drawn, ``contradicted`` where a good
        pair speaks against a "no".

    Source:
        arXiv:2601.22146, section 3.2: labelled pairs first, then with the chunk that is relevant.
    """
    for item in items:
        verdict, document, template = item.verdict, item.document, item.template
        record_id = content_id("e", document.document_id, template.template_id)
        surplus = luck(seed, STAGE, document.document_id) > last
        if surplus or item.contradicted:
            ids = {"document_id": document.document_id, "template_id": template.template_id}
            yield rejection(STAGE, "surplus" if surplus else "contradicted", record_id, ids)
            continue
        yield EmbedderRow(
            document=document.text,
            description=template.compatible_document_description,
            label=float(verdict.compatible),
            chunk=relevant_chunk(verdict, item.chunk_spans),
            split=split_of(seed, "document", document.document_id, config.validation_share),
            row_id=record_id,
            document_id=document.document_id,
            template_id=template.template_id,
            template=template.template,
            retrieved_chunk=verdict.chunk,
            cosine=verdict.cosine,
            quote_start=verdict.quote_start,
            quote_end=verdict.quote_end,
            reason=verdict.reason,
            source=document.source,
            licence=document.licence,
            template_licence=template.licence,
            teacher=verdict.model,
        )


def relevant_chunk(verdict: Compatibility, chunk_spans: tuple[tuple[int, int], ...]) -> int:
    """The coverage chunk in which the judge's quotation begins, else the chunk that retrieved the template.

    Args:
        verdict: The verdict.
        chunk_spans: Spans of the document's coverage chunks.
    """
    if verdict.quote_start >= 0:
        for number, (start, end) in enumerate(chunk_spans):
            if start <= verdict.quote_start < end:
                return number
    return verdict.chunk
