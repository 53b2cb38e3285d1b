"""Servers that are full, fail, or answer for each other."""

import concurrent.futures
import json
import re
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from chat_requests import error_of, request, settings, upper

from fineinstructions.backends.allotments import Allotments
from fineinstructions.backends.llm import ChatClient, ChatError, LlmConfig
from fineinstructions.backends.office import office_of_process
from fineinstructions.backends.scripted_replies import Reply, chat_completion
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.backends.turns import begin_turn
from fineinstructions.errors import BackendError

CHAT = "/v1/chat/completions"


def several(*servers: ScriptedServer, **changes: object) -> LlmConfig:
    return settings(servers[0], base_url=[server.base_url for server in servers], **changes)


def ask(client: ChatClient, texts: Sequence[str]) -> None:
    futures = [client.submit(request(text)) for text in texts]
    assert [future.result(60).text for future in futures] == [text.upper() for text in texts]


@pytest.mark.parametrize("status", [429, pytest.param(503, marks=pytest.mark.slow)])
def test_a_server_that_is_full_is_asked_as_much_as_it_takes(status: int) -> None:
    allotments = Allotments()
    with (
        ScriptedServer(upper, latency_seconds=0.2, capacity=10, full_status=status) as server,
        office_of_process(allotments),
    ):
        with ChatClient(settings(server, max_in_flight=64)) as client:
            ask(client, [f"text {n}" for n in range(200)])
        (found,) = allotments.take_figures()
        assert 7 <= found.window <= 13
        assert found.calls == 200 + found.turned_back == 200 + server.load.num_turned_back
        assert found.turned_back < 150, "64, 32 and 16 at once, and a few to find out whether there is more room"
        assert server.max_in_flight == 10


def test_once_the_run_is_given_up_nothing_that_waits_is_sent() -> None:
    limits = {"max_in_flight": 2, "max_retries": 0, "max_failures_in_a_row": 3}
    plan = lambda body, times: "server_error"  # noqa: E731
    with ScriptedServer(faults=plan) as server, ChatClient(settings(server, **limits)) as client:
        errors = [error_of(future) for future in [client.submit(request(f"hello {n}")) for n in range(50)]]
        assert server.requests[CHAT] <= 3 + 1  # one was under way
    assert sum(isinstance(error, ChatError) for error in errors) <= 3
    assert {str(error) for error in errors if not isinstance(error, ChatError)} == {str(errors[-1])}
    assert "3 requests in a row failed" in str(errors[-1])


def test_waiting_for_a_server_that_is_not_there_is_no_call() -> None:
    with ScriptedServer() as server:
        llm = settings(server, unreachable_seconds=2.0, max_retries=0, max_failures_in_a_row=1)
    with ChatClient(llm) as client:
        error_of(client.submit(request("hello")))
        assert client.usage().calls == 1


def test_a_server_that_lets_nobody_in_is_not_asked_again_by_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with ScriptedServer(api_key="right") as server, ChatClient(settings(server, max_in_flight=2)) as client:
        errors = [error_of(future) for future in [client.submit(request(f"hello {n}")) for n in range(50)]]
        assert server.requests[CHAT] <= 2
    assert all("access denied" in str(error) for error in errors)


def test_a_fast_server_is_asked_more_than_a_slow_one() -> None:
    with (
        ScriptedServer(upper, latency_seconds=2.0) as slow,
        ScriptedServer(upper, latency_seconds=0.002) as fast,
        ChatClient(several(slow, fast, max_in_flight=4)) as client,
    ):
        ask(client, [f"text {n}" for n in range(100)])
        assert max(slow.max_in_flight, fast.max_in_flight) <= 4
        assert slow.requests[CHAT] + fast.requests[CHAT] == 100
        assert 4 <= slow.requests[CHAT] < 40


def test_a_retry_goes_to_another_server() -> None:
    plan = lambda body, times: "server_error"  # noqa: E731
    with (
        ScriptedServer(upper, faults=plan) as broken,
        ScriptedServer(upper) as good,
        ChatClient(several(broken, good, max_retries=1)) as client,
    ):
        ask(client, [f"text {n}" for n in range(40)])
        assert broken.requests[CHAT] == broken.faults_sent["server_error"] >= 1
        assert good.requests[CHAT] == 40


def test_a_server_that_dies_is_done_without_until_it_is_back() -> None:
    notes: list[str] = []
    with ScriptedServer(upper, latency_seconds=0.01) as stays, office_of_process(Allotments(notes.append)):
        leaves = ScriptedServer(upper, latency_seconds=0.01)
        with leaves:
            client = ChatClient(several(leaves, stays, max_in_flight=4))
            futures = [client.submit(request(f"text {n}")) for n in range(200)]
            while leaves.requests[CHAT] < 20:
                time.sleep(0.002)
        with client:
            assert [future.result(60).text for future in futures] == [f"TEXT {n}" for n in range(200)]
            ask(client, [f"more {n}" for n in range(20)])
            with ScriptedServer(upper, port=int(leaves.base_url.split(":")[2].split("/")[0])) as back:
                deadline = time.monotonic() + 60
                while back.requests[CHAT] < 20:
                    assert time.monotonic() < deadline
                    ask(client, [f"again {n}" for n in range(20)])
    (note,) = notes
    assert note.startswith(f"{leaves.base_url}: connection failed")
    assert note.endswith("the other servers take its share until it is back")


def test_a_server_without_the_model_is_done_without() -> None:
    notes: list[str] = []
    with (
        ScriptedServer(upper, models=["another"]) as without,
        ScriptedServer(upper) as good,
        office_of_process(Allotments(notes.append)),
        ChatClient(several(without, good)) as client,
    ):
        ask(client, [f"text {n}" for n in range(20)])
    (note,) = notes
    assert note.startswith(f"{without.base_url}: HTTP 404 for model 'm'")


def test_the_run_ends_where_no_server_is_left() -> None:
    plan = lambda body, times: "server_error"  # noqa: E731
    limits = {"max_retries": 1, "max_failures_in_a_row": 4, "max_in_flight": 2}
    with (
        ScriptedServer(faults=plan) as one,
        ScriptedServer(faults=plan) as other,
        ChatClient(several(one, other, **limits)) as client,
    ):
        errors = [error_of(future) for future in [client.submit(request(f"hello {n}")) for n in range(60)]]
        assert one.requests[CHAT] + other.requests[CHAT] < 100, "of 120 attempts"
    fatal = [error for error in errors if not isinstance(error, ChatError)]
    assert str(fatal[0]).startswith(f"{one.base_url}, {other.base_url}: 4 requests in a row failed, the last with: ")


def test_servers_that_are_not_there_end_it_in_one_line_that_names_both() -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        llm = several(one, other)
    with ChatClient(llm) as client:
        error = error_of(client.submit(request("hello")))
    assert not isinstance(error, ChatError)
    assert str(error).startswith(f"{one.base_url}, {other.base_url}: connection failed")


def test_one_server_that_refuses_for_good_ends_it_only_where_the_others_do_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedServer(models=["a"]) as one,
        ScriptedServer(models=["b"]) as other,
        ChatClient(several(one, other)) as client,
    ):
        error = error_of(client.submit(request("hello")))
        assert "HTTP 404 for model 'm'" in str(error)
        assert one.requests[CHAT] == other.requests[CHAT] == 1


def test_the_shortest_context_of_several_servers_counts() -> None:
    with (
        ScriptedServer(max_model_len=4096) as long,
        ScriptedServer(max_model_len=2048) as short,
        ChatClient(several(long, short)) as client,
    ):
        assert client.context_tokens() == 2048
    with ChatClient(several(long, short, max_retries=0)) as client, pytest.raises(BackendError):
        client.context_tokens()
    with ScriptedServer(max_model_len=1024) as alive, ChatClient(several(long, alive, max_retries=0)) as client:
        assert client.context_tokens() == 1024


def test_stages_that_share_some_servers_all_get_their_turn() -> None:
    with (
        ScriptedServer(upper, latency_seconds=0.02) as shared,
        ScriptedServer(upper, latency_seconds=0.02) as own,
        ChatClient(several(shared, own, max_in_flight=2)) as client,
    ):
        first = [client.submit(request(f"first {n}")) for n in range(200)]
        second = [client.submit(request(f"second {n}", llm=settings(shared, max_in_flight=2))) for n in range(5)]
        first += [client.submit(request(f"later {n}")) for n in range(200)]
        concurrent.futures.wait(second, 60)
        assert not first[-1].done()
        assert all(future.result(60).text for future in (*first, *second))
        assert shared.max_in_flight <= 2


def test_what_was_begun_first_is_asked_first() -> None:
    """Work units that are open together end one after the other, so that not all of their ends leave slots empty."""
    order: list[str] = []

    def brain(body):
        order.append(body["messages"][0]["content"])
        return "ok"

    def unit(name: str, is_begun: threading.Event, may_ask: threading.Event) -> list[concurrent.futures.Future[Any]]:
        begin_turn()
        is_begun.set()
        assert may_ask.wait(60)
        return [client.submit(request(f"{name} {n}")) for n in range(20)]

    with (
        ScriptedServer(brain, latency_seconds=0.01) as server,
        ChatClient(settings(server, max_in_flight=1)) as client,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        gates = [(threading.Event(), threading.Event()) for _ in range(2)]
        first = threads.submit(unit, "first", *gates[0])
        assert gates[0][0].wait(60)
        second = threads.submit(unit, "second", *gates[1])
        for _, may_ask in reversed(gates):  # the second asks before the first, and yet comes after it
            may_ask.set()
            concurrent.futures.wait([second] if may_ask is gates[1][1] else [first], 60)
        concurrent.futures.wait([*first.result(), *second.result()], 60)
    last_of_first = max(n for n, text in enumerate(order) if text.startswith("first"))
    asked_before = sum(text.startswith("second") for text in order[:last_of_first])
    assert asked_before < 20, "only while the first had not asked yet"
    assert [text for text in order if text.startswith("first")] == [f"first {n}" for n in range(20)]
    assert order[-1] == "second 19"


class ChatOnly(BaseHTTPRequestHandler):
    """Answers chat requests, and 404 to all else."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        raw = json.dumps(chat_completion(body, Reply("HELLO"))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_lists_no_models_answers_all_the_same() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), ChatOnly) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            llm = LlmConfig(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="m", backoff_seconds=0.002)
            with ChatClient(llm) as client:
                assert client.context_tokens() is None
                assert client.submit(request("hello")).result(20).text == "HELLO"
        finally:
            server.shutdown()


@pytest.mark.slow
def test_a_server_that_falls_silent_is_told_with_since_when_and_until_when() -> None:
    notes: list[str] = []
    limits = {"max_retries": 30, "backoff_seconds": 0.1, "max_in_flight": 4, "max_failures_in_a_row": 20}
    with office_of_process(Allotments(notes.append)):
        with ScriptedServer(upper) as server:
            client = ChatClient(settings(server, **limits))
            assert client.submit(request("hello")).result(20).text == "HELLO"
        with client:
            future = client.submit(request("again"))
            deadline = time.monotonic() + 60
            while not notes:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with ScriptedServer(upper, port=int(server.base_url.split(":")[2].split("/")[0])):
                assert future.result(60).text == "AGAIN"
                while len(notes) < 2:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
    silent, back = notes
    assert re.fullmatch(
        rf"{server.base_url}: no answer for \d+ s \(connection failed: .*\); it is asked again until about"
        r" \d\d:\d\d:\d\d, then the run ends and can be continued",
        silent,
    )
    assert re.fullmatch(rf"{server.base_url}: answers again, after \d+ s", back)
