"""Models of stages whose questions are counted: the same model, with a meter between it and its client.

In: a stage's model or a `ChatModel`, and a `Meter`. Out: one that asks the same and is counted.
"""

import copy
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Self, TypeVar

from fineinstructions.backends.chat import ChatModel, ChatReply, ChatRequest, Usage
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.meter import Meter

T = TypeVar("T")


class MeteredModel:
    """A `ChatModel` whose replies are counted.

    Args:
        model: The model.
        meter: What counts.
    """

    def __init__(self, model: ChatModel, meter: Meter) -> None:
        self._model, self._meter = model, meter

    @property
    def llm(self) -> LlmConfig:
        """Model of requests that do not say otherwise."""
        return self._model.llm

    def ask(self, request: ChatRequest, parse: Callable[[str], T]) -> "Future[T]":
        """See `ChatModel`."""
        return self._model.ask(replace(request, meter=self._meter), parse)

    def ask_whole(self, request: ChatRequest, parse: Callable[[ChatReply], T]) -> "Future[T]":
        """See `ChatModel`."""
        return self._model.ask_whole(replace(request, meter=self._meter), parse)

    def context_tokens(self, llm: LlmConfig | None = None) -> int | None:
        """See `ChatModel`."""
        return self._model.context_tokens(llm)

    def usage(self) -> Usage:
        """See `ChatModel`."""
        return self._model.usage()

    def close(self) -> None:
        """See `ChatModel`."""
        self._model.close()


class AsksModel:
    """A stage's model that asks a `ChatModel`, which it keeps as ``_client``."""

    _client: ChatModel

    def metered(self, meter: Meter) -> Self:
        """The same model, with what it asks counted."""
        other = copy.copy(self)
        other._client = MeteredModel(self._client, meter)
        return other
