"""Short words for tests that talk to the scripted server through a chat client."""

import pytest

from fineinstructions.backends.llm import ChatRequest, LlmConfig
from fineinstructions.errors import BackendError


def user_text(body):
    return next(m["content"] for m in body["messages"] if m["role"] == "user")


def upper(body):
    return user_text(body).upper()


def request(text, **kwargs):
    return ChatRequest((("user", text),), **kwargs)


def settings(server, **kwargs):
    return LlmConfig(**{"base_url": server.base_url, "model": "m", "backoff_seconds": 0.002, **kwargs})


def error_of(future):
    with pytest.raises(BackendError) as caught:
        future.result(20)
    return caught.value
