"""Documents in a language model's words: the rephrased arms that the paper compares with.

In: documents and a model. Out: one training row or rejection per document. The decision a reader would question: the
prompts are our own. WRAP's and Nemotron-CC's are not used, so these arms stand for their ideas (a rephrased page mixed
with the original; questions and answers, a digest, knowledge taken out, a list of facts) and not for their data.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from pydantic import Field

from fineinstructions.backends.llm import (
    ChatError,
    ChatModel,
    ChatReply,
    ChatRequest,
    LlmOverrides,
    chat_rejection,
    model_json,
    with_overrides,
)
from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.backends.prompt import as_input, read_prompt
from fineinstructions.backends.tokenizer import Tokenizer
from fineinstructions.config import Config
from fineinstructions.corpus.write import TrainingRow
from fineinstructions.records import Document, Rejection, content_id, rejection, to_json

STAGE = "rephrase"
Style = Literal["wikipedia_style", "diverse_qa", "distill", "extract_knowledge", "knowledge_list"]
STYLES: tuple[Style, ...] = ("wikipedia_style", "diverse_qa", "distill", "extract_knowledge", "knowledge_list")
NEMOTRON_TOKENS: Mapping[str, float] = MappingProxyType(
    {
        "wikipedia_style": 336.0,
        "diverse_qa": 499.5,
        "distill": 157.6,
        "extract_knowledge": 303.6,
        "knowledge_list": 203.2,
    }
)
"""Billions of tokens of each kind in Nemotron-CC, by the notes on its release."""
_MARKS = re.compile(r"(?m)^[ \t]{0,3}#{1,6}[ \t]+|^[ \t]*```.*$\n?|\*\*")
"""Headings, fences and bold type of Markdown."""


class RephraseConfig(Config):
    """How documents are rephrased."""

    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that are set differently."""
    max_document_chars: int = Field(default=12_000, ge=1)
    """Longest beginning of a document that the model is shown, in characters. Ours."""
    min_chars: int = Field(default=100, ge=1)
    """Shortest text that is kept; Nemotron-CC drops very short ones too. The number is ours."""


class Rephraser(Protocol):
    """Model that writes a text anew."""

    @property
    def model(self) -> str:
        """Name, revision, sampling and prompt digest, as a JSON object."""

    def rephrase(self, documents: Iterable[Document]) -> Iterator[str | Rejection]:
        """Texts, or what became of the document instead."""


def rephrase(
    documents: Iterable[Document], rephraser: Rephraser, style: str, tokenizer: Tokenizer, min_chars: int
) -> Iterator[TrainingRow | Rejection]:
    """Make training rows of rephrased documents.

    Args:
        documents: Documents of a run.
        rephraser: The model.
        style: What it makes of them; part of the row's id.
        tokenizer: Counts the new text.
        min_chars: Shortest text that is kept.

    Yields:
        One item per document, in order. Reasons: ``too_short`` (value: its characters), and a model's.

    Source:
        WRAP (arXiv:2401.16380) and Nemotron-CC (arXiv:2412.02595) for the ideas, Markdown taken off included; prompts
        and numbers are ours.
    """
    models = to_json({"rephraser": json.loads(rephraser.model), "style": style})
    for document, outcome in one_to_one(documents, rephraser.rephrase, _belongs, STAGE):
        if isinstance(outcome, Rejection):
            yield outcome
            continue
        text = _MARKS.sub("", outcome).strip()
        if len(text) < min_chars:
            kept = {"document_id": document.document_id, "style": style, "text": text}
            yield rejection(STAGE, "too_short", document.document_id, kept, float(len(text)))
            continue
        yield TrainingRow(
            id=content_id("r", document.document_id, style),
            document_id=document.document_id,
            text=text,
            instruction=None,
            answer=None,
            source=document.source,
            licence=document.licence,
            template_licence="",
            models=models,
            num_tokens=int(tokenizer.row_tokens([text])[0]),
        )


def _belongs(document: Document, outcome: str | Rejection) -> bool:
    return isinstance(outcome, str) or outcome.record_id == document.document_id


class PromptedRephraser:
    """Rephraser that asks a model with the prompt of a style.

    Args:
        client: The language model.
        config: The stage's settings.
        style: Which prompt.
    """

    def __init__(self, client: ChatModel, config: RephraseConfig, style: str) -> None:
        self._client, self._config, self._style = client, config, style
        self._llm = with_overrides(client.llm, config.llm)
        self._prompt = read_prompt(Path(__file__).with_name(f"rephrase.{style}.prompt.txt"), ("input",))

    @property
    def model(self) -> str:
        """Model, sampling and prompt digest, as a JSON object; no server is asked for it."""
        return model_json(self._llm, self._prompt)

    def rephrase(self, documents: Iterable[Document]) -> Iterator[str | Rejection]:
        """Texts as the model wrote them; runs ahead by `LlmConfig.ahead`.

        Raises:
            BackendError: If the server as a whole fails.
        """
        for document, future in in_order(documents, self._ask, ahead=self._llm.ahead):
            try:
                yield future.result()
            except ChatError as error:
                kept = {"document_id": document.document_id, "style": self._style}
                yield chat_rejection(STAGE, document.document_id, kept, error)

    def _ask(self, document: Document) -> "Future[str]":
        shown = as_input(document=document.text[: self._config.max_document_chars])
        request = ChatRequest(self._prompt.fill({"input": shown}), None, self._llm)
        return self._client.ask_whole(request, _text_of)


def _text_of(reply: ChatReply) -> str:
    text = reply.text.strip()
    if not text:
        raise ValueError("it is empty")
    return text
