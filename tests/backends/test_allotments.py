"""How slots are divided: never more than there are, none kept idle while somebody waits."""

import json
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.backends.allotments import Allotment, Allotments, Report
from fineinstructions.backends.gate import Gate

SERVER = "http://a/v1"


class Client:
    """A client whose messages take as long as the test likes, both ways."""

    def __init__(self, allotments: Allotments, limit: int) -> None:
        self.allotments, self.allotted, self.sent = allotments, deque[Allotment](), deque[Report]()
        self.gate = Gate(SERVER, limit, lambda: None, lambda: None)
        self.number = allotments.join(self.allotted.append)

    def want(self, number: int) -> None:
        self.gate.waiting = max(0, number - self.gate.in_flight)

    def begin(self) -> None:
        while self.gate.free and self.gate.waiting:
            self.gate.waiting -= 1
            self.gate.begin()

    def end(self, number: int, *, succeeds: bool = True) -> None:
        for _ in range(min(number, self.gate.in_flight)):
            if succeeds:
                self.gate.succeeded()
            else:
                self.gate.turned_back(self.gate.trip)
            self.gate.end()

    def speak(self) -> None:
        self.sent.append(self.gate.whole_report())

    def send(self) -> None:
        if self.sent:
            self.allotments.report(self.number, self.sent.popleft())

    def hear(self) -> None:
        if self.allotted:
            self.gate.take(self.allotted.popleft())

    def settle(self) -> None:
        """Say and hear everything."""
        self.speak()
        while self.sent:
            self.send()
        while self.allotted:
            self.hear()
        self.begin()


def settle(*clients: Client) -> None:
    for _ in range(4):
        for client in clients:
            client.settle()


ACTIONS = ["want", "begin", "end", "fail", "speak", "send", "hear"]


@settings(max_examples=100)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ACTIONS), st.integers(0, 15)), max_size=120),
)
def test_no_order_of_messages_gives_out_more_slots_than_there_are(
    limit: int, number: int, events: list[tuple[int, str, int]]
) -> None:
    allotments = Allotments()
    clients = [Client(allotments, limit) for _ in range(number)]
    for which, action, amount in events:
        client = clients[which % number]
        if action == "want":
            client.want(amount)
        elif action in ("end", "fail"):
            client.end(amount, succeeds=action == "end")
        else:
            getattr(client, action)()
        assert sum(c.gate.in_flight for c in clients) <= limit
    for client in clients:
        client.end(limit)
        client.want(0)
    settle(*clients)
    busy = clients[0]
    busy.want(100)
    for _ in range(40 * limit):  # refusals are made good by successes, a slot at a time
        settle(*clients)
        if busy.gate.in_flight == limit:
            break
        busy.end(limit)
        busy.want(100)
    assert busy.gate.in_flight == limit


def test_slots_go_to_whoever_waits_and_come_back() -> None:
    allotments = Allotments()
    first, second, third = (Client(allotments, 12) for _ in range(3))
    first.want(100)
    settle(first)
    assert first.gate.in_flight == 12
    second.want(2)
    settle(first, second)
    assert second.gate.in_flight == 0, "all are under way"
    first.end(5)
    settle(first, second)
    assert (first.gate.in_flight, second.gate.in_flight) == (10, 2)
    third.want(100)
    settle(third)
    first.end(10)
    settle(first, second, third)
    assert (first.gate.in_flight, second.gate.in_flight, third.gate.in_flight) == (5, 2, 5)
    allotments.leave(third.number)
    settle(first, second)
    assert (first.gate.in_flight, second.gate.in_flight) == (10, 2)


def test_the_smallest_limit_that_anybody_names_holds() -> None:
    allotments = Allotments()
    first, second = Client(allotments, 12), Client(allotments, 3)
    first.want(20)
    settle(first)
    second.want(1)
    settle(first, second)
    first.end(12)
    settle(first, second)
    assert (first.gate.in_flight, second.gate.in_flight) == (2, 1)


def test_a_pause_holds_everybody() -> None:
    allotments = Allotments()
    first, second = Client(allotments, 4), Client(allotments, 4)
    for client in (first, second):
        client.want(4)
    settle(first, second)
    first.gate.hold(60)
    first.end(4)
    second.end(4)
    settle(first, second)
    assert (first.gate.in_flight, second.gate.in_flight) == (0, 0)
    assert second.gate.resume_at == pytest.approx(first.gate.resume_at, abs=5)


def test_requests_that_are_given_up_are_counted_over_all_clients_until_one_is_answered() -> None:
    allotments = Allotments()
    first, second = Client(allotments, 4), Client(allotments, 4)
    for client in (first, second):
        client.want(2)
    settle(first, second)
    first.gate.gave_up()
    second.gate.gave_up()
    second.gate.gave_up()
    assert (first.gate.given_up_in_a_row, second.gate.given_up_in_a_row) == (1, 2)
    settle(first, second)
    assert (first.gate.given_up_in_a_row, second.gate.given_up_in_a_row) == (3, 3)
    first.gate.gave_up()
    first.speak()  # on its way while the other's is
    second.gate.gave_up()
    second.settle()
    assert first.gate.given_up_in_a_row == 4
    settle(first, second)
    assert (first.gate.given_up_in_a_row, second.gate.given_up_in_a_row) == (5, 5)
    second.gate.answered()
    second.gate.gave_up()
    assert second.gate.given_up_in_a_row == 1
    settle(first, second)
    assert (first.gate.given_up_in_a_row, second.gate.given_up_in_a_row) == (1, 1)
    for client in (first, second):
        client.end(4)
        allotments.leave(client.number)
    third = Client(allotments, 4)
    third.want(1)
    settle(third)
    assert third.gate.given_up_in_a_row == 0, "another phase begins anew"


def test_figures_tell_how_a_server_was_used() -> None:
    clock = [100.0]
    notes: list[str] = []
    allotments = Allotments(notes.append, now=lambda: clock[0])
    number = allotments.join(lambda allotment: None)
    report = Report(server=SERVER, serial=1, limit=8, heard=0, trip=0, wants=8, in_flight=8)
    allotments.report(number, report)
    clock[0] += 2
    later = replace(report, serial=2, heard=1, peak=8, slot_seconds=12.0, calls=20, succeeded=15, turned_back=5)
    allotments.report(number, replace(later, retries=5, trouble="HTTP 500"))
    allotments.report(number, replace(report, serial=3, heard=1, trouble="HTTP 500 again"))
    (found,) = allotments.take_figures()
    assert (found.mean_in_flight, found.peak_in_flight, found.limit) == (6.0, 8, 8)
    assert (found.calls, found.turned_back, found.retries) == (20, 5, 5)
    assert (found.window, found.least_window, found.window_changes) == (4, 4, 1)
    assert allotments.take_figures() == []
    assert notes == [f"{SERVER}: HTTP 500; the other servers take its share until it is back"]


def test_a_silent_server_is_told_now_and_then_whoever_asks_it_and_once_when_it_is_back() -> None:
    clock = [100.0]
    notes: list[str] = []
    allotments = Allotments(notes.append, now=lambda: clock[0])
    numbers = [allotments.join(lambda allotment: None) for _ in range(2)]
    report = Report(server=SERVER, serial=1, limit=8, heard=0, trip=0, wants=8, in_flight=8)
    for second in range(70):
        clock[0] += 1
        silent = replace(report, trouble="nobody there", silent_seconds=second + 0.1, patience_seconds=90.0)
        for number in numbers:
            allotments.report(number, silent)
    assert [note.split(" (")[0] for note in notes] == [f"{SERVER}: no answer for {since} s" for since in (2, 32, 62)]
    allotments.report(numbers[0], replace(report, answered=1))
    allotments.report(numbers[1], replace(report, answered=1))
    assert notes[3:] == [f"{SERVER}: answers again, after 69 s"]


GOOD = Report(server=SERVER, serial=1, limit=8, heard=0, trip=0, wants=8, in_flight=8).to_plain()


def test_messages_go_there_and_back() -> None:
    assert Report.from_plain(json.loads(json.dumps(GOOD))).to_plain() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"wants": -1},
        {"wants": 10**12},
        {"wants": 1.5},
        {"wants": True},
        {"wants": "8"},
        {"wants": None},
        {"server": 8},
        {"server": "x" * 5000},
        {"slot_seconds": float("nan")},
        {"slot_seconds": float("inf")},
        {"surplus": 1},
    ],
)
def test_a_senseless_message_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="message"):
        Report.from_plain(GOOD | change)


@pytest.mark.parametrize("plain", [None, 3, "x", [], {}])
def test_what_is_no_message_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="message"):
        Report.from_plain(plain)
