"""Learning the encoder: passages in, one vector and one weight per word stem out.

Classical all through. Meaning: positive pointwise mutual information between words and frequent words of the same
passage (a heading belongs to every passage below it), factorised by a randomised SVD in numpy. Relations: for each
relation, how much more often a word stands in passages under its headings, or beside its cue words, than elsewhere.
Weight: rare words count more (inverse passage frequency), but a word of a relation never counts little.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.encoder import NUM_BUCKETS, token_key, word_spans
from fineinstructions.embedded.relation_words import RELATIONS

# Shape legend: N passages, V vocabulary, C context words, R relations, M directions of meaning, D = M + R.

MEANING_DIMENSIONS = 128
MAX_VOCABULARY = 36_000
MAX_CONTEXTS = 3_000
MIN_PASSAGES = 4
PASSAGE_WORDS = 120
MAX_PASSAGES_PER_DOCUMENT = 24
HEADING_REPEATS = 2
RELATION_SHARE = 0.8
"""Length of the relation part of a relation word against its meaning part."""
RELATION_SMOOTHING = 1e-3
POWER_ITERATIONS = 3
SEED = 20260122

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """A run of a document's words under one heading, as look-up keys."""

    keys: tuple[str, ...]
    heading: tuple[str, ...]


def passages(title: str, text: str) -> list[Passage]:
    """Cut a document at its headings, and every section into runs of `PASSAGE_WORDS`.

    Args:
        title: The document's title; it heads what stands before the first heading.
        text: The document's text, Markdown headings marked.
    """
    found = []
    marks = [(0, 0, title), *((m.start(), m.end(), m.group(1)) for m in _HEADING.finditer(text))]
    for (_, start, heading), following in zip(marks, [*marks[1:], (len(text), 0, "")], strict=True):
        keys = [token_key(word) for word, _, _ in word_spans(text[start : following[0]])]
        head = tuple(token_key(word) for word, _, _ in word_spans(heading)) if start else ()
        starts = range(0, len(keys), PASSAGE_WORDS)
        found += [Passage(tuple(keys[position : position + PASSAGE_WORDS]), head) for position in starts]
    return found[:MAX_PASSAGES_PER_DOCUMENT]


@dataclass(frozen=True)
class LearnedEncoder:
    """Look-up keys and their weighted vectors."""

    keys: list[str]
    vectors: NDArray[np.float32]
    """Shape (V, D), weight included."""


def learn_encoder(corpus: Sequence[Passage], extra_words: Iterable[str]) -> LearnedEncoder:
    """Learn word vectors from passages.

    Args:
        corpus: Passages of all documents.
        extra_words: Further texts' words (queries), which only help to choose the vocabulary.

    Returns:
        The encoder's table, rows in the order of falling passage frequency.
    """
    frequency = Counter(key for p in corpus for key in {*p.keys, *p.heading})
    frequency.update(k for k, n in Counter(map(token_key, extra_words)).items() if n >= MIN_PASSAGES and k in frequency)
    forced = {token_key(w) for r in RELATIONS.values() for w in (*r.heads, *r.cues)}
    ranked = sorted({*frequency, *forced}, key=lambda k: (k not in forced, -frequency[k], k))
    keys = [k for k in ranked if frequency[k] >= MIN_PASSAGES or k in forced][:MAX_VOCABULARY]
    keys.sort(key=lambda k: (-frequency[k], k))
    number = {key: i for i, key in enumerate(keys)}
    pairs_vc, relations_vr, totals_r, passages_v = _count(corpus, number)
    meaning_vm = _meaning(pairs_vc)
    relation_vr = _relation_part(keys, relations_vr, totals_r, passages_v, len(corpus))
    occurrences = np.zeros(len(keys))
    for passage in corpus:
        for key in passage.keys:
            row = number.get(key)
            if row is not None:
                occurrences[row] += 1
    probability = occurrences / max(1.0, occurrences.sum())
    rarity = np.log1p(len(corpus) / (1.0 + passages_v))
    weight = rarity / rarity.max()
    strength = np.clip(relation_vr.max(axis=1), 0.0, 1.0)
    weight += (1.0 - weight) * 0.7 * strength * RELATION_SMOOTHING / (RELATION_SMOOTHING + probability)
    centre = (probability[:, None] * weight[:, None] * meaning_vm).sum(axis=0) / (probability * weight).sum()
    meaning_vm = meaning_vm - centre
    meaning_vm /= np.maximum(np.linalg.norm(meaning_vm, axis=1, keepdims=True), 1e-9)
    relation_centre = (probability[:, None] * weight[:, None] * relation_vr).sum(axis=0) / (probability * weight).sum()
    vectors = np.hstack([meaning_vm, RELATION_SHARE * (relation_vr - 0.7 * relation_centre)]) * weight[:, None]
    return _with_buckets(keys, vectors.astype(np.float32))


def _count(
    corpus: Sequence[Passage], number: dict[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Co-occurrence (V, C), presence under each relation (V, R), passages per relation (R), passages per word (V)."""
    names = list(RELATIONS)
    num_contexts = min(MAX_CONTEXTS, len(number))
    pairs_vc = np.zeros((len(number), num_contexts), np.float32)
    under_vr = np.zeros((len(number), len(names)))
    totals_r = np.zeros(len(names))
    passages_v = np.zeros(len(number))
    heads = [{token_key(w) for w in RELATIONS[n].heads} for n in names]
    for passage in corpus:
        counted = Counter(number[k] for k in passage.keys if k in number)
        headed = [number[k] for k in passage.heading if k in number]
        for row in headed:
            counted[row] += HEADING_REPEATS
        if not counted:
            continue
        rows = np.fromiter(sorted(counted), np.int64)
        values = np.sqrt(np.array([counted[int(r)] for r in rows], np.float32))
        contexts = rows < num_contexts
        columns = rows[contexts]
        pairs_vc[rows[:, None], columns[None, :]] += values[:, None] * values[contexts][None, :]
        passages_v[rows] += 1
        for r, words in enumerate(heads):
            if not words.isdisjoint(passage.heading):
                under_vr[rows, r] += 1
                totals_r[r] += 1
    return pairs_vc, under_vr, totals_r, passages_v


def _meaning(pairs_vc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Directions of meaning: randomised SVD of shifted, smoothed PPMI; destroys its argument."""
    total = float(pairs_vc.sum(dtype=np.float64))
    row_v = pairs_vc.sum(axis=1, dtype=np.float64)
    column_c = pairs_vc.sum(axis=0, dtype=np.float64) ** 0.75
    column_c *= total / column_c.sum()
    for start in range(0, len(pairs_vc), 1000):
        block = pairs_vc[start : start + 1000]
        expected = np.outer(row_v[start : start + 1000], column_c) / total
        with np.errstate(divide="ignore", invalid="ignore"):
            ppmi = np.log((block + 0.0) / np.maximum(expected, 1e-9))
        block[:] = np.nan_to_num(np.maximum(ppmi, 0.0), nan=0.0, posinf=0.0).astype(np.float32)
    generator = np.random.Generator(np.random.PCG64(SEED))
    size = MEANING_DIMENSIONS + 16
    basis = generator.standard_normal((pairs_vc.shape[1], min(size, pairs_vc.shape[1]))).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        left, _ = np.linalg.qr(pairs_vc @ basis)
        basis, _ = np.linalg.qr(pairs_vc.T @ left)
    projected = pairs_vc @ basis
    left, singular, _ = np.linalg.svd(projected.astype(np.float64), full_matrices=False)
    vectors = left[:, :MEANING_DIMENSIONS] * np.sqrt(singular[:MEANING_DIMENSIONS])
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    vectors *= np.where(signs == 0, 1.0, signs)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9))


def _relation_part(
    keys: Sequence[str],
    under_vr: NDArray[np.float64],
    totals_r: NDArray[np.float64],
    passages_v: NDArray[np.float64],
    num_passages: int,
) -> NDArray[np.float64]:
    """How much each word speaks for each relation, 0 to 1; the words that ask for a relation have 1."""
    background = (passages_v[:, None] + 1.0) / (num_passages + 2.0)
    under = (under_vr + 5.0 * background) / (totals_r[None, :] + 5.0)
    gain = np.log(under / background)
    loading = np.clip(gain / math.log(12.0), 0.0, 1.0) * 0.6
    loading[:, totals_r < 20] = 0.0
    loading[under_vr < 5] = 0.0
    loading[loading < 0.2] = 0.0
    # A word speaks for at most its three strongest relations.
    third = np.sort(loading, axis=1)[:, -3][:, None]
    loading[loading < third] = 0.0
    number = {key: i for i, key in enumerate(keys)}
    for r, name in enumerate(RELATIONS):
        for word in RELATIONS[name].cues:
            row = number[token_key(word)]
            loading[row, r] = max(loading[row, r], 0.5)
        for word in RELATIONS[name].heads:
            loading[number[token_key(word)], r] = 1.0
    lengths = np.linalg.norm(loading, axis=1, keepdims=True)
    return np.asarray(np.where(lengths > 1.0, loading / np.maximum(lengths, 1e-9), loading))


def _with_buckets(keys: list[str], vectors: NDArray[np.float32]) -> LearnedEncoder:
    """Add rows of random directions, as long as the longest words', for words outside the vocabulary."""
    generator = np.random.Generator(np.random.PCG64(SEED + 1))
    width = vectors.shape[1]
    random = generator.standard_normal((NUM_BUCKETS, min(width, MEANING_DIMENSIONS))).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    random *= np.quantile(np.linalg.norm(vectors, axis=1), 0.9) if len(vectors) else 1.0
    rows = np.zeros((NUM_BUCKETS, width), np.float32)
    rows[:, : random.shape[1]] = random
    return LearnedEncoder([*keys, *(f"#{number}" for number in range(NUM_BUCKETS))], np.vstack([vectors, rows]))


def quantised(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as signed bytes, and the scale of each row, shape (V, 1)."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    return np.round(vectors / largest * 127.0).astype(np.int8), (largest / 127.0).astype(np.float32)
