"""What is measured at a whole document, and at the part of it that is given as the answer.

In: a question, `Sentences` and every sentence's chance to answer. Out: one row of numbers, for refusing ("is the
answer in here at all?") or for judging ("is this part of it the answer?").
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.features import answer_odds, windowed
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.question import Question
from fineinstructions.embedded.answers.sentences import Sentences

# Shape legend: S sentences, F features.


def document_features(
    question: Question, sentences: Sentences, chances_s: NDArray[np.float32], rarity: Rarity
) -> NDArray[np.float32]:
    """A row of shape (F,) that says how well a document could answer a question."""
    stems = question.stems
    weights = [rarity[word] for word in stems]
    total = max(1e-9, sum(weights))
    present = [word in sentences.places for word in stems]
    missing = [w for w, here in zip(weights, present, strict=True) if not here]
    best = np.sort(chances_s)[::-1]
    odds_s, _ = answer_odds(question, sentences)
    rarest = max(stems, key=lambda word: rarity[word], default="")
    frequency = [w * sentences.counts[x] / (sentences.counts[x] + 1.2) for x, w in zip(stems, weights, strict=True)]
    top = int(chances_s.argmax())
    row = [
        *(float(best[k]) if k < len(best) else 0.0 for k in range(3)),
        float(best[:5].mean()),
        float(np.log1p(chances_s.sum())),
        float(chances_s.mean()),
        float(windowed(chances_s.astype(float), 1).max()),
        float(windowed(chances_s.astype(float), 3).max()),
        *(_best_window(question, sentences, rarity, size) for size in (1, 2, 3, 5)),
        sum(w for w, here in zip(weights, present, strict=True) if here) / total,
        _covered(question, rarity, frozenset(sentences.places), True),
        _covered(question, rarity, frozenset(sentences.places), False),
        _covered(question, rarity, sentences.sets[top], True),
        _covered(question, rarity, sentences.sets[top], False),
        float(len(missing)),
        max(missing, default=0.0),
        float(len(stems)),
        sum(frequency) / total,
        sum(frequency),
        float(min(10, sentences.counts[rarest])),
        float(odds_s.max()),
        float(odds_s.mean()),
        float(windowed(odds_s, 1).max()),
        float(windowed(odds_s, 3).max()),
        float(np.log1p(len(sentences))),
        float(sum(word in sentences.title_stems for word in stems)) / max(1, len(stems)),
        *question.forms,
    ]
    return np.array(row, np.float32)


def answer_features(
    question: Question,
    sentences: Sentences,
    chances_s: NDArray[np.float32],
    spans: Sequence[tuple[int, int]],
    rarity: Rarity,
) -> NDArray[np.float32]:
    """A row of shape (F,) for one part of a document as the answer; `document_features` are its beginning."""
    inside_s = np.array([any(a < end and start < b for a, b in spans) for start, end in sentences.spans], bool)
    if not inside_s.any():
        inside_s[0] = True
    numbers = np.flatnonzero(inside_s)
    words = frozenset(word for n in numbers for word in sentences.sets[n])
    odds_s, _ = answer_odds(question, sentences)
    smooth_s = windowed(odds_s, 3)
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
        float(odds_s[inside_s].mean() - smooth_s.max()),
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
    whole = document_features(question, sentences, chances_s, rarity)
    return np.concatenate([whole, np.array(row, np.float32)])


def _covered(question: Question, rarity: Rarity, words: frozenset[str], names: bool) -> float:
    """Weighted share of the question's names, or of its other words, that are among some words; 1 where it has none."""
    asked = [word for word in question.stems if (word in question.names) == names]
    total = sum(rarity[word] for word in asked)
    return sum(rarity[word] for word in asked if word in words) / total if total else 1.0


def _best_window(question: Question, sentences: Sentences, rarity: Rarity, size: int) -> float:
    """Largest weighted share of the question's words that some neighbouring sentences hold together."""
    num = len(sentences)
    total, sums_s = 0.0, np.zeros(max(1, num - size + 1))
    for word in question.stems:
        total += rarity[word]
        inside_s = np.zeros(len(sums_s), bool)
        for place in sentences.places[word].tolist() if word in sentences.places else ():
            inside_s[max(0, place - size + 1) : place + 1] = True
        sums_s += rarity[word] * inside_s
    return float(sums_s.max() / total) if total else 0.0
