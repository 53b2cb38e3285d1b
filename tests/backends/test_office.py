"""Clients that share the limit of a server through a desk, over real sockets and real HTTP."""

import concurrent.futures
import itertools
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from chat_requests import request, settings, upper, user_text

from fineinstructions.backends.allotments import Allotments
from fineinstructions.backends.desk import MAX_LINE_BYTES, NOBODY, Desk, DeskAddress, as_line
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.office import office_of_process, office_trouble
from fineinstructions.backends.scripted_server import ScriptedServer


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def hanging(body, times):
    return "hang" if user_text(body).startswith("hang") else None


@pytest.mark.parametrize("number", [1, 2, 5])
def test_one_limit_for_all_clients_of_a_desk(number: int) -> None:
    limit = 6
    with ScriptedServer(upper, latency_seconds=0.01) as server, ExitStack() as stack:
        desk = stack.enter_context(Desk(Allotments()))
        stack.enter_context(office_of_process(desk.address(number)))
        clients = [stack.enter_context(ChatClient(settings(server, max_in_flight=limit))) for _ in range(number)]
        asked = [(f"{n} of {c}", clients[c]) for n in range(30) for c in range(number)]
        futures = [(text, client.submit(request(text))) for text, client in asked]
        assert all(future.result(60).text == text.upper() for text, future in futures)
        assert server.max_in_flight <= limit
        assert office_trouble() == ""


def test_where_nobody_sits_at_the_desk_each_client_keeps_to_its_even_part() -> None:
    with ScriptedServer(upper, latency_seconds=0.01) as server, ExitStack() as stack:
        stack.enter_context(office_of_process(DeskAddress("", NOBODY, "", "", num_workers=3)))
        clients = [stack.enter_context(ChatClient(settings(server, max_in_flight=6))) for _ in range(3)]
        asked = [(f"{n} of {c}", clients[c]) for n in range(30) for c in range(3)]
        futures = [(text, client.submit(request(text))) for text, client in asked]
        assert all(future.result(60).text == text.upper() for text, future in futures)
        assert server.max_in_flight <= 6
        assert office_trouble() == ""


def test_slots_go_to_the_client_that_waits_and_come_back_from_one_that_is_gone() -> None:
    with ScriptedServer(upper, latency_seconds=0.02, faults=hanging) as server, ExitStack() as stack:
        llm = settings(server, max_in_flight=8)
        desk = stack.enter_context(Desk(Allotments()))
        stack.enter_context(office_of_process(desk.address(2)))
        first, second = ChatClient(llm), stack.enter_context(ChatClient(llm))
        many = [first.submit(request(f"many {n}")) for n in range(400)]
        wait_for(lambda: server.in_flight == 8, "the first client has all slots")
        few = [second.submit(request(f"few {n}")) for n in range(4)]
        concurrent.futures.wait(few, 60)
        assert all(future.done() for future in few)
        assert not many[-1].done(), "nobody waits for a client that has more to ask"
        first.close()
        futures = [second.submit(request(f"hang {n}")) for n in range(20)]
        wait_for(lambda: server.in_flight == 8, "the second client has all slots")
        assert server.max_in_flight <= 8 + 8, "what the first had under way when it was closed, the server ends later"
        assert not any(future.done() for future in futures)


def test_retry_after_holds_the_clients_of_all_workers() -> None:
    arrivals: dict[str, float] = {}

    def brain(body):
        arrivals.setdefault(user_text(body), time.monotonic())
        return "ok"

    def first_is_limited(body, times):
        return "rate_limit" if user_text(body) == "first" and times == 0 else None

    with ScriptedServer(brain, faults=first_is_limited, retry_after="3") as server, ExitStack() as stack:
        desk = stack.enter_context(Desk(Allotments()))
        stack.enter_context(office_of_process(desk.address(2)))
        one, other = (stack.enter_context(ChatClient(settings(server))) for _ in range(2))
        other.submit(request("before")).result(60)
        first = one.submit(request("first"))
        wait_for(lambda: bool(server.faults_sent), "the first was turned away")
        limited_at = time.monotonic()
        number = itertools.count()

        def is_held() -> bool:
            """Whether the other client has heard of it, too: a request that was still let through is no harm."""
            name = f"other {next(number)}"
            future = other.submit(request(name))
            concurrent.futures.wait([future], 0.3)
            return not future.done()

        wait_for(is_held, "the other client holds back")
        assert time.monotonic() - limited_at < 3, "while the wait lasts"
        last = other.submit(request("last"))
        for future in (first, last):
            future.result(60)
    assert arrivals["last"] - limited_at > 1.5


def answer_to(desk: DeskAddress, said: bytes) -> bytes:
    """What somebody hears who connects and says this."""
    with socket.create_connection(("127.0.0.1", desk.port), 30) as connection:
        connection.settimeout(60)
        try:
            connection.sendall(said)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except ConnectionError:
            return b""


def test_a_stranger_is_dropped_and_takes_nothing() -> None:
    with ScriptedServer(upper) as server, ExitStack() as stack:
        desk = stack.enter_context(Desk(Allotments()))
        address = desk.address(1)
        token = address.token.encode()
        assert token.decode() not in repr(address)
        strange = [b"GET / HTTP/1.1\r\n\r\n", b"0" * 64 + b"\n", token[:-1] + b"\n", b"x" * (2 * MAX_LINE_BYTES), b"\n"]
        for said in strange:
            assert answer_to(address, said) == b""
        welcome = as_line([])
        for said in (b"{}\n", b'[{"wants": 8}]\n', b"not json\n", b"[" * 100_000 + b"\n", b"y" * (2 * MAX_LINE_BYTES)):
            assert answer_to(address, token + b"\n" + said) in (welcome, b""), "no more than the welcome"
        stack.enter_context(office_of_process(address))
        with ChatClient(settings(server)) as client:
            assert client.submit(request("hello")).result(60).text == "HELLO"
        assert office_trouble() == ""


def test_without_its_desk_a_client_keeps_to_its_part() -> None:
    with Desk(Allotments()) as desk:
        address = desk.address(4)
    with ScriptedServer(upper, faults=hanging) as server, office_of_process(address):
        with ChatClient(settings(server, max_in_flight=8)) as client:
            futures = [client.submit(request(f"hang {n}")) for n in range(20)]
            wait_for(lambda: server.in_flight == 2, "an even part of eight for each of four")
            assert not any(future.done() for future in futures)
        assert server.max_in_flight == 2
        assert f"port {address.port}" in office_trouble()
        assert "one part in 4 of llm.max_in_flight" in office_trouble()
        assert address.token not in office_trouble()
    assert office_trouble() == ""


def test_a_desk_that_goes_away_takes_no_answer_with_it() -> None:
    with ScriptedServer(upper, latency_seconds=0.02) as server, ExitStack() as stack:
        desk = Desk(Allotments())
        with desk:
            stack.enter_context(office_of_process(desk.address(2)))
            client = stack.enter_context(ChatClient(settings(server, max_in_flight=6)))
            futures = [client.submit(request(f"text {n}")) for n in range(200)]
            futures[20].result(60)
        assert [future.result(60).text for future in futures] == [f"TEXT {n}" for n in range(200)]
        assert server.max_in_flight <= 6
        assert "reaches the driver" in office_trouble()
