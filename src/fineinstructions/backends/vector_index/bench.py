"""How fast an index is on the machine at hand, beside an exact FAISS search in the same minute.

In: an index. Out: queries per processor second of both, and their ratio: what can be compared between machines.

Shapes: Q queries, D width.
"""

import time
from typing import Any

import numpy as np

from fineinstructions.backends.vector_index.exact import load_faiss
from fineinstructions.backends.vector_index.neighbours import VectorIndex

REPEATS = 5
_FLAT_ROWS = 100_000
_FLAT_QUERIES = 256
_NOISE = 0.2


def compare(index: VectorIndex, num_queries: int, min_cosine: float, max_candidates: int) -> dict[str, Any]:
    """Measure an index against `IndexFlatIP`, in turns.

    The exact search runs over at most 100,000 of the vectors and is scaled to all of them: its cost per vector does not
    depend on their number.

    Args:
        index: The index.
        num_queries: Queries (Q): indexed vectors, slightly turned, the same every time.
        min_cosine: Threshold.
        max_candidates: Most rows per query.

    Returns:
        Figures by name; medians of five turns.
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(index), num_queries)
    noise = rng.standard_normal((num_queries, index.dimension)).astype(np.float32)
    noise *= _NOISE / np.sqrt(index.dimension)
    queries = index.vectors(rows) + noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    flat_rows = np.sort(rng.permutation(len(index))[:_FLAT_ROWS])
    flat = load_faiss().IndexFlatIP(index.dimension)
    flat.add(index.vectors(flat_rows))
    rates, flat_rates, found = [], [], 0
    for _ in range(REPEATS):
        began = time.process_time()
        found = sum(n.num_above for n in index.search(queries, min_cosine, max_candidates))
        rates.append(num_queries / (time.process_time() - began))
        began = time.process_time()
        flat.search(queries[:_FLAT_QUERIES], min(max_candidates, len(flat_rows)))
        seconds = (time.process_time() - began) * len(index) / len(flat_rows)
        flat_rates.append(min(_FLAT_QUERIES, num_queries) / seconds)
    ratios = sorted(a / b for a, b in zip(rates, flat_rates, strict=True))
    return {
        "queries": num_queries,
        "min_cosine": min_cosine,
        "found_per_query": round(found / num_queries, 2),
        "queries_per_cpu_second": round(float(np.median(rates)), 1),
        "exact_queries_per_cpu_second": round(float(np.median(flat_rates)), 1),
        "ratio": round(ratios[REPEATS // 2], 2),
        "least_ratio": round(ratios[0], 2),
        "greatest_ratio": round(ratios[-1], 2),
    }
