"""The way to a server, against a real one and against raw bytes."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fineinstructions.backends import wire
from fineinstructions.backends.scripted_brain import embeddings
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.backends.wire import CHAT, EMBEDDINGS, MODELS, Wire, WireError, proxy_for

ASKED = {"model": "m", "messages": [{"role": "user", "content": "grüße \u2028 \U0001f600"}], "max_tokens": 5}
OK = b"HTTP/1.1 200 OK\r\n"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def with_wire(opened: Wire, work: Callable[[Wire], Awaitable[Any]]) -> Any:
    try:
        return await work(opened)
    finally:
        await opened.close()


def test_what_is_sent_and_heard() -> None:
    async def ask(opened: Wire) -> None:
        reply = await opened.send(CHAT, ASKED)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert json.loads(reply.text)["choices"][0]["message"]["content"] == "hi \u00fc"
        vectors = json.loads(
            (await opened.send(EMBEDDINGS, {"model": "m", "input": ["a"], "encoding_format": "float"})).text
        )
        assert vectors["data"] == embeddings({"input": ["a"], "encoding_format": "float"})["data"]
        assert json.loads((await opened.send(MODELS, {})).text)["data"][0]["id"] == "m"
        refused = await opened.send(CHAT, ASKED | {"model": "other"})
        assert (refused.status, "does not exist" in refused.text) == (404, True)

    with ScriptedServer(lambda body: "hi \u00fc", models=["m"], api_key="sk-1", keep_bodies=True) as server:
        run(with_wire(Wire(server.base_url, "sk-1"), ask))
        assert server.bodies[0] == ASKED
        assert server.requests.total() == 4


def test_nobody_there_and_a_reply_that_ends_early() -> None:
    async def ask(opened: Wire) -> WireError:
        with pytest.raises(WireError) as caught:
            await opened.send(CHAT, ASKED)
        return caught.value

    with ScriptedServer(faults=lambda body, times: "half_body") as server:
        assert not run(with_wire(Wire(server.base_url, "none"), ask)).is_unreachable
    assert run(with_wire(Wire(server.base_url, "none"), ask)).is_unreachable


class RawServer:
    """Answers each request with the next of some bytes; a connection whose bytes end with `HANGS_UP` is closed then."""

    HANGS_UP = b"<hangs up>"

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.num_connections = list(answers), 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.split("Content-Length: ")[1].split("\r\n")[0]))
                answer = self.answers.pop(0)
                writer.write(answer.removesuffix(self.HANGS_UP))
                await writer.drain()
                if answer.endswith(self.HANGS_UP):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def answers_to(*answers: bytes) -> tuple[list[Any], int]:
    """What somebody hears who asks as often as there are answers; and over how many connections."""
    heard: list[Any] = []
    server = RawServer(*answers)
    async with server as address:
        opened = Wire(address, "none")
        for _ in answers:
            try:
                heard.append((await opened.send(CHAT, ASKED)).text)
            except WireError as error:
                heard.append(error)
            await asyncio.sleep(0.05)  # lets the end of a connection be seen
        await opened.close()
    return heard, server.num_connections


def sized(text: bytes, *more: bytes) -> bytes:
    return OK + b"".join(line + b"\r\n" for line in more) + b"Content-Length: %d\r\n\r\n" % len(text) + text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (sized(b"plain"), "plain"),
        (sized("grün".encode()), "grün"),
        (sized(b"bad \xff"), "bad \ufffd"),
        (sized(gzip.compress(b"small", mtime=0), b"Content-Encoding: gzip"), "small"),
        (sized(b"over there", b"Location: http://127.0.0.1:9/").replace(b"200 OK", b"307 Go"), "over there"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"then"), "then"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nwith\r\n6;x=y\r\nchunks\r\n0\r\nTrailer: a\r\n\r\n",
            "withchunks",
        ),
        (OK + b"\r\nto the end" + RawServer.HANGS_UP, "to the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold" + RawServer.HANGS_UP, "old"),
        (sized(b"last", b"Connection: close") + RawServer.HANGS_UP, "last"),
        (sized(b"leaves") + RawServer.HANGS_UP, "leaves"),
    ],
)
def test_every_shape_of_a_reply_is_read_and_the_next_one_too(answer: bytes, text: str) -> None:
    heard, num_connections = run(answers_to(answer, sized(b"next")))
    assert heard == [text, "next"]
    assert num_connections == (2 if answer.endswith(RawServer.HANGS_UP) else 1)


@pytest.mark.parametrize(
    "answer",
    [
        RawServer.HANGS_UP,
        b"SSH-2.0-OpenSSH\r\n\r\n" + RawServer.HANGS_UP,
        b"HTTP/1.1 abc\r\n\r\n" + RawServer.HANGS_UP,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n" + RawServer.HANGS_UP,
        OK + b"Content-Length: 99999999999999\r\n\r\n" + RawServer.HANGS_UP,
        OK + b"Content-Length: -4\r\n\r\n" + RawServer.HANGS_UP,
        OK + b"Content-Length: 100\r\n\r\nhalf" + RawServer.HANGS_UP,
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + RawServer.HANGS_UP,
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\n" + RawServer.HANGS_UP,
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nwi" + RawServer.HANGS_UP,
        sized(b"no gzip at all", b"Content-Encoding: gzip") + RawServer.HANGS_UP,
    ],
)
def test_what_is_no_whole_reply_is_an_error_and_takes_its_connection_with_it(answer: bytes) -> None:
    heard, num_connections = run(answers_to(answer, sized(b"next")))
    assert isinstance(heard[0], WireError)
    assert not heard[0].is_unreachable
    assert heard[1] == "next"
    assert num_connections == 2


def test_chunks_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 1000)
    endless = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n"
    heard, _ = run(answers_to(endless + (b"64\r\n" + b"x" * 100 + b"\r\n") * 20 + RawServer.HANGS_UP))
    assert "a body of" in str(heard[0])
    heard, _ = run(answers_to(OK + b"\r\n" + b"x" * 5000 + RawServer.HANGS_UP))
    assert "a body of" in str(heard[0])
    heard, _ = run(answers_to(sized(gzip.compress(b"x" * 100_000), b"Content-Encoding: gzip")))
    assert "a body of" in str(heard[0]), "also one that unfolds to it"


def test_a_netrc_of_the_user_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login jo password other\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with ScriptedServer(models=["m"], api_key="sk-1") as server:

        async def ask(opened: Wire) -> int:
            return (await opened.send(MODELS, {})).status

        assert run(with_wire(Wire(server.base_url, "sk-1"), ask)) == 200


@pytest.mark.parametrize(
    ("address", "environment", "proxy"),
    [
        ("http://a.example/v1", {}, None),
        ("http://a.example/v1", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("https://a.example/v1", {"http_proxy": "http://p:1"}, None),
        ("https://a.example/v1", {"all_proxy": "http://p:1"}, "http://p:1"),
        ("http://a.example:8000/v1", {"http_proxy": "http://p:1", "no_proxy": "example"}, None),
    ],
)
def test_proxies(address: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(address) == proxy


def test_a_proxy_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(models=["m"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))

        async def ask(opened: Wire) -> None:
            await opened.send(MODELS, {})

        run(with_wire(Wire("http://models.invalid/v1", "none"), ask))
        assert proxy.requests.total() == 1
