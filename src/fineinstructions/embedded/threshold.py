"""The encoder's own threshold, from labelled pages that it was not trained on.

In: an encoder, and questions of known types on pages. Out: the cosine from which on a description and a page belong
together most reliably. The decision to question: a page counts as wrong for every type that nobody asked it about,
though some do answer it, so the threshold is rather high than low.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fineinstructions.embedded.descriptions import describe
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.embedded.pairs_of_texts import frame_of
from fineinstructions.pooling import Pooling

MIN_PAGES = 20
"""Fewest pages that a threshold is chosen on."""


def calibrated(
    encoder: EmbeddedEncoder, rows: Sequence[Mapping[str, Any]], pages: Mapping[str, str], default: float
) -> tuple[float, str]:
    """Choose the threshold with the best F1.

    Args:
        encoder: The encoder.
        rows: Labelled questions on pages, with ``doc_id``, ``question_type`` and ``question_template``.
        pages: Text of every page, by id.
        default: What to take if there are fewer than `MIN_PAGES` pages.

    Returns:
        The threshold, and a line about it.
    """
    frames: dict[str, Counter[str]] = defaultdict(Counter)
    types: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        frame = frame_of(row["question_template"] or "")
        if "_" in frame:
            frames[row["question_type"]][frame] += 1
            types[row["doc_id"]].add(row["question_type"])
    if len(types) < MIN_PAGES:
        return default, f"threshold {default:.3f}: fewer than {MIN_PAGES} pages were kept back to choose one on"
    asked = sorted(frames)
    wordings = [max(sorted(frames[kind]), key=frames[kind].__getitem__) for kind in asked]
    queries = encoder.encode_texts([describe(frame, ("a disease",)) for frame in wordings])
    names = sorted(types)
    pooled = encoder.encode_documents([pages[name] for name in names], Pooling())
    cosines = np.stack([(queries @ document.vectors.T).max(axis=1) for document in pooled])
    right = np.array([[kind in types[name] for kind in asked] for name in names])
    order = np.argsort(-cosines, axis=None, kind="stable")
    hits = np.cumsum(right.ravel()[order])
    f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + right.sum())
    best = int(f1.argmax())
    chosen = round(float(cosines.ravel()[order[best]]), 4)
    of = f"{len(names):,} pages and {len(asked)} descriptions kept back"
    return chosen, f"threshold {chosen:.4f}: F1 {f1[best]:.3f}, precision {hits[best] / (best + 1):.3f} on {of}"
