"""Any SentenceTransformer or Hugging Face encoder on this machine, with the extra ``[embed]``.

In: texts. Out: K + 1 vectors per document, or one per description. Token vectors are pooled where they are made, so
that only the K + 1 vectors of a window leave the device.

The decision to question: whatever pooling a model names, every vector is a mean over tokens, as in the paper; BGE-M3's
own, the first token, is not used. A text that fits the window gives what stock mean pooling gives. In a longer one the
tokens that open and close its inner windows are read by the model but have no weight.

Batches are cut from windows sorted by length, so they depend on the texts of one call alone.

Shapes: B windows of a batch, R rows of weights (K + 1, or 1), T tokens, D width.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.completion import encodable
from fineinstructions.backends.encoder import EncoderConfig, PooledDocument
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.backends.torch_pooling import placed_weights
from fineinstructions.backends.transformer import Transformer, load_transformer
from fineinstructions.backends.windows import pieces
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.pooling import Pooling, unit_rows

EXTRA = "embed"
_PACKAGES = ("torch", "transformers", "sentence_transformers")
_PIECE_CHARS = 1 << 20
"""Text tokenised at once; a longer document is cut at a space."""

Weights = Callable[[int], NDArray[np.float64]]
"""From the tokens of a text (T) to the weights of its vectors, shape (R, T)."""


@dataclass(frozen=True, slots=True)
class _Tokens:
    """One text's own tokens, without those that open and close it."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    end: int
    """Character behind the last token."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of one text as the model reads it."""

    owner: int
    """Number of the text."""
    ids: NDArray[np.int64]
    """Shape (t,)."""
    weights: NDArray[np.float64]
    """Shape (R, t); zero columns for tokens that do not count."""


def missing_packages() -> list[str]:
    """Packages of the extra that are not installed."""
    return [name.replace("_", "-") for name in _PACKAGES if importlib.util.find_spec(name) is None]


class SentenceEncoder:
    """A transformer encoder; its weights are loaded when the first text is encoded.

    Args:
        config: The model and how to run it.

    Raises:
        ConfigError: If the extra is not installed, or the recipe does not name one exact model.
    """

    def __init__(self, config: EncoderConfig) -> None:
        missing = missing_packages()
        if missing:
            raise ConfigError(
                f"encoder.model: {config.model} needs {' and '.join(missing)}; "
                f"run pip install 'fineinstructions[{EXTRA}]'"
            )
        self._config = config
        self._folder = ModelFolder.of(config.model, config.revision)

    @cached_property
    def encoder_id(self) -> str:
        """Name and revision, or content digest, and every setting that decides vectors."""
        config = self._config
        window = config.window_tokens or "own"
        specials = "with" if config.special_tokens else "without"
        dtype = device_and_dtype(config)[1]
        return f"{self._folder.identity} {dtype} window={window} {specials}-specials mean"

    @property
    def min_cosine(self) -> float | None:
        """Calibrated default threshold of the model; ``None`` if nobody calibrated it."""
        return self._folder.min_cosine

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return self._model.dimension

    @property
    def window_tokens(self) -> int:
        """Longest stretch that is encoded at once, special tokens included."""
        return self._model.window_tokens

    @cached_property
    def _model(self) -> Transformer:
        device, dtype = device_and_dtype(self._config)
        return load_transformer(self._folder, device, dtype, self._config.window_tokens)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (B, D): the mean over all tokens; a text without a token gives a zero row."""
        vectors_brd = self._encoded(self._tokens(texts), _plain_mean, 1)
        return vectors_brd[:, 0]

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        """Vectors of each text and of its coverage chunks, in order.

        Raises:
            BackendError: If a batch does not fit into memory, or the model gives no finite numbers.
        """
        tokens = self._tokens(texts)
        vectors_brd = self._encoded(tokens, pooling.weights, pooling.coverage_chunks + 1)
        return [PooledDocument(v, self._starts(t)) for v, t in zip(vectors_brd, tokens, strict=True)]

    def _tokens(self, texts: Sequence[str]) -> list[_Tokens]:
        cut = [(n, start, piece) for n, t in enumerate(texts) for start, piece in pieces(encodable(t), _PIECE_CHARS)]
        read = self._model.tokenise([piece for _, _, piece in cut])
        ids: list[list[NDArray[np.int64]]] = [[] for _ in texts]
        spans: list[list[NDArray[np.int64]]] = [[] for _ in texts]
        for (number, start, _), (piece_ids, piece_spans) in zip(cut, read, strict=True):
            ids[number].append(piece_ids)
            spans[number].append(piece_spans + start)
        return [_joined(i, s) for i, s in zip(ids, spans, strict=True)]

    def _starts(self, tokens: _Tokens) -> NDArray[np.int64]:
        """First character of every token that counts; those that open a text stand at its start."""
        if not self._config.special_tokens or not len(tokens.ids):
            return tokens.starts
        opening, closing = self._model.opening, self._model.closing
        parts = (np.zeros(len(opening), np.int64), tokens.starts, np.full(len(closing), tokens.end, np.int64))
        return np.concatenate(parts)

    def _encoded(self, texts: Sequence[_Tokens], weights: Weights, num_rows: int) -> NDArray[np.float32]:
        """Unit vectors of all texts, shape (number of texts, R, D)."""
        windows = [w for number, tokens in enumerate(texts) for w in self._windows(number, tokens, weights)]
        model = self._model
        means_brd = np.zeros((len(texts), num_rows, model.hidden_width))
        done: list[tuple[list[int], Any]] = []
        for batch in _batches(windows, self._config.batch_tokens):
            ids_bt, mask_bt = _padded(batch, model.padding)
            placed_brt = placed_weights([w.weights for w in batch], mask_bt)
            done.append(([w.owner for w in batch], model.pooled(ids_bt, mask_bt, placed_brt)))
        for owners, means in done:  # read back at the end: a device works on while the next batches are put together
            for owner, window_rd in zip(owners, means.cpu().numpy(), strict=True):
                means_brd[owner] += window_rd
        if model.after_pooling:
            means_brd = model.transformed(means_brd)
        try:
            vectors = unit_rows(means_brd.reshape(-1, means_brd.shape[-1]))
        except ValueError:
            hint = "set encoder.dtype to bfloat16 or float32"
            raise BackendError(f"{self._config.model}: the model gave numbers that are not finite", hint=hint) from None
        return vectors.reshape(means_brd.shape)

    def _windows(self, owner: int, tokens: _Tokens, weights: Weights) -> Iterator[_Window]:
        """A text as the model reads it, with the weights that its tokens have in the whole of it."""
        if not len(tokens.ids):
            return
        opening, closing = self._model.opening, self._model.closing
        num_own = len(tokens.ids)
        counted = (len(opening), len(closing)) if self._config.special_tokens else (0, 0)
        weights_rt = weights(counted[0] + num_own + counted[1])
        own_rt = weights_rt[:, counted[0] : counted[0] + num_own]
        room = self._model.window_tokens - len(opening) - len(closing)
        for start in range(0, num_own, room):
            stop = min(start + room, num_own)
            ids = np.concatenate([opening, tokens.ids[start:stop], closing])
            window_rt = np.zeros((len(weights_rt), len(ids)))
            window_rt[:, len(opening) : len(opening) + stop - start] = own_rt[:, start:stop]
            if self._config.special_tokens and start == 0:
                window_rt[:, : len(opening)] = weights_rt[:, : len(opening)]
            if self._config.special_tokens and stop == num_own and len(closing):
                window_rt[:, -len(closing) :] = weights_rt[:, -len(closing) :]
            yield _Window(owner, ids, window_rt)


def device_and_dtype(config: EncoderConfig) -> tuple[str, str]:
    """Where the model runs and in which precision, ``auto`` resolved.

    Raises:
        ConfigError: If there is no such device.
    """
    import torch

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ConfigError(f"encoder.device: {device!r} is none; write auto, cpu, cuda or cuda:1") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"encoder.device: {device}, but no CUDA GPU is to be seen here; write auto or cpu")
    if config.dtype != "auto":
        return device, config.dtype
    return device, "bfloat16" if kind == "cuda" else "float32"


def _plain_mean(num_tokens: int) -> NDArray[np.float64]:
    return np.full((1, num_tokens), 1.0 / num_tokens)


def _joined(ids: list[NDArray[np.int64]], spans: list[NDArray[np.int64]]) -> _Tokens:
    all_ids, all_spans = np.concatenate(ids), np.concatenate(spans)
    starts = np.maximum.accumulate(all_spans[:, 0]) if len(all_spans) else all_spans[:, 0]
    return _Tokens(all_ids, starts, int(all_spans[-1, 1]) if len(all_spans) else 0)


def _batches(windows: Sequence[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Windows of about one length, the longest first, so that a batch that does not fit is met at once."""
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda w: -len(w.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _padded(batch: Sequence[_Window], padding: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids with padding behind them, and where there is none; both of shape (B, T)."""
    lengths = np.array([len(w.ids) for w in batch])
    mask_bt = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids_bt = np.full(mask_bt.shape, padding, np.int64)
    ids_bt[mask_bt] = np.concatenate([w.ids for w in batch])
    return ids_bt, mask_bt
