"""The embedded encoder: one vector per word, looked up, weighted and summed.

In: texts. Out: pooled documents, token vectors with spans, or one unit vector per text. A vector has two parts:
directions of meaning learned from which words share passages, and one dimension per relation (symptoms, ingredients,
founding, ...) that a description can ask for and a document's headings and verbs answer. There is no context: a word
means the same anywhere. Every text is encoded by itself, so that a batch never changes a bit of the result.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.encoder import PooledDocument, TokenEmbeddings
from fineinstructions.backends.windows import pooled_by_windows
from fineinstructions.embedded.words import stem
from fineinstructions.pooling import Pooling

# Shape legend: B texts, T tokens, D width, V vocabulary.

DATA_DIR = Path(__file__).with_name("data")
YEAR_TOKEN = "<year>"
NUMBER_TOKEN = "<number>"
NUM_BUCKETS = 4096
"""Rows that words outside the vocabulary share."""
SUFFIX_CHARS = 4

_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ]+(?:['’][A-Za-z]+)?|\d[\d.,]*")
_YEAR = re.compile(r"(?:1\d|20)\d\d\Z")


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """The encoder's tokens: lower-case words and numbers with half-open character spans."""
    return [(m.group().lower(), m.start(), m.end()) for m in _WORD.finditer(text)]


def token_key(word: str) -> str:
    """What a word is looked up as: its stem, or one token for all years and one for all numbers.

    Example:
        >>> [token_key(w) for w in ("symptoms", "1990", "3.5")]
        ['symptom', '<year>', '<number>']
    """
    if word[0].isdigit():
        return YEAR_TOKEN if _YEAR.match(word.rstrip(".,")) else NUMBER_TOKEN
    return stem(word.replace("’", "'").removesuffix("'s"))


@cache
def _digest(file: Path, changed_ns: int) -> str:
    """Digest of a file as it is since it was changed last: every phase opens an encoder anew, which reads 15 MB."""
    del changed_ns
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


class EmbeddedEncoder:
    """Static token embeddings: no network, deterministic to the bit, some thousand words a millisecond.

    Args:
        data_dir: Folder with ``encoder.npz`` and ``encoder.json``.
    """

    def __init__(self, data_dir: Path = DATA_DIR) -> None:
        settings = json.loads((data_dir / "encoder.json").read_text(encoding="utf-8"))
        self._data_dir = data_dir
        file = data_dir / "encoder.npz"
        self.encoder_id = f"embedded-static-{_digest(file, file.stat().st_mtime_ns)}"
        self.window_tokens: int = settings["window_tokens"]
        self.min_cosine: float = settings["min_cosine"]
        self._row_of_word: dict[str, int] = {}

    @cached_property
    def _table(self) -> tuple[dict[str, int], NDArray[np.float32]]:
        """Row of every key, and the rows; loaded when they are first needed, as many only ask for the name."""
        with np.load(self._data_dir / "encoder.npz", allow_pickle=False) as arrays:
            keys = arrays["keys"].tobytes().decode("utf-8").split("\n")
            small, scales = arrays["vectors"], arrays["scales"].astype(np.float32)
        rows = np.empty((len(small) + 1, small.shape[1]), np.float32)
        rows[0] = 0.0  # of a word that nothing is known about
        np.multiply(small, scales, out=rows[1:])  # no copy beside it: a process touches 57 MB for the first time here
        return {key: number for number, key in enumerate(keys, start=1)}, rows

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        return self._table[1]

    @cached_property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return int(self._rows.shape[1])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (B, D); a text without a known word gives a zero row."""
        vectors_bd = np.zeros((len(texts), self.dimension), np.float32)
        for number, text in enumerate(texts):
            rows_t, _ = self._lookup(text)
            total_d = self._rows[rows_t].sum(axis=0, dtype=np.float64)
            norm = float(np.sqrt(np.square(total_d).sum()))
            if norm > 0.0:
                vectors_bd[number] = (total_d / norm).astype(np.float32)
        return vectors_bd

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        """Vectors of each text and of its coverage chunks, in order."""
        return [
            pooled_by_windows(text, self.encode_tokens, self.window_tokens, self.dimension, pooling) for text in texts
        ]

    def encode_tokens(self, texts: Sequence[str]) -> list[TokenEmbeddings]:
        """Weighted token vectors of each text, in order; the mean of a run of them is the meaning of that run."""
        encoded = []
        for text in texts:
            rows_t, spans = self._lookup(text)
            spans_t2 = np.array(spans, np.int64).reshape(-1, 2)
            encoded.append(TokenEmbeddings(self._rows[rows_t], spans_t2))
        return encoded

    def _lookup(self, text: str) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """Row and span of every token: the row of the word itself, else of its bucket or ending, else 0."""
        known = self._row_of_word
        if len(known) > MAX_CACHED_WORDS:
            known.clear()
        rows: list[int] = []
        spans: list[tuple[int, int]] = []
        for match in islice(_WORD.finditer(text), self.window_tokens):
            word = match.group()
            row = known.get(word)
            if row is None:
                row = known[word] = find_row(self._table[0], token_key(word.lower()))
            rows.append(row)
            spans.append(match.span())
        return np.array(rows, np.int64), spans


MAX_CACHED_WORDS = 500_000


def bucket_key(key: str) -> str:
    """The row that a word outside the vocabulary has, with few others: the same word in two texts still agrees."""
    return f"#{zlib.crc32(key.encode('utf-8')) % NUM_BUCKETS}"


def suffix_key(key: str) -> str:
    """The row that stands for all rare words with one ending, in the encoder that was built by counting alone."""
    return f"-{key[-SUFFIX_CHARS:]}"


def find_row(rows: Mapping[str, int], key: str) -> int:
    """Row of a word, else of its bucket or ending, whichever the file has, else 0; `rows` count from 1."""
    return rows.get(key) or rows.get(bucket_key(key)) or rows.get(suffix_key(key), 0)
