"""A transformer with its tokenizer, loaded from a model's folder or the hub; needs the extra ``[embed]``.

In: a `ModelFolder`. Out: a `Transformer` that tokenises and runs. The decision to question: nothing that comes with a
model is trusted. Code is never run, and a weight that the files do not hold is an error, because transformers would
make one up at random.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.backends.torch_pooling import weighted_means
from fineinstructions.errors import BackendError, ConfigError

_UNUSED = "pooler."
"""Weights that we do not use and many models lack."""
_NO_LIMIT = 1_000_000
"""Tokenizers that know no limit name an astronomical one."""
_MIN_WINDOW = 8


@dataclass(frozen=True)
class Transformer:
    """A loaded encoder.

    Attributes:
        opening: Ids of the tokens that open a text.
        closing: Ids of the tokens that close it.
        padding: Id of the token that fills a batch.
        window_tokens: Longest text, those tokens included.
        hidden_width: Width of a token vector.
        dimension: Width of a vector behind `after_pooling` (D).
        after_pooling: Modules that pooled vectors go through.
    """

    model: Any
    tokenizer: Any
    opening: NDArray[np.int64]
    closing: NDArray[np.int64]
    padding: int
    window_tokens: int
    hidden_width: int
    dimension: int
    after_pooling: tuple[Any, ...]

    def tokenise(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Ids (t,) and half-open character spans (t, 2) of every text's own tokens, however long it is."""
        read = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            truncation=False,
            verbose=False,
        )
        return [
            (np.array(ids, np.int64), np.array(spans, np.int64).reshape(-1, 2))
            for ids, spans in zip(read["input_ids"], read["offset_mapping"], strict=True)
        ]

    def pooled(self, ids_bt: NDArray[np.int64], mask_bt: NDArray[np.bool_], placed_brt: NDArray[np.float32]) -> Any:
        """Weighted means of the token vectors of one batch, as a tensor of shape (B, R, D) on the device.

        Args:
            ids_bt: Token ids, shape (B, T).
            mask_bt: Where there is no padding, shape (B, T).
            placed_brt: Weights of every vector, zero on padding, shape (B, R, T).

        Raises:
            BackendError: If the batch does not fit into the device's memory.
        """
        import torch

        device = self.model.device
        ids, mask = (torch.from_numpy(a).to(device, non_blocking=True) for a in (ids_bt, mask_bt.astype(np.int64)))
        try:
            with torch.inference_mode(), _one_thread(device.type):
                return weighted_means(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, placed_brt)
        except torch.OutOfMemoryError:
            raise BackendError(
                f"a batch of {ids_bt.shape[0]} x {ids_bt.shape[1]} tokens does not fit into the memory of {device}",
                hint="lower encoder.batch_tokens or encoder.window_tokens",
            ) from None

    def transformed(self, means_brd: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pooled vectors, sent through `after_pooling`; the last axis is the width."""
        import torch

        features = torch.from_numpy(means_brd.astype(np.float32)).to(self.model.device, self.model.dtype)
        with torch.inference_mode(), _one_thread(self.model.device.type):
            for module in self.after_pooling:
                features = module({"sentence_embedding": features})["sentence_embedding"]
        values: NDArray[np.float64] = features.double().cpu().numpy()
        return values


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """One thread where a processor computes: workers are what makes use of more, and rounding depends on threads."""
    import torch

    before = torch.get_num_threads()
    try:
        if device == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def load_transformer(folder: ModelFolder, device: str, dtype: str, window_tokens: int | None) -> Transformer:
    """Load a model and its tokenizer.

    Args:
        folder: Where it lies.
        device: Where it runs.
        dtype: Precision of its weights.
        window_tokens: Longest text wanted, special tokens included; ``None`` for the model's own limit.

    Raises:
        ConfigError: If it cannot be loaded, is no encoder, or its window is shorter than the one wanted.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    layout, where = folder.layout, {"trust_remote_code": False, **folder.source}
    if layout.transformer:
        where["subfolder"] = layout.transformer
    named = f"{folder.section}.model: {folder.name}"
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.name, use_fast=True, **where)
        model, loading = AutoModel.from_pretrained(
            folder.name, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **where
        )
        after_pooling = tuple(
            _module(folder, kind, place).to(device, model.dtype) for kind, place in layout.after_pooling
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(f"{named} cannot be loaded: {line}") from None
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(_UNUSED))
    if missing:
        raise ConfigError(f"{named} has no weights for {', '.join(missing[:3])}; save it again")
    if model.config.is_encoder_decoder:
        raise ConfigError(f"{named} is an encoder with a decoder; give an encoder alone")
    if not tokenizer.is_fast:
        raise ConfigError(f"{named} has a tokenizer that does not tell where a token stands in a text")
    opening, closing = _special_tokens(tokenizer)
    own = _own_window(model, tokenizer, layout.max_tokens)
    return Transformer(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        opening=opening,
        closing=closing,
        padding=next(i for i in (tokenizer.pad_token_id, model.config.pad_token_id, 0) if i is not None),
        window_tokens=_window(folder, own, window_tokens, len(opening) + len(closing)),
        hidden_width=model.config.hidden_size,
        dimension=_width_behind(after_pooling, model.config.hidden_size),
        after_pooling=after_pooling,
    )


def _module(folder: ModelFolder, kind: str, place: str) -> Any:
    """A module of the sentence-transformers library; imported only here, because that takes seconds."""
    from sentence_transformers.sentence_transformer import modules

    module = getattr(modules, kind)
    if module.load_file_path(folder.name, "model.safetensors", subfolder=place, **folder.source) is None:
        raise ValueError(f"{place} has no model.safetensors, and weights in a pickle are never loaded; save it again")
    return module.load(folder.name, subfolder=place, **folder.source).eval()


def _width_behind(modules: Sequence[Any], width: int) -> int:
    for module in modules:
        width = getattr(module, "out_features", width)
    return width


def _special_tokens(tokenizer: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids that the tokenizer puts before and behind a text."""
    read = tokenizer("a", return_special_tokens_mask=True)
    own = [place for place, is_special in enumerate(read["special_tokens_mask"]) if not is_special]
    ids = np.array(read["input_ids"], np.int64)
    return (ids[: own[0]], ids[own[-1] + 1 :]) if own else (ids[:0], ids[:0])


def _own_window(model: Any, tokenizer: Any, max_tokens: int | None) -> int:
    """The model's own limit: the least of what its files say."""
    limits = [max_tokens, tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)  # RoBERTa and its heirs count positions from behind this one
        limits.append(positions - (padding + 1 if padding is not None else 0))
    return min((limit for limit in limits if limit is not None), default=512)


def _window(folder: ModelFolder, own: int, wanted: int | None, num_special: int) -> int:
    key = f"{folder.section}.window_tokens"
    if wanted is not None and wanted > own:
        raise ConfigError(f"{key}: {wanted}, but {folder.name} reads at most {own} at once")
    if wanted is not None and wanted < num_special + _MIN_WINDOW:
        raise ConfigError(f"{key}: {wanted} is too few; give at least {num_special + _MIN_WINDOW}")
    return own if wanted is None else wanted
