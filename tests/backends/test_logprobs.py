"""Log-probabilities of a reply's tokens: over HTTP, through the cache, from servers that refuse or ignore them."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from chat_requests import error_of, request, settings, upper, user_text
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.logprobs import (
    MIN_LOGPROB,
    REQUEST_FIELDS,
    TokenLogprob,
    from_plain_logprobs,
    read_logprobs,
    to_plain_logprobs,
    token_at,
)
from fineinstructions.backends.scripted_server import Reply, ScriptedServer, StatusError


def entry(token, logprob=-0.1, others=(), raw=None):
    top = [{"token": text, "logprob": value} for text, value in others]
    return {"token": token, "logprob": logprob, "bytes": raw, "top_logprobs": top}


def grade(body):
    return "The answer names 3 of 4. Score: 4"


def test_the_tokens_of_a_reply_come_with_their_alternatives():
    with ScriptedServer(grade, keep_bodies=True) as server, ChatClient(settings(server)) as client:
        reply = client.submit(request("hello", logprobs=True)).result(20)
        assert server.bodies[-1].items() >= REQUEST_FIELDS.items()
    assert reply.logprobs is not None
    assert "".join(token.token for token in reply.logprobs) == reply.text
    last = reply.logprobs[-1]
    assert last.token == " 4"
    assert [text for text, _ in last.alternatives][:2] == [" 4", " 3"]
    assert math.isclose(sum(math.exp(value) for _, value in last.alternatives), 1, rel_tol=1e-4)


def test_nobody_pays_for_log_probabilities_that_were_not_asked_for():
    with ScriptedServer(grade, keep_bodies=True) as server, ChatClient(settings(server)) as client:
        assert client.submit(request("hello")).result(20).logprobs is None
        assert len(server.bodies) == 1
        assert not REQUEST_FIELDS.keys() & server.bodies[0].keys()


def test_they_survive_the_cache(tmp_path):
    with ScriptedServer(grade) as server:
        replies = []
        for _ in range(2):
            with ChatClient(settings(server), ResponseCache(tmp_path)) as client:
                replies.append(client.submit(request("hello", logprobs=True)).result(20))
    first, second = replies
    assert (first.cached, second.cached) == (False, True)
    assert first.logprobs is not None
    assert first.logprobs == second.logprobs


def test_entries_of_an_older_cache_are_still_read(tmp_path):
    with ScriptedServer(upper) as server:
        with ChatClient(settings(server), ResponseCache(tmp_path)) as client:
            client.submit(request("hello")).result(20)
        (segment,) = tmp_path.iterdir()
        entry = json.loads(segment.read_text())
        entry["value"].pop("seconds", None)  # newer than such a cache
        segment.write_text(json.dumps(entry, separators=(",", ":")) + "\n")
        assert entry["value"] == {
            "text": "HELLO",
            "finish_reason": "stop",
            "refusal": "",
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }
        with ChatClient(settings(server), ResponseCache(tmp_path)) as client:
            reply = client.submit(request("hello")).result(20)
    assert (reply.text, reply.cached, reply.logprobs) == ("HELLO", True, None)


def test_a_server_that_refuses_them_does_so_once_for_all_requests():
    with (
        ScriptedServer(upper, logprobs="reject", latency_seconds=0.01) as server,
        ChatClient(settings(server, max_failures_in_a_row=2)) as client,
    ):
        futures = [client.submit(request(f"hello {n}", logprobs=True)) for n in range(100)]
        replies = [future.result(20) for future in futures]
        assert client.usage().calls == 101
    assert [reply.text for reply in replies] == [f"HELLO {n}" for n in range(100)]
    assert {reply.logprobs for reply in replies} == {None}


def test_a_server_that_refuses_them_for_one_model_may_give_them_for_another():
    def brain(body):
        if body["model"] == "small" and "logprobs" in body:
            raise StatusError(422, "unknown field logprobs")
        return "4"

    with ScriptedServer(brain) as server, ChatClient(settings(server)) as client:
        for model, given in (("small", False), ("large", True)):
            reply = client.submit(request("hello", logprobs=True, llm=settings(server, model=model))).result(20)
            assert (reply.logprobs is not None) == given


def test_a_server_that_ignores_them_gives_none():
    with ScriptedServer(upper, logprobs="ignore") as server, ChatClient(settings(server)) as client:
        reply = client.submit(request("hello", logprobs=True)).result(20)
        assert (reply.text, reply.logprobs) == ("HELLO", None)


def test_trouble_on_the_way_never_decides_whether_a_server_gives_them():
    down = [True]
    with (
        ScriptedServer(upper, faults=lambda body, times: "unavailable" if down[0] else None) as server,
        ChatClient(settings(server, max_retries=1)) as client,
    ):
        lost = [client.submit(request(f"hello {n}", logprobs=True)) for n in range(3)]
        assert {error_of(future).kind for future in lost} == {"transport"}
        down[0] = False
        assert client.submit(request("hello", logprobs=True)).result(20).logprobs is not None


def test_a_parser_may_see_the_whole_reply_and_ask_again():
    def brain(body):
        return "again" if len(body["messages"]) == 1 else "Score: 4"

    def parse(reply):
        if reply.text == "again":
            raise ValueError("no score")
        return reply.text, reply.logprobs[-1].token

    with ScriptedServer(brain) as server, ChatClient(settings(server)) as client:
        assert client.ask_whole(request("hello", logprobs=True), parse).result(20) == ("Score: 4", " 4")
        assert client.usage().reasks == 1


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "tokens",
        [3],
        [{"logprob": -1.0}],
        [{"token": 4, "logprob": -1.0}],
        [{"token": "4", "logprob": None}],
        [{"token": "4", "logprob": "-1"}],
        [{"token": "4", "logprob": float("-inf")}],
        [{"token": "4", "logprob": 1000.0}],
        [{"token": "4", "logprob": 10**400}],
        [{"token": "4", "logprob": -1.0, "top_logprobs": [{"token": "5", "logprob": 1000.0}]}],
        [{"token": "4", "logprob": -1.0, "top_logprobs": [{"token": "5", "logprob": 10**400}]}],
        [{"token": "4", "logprob": -1.0, "top_logprobs": [{"token": "5"}]}],
        [{"token": "4", "logprob": -1.0, "top_logprobs": 3}],
        [{"token": "4", "logprob": -1.0, "bytes": ["a"]}],
        [{"token": "4", "logprob": -1.0, "bytes": [999]}],
    ],
)
def test_what_is_no_log_probability_is_left_out_without_trouble(content):
    with ScriptedServer(lambda body: Reply("4", logprobs=content)) as server, ChatClient(settings(server)) as client:
        reply = client.submit(request("hello", logprobs=True)).result(20)
    assert reply.text == "4"
    assert read_logprobs({"content": content}) is None
    assert (reply.logprobs is None) == (content is not None)  # None asks the server for made-up ones


def test_improbable_alternatives_are_dropped_and_numbers_are_short():
    others = [("4", -0.123456789), ("5", MIN_LOGPROB - 0.01), ("3", -9999.0), ("2", float("-inf"))]
    (token,) = read_logprobs({"content": [entry("4", -0.123456789, others)]})
    assert token == TokenLogprob("4", -0.123457, (("4", -0.123457),))
    assert from_plain_logprobs(json.loads(json.dumps(to_plain_logprobs([token])))) == (token,)


def test_a_character_of_several_tokens_belongs_to_the_last_of_them():
    smile = "\U0001f600".encode()
    parts = [entry("\ufffd", raw=list(smile[:2])), entry("\ufffd", raw=list(smile[2:])), entry(" 4", raw=[32, 52])]
    tokens = read_logprobs({"content": parts})
    assert [token.token for token in tokens] == ["", "\U0001f600", " 4"]


def test_a_lone_surrogate_in_a_token_can_be_stored():
    (token,) = read_logprobs({"content": [entry("\ud83d", others=[("\udc00", -1.0)])]})
    assert to_plain_logprobs([token]) == [["?", -0.1, [["?", -1.0]]]]


TOKENS = ("3", " of", " 4", ".", "\n", "<score>", "4", "</", "score>")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (TOKENS, "3 of 4.\n<score>4</score>"),
        (("\n", *TOKENS), "3 of 4.\n<score>4</score>"),
        ((*TOKENS, "\n"), "3 of 4.\n<score>4</score>"),
        ((*TOKENS, "\n", "<|end|>", "</s>"), "3 of 4.\n<score>4</score>"),
        (("<s>", *TOKENS), "3 of 4.\n<score>4</score>"),
        (("<think>", "3", " of", " 4", ".", "</think>", *TOKENS), "3 of 4.\n<score>4</score>"),
        (("\ufffd\ufffd", *TOKENS), "\U0001f600" + "3 of 4.\n<score>4</score>"),
        ((*TOKENS, "\ufffd\ufffd"), "3 of 4.\n<score>4</score>\U0001f600"),
    ],
)
def test_the_token_of_a_place_in_the_text(tokens, text):
    numbered = [TokenLogprob(token, -float(number)) for number, token in enumerate(tokens)]
    found = token_at(numbered, text, text.index("<score>4") + len("<score>"))
    assert found is not None
    assert found == (numbered[tokens.index("<score>") + 1], 0)


def test_a_reply_that_is_one_digit_is_not_sought_among_the_thoughts():
    numbered = [TokenLogprob(token, -float(number)) for number, token in enumerate(("4", " or", " 5", "?", "4"))]
    assert token_at(numbered, "4", 0) == (numbered[-1], 0)


@pytest.mark.parametrize("tokens", [(), ("four",), ("4", "x", "y", "z", "t"), ("5",)])
def test_tokens_of_another_text_hold_no_place_in_it(tokens):
    assert token_at([TokenLogprob(token, 0.0) for token in tokens], "Score: 4", 7) is None


@given(st.lists(st.text(max_size=6), min_size=1, max_size=12), st.data())
def test_the_token_is_found_wherever_a_reply_is_cut(parts, data):
    text = "".join(parts)
    places = [place for place, character in enumerate(text) if not character.isspace()]
    if not places:
        return
    position = data.draw(st.sampled_from(places))
    found = token_at([TokenLogprob(part, -float(number)) for number, part in enumerate(parts)], text, position)
    assert found is not None
    token, place = found
    assert token.token[place] == text[position]
    assert len("".join(parts[: int(-token.logprob)])) + place == position


def test_the_request_of_a_reply_is_not_mixed_with_that_of_another():
    def brain(body):
        return f"{user_text(body)}: {len(user_text(body)) % 5 + 1}"

    with ScriptedServer(brain, latency_seconds=0.003) as server, ChatClient(settings(server)) as client:
        texts = [f"text{'x' * n}" for n in range(50)]
        futures = [client.submit(request(text, logprobs=True)) for text in texts]
        for text, future in zip(texts, futures, strict=True):
            reply = future.result(20)
            assert "".join(token.token for token in reply.logprobs) == reply.text == f"{text}: {len(text) % 5 + 1}"


def test_a_server_that_falls_over_the_question_has_no_probabilities() -> None:
    """It answers without the question, so that is what it can do, and none of it counts as a failure."""

    def fault(body: Any, times: int) -> str | None:
        return "server_error" if "logprobs" in body else None

    with ScriptedServer(faults=fault) as server:
        llm = settings(server, max_retries=1, max_failures_in_a_row=1)
        with ChatClient(llm) as client:
            found = client.capabilities(llm).result()
            assert not found.logprobs
            assert client.submit(replace(request("Go."), logprobs=True)).result().text


def test_questions_that_find_out_never_end_a_run() -> None:
    with ScriptedServer(logprobs="reject") as server:
        llm = settings(server, max_failures_in_a_row=1)
        with ChatClient(llm) as client:
            assert not client.capabilities(llm).result().logprobs
