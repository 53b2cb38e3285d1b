"""Which rows become training data: seeded draws, even shares of strata, and the split into training and validation.

In: ids and what strata they belong to. Out: choices that depend on seed, purpose and id alone, so that neither order
nor workers matter and a larger draw holds the smaller one.

Shapes: N candidates.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.silver.rows import TRAIN, VALIDATION

S = TypeVar("S", bound=Hashable)


class DistillConfig(Config):
    """What `distill` makes for the students."""

    genericizer_rows: int = Field(default=50_000, ge=0)
    """Queries with their templates. Paper, section 3.1."""
    instantiator_rows: int = Field(default=100_000, ge=0)
    """Templates and documents with their answers, in each of the two rounds. Paper, section 3.3."""
    whole_excerpt_words: int = Field(default=12, ge=0)
    """Longest excerpt, in words, that a student learns to write out; of a longer one it writes both ends. Ours. A very
    small student copies more easily than it finds an end: more for it, at the price of longer replies."""
    refusal_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the instantiator's rows that answer ``null``. Paper, section 3.3."""
    embedder_rows: int = Field(default=100_000, ge=0)
    """Documents with descriptions and labels. The paper does not say how many; ours."""
    candidates_per_vector: int = Field(default=2, ge=1)
    """Nearest templates of every vector of a document that the compatibility judge is asked about. Ours."""
    min_cosine: float = Field(default=0.0, ge=-1, le=1)
    """Lowest cosine of such a template. Ours: low, because what the encoder places wrongly teaches it the most."""
    length_borders_words: tuple[int, ...] = (50, 150, 400)
    """Borders between the strata of answer length in round 2, in words. Paper, section 3.3: stratified by length; the
    borders are ours."""
    slot_borders: tuple[int, ...] = (4, 10)
    """Borders between the strata of slot counts in round 2. Paper, section 6.3: ten and more are hard; four is ours."""
    topic_key: str = "domain"
    """Key of a document's metadata that names its topic, for the strata of round 2; a document without it counts under
    its source. Ours."""
    validation_share: float = Field(default=0.02, ge=0, lt=1)
    """Share of queries (genericizer) and of documents (instantiator, embedder) that are kept for validation. Ours."""


def luck(seed: int, purpose: str, record_id: str) -> int:
    """A number below 2^64 that depends on its arguments alone."""
    text = f"{seed}\0{purpose}\0{record_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def split_of(seed: int, kind: str, record_id: str, validation_share: float) -> str:
    """Whether a query or document is for training or for validation.

    Args:
        seed: Seed of the run.
        kind: What is split, such as ``document``: all rows of one document lie on one side, in every file.
        record_id: Its id.
        validation_share: Expected share of validation.
    """
    return VALIDATION if luck(seed, f"split {kind}", record_id) < validation_share * 2**64 else TRAIN


def lowest(luck_n: NDArray[np.uint64], count: int) -> int:
    """Highest number that is still drawn, where the `count` lowest are; -1 where none is.

    Example:
        >>> lowest(np.array([9, 4, 7], np.uint64), 2)
        7
    """
    if count <= 0 or not len(luck_n):
        return -1
    return int(np.partition(luck_n, min(count, len(luck_n)) - 1)[min(count, len(luck_n)) - 1])


def even_shares(supply: Mapping[S, int], total: int) -> dict[S, int]:
    """How many to take of each stratum, as evenly as the supply allows.

    Strata that have less than an equal share give all; the others divide the rest equally.

    Args:
        supply: Candidates in each stratum.
        total: How many to take in all.

    Returns:
        One number per stratum; they sum to `total`, or to all that there is.

    Example:
        >>> even_shares({"short": 90, "long": 3, "longer": 30}, 43)
        {'short': 20, 'long': 3, 'longer': 20}
    """
    shares = dict.fromkeys(supply, 0)
    left, waiting = min(total, sum(supply.values())), sorted(supply, key=lambda s: (supply[s], str(s)))
    for position, stratum in enumerate(waiting):
        shares[stratum] = min(supply[stratum], left // (len(waiting) - position))
        left -= shares[stratum]
    return shares


def stratum_name(value: int, borders: Sequence[int]) -> str:
    """The stratum that a number falls into.

    Example:
        >>> [stratum_name(n, (4, 10)) for n in (3, 4, 10)]
        ['0-3', '4-9', '10+']
    """
    edges = [0, *borders]
    place = sum(value >= edge for edge in edges[1:])
    return f"{edges[place]}+" if place == len(borders) else f"{edges[place]}-{edges[place + 1] - 1}"
