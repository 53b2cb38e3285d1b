"""Trees that rank the texts which a question may have been written for, by several kinds of evidence at once.

In: questions, texts, and two rankings of them. Out: a score for each question and each of its first texts. Beside the
two rankings, the nearest part's cosine and lexical and encoder added up, the trees see: what the texts that are likest
to a text score, BM25 over all words, over pairs of neighbouring words and over the best three sentences, how near the
words of a text come to each of the question's, and how long the text is. Each is given as it is, as the gap to the
question's best, and as a rank. The decision to question: a few hundred questions are enough to learn from, those whose
stories, pages and meetings the encoder has not learned from, because its cosine flatters all others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import content_stems, lemma
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.bags import bags
from fineinstructions.embedded.encoder import EmbeddedEncoder, word_spans
from fineinstructions.embedded.words import FUNCTION_WORDS, tokenize

# Shape legend: Q questions, N texts, V terms, R rows (a question with one of its first texts), F features.

FIRST = 100
"""So many texts of a question are ranked again, the first by lexical and encoder added up; ours."""
LIKEST = 10
"""So many of the texts likest to a text share in what it is worth, more where the last score alike; ours."""
SENTENCES = 3
"""So many neighbouring sentences are scored together; ours."""
WORDS_K1, WORDS_B = 0.9, 0.6
"""BM25's k1 and b over all words and over pairs of them; ours."""
SENTENCES_K1, SENTENCES_B = 0.3, 0.3
"""BM25's k1 and b over neighbouring sentences; ours."""
SETTINGS = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 15,
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 50,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
    "seed": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
"""LightGBM's parameters: small trees, and the same ones from the same rows; ours."""
NUM_TREES = 200
"""So many trees are added up; ours."""
FOLDS = 4
"""So many times trees are learned by `crossed`, each time without one part of the groups; ours."""

Scores = NDArray[np.float32]
"""Shape (Q, N)."""


@dataclass(frozen=True)
class Candidates:
    """Questions, the texts that may be theirs, and what the evidence is taken from."""

    questions: Sequence[str]
    texts: Sequence[str]
    fused: NDArray[np.float64]
    """Lexical scores and cosines added up, shape (Q, N)."""
    nearest: NDArray[np.float64]
    """Cosines with the nearest part of each text, shape (Q, N)."""
    encoder: EmbeddedEncoder
    """Gives the words' vectors."""
    trusted: Mapping[str, float]
    """How much a question's word counts, 1 where it is not named."""


@dataclass(frozen=True)
class Ranked:
    """What the trees see of a pool's questions and their first texts."""

    rows: NDArray[np.float32]
    """Shape (R, F); the rows of one question stand together, questions in order."""
    question: NDArray[np.int64]
    """Question of every row, shape (R,)."""
    text: NDArray[np.int64]
    """Text of every row, shape (R,)."""
    right: NDArray[np.int64]
    """The text that each question was written for, shape (Q,)."""
    shape: tuple[int, int]
    """Questions and texts."""

    def belongs_to(self, chosen_q: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a row's question is one of the chosen."""
        return chosen_q[self.question]

    def is_right(self) -> NDArray[np.bool_]:
        """Whether a row's text is the one that its question was written for."""
        return np.asarray(self.text == self.right[self.question])


def ranked(candidates: Candidates, right: NDArray[np.int64]) -> Ranked:
    """Measure the first texts of every question.

    Args:
        candidates: Questions and texts.
        right: The text that each question was written for, shape (Q,).
    """
    fused, texts = candidates.fused, candidates.texts
    first = np.argpartition(-fused, min(FIRST, len(texts)) - 1, axis=1)[:, :FIRST]
    question = np.repeat(np.arange(len(candidates.questions)), first.shape[1])
    text = np.sort(first, axis=1).ravel()
    columns = [np.log(np.array([len(_words(one)) + 1.0 for one in texts]))[text]]
    for scores in kinds_of_evidence(candidates):
        value = scores[question, text]
        columns += [value, value - scores.max(axis=1)[question], np.log1p(_ranks(scores)[question, text])]
    return Ranked(np.stack(columns, axis=1).astype(np.float32), question, text, right, fused.shape)


def kinds_of_evidence(candidates: Candidates) -> Iterator[NDArray[Any]]:
    """Scores by each kind of evidence, shape (Q, N)."""
    asked, texts, trusted = candidates.questions, candidates.texts, candidates.trusted
    stems = [content_stems(text) for text in texts]
    stems_asked = [content_stems(question) for question in asked]
    yield candidates.fused
    yield candidates.nearest
    yield candidates.fused @ likest(stems).T
    for terms in (_words, _pairs):
        yield bm25([terms(question) for question in asked], [terms(text) for text in texts], WORDS_K1, WORDS_B)
    yield best_sentences(stems_asked, texts, trusted)
    yield nearest_words(asked, texts, candidates.encoder, _weights(stems, trusted))


def bm25(
    asked: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
    k1: float,
    b: float,
    trusted: Mapping[str, float] | None = None,
) -> Scores:
    """BM25 over any terms, with any b; the package's own, `Bm25`, is over the stems of texts, with one b.

    Args:
        asked: Terms of every question; one that stands twice counts twice.
        texts: Terms of every text.
        k1: How much a term's further occurrences in a text count.
        b: How much a long text loses.
        trusted: How much a question's term counts, 1 where it is not named.
    """
    place = _places(texts)
    counts, question = _counts(texts, place), _counts(asked, place)
    if trusted is not None:
        question = question.multiply(np.array([trusted.get(term, 1.0) for term in place])).tocsr()
    weight = _rarity(counts)
    lengths = np.array([len(text) for text in texts], float)
    norm = k1 * (1.0 - b + b * lengths / max(1.0, lengths.mean()))
    norm = np.repeat(norm, np.diff(counts.indptr))
    counts.data = (weight[counts.indices] * counts.data * (k1 + 1.0) / (counts.data + norm)).astype(np.float32)
    return np.asarray((question @ counts.T).toarray(), np.float32)


def best_sentences(
    asked: Sequence[Sequence[str]], texts: Sequence[str], trusted: Mapping[str, float]
) -> NDArray[np.float32]:
    """BM25 of the best `SENTENCES` neighbouring sentences of each text, shape (Q, N)."""
    runs: list[list[str]] = []
    starts = []
    for text in texts:
        starts.append(len(runs))
        runs += _runs(Sentences(text).stems)
    scores = bm25(asked, runs, SENTENCES_K1, SENTENCES_B, trusted)
    return np.asarray(np.maximum.reduceat(scores, starts, axis=1))


def _runs(stems: Sequence[Sequence[str]]) -> list[list[str]]:
    """Words of every `SENTENCES` neighbouring sentences, of all where there are fewer."""
    starts = range(max(1, len(stems) - SENTENCES + 1))
    return [[word for sentence in stems[k : k + SENTENCES] for word in sentence] for k in starts]


def likest(stems: Sequence[Sequence[str]]) -> Scores:
    """Shares of the `LIKEST` texts nearest to each text by tf-idf, a row for each, shape (N, N)."""
    counts = _counts(stems, _places(stems))
    counts.data *= _rarity(counts)[counts.indices].astype(np.float32)
    like = (counts @ counts.T).toarray()
    lengths = np.sqrt(np.maximum(np.diagonal(like), 1e-9))
    like /= lengths[:, None] * lengths[None, :]
    np.fill_diagonal(like, 0.0)
    if len(stems) > LIKEST:
        like[like < np.partition(like, -LIKEST, axis=1)[:, -LIKEST, None]] = 0.0
    return np.asarray(like / np.maximum(like.sum(axis=1, keepdims=True), 1e-9), np.float32)


def nearest_words(
    asked: Sequence[str], texts: Sequence[str], encoder: EmbeddedEncoder, weights: Mapping[str, float]
) -> Scores:
    """Cosine of each question word with the nearest word of a text, weighed by `weights` (of stems), shape (Q, N)."""
    words = sorted({word for question in asked for word in _content(question)})
    held = [sorted({word for word, _, _ in word_spans(text)}) or [""] for text in texts]
    place = _places(held)
    columns = np.concatenate([[place[word] for word in text] for text in held])
    starts = np.cumsum([0, *(len(text) for text in held)])[:-1]
    cosines = encoder.encode_texts(words) @ encoder.encode_texts(list(place)).T
    near = np.concatenate([np.maximum.reduceat(cosine[None, columns], starts, axis=1) for cosine in cosines])
    unseen = max(weights.values(), default=1.0)
    weight = np.array([weights.get(lemma(word), unseen) for word in words])
    row = {word: number for number, word in enumerate(words)}
    scores = np.zeros((len(asked), len(texts)), np.float32)
    for number, question in enumerate(asked):
        if mine := [row[word] for word in dict.fromkeys(_content(question))]:
            scores[number] = weight[mine] @ near[mine] / weight[mine].sum()
    return scores


def _weights(stems: Sequence[Sequence[str]], trusted: Mapping[str, float]) -> dict[str, float]:
    """Rarity of every stem among the texts, times its trust."""
    place = _places(stems)
    rarity = _rarity(_counts(stems, place))
    return {word: float(rarity[column]) * trusted.get(word, 1.0) for word, column in place.items()}


def _places(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Column of every term that the texts hold."""
    return {term: column for column, term in enumerate(sorted({term for text in texts for term in text}))}


def _counts(texts: Sequence[Sequence[str]], place: Mapping[str, int]) -> Any:
    """How often each text holds each term of `place`, a sparse matrix of shape (N, V)."""
    return bags([np.array([place[term] for term in text if term in place], np.int32) for text in texts], len(place))


def _rarity(counts: Any) -> NDArray[np.float64]:
    """BM25's weight of every term, shape (V,): the fewer texts hold it, the more."""
    held = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.asarray(np.log(1.0 + (counts.shape[0] - held + 0.5) / (held + 0.5)))


@cache
def _words(text: str) -> list[str]:
    return [token.text for token in tokenize(text) if token.text[0].isalnum()]


def _pairs(text: str) -> list[str]:
    return [f"{a} {b}" for a, b in pairwise(map(lemma, _words(text)))]


def _content(text: str) -> list[str]:
    return [word for word in _words(text) if word not in FUNCTION_WORDS]


def _ranks(scores: NDArray[Any]) -> NDArray[np.int64]:
    ranks = np.empty(scores.shape, np.int64)
    np.put_along_axis(ranks, np.argsort(-scores, axis=1, kind="stable"), np.arange(scores.shape[1])[None, :], axis=1)
    return ranks


class LearnedRanking:
    """Trees learned from ranked questions; a question whose text is not among its first teaches nothing.

    Args:
        pools: What to learn from.
        chosen: Which questions of each pool, all where it is not given.
    """

    def __init__(self, pools: Sequence[Ranked], chosen: Sequence[NDArray[np.bool_]] | None = None) -> None:
        rows, labels, sizes = [], [], []
        for number, pool in enumerate(pools):
            is_right = pool.is_right()
            teaches = np.bincount(pool.question, is_right, pool.shape[0]) > 0
            if chosen is not None:
                teaches &= chosen[number]
            mine = pool.belongs_to(teaches)
            rows.append(pool.rows[mine])
            labels.append(is_right[mine])
            sizes.append(np.bincount(pool.question, minlength=pool.shape[0])[teaches])
        table = lightgbm.Dataset(np.concatenate(rows), np.concatenate(labels).astype(int), group=np.concatenate(sizes))
        self._trees = lightgbm.train(SETTINGS, table, NUM_TREES)

    def scores(self, pool: Ranked) -> NDArray[np.float64]:
        """Score of every text, shape (Q, N); of those that are not among the first, minus infinity."""
        scores = np.full(pool.shape, -np.inf)
        scores[pool.question, pool.text] = self._trees.predict(pool.rows)
        return scores


def crossed(pools: Sequence[Ranked], groups: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
    """Scores of questions by trees that learned from other groups.

    Args:
        pools: What to learn from and to score.
        groups: Story, page or meeting of every question, for each pool.
    """
    names = sorted({group for of_pool in groups for group in of_pool})
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    folds = [np.array([fold[group] for group in of_pool]) for of_pool in groups]
    scores = [np.full(pool.shape, -np.inf) for pool in pools]
    for number in range(FOLDS):
        trees = LearnedRanking(pools, [fold_q != number for fold_q in folds])
        for pool, fold_q, found in zip(pools, folds, scores, strict=True):
            found[fold_q == number] = trees.scores(pool)[fold_q == number]
    return scores
