"""What is measured at every sentence of a document when a question is asked of it.

In: a question and `Sentences`. Out: one row of numbers per sentence. Most are shares of the question's words, weighed
by how rare they are in the language or among the document's own sentences, here, together with the neighbours, and
against the best sentence of the document; so a score means the same in a long and in a short text.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, Q content words of the question, F features.

NEIGHBOURS = (-2, -1, 1, 2)
WINDOWS = ((-1, 1), (-3, 3), (-6, 6), (0, 2), (0, 4), (-3, -1), (1, 3))
"""Sentences before and behind that a mean is taken over."""
_K1, _B = 1.2, 0.75
"""The usual values of BM25."""

Column = NDArray[np.float64]


def sentence_features(
    question: Question, sentences: Sentences, rarity: Rarity, associations: Associations
) -> NDArray[np.float32]:
    """Rows of shape (S, F): shares, neighbours, wordings, places, novelty, cues, odds and the question's form."""
    num = len(sentences)
    if not num:
        return np.zeros((0, 0), np.float32)
    found_qs = found(question, sentences)
    local_q = np.array([sentences.local_weight(word) for word in question.stems])
    everywhere_q = np.array([rarity[word] for word in question.stems])
    is_name_q = np.array([word in question.names for word in question.stems], bool)
    is_title_q = np.array([word in sentences.title_stems for word in question.stems], bool)
    in_clause_q = np.array([word in question.clause for word in question.stems], bool)
    weights = [everywhere_q, local_q, local_q * ~is_name_q, local_q * is_name_q, local_q * ~is_title_q]
    weights += [local_q * in_clause_q, local_q * ~in_clause_q, everywhere_q * is_title_q]
    shares = [share(weight, found_qs) for weight in weights]
    _, local_s, plain_s, _, _, clause_s, main_s, _ = shares
    columns: list[Column] = []
    for values_s in shares:
        columns += [values_s, values_s - values_s.max()]
    columns += [ranks(values_s) for values_s in (shares[0], local_s, plain_s, main_s)]
    columns += [shifted(values_s, by) for values_s in (local_s, plain_s, clause_s, main_s) for by in NEIGHBOURS]
    columns += [windowed(local_s, -1, 1), windowed(local_s, -3, 3)]
    columns += _together(found_qs, local_q, local_s)
    columns += _wording(question, sentences, found_qs)
    columns += _where(sentences, local_s, clause_s if question.has_clause else local_s)
    columns += _novelty(sentences, rarity, found_qs, everywhere_q)
    columns += list(sentences.cues.T)
    for odds_s in associations.sentence_odds(question.row, sentences):
        columns += _of_odds(odds_s, sentences)
    about = (*question.forms, float(question.has_clause), float(len(question.stems)), float(is_name_q.sum()))
    columns += [np.full(num, value) for value in about]
    return np.stack(columns, axis=1).astype(np.float32)


def found(question: Question, sentences: Sentences) -> NDArray[np.float64]:
    """Whether each content word of the question stands in each sentence, shape (Q, S)."""
    found_qs = np.zeros((len(question.stems), len(sentences)))
    for row, word in enumerate(question.stems):
        if word in sentences.places:
            found_qs[row, sentences.places[word]] = 1.0
    return found_qs


def share(weight_q: Column, found_qs: NDArray[np.float64]) -> Column:
    """Weighted share of the question's words that is found, shape (S,); 0 where no word has a weight."""
    total = weight_q.sum()
    return np.asarray(weight_q @ found_qs / total) if total > 0.0 else np.zeros(found_qs.shape[1])


def _together(found_qs: NDArray[np.float64], local_q: Column, alone_s: Column) -> list[Column]:
    """What a sentence and its neighbours cover together: one before, one behind, both, two before, all before."""
    num = found_qs.shape[1]
    padded = np.pad(found_qs, ((0, 0), (2, 1)))
    here, before, behind, second = (padded[:, k : k + num] for k in (2, 1, 3, 0))
    everything = np.maximum.accumulate(padded[:, 1 : num + 1], axis=1)
    unions = (
        np.maximum(here, before),
        np.maximum(here, behind),
        np.maximum(here, np.maximum(before, behind)),
        np.maximum(before, second),
        everything,
    )
    columns: list[Column] = []
    for union in unions:
        covered = share(local_q, union)
        columns += [covered, covered - covered.max(), covered - alone_s]
    return columns


def _wording(question: Question, sentences: Sentences, found_qs: NDArray[np.float64]) -> list[Column]:
    """Overlap in all words and in pairs of neighbouring words, BM25, and how dense the hits are."""
    num = len(sentences)
    amount_s = np.array([len(stems) for stems in sentences.stems], float)
    hits_s = found_qs.sum(axis=0)
    present_q = found_qs.sum(axis=1)
    weight_q = np.log1p((num - present_q + 0.5) / (present_q + 0.5))
    norm_s = _K1 * (1.0 - _B + _B * amount_s / max(1.0, amount_s.mean()))
    bm25_s = np.asarray(weight_q @ (found_qs * (_K1 + 1.0) / (found_qs + norm_s)))
    words = dict.fromkeys(question.words)
    pairs = dict.fromkeys(f"{a} {b}" for a, b in pairwise(question.words))
    overlap_s, pairs_s = (_counted(terms, sentences) / max(1, len(terms)) for terms in (words, pairs))
    return [
        *(overlap_s, overlap_s - overlap_s.max(), pairs_s, pairs_s - pairs_s.max()),
        *(bm25_s, bm25_s - bm25_s.max(), hits_s, hits_s / np.maximum(1.0, amount_s)),
    ]


def _counted(terms: dict[str, None], sentences: Sentences) -> Column:
    """How many of some terms each sentence holds."""
    counts_s = np.zeros(len(sentences))
    for term in terms:
        if term in sentences.term_places:
            counts_s[sentences.term_places[term]] += 1.0
    return counts_s


def _where(sentences: Sentences, overlap_s: Column, clause_s: Column) -> list[Column]:
    """Where a sentence stands: in the text, in its block, and as seen from the best sentence."""
    num = len(sentences)
    numbers = np.arange(num, dtype=float)
    blocks = sentences.blocks
    words_s = sentences.num_words
    return [
        numbers / num,
        np.minimum(numbers, 20.0),
        np.minimum(num - 1 - numbers, 20.0),
        np.full(num, np.log1p(num)),
        np.r_[True, blocks[1:] != blocks[:-1]].astype(float),
        sentences.is_item,
        (blocks == blocks[int(overlap_s.argmax())]).astype(float),
        np.clip(numbers - int(overlap_s.argmax()), -10.0, 10.0),
        np.clip(numbers - int(clause_s.argmax()), -10.0, 10.0),
        np.log1p(words_s),
        words_s / max(1.0, words_s.mean()),
        sentences.kinship,
        np.r_[sentences.kinship[1:], 0.0],
    ]


def _novelty(sentences: Sentences, rarity: Rarity, found_qs: NDArray[np.float64], everywhere_q: Column) -> list[Column]:
    """What a sentence says beside the question's words: how rare and how much."""
    amount_s = sentences.num_stems - found_qs.sum(axis=0)
    return [(sentences.weights(rarity) - everywhere_q @ found_qs) / np.maximum(1.0, amount_s), amount_s]


def _of_odds(odds_s: Column, sentences: Sentences) -> list[Column]:
    """Log-odds here, against the best and the mean, around, over the edge between before and behind, and by block."""
    around = [windowed(odds_s, low, high) for low, high in WINDOWS]
    _, block_s = np.unique(sentences.blocks, return_inverse=True)
    of_block_s = (np.bincount(block_s, odds_s) / np.bincount(block_s))[block_s]
    columns = [odds_s, odds_s - odds_s.max(), (odds_s - odds_s.mean()) / (odds_s.std() + 1e-6), *around]
    columns += [shifted(odds_s, by) for by in (-1, 1)]
    for values_s in around[:2]:
        columns += [values_s - values_s.max(), ranks(values_s)]
    return [*columns, around[3] - around[5], of_block_s, of_block_s - of_block_s.max()]


def shifted(values_s: Column, by: int) -> Column:
    """Every sentence's neighbour `by` places on; 0 beyond the ends.

    Example:
        >>> shifted(np.array([1.0, 2.0, 3.0]), 1).tolist()
        [2.0, 3.0, 0.0]
    """
    moved = np.zeros_like(values_s)
    if by > 0:
        moved[:-by] = values_s[by:]
    else:
        moved[-by:] = values_s[:by]
    return moved


def windowed(values_s: Column, low: int, high: int) -> Column:
    """Mean over the sentences from `low` to `high` places away; 0 where there are none.

    Example:
        >>> windowed(np.array([1.0, 2.0, 3.0]), -1, 0).tolist()
        [1.0, 1.5, 2.5]
    """
    num = len(values_s)
    sums = np.r_[0.0, values_s.cumsum()]
    first = np.clip(np.arange(num) + low, 0, num)
    behind = np.maximum(first, np.clip(np.arange(num) + high + 1, 0, num))
    return np.asarray((sums[behind] - sums[first]) / np.maximum(1, behind - first))


def ranks(values_s: Column) -> Column:
    """Place of every sentence when the highest value comes first, at most 20."""
    order = np.argsort(-values_s, kind="stable")
    found_s = np.empty(len(order))
    found_s[order] = np.minimum(np.arange(len(order)), 20)
    return found_s
