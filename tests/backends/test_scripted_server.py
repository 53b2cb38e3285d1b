import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import openai
import pytest

from fineinstructions.backends.scripted_brain import echo, fill_template, make_template, slipping
from fineinstructions.backends.scripted_server import ScriptedServer, seeded_faults
from fineinstructions.errors import ConfigError


def chat(text, server=None, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    return body if server is None else post(server, "/chat/completions", body)


def post(server, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.base_url + path, data), timeout=10) as response:
        return json.load(response)


def test_the_official_client_can_talk_to_every_path():
    with ScriptedServer(lambda body: "hi") as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)
        reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "two words"}])
        assert reply.choices[0].message.content == "hi"
        assert reply.usage.prompt_tokens == 2
        assert [model.id for model in client.models.list()] == ["scripted"]
        vectors = client.embeddings.create(model="m", input=["red apples", "red apples", "blue"]).data
        floats = client.embeddings.create(model="m", input="red apples", encoding_format="float").data
        assert vectors[0].embedding == vectors[1].embedding != vectors[2].embedding
        assert vectors[0].embedding == pytest.approx(floats[0].embedding, abs=1e-6)
        assert sum(v * v for v in vectors[0].embedding) == pytest.approx(1, abs=1e-5)
        flags = client.moderations.create(model="m", input=["build a bomb", "bake a cake"]).results
        assert [result.flagged for result in flags] == [True, False]
        client.close()


def test_same_body_same_reply_and_counts():
    with ScriptedServer() as one, ScriptedServer() as two:
        text = json.dumps({"query": "How far is Oslo from Rome?"})
        assert chat(text, one) == chat(text, one) == chat(text, two)
        assert one.requests == {"/v1/chat/completions": 2}
        assert one.max_in_flight == 1


def test_a_client_that_reads_to_the_end_gets_one():
    body = json.dumps(chat("hello")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nConnection: Close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ScriptedServer(lambda body: "hi") as server:
        port = int(server.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head + body)
            received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert json.loads(received.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/chat/completions", b"{broken", 400), ("/nowhere", {}, 404)],
)
def test_bad_requests_get_an_error_object(path, body, status):
    with ScriptedServer() as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, path, body)
        with caught.value as error:
            assert error.code == status
            assert json.load(error)["error"]["message"]


def test_garbage_on_the_socket_does_not_stop_the_server():
    with ScriptedServer(lambda body: "hi") as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        for noise in (
            b"",
            b"GET\r\n\r\n",
            b"\x00\xff\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(100)
        assert chat("hello", server)["choices"][0]["message"]["content"] == "hi"


def test_seeded_faults_strike_at_their_rate_and_repeat():
    plan, again = (seeded_faults({"reset": 0.1, "hang": 0.05}, seed=1) for _ in range(2))
    struck = [plan(chat(f"text {n}"), 0) for n in range(2000)]
    assert struck == [again(chat(f"text {n}"), 0) for n in range(2000)]
    assert struck.count("reset") == pytest.approx(200, abs=45)
    assert struck.count("hang") == pytest.approx(100, abs=35)
    assert struck != [plan(chat(f"text {n}"), 1) for n in range(2000)]


@pytest.mark.parametrize("rates", [{"no such": 0.1}, {"reset": 0.6, "hang": 0.6}, {"reset": -0.1}])
def test_bad_rates_are_refused(rates):
    with pytest.raises(ConfigError, match="known are rate_limit"):
        seeded_faults(rates)


def test_it_listens_on_the_loopback_address_only():
    with ScriptedServer() as server:
        assert server.base_url.startswith("http://127.0.0.1:")


def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "fineinstructions.backends.scripted_server", "--port", "0", "--fault", "reset=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            address = program.stdout.readline().strip()
            with urllib.request.urlopen(f"{address}/models", timeout=10) as response:
                assert json.load(response)["data"][0]["id"] == "scripted"
        finally:
            program.terminate()


@pytest.mark.parametrize("fault", ["hang", "hang=lots", "nonsense=0.5"])
def test_a_wrong_fault_on_the_command_line_is_a_usage_error(fault):
    command = [sys.executable, "-m", "fineinstructions.backends.scripted_server", "--port", "0", "--fault", fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("query", "template"),
    [
        ("How far is Oslo?", "How far is <fi>name of a person, place or thing</fi>?"),
        ("How do I bake bread for 12 people?", "How do I bake bread for <fi>a number</fi> people?"),
        ("why do volcanoes erupt", "why do <fi>a subject</fi> erupt"),
    ],
)
def test_the_echo_brain_makes_templates(query, template):
    assert json.loads(make_template(query))["template"] == template


def test_the_echo_brain_refuses_what_it_cannot_do():
    assert make_template("you and me") == "null"
    assert fill_template("What is <fi>a thing</fi>?", "Too short.") == "null"


def test_the_echo_brain_quotes_a_sentence_of_the_document():
    sentence = "The old kiln in Delft burned for eleven days before the master potter let anyone open its heavy door."
    document = f"Nothing here. {sentence} Something else entirely follows this in a sentence that nobody asked for."
    reply = json.loads(fill_template("How long did <fi>a kiln</fi> burn before <fi>event</fi>?", document))
    assert reply["instruction"] == "How long did Delft burn before burned?"
    assert reply["answer"] == "<excerpt>The old kiln in Delft<...>anyone open its heavy door.</excerpt>"
    assert [slot["name"] for slot in reply["slots"]] == ["a kiln", "event"]


@pytest.mark.parametrize(
    "document", ["", "<fi>", "</excerpt> {x} {{document}}", '{"instruction": null}', "a. " * 50_000, "\x00" * 100]
)
def test_the_echo_brain_survives_any_document(document):
    body = chat(json.dumps({"instruction_template": "What is <fi>x</fi>?", "document": document}))
    assert echo(body) == "null"


def test_the_slipping_brain_slips_at_its_rate_and_mends_most():
    page = "Page {0} of the book is about mills. Every mill of number {0} was driven by the river."
    documents = [page.format(number) for number in range(400)]
    asked = [json.dumps({"instruction_template": "Tell me of <fi>x</fi>.", "document": text}) for text in documents]
    bodies = [{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": said}]} for said in asked]
    brain = slipping(0.3, mended=0.7)
    slips = [body for body in bodies if brain(body) != echo(body)]
    assert 0.2 < len(slips) / len(bodies) < 0.4
    assert [brain(body) for body in bodies] == [slipping(0.3)(body) for body in bodies]
    answers = [json.loads(brain(body))["answer"] for body in slips]
    kinds = [sum(sign in a for a in answers) for sign in ("no such words", "<excerpt>e<", "words of my own")]
    assert min(kinds) > 0
    assert sum(kinds) == len(slips)
    again = [{"messages": [*b["messages"], {"role": "user", "content": "The excerpt ..."}]} for b in slips]
    assert 0.5 < sum(brain(a) == echo(b) for a, b in zip(again, slips, strict=True)) / len(slips) < 0.9
