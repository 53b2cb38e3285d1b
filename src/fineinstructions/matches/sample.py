"""Candidates -> matches: a weighted random choice, so that templates are as complex as what people really ask.

In: candidates, and how popular their templates are in the whole corpus. Out: the same candidates, the chosen ones
marked. A template weighs ``target / bank`` for its number of slots, so that drawing from the bank gives the target;
`popularity` can make it lighter where many documents find it.

The decision to question: a template's luck for a document is a hash of the seed, the document and the template, not the
next number of a generator. So the choice depends neither on the order of the candidates nor on which others there are:
move the threshold a little, and most documents keep most of their templates, and a model server's cached replies.

Shapes: B documents, C candidates of all of them, G vectors of all of them, S slot counts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from fineinstructions.config import Config
from fineinstructions.matches.candidates import CandidateBatch, Candidates
from fineinstructions.matches.retrieve import SearchableTemplates

ASSISTANT_SLOT_COUNTS = (0.020, 0.104, 0.159, 0.189, 0.141, 0.100, 0.081, 0.057, 0.048, 0.026, 0.075)
"""Share of real assistant queries that would have 0, 1, ... 9, and 10 or more slots.

A rough estimate of ours, from 836 prompts of at most 60 words out of the Chatbot Arena and Arena-Hard prompts
(CC-BY-4.0, Apache-2.0; only these counts are kept). A slot is a run of specific words (with a digit, capitalised inside
a sentence, or found in fewer than one of 4,000 queries, joined over "of" and articles), or a quotation, code block,
list or link.
The paper takes WildChat and LMSys templates and does not print the figures.
"""

_BATCH_DOCUMENTS = 512
"""Documents chosen for at once: few enough that their candidates fit a processor's cache."""


class SampleConfig(Config):
    """How many templates a document is given, and which."""

    templates_per_document: PositiveInt = 6
    """Most templates chosen for a document. Paper, section 4.2."""
    target: Annotated[tuple[Annotated[float, Field(ge=0.0)], ...], Field(min_length=1)] = ASSISTANT_SLOT_COUNTS
    """Wanted shares of templates with 0, 1, 2, ... slots; the last stands for that many and more. Need not sum to 1.
    Ours: see `ASSISTANT_SLOT_COUNTS`; the paper has such a distribution (section 3.2) but does not print it."""
    min_weight: PositiveFloat = 0.05
    """Least weight of a template by its slots, and least factor of `hubness_damping`. Ours."""
    max_weight: PositiveFloat = 20.0
    """Greatest weight of a template by its slots, so that a kind that is rare in the bank is not drawn everywhere, and
    greatest factor of `hubness_damping`. Ours."""
    one_per_vector: bool = True
    """Whether every vector of a document chooses one template before the rest is filled up. Ours: the paper's six
    templates for six vectors suggest it."""
    hubness_damping: Annotated[float, Field(ge=0.0, le=4.0)] = 0.0
    """Exponent g by which templates that many documents find weigh less: the weight is multiplied by
    ``(documents / typical) ** -g``, within the limits of a weight; typical is the mean over the templates that were
    found at all. 0 turns it off, 1 makes up for popularity. Ours, off: the paper has nothing of the kind, and with it
    on, other documents in the corpus are other matches for all of them."""
    max_sampled_share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Largest share of one template among the sampled matches of the corpus, in expectation: a template above it is
    left out of some documents, before anything is asked of a model. Not to be confused with `judge.max_template_share`,
    which drops pairs that are made and judged. ``None`` for no limit. Ours; the paper's largest share of the data is
    0.09 % (section 6.1)."""

    @field_validator("target")
    @classmethod
    def _some_share(cls, target: tuple[float, ...]) -> tuple[float, ...]:
        if not sum(target) > 0:
            raise ValueError("at least one share must be above 0")
        return target


class Popularity:
    """What sampling knows of the whole corpus; see `popularity`.

    Attributes:
        log_weights: Logarithm of every template's factor of `SampleConfig.hubness_damping`, shape (N,); ``None`` where
            it is off.
        chances: Chance that a document may have a template that it found, shape (N,); ``None`` where there is no
            `SampleConfig.max_sampled_share`.
    """

    def __init__(
        self, log_weights: NDArray[np.float64] | None = None, chances: NDArray[np.float64] | None = None
    ) -> None:
        self.log_weights = log_weights
        self.chances = chances


def uses_popularity(config: SampleConfig) -> bool:
    """Whether the choice for a document depends on the rest of the corpus."""
    return config.hubness_damping > 0 or config.max_sampled_share is not None


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


def sample(candidates: Iterable[Candidates], sampler: "Sampler") -> Iterator[Candidates]:
    """Choose the templates of every document.

    Args:
        candidates: The candidates of each document.
        sampler: Knows the bank, the weights and the seed.

    Yields:
        One item per document, in order, with `sampled` set for at most `templates_per_document` distinct templates, one
        per vector where possible. None of the candidates is dropped.

    Source:
        arXiv:2601.22146, sections 3.2 and 4.2. Choosing by Gumbel noise, which is drawing by weight without
        replacement, is ours.
    """
    stream = iter(candidates)
    while items := list(islice(stream, _BATCH_DOCUMENTS)):
        marks = sampler.choose(CandidateBatch.of(items))
        start = 0
        for item in items:
            stop = start + len(item.rows)
            yield item.marked(marks[start:stop])
            start = stop


class Sampler:
    """The choice for many documents at once; make one per process, because its weights are made from the whole bank.

    Args:
        index: The bank that weights refer to; candidates are rows of it.
        config: How many, and towards which slot counts.
        seed: Seed of the run.
        popularity: What `hubness_damping` and `max_sampled_share` make of the corpus; ``None`` for neither.
    """

    def __init__(
        self, index: SearchableTemplates, config: SampleConfig, seed: int, popularity: Popularity | None = None
    ) -> None:
        self._index, self._config, self._seed = index, config, seed
        self._popularity = popularity or Popularity()
        self._last_s = len(config.target) - 1
        live_slots = np.delete(index.num_slots, index.removed)
        self._log_weights = np.log(slot_weights(pool_distribution(live_slots, len(config.target)), config))

    def choose(self, batch: CandidateBatch) -> NDArray[np.bool_]:
        """Marks of the chosen candidates, shape (C,).

        Args:
            batch: Candidates of any number of documents, in any order within a document.
        """
        places, num_candidates = self._places(batch), len(batch.rows)
        if places is not None:
            batch = batch.part(places)
        seeds = document_seeds(batch.document_ids, self._seed, "sample")
        luck = self._log_weights[np.minimum(self._index.num_slots[batch.rows], self._last_s)]
        if self._popularity.log_weights is not None:
            luck += self._popularity.log_weights[batch.rows]
        luck += _gumbel(uniform(self._index.keys[batch.rows], seeds[batch.documents]))
        round_ = _Round(batch, luck, seeds)
        if self._config.one_per_vector:
            round_.choose_by_vector(self._config.templates_per_document)
        round_.fill_up(self._config.templates_per_document)
        if places is None:
            return round_.sampled
        sampled = np.zeros(num_candidates, dtype=np.bool_)
        sampled[places[round_.sampled]] = True
        return sampled

    def _places(self, batch: CandidateBatch) -> NDArray[np.int64] | None:
        """Places of the candidates to choose from, by document and chunk; ``None`` for all of them as they are."""
        chances = self._popularity.chances
        steps = np.diff(batch.documents)
        is_ordered = bool(np.all((steps > 0) | ((steps == 0) & (np.diff(batch.chunks) >= 0))))
        if is_ordered and chances is None:
            return None
        order = np.arange(len(batch.rows)) if is_ordered else np.lexsort((batch.chunks, batch.documents))
        if chances is None:
            return order
        rows = batch.rows[order]
        seeds = document_seeds(batch.document_ids, self._seed, "thin")
        return order[uniform(self._index.keys[rows], seeds[batch.documents[order]]) < chances[rows]]


def document_seeds(document_ids: Sequence[str], seed: int, purpose: str) -> NDArray[np.uint64]:
    """A 64-bit seed for every document, shape (B,): a hash of the run's seed, the purpose and the document's id."""
    prefix = f"{seed}\0{purpose}\0".encode()
    hashes = (hashlib.blake2b(prefix + i.encode("utf-8", "surrogatepass"), digest_size=8) for i in document_ids)
    return np.frombuffer(b"".join(h.digest() for h in hashes), dtype="<u8").astype(np.uint64)


def uniform(keys: NDArray[np.uint64], seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers between 0 and 1, a function of each key and its seed (the mixing steps are those of SplitMix64)."""
    mixed = keys ^ seeds
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    numbers: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64)
    return (numbers + 0.5) * 2.0**-53


def _gumbel(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard Gumbel noise of uniform numbers."""
    noise: NDArray[np.float64] = -np.log(-np.log(numbers))
    return noise


class _Round:
    """Candidates by document and chunk, with their luck, and which of them are chosen so far.

    Every loop goes over the templates that one document may be given, never over documents or candidates.
    """

    def __init__(self, batch: CandidateBatch, luck: NDArray[np.float64], seeds: NDArray[np.uint64]) -> None:
        self._documents, self._rows, self._chunks, self._cosines = (
            batch.documents,
            batch.rows,
            batch.chunks,
            batch.cosines,
        )
        self._luck, self._seeds = luck, seeds
        self._taken: list[NDArray[np.int64]] = []
        """For every turn the row of the template that each document took, shape (B,); -1 where it took none."""
        self.sampled = np.zeros(len(batch.rows), dtype=np.bool_)

    def choose_by_vector(self, most: int) -> None:
        """Give every vector the luckiest template that is left; those with the fewest candidates come first."""
        if not len(self._rows):
            return
        borders = (np.diff(self._documents) != 0) | (np.diff(self._chunks) != 0)
        starts_g = np.concatenate([[0], np.flatnonzero(borders) + 1])
        lengths_g = np.diff([*starts_g, len(self._rows)])
        documents_g = self._documents[starts_g]
        noise_g = _gumbel(uniform(self._chunks[starts_g].astype(np.uint64), self._seeds[documents_g]))
        random_g = np.lexsort((noise_g, documents_g))
        kept = random_g[_rank(documents_g[random_g]) < most]  # a random part where there are too many vectors
        kept = kept[np.lexsort((_rank(documents_g[kept]), lengths_g[kept], documents_g[kept]))]
        turns = _rank(documents_g[kept])
        for turn in range(int(turns.max()) + 1):
            vectors = kept[turns == turn]
            places = _ranges(starts_g[vectors], lengths_g[vectors])
            documents, rows, luck = self._documents[places], self._rows[places], self._luck[places]
            for taken in self._taken:
                luck[rows == taken[documents]] = -np.inf
            best = _firsts_of_best(documents, luck)
            self._take(places[best[luck[best] > -np.inf]])

    def fill_up(self, most: int) -> None:
        """Give every document its luckiest templates until it has enough, each by the vector that is nearest to it."""
        left = most - np.bincount(self._documents[self.sampled], minlength=len(self._seeds))
        if not (left > 0).any():
            return
        places = np.flatnonzero((left > 0)[self._documents])
        for taken in self._taken:
            places = places[self._rows[places] != taken[self._documents[places]]]
        while len(places):
            chosen = self._rows_of(places[_firsts_of_best(self._documents[places], self._luck[places])])
            is_chosen = self._rows[places] == chosen[self._documents[places]]
            mentions = places[is_chosen]
            nearest = mentions[_firsts_of_best(self._documents[mentions], self._cosines[mentions])]
            self._take(nearest)
            left[self._documents[nearest]] -= 1
            places = places[~is_chosen & (left[self._documents[places]] > 0)]

    def _rows_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The template at one place of some documents, by document; -1 for the others."""
        rows = np.full(len(self._seeds), -1)
        rows[self._documents[places]] = self._rows[places]
        return rows

    def _take(self, places: NDArray[np.int64]) -> None:
        """Choose the candidates at these places, at most one per document."""
        self.sampled[places] = True
        self._taken.append(self._rows_of(places))


def _rank(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each entry within its group, groups lying together.

    Example:
        >>> _rank(np.array([4, 4, 4, 7, 9, 9])).tolist()
        [0, 1, 2, 0, 0, 1]
    """
    starts = np.flatnonzero(np.concatenate([[True], np.diff(groups) != 0]))
    ranks: NDArray[np.int64] = np.arange(len(groups)) - np.repeat(starts, np.diff([*starts, len(groups)]))
    return ranks


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Half-open ranges written out behind each other.

    Example:
        >>> _ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    places: NDArray[np.int64] = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return np.arange(int(lengths.sum())) + places


def _firsts_of_best(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of the first of the greatest values of each group, groups lying together.

    Example:
        >>> _firsts_of_best(np.array([3, 3, 3, 8]), np.array([0.1, 0.7, 0.7, 0.2])).tolist()
        [1, 3]
    """
    starts = np.flatnonzero(np.concatenate([[True], np.diff(groups) != 0]))
    best = np.repeat(np.maximum.reduceat(values, starts), np.diff([*starts, len(groups)]))
    hits = np.flatnonzero(values == best)
    firsts: NDArray[np.int64] = hits[np.concatenate([[True], np.diff(groups[hits]) != 0])]
    return firsts
