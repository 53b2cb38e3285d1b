"""Candidates of the whole corpus -> how popular every template is, and what sampling makes of that.

In: the candidates of all documents, batch by batch. Out: an array with the number of documents that found each template
(bounded memory: one number per template), and from it `Popularity`: a factor and a chance for each template, fixed
before the first document chooses. So the choice still does not depend on the order of the documents.

The decision to question: a limit on a template's share is turned into a chance by drawing for a part of the documents,
over and over, with the limit held a little better every time. How often a template is chosen depends on what it
competes with, document by document, and no formula over its count alone tells that: a template in every twentieth
document may be chosen often or next to never.

Shapes: B documents, C candidates, N templates.
"""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import CandidateBatch, Candidates, rows_by_document
from fineinstructions.matches.retrieve import SearchableTemplates
from fineinstructions.matches.sample import Popularity, SampleConfig, Sampler, document_seeds, uniform

PILOT_DOCUMENTS = 20_000
"""Documents drawn for in one round, about: what bounds time and memory, whatever the corpus. Ours."""
MAX_REPEATS = 32
"""How often a small corpus is drawn for in one round, so that chance evens out. Ours."""
MAX_ROUNDS = 30
_HEADROOM = 0.99
_BATCH_DOCUMENTS = 512
_GROUP_DOCUMENTS = 4096
_COUNTS, _LOG_WEIGHTS, _CHANCES = "documents.npy", "log_weights.npy", "chances.npy"


def add_documents(counts: NDArray[np.int64], table: pa.Table) -> int:
    """Count, for every template, the documents that it is a candidate of.

    Args:
        counts: Documents per template so far, shape (N,); changed in place.
        table: Some documents, in the columns of `DocumentCandidates`; only ``rows`` is looked at.

    Returns:
        How many documents there were.
    """
    documents, rows = rows_by_document(table)
    keys = np.sort(documents * len(counts) + rows)
    is_first = np.concatenate(
        [np.ones(min(len(keys), 1), np.bool_), np.diff(keys) != 0]
    )  # several vectors may have found a template
    np.add.at(counts, keys[is_first] % len(counts), 1)
    return int(table.num_rows)


def log_damping(counts: NDArray[np.int64], config: SampleConfig) -> NDArray[np.float64] | None:
    """Logarithm of ``(documents / typical) ** -hubness_damping``, within the limits of a weight.

    Args:
        counts: Documents per template, shape (N,).
        config: The exponent and the limits.

    Returns:
        Shape (N,); ``None`` where damping is off. A template that no document found counts as found once.

    Source:
        Ours. That a few points are neighbours of very many others is known as hubness (Radovanovic et al., 2010);
        dividing a weight by a power of the count is the simplest remedy.
    """
    if config.hubness_damping == 0:
        return None
    found = counts[counts > 0]
    typical = float(found.mean()) if len(found) else 1.0
    factors = -config.hubness_damping * np.log(np.maximum(counts, 1) / typical)
    limited: NDArray[np.float64] = np.clip(factors, np.log(config.min_weight), np.log(config.max_weight))
    return limited


def pilot(items: Iterable[Candidates], num_documents: int, seed: int) -> list[CandidateBatch]:
    """A part of the documents to draw for, about `PILOT_DOCUMENTS`; all of them where there are no more.

    Args:
        items: The candidates of all documents.
        num_documents: How many documents there are.
        seed: Decides which documents, together with their ids and nothing else.

    Returns:
        Batches of documents.
    """
    share = PILOT_DOCUMENTS / max(num_documents, 1)
    stream, kept = iter(items), []
    while group := list(islice(stream, _GROUP_DOCUMENTS)):
        seeds = document_seeds([item.document_id for item in group], seed, "pilot")
        draws = uniform(np.zeros(len(group), np.uint64), seeds)
        kept += [item.copied() for item, draw in zip(group, draws.tolist(), strict=True) if draw < share]
    starts = range(0, len(kept), _BATCH_DOCUMENTS)
    return [CandidateBatch.of(kept[start : start + _BATCH_DOCUMENTS]) for start in starts]


def find_chances(
    batches: list[CandidateBatch],
    index: SearchableTemplates,
    config: SampleConfig,
    seed: int,
    log_weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64] | None:
    """Chance that a document may have a template it found, so that no template exceeds `max_sampled_share`.

    Args:
        batches: The documents to draw for; see `pilot`.
        index: The bank.
        config: The limit, and how templates are drawn.
        seed: Seed of the run.
        log_weights: What `log_damping` gives.

    Returns:
        Shape (N,), 1 for every template that stays below the limit by itself; ``None`` where there is no limit. The
        limit holds for the mean over seeds, up to the error of drawing (about one over the square root of the draws
        that the limit allows), and unless `MAX_ROUNDS` did not suffice.

    Raises:
        ConfigError: If the documents to draw for find too few templates for such a limit.

    Source:
        Ours.
    """
    limit = config.max_sampled_share
    if limit is None:
        return None
    num_found = len(np.unique(np.concatenate([b.rows for b in batches]))) if batches else 0
    num_documents = sum(len(batch.document_ids) for batch in batches)
    if 0 < num_found < 1 / limit:
        raise ConfigError(
            f"sample.max_sampled_share: in a sample of {num_documents:,} documents {num_found:,} templates are found, "
            f"so the largest share there cannot be below {1 / num_found:.2g}; raise it, or set it to null"
        )
    repeats = min(MAX_REPEATS, max(1, PILOT_DOCUMENTS // max(num_documents, 1)))
    chances = np.ones(len(index.num_slots))
    for _ in range(MAX_ROUNDS):
        known = Popularity(log_weights, chances)
        draws = np.zeros(len(chances), np.int64)
        for repeat in range(repeats):
            sampler = Sampler(index, config, _pilot_seed(seed, repeat), known)
            for batch in batches:
                np.add.at(draws, batch.rows[sampler.choose(batch)], 1)
        shares = draws / max(int(draws.sum()), 1)
        above = np.flatnonzero(shares > limit)
        if not len(above):
            break
        chances[above] *= _HEADROOM * limit / shares[above]
    return chances


def _pilot_seed(seed: int, repeat: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0pilot\0{repeat}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def save_popularity(counts: NDArray[np.int64], popularity: Popularity, folder: Path) -> None:
    """Write counts, factors and chances as arrays that workers can map; what is off has no file."""
    for name, array in ((_COUNTS, counts), (_LOG_WEIGHTS, popularity.log_weights), (_CHANCES, popularity.chances)):
        if array is not None:
            np.save(folder / name, array)


def open_popularity(folder: Path) -> Popularity:
    """What `save_popularity` wrote for sampling, memory-mapped."""
    return Popularity(_mapped(folder / _LOG_WEIGHTS), _mapped(folder / _CHANCES))


def open_counts(folder: Path) -> NDArray[np.int64]:
    """Documents per template, shape (N,), memory-mapped.

    Raises:
        FileNotFoundError: If the folder has none.
    """
    counts: NDArray[np.int64] = np.load(folder / _COUNTS, mmap_mode="r", allow_pickle=False)
    return counts


def _mapped(path: Path) -> NDArray[np.float64] | None:
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None
