"""What an embedder can do, measured on held-out pairs, and the threshold that suits it.

In: an encoder's folder and labelled pairs. Out: figures beside the ones that it should have reached, and a calibration.
The encoder is the one that matching loads from the same folder, so what is measured is what a run would get.

The decision a reader would question: whether the right coverage chunk is nearest is asked of good pairs whose place a
judge has quoted. Of the others only the vector that found them is known, which would measure the old encoder.

Shapes: P pairs, K coverage chunks, D width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.sentence_encoder import SentenceEncoder
from fineinstructions.matches.calibrate import CalibrateConfig, Calibration, ScoredPair, calibrate
from fineinstructions.pooling import Pooling
from fineinstructions.silver.read import PairExample
from fineinstructions.statistics import auc
from fineinstructions.student_scores import OURS, Score

GOOD_LABEL = 0.5
"""From here on a label calls a pair good."""


def cosines_of(pairs: Sequence[PairExample], config: EncoderConfig, pooling: Pooling) -> NDArray[np.float64]:
    """Cosine of every pair's description with every vector of its document, shape (P, K + 1), the whole last.

    Args:
        pairs: Held-out pairs.
        config: The encoder.
        pooling: How documents are pooled.
    """
    encoder = SentenceEncoder(config)
    documents = list(dict.fromkeys(pair.document for pair in pairs))
    descriptions = list(dict.fromkeys(pair.description for pair in pairs))
    pooled = dict(zip(documents, encoder.encode_documents(documents, pooling), strict=True))
    encoded = dict(zip(descriptions, encoder.encode_texts(descriptions), strict=True))
    rows = [
        pooled[pair.document].vectors.astype(np.float64) @ encoded[pair.description].astype(np.float64)
        for pair in pairs
    ]
    return np.array(rows)


def examine_embedder(
    pairs: Sequence[PairExample], before: NDArray[np.float64], after: NDArray[np.float64]
) -> list[Score]:
    """Figures of an embedder, beside those of the model that it was made of.

    Args:
        pairs: Held-out pairs.
        before: `cosines_of` the model that the training began with.
        after: `cosines_of` the trained one.
    """
    is_good = np.array([pair.label >= GOOD_LABEL for pair in pairs])
    has_both = bool(is_good.any() and not is_good.all())
    found = list[Score]()
    for name, vectors in (("whole document", slice(-1, None)), ("nearest vector", slice(None))):
        for when, cosines in (("before", before), ("after", after)):
            area = float(auc(cosines[:, vectors].max(axis=1), is_good)) if has_both else None
            found.append(Score(f"AUC, {name}, {when}", area, len(pairs), 0.85 if when == "after" else None, OURS))
    quoted = np.array([pair.is_quoted and pair.label >= GOOD_LABEL for pair in pairs], np.bool_)
    chunks = np.array([pair.chunk for pair in pairs])[quoted]
    for when, cosines, right, pearson in (("before", before, None, None), ("after", after, 0.8, 0.99)):
        nearest = cosines[quoted, :-1].argmax(axis=1) if quoted.any() else chunks
        share = float((nearest == chunks).mean()) if len(chunks) else None
        found.append(Score(f"right chunk, {when}", share, len(chunks), right, OURS))
        source = "paper, section 3.2: Pearson 0.99 on its final data"
        found.append(Score(f"chunk Pearson, {when}", _pearson(nearest, chunks), len(chunks), pearson, source))
    return found


def _pearson(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> float | None:
    if len(ours) < 2 or not ours.std() or not theirs.std():
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def calibrated(pairs: Sequence[PairExample], cosines: NDArray[np.float64], min_precision: float | None) -> Calibration:
    """The threshold that suits the cosines of held-out pairs, the nearest vector of every document counting.

    Raises:
        ConfigError: If there are not both good and bad pairs, or no threshold has the precision.
    """
    scored = [
        ScoredPair(round(float(best), 6), pair.label >= GOOD_LABEL)
        for pair, best in zip(pairs, cosines.max(axis=1), strict=True)
    ]
    return calibrate(scored, CalibrateConfig(min_precision=min_precision))
