import concurrent.futures
import email.utils
import json
import threading
import time
from collections import Counter

import pytest
from chat_requests import error_of, request, settings, upper, user_text

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import (
    ChatClient,
    ChatError,
    ChatReply,
    Usage,
    chat_rejection,
    model_json,
)
from fineinstructions.backends.ordered import in_order
from fineinstructions.backends.prompt import Prompt
from fineinstructions.backends.scripted_server import Reply, ScriptedServer, StatusError, seeded_faults
from fineinstructions.config import digest, to_yaml
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.records import Rejection, to_table

TRANSIENT = ["rate_limit", "server_error", "unavailable", "reset", "half_body", "wrong_type", "bad_json", "no_choice"]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_each_transient_fault_is_retried(fault):
    def first_time(body, times):
        return fault if times == 0 else None

    with ScriptedServer(upper, faults=first_time) as server, ChatClient(settings(server)) as client:
        assert client.submit(request("hello")).result(20).text == "HELLO"
        assert server.faults_sent == {fault: 1}
        assert client.usage().retries == 1
        assert client.usage().calls == 2


def test_a_server_that_hangs_is_left_after_the_timeout_and_asked_again():
    plan = lambda body, times: "hang" if times == 0 else None  # noqa: E731
    with ScriptedServer(upper, faults=plan) as server, ChatClient(settings(server, timeout_seconds=0.3)) as client:
        started = time.monotonic()
        assert client.submit(request("hello")).result(20).text == "HELLO"
        assert 0.3 <= time.monotonic() - started < 5


def test_retries_exhausted_is_a_transport_error_that_says_why():
    with (
        ScriptedServer(faults=lambda body, times: "server_error") as server,
        ChatClient(settings(server, max_retries=2)) as client,
    ):
        error = error_of(client.submit(request("hello")))
        assert isinstance(error, ChatError)
        assert error.kind == "transport"
        assert error.retryable
        assert "HTTP 500" in str(error)
        assert "3 attempts" in str(error)
        assert server.requests["/v1/chat/completions"] == 3
        turned_down = chat_rejection("judge", "p-1", {"a": 1}, error)
        assert turned_down.failed
        assert turned_down.reason == "transport"


def test_nothing_is_lost_or_swapped_under_mixed_faults_and_slow_replies():
    faults = seeded_faults(dict.fromkeys(TRANSIENT, 0.02), seed=3)
    words = [f"word {n}" for n in range(300)]
    with (
        ScriptedServer(upper, faults=faults, latency_seconds=0.005, retry_after="0.01") as server,
        ChatClient(settings(server)) as client,
    ):
        answers = [
            (word, future.result(20).text)
            for word, future in in_order(words, lambda word: client.submit(request(word)), ahead=100)
        ]
        assert answers == [(word, word.upper()) for word in words]
        assert len(server.faults_sent) == len(TRANSIENT)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_back_every_request_of_the_window(form):
    wait = 1.0
    header = f"{wait}" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
    arrivals = []

    def brain(body):
        arrivals.append(time.monotonic())
        return "ok"

    def first_is_limited(body, times):
        return "rate_limit" if user_text(body) == "first" and times == 0 else None

    with (
        ScriptedServer(brain, faults=first_is_limited, retry_after=header) as server,
        ChatClient(settings(server)) as client,
    ):
        first = client.submit(request("first"))
        while not server.faults_sent:
            time.sleep(0.005)
        time.sleep(0.1)
        limited_at = time.monotonic() - 0.1
        others = [client.submit(request(f"other {n}")) for n in range(3)]
        for future in (first, *others):
            future.result(20)
    assert min(arrivals) - limited_at > 0.6


def test_retry_after_is_capped():
    plan = lambda body, times: "rate_limit" if times == 0 else None  # noqa: E731
    with (
        ScriptedServer(upper, faults=plan, retry_after="86400") as server,
        ChatClient(settings(server, max_retry_after_seconds=0.1)) as client,
    ):
        assert client.submit(request("hello")).result(10).text == "HELLO"


def test_one_window_for_all_threads_and_stages():
    with (
        ScriptedServer(upper, latency_seconds=0.02) as server,
        ChatClient(settings(server, max_in_flight=5)) as client,
    ):
        other_model = settings(server, max_in_flight=5, model="n", temperature=None)

        def stage(number):
            llm = other_model if number % 2 else None
            items = [f"stage {number} item {n}" for n in range(20)]
            futures = in_order(items, lambda item: client.submit(request(item, llm=llm)), ahead=20)
            return [future.result(20).text for _, future in futures]

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(stage, range(4)))
        assert results[2] == [f"STAGE 2 ITEM {n}" for n in range(20)]
        assert server.max_in_flight == 5
        assert client.usage().peak_in_flight == 5


def test_the_window_stays_full_while_a_slow_request_heads_the_line():
    def brain(body):
        return "ok"

    slow = {"item 0"}
    plan = lambda body, times: "hang" if user_text(body) in slow and times == 0 else None  # noqa: E731
    with (
        ScriptedServer(brain, faults=plan) as server,
        ChatClient(settings(server, max_in_flight=4, timeout_seconds=2)) as client,
    ):
        stream = in_order([f"item {n}" for n in range(40)], lambda item: client.submit(request(item)), ahead=30)
        _, first = next(stream)
        while server.requests["/v1/chat/completions"] < 30 and not first.done():
            time.sleep(0.005)
        assert not first.done()
        assert len(list(stream)) == 39


@pytest.mark.parametrize(
    ("reply", "kind", "raw"),
    [
        (Reply("cut of", finish_reason="length"), "length", "cut of"),
        (Reply(None, refusal="I will not."), "refusal", "I will not."),
        (Reply("", finish_reason="content_filter"), "refusal", ""),
        (StatusError(400, "maximum context length is 8 tokens", "context_length_exceeded"), "too_long", ""),
        (StatusError(400, "blocked", "content_filter"), "refusal", "blocked"),
        (StatusError(422, "odd field"), "request", ""),
    ],
)
def test_one_records_trouble_has_a_kind_and_is_not_retried(reply, kind, raw):
    def brain(body):
        if isinstance(reply, StatusError):
            raise reply
        return reply

    with ScriptedServer(brain) as server, ChatClient(settings(server)) as client:
        error = error_of(client.submit(request("hello")))
        assert isinstance(error, ChatError)
        assert (error.kind, error.raw) == (kind, raw)
        assert server.requests["/v1/chat/completions"] == 1
        assert chat_rejection("judge", "p-1", {}, error).failed == (kind == "request")


def test_a_reply_that_does_not_parse_is_sent_back_a_bounded_number_of_times():
    def brain(body):
        return '{"ok": 1}' if len(body["messages"]) == 5 else f"nonsense {len(body['messages'])}"

    with ScriptedServer(brain, keep_bodies=True) as server, ChatClient(settings(server)) as client:
        assert client.ask(request("hello"), json.loads).result(20) == {"ok": 1}
        assert [m["role"] for m in server.bodies[-1]["messages"]] == ["user", *["assistant", "user"] * 2]
        assert client.usage().reasks == 2


def test_an_unparseable_reply_is_a_format_error_with_the_raw_reply():
    with ScriptedServer(lambda body: "still nonsense") as server, ChatClient(settings(server)) as client:
        error = error_of(client.ask(request("hello"), json.loads))
        assert isinstance(error, ChatError)
        assert (error.kind, error.raw) == ("format", "still nonsense")
        assert server.requests["/v1/chat/completions"] == 3
        turned_down = chat_rejection("judge", "p-1", {"a": 1}, error, format_reason="unparseable")
        assert turned_down.reason == "unparseable"
        assert not turned_down.failed
        assert json.loads(turned_down.record)["raw"] == "still nonsense"


def test_a_wrong_key_ends_the_run_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123")
    with ScriptedServer(api_key="another") as server, ChatClient(settings(server)) as client:
        errors = [error_of(client.submit(request(f"hello {n}"))) for n in range(3)]
        assert not any(isinstance(error, ChatError) for error in errors)
        assert "OPENAI_API_KEY" in str(errors[0])
        assert "secret" not in str(errors)
        assert server.requests["/v1/chat/completions"] < 3  # later ones are not even sent


def test_the_key_comes_from_the_named_variable_and_is_masked_in_server_messages(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-123")

    def brain(body):
        raise StatusError(422, "key sk-secret-123 may not do this")

    with ScriptedServer(brain, api_key="sk-secret-123") as server:
        llm = settings(server, api_key_env="MY_KEY")
        with ChatClient(llm) as client:
            assert "key *** may not" in str(error_of(client.submit(request("hello"))))
        assert "secret" not in to_yaml(llm) + digest(llm) + repr(llm) + model_json(llm, Prompt("", "{{input}}"))


def test_an_unknown_model_ends_the_run():
    with ScriptedServer(models=["good"]) as server, ChatClient(settings(server, model="bad")) as client:
        error = error_of(client.submit(request("hello")))
        assert not isinstance(error, ChatError)
        assert "'bad'" in str(error)


def test_a_server_that_was_never_reached_ends_the_run_in_one_line():
    with ScriptedServer() as server:
        llm = settings(server)
    with ChatClient(llm) as client:
        errors = [error_of(client.submit(request(f"hello {n}"))) for n in range(2)]
        assert not any(isinstance(error, ChatError) for error in errors)
        assert "connection failed" in str(errors[0])
        assert "start the server" in str(errors[0])
        assert "\n" not in str(errors[0])
        assert client.usage().calls == 4


def test_a_server_that_dies_ends_the_run_in_one_line():
    with ScriptedServer(upper) as server:
        client = ChatClient(settings(server, max_retries=1, max_failures_in_a_row=20))
        assert client.submit(request("hello")).result(20).text == "HELLO"
    with client:
        errors = [error_of(client.submit(request(f"hello {n}"))) for n in range(30)]
        kinds = Counter(type(error).__name__ for error in errors)
        assert kinds == {"ChatError": 19, "BackendError": 11}
        assert "20 requests in a row failed" in str(errors[-1])
        assert "\n" not in str(errors[-1])


def test_a_few_failures_between_successes_do_not_end_the_run():
    plan = lambda body, times: "unavailable" if "bad" in user_text(body) else None  # noqa: E731
    with (
        ScriptedServer(upper, faults=plan) as server,
        ChatClient(settings(server, max_retries=0, max_failures_in_a_row=3, max_in_flight=1)) as client,
    ):
        futures = [client.submit(request(text)) for text in ["bad 1", "bad 2", "good"] * 5]
        concurrent.futures.wait(futures, 20)
        assert [future.exception() is None for future in futures] == [False, False, True] * 5


def test_closing_cancels_what_is_under_way_and_drops_the_connections():
    with ScriptedServer(faults=lambda body, times: "hang") as server:
        client = ChatClient(settings(server))
        futures = [client.submit(request(f"hello {n}")) for n in range(100)]
        while server.in_flight < 64:
            time.sleep(0.01)
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 5
        assert all(future.cancelled() for future in futures)
        assert not any(thread.name == "chat-client" for thread in threading.enumerate())
        client.close()
        with pytest.raises(BackendError, match="closed"):
            client.submit(request("too late"))


def test_a_client_that_asks_nothing_starts_no_thread_and_reads_no_cache(tmp_path):
    (tmp_path / "segment.jsonl").mkdir()  # no cache can be read here
    with ScriptedServer(upper) as server, ChatClient(settings(server), ResponseCache(tmp_path)) as client:
        assert client.usage() == Usage()
        assert not any(thread.name == "chat-client" for thread in threading.enumerate())
        with pytest.raises(ConfigError, match="cannot be opened"):
            client.submit(request("hello")).result(20)
    client.close()


def test_a_reader_that_stops_early_cancels_its_requests():
    with (
        ScriptedServer(faults=lambda body, times: "hang" if user_text(body) != "0" else None) as server,
        ChatClient(settings(server)) as client,
    ):
        started = []

        def start(item):
            started.append(client.submit(request(item)))
            return started[-1]

        stream = in_order(map(str, range(50)), start, ahead=10)
        next(stream)
        stream.close()
        assert all(future.cancelled() or future.done() for future in started[1:])


def test_cached_replies_make_redoing_free(tmp_path):
    with ScriptedServer(upper) as server:
        for run in range(2):
            with ChatClient(settings(server), ResponseCache(tmp_path / "cache")) as client:
                replies = [client.submit(request(f"hello {n % 3}")).result(20) for n in range(6)]
                assert [reply.text for reply in replies] == ["HELLO 0", "HELLO 1", "HELLO 2"] * 2
                assert all(isinstance(reply, ChatReply) for reply in replies)
                assert client.usage().cached == (3 if run == 0 else 6)
        assert server.requests["/v1/chat/completions"] == 3


def test_another_revision_is_another_cache_entry_and_never_sent(tmp_path):
    with ScriptedServer(upper, keep_bodies=True) as server:
        for revision in (None, "a", "a", "b", None):
            with ChatClient(settings(server, revision=revision), ResponseCache(tmp_path / "cache")) as client:
                client.submit(request("x")).result(20)
    assert len(server.bodies) == 3
    assert all("revision" not in body for body in server.bodies)


def test_another_model_or_limit_is_another_cache_entry_but_another_address_is_not(tmp_path):
    with ScriptedServer(upper) as server, ScriptedServer(upper) as moved:
        for llm, calls in [
            (settings(server), 1),
            (settings(server, model="other"), 1),
            (settings(server, max_tokens=7), 1),
            (settings(moved), 0),
            (settings(moved, max_in_flight=3, timeout_seconds=9), 0),
        ]:
            with ChatClient(llm, ResponseCache(tmp_path)) as client:
                client.submit(request("hello")).result(20)
                assert client.usage().calls == calls


def test_a_request_with_a_lone_surrogate_is_turned_down_alone():
    with ScriptedServer(upper) as server, ChatClient(settings(server)) as client:
        assert error_of(client.submit(request("bad \ud800"))).kind == "request"
        assert client.submit(request("good")).result(20).text == "GOOD"


def test_a_lone_surrogate_in_a_reply_never_gets_past_the_endpoint(tmp_path):
    def brain(body):
        if user_text(body) == "odd":
            raise StatusError(422, "odd \udc00 text")
        return Reply(
            "good \U0001f600 \udc00",
            finish_reason="stop\ud800",
            refusal="no \udfff" if user_text(body) == "no" else None,
        )

    with (
        ScriptedServer(brain, faults=lambda body, times: "surrogate" if user_text(body) == "half" else None) as server,
        ChatClient(settings(server), ResponseCache(tmp_path)) as client,
    ):
        assert client.submit(request("half")).result(20).text == "half \ufffd a pair"
        reply = client.submit(request("whole")).result(20)
        assert (reply.text, reply.finish_reason) == ("good \U0001f600 \ufffd", "stop\ufffd")
        assert error_of(client.submit(request("no"))).raw == "no \ufffd"
        refused = [
            error_of(client.ask(request("half", llm=settings(server, max_reasks=1)), json.loads)),
            error_of(client.submit(request("odd"))),
        ]
        assert to_table([chat_rejection("judge", "p-1", {}, error) for error in refused], Rejection).num_rows == 2
