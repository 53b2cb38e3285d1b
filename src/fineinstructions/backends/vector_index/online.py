"""Few queries at once, an answer soon: product-quantised codes in memory say which rows may be near.

In: a list-major index that was just built. Out: one FAISS file beside its parts, and the positions it proposes. The
8-bit codes of those positions decide, so scores are those of a list-major search; what is missed is what the short
codes rank too low.

FAISS's fast scan (``IVF`` with ``PQ``, four coordinates to 4 bits, by residual) looks through a list at a few
nanoseconds per row, but query by query: for a corpus, list-major search is the cheaper one. The codes, with 8 bytes of
position a row, are private to each process that loads them.

The decision to question: the short codes are kept for the vectors of the build only. Additions are searched list by
list, because they are few.

Shapes: Q queries, D width, P probed lists per query, R rows proposed per query.
"""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.exact import load_faiss
from fineinstructions.backends.vector_index.manifest import ONLINE_FILE, FileNote, note
from fineinstructions.backends.vector_index.memory import require_memory
from fineinstructions.backends.vector_index.segments import read_lists
from fineinstructions.errors import DataError
from fineinstructions.runs.durable import sync_file

if TYPE_CHECKING:
    from fineinstructions.backends.vector_index.listed import ListedIndex

_BITS = 4
_SAMPLE = 4096
"""What FAISS takes to train a sub-quantiser of 16 values; it would drop more."""
_ROWS_AT_ONCE = 65_536
_READ_BYTES = 1 << 24
_SUBVECTOR_DIMS = (4, 2, 1)


def write_online(index: "ListedIndex", folder: Path, threads: int = 1) -> dict[str, FileNote]:
    """Make the short codes of an index and write them beside it.

    Args:
        index: Of one segment, as it was built.
        folder: Its folder.
        threads: For FAISS.

    Returns:
        Note of the file, by name; empty where there are too few vectors to train a sub-quantiser.
    """
    coding, segment = index.coding, index.segments[0]
    if len(segment.rows) < 1 << _BITS:
        return {}
    faiss = load_faiss()
    faiss.omp_set_num_threads(threads)
    positions = np.linspace(0, len(segment.rows) - 1, min(_SAMPLE, len(segment.rows))).astype(np.int64)
    sums = np.zeros((coding.nlist, coding.dimension), np.float64)
    for number, records in read_lists(segment, list(range(coding.nlist))):
        sums[number] = coding.turned(records).sum(axis=0, dtype=np.float64)
    counts = np.maximum(np.diff(segment.offsets), 1)
    quantizer = faiss.IndexFlatIP(coding.dimension)
    quantizer.add((sums / counts[:, None]).astype(np.float32))
    width = next(dims for dims in _SUBVECTOR_DIMS if coding.dimension % dims == 0)
    codes = faiss.IndexIVFPQ(
        quantizer, coding.dimension, coding.nlist, coding.dimension // width, _BITS, faiss.METRIC_INNER_PRODUCT
    )
    codes.by_residual = True
    codes.train(coding.turned(segment.take(segment.parts, positions)))
    _fill(codes, index)
    fast = faiss.IndexIVFPQFastScan(codes)
    del codes
    faiss.omp_set_num_threads(1)
    temporary = folder / f"tmp-{ONLINE_FILE}"
    faiss.write_index(fast, str(temporary))
    sync_file(temporary)
    temporary.replace(folder / ONLINE_FILE)
    return {ONLINE_FILE: note(folder / ONLINE_FILE)}


def _fill(codes: Any, index: "ListedIndex") -> None:
    """Add every vector to the list where it lies, under its position."""
    faiss, segment = load_faiss(), index.segments[0]
    held: list[NDArray[np.float32]] = []
    lists: list[NDArray[np.int64]] = []
    first = 0

    def flush() -> int:
        vectors, numbers = np.concatenate(held), np.concatenate(lists)
        positions = np.arange(first, first + len(vectors))
        codes.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, positions, numbers)))
        held.clear()
        lists.clear()
        return first + len(vectors)

    for number, records in read_lists(segment, list(range(index.coding.nlist))):
        held.append(index.coding.turned(records))
        lists.append(np.full(len(records), number, np.int64))
        if sum(map(len, held)) >= _ROWS_AT_ONCE:
            first = flush()
    if held:
        flush()


class ShortCodes:
    """The short codes of an index folder: loaded when they are first asked, from the file as it was when opened."""

    def __init__(self, folder: Path) -> None:
        """Open the file.

        Raises:
            OSError: If there is none.
        """
        self._path = folder / ONLINE_FILE
        self._file = self._path.open("rb")
        self._lock = threading.Lock()
        self._loaded: Any = None

    def propose(self, queries: NDArray[np.float32], nprobe: int, number: int) -> NDArray[np.int64]:
        """Positions that may be near.

        Args:
            queries: In the turned basis (`Coding.put_back`), shape (Q, D).
            nprobe: Lists that a query looks into (P).
            number: Positions per query (R).

        Returns:
            Positions, shape (Q, R); -1 where there are fewer.

        Raises:
            ConfigError: If memory is short.
            DataError: If the file cannot be read.
        """
        codes, parameters = self._codes(), load_faiss().SearchParametersIVF(nprobe=nprobe)
        _, positions = codes.search(np.ascontiguousarray(queries, dtype=np.float32), number, params=parameters)
        found: NDArray[np.int64] = positions
        return found

    def _codes(self) -> Any:
        with self._lock:
            if self._loaded is None:
                faiss = load_faiss()
                size = os.fstat(self._file.fileno()).st_size
                require_memory(
                    size, f"{self._path}: a search by short codes", "search list by list, or on a larger machine"
                )
                self._file.seek(0)
                try:
                    self._loaded = faiss.read_index(faiss.PyCallbackIOReader(self._file.read, _READ_BYTES))
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    raise DataError(f"{self._path}: FAISS cannot read it: {reason}; build the index again") from None
            return self._loaded
