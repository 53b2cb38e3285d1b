"""An encoder behind an OpenAI-compatible server (``/embeddings``): one vector for the whole of a text.

In: texts. Out: unit vectors. A server shows no token vectors, so a document has no coverage chunks here, only the
vector of the whole (chunk -1); it searches alone.

The decision to question: a text that is longer than the window is cut into pieces at spaces, and its vector is the mean
of theirs, weighted by their lengths, so that nothing is cut off unseen. A piece that the server still calls too long is
halved. Replies are not kept between runs: a unit that was not committed asks again.

Shapes: B texts, D width.
"""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.completion import ChatError, encodable
from fineinstructions.backends.encoder import EncoderConfig, PooledDocument
from fineinstructions.backends.event_loop import LoopThread, cancel_others
from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.backends.servers import Servers
from fineinstructions.backends.windows import pieces
from fineinstructions.config import digest
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.pooling import Pooling, unit_rows

WINDOW_TOKENS = 8192
CHARS_PER_TOKEN = 4
"""Rule of thumb for English; the server's own tokenizer is not known."""
MAX_BATCH_TEXTS = 32
"""Most texts in a request: the least limit that servers are known to have."""
_MIN_PIECE_CHARS = 64
"""A piece this short is not halved any more."""
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class _Piece:
    owner: int
    """Number of the text that it belongs to."""
    text: str


class EndpointEncoder:
    """Asks a server, or several, from a thread of its own; one line of requests, shared by all threads that encode.

    Args:
        config: The model, the window, and how the server differs from the shared section.
        llm: The shared ``llm`` section.

    Raises:
        ConfigError: If no model is named or the address cannot be used.
    """

    def __init__(self, config: EncoderConfig, llm: LlmConfig) -> None:
        if not config.model or config.model == "embedded":
            raise ConfigError("encoder.model: name the embedding model as the server knows it")
        self._config = config
        # Further fields of the shared section are meant for chat requests.
        shared = llm.model_copy(update={"extra_body": {}})
        self._llm = with_overrides(shared, config.llm).model_copy(update={"model": config.model})
        if self._llm.serve is not None:
            raise ConfigError(
                "encoder.llm.base_url: missing; a run starts servers of language models only, so name the encoder's own"
            )
        self._llm.addresses  # noqa: B018 -- a wrong one is told before any work is done
        self._window_chars = (config.window_tokens or WINDOW_TOKENS) * CHARS_PER_TOKEN
        self._lock = threading.Lock()
        self._running: tuple[LoopThread, Servers] | None = None

    @property
    def _where(self) -> str:
        return ", ".join(self._llm.addresses)

    @property
    def encoder_id(self) -> str:
        """Model, label and all that decides vectors; no address, as everywhere in lineage."""
        settings = digest(self._llm.extra_body, self._window_chars)
        return f"endpoint:{self._config.model}@{self._config.revision or 'unversioned'} {settings}"

    min_cosine = None
    """Nobody calibrated it: ``retrieve.min_cosine`` has to be set."""

    @cached_property
    def dimension(self) -> int:
        """Width of a vector (D); asks the server once.

        Raises:
            BackendError: If it gives none.
        """
        ((_, answer),) = self._answers([_Piece(0, "a text")])
        if isinstance(answer, str):
            raise BackendError(f"{self._where}: no embedding from {self._llm.model!r}: {answer}")
        return len(answer)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            thread, servers = running
            thread.run(_shut_down(servers))
            thread.stop()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (B, D); a blank text gives a zero row.

        Raises:
            BackendError: If the server gives no vector for one of them.
        """
        vectors, refused = self._encoded(texts)
        for number, why in refused.items():
            raise BackendError(
                f"{self._where}: no embedding for {texts[number][:80]!r}: {why}",
                hint="leave that text out, or use another server",
            )
        return vectors

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        """The vector of each text, in order; `pooling` has nothing to pool.

        Raises:
            BackendError: If the server cannot be reached, refuses everything, or answers for other texts.
        """
        del pooling
        vectors, refused = self._encoded(texts)
        return [
            PooledDocument(vectors[n : n + 1], _word_starts(text), refused.get(n, "")) for n, text in enumerate(texts)
        ]

    def _encoded(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Unit vectors, zero for a blank or refused text; and why a text was refused, by its number."""
        cut = [
            _Piece(number, piece)
            for number, text in enumerate(texts)
            for _, piece in pieces(encodable(text), self._window_chars)
            if piece.strip()
        ]
        answers = self._answers(cut)
        refused = {piece.owner: answer for piece, answer in answers if isinstance(answer, str)}
        found = [(piece, answer) for piece, answer in answers if not isinstance(answer, str)]
        widths = {len(vector) for _, vector in found} or {self.dimension}
        if len(widths) > 1 or widths != {vars(self).setdefault("dimension", *widths)}:
            raise BackendError(f"{self._where}: vectors of different widths", hint="another server?")
        sums = np.zeros((len(texts), self.dimension))
        for piece, vector in found:
            if piece.owner not in refused:
                sums[piece.owner] += len(piece.text) * vector
        try:
            return unit_rows(sums), refused
        except ValueError:
            raise BackendError(f"{self._where}: a vector that is not finite", hint="another model?") from None

    def _answers(self, cut: Sequence[_Piece]) -> "list[tuple[_Piece, Answer]]":
        """What the server says about every piece."""
        batches = list(_batches(cut, self._config.batch_tokens * CHARS_PER_TOKEN))
        body = {"model": self._llm.model, **self._llm.extra_body}
        with self._lock:
            if self._running is None:
                self._running = LoopThread("endpoint-encoder"), Servers()
            thread, servers = self._running
            answers = thread.start(_all_of(partial(servers.embed, llm=self._llm), batches, body))
        try:
            return answers.result()
        finally:
            answers.cancel()  # where the wait was interrupted; one that is done takes no notice


Answer = NDArray[np.float64] | str
"""A unit vector, or why there is none."""
Embed = Callable[[Mapping[str, object]], Awaitable[list[list[float]]]]
"""From the body of a request to a vector for each of its texts."""


async def _shut_down(servers: Servers) -> None:
    """Cancel what is under way and close the connections."""
    await cancel_others()
    await servers.close()


async def _all_of(
    embed: Embed, batches: Sequence[Sequence[_Piece]], body: dict[str, object]
) -> list[tuple[_Piece, Answer]]:
    """What the server says about every piece, in order; pieces that had to be halved stand there as halves."""
    tasks = [asyncio.create_task(_one_batch(embed, batch, body)) for batch in batches]
    try:
        return [answer for answers in await asyncio.gather(*tasks) for answer in answers]
    finally:
        for task in tasks:
            task.cancel()


async def _one_batch(embed: Embed, batch: Sequence[_Piece], body: dict[str, object]) -> list[tuple[_Piece, Answer]]:
    try:
        vectors = await embed({**body, "input": [piece.text for piece in batch]})
    except ChatError as error:
        if error.kind == "transport":
            raise
        halves = _halves(batch, error)
        if not halves:
            return [(batch[0], str(error))]
        first, second = [await _one_batch(embed, half, body) for half in halves]
        return first + second
    if len(vectors) != len(batch):
        raise BackendError(f"{len(vectors)} embeddings for {len(batch)} texts", hint="another server?")
    return [(piece, _unit(vector)) for piece, vector in zip(batch, vectors, strict=True)]


def _halves(batch: Sequence[_Piece], error: ChatError) -> list[Sequence[_Piece]]:
    """A batch that the server refused, in two: by texts first, then a text that is too long; else nothing."""
    if len(batch) > 1:
        return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    (piece,) = batch
    if error.kind != "too_long" or len(piece.text) <= _MIN_PIECE_CHARS:
        return []
    (_, first), *_ = pieces(piece.text, (len(piece.text) + 1) // 2)
    return [[_Piece(piece.owner, first)], [_Piece(piece.owner, piece.text[len(first) :])]]


def _unit(vector: Sequence[float]) -> NDArray[np.float64]:
    values = np.array(vector, np.float64)
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else values


def _batches(cut: Sequence[_Piece], most_chars: int) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    num_chars = 0
    for piece in cut:
        if batch and (num_chars + len(piece.text) > most_chars or len(batch) == MAX_BATCH_TEXTS):
            yield batch
            batch, num_chars = [], 0
        batch.append(piece)
        num_chars += len(piece.text)
    if batch:
        yield batch


def _word_starts(text: str) -> NDArray[np.int64]:
    return np.array([found.start() for found in _WORD.finditer(text)], np.int64)
