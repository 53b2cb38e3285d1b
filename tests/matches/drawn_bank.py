"""A bank without vectors and candidates made by hand, for tests of what is chosen among them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.matches.candidates import Candidates

CHI_SQUARE_99_9 = {3: 16.27, 4: 18.47, 9: 27.88, 10: 29.59, 19: 43.82}
"""Critical values at 0.1 % by degrees of freedom, from a printed table."""


@dataclass
class Bank:
    """The two columns of a template index that sampling reads."""

    num_slots: NDArray[np.int64]
    keys: NDArray[np.uint64]
    vectors = None
    removed = np.empty(0, np.int64)
    min_cosine = 0.5

    def template_ids(self, rows):
        return [f"t-{row}" for row in rows.tolist()]


def bank(num_slots, seed: int = 0) -> Bank:
    slots = np.asarray(num_slots, dtype=np.int64)
    keys = np.random.default_rng(seed).integers(0, 2**64, len(slots), dtype=np.uint64)
    return Bank(slots, keys)


def candidates(rows, chunks, cosines=None, document_id="d") -> Candidates:
    rows, chunks = np.asarray(rows, dtype=np.int64), np.asarray(chunks, dtype=np.int64)
    return Candidates(
        document_id=document_id,
        rows=rows,
        chunks=chunks,
        cosines=np.full(len(rows), 0.9) if cosines is None else np.asarray(cosines, dtype=np.float64),
        num_above=np.full(len(rows), len(rows)),
        sampled=np.zeros(len(rows), dtype=np.bool_),
    )


def chi_square(observed: NDArray, expected: NDArray) -> float:
    return float((np.square(observed - expected) / expected).sum())
