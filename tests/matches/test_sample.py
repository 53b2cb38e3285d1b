"""Sampling: seeded, without repeats, indifferent to order, and true to the target's slot counts."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_bank import CHI_SQUARE_99_9, Bank, bank, candidates, chi_square
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.sample import (
    ASSISTANT_SLOT_COUNTS,
    SampleConfig,
    Sampler,
    document_seeds,
    pool_distribution,
    sample,
    slot_weights,
    uniform,
)


def chosen(item: Candidates, index: Bank, seed: int = 0, **settings) -> set[tuple[str, int]]:
    (found,) = sample([item], Sampler(index, SampleConfig(**settings), seed))
    assert found.marked(item.sampled).matches(index) == item.matches(index)
    return {(m.template_id, m.chunk) for m in found.sampled_matches(index)}


pairs_of_row_and_chunk = st.lists(
    st.tuples(st.integers(0, 29), st.integers(-1, 4)), min_size=1, max_size=80, unique=True
)


@given(pairs_of_row_and_chunk, st.randoms(use_true_random=False), st.integers(0, 5), st.integers(1, 9))
@settings(max_examples=150)
def test_the_order_of_candidates_does_not_matter_and_nothing_repeats(pairs, shuffler, seed, wanted):
    index = bank([i % 5 for i in range(30)])
    cosines = {pair: round(0.5 + (hash(pair) % 5) / 10, 1) for pair in pairs}  # with ties
    shuffled = pairs.copy()
    shuffler.shuffle(shuffled)
    outcomes = [
        chosen(
            candidates([r for r, _ in order], [c for _, c in order], [cosines[p] for p in order]),
            index,
            seed,
            templates_per_document=wanted,
        )
        for order in (pairs, shuffled)
    ]
    assert outcomes[0] == outcomes[1]
    names = [name for name, _ in outcomes[0]]
    assert len(names) == len(set(names)) == min(wanted, len({row for row, _ in pairs}))


@given(pairs_of_row_and_chunk, st.integers(0, 5))
@settings(max_examples=100)
def test_other_candidates_do_not_change_a_templates_luck(pairs, seed):
    """Without one template per vector, leaving out what was not chosen leaves the choice as it is."""
    index = bank([i % 5 for i in range(30)])
    item = candidates([r for r, _ in pairs], [c for _, c in pairs])
    before = {name for name, _ in chosen(item, index, seed, one_per_vector=False)}
    kept = [pair for pair in pairs if f"t-{pair[0]}" in before]
    fewer = candidates([r for r, _ in kept], [c for _, c in kept])
    assert {name for name, _ in chosen(fewer, index, seed, one_per_vector=False)} == before


def test_every_vector_chooses_one_template():
    index = bank(np.arange(600) % 11)
    item = candidates(np.arange(600), np.repeat([-1, 0, 1, 2, 3, 4], 100))
    for seed in range(20):
        found = chosen(item, index, seed)
        assert sorted(number for _, number in found) == [-1, 0, 1, 2, 3, 4]


def test_a_vector_with_little_choice_goes_first():
    index = bank([1] * 40)
    # Chunk 0 sees one template only, which everybody else sees too.
    item = candidates([0] + list(range(40)) * 2, [0] + [1] * 40 + [2] * 40)
    for seed in range(20):
        found = chosen(item, index, seed, templates_per_document=3)
        assert ("t-0", 0) in found
        assert sorted(number for _, number in found) == [0, 1, 2]


def test_what_vectors_leave_is_filled_up_with_the_nearest_mention():
    index = bank([1] * 10)
    item = candidates([0, 1, 2, 0, 1, 2], [3, 3, 3, 4, 4, 4], [0.6, 0.6, 0.6, 0.7, 0.7, 0.7])
    for seed in range(20):
        found = chosen(item, index, seed)
        assert {name for name, _ in found} == {"t-0", "t-1", "t-2"}
        assert sorted(number for _, number in found) == [3, 4, 4]  # one each, then the higher cosine


def test_fewer_templates_than_vectors_are_spread_over_all_vectors():
    index = bank([1] * 600)
    item = candidates(np.arange(600), np.repeat([-1, 0, 1, 2, 3, 4], 100))
    used = {number for seed in range(60) for _, number in chosen(item, index, seed, templates_per_document=2)}
    assert used == {-1, 0, 1, 2, 3, 4}


def test_choices_are_seeded_by_run_and_document():
    index = bank([1] * 200)
    items = [candidates(np.arange(200), [0] * 200, document_id=name) for name in ("a", "b", "a")]
    found = [
        {m.template_id for m in c.sampled_matches(index)} for c in sample(items, Sampler(index, SampleConfig(), seed=1))
    ]
    assert found[0] == found[2] != found[1]
    assert {name for name, _ in chosen(items[0], index, seed=2)} != found[0]
    assert {name for name, _ in chosen(items[0], index, seed=1)} == found[0]


def drawn_slots(index: Bank, per_document: int, config: SampleConfig, num_documents: int = 1500) -> NDArray[np.int64]:
    """Slot counts drawn where every document sees its own random part of the bank."""
    rng = np.random.default_rng(3)
    items = (
        candidates(rng.choice(len(index.keys), per_document, replace=False), [0] * per_document, document_id=f"d{i}")
        for i in range(num_documents)
    )
    slots = [index.num_slots[c.rows[c.sampled]] for c in sample(items, Sampler(index, config, 5))]
    return np.bincount(np.minimum(np.concatenate(slots), len(config.target) - 1), minlength=len(config.target))


@pytest.mark.parametrize(
    "target", [(0.1, 0.4, 0.3, 0.2), (0.25, 0.25, 0.25, 0.15, 0.1), ASSISTANT_SLOT_COUNTS], ids=len
)
def test_drawn_slot_counts_follow_the_target(target):
    """Acceptance check 4 of method.md. The bank is far from the target, but within the limits of the weights."""
    rng = np.random.default_rng(2)
    index = bank(rng.choice(14, 20_000, p=np.arange(14, 0, -1) / 105))
    config = SampleConfig(target=target, templates_per_document=2)
    observed = drawn_slots(index, 400, config)
    expected = np.array(target) / sum(target) * observed.sum()
    assert observed.sum() == 3000
    assert chi_square(observed, expected) < CHI_SQUARE_99_9[len(target) - 1]
    unweighted = pool_distribution(index.num_slots, len(target)) * observed.sum()
    assert chi_square(observed, unweighted) > 10 * CHI_SQUARE_99_9[len(target) - 1]


def test_equal_templates_are_equally_likely():
    index = bank([1] * 20)
    items = (candidates(np.arange(20), [0] * 20, document_id=f"d{i}") for i in range(4000))
    config = SampleConfig(templates_per_document=1)
    rows = [int(c.rows[c.sampled][0]) for c in sample(items, Sampler(index, config, 9))]
    assert chi_square(np.bincount(rows, minlength=20), np.full(20, 200.0)) < CHI_SQUARE_99_9[19]


def test_neighbouring_documents_and_keys_draw_independently():
    index = replace(bank([1] * 64), keys=np.arange(64, dtype=np.uint64))  # the least random keys there can be
    items = (candidates(np.arange(64), [0] * 64, document_id=str(i)) for i in range(3000))
    marks = np.stack([c.sampled for c in sample(items, Sampler(index, SampleConfig(templates_per_document=16), 0))])
    np.testing.assert_allclose(marks.mean(axis=0), 0.25, atol=0.04)
    between = np.corrcoef(marks.T.astype(float)) - np.eye(64)
    assert np.abs(between).max() < 0.12  # 16 of 64 without replacement: -1/63 on average, noise 1/sqrt(3000)


def test_weights_stay_within_their_limits():
    config = SampleConfig(target=(0.5, 0.5, 0.0, 0.2))
    weights = slot_weights(np.array([0.001, 0.9, 0.099, 0.0]), config)
    np.testing.assert_allclose(weights, [20.0, 0.5 / 1.2 / 0.9, 0.05, 20.0])
    np.testing.assert_allclose(pool_distribution(np.array([0, 3, 9, 3]), 4), [0.25, 0, 0, 0.75])
    assert sum(ASSISTANT_SLOT_COUNTS) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "wrong", [{"target": []}, {"target": [0, 0]}, {"target": [-1, 2]}, {"templates_per_document": 0}, {"min_weight": 0}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="recipe: "):
        from_mapping(wrong, SampleConfig)


def slowly_chosen(item: Candidates, index: Bank, config: SampleConfig, seed: int) -> set[tuple[int, int]]:
    """The rule in words: vectors in turn, those with few candidates first, then whatever is luckiest."""
    (document_seed,) = document_seeds([item.document_id], seed, "sample")
    weights = np.log(slot_weights(pool_distribution(index.num_slots, len(config.target)), config))

    def noise(key: int) -> float:
        return float(-np.log(-np.log(uniform(np.array([key], np.int64).astype(np.uint64), document_seed)))[0])

    def luck(row: int) -> float:
        slots = min(int(index.num_slots[row]), len(config.target) - 1)
        drawn = uniform(index.keys[[row]], document_seed)
        return float(weights[slots] - np.log(-np.log(drawn))[0])

    found = list(zip(item.rows.tolist(), item.chunks.tolist(), item.cosines.tolist(), strict=True))
    numbers = sorted({number for _, number, _ in found}, key=noise)[: config.templates_per_document]
    numbers.sort(key=lambda number: sum(number == other for _, other, _ in found))
    taken: dict[int, int] = {}
    for number in numbers if config.one_per_vector else []:
        free = {row for row, other, _ in found if other == number and row not in taken}
        if free:
            taken[max(free, key=luck)] = number
    for row in sorted({row for row, _, _ in found} - set(taken), key=luck, reverse=True):
        if len(taken) < config.templates_per_document:
            mentions = [(-cosine, number) for other, number, cosine in found if other == row]
            taken[row] = min(mentions)[1]
    return set(taken.items())


@given(st.lists(pairs_of_row_and_chunk, min_size=1, max_size=4), st.booleans(), st.integers(1, 9), st.randoms())
@settings(max_examples=60, deadline=None)
def test_many_documents_at_once_are_chosen_for_as_one_by_one(documents, one_per_vector, wanted, chance):
    index = bank([i % 5 for i in range(30)])
    config = SampleConfig(templates_per_document=wanted, one_per_vector=one_per_vector)
    items = [
        candidates([r for r, _ in pairs], [c for _, c in pairs], [chance.randint(0, 3) / 4 for _ in pairs], f"d{i}")
        for i, pairs in enumerate(documents)
    ]
    for item, found in zip(items, sample(items, Sampler(index, config, 4)), strict=True):
        marks = found.sampled
        assert set(zip(item.rows[marks].tolist(), item.chunks[marks].tolist(), strict=True)) == slowly_chosen(
            item, index, config, 4
        )
