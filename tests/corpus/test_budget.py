"""The budget: never more than a document and what was carried over, and a deficit below one pair where it binds."""

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.corpus.budget import LedgerRow, Offer, ledger_problems, spend, take_all
from fineinstructions.seeded_order import row_key, row_keys

SIZES = st.lists(st.tuples(st.integers(0, 300), st.lists(st.integers(2, 120), max_size=8)), max_size=12)
SEEDS = st.integers(-(2**63), 2**63 - 1)


def offers_of(sizes: Sequence[tuple[int, Sequence[int]]]) -> list[Offer]:
    return [
        Offer(f"d{n}", tokens, tuple(f"p{n}.{i}" for i in range(len(pairs))), tuple(pairs))
        for n, (tokens, pairs) in enumerate(sizes)
    ]


def spent(offers: Sequence[Offer], taken: Sequence[tuple[bool, ...]]) -> list[int]:
    return [
        sum(t for t, is_taken in zip(offer.pair_tokens, marks, strict=True) if is_taken)
        for offer, marks in zip(offers, taken, strict=True)
    ]


@given(SIZES, SEEDS)
def test_no_step_spends_more_than_it_has(sizes: list[tuple[int, list[int]]], seed: int) -> None:
    offers = offers_of(sizes)
    rows, taken = zip(*spend(offers, seed), strict=True) if offers else ((), ())
    emitted = spent(offers, taken)
    given_so_far = spent_so_far = 0
    for offer, row, tokens in zip(offers, rows, emitted, strict=True):
        carry = given_so_far - spent_so_far
        given_so_far += offer.document_tokens
        spent_so_far += tokens
        assert tokens <= offer.document_tokens + carry
        assert (row.carry_tokens, row.emitted_tokens, row.left_tokens) == (carry, tokens, given_so_far - spent_so_far)
    assert list(ledger_problems(rows)) == []


@given(SIZES, SEEDS)
def test_where_the_budget_binds_less_than_one_pair_is_left(sizes: list[tuple[int, list[int]]], seed: int) -> None:
    """Wherever a pair was passed over, it would not have fitted into what is left in the end."""
    offers = offers_of(sizes)
    total_given = total_spent = 0
    for offer, (row, taken) in zip(offers, spend(offers, seed), strict=True):
        total_given += offer.document_tokens
        total_spent += row.emitted_tokens
        passed_over = [t for t, is_taken in zip(offer.pair_tokens, taken, strict=True) if not is_taken]
        if passed_over:
            assert total_given - total_spent < min(passed_over)
        else:
            assert row.emitted_tokens == sum(offer.pair_tokens)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), SEEDS)
def test_enough_pairs_leave_less_than_one_pair(document_tokens: list[int], seed: int) -> None:
    """Documents whose pairs cost more than twice their text, such as six pairs on average: the total is met."""
    longest = 40
    offers = offers_of([(tokens, [longest - n % 7 for n in range(1 + tokens // 16)]) for tokens in document_tokens])
    emitted = sum(row.emitted_tokens for row, _ in spend(offers, seed))
    assert 0 <= sum(document_tokens) - emitted < longest


@given(SIZES, SEEDS, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_of_a_documents_pairs(
    sizes: list[tuple[int, list[int]]], seed: int, random: object
) -> None:
    offers = offers_of(sizes)
    turned = [dataclasses.replace(o, pair_ids=o.pair_ids[::-1], pair_tokens=o.pair_tokens[::-1]) for o in offers]
    straight = list(spend(offers, seed))
    assert [(row, taken[::-1]) for row, taken in spend(turned, seed)] == straight


def test_pairs_are_tried_in_an_order_that_the_seed_decides() -> None:
    offer = Offer("d", 100, tuple(f"p{n}" for n in range(40)), (50,) * 40)
    chosen = {taken for seed in range(20) for _, taken in spend([offer], seed)}
    assert len(chosen) > 15
    assert all(sum(taken) == 2 for taken in chosen)


def test_a_pair_that_costs_too_much_is_passed_over_and_the_rest_rolls_on() -> None:
    offers = [Offer("a", 10, ("p",), (12,)), Offer("b", 3), Offer("c", 1, ("q", "r"), (14, 15))]
    rows = [row for row, _ in spend(offers, seed=0)]
    assert [(r.carry_tokens, r.emitted_tokens, r.left_tokens) for r in rows[:2]] == [(0, 0, 10), (10, 0, 13)]
    assert (rows[2].carry_tokens, rows[2].chosen_pairs, rows[2].emitted_tokens) == (13, 1, 14)


def test_without_a_budget_everything_is_taken() -> None:
    row, taken = next(take_all([Offer("d", 5, ("a", "b"), (30, 40))]))
    assert (taken, row.emitted_tokens, row.left_tokens) == ((True, True), 70, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"emitted_tokens": 40}, "40 tokens of pairs for 20"),
        ({"left_tokens": 3}, "3 tokens left"),
        ({"carry_tokens": 1}, "1 tokens carried over"),
    ],
)
def test_a_ledger_that_was_changed_is_noticed(change: dict[str, int], told: str) -> None:
    rows = [LedgerRow("a", 20, 0, 1, 15, 1, 15, 5), LedgerRow("b", 10, 5, 0, 0, 0, 0, 15)]
    assert list(ledger_problems(rows)) == []
    problems = list(ledger_problems([dataclasses.replace(rows[0], **change), rows[1]]))
    assert problems
    assert told in problems[0]


@given(st.lists(st.text(max_size=8)), SEEDS)
def test_keys_of_many_are_those_of_one(ids: list[str], seed: int) -> None:
    assert row_keys(seed, "x", ids).tolist() == [row_key(seed, "x", name) for name in ids]
