"""Popularity: counted once per document, and turned into factors and chances that hold what they promise."""

import numpy as np
import pytest
from drawn_bank import CHI_SQUARE_99_9, bank, candidates, chi_square
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.matches import popularity as popularity_module
from fineinstructions.matches.candidates import (
    Candidates,
    candidate_table,
    match_table,
    read_candidates,
)
from fineinstructions.matches.popularity import (
    add_documents,
    find_chances,
    log_damping,
    open_counts,
    open_popularity,
    pilot,
    save_popularity,
)
from fineinstructions.matches.sample import Popularity, SampleConfig, Sampler, sample
from fineinstructions.records import Match, schema_of

TARGET = (0.1, 0.4, 0.3, 0.2)


def corpus(num_documents: int, num_templates: int, per_document: int, skew: float = 1.0) -> list[Candidates]:
    """Documents that find templates on six vectors, the first templates of the bank far more often than the last."""
    rng = np.random.default_rng(7)
    chances = 1 / (10 + np.arange(num_templates)) ** skew
    found = []
    for number in range(num_documents):
        rows = rng.choice(num_templates, per_document, replace=False, p=chances / chances.sum())
        found.append(candidates(rows, np.sort(rng.integers(-1, 5, per_document)), document_id=f"d{number}"))
    return found


def counts_of(items: list[Candidates], num_templates: int) -> np.ndarray:
    counts = np.zeros(num_templates, np.int64)
    add_documents(counts, candidate_table(items))
    return counts


def known(items: list[Candidates], index, config: SampleConfig, seed: int = 1) -> Popularity:
    log_weights = log_damping(counts_of(items, len(index.keys)), config)
    batches = pilot(items, len(items), seed)
    return Popularity(log_weights, find_chances(batches, index, config, seed, log_weights))


def shares(items: list[Candidates], sampler: Sampler, num_templates: int) -> np.ndarray:
    rows = np.concatenate([c.rows[c.sampled] for c in sample(items, sampler)])
    return np.bincount(rows, minlength=num_templates) / len(rows)


found_pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 4)), min_size=1, max_size=30, unique=True)


@given(st.lists(found_pairs, max_size=6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_documents_are_counted_once_however_they_are_cut_into_tables(documents, cut):
    items = [candidates([r for r, _ in pairs], [c for _, c in pairs]) for pairs in documents]
    counts = np.zeros(10, np.int64)
    number = sum(add_documents(counts, candidate_table(items[i : i + cut])) for i in range(0, len(items), cut))
    assert number == len(items)
    assert counts.tolist() == [sum(row in {r for r, _ in pairs} for pairs in documents) for row in range(10)]


@given(st.lists(found_pairs, max_size=4))
@settings(max_examples=40, deadline=None)
def test_stored_candidates_come_back(documents):
    items = [candidates([r for r, _ in p], [c for _, c in p], document_id=f"d{i}") for i, p in enumerate(documents)]
    index = bank([1] * 10)
    table = candidate_table(items)
    for before, after in zip(items, read_candidates(table), strict=True):
        assert before.document_id == after.document_id
        assert before.matches(index) == after.matches(index)
    assert match_table(items, index).schema == schema_of(Match)
    assert match_table(items, index).num_rows == sum(len(item.rows) for item in items)


def test_damping_is_a_power_of_the_count_within_limits():
    counts = np.array([0, 1, 4, 5, 30, 1_000_000])
    config = SampleConfig(hubness_damping=0.5)
    typical = counts[1:].mean()
    factors = np.exp(log_damping(counts, config))
    np.testing.assert_allclose(factors[[1, 2, 3]], np.minimum((counts[[1, 2, 3]] / typical) ** -0.5, 20.0))
    assert factors[0] == factors[1]
    assert factors.min() == pytest.approx(0.05) or factors.min() >= 0.05
    assert log_damping(counts, SampleConfig()) is None
    assert np.exp(log_damping(np.zeros(3, np.int64), config)).tolist() == [1, 1, 1]


def test_damping_gives_rare_templates_a_turn():
    index, items = bank([1] * 300), corpus(1000, 300, 30)
    distinct, top = [], []
    for gamma in (0.0, 0.5, 1.0):
        config = SampleConfig(hubness_damping=gamma)
        drawn = shares(items, Sampler(index, config, 1, known(items, index, config)), 300)
        distinct.append(int(np.count_nonzero(drawn)))
        top.append(drawn.max())
    assert top[0] > 1.5 * top[1] > 1.5 * top[2]
    assert distinct[0] <= distinct[1] <= distinct[2]


@pytest.mark.parametrize(
    "changes", [{}, {"hubness_damping": 1.0}, {"max_sampled_share": 0.002}], ids=["off", "damped", "limited"]
)
def test_drawn_slot_counts_follow_the_target_whatever_is_done_about_popularity(changes):
    """Acceptance check 4 of method.md, where popularity and the number of slots have nothing to do with each other."""
    rng = np.random.default_rng(2)
    index = bank(rng.choice(6, 4000, p=np.arange(6, 0, -1) / 21))
    config = SampleConfig(target=TARGET, templates_per_document=2, **changes)
    items = corpus(1500, 4000, 200, skew=0.5)
    sampler = Sampler(index, config, 5, known(items, index, config, 5))
    slots = np.concatenate([index.num_slots[c.rows[c.sampled]] for c in sample(items, sampler)])
    observed = np.bincount(np.minimum(slots, 3), minlength=4)
    assert chi_square(observed, np.array(TARGET) * observed.sum()) < CHI_SQUARE_99_9[3]


def test_the_limit_holds_in_expectation():
    index, items = bank(np.arange(200) % 8), corpus(800, 200, 40)
    config = SampleConfig(max_sampled_share=0.012)
    free = np.mean([shares(items, Sampler(index, SampleConfig(), seed), 200) for seed in range(12)], axis=0)
    limited = known(items, index, config)
    drawn = np.mean([shares(items, Sampler(index, config, seed, limited), 200) for seed in range(12)], axis=0)
    assert free.max() > 2 * 0.012
    # 12 draws of 4,800 matches: a share of 0.012 has a standard error of 0.0005.
    assert drawn.max() < 0.012 + 3.5 * 0.0005
    assert np.count_nonzero(drawn > 0.8 * 0.012) > 20  # held at the limit, not far below it
    assert (limited.chances[free < 0.9 * 0.012] > 0.6).all()  # who was below stays free, or nearly so


def test_a_limit_that_is_never_reached_changes_nothing():
    index, items = bank([1] * 100), corpus(200, 100, 20)
    config = SampleConfig(max_sampled_share=0.5)
    limited = known(items, index, config)
    assert (limited.chances == 1).all()
    for one, other in zip(
        sample(items, Sampler(index, config, 1, limited)), sample(items, Sampler(index, SampleConfig(), 1)), strict=True
    ):
        assert (one.sampled == other.sampled).all()


def test_a_limit_that_cannot_hold_is_refused():
    index, items = bank([1] * 100), corpus(200, 20, 10)
    with pytest.raises(
        ConfigError, match=r"in a sample of 200 documents 20 templates .* cannot be below 0\.05; raise it"
    ):
        known(items, index, SampleConfig(max_sampled_share=0.04))
    assert (known([], index, SampleConfig(max_sampled_share=0.04)).chances == 1).all()


@given(st.randoms(use_true_random=False))
@settings(max_examples=3, deadline=None)
def test_the_order_of_documents_does_not_matter(chance):
    index, items = bank(np.arange(60) % 5), corpus(150, 60, 12)
    shuffled = items.copy()
    chance.shuffle(shuffled)
    config = SampleConfig(hubness_damping=0.7, max_sampled_share=0.03)
    outcomes = []
    for order in (items, shuffled):
        drawn = sample(order, Sampler(index, config, 1, known(order, index, config)))
        outcomes.append({c.document_id: c.rows[c.sampled].tolist() for c in drawn})
    assert outcomes[0] == outcomes[1]
    for rows in outcomes[0].values():
        assert len(rows) == len(set(rows)) <= 6


def test_one_template_per_vector_also_where_some_are_held_back():
    index, items = bank([1] * 500), corpus(300, 500, 120)
    config = SampleConfig(max_sampled_share=0.005)
    for item in sample(items, Sampler(index, config, 1, known(items, index, config))):
        chosen = item.chunks[item.sampled].tolist()
        assert sorted(chosen) == [-1, 0, 1, 2, 3, 4]


def test_a_pilot_is_a_part_that_does_not_depend_on_order(monkeypatch):
    monkeypatch.setattr(popularity_module, "PILOT_DOCUMENTS", 100)
    items = corpus(400, 50, 5)
    one, other = (pilot(order, 400, 3) for order in (items, items[::-1]))
    ids = [sorted(i for batch in batches for i in batch.document_ids) for batches in (one, other)]
    assert ids[0] == ids[1]
    assert 70 < len(ids[0]) < 130
    assert sorted(i for b in pilot(items, 400, 4) for i in b.document_ids) != ids[0]


def test_popularity_is_stored_and_mapped(tmp_path):
    counts = np.arange(5)
    save_popularity(counts, Popularity(np.full(5, 0.5), None), tmp_path)
    assert open_counts(tmp_path).tolist() == counts.tolist()
    assert open_popularity(tmp_path).log_weights.tolist() == [0.5] * 5
    assert open_popularity(tmp_path).chances is None


@pytest.mark.parametrize("wrong", [{"hubness_damping": -1}, {"max_sampled_share": 0}, {"max_sampled_share": 1.5}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="recipe: "):
        from_mapping(wrong, SampleConfig)
