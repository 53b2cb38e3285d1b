"""The window of one server, against a model of a server that takes so many requests at once."""

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends.request_window import RequestWindow


def served(window: RequestWindow, capacity: int, replies: int, fails: float = 0.0) -> tuple[int, float]:
    """Requests that were turned back until so many were answered, and how many the server had under way on average."""
    draw = random.Random(1)
    clock = under_way = taken = answered = turned_back = number = 0
    slot_seconds = 0.0
    events: list[tuple[float, int, bool, int]] = []
    while answered < replies:
        while under_way < window.size:
            number, under_way = number + 1, under_way + 1
            is_taken = taken < capacity and draw.random() >= fails
            taken += is_taken
            wait = draw.expovariate(10) if is_taken else 0.001
            heapq.heappush(events, (clock + wait, number, is_taken, window.trip))
        now, _, is_taken, trip = heapq.heappop(events)
        slot_seconds, clock = slot_seconds + taken * (now - clock), now
        under_way, taken = under_way - 1, taken - is_taken
        if is_taken:
            answered += 1
            window.succeeded(1, is_full=True)
        else:
            turned_back += 1
            window.turned_back(1, trip)
    return turned_back, slot_seconds / clock


@pytest.mark.parametrize("capacity", [1, 2, 10, 40, 63, 64, 100])
def test_it_settles_at_what_the_server_takes_and_wastes_few_calls(capacity: int) -> None:
    window = RequestWindow(64)
    turned_back, mean = served(window, capacity, 4000)
    settled = min(capacity, 64)
    assert settled <= window.size <= min(settled + 1, 64)
    assert mean > 0.97 * settled
    assert turned_back < 300
    later, _ = served(window, capacity, 4000)
    assert later <= 1 + 4000 / settled / 10 if capacity < 64 else later == 0


def test_it_finds_room_that_has_come_back() -> None:
    window = RequestWindow(64)
    served(window, 5, 2000)
    assert window.size < 8
    turned_back, _ = served(window, 64, 10_000)
    assert (window.size, turned_back) == (64, 0)


def test_a_server_that_was_away_is_soon_asked_as_much_as_before() -> None:
    window = RequestWindow(64)
    window.succeeded(100, is_full=True)
    for _ in range(8):
        window.turned_back(window.size, window.trip)
    assert (window.size, window.least) == (1, 1)
    window.succeeded(31, is_full=True)
    assert window.size == 32


def test_a_burst_of_refusals_halves_it_once() -> None:
    window = RequestWindow(64)
    for _ in range(64):
        window.turned_back(1, trip=0)
    assert (window.size, window.trip) == (32, 1)
    window.turned_back(5, trip=-1)
    assert window.size == 32


def test_faults_that_have_nothing_to_do_with_its_size_leave_most_of_it() -> None:
    window = RequestWindow(64)
    _, mean = served(window, 1000, 4000, fails=0.005)
    assert mean > 48


def test_success_that_needed_no_more_slots_says_nothing() -> None:
    window = RequestWindow(8)
    window.turned_back(4, trip=0)
    window.succeeded(1000, is_full=False)
    assert window.size == 4


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.integers(-3, 3), st.booleans()), max_size=60),
)
def test_its_size_stays_between_one_and_the_limit(limit: int, events: list[tuple[bool, int, int, bool]]) -> None:
    window = RequestWindow(limit)
    for is_success, number, trip, is_full in events:
        if is_success:
            window.succeeded(number, is_full=is_full)
        else:
            window.turned_back(number, window.trip + trip)
        assert 1 <= window.least <= window.size <= window.limit
