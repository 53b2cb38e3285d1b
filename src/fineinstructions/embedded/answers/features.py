"""What is measured at every sentence of a document when a question is asked of it.

In: a question and `Sentences`. Out: one row of numbers per sentence. Most are shares of the question's words, weighed
by how rare they are in the language or among the document's own sentences, here, together with the neighbours, and
against the best sentence of the document; so a score means the same in a long and in a short text.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, Q content words of the question, W weightings, O log-odds, C columns, F features.

NEIGHBOURS = (-2, -1, 1, 2)
WINDOWS = ((-1, 1), (-3, 3), (-6, 6), (0, 2), (0, 4), (-3, -1), (1, 3))
"""Sentences before and behind that a mean is taken over."""
_K1, _B = 1.2, 0.75
"""The usual values of BM25."""

Column = NDArray[np.float64]
Columns = NDArray[np.float64]
"""Several columns on top of each other, shape (C, S)."""


def sentence_features(
    question: Question, sentences: Sentences, rarity: Rarity, associations: Associations
) -> NDArray[np.float32]:
    """Rows of shape (S, F): shares, neighbours, wordings, places, novelty, cues, odds and the question's form."""
    num = len(sentences)
    if not num:
        return np.zeros((0, 0), np.float32)
    found_qs = found(question, sentences)
    everywhere_q = np.array([rarity[word] for word in question.stems])
    local_q = np.array([sentences.local_weight(word) for word in question.stems])
    is_name_q = np.array([word in question.names for word in question.stems], bool)
    shares_ws = shares(_weights(question, sentences, everywhere_q, local_q, is_name_q), found_qs)
    _, local_s, plain_s, _, _, clause_s, main_s, _ = shares_ws
    moved_ws = np.stack([local_s, plain_s, clause_s, main_s])
    about = (*question.forms, float(question.has_clause), float(len(question.stems)), float(is_name_q.sum()))
    columns = [
        shares_ws,
        _below_best(shares_ws),
        ranks(np.stack([shares_ws[0], local_s, plain_s, main_s])),
        *(shifted(moved_ws, by) for by in NEIGHBOURS),
        *(windowed(local_s[None], *window) for window in WINDOWS[:2]),
        _together(found_qs, local_q, local_s),
        np.stack(_wording(question, sentences, found_qs)),
        np.stack(_where(sentences, local_s, clause_s if question.has_clause else local_s)),
        np.stack(_novelty(sentences, rarity, found_qs, everywhere_q)),
        sentences.cues.T,
        *_of_odds(np.stack(associations.sentence_odds(question.row, sentences)), sentences),
        np.repeat(np.array(about)[:, None], num, axis=1),
    ]
    return np.concatenate(columns).T.astype(np.float32, order="C")


def _weights(
    question: Question, sentences: Sentences, everywhere_q: Column, local_q: Column, is_name_q: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Eight ways to weigh the question's words, shape (8, Q)."""
    is_title_q = np.array([word in sentences.title_stems for word in question.stems], bool)
    in_clause_q = np.array([word in question.clause for word in question.stems], bool)
    return np.stack(
        [
            *(everywhere_q, local_q, local_q * ~is_name_q, local_q * is_name_q, local_q * ~is_title_q),
            *(local_q * in_clause_q, local_q * ~in_clause_q, everywhere_q * is_title_q),
        ]
    )


def found(question: Question, sentences: Sentences) -> NDArray[np.float64]:
    """Whether each content word of the question stands in each sentence, shape (Q, S)."""
    found_qs = np.zeros((len(question.stems), len(sentences)))
    for row, word in enumerate(question.stems):
        if word in sentences.places:
            found_qs[row, sentences.places[word]] = 1.0
    return found_qs


def shares(weights_wq: NDArray[np.float64], found_qs: NDArray[np.float64]) -> Columns:
    """Weighted shares of the question's words that are found, shape (W, S); 0 where no word has a weight.

    Example:
        >>> shares(np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.75, 0.25], [0.0, 0.0]]
    """
    totals_w = weights_wq.sum(axis=1, keepdims=True)
    return np.asarray(weights_wq @ found_qs / np.where(totals_w > 0.0, totals_w, 1.0))


def _together(found_qs: NDArray[np.float64], local_q: Column, alone_s: Column) -> Columns:
    """What a sentence and its neighbours cover together: one before, one behind, both, two before, all before."""
    num = found_qs.shape[1]
    padded = np.pad(found_qs, ((0, 0), (2, 1)))
    here, before, behind, second = (padded[:, k : k + num] for k in (2, 1, 3, 0))
    everything = np.maximum.accumulate(padded[:, 1 : num + 1], axis=1)
    pair = np.maximum(here, before)
    unions = (pair, np.maximum(here, behind), np.maximum(pair, behind), np.maximum(before, second), everything)
    covered_us = shares(local_q[None], np.concatenate(unions, axis=1)).reshape(len(unions), num)
    return np.concatenate([covered_us, _below_best(covered_us), covered_us - alone_s])


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
        np.diff(blocks, prepend=-1) != 0,
        sentences.is_item,
        (blocks == blocks[int(overlap_s.argmax())]).astype(float),
        np.clip(numbers - int(overlap_s.argmax()), -10.0, 10.0),
        np.clip(numbers - int(clause_s.argmax()), -10.0, 10.0),
        np.log1p(words_s),
        words_s / max(1.0, words_s.mean()),
        sentences.kinship,
        shifted(sentences.kinship[None], 1)[0],
    ]


def _novelty(sentences: Sentences, rarity: Rarity, found_qs: NDArray[np.float64], everywhere_q: Column) -> list[Column]:
    """What a sentence says beside the question's words: how rare and how much."""
    amount_s = sentences.num_stems - found_qs.sum(axis=0)
    return [(sentences.weights(rarity) - everywhere_q @ found_qs) / np.maximum(1.0, amount_s), amount_s]


def _of_odds(odds_os: Columns, sentences: Sentences) -> list[Columns]:
    """Log-odds here, against the best and the mean, around, over the edge between before and behind, and by block."""
    around = [windowed(odds_os, low, high) for low, high in WINDOWS]
    _, block_s = np.unique(sentences.blocks, return_inverse=True)
    sizes_s = np.bincount(block_s)
    of_block_os = np.stack([(np.bincount(block_s, odds_s) / sizes_s)[block_s] for odds_s in odds_os])
    scale_o1 = odds_os.std(axis=1, keepdims=True) + 1e-6
    columns = [odds_os, _below_best(odds_os), (odds_os - odds_os.mean(axis=1, keepdims=True)) / scale_o1, *around]
    columns += [shifted(odds_os, by) for by in (-1, 1)]
    for values_os in around[:2]:
        columns += [_below_best(values_os), ranks(values_os)]
    return [*columns, around[3] - around[5], of_block_os, _below_best(of_block_os)]


def _below_best(values_cs: Columns) -> Columns:
    below: Columns = values_cs - values_cs.max(axis=1, keepdims=True)
    return below


def shifted(values_cs: Columns, by: int) -> Columns:
    """Every sentence's neighbour `by` places on; 0 beyond the ends.

    Example:
        >>> shifted(np.array([[1.0, 2.0, 3.0]]), 1).tolist()
        [[2.0, 3.0, 0.0]]
    """
    moved = np.zeros_like(values_cs)
    if by > 0:
        moved[:, :-by] = values_cs[:, by:]
    else:
        moved[:, -by:] = values_cs[:, :by]
    return moved


def windowed(values_cs: Columns, low: int, high: int) -> Columns:
    """Mean over the sentences from `low` to `high` places away; 0 where there are none.

    Example:
        >>> windowed(np.array([[1.0, 2.0, 3.0]]), -1, 0).tolist()
        [[1.0, 1.5, 2.5]]
    """
    num_columns, num = values_cs.shape
    first, behind, number = _window(num, low, high)
    sums = np.zeros((num_columns, num + 1))
    values_cs.cumsum(axis=1, out=sums[:, 1:])
    return np.asarray((sums[:, behind] - sums[:, first]) / number)


@lru_cache(maxsize=4_000)
def _window(num: int, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First and behind the last of every sentence's window, and how many it holds (1 where it is empty)."""
    first = np.clip(np.arange(num) + low, 0, num)
    behind = np.maximum(first, np.clip(np.arange(num) + high + 1, 0, num))
    return first, behind, np.maximum(1, behind - first)


def ranks(values_cs: Columns) -> Columns:
    """Place of every sentence when the highest value comes first, at most 20."""
    order = np.argsort(-values_cs, axis=1, kind="stable")
    found_cs = np.empty(values_cs.shape)
    places = np.broadcast_to(np.minimum(np.arange(values_cs.shape[1]), 20), values_cs.shape)
    np.put_along_axis(found_cs, order, places, axis=1)
    return found_cs
