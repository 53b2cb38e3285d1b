"""Harmful texts: a word list of the user's, or an OpenAI-compatible moderation endpoint.

In: a few texts at a time. Out: one `Verdict` for each, in order. Both moderators satisfy the `Moderator` protocol, and
a caller may bring a third. A server that does not answer is a `BackendError`, never a silent pass.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fineinstructions.backends.completion import safe_line
from fineinstructions.backends.llm_config import key_of, server_address
from fineinstructions.errors import BackendError, ConfigError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a moderator says about one text."""

    is_flagged: bool
    category: str = ""
    """The listed word, or the endpoint's highest category."""
    score: float = 0.0


class Moderator(Protocol):
    """Anything that judges texts."""

    def moderate(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, in order."""
        ...


class WordList:
    """Flags texts that hold a listed word or phrase as whole words, in any case.

    Args:
        terms: Words and phrases.

    Example:
        >>> WordList(["bad thing"]).moderate(["A BAD  thing!", "badly"])[0].is_flagged
        True
    """

    def __init__(self, terms: Sequence[str]) -> None:
        cleaned = sorted({" ".join(_folded(t).split()) for t in terms} - {""}, key=len, reverse=True)
        if not cleaned:
            raise ConfigError("the moderation word list is empty; write one word or phrase per line")
        alternatives = "|".join(r"\s+".join(map(re.escape, t.split())) for t in cleaned)
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")

    @classmethod
    def from_file(cls, path: str | Path) -> "WordList":
        """Read one word or phrase per line; blank lines and lines that start with ``#`` are left out.

        Raises:
            ConfigError: If the file cannot be read or lists nothing.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: the moderation word list cannot be read: {error}") from None
        return cls([line for line in lines if not line.lstrip().startswith("#")])

    def moderate(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, in order; the category is the word found."""
        matches = [self._pattern.search(_folded(text)) for text in texts]
        return [Verdict(m is not None, m[0] if m else "", 1.0 if m else 0.0) for m in matches]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class ModerationEndpoint:
    """An OpenAI-compatible ``/moderations`` endpoint.

    Args:
        model: Model name.
        base_url: Server; ``None`` takes ``OPENAI_BASE_URL``, then OpenAI's own.
        timeout_seconds: For one request.
        max_retries: Retries of a busy or unreachable server; the client waits as long as ``Retry-After`` says.

    Raises:
        ConfigError: If there is no key in ``OPENAI_API_KEY``, or the address is wrong or holds a password.

    Source:
        arXiv:2601.22146, section 3.1: harmful queries removed with the OpenAI Moderation API.
    """

    def __init__(
        self,
        model: str = "omni-moderation-latest",
        base_url: str | None = None,
        timeout_seconds: float = 60.0,
        max_retries: int = 5,
    ) -> None:
        import openai

        self._model = model
        self._address = server_address(base_url or "", "queries.moderation.base_url")
        key = key_of("OPENAI_API_KEY")
        if not key:
            raise ConfigError("moderation: no key; set OPENAI_API_KEY (any word for a server without keys)")
        self._client: Any = openai.OpenAI(
            api_key=key, base_url=self._address, timeout=timeout_seconds, max_retries=max_retries
        )

    def moderate(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, in order; one request.

        Raises:
            BackendError: If the server cannot be reached, refuses, or answers for another number of texts.
        """
        import openai

        try:
            reply = self._client.moderations.create(model=self._model, input=list(texts))
        except openai.APIConnectionError as error:
            line = safe_line(str(error.__cause__ or error), self._client.api_key)
            raise BackendError(f"moderation: no answer from {self._address}: {line}", retryable=True) from None
        except openai.APIStatusError as error:
            retryable = error.status_code >= 500 or error.status_code == 429
            line = safe_line(error.message, self._client.api_key)
            raise BackendError(f"moderation: status {error.status_code}: {line}", retryable=retryable) from None
        results = reply.results or []
        if len(results) != len(texts):
            raise BackendError(f"moderation: {len(results)} verdicts for {len(texts)} texts", hint="another server?")
        return [_verdict(result) for result in results]


def _verdict(result: Any) -> Verdict:
    scores = result.category_scores.model_dump() if result.category_scores is not None else {}
    known = {name: float(score) for name, score in scores.items() if isinstance(score, int | float)}
    category = max(known, key=lambda name: known[name], default="")
    return Verdict(bool(result.flagged), category, known.get(category, 0.0))
