"""A pre-trained model with its tokenizer, for losses and greedy answers; needs the extra [train].

In: texts. Out: how surprising each continuation is, and what the model writes by itself. Any Hugging Face folder with a
causal model does. Nothing that comes with it is trusted with code, and weights are read from safetensors only. The
decision to question: the loss of an answer counts its own tokens and not the one that ends a text. Models that were
trained on documents see that one after pages, models of answers after a sentence; it would measure the corpus.

Shapes: B rows of a batch, T tokens, V vocabulary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError
from fineinstructions.scores.windows import Window, windows

EXTRA = "train"
LONGEST_WINDOW = 4096
"""Of a model that names no limit. Ours."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of a text, of which those from `first` on are scored."""

    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss of a stretch."""

    nats: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote."""

    text: str
    num_tokens: int
    seconds: float


class Checkpoint:
    """A loaded model.

    Args:
        folder: Hugging Face folder.
        context_tokens: Longest window; ``None`` for the model's own.
        batch_tokens: Tokens in a batch, about.
        device: ``auto`` or ``cpu``.

    Raises:
        ConfigError: If it cannot be loaded.
    """

    def __init__(self, folder: Path, context_tokens: int | None, batch_tokens: int, device: str) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError:
            raise ConfigError(f"{folder}: needs pip install 'fineinstructions[{EXTRA}]'") from None
        logging.disable_progress_bar()
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder}: no config.json; give the folder of a model in Hugging Face format")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
            model = AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True, dtype=torch.float32)
        except Exception as error:  # noqa: BLE001 -- the library raises plain exceptions for files that it cannot read
            line = " ".join(str(error).split())[:200]
            raise ConfigError(f"{folder}: cannot be loaded ({line}); give a causal model with its tokenizer") from None
        self._torch = torch
        self._device = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
        self.model = model.to(self._device).eval()
        own = getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW
        self.context_tokens = min(context_tokens or own, own)
        self.batch_tokens = batch_tokens
        self._end: int | None = self._tokenizer.eos_token_id
        begin = self._tokenizer.bos_token_id
        start = begin if begin is not None else self._end
        if start is None:
            raise ConfigError(f"{folder}: its tokenizer names no bos_token and no eos_token; name one of them")
        self._start: int = start

    @property
    def num_parameters(self) -> int:
        """Weights of the model, tied ones once."""
        return sum(int(weight.numel()) for weight in self.model.parameters())

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without those around it; what looks like a special token is only text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def continuation(self, prompt: str, text: str) -> Stretch:
        """A text behind a prompt; only the text is scored. A prompt that fills the window loses its beginning."""
        before, after = self.encode(prompt), self.encode(text)
        room = self.context_tokens // 2 - 1
        before = before[-room:] if room else []
        return Stretch((self._start, *before, *after), 1 + len(before))

    def losses(self, stretches: Sequence[Stretch]) -> list[Loss]:
        """Loss of every stretch, in order."""
        jobs = [
            (number, stretch.ids[w.start : w.stop], Window(0, w.stop - w.start, w.first - w.start))
            for number, stretch in enumerate(stretches)
            for w in windows(len(stretch.ids), stretch.first, self.context_tokens)
        ]
        jobs.sort(key=lambda job: (-len(job[1]), job[0]))
        nats = [0.0] * len(stretches)
        while jobs:
            size = max(1, self.batch_tokens // len(jobs[0][1]))
            batch, jobs = jobs[:size], jobs[size:]
            for (number, _, _), value in zip(batch, self._nats([(ids, w) for _, ids, w in batch]), strict=True):
                nats[number] += value
        return [Loss(n, len(s.ids) - s.first) for n, s in zip(nats, stretches, strict=True)]

    def _nats(self, batch: Sequence[tuple[Sequence[int], Window]]) -> list[float]:
        torch = self._torch
        longest = max(len(ids) for ids, _ in batch)
        rows = torch.full((len(batch), longest), self._start, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, (ids, _) in enumerate(batch):
            rows[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        rows, mask = rows.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            logits_btv = self.model(input_ids=rows, attention_mask=mask, use_cache=False).logits
            found = []
            for row, (_, window) in enumerate(batch):
                targets = rows[row, window.first : window.stop]
                rated = logits_btv[row, window.first - 1 : window.stop - 1].float()
                found.append(torch.nn.functional.cross_entropy(rated, targets, reduction="sum").double().item())
        return found

    def answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[Written]:
        """What the model writes behind prompts, always the most probable token; all of them in one batch."""
        torch = self._torch
        room = max(1, self.context_tokens - max_new_tokens - 1)
        rows = [[self._start, *self.encode(prompt)[-room:]] for prompt in prompts]
        longest = max(map(len, rows))
        padded = [[self._start] * (longest - len(ids)) + ids for ids in rows]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in rows]
        begun = time.perf_counter()
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=torch.tensor(padded, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=self._end,
                pad_token_id=self._end if self._end is not None else self._start,
            )[:, longest:].tolist()
        seconds = (time.perf_counter() - begun) / len(prompts)
        return [self._written(ids, seconds) for ids in made]

    def _written(self, ids: list[int], seconds: float) -> Written:
        ids = ids[: ids.index(self._end)] if self._end in ids else ids
        text: Any = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Written(str(text).strip(), len(ids), seconds)
