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
from fineinstructions.backends.vector_index.neighbours import NOTHING
from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkedDocument
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, rejection

_BATCH_VECTORS = 65_536
"""Searched together where there is no gate, as far as the unit goes: the more at once, the less each costs. A gate
allows every part of a document other rows."""

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

    def allowed(self, document: Document, span: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Row numbers of the templates that a document may answer, in index order.

        Args:
            document: The document.
            span: Only what these characters of it may answer; ``None`` for the whole document.
        """
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
        gate: Restricts the templates of each document and of each part of it; ``None`` for no restriction.
        config: What counts as near.

    Yields:
        One item per document, in order: its candidates, or a rejection. The reason is ``no_candidate``, with the best
        cosine as value, or ``no_compatible_template`` if the gate allowed none. The record holds the threshold and the
        nearest template; where a gate decided, only in an index of up to `MAX_NEAREST_SHOWN` templates.

    Raises:
        ConfigError: If there is no threshold.

    Source:
        arXiv:2601.22146, section 3.2: each of the K + 1 vectors searches by itself. The gate is ours; it says for every
        coverage chunk which templates that part of the document may answer.
    """
    min_cosine = threshold(config, gate, index.min_cosine)
    if gate is not None:
        for item in chunked:
            yield _gated(item, index, gate, min_cosine, config.max_candidates)
        return
    stream = iter(chunked)
    while batch := _batch(stream, _BATCH_VECTORS):  # many documents share one product
        vectors = np.concatenate([item.vectors for item in batch])
        found = iter(index.vectors.search(vectors, min_cosine, config.max_candidates))
        neighbours = [list(islice(found, len(item.vectors))) for item in batch]
        empty = [not any(len(n.ids) for n in ns) for ns in neighbours]
        nothing = [item for item, none in zip(batch, empty, strict=True) if none]
        turned_away = iter(_none_found(nothing, index, min_cosine))
        for item, none, found_here in zip(batch, empty, neighbours, strict=True):
            yield next(turned_away) if none else _candidates(item, found_here)


def _gated(
    item: ChunkedDocument, index: SearchableTemplates, gate: Gate, min_cosine: float, max_candidates: int
) -> Candidates | Rejection:
    """One document, each of its vectors compared with the templates that the gate allows to that part of it."""
    spans = (*item.chunk_spans, None)
    allowed = [np.setdiff1d(gate.allowed(item.document, span), index.removed) for span in spans]
    if not any(len(rows) for rows in allowed):
        return _shut_out(item, index, min_cosine)
    vectors = [item.vectors[number : number + 1] for number in range(len(spans))]
    neighbours = [
        index.vectors.search(vector, min_cosine, max_candidates, rows)[0] if len(rows) else NOTHING
        for vector, rows in zip(vectors, allowed, strict=True)
    ]
    if any(len(n.ids) for n in neighbours):
        return _candidates(item, neighbours)
    nearest = [
        (float(cosines[0]), int(rows[0]), number)
        for number, (vector, some) in enumerate(zip(vectors, allowed, strict=True))
        if len(some)
        for rows, cosines in [index.vectors.best(vector, some)]
    ]
    cosine, row, number = max(nearest, key=lambda found: found[0])
    return _nearest("no_candidate", item, index, (number, row, cosine), min_cosine)


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


def _none_found(items: list[ChunkedDocument], index: SearchableTemplates, min_cosine: float) -> Iterator[Rejection]:
    """Rejections of documents without a candidate, each with the nearest template there was."""
    if not items:
        return
    all_rows, all_cosines = index.vectors.best(np.concatenate([item.vectors for item in items]))
    start = 0
    for item in items:
        stop = start + len(item.vectors)
        place = start + int(np.argmax(all_cosines[start:stop]))
        found = (place - start, int(all_rows[place]), float(all_cosines[place]))
        yield _nearest("no_candidate", item, index, found, min_cosine)
        start = stop


def _shut_out(item: ChunkedDocument, index: SearchableTemplates, min_cosine: float) -> Rejection:
    """The rejection of a document that the gate allows nothing; names the nearest template where that costs little."""
    name = item.document.document_id
    if not len(index.removed) < len(index.keys) <= MAX_NEAREST_SHOWN:
        return rejection("retrieve", "no_compatible_template", name, {"document_id": name})
    rows, cosines = index.vectors.best(item.vectors)
    place = int(np.argmax(cosines))
    found = (place, int(rows[place]), float(cosines[place]))
    return _nearest("no_compatible_template", item, index, found, min_cosine)


def _nearest(
    reason: str,
    item: ChunkedDocument,
    index: SearchableTemplates,
    found: tuple[int, int, float],
    min_cosine: float,
) -> Rejection:
    """A rejection that names the nearest template: the place of its vector, the template's row, its cosine."""
    number, row, cosine = found
    name = item.document.document_id
    (template_id,) = index.template_ids(np.array([row]))
    chunk = GLOBAL_CHUNK if number == len(item.vectors) - 1 else number
    nearest = {"document_id": name, "template_id": template_id, "chunk": chunk, "cosine": cosine}
    value = cosine if reason == "no_candidate" else None
    return rejection("retrieve", reason, name, nearest | {"min_cosine": min_cosine}, value=value)
