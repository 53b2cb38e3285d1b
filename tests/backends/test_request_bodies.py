"""What a request asks of the server: sampling, and how far it holds the reply to a schema."""

import re

import pytest
from chat_requests import error_of, request, settings, upper

from fineinstructions.backends.capabilities import Capabilities, model_key
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.backends.structured import gbnf
from fineinstructions.pairs import instantiate, judge
from fineinstructions.templates import genericize

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        ("schema", "json_schema"),
        ("object", "json_object"),
        ("ignore", None),
        ("reject", None),
        ("break", None),
        ("structured_outputs", {"json": SCHEMA}),
        ("guided_json", SCHEMA),
        ("grammar", gbnf(SCHEMA)),
    ],
)
def test_auto_finds_out_what_the_server_enforces(structured, sent):
    with ScriptedServer(lambda body: "plain", structured=structured, keep_bodies=True) as server:
        with ChatClient(settings(server, max_retries=1)) as client:
            for number in range(3):
                client.submit(request(f"hello {number}", schema=SCHEMA)).result(20)
        used = [body for body in server.bodies if len(body["messages"]) == 1]
        assert len(used) == 3
        for body in used:
            field = "response_format" if sent in ("json_schema", "json_object") else structured
            found = body.get(field)
            assert (found["type"] if field == "response_format" else found) == sent
        assert len(server.bodies) <= 3 + 5 * 3


def test_capabilities_are_what_the_server_gives():
    able = ScriptedServer(lambda body: "plain", models=["m"], max_model_len=4096, structured="grammar")
    with able as server, ChatClient(settings(server)) as client:
        found = client.capabilities(settings(server)).result(20)
        assert found == Capabilities("grammar", logprobs=True, context_tokens=4096, served_as="m", answers_as="m")
        assert client.context_tokens() == 4096
    poor = ScriptedServer(lambda body: "plain", logprobs="ignore", structured="schema")
    with poor as server, ChatClient(settings(server)) as client:
        found = client.capabilities(settings(server)).result(20)
        assert found == Capabilities(
            "schema", logprobs=False, context_tokens=None, served_as="scripted", answers_as="m"
        )


def test_what_is_known_of_a_model_is_not_tried_out():
    with ScriptedServer(lambda body: "plain", keep_bodies=True) as server:
        llm = settings(server)
        known = {model_key(llm): Capabilities("guided_json", logprobs=False, context_tokens=77)}
        with ChatClient(llm, known=known) as client:
            client.submit(request("hello", schema=SCHEMA, logprobs=True)).result(20)
            assert client.context_tokens() == 77
        (body,) = server.bodies
        assert body["guided_json"] == SCHEMA
        assert "logprobs" not in body
        assert dict(server.requests) == {"/v1/chat/completions": 1}


@pytest.mark.parametrize("schema", [genericize.SCHEMA, instantiate.SCHEMA, judge.SCHEMA])
def test_every_schema_of_ours_has_a_grammar(schema):
    names = re.findall(r'"\\"(\w+)\\""', gbnf(schema))
    assert set(schema["properties"]) <= set(names)


def test_a_schema_without_a_grammar_is_asked_for_in_words_only():
    with ScriptedServer(lambda body: "plain", keep_bodies=True) as server:
        with ChatClient(settings(server, structured="grammar")) as client:
            client.submit(request("hello", schema={"anyOf": []})).result(20)
        assert "grammar" not in server.bodies[0]


def test_trouble_on_the_way_never_decides_what_a_server_can_do():
    down = [True]
    with (
        ScriptedServer(
            upper, structured="schema", faults=lambda body, times: "unavailable" if down[0] else None, keep_bodies=True
        ) as server,
        ChatClient(settings(server, max_retries=1)) as client,
    ):
        lost = [client.submit(request(f"hello {n}", schema={})) for n in range(3)]
        assert {error_of(future).kind for future in lost} == {"transport"}
        assert "HTTP 503" in str(error_of(lost[0]))
        down[0] = False
        client.submit(request("hello", schema={})).result(20)
        assert server.bodies[-1]["response_format"]["type"] == "json_schema"


def test_a_fixed_mode_is_not_tried_out():
    with (
        ScriptedServer(upper, structured="ignore", keep_bodies=True) as server,
        ChatClient(settings(server, structured="object")) as client,
    ):
        client.submit(request("hello", schema={})).result(20)
        assert [body["response_format"] for body in server.bodies] == [{"type": "json_object"}]


def test_the_body_holds_what_the_settings_say():
    with ScriptedServer(upper, keep_bodies=True) as server:
        llm = settings(server, seed=7, top_p=0.9, max_tokens=5, extra_body={"min_p": 0.1}, temperature=None)
        with ChatClient(llm) as client:
            client.submit(request("hello")).result(20)
        assert server.bodies == [
            {
                "model": "m",
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 5,
                "top_p": 0.9,
                "seed": 7,
                "min_p": 0.1,
            }
        ]
