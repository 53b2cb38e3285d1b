"""Candidates and their marks -> how matching went: spread, coverage, slot counts, hubness.

In: the candidates of all documents, table by table, with the marks of the chosen ones. Out: one `Diagnosis` of plain
numbers. Memory is bounded by the number of templates, time is that of adding up columns.

The decision to question: hubness is counted in documents, not in candidates: a template that all six vectors of a
document find is found once.

Shapes: C candidates, N templates, S slot counts, K coverage chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.matches.candidates import rows_by_document
from fineinstructions.records import GLOBAL_CHUNK

MAX_HUBS = 20
"""Most retrieved templates that are named."""
_TOP_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class VectorFigures:
    """What one of a document's vectors found, over all documents."""

    chunk: int
    """Coverage chunk; `GLOBAL_CHUNK` for the whole document."""
    found_share: float
    """Share of the searched documents for which it found any template."""
    num_sampled: int
    """Sampled matches that came by it."""


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """Templates with one number of slots."""

    num_slots: int
    """The last stands for that many and more."""
    num_found: int
    """Templates that documents found, each counted once for every such document; no weight can sample more."""
    num_sampled: int
    sampled_share: float
    target_share: float
    bank_share: float


@dataclass(frozen=True, slots=True)
class Hub:
    """A template that many documents found."""

    row: int
    """Its row in the template index."""
    num_documents: int
    """Documents that found it."""
    num_sampled: int
    """Documents that were given it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How matching went over a corpus."""

    num_documents: int
    """Documents that were searched for."""
    without_candidate_share: float
    """Share of them for which nothing was found."""
    candidates_mean: float
    """Candidates (one per template and vector) of a document that has any."""
    candidates_p5: int
    candidates_p50: int
    candidates_p95: int
    all_vectors_share: float
    """Share of the searched documents for which every vector found a template."""
    vectors: tuple[VectorFigures, ...]
    num_sampled: int
    slots: tuple[SlotFigures, ...]
    num_templates: int
    num_never_retrieved: int
    """Templates that no document found."""
    num_never_sampled: int
    top_percent_share: float
    """Share of all (template, document) finds that fall to the most retrieved hundredth of the templates."""
    skewness: float
    """Skewness of the number of documents per template; 0 for a symmetrical spread, large where there are hubs."""
    hubs: tuple[Hub, ...]
    """The most retrieved templates, the first ones first."""


class Diagnoser:
    """Adds up what `Diagnosis` tells.

    Args:
        num_slots: Slots of every template, shape (N,).
        coverage_chunks: Number of coverage chunks that a document really has (K); 0 for the whole document alone.
        target: Wanted shares of slot counts, shape (S,).
    """

    def __init__(self, num_slots: NDArray[np.int64], coverage_chunks: int, target: Sequence[float]) -> None:
        self._num_slots, self._target = num_slots, np.array(target) / sum(target)
        self._sizes = np.zeros(0, np.int64)
        """Documents by their number of candidates."""
        self._found_v, self._sampled_v = (np.zeros(coverage_chunks + 1, np.int64) for _ in range(2))
        self._all_vectors = 0
        self._sampled_n = np.zeros(len(num_slots), np.int64)

    def add(self, table: pa.Table, sampled: NDArray[np.bool_]) -> None:
        """Add some documents.

        Args:
            table: Their candidates, in the columns of `DocumentCandidates`.
            sampled: Marks of the chosen ones, shape (C,), in the same order.
        """
        if not table.num_rows:
            return
        documents, rows = rows_by_document(table)
        vectors = table.column("chunks").combine_chunks().flatten().to_numpy() - GLOBAL_CHUNK
        sizes = np.bincount(np.bincount(documents, minlength=table.num_rows))
        self._sizes = _padded(self._sizes, len(sizes)) + _padded(sizes, len(self._sizes))
        num_vectors = len(self._found_v)
        found = np.bincount(documents * num_vectors + vectors, minlength=table.num_rows * num_vectors) > 0
        found_bv = found.reshape(-1, num_vectors)
        self._found_v += found_bv.sum(axis=0)
        self._all_vectors += int(found_bv.all(axis=1).sum())
        self._sampled_v += np.bincount(vectors[sampled], minlength=num_vectors)
        np.add.at(self._sampled_n, rows[sampled], 1)

    def diagnosis(self, num_documents: int, counts: NDArray[np.int64]) -> Diagnosis:
        """What has been added up.

        Args:
            num_documents: Documents that were searched for, those without any candidate included.
            counts: Documents that found each template, shape (N,).
        """
        with_any, of_all = int(self._sizes.sum()), max(num_documents, 1)
        candidates = int((self._sizes * np.arange(len(self._sizes))).sum())
        p5, p50, p95 = (_percentile(self._sizes, share) for share in (0.05, 0.5, 0.95))
        found = zip(self._found_v.tolist(), self._sampled_v.tolist(), strict=True)
        num_top = max(1, round(len(counts) * _TOP_SHARE))
        ranking = np.argsort(-counts, kind="stable")[: max(num_top, MAX_HUBS)]
        return Diagnosis(
            num_documents=num_documents,
            without_candidate_share=(num_documents - with_any) / of_all,
            candidates_mean=candidates / max(with_any, 1),
            candidates_p5=p5,
            candidates_p50=p50,
            candidates_p95=p95,
            all_vectors_share=self._all_vectors / of_all,
            vectors=tuple(VectorFigures(v + GLOBAL_CHUNK, n / of_all, s) for v, (n, s) in enumerate(found)),
            num_sampled=int(self._sampled_n.sum()),
            slots=self._slots(counts),
            num_templates=len(counts),
            num_never_retrieved=int(np.count_nonzero(counts == 0)),
            num_never_sampled=int(np.count_nonzero(self._sampled_n == 0)),
            top_percent_share=float(counts[ranking[:num_top]].sum() / max(int(counts.sum()), 1)),
            skewness=skewness(counts),
            hubs=tuple(
                Hub(row, int(counts[row]), int(self._sampled_n[row]))
                for row in ranking[:MAX_HUBS].tolist()
                if counts[row]
            ),
        )

    def _slots(self, counts: NDArray[np.int64]) -> tuple[SlotFigures, ...]:
        places = np.minimum(self._num_slots, len(self._target) - 1)
        found, sampled = (
            np.bincount(places, weights=of_each, minlength=len(self._target)).astype(np.int64)
            for of_each in (counts, self._sampled_n)
        )
        bank = np.bincount(places, minlength=len(self._target)) / max(len(places), 1)
        shares = sampled / max(int(sampled.sum()), 1)
        columns = (found.tolist(), sampled.tolist(), shares.tolist(), self._target.tolist(), bank.tolist())
        return tuple(SlotFigures(number, *row) for number, row in enumerate(zip(*columns, strict=True)))


def skewness(values: NDArray[np.int64]) -> float:
    """Third central moment over the cubed standard deviation; 0 where all values are equal.

    Example:
        >>> skewness(np.array([1, 1, 1, 1, 6])), skewness(np.array([2, 2]))
        (1.5, 0.0)
    """
    if not len(values):
        return 0.0
    deviations = values - values.mean()
    spread = float(np.sqrt(np.square(deviations).mean()))
    return float(np.power(deviations, 3).mean() / spread**3) if spread else 0.0


def _percentile(histogram: NDArray[np.int64], share: float) -> int:
    """Least value that at least this share of the values does not exceed; 0 where there are none."""
    total = int(histogram.sum())
    return int(np.searchsorted(np.cumsum(histogram), share * total)) if total else 0


def _padded(counts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.pad(counts, (0, max(0, length - len(counts))))
