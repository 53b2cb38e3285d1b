import concurrent.futures

import pytest

from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.errors import BackendError


def test_in_order_reads_only_so_far_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    pending = [concurrent.futures.Future() for _ in range(100)]
    stream = in_order(items(), lambda number: pending[number], ahead=7)
    item, _ = next(stream)
    assert item == 0
    assert len(taken) <= 7
    with pytest.raises(ValueError, match="at least 1"):
        next(in_order([1], lambda _: pending[0], ahead=0))


def test_one_to_one_notices_missing_surplus_and_swapped_outcomes():
    def check(run):
        return list(one_to_one([1, 2, 3], run, lambda item, outcome: item == outcome, "model"))

    assert check(lambda items: iter(list(items))) == [(1, 1), (2, 2), (3, 3)]
    for wrong in (
        lambda items: iter(list(items)[:2]),
        lambda items: iter([*items, 4]),
        lambda items: iter(sorted(items, reverse=True)),
    ):
        with pytest.raises(BackendError, match="model"):
            check(wrong)


def test_in_order_hands_out_in_order_whatever_finishes_first():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:

        def start(number):
            return pool.submit(lambda: sum(range(10_000 * (number % 5))) and number)

        results = [(item, future.result()) for item, future in in_order(range(1, 60), start, ahead=8)]
    assert [item for item, _ in results] == list(range(1, 60))
    assert all(result in (0, item) for item, result in results)
