"""What is measured at a whole document, and at the part of it that is given as the answer.

In: a question, `Sentences` and every sentence's chance to answer. Out: one row of numbers, for refusing ("is the
answer in here at all?") or for judging ("is this part of it the answer?").
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations
from fineinstructions.embedded.answers.features import found, shares, windowed
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, Q content words of the question, F features.

WINDOW_SENTENCES = (1, 2, 3, 5)


def document_features(
    question: Question,
    sentences: Sentences,
    rows_sf: NDArray[np.float32],
    chances_s: NDArray[np.float32],
    rarity: Rarity,
    associations: Associations,
) -> NDArray[np.float32]:
    """A row of shape (F,) that says how well a document could answer; the best sentence's own row ends it."""
    best = np.sort(chances_s)[::-1]
    odds_s, mean_odds_s, _ = associations.sentence_odds(question.row, sentences)
    row = [
        *(float(best[k]) if k < len(best) else 0.0 for k in range(3)),
        float(best[:5].mean()),
        float(np.log1p(chances_s.sum())),
        float(chances_s.mean()),
        *_smoothed(chances_s),
        *_found_words(question, sentences, chances_s, rarity),
        *_windows(question, sentences, rarity),
        *_wordings(question, sentences),
        float(odds_s.max()),
        float(odds_s.mean()),
        *_smoothed(odds_s),
        float(mean_odds_s.max()),
        _smoothed(mean_odds_s)[1],
        float(np.log1p(len(sentences))),
        *question.forms,
        float(question.has_clause),
    ]
    return np.concatenate([np.array(row, np.float32), rows_sf[int(chances_s.argmax())]])


def _smoothed(values_s: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Highest mean of three and of seven neighbours."""
    values_1s = values_s.astype(float)[None]
    return float(windowed(values_1s, -1, 1).max()), float(windowed(values_1s, -3, 3).max())


def _found_words(
    question: Question, sentences: Sentences, chances_s: NDArray[np.float32], rarity: Rarity
) -> list[float]:
    """Which words of the question the document has, which it lacks, how often, and which are in the best sentence."""
    stems = question.stems
    weights = [rarity[word] for word in stems]
    total = max(1e-9, sum(weights))
    missing = [w for word, w in zip(stems, weights, strict=True) if word not in sentences.places]
    frequency = [w * sentences.counts[x] / (sentences.counts[x] + 1.2) for x, w in zip(stems, weights, strict=True)]
    rarest = sorted(stems, key=lambda word: -rarity[word])[:2]
    top = int(chances_s.argmax())
    near = frozenset(word for of_one in sentences.sets[max(0, top - 1) : top + 2] for word in of_one)
    words = (frozenset(sentences.places), sentences.sets[top], near)
    return [
        1.0 - sum(missing) / total,
        *(_covered(question, rarity, of_one, names) for of_one in words for names in (True, False)),
        float(len(missing)),
        max(missing, default=0.0),
        sum(missing),
        float(len(stems)),
        float(len(question.names)),
        sum(frequency) / total,
        sum(frequency),
        *(float(min(10, sentences.counts[word])) for word in (*rarest, "", "")[:2]),
        float(sum(word in sentences.title_stems for word in stems)) / max(1, len(stems)),
    ]


def _windows(question: Question, sentences: Sentences, rarity: Rarity) -> list[float]:
    """Largest weighted shares of words that neighbouring sentences hold: of all, of all but names, of the clause."""
    found_qs = found(question, sentences)
    weight_q = np.array([rarity[word] for word in question.stems])
    plain_q = weight_q * np.array([word not in question.names for word in question.stems], bool)
    clause_q = weight_q * np.array([word in question.clause for word in question.stems], bool)
    weights_wq = np.stack([weight_q, plain_q, clause_q, weight_q * weight_q])
    values: list[float] = []
    for size in WINDOW_SENTENCES:
        union_qs = found_qs.copy()
        for by in range(1, min(size, len(sentences))):
            union_qs[:, :-by] = np.maximum(union_qs[:, :-by], found_qs[:, by:])
        values += [*shares(weights_wq, union_qs).max(axis=1).tolist(), float((weight_q @ union_qs).max())]
    return values


def _wordings(question: Question, sentences: Sentences) -> list[float]:
    """Share of the question's neighbouring words that stand together in the document, and in content words too."""
    pairs = dict.fromkeys(f"{a} {b}" for a, b in pairwise(question.words))
    together = sum(pair in sentences.term_places for pair in pairs)
    same = [
        not set(sentences.places[a]).isdisjoint(sentences.places[b])
        for a, b in pairwise(question.stems)
        if a in sentences.places and b in sentences.places
    ]
    return [together / max(1, len(pairs)), float(together), sum(same) / max(1, len(question.stems) - 1)]


def answer_features(
    question: Question,
    sentences: Sentences,
    rows_sf: NDArray[np.float32],
    chances_s: NDArray[np.float32],
    spans: Sequence[tuple[int, int]],
    rarity: Rarity,
    associations: Associations,
) -> NDArray[np.float32]:
    """A row of shape (F,) for one part of a document as the answer; `document_features` are its beginning."""
    inside_s = np.array([any(a < end and start < b for a, b in spans) for start, end in sentences.spans], bool)
    if not inside_s.any():
        inside_s[0] = True
    numbers = np.flatnonzero(inside_s)
    words = frozenset(word for n in numbers for word in sentences.sets[n])
    odds_s, _, _ = associations.sentence_odds(question.row, sentences)
    mine, others = chances_s[inside_s], chances_s[~inside_s]
    length = sum(len(sentences.stems[n]) for n in numbers)
    stems = frozenset(question.stems)
    repeated = [len(sentences.sets[n] & stems) / max(1, len(sentences.sets[n])) for n in numbers]
    row = [
        float(mine.max()),
        float(mine.mean()),
        float(mine[0]),
        float(others.max()) if others.size else 0.0,
        float(mine.max() - others.max()) if others.size else 0.0,
        float(mine.mean() - others.mean()) if others.size else 0.0,
        float(mine.sum() / max(1e-6, chances_s.sum())),
        float((chances_s > mine.max()).mean()),
        float(odds_s[inside_s].mean()),
        float(odds_s[inside_s].mean() - odds_s.mean()),
        float(odds_s[inside_s].mean() - _smoothed(odds_s)[1]),
        float(odds_s[inside_s].max()),
        float(odds_s[numbers[0]]),
        _covered(question, rarity, words, True),
        _covered(question, rarity, words, False),
        _covered(question, rarity, sentences.sets[numbers[0]], False),
        float(np.log1p(length)),
        float(len(numbers)),
        float(numbers[0] / len(sentences)),
        float(numbers[0] == 0),
        float(len(numbers) / len(sentences)),
        max(repeated),
        float(len(words - stems)),
    ]
    whole = document_features(question, sentences, rows_sf, chances_s, rarity, associations)
    return np.concatenate([whole, np.array(row, np.float32)])


def _covered(question: Question, rarity: Rarity, words: frozenset[str], names: bool) -> float:
    """Weighted share of the question's names, or of its other words, that are among some words; 1 where it has none."""
    asked = [word for word in question.stems if (word in question.names) == names]
    total = sum(rarity[word] for word in asked)
    return sum(rarity[word] for word in asked if word in words) / total if total else 1.0
