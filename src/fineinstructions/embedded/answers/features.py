"""What is measured at every sentence of a document when a question is asked of it.

In: a question and `Sentences`. Out: one row of numbers per sentence. Most are shares of the question's words, weighed
by how rare they are in the language or among the document's own sentences, here, before, behind, and against the best
sentence of the document; so a score means the same in a long and in a short text.
"""

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, F features.

NEIGHBOURS = (-2, -1, 1, 2)


def sentence_features(question: Question, sentences: Sentences, rarity: Rarity) -> NDArray[np.float32]:
    """Rows of shape (S, F), in the order of `shares`, neighbours, places, cues and forms below."""
    num = len(sentences)
    if not num:
        return np.zeros((0, 0), np.float32)
    shares_s = _shares(question, sentences, rarity)
    odds_s = answer_odds(question, sentences)
    columns: list[NDArray[np.float64]] = []
    for values_s in (*shares_s, *odds_s):
        columns += [values_s, values_s - values_s.max()]
    local_s, odds_mean_s = shares_s[1], odds_s[0]
    for values_s in (local_s, odds_mean_s):
        columns += [shifted(values_s, by) for by in NEIGHBOURS]
    columns += [windowed(odds_mean_s, 1), windowed(odds_mean_s, 3), windowed(local_s, 1), _rank(local_s)]
    columns += [_rank(windowed(odds_mean_s, 1))]
    columns += _places(sentences, shares_s[0])
    columns += _novelty(question, sentences, rarity)
    columns += list(sentences.cues.T)
    columns += [np.full(num, flag) for flag in question.forms]
    columns += [np.full(num, len(question.stems)), np.full(num, float(len(question.row)))]
    return np.stack(columns, axis=1).astype(np.float32)


def _shares(question: Question, sentences: Sentences, rarity: Rarity) -> list[NDArray[np.float64]]:
    """Weighted shares of the question's words that stand in each sentence, for several weights and kinds of words."""
    stems = question.stems
    found_qs = np.zeros((len(stems), len(sentences)))
    for row, word in enumerate(stems):
        if word in sentences.places:
            found_qs[row, sentences.places[word]] = 1.0
    everywhere = np.array([rarity[word] for word in stems])
    local = np.array([sentences.local_weight(word) for word in stems])
    is_name = np.array([word in question.names for word in stems], bool)
    is_title = np.array([word in sentences.title_stems for word in stems], bool)
    weights = (everywhere, local, local * ~is_name, local * is_name, local * ~is_title, everywhere * is_title)
    shares = [_share(weight, found_qs) for weight in weights]
    pairs = np.zeros(len(sentences))
    for first, second in question.pairs:
        if first in sentences.places and second in sentences.places:
            pairs[np.intersect1d(sentences.places[first], sentences.places[second])] += 1.0
    return [*shares, pairs / max(1, len(stems) - 1)]


def _share(weight_q: NDArray[np.float64], found_qs: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weight_q.sum()
    return np.asarray(weight_q @ found_qs / total) if total > 0.0 else np.zeros(found_qs.shape[1])


def answer_odds(question: Question, sentences: Sentences) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and best log-odds of every sentence's words as answer to this question, both of shape (S,)."""
    sums, best = np.zeros(len(sentences)), np.zeros(len(sentences))
    row = question.row
    for word, numbers in sentences.places.items():
        if (value := row.get(word)) is not None:
            sums[numbers] += value
            if value > 0.0:
                best[numbers] = np.maximum(best[numbers], value)
    return sums / (sentences.num_stems + 2.0), best


def _places(sentences: Sentences, overlap_s: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Where a sentence stands: in the text, in its block, and as seen from the best sentence."""
    num = len(sentences)
    blocks = np.array(sentences.blocks)
    opens = np.r_[True, blocks[1:] != blocks[:-1]]
    best = int(overlap_s.argmax())
    words = np.array([len(stems) for stems in sentences.stems], float)
    return [
        np.arange(num) / num,
        np.minimum(np.arange(num), 20).astype(float),
        np.full(num, np.log1p(num)),
        opens.astype(float),
        np.array(sentences.is_item, float),
        (blocks == blocks[best]).astype(float),
        np.clip(np.arange(num) - best, -10, 10).astype(float),
        np.log1p(words),
        words / max(1.0, words.mean()),
    ]


def _novelty(question: Question, sentences: Sentences, rarity: Rarity) -> list[NDArray[np.float64]]:
    """What a sentence says beside the question's words: how rare and how much."""
    weight, amount = sentences.weights(rarity).copy(), sentences.num_stems.copy()
    for word in question.stems:
        if word in sentences.places:
            weight[sentences.places[word]] -= rarity[word]
            amount[sentences.places[word]] -= 1.0
    return [weight / np.maximum(1.0, amount), amount]


def shifted(values_s: NDArray[np.float64], by: int) -> NDArray[np.float64]:
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


def windowed(values_s: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over the sentences up to `reach` places away."""
    sums = np.r_[0.0, values_s.cumsum()]
    low = np.maximum(0, np.arange(len(values_s)) - reach)
    high = np.minimum(len(values_s), np.arange(len(values_s)) + reach + 1)
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _rank(values_s: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(-values_s, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.minimum(np.arange(len(order)), 20)
    return ranks
