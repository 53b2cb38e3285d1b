"""Where a pair comes from: queries, template, document span, scores, models.

Comes in: a run folder and a pair id. Goes out: a `Lineage`. Nothing is computed again; every fact is read from what the
run wrote, and the document from its input file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from fineinstructions.errors import ConfigError
from fineinstructions.records import Document, Match, Pair, Query, R, Template, from_table
from fineinstructions.review.samples import find_pair, parts
from fineinstructions.runs import RunFolder, UnitSpec
from fineinstructions.runs.verify import DocumentReader

CONTEXT_CHARS = 120


@dataclass(frozen=True)
class Quote:
    """One excerpt of a pair where it stands in the document."""

    document_start: int
    document_end: int
    before: str
    text: str
    after: str


@dataclass(frozen=True)
class Lineage:
    """Everything behind one pair."""

    pair: Pair
    template: Template
    queries: tuple[Query, ...]
    """The queries behind the template; empty where the templates came from a bank."""
    document: Document
    quotes: tuple[Quote, ...]
    matches: tuple[Match, ...]
    """The vectors of the document that found this template."""
    num_candidates: int
    """Candidates of the document, over all of its vectors."""


def explain(run: RunFolder, pair_id: str, read_unit: DocumentReader) -> Lineage:
    """Lineage of one kept pair.

    Args:
        run: A finished run.
        pair_id: Id of the pair.
        read_unit: Gives the documents of a unit.

    Returns:
        The lineage.

    Raises:
        ConfigError: If the run holds no such pair, or its document is no longer where it was.
    """
    pair = find_pair(run.root, pair_id)
    template = next(_rows(run.root, "templates", "template_id", pair.template_id, Template), None)
    if template is None:
        raise ConfigError(f"{run.root}: template {pair.template_id} is not in the bank; run 'fineinstructions verify'")
    found = tuple(_rows(run.root, "matches", "document_id", pair.document_id, Match))
    document = _document(run, pair.document_id, read_unit)
    return Lineage(
        pair=pair,
        template=template,
        queries=tuple(_queries(run, set(pair.query_ids))),
        document=document,
        quotes=tuple(_quote(document.text, e.document_start, e.document_end) for e in pair.excerpts),
        matches=tuple(m for m in found if m.template_id == pair.template_id),
        num_candidates=len(found),
    )


def _rows(root: Path, table: str, column: str, value: str, record_type: type[R]) -> Iterator[R]:
    for file in parts(root, table):
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            rows = parquet.read_row_group(group)
            yield from from_table(rows.filter(pc.equal(rows[column], value)), record_type)


def _queries(run: RunFolder, wanted: set[str]) -> Iterator[Query]:
    if any(phase.name == "queries" for phase in run.phases):
        yield from (query for query in run.records("queries", Query) if query.query_id in wanted)


def _document(run: RunFolder, document_id: str, read_unit: DocumentReader) -> Document:
    for spec in _units_with(run, document_id):
        for document in read_unit(spec):
            if document.document_id == document_id:
                return document
    raise ConfigError(f"{run.root}: document {document_id!r} is no longer in its input file; put the file back")


def _units_with(run: RunFolder, document_id: str) -> Iterator[UnitSpec]:
    """Units whose matches name the document; one that was set aside has no matches."""
    for spec in run.planned("matches") or ():
        if run.manifest("matches", spec) is None:
            continue
        tables = run.unit_groups("matches", spec, "match", ["document_id"])
        if any(pc.any(pc.equal(table["document_id"], document_id)).as_py() for table in tables):
            yield spec


def _quote(text: str, start: int, end: int) -> Quote:
    before, after = text[max(0, start - CONTEXT_CHARS) : start], text[end : end + CONTEXT_CHARS]
    return Quote(start, end, before, text[start:end], after)
