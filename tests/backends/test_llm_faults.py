"""Faults of a model server beyond those of `test_llm`: every request ends with its own answer or its own reason."""

import itertools
import json
import re
import time
from collections import Counter

import pytest
from chat_requests import error_of, request, settings, upper, user_text

from fineinstructions.backends.llm import ChatClient, ChatError
from fineinstructions.backends.scripted_server import Reply, ScriptedServer, StatusError, seeded_faults


def test_a_limit_without_retry_after_waits_longer_each_time() -> None:
    arrivals: list[float] = []

    def brain(body):
        arrivals.append(time.monotonic())
        if len(arrivals) < 5:
            raise StatusError(429, "slow down")
        return "ok"

    with ScriptedServer(brain) as server, ChatClient(settings(server, backoff_seconds=0.05)) as client:
        assert client.submit(request("hello")).result(20).text == "ok"
    waits = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert all(wait >= 0.5 * 0.05 * 2**attempt for attempt, wait in enumerate(waits))


@pytest.mark.parametrize("header", ["-3", "soon", "1e400", "99999999999999999999", "NaN", "Wed, 99 Foo 2099", "", "0"])
def test_a_senseless_retry_after_holds_nobody_up(header: str) -> None:
    plan = lambda body, times: "rate_limit" if times == 0 else None  # noqa: E731
    with (
        ScriptedServer(upper, faults=plan, retry_after=header) as server,
        ChatClient(settings(server, max_retry_after_seconds=0.1)) as client,
    ):
        assert client.submit(request("hello")).result(20).text == "HELLO"


def test_a_server_that_answers_for_another_model_is_believed_about_the_text_only() -> None:
    """Gateways name the model in many ways; lineage holds what was asked for, and a run tells of the other name."""
    with (
        ScriptedServer(lambda body: Reply(upper(body), model=user_text(body))) as server,
        ChatClient(settings(server, model="org/llama-8b")) as client,
    ):
        for name in ("another", "llama-8b", "llama-8b-2026-08"):
            assert client.submit(request(name)).result(20).text == name.upper()
        assert client.usage().calls == 3
        assert client.other_models == {("org/llama-8b", "another"): 1}


def test_garbage_in_a_tenth_of_the_replies_costs_that_tenth_a_question_more() -> None:
    def brain(body):
        return json.dumps({"said": user_text(body)})

    number = 300
    with (
        ScriptedServer(brain, faults=seeded_faults({"garbage": 0.1}, seed=5)) as server,
        ChatClient(settings(server)) as client,
    ):
        futures = [client.ask(request(f"word {n}"), json.loads) for n in range(number)]
        answers, lost = [], Counter()
        for n, future in enumerate(futures):
            error = future.exception(30)
            if error is None:
                answers.append(future.result() == {"said": f"word {n}"})
            else:
                assert isinstance(error, ChatError)
                lost[error.kind] += 1
        assert all(answers)
        assert len(answers) + lost["format"] == number
        assert lost["format"] <= 3  # garbage three times in a row: one in a thousand
        assert server.faults_sent["garbage"] > number / 20
        assert client.usage().reasks >= server.faults_sent["garbage"] - 3 * lost["format"]


def test_a_server_that_only_sends_garbage_loses_every_record_and_ends_no_run() -> None:
    with ScriptedServer(lambda body: "]}garbage{[") as server, ChatClient(settings(server, max_reasks=1)) as client:
        errors = [error_of(client.ask(request(f"word {n}"), json.loads)) for n in range(40)]
    assert {type(error) for error in errors} == {ChatError}
    assert {error.kind for error in errors} == {"format"}
    assert {error.raw for error in errors} == {"]}garbage{["}


def test_answers_for_other_prompts_stay_with_the_request_they_came_for() -> None:
    """A server that mixes its answers up cannot move one to another record: each connection answers its own request."""
    before: list[str] = ["nobody"]

    def brain(body):
        before.append(user_text(body))
        return f"answer for {before[-2]}"

    with ScriptedServer(brain) as server, ChatClient(settings(server, max_in_flight=1)) as client:
        replies = [client.submit(request(f"word {n}")).result(20).text for n in range(10)]
    assert replies == ["answer for nobody", *(f"answer for word {n}" for n in range(9))]


@pytest.mark.parametrize(
    "fault",
    [
        *("rate_limit", "server_error", "unavailable", "reset", "half_body", "wrong_type"),
        *("bad_json", "no_choice", "hang"),
    ],
)
def test_a_server_that_only_fails_ends_the_run_in_one_line_that_says_why(fault: str) -> None:
    said = {
        "rate_limit": "HTTP 429",
        "server_error": "HTTP 500",
        "unavailable": "HTTP 503",
        "reset": "connection failed",
        "half_body": "connection failed",
        "wrong_type": "the body is no chat completion",
        "bad_json": "the body is no chat completion",
        "no_choice": "the body is no chat completion",
        "hang": "no reply within 0.1 s",
    }
    plan = lambda body, times: fault  # noqa: E731
    seconds = 0.1 if fault == "hang" else 30
    limits = {"max_retries": 1, "max_failures_in_a_row": 5, "max_in_flight": 4, "timeout_seconds": seconds}
    with ScriptedServer(upper, faults=plan) as server, ChatClient(settings(server, **limits)) as client:
        errors = [error_of(future) for future in [client.submit(request(f"hello {n}")) for n in range(30)]]
        asked = server.requests["/v1/chat/completions"]
        later = [error_of(client.submit(request(f"later {n}"))) for n in range(5)]
        assert server.requests["/v1/chat/completions"] == asked
    assert {str(error) for error in later} == {str(later[0])}
    fatal = [error for error in errors if not isinstance(error, ChatError)]
    assert fatal
    assert all(len(str(error).splitlines()) == 1 for error in errors)
    assert re.search(r": [5-9] requests in a row failed, the last with: ", str(fatal[0]))
    assert said[fault] in str(fatal[0])
    assert "see to the server, then go on" in str(fatal[0])


def test_half_an_answer_is_never_taken_for_a_whole_one() -> None:
    def brain(body):
        return Reply('{"half": ', finish_reason="length")

    with ScriptedServer(brain) as server, ChatClient(settings(server)) as client:
        error = error_of(client.ask(request("hello"), json.loads))
    assert (error.kind, error.raw) == ("length", '{"half": ')
