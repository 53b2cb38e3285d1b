"""What every engine of a language model promises to the stages: a server, a model in this process, batch files."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from batch_answers import answer_requests
from chat_requests import request, settings, user_text
from tiny_llama import CONTEXT_TOKENS, save_llama

from fineinstructions.backends.batch_files import finish_round, start_round
from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import ChatClient, ChatError, ChatReply, LlmConfig, Usage
from fineinstructions.backends.scripted_server import Reply, ScriptedServer, StatusError
from fineinstructions.errors import BackendError

TEXTS = [f"question {n}{' and more' * (n % 7)}" for n in range(24)]
MAX_ROUNDS = 15


@dataclass
class Asked:
    """What became of some questions."""

    outcomes: list[Any]
    """Parsed replies, and `ChatError` where there is none."""
    passes: list[Usage]
    """What each pass over the questions used; only batch files need several."""

    def total(self, figure: str) -> int:
        return sum(getattr(usage, figure) for usage in self.passes)


@dataclass
class Backend:
    """One engine with a model that says something else to everybody."""

    llm: LlmConfig
    server: ScriptedServer | None = None
    answers_at_once: bool = True

    def client(self, folder: Path, **changes: Any) -> ChatClient:
        llm = self.llm.model_copy(update=changes)
        return ChatClient(llm, ResponseCache(folder / "cache"), batches_dir=folder / "batches")

    def ask(self, texts: list[str], parse: Callable[[ChatReply], Any], folder: Path, **changes: Any) -> Asked:
        passes = []
        for _ in range(MAX_ROUNDS):
            if not self.answers_at_once:
                with ResponseCache(folder / "cache") as replies:
                    start_round(folder / "batches", replies)
            with self.client(folder, **changes) as client:
                futures = [client.ask_whole(request(text), parse) for text in texts]
                outcomes = [future.exception(60) or future.result() for future in futures]
                passes.append(client.usage())
            if not any(isinstance(o, ChatError) and o.kind == "pending" for o in outcomes):
                return Asked(outcomes, passes)
            for path in finish_round(folder / "batches").files:
                answer_requests(path, folder / "batches" / "results", self.server)
        raise AssertionError("still pending")


def brain(body: dict[str, Any]) -> Reply:
    if len(user_text(body)) > CONTEXT_TOKENS:
        raise StatusError(400, "maximum context length exceeded", "context_length_exceeded")
    return Reply(f"{len(body['messages'])} {user_text(body).upper()}")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama") / "model", ends_every=5)


@pytest.fixture(params=["server", "batch", pytest.param("transformers", marks=pytest.mark.extra)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "transformers":
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        model = str(request.getfixturevalue("llama"))
        yield Backend(LlmConfig(engine="transformers", model=model, temperature=0.9, max_tokens=400, max_in_flight=7))
        return
    with ScriptedServer(brain, keep_bodies=True) as server:
        yield Backend(settings(server, engine=request.param), server, answers_at_once=request.param == "server")


def text_of(reply: ChatReply) -> str:
    return reply.text


def test_every_reply_belongs_to_its_request(backend: Backend, tmp_path: Path) -> None:
    together = backend.ask(TEXTS, text_of, tmp_path / "together").outcomes
    alone = [
        backend.ask([text], text_of, tmp_path / f"{n}", max_in_flight=1).outcomes[0] for n, text in enumerate(TEXTS)
    ]
    assert together == alone
    assert len(set(together)) > len(TEXTS) / 2
    assert all(isinstance(said, str) for said in together)


def test_closing_ends_what_is_under_way_and_leaves_nothing_hanging(backend: Backend, tmp_path: Path) -> None:
    if backend.server is not None and backend.answers_at_once:
        backend.server._faults = lambda body, times: "hang"
    before = set(threading.enumerate())
    client = backend.client(tmp_path, max_tokens=4000, temperature=0.0)
    futures = [client.submit(request(text)) for text in TEXTS]
    deadline = time.monotonic() + 60
    while not client.usage().calls and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 10
    assert all(future.done() for future in futures)
    left = {thread.name for thread in set(threading.enumerate()) - before if not thread.daemon or "chat" in thread.name}
    assert left <= {name for name in left if name.startswith("asyncio")}
    with pytest.raises(BackendError, match="closed"):
        client.submit(request("too late"))


def test_a_reply_that_does_not_parse_is_asked_for_again(backend: Backend, tmp_path: Path) -> None:
    first = backend.ask(TEXTS, text_of, tmp_path / "first").outcomes

    def parse(reply: ChatReply) -> str:
        if reply.text in first:
            raise ValueError("the first word was not to my liking")
        return reply.text

    asked = backend.ask(TEXTS, parse, tmp_path / "again", max_reasks=12)
    assert all(isinstance(said, str) for said in asked.outcomes)
    assert not set(asked.outcomes) & set(first)
    assert asked.passes[-1].reasks >= len(TEXTS)
    assert asked.total("calls") == len(TEXTS) + asked.passes[-1].reasks


def test_trouble_on_the_way_changes_no_reply(backend: Backend, tmp_path: Path) -> None:
    quiet = backend.ask(TEXTS, text_of, tmp_path / "quiet").outcomes
    if backend.server is not None:
        backend.server._times.clear()
        backend.server._faults = lambda body, times: ("server_error", "rate_limit", "no_choice", None)[min(times, 3)]
    noisy = backend.ask(TEXTS, text_of, tmp_path / "noisy")
    assert noisy.outcomes == quiet
    tries = 4 if backend.server is not None else 1
    assert noisy.total("calls") == tries * len(TEXTS)


def test_a_second_pass_asks_nobody(backend: Backend, tmp_path: Path) -> None:
    first = backend.ask(TEXTS, text_of, tmp_path)
    again = backend.ask(TEXTS, text_of, tmp_path)
    assert again.outcomes == first.outcomes
    assert again.total("calls") == 0
    assert (again.total("cached"), len(again.passes)) == (len(TEXTS), 1)
    assert again.total("prompt_tokens") == again.total("completion_tokens") == 0


def test_usage_adds_up(backend: Backend, tmp_path: Path) -> None:
    asked = backend.ask(TEXTS, lambda reply: reply, tmp_path)
    assert asked.total("calls") == len(TEXTS)
    assert asked.total("prompt_tokens") == sum(reply.prompt_tokens for reply in asked.outcomes) > len(TEXTS)
    assert asked.total("completion_tokens") == sum(reply.completion_tokens for reply in asked.outcomes) >= len(TEXTS)
    assert {reply.finish_reason for reply in asked.outcomes} == {"stop"}


def test_a_lone_surrogate_takes_down_its_own_request_only(backend: Backend, tmp_path: Path) -> None:
    bad, good = backend.ask(["half \ud83d a pair", "whole \U0001f600"], text_of, tmp_path).outcomes
    assert (bad.kind, isinstance(good, str)) == ("request", True)
    assert "not valid Unicode" in str(bad)


def test_a_text_that_is_too_long_takes_down_its_own_request_only(backend: Backend, tmp_path: Path) -> None:
    bad, good = backend.ask(["x" * (CONTEXT_TOKENS + 1), "short"], text_of, tmp_path).outcomes
    assert (bad.kind, isinstance(good, str)) == ("too_long", True)
    assert "context" in str(bad)


def test_a_reply_that_never_parses_is_an_error_with_the_reply(backend: Backend, tmp_path: Path) -> None:
    said: list[str] = []

    def parse(reply: ChatReply) -> str:
        said.append(reply.text)
        raise ValueError("never")

    asked = backend.ask(["hello"], parse, tmp_path, max_reasks=2)
    (error,) = asked.outcomes
    assert (error.kind, error.raw) == ("format", said[-1])
    assert asked.total("calls") == 3
    assert replace(asked.passes[-1], calls=0).reasks == 2


def test_replies_in_the_cache_are_plain_json(backend: Backend, tmp_path: Path) -> None:
    backend.ask(TEXTS[:2], text_of, tmp_path)
    lines = [line for path in (tmp_path / "cache").iterdir() for line in path.read_text().splitlines()]
    assert len([json.loads(line)["value"]["text"] for line in lines]) == 2
