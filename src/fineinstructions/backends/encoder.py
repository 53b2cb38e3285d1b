"""The encoder behind matching: what any text encoder must offer, what it returns, and how a recipe names one.

Documents come back pooled, because only the encoder knows where its token vectors lie: pooled on a GPU, K + 1 vectors
leave it instead of thousands. Descriptions come back as one vector each.

The decision to question: an encoder that has no token vectors (a server) returns the vector of the whole alone, instead
of chunks that it would have to encode one by one and that would mean something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from fineinstructions.backends.llm_config import LlmOverrides
from fineinstructions.config import Config
from fineinstructions.pooling import Pooling

# Shape legend: B texts, K coverage chunks, T tokens, D width.

EMBEDDED = "embedded"


class EncoderConfig(Config):
    """The encoder of documents and descriptions."""

    model: str = EMBEDDED
    """``embedded`` for the one that ships; else the folder of a SentenceTransformer or Hugging Face encoder, its name
    on the hub, or its name on a server. Paper: BGE-M3 fine-tuned, released as
    ``fineinstructions/instruction_template_retrieval_embedding``; the default is ours."""
    backend: Literal["auto", "embedded", "sentence-transformers", "endpoint"] = "auto"
    """What runs it: ``sentence-transformers`` is this machine, with the extra ``[embed]``; ``endpoint`` an
    OpenAI-compatible server (``/embeddings``), which gives the vector of the whole document only, no coverage chunks.
    ``auto`` is ``embedded`` for the embedded model, else ``sentence-transformers``."""
    revision: str | None = None
    """Exact commit or tag of a model on the hub; needed there, and an empty text refuses to run until it is filled in
    (`doctor RECIPE --resolve`). With ``endpoint`` a label of your own: another one makes the index stale."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one. Another device rounds otherwise, which
    makes nothing stale: finish a run with the device and the batch size that it was begun with."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; ``auto`` is bfloat16 on a GPU and float32 elsewhere, so name it where a run may go on
    another machine: an index of the run's own is stale in another precision, a ready one is not. Pooling is float32
    always. Ours."""
    special_tokens: bool = True
    """Whether the tokens that open and close a text (``<s>``, ``[CLS]``, ...) count as its first and last token. The
    paper does not say; true is how stock mean pooling and an attention mask count. Ours."""
    window_tokens: PositiveInt | None = None
    """Longest stretch encoded at once, special tokens included; longer documents are read window by window. ``null``
    for the model's own limit (BGE-M3: 8192); with ``endpoint`` 8192."""
    batch_tokens: PositiveInt = 32_768
    """Most tokens of a batch, padding included; a batch holds one window at least. Another number rounds otherwise,
    which makes nothing stale: see ``device``. Ours."""
    llm: LlmOverrides = Field(default_factory=dict)
    """With ``endpoint``: keys of the ``llm`` section that differ for this server, such as ``base_url``."""

    @property
    def engine(self) -> Literal["embedded", "sentence-transformers", "endpoint"]:
        """The backend, ``auto`` resolved."""
        if self.backend != "auto":
            return self.backend
        return "embedded" if self.model == EMBEDDED else "sentence-transformers"


@dataclass(frozen=True)
class TokenEmbeddings:
    """One text's tokens as vectors.

    The plain mean of the vectors is the text's meaning; an encoder that weighs its tokens has scaled them already.
    """

    vectors: NDArray[np.float32]
    """Shape (T, D), not normalised."""
    spans: NDArray[np.int64]
    """Shape (T, 2): half-open character offsets of every token in the text."""


@dataclass(frozen=True, slots=True)
class PooledDocument:
    """One document's vectors, and where its tokens begin."""

    vectors: NDArray[np.float32]
    """Unit vectors of shape (K + 1, D): row ``k`` is chunk ``k``, the last row the whole document. Shape (1, D), the
    whole alone, from an encoder that cannot pool."""
    token_starts: NDArray[np.int64]
    """First character of every token in the whole text, never falling, shape (T,); empty where there is no token, and
    then the vectors are zero. An encoder that does not show its tokens counts words."""
    refused: str = ""
    """Why an engine did not take this text, where others may fare better; then there is no vector."""


class Encoder(Protocol):
    """Maps documents and compatible document descriptions into one space, compared by cosine."""

    @property
    def encoder_id(self) -> str:
        """Name, content digest and all that decides vectors; an index is never searched with another encoder."""
        ...

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        ...

    @property
    def min_cosine(self) -> float | None:
        """Calibrated default threshold for a candidate; ``None`` if nobody calibrated this encoder."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (B, D); a text without a known token gives a zero row."""
        ...

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        """Vectors of each text and of its coverage chunks, in order; nothing of a long text is cut off."""
        ...
