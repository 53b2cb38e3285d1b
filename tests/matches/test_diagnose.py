"""The diagnosis of a corpus, against figures worked out one document at a time."""

import numpy as np
import pytest
from drawn_bank import candidates
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.matches.candidates import candidate_table
from fineinstructions.matches.diagnose import Diagnoser, skewness

found_pairs = st.lists(st.tuples(st.integers(0, 11), st.integers(-1, 2)), min_size=1, max_size=30, unique=True)


def diagnosis_of(documents, marks, num_documents, cut=3):
    items = [candidates([r for r, _ in sorted(pairs)], [c for _, c in sorted(pairs)]) for pairs in documents]
    diagnoser = Diagnoser(np.arange(12) % 4, 3, (1, 1, 2))
    counts = np.zeros(12, np.int64)
    for start in range(0, len(items), cut):
        part = items[start : start + cut]
        sampled = np.concatenate(
            [np.empty(0, np.bool_), *(mark[: len(i.rows)] for i, mark in zip(part, marks[start:], strict=False))]
        )
        diagnoser.add(candidate_table(part), sampled)
    for item in items:
        counts[np.unique(item.rows)] += 1
    return diagnoser.diagnosis(num_documents, counts), items, counts


@given(st.lists(found_pairs, max_size=7), st.integers(0, 3), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_a_slow_count(documents, num_without, cut, seed):
    chance = np.random.default_rng(seed)
    marks = [chance.random(40) < 0.3 for _ in documents]
    total = len(documents) + num_without
    found, items, counts = diagnosis_of(documents, marks, total, cut)
    sizes = sorted(len(item.rows) for item in items)
    assert found.num_documents == total
    assert found.without_candidate_share == pytest.approx(num_without / max(total, 1))
    assert found.candidates_mean == pytest.approx(np.mean(sizes) if sizes else 0)
    for share, value in ((0.05, found.candidates_p5), (0.5, found.candidates_p50), (0.95, found.candidates_p95)):
        assert value == (min(s for s in sizes if sum(t <= s for t in sizes) >= share * len(sizes)) if sizes else 0)
    chosen = [
        (int(r), int(c))
        for i, m in zip(items, marks, strict=True)
        for r, c, k in zip(i.rows, i.chunks, m, strict=False)
        if k
    ]
    assert found.num_sampled == len(chosen)
    for vector in found.vectors:
        assert vector.num_sampled == sum(chunk == vector.chunk for _, chunk in chosen)
        assert vector.found_share * max(total, 1) == pytest.approx(sum(vector.chunk in i.chunks for i in items))
    assert [vector.chunk for vector in found.vectors] == [-1, 0, 1, 2]
    assert found.all_vectors_share * max(total, 1) == pytest.approx(sum(set(i.chunks) == {-1, 0, 1, 2} for i in items))
    assert [s.num_sampled for s in found.slots] == [sum(min(r % 4, 2) == n for r, _ in chosen) for n in range(3)]
    assert [s.num_found for s in found.slots] == [
        sum(min(r % 4, 2) == n for item in items for r in set(item.rows.tolist())) for n in range(3)
    ]
    assert [s.target_share for s in found.slots] == [0.25, 0.25, 0.5]
    assert [s.bank_share for s in found.slots] == [0.25, 0.25, 0.5]
    assert found.num_never_retrieved == sum(counts == 0)
    assert found.num_never_sampled == 12 - len({row for row, _ in chosen})
    assert [h.num_documents for h in found.hubs] == sorted(counts[counts > 0], reverse=True)
    assert [h.num_sampled for h in found.hubs] == [sum(row == h.row for row, _ in chosen) for h in found.hubs]
    assert found.top_percent_share == pytest.approx(counts.max() / max(counts.sum(), 1))


def test_an_empty_run_has_figures_too():
    found, _, _ = diagnosis_of([], [], 0)
    assert (found.num_documents, found.without_candidate_share, found.candidates_p95) == (0, 0.0, 0)
    assert found.hubs == ()
    assert found.skewness == 0.0


def test_skewness_tells_hubs_from_an_even_spread():
    even, hubs = np.full(1000, 10), np.concatenate([np.full(990, 5), np.full(10, 500)])
    assert skewness(even) == 0.0
    assert skewness(hubs) > 5
    values = np.array([1, 2, 2, 5, 9])
    assert skewness(values) == pytest.approx(((values - values.mean()) ** 3).mean() / values.std() ** 3)
