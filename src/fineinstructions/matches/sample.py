"""Candidates -> matches: a weighted random choice, so that templates are as complex as what people really ask.

In: candidates. Out: the same candidates, the chosen ones marked. A template weighs ``target / bank`` for its number of
slots, so that drawing from the bank gives the target.

The decision to question: a template's luck for a document is a hash of the seed, the document and the template, not the
next number of a generator. So the choice depends neither on the order of the candidates nor on which others there are:
move the threshold a little, and most documents keep most of their templates, and a model server's cached replies.

Shapes: C candidates, U distinct templates among them, S slot counts.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from fineinstructions.config import Config
from fineinstructions.matches.retrieve import Candidates, SearchableTemplates

ASSISTANT_SLOT_COUNTS = (0.020, 0.104, 0.159, 0.189, 0.141, 0.100, 0.081, 0.057, 0.048, 0.026, 0.075)
"""Share of real assistant queries that would have 0, 1, ... 9, and 10 or more slots.

A rough estimate of ours, from 836 prompts of at most 60 words out of the Chatbot Arena and Arena-Hard prompts
(CC-BY-4.0, Apache-2.0; only these counts are kept). A slot is a run of specific words (with a digit, capitalised inside
a sentence, or found in fewer than one of 4,000 queries, joined over "of" and articles), or a quotation, code block,
list or link.
The paper takes WildChat and LMSys templates and does not print the figures.
"""


class SampleConfig(Config):
    """How many templates a document is given, and which."""

    templates_per_document: PositiveInt = 6
    """Most templates chosen for a document. Paper, section 4.2."""
    target: Annotated[tuple[Annotated[float, Field(ge=0.0)], ...], Field(min_length=1)] = ASSISTANT_SLOT_COUNTS
    """Wanted shares of templates with 0, 1, 2, ... slots; the last stands for that many and more. Need not sum to 1.
    Ours: see `ASSISTANT_SLOT_COUNTS`; the paper has such a distribution (section 3.2) but does not print it."""
    min_weight: PositiveFloat = 0.05
    """Least weight of a template. Ours."""
    max_weight: PositiveFloat = 20.0
    """Greatest weight of a template, so that a kind that is rare in the bank is not drawn everywhere. Ours."""
    one_per_vector: bool = True
    """Whether every vector of a document chooses one template before the rest is filled up. Ours: the paper's six
    templates for six vectors suggest it."""

    @field_validator("target")
    @classmethod
    def _some_share(cls, target: tuple[float, ...]) -> tuple[float, ...]:
        if not sum(target) > 0:
            raise ValueError("at least one share must be above 0")
        return target


def pool_distribution(num_slots: NDArray[np.int64], num_counts: int) -> NDArray[np.float64]:
    """Shares of a bank's templates by their number of slots.

    Args:
        num_slots: Slots of every template.
        num_counts: Number of shares (S); the last one takes that many slots and more.

    Returns:
        Shares of shape (S,) that sum to 1.

    Example:
        >>> pool_distribution(np.array([0, 1, 1, 7]), 3).tolist()
        [0.25, 0.5, 0.25]
    """
    counts = np.bincount(np.minimum(num_slots, num_counts - 1), minlength=num_counts)
    return counts / max(len(num_slots), 1)


def slot_weights(pool: NDArray[np.float64], config: SampleConfig) -> NDArray[np.float64]:
    """Weight of a template by its number of slots: target over pool, kept within the configured limits.

    Args:
        pool: Shares of the bank's templates, shape (S,) as the target.
        config: The target and the limits.

    Returns:
        Weights of shape (S,). Where the bank has no such template, the greatest.

    Source:
        Ours. arXiv:2601.22146, section 3.2 says that the choice is weighted towards the slot counts of real queries.
    """
    target = np.array(config.target) / sum(config.target)
    ratios = np.divide(target, pool, out=np.full(len(target), np.inf), where=pool > 0)
    weights: NDArray[np.float64] = np.clip(ratios, config.min_weight, config.max_weight)
    return weights


def sample(
    candidates: Iterable[Candidates], index: SearchableTemplates, config: SampleConfig, seed: int
) -> Iterator[Candidates]:
    """Choose the templates of every document.

    Args:
        candidates: The candidates of each document.
        index: Where they come from; its templates are the bank that weights refer to.
        config: How many, and towards which slot counts.
        seed: Seed of the run.

    Yields:
        One item per document, in order, with `sampled` set for at most `templates_per_document` distinct templates, one
        per vector where possible. None of the candidates is dropped.

    Source:
        arXiv:2601.22146, sections 3.2 and 4.2. Choosing by Gumbel noise, which is drawing by weight without
        replacement, is ours.
    """
    num_counts = len(config.target)
    log_weights = np.log(slot_weights(pool_distribution(index.num_slots, num_counts), config))
    for item in candidates:
        rows_u, which_c = np.unique(item.rows, return_inverse=True)
        slots_u = np.minimum(index.num_slots[rows_u], num_counts - 1)
        document_seed = _document_seed(seed, item.document.document_id)
        luck_u = log_weights[slots_u] + _gumbel(index.keys[rows_u], document_seed)
        yield replace(item, sampled=_chosen(item, which_c, luck_u, document_seed, config))


def _document_seed(seed: int, document_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}\0sample\0{document_id}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _gumbel(keys: NDArray[np.uint64], document_seed: int) -> NDArray[np.float64]:
    """Standard Gumbel noise, a function of each key and the seed (the mixing steps are those of SplitMix64)."""
    mixed = keys ^ np.uint64(document_seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    uniform = ((mixed >> np.uint64(11)) + 0.5) * 2.0**-53
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _chosen(
    item: Candidates,
    which_c: NDArray[np.int64],
    luck_u: NDArray[np.float64],
    document_seed: int,
    config: SampleConfig,
) -> NDArray[np.bool_]:
    """Marks of the chosen candidates: first the luckiest of every vector, then the luckiest of what is left."""
    sampled = np.zeros(len(item.rows), dtype=np.bool_)
    taken_u = np.zeros(len(luck_u), dtype=np.bool_)
    if config.one_per_vector:
        for vector in _vectors(item.chunks, document_seed, config.templates_per_document):
            free = np.flatnonzero((item.chunks == vector) & ~taken_u[which_c])
            if len(free):
                place = free[np.argmax(luck_u[which_c[free]])]
                sampled[place] = taken_u[which_c[place]] = True
    num_left = config.templates_per_document - int(np.count_nonzero(taken_u))
    luckiest = np.argsort(np.where(taken_u, np.inf, -luck_u), kind="stable")
    more_u = luckiest[: min(num_left, len(luck_u) - int(np.count_nonzero(taken_u)))]
    if len(more_u):
        by_cosine = np.lexsort((item.chunks, -item.cosines))  # a template found by several vectors keeps the nearest
        _, firsts_u = np.unique(which_c[by_cosine], return_index=True)
        sampled[by_cosine[firsts_u[more_u]]] = True
    return sampled


def _vectors(chunks: NDArray[np.int64], document_seed: int, most: int) -> list[int]:
    """Vectors that choose, those with the fewest candidates first; a random part where there are too many."""
    vectors, counts = np.unique(chunks, return_counts=True)
    order = np.argsort(_gumbel(vectors.astype(np.uint64), document_seed), kind="stable")[:most]
    order = order[np.argsort(counts[order], kind="stable")]
    chosen: list[int] = vectors[order].tolist()
    return chosen
