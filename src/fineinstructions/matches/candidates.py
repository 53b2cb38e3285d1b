"""The candidates of documents, and how they are stored between the two passes over the corpus.

In: what `retrieve` found. Out: `Candidates`, one per document; as a table for the run folder, as arrays over many
documents for `sample`, and as rows in the columns of `records.Match`.

The decision to question: the first pass stores row numbers of the template index instead of template ids. They are a
quarter of the size, and the second pass and the counting of popular templates index arrays with them; the index is
upstream of both passes, so a row number cannot come to mean another template.

Shapes: B documents, C candidates (of one document, or of all B together), N templates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.records import Match, from_table, schema_of


class TemplateIds(Protocol):
    """What gives templates their ids; `templates.index.TemplateIndex` does."""

    def template_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of the templates in some rows."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentCandidates:
    """A document's candidates as a row of ``candidates.parquet``; the lists are those of `Candidates`."""

    document_id: str
    rows: tuple[int, ...]
    chunks: tuple[int, ...]
    cosines: tuple[float, ...]
    num_above: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The templates that a document's vectors found; one entry per template and vector.

    Entries are in the order of their chunks, the whole document first, then from the highest cosine downward.
    """

    document_id: str
    rows: NDArray[np.int64]
    """Row of each candidate's template in the index, shape (C,)."""
    chunks: NDArray[np.int64]
    """Coverage chunk that found it, shape (C,); `GLOBAL_CHUNK` for the whole document."""
    cosines: NDArray[np.float64]
    """Shape (C,), rounded to six decimals."""
    num_above: NDArray[np.int64]
    """Templates at or above the threshold for the same vector, before `max_candidates` cut them; shape (C,)."""
    sampled: NDArray[np.bool_]
    """Whether the candidate was chosen; shape (C,)."""

    def marked(self, sampled: NDArray[np.bool_]) -> "Candidates":
        """The same candidates with other marks."""
        return Candidates(self.document_id, self.rows, self.chunks, self.cosines, self.num_above, sampled)

    def copied(self) -> "Candidates":
        """The same candidates in memory of their own: those that were read lie in the memory of their neighbours."""
        rows, chunks, cosines = self.rows.copy(), self.chunks.copy(), self.cosines.copy()
        return Candidates(self.document_id, rows, chunks, cosines, self.num_above.copy(), self.sampled.copy())

    def matches(self, index: TemplateIds) -> list[Match]:
        """The candidates as records, chosen or not."""
        return list(from_table(match_table([self], index), Match))

    def sampled_matches(self, index: TemplateIds) -> list[Match]:
        """The chosen ones as records."""
        return [match for match in self.matches(index) if match.sampled]


@dataclass(frozen=True, slots=True)
class CandidateBatch:
    """The candidates of many documents behind each other."""

    document_ids: tuple[str, ...]
    documents: NDArray[np.int64]
    """Place of each candidate's document in `document_ids`, ascending, shape (C,)."""
    rows: NDArray[np.int64]
    chunks: NDArray[np.int64]
    cosines: NDArray[np.float64]

    @classmethod
    def of(cls, items: Sequence[Candidates]) -> "CandidateBatch":
        """The candidates of some documents, in their order."""
        return cls(
            document_ids=tuple(item.document_id for item in items),
            documents=np.repeat(np.arange(len(items)), [len(item.rows) for item in items]),
            rows=_joined([item.rows for item in items], np.int64),
            chunks=_joined([item.chunks for item in items], np.int64),
            cosines=_joined([item.cosines for item in items], np.float64),
        )

    def part(self, places: NDArray[np.int64]) -> "CandidateBatch":
        """The candidates at some places, of the same documents."""
        documents, rows = self.documents[places], self.rows[places]
        return CandidateBatch(self.document_ids, documents, rows, self.chunks[places], self.cosines[places])


def candidate_table(items: Sequence[Candidates]) -> pa.Table:
    """Candidates in the columns of `DocumentCandidates`; whether they were chosen is not stored."""
    offsets = pa.array(np.cumsum([0, *(len(item.rows) for item in items)]), pa.int32())
    columns = (
        _joined([item.rows for item in items], np.int64),
        _joined([item.chunks for item in items], np.int64),
        _joined([item.cosines for item in items], np.float64),
        _joined([item.num_above for item in items], np.int64),
    )
    lists = [pa.ListArray.from_arrays(offsets, pa.array(column)) for column in columns]
    ids = pa.array([item.document_id for item in items], pa.string())
    return pa.Table.from_arrays([ids, *lists], schema=schema_of(DocumentCandidates))


def read_candidates(table: pa.Table) -> Iterator[Candidates]:
    """Candidates from the columns of `DocumentCandidates`; none of them is marked as chosen."""
    for batch in table.to_batches():
        ends = np.cumsum(batch.column("rows").value_lengths().to_numpy(zero_copy_only=False))
        names = ("rows", "chunks", "cosines", "num_above")
        columns = [batch.column(name).flatten().to_numpy() for name in names]
        start = 0
        for document_id, end in zip(batch.column("document_id").to_pylist(), ends.tolist(), strict=True):
            rows, chunks, cosines, num_above = (column[start:end] for column in columns)
            yield Candidates(document_id, rows, chunks, cosines, num_above, np.zeros(end - start, dtype=np.bool_))
            start = end


def rows_by_document(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The templates of a table in the columns of `DocumentCandidates`, of which only ``rows`` is needed.

    Returns:
        Number of the document within the table and row of the template in the index, both of shape (C,).
    """
    column = table.column("rows").combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lengths)), lengths), column.flatten().to_numpy()


def match_table(items: Sequence[Candidates], index: TemplateIds) -> pa.Table:
    """Candidates in the columns of `records.Match`, one row each, in their order."""
    lengths = [len(item.rows) for item in items]
    ids = pa.array([item.document_id for item in items], pa.string())
    columns = {
        "document_id": ids.take(pa.array(np.repeat(np.arange(len(items)), lengths))),
        "template_id": pa.array(index.template_ids(_joined([item.rows for item in items], np.int64)), pa.string()),
        "chunk": _joined([item.chunks for item in items], np.int64),
        "cosine": _joined([item.cosines for item in items], np.float64),
        "sampled": _joined([item.sampled for item in items], np.bool_),
        "num_above": _joined([item.num_above for item in items], np.int64),
    }
    return pa.Table.from_pydict(columns, schema=schema_of(Match))


def _joined(arrays: Sequence[NDArray[Any]], kind: type[Any]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *arrays]).astype(kind, copy=False)
