"""What a request asks of the server: sampling, and how far it holds the reply to a schema."""

import pytest
from chat_requests import error_of, request, settings, upper

from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("structured", "sent"), [("schema", "json_schema"), ("object", "json_object"), ("ignore", None), ("reject", None)]
)
def test_auto_finds_out_what_the_server_enforces(structured, sent, tmp_path):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    with ScriptedServer(lambda body: "plain", structured=structured, keep_bodies=True) as server:
        with ChatClient(settings(server)) as client:
            for number in range(3):
                client.submit(request(f"hello {number}", schema=schema)).result(20)
        used = [body.get("response_format", {}).get("type") for body in server.bodies if len(body["messages"]) == 1]
        assert used == [sent] * 3
        assert len(server.bodies) <= 5


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
