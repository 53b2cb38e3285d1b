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
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkedDocument
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, rejection

_BATCH_VECTORS = 65_536
"""Searched together where there is no gate, as far as the unit goes: the more at once, the less each costs."""

MAX_NEAREST_SHOWN = 20_000
"""Largest index that is searched for nothing but the nearest template of a document that a gate has shut out: so many
products cost less than reading the document did."""


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

    @property
    def min_cosine(self) -> float | None:
        """The encoder's calibrated threshold; ``None`` where it is not known."""
        ...

    @property
    def removed(self) -> NDArray[np.int64]:
        """Row numbers that are never found, ascending."""
        ...

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


def threshold(config: RetrieveConfig, gate: Gate | None, calibrated: float | None) -> float:
    """Lowest cosine of a candidate: the recipe's, else the gate's, else the encoder's own.

    Args:
        config: The recipe's setting.
        gate: The gate that is used; ``None`` for none.
        calibrated: The encoder's own threshold; ``None`` if nobody calibrated it.

    Raises:
        ConfigError: If there is none of them.
    """
    if config.min_cosine is not None:
        return config.min_cosine
    chosen = calibrated if gate is None else gate.min_cosine
    if chosen is None:
        raise ConfigError(
            "retrieve.min_cosine: missing, and this encoder has no calibrated threshold; set it (0.865 belongs to the "
            "authors' encoder), or calibrate the encoder"
        )
    return chosen


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
        cosine as value, or ``no_compatible_template`` if the gate allowed none. The record holds the threshold and the
        nearest template; where a gate decided, only in an index of up to `MAX_NEAREST_SHOWN` templates.

    Raises:
        ConfigError: If there is no threshold.

    Source:
        arXiv:2601.22146, section 3.2: each of the K + 1 vectors searches by itself. The gate is ours.
    """
    min_cosine = threshold(config, gate, index.min_cosine)
    stream = iter(chunked)
    # A gate allows other rows to every document; without one, many documents share one product.
    while batch := _batch(stream, _BATCH_VECTORS if gate is None else 1):
        allowed = None if gate is None else gate.allowed(batch[0].document)
        vectors = np.concatenate([item.vectors for item in batch])
        found = iter(index.vectors.search(vectors, min_cosine, config.max_candidates, allowed))
        neighbours = [list(islice(found, len(item.vectors))) for item in batch]
        empty = [not any(len(n.ids) for n in ns) for ns in neighbours]
        nothing = [item for item, none in zip(batch, empty, strict=True) if none]
        turned_away = iter(_none_found(nothing, index, allowed, min_cosine))
        for item, none, found_here in zip(batch, empty, neighbours, strict=True):
            yield next(turned_away) if none else _candidates(item, found_here)


def _batch(stream: Iterator[ChunkedDocument], num_vectors: int) -> list[ChunkedDocument]:
    """The next documents, until they have so many vectors; empty at the end."""
    batch: list[ChunkedDocument] = []
    for item in stream:
        batch.append(item)
        num_vectors -= len(item.vectors)
        if num_vectors <= 0:
            break
    return batch


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


def _none_found(
    items: list[ChunkedDocument], index: SearchableTemplates, allowed: NDArray[np.int64] | None, min_cosine: float
) -> Iterator[Rejection]:
    """Rejections of documents without a candidate, each with the nearest template there was."""
    if not items:
        return
    is_shut = allowed is not None and bool(np.isin(allowed, index.removed).all())
    if is_shut and not len(index.removed) < len(index.keys) <= MAX_NEAREST_SHOWN:
        for item in items:
            name = item.document.document_id
            yield rejection("retrieve", "no_compatible_template", name, {"document_id": name})
        return
    vectors = np.concatenate([item.vectors for item in items])
    all_rows, all_cosines = index.vectors.best(vectors, None if is_shut else allowed)
    start = 0
    for item in items:
        name, stop = item.document.document_id, start + len(item.vectors)
        place = start + int(np.argmax(all_cosines[start:stop]))
        chunk = GLOBAL_CHUNK if place == stop - 1 else place - start
        (template_id,) = index.template_ids(all_rows[place : place + 1])
        cosine = float(all_cosines[place])
        nearest = {"document_id": name, "template_id": template_id, "chunk": chunk, "cosine": cosine}
        nearest["min_cosine"] = min_cosine
        if is_shut:
            yield rejection("retrieve", "no_compatible_template", name, nearest)
        else:
            yield rejection("retrieve", "no_candidate", name, nearest, value=cosine)
        start = stop
