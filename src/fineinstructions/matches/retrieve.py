"""Coverage chunks -> candidates: the templates whose descriptions lie near a document or a part of it.

In: chunked documents and the template index. Out: `Candidates`, or a rejection that carries the best cosine there was.

The decision to question: a template that several vectors find is a candidate of each of them, because sampling wants
one template per vector; `sample` chooses it only once all the same.

Shapes: N templates.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from fineinstructions.backends.vector_index import Neighbours, VectorIndex
from fineinstructions.config import Config
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkedDocument
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, rejection

_BATCH_DOCUMENTS = 32


class RetrieveConfig(Config):
    """Which templates become candidates."""

    min_cosine: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Lowest cosine of a candidate; ``None`` for the gate's own where there is a gate, else the encoder's own, which
    the index stores. Paper, section 3.2: 0.865, chosen by hand for the authors' encoder; a cosine of another encoder
    means something else."""
    max_candidates: PositiveInt = 64
    """Most candidates kept per vector, the nearest ones; how many there were is stored. Ours."""


class Gate(Protocol):
    """Cheap test of which templates a document may answer, before any vector is compared."""

    @property
    def min_cosine(self) -> float:
        """Calibrated threshold for candidates that passed the gate; lower than the encoder's, which stands alone."""
        ...

    def allowed(self, document: Document) -> NDArray[np.int64] | None:
        """Row numbers of templates, in index order; ``None`` for all."""
        ...


class SearchableTemplates(Protocol):
    """What matching needs of a template index; `templates.index.TemplateIndex` is one."""

    vectors: VectorIndex
    min_cosine: float

    @property
    def num_slots(self) -> NDArray[np.int64]:
        """Slots of every template, shape (N,)."""
        ...

    @property
    def keys(self) -> NDArray[np.uint64]:
        """A hash of every template's id, shape (N,)."""
        ...

    def template_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of the templates in some rows."""
        ...


def retrieve(
    chunked: Iterable[ChunkedDocument], index: SearchableTemplates, gate: Gate | None, config: RetrieveConfig
) -> Iterator[Candidates | Rejection]:
    """Find the templates near every vector of every document.

    Args:
        chunked: Documents with their vectors, made by the encoder that made the index.
        index: Where to look.
        gate: Restricts the templates document by document; ``None`` for no restriction.
        config: What counts as near.

    Yields:
        One item per document, in order: its candidates, or a rejection. The reason is ``no_candidate``, with the best
        cosine as value and its template in the record; or ``no_compatible_template`` if the gate allowed none.

    Source:
        arXiv:2601.22146, section 3.2: each of the K + 1 vectors searches by itself. The gate is ours.
    """
    calibrated = index.min_cosine if gate is None else gate.min_cosine
    min_cosine = calibrated if config.min_cosine is None else config.min_cosine
    stream = iter(chunked)
    # A gate allows other rows to every document; without one, many documents share one product.
    while batch := list(islice(stream, _BATCH_DOCUMENTS if gate is None else 1)):
        allowed = None if gate is None else gate.allowed(batch[0].document)
        vectors = np.concatenate([item.vectors for item in batch])
        found = iter(index.vectors.search(vectors, min_cosine, config.max_candidates, allowed))
        for item in batch:
            neighbours = list(islice(found, len(item.vectors)))
            if any(len(n.ids) for n in neighbours):
                yield _candidates(item, neighbours)
            else:
                yield _none_found(item, index, allowed)


def _candidates(item: ChunkedDocument, neighbours: list[Neighbours]) -> Candidates:
    *local, whole = neighbours
    ordered = [whole, *local]
    counts = [len(n.ids) for n in ordered]
    rows = np.concatenate([n.ids for n in ordered])
    return Candidates(
        document_id=item.document.document_id,
        rows=rows,
        chunks=np.repeat(np.arange(GLOBAL_CHUNK, len(local)), counts),
        cosines=np.concatenate([n.cosines for n in ordered]),
        num_above=np.repeat([n.num_above for n in ordered], counts),
        sampled=np.zeros(len(rows), dtype=np.bool_),
    )


def _none_found(item: ChunkedDocument, index: SearchableTemplates, allowed: NDArray[np.int64] | None) -> Rejection:
    name = item.document.document_id
    if allowed is not None and len(allowed) == 0:
        return rejection("retrieve", "no_compatible_template", name, {"document_id": name})
    rows, cosines = index.vectors.best(item.vectors, allowed)
    place = int(np.argmax(cosines))
    chunk = GLOBAL_CHUNK if place == len(cosines) - 1 else place
    (template_id,) = index.template_ids(rows[place : place + 1])
    nearest = {"document_id": name, "template_id": template_id, "chunk": chunk, "cosine": float(cosines[place])}
    return rejection("retrieve", "no_candidate", name, nearest, value=float(cosines[place]))
