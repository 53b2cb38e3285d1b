"""Labelled pairs of a description and a document -> cosines -> the threshold that suits an encoder.

In: pairs that somebody or something has judged, and the encoder. Out: a `ScoredPair` each, or a rejection; and from all
of them a `Calibration`: how cosines are spread, what every threshold is worth, and which one was chosen by which rule.

The decision to question: a pair's cosine is the greatest over the document's vectors, because one vector suffices to
make a template a candidate.

Shapes: K coverage chunks, D width, P pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from fineinstructions.backends.encoder import Encoder
from fineinstructions.backends.vector_index.neighbours import exact_cosines
from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.matches.chunk import ChunkConfig, chunk
from fineinstructions.records import Document, Rejection, content_id

_BATCH_TEXTS = 1024


class CalibrateConfig(Config):
    """How a threshold is chosen from labelled pairs."""

    min_precision: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of good pairs that is wanted among those at or above the threshold: the lowest threshold that has it is
    chosen. ``None`` for the threshold with the best F1. Ours; the paper's was chosen by hand (section 6.3)."""
    num_rows: PositiveInt = 20
    """About how many thresholds the table shows. Ours."""
    bin_width: PositiveFloat = 0.05
    """Width of the bars of the histogram, in cosines. Ours."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A compatible document description, a document, and whether they belong together."""

    description: str
    document: str
    is_good: bool


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A labelled pair with its cosine."""

    cosine: float
    """In double precision, rounded to six decimals: exactly the cosine that retrieval decides by."""
    is_good: bool


@dataclass(frozen=True, slots=True)
class ThresholdFigures:
    """What a threshold is worth on the labelled pairs."""

    min_cosine: float
    num_kept: int
    """Pairs at or above it."""
    precision: float
    """Share of good ones among those that are kept."""
    recall: float
    """Share of the good ones that are kept."""
    f1: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Pairs with a cosine in a half-open range."""

    from_cosine: float
    num_good: int
    num_bad: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold, and what it was chosen from."""

    chosen: ThresholdFigures
    rule: str
    """The rule by which it was chosen, in words."""
    num_good: int
    num_bad: int
    thresholds: tuple[ThresholdFigures, ...]
    """From the lowest to the highest; the chosen one is among them."""
    histogram: tuple[Bar, ...]


def score(pairs: Sequence[LabelledPair], encoder: Encoder, config: ChunkConfig) -> Iterator[ScoredPair | Rejection]:
    """Cosine of every labelled pair; a document or description that occurs again is encoded once.

    Args:
        pairs: The pairs, in any order.
        encoder: Makes the vectors.
        config: How documents become K + 1 vectors.

    Yields:
        One item per pair, documents in the order of their first pair: its cosine, or what `chunk` says of the document.

    Source:
        Ours.
    """
    rows = {text: row for row, text in enumerate(dict.fromkeys(pair.description for pair in pairs))}
    texts = list(rows)
    starts = range(0, len(texts), _BATCH_TEXTS)
    encoded = [encoder.encode_texts(texts[start : start + _BATCH_TEXTS]) for start in starts]
    descriptions = np.concatenate(encoded) if encoded else np.empty((0, encoder.dimension), np.float32)
    by_document: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        by_document.setdefault(pair.document, []).append(pair)
    documents = (Document(content_id("d", text), text) for text in by_document)
    for mine, item in zip(by_document.values(), chunk(documents, encoder, config), strict=True):
        if isinstance(item, Rejection):
            yield from (item for _ in mine)
            continue
        mine_pd = descriptions[[rows[pair.description] for pair in mine]]
        cosines_p = np.max([exact_cosines(mine_pd, vector[None, :]) for vector in item.vectors], axis=0)
        for pair, cosine in zip(mine, cosines_p.tolist(), strict=True):
            yield ScoredPair(cosine, pair.is_good)


def calibrate(scored: Iterable[ScoredPair], config: CalibrateConfig) -> Calibration:
    """Choose a threshold.

    Args:
        scored: Pairs with their cosines.
        config: The rule.

    Returns:
        The threshold, a cosine that occurs among the pairs, with the figures it was chosen by. F1 depends on how many
        good and bad pairs there are: give them in the proportion in which retrieval meets them.

    Raises:
        ConfigError: If there are not both good and bad pairs, or no threshold has the precision.

    Source:
        Ours.
    """
    found = list(scored)
    cosines = np.array([pair.cosine for pair in found], np.float64)
    is_good = np.array([pair.is_good for pair in found], np.bool_)
    if not (is_good.any() and (~is_good).any()):
        raise ConfigError(
            f"{len(found):,} labelled pairs, {int(is_good.sum()):,} of them good; a threshold needs both good and bad "
            "ones, give more pairs"
        )
    curve = _curve(cosines, is_good)
    place, rule = _choose(curve, config.min_precision)
    shown = np.unique(np.linspace(0, len(curve) - 1, config.num_rows).round().astype(np.int64))
    return Calibration(
        chosen=curve[place],
        rule=rule,
        num_good=int(is_good.sum()),
        num_bad=int((~is_good).sum()),
        thresholds=tuple(curve[i] for i in sorted({*shown.tolist(), place})),
        histogram=_histogram(cosines, is_good, config.bin_width),
    )


def _curve(cosines: NDArray[np.float64], is_good: NDArray[np.bool_]) -> list[ThresholdFigures]:
    """Figures of every cosine that occurs, as a threshold, from the lowest to the highest."""
    order = np.argsort(-cosines, kind="stable")
    values, good = cosines[order], np.cumsum(is_good[order])
    lasts = np.flatnonzero(np.append(np.diff(values) != 0, [True]))[::-1]  # the last pair of every distinct cosine
    kept = lasts + 1
    precision, recall = good[lasts] / kept, good[lasts] / good[-1]
    f1 = 2 * good[lasts] / (kept + good[-1])
    columns = (values[lasts], kept, precision, recall, f1)
    return [ThresholdFigures(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _choose(curve: list[ThresholdFigures], min_precision: float | None) -> tuple[int, str]:
    """Place of the chosen threshold, and the rule in words."""
    if min_precision is None:
        best = max(range(len(curve)), key=lambda i: (curve[i].f1, i))
        return best, "best F1, the highest threshold of equals"
    for place, figures in enumerate(curve):
        if figures.precision >= min_precision:
            return place, f"lowest threshold with a precision of at least {min_precision:g}"
    best = max(range(len(curve)), key=lambda i: (curve[i].precision, -i))
    raise ConfigError(
        f"no threshold reaches a precision of {min_precision:g}; the best is {curve[best].precision:.3f} at "
        f"{curve[best].min_cosine:.4f}, ask for less"
    )


def _histogram(cosines: NDArray[np.float64], is_good: NDArray[np.bool_], width: float) -> tuple[Bar, ...]:
    bins = np.floor(cosines / width + 1e-9).astype(np.int64)
    first, number = int(bins.min()), int(bins.max() - bins.min()) + 1
    good = np.bincount(bins[is_good] - first, minlength=number).tolist()
    bad = np.bincount(bins[~is_good] - first, minlength=number).tolist()
    return tuple(Bar(round((first + i) * width, 6), good[i], bad[i]) for i in range(number))
