"""A causal language model with its tokenizer and chat template, loaded from a folder or the hub; needs ``[hf]``.

In: prompts as token ids, each with its own sampling. Out: what was generated for each. Nothing that comes with a model
is trusted: code is never run, weights are read from safetensors only, and one that the files lack is an error, because
transformers would make it up. The sampling defaults of a model's own files are not applied: the recipe decides.

The decision to question: transformers only ever takes the most probable token here. A row that samples draws its token
from a generator of its own, and all other tokens are made impossible, so that a reply depends on its request and not on
who shares the batch. What remains is rounding: a batch of another shape may round the last bits otherwise, and where
two tokens are as good as equal another one may win. ``max_in_flight: 1`` keeps every request to itself. Models whose
positions depend on the longest row of a batch, or end somewhere, are told apart by `CausalModel.may_share`.

Shapes: B rows of a batch, T tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fineinstructions.backends.completion import encodable
from fineinstructions.backends.logprobs import MIN_LOGPROB, TOP_LOGPROBS, TokenLogprob
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.errors import BackendError, ConfigError

_NO_LIMIT = 1_000_000
"""Tokenizers that know no limit name an astronomical one."""
_BROKEN = "\ufffd"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one reply is chosen."""

    max_tokens: int
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    seed: int = 0
    """Decides every draw of this reply."""
    logprobs: bool = False


@dataclass(slots=True)
class Generated:
    """What was generated for one prompt."""

    ids: list[int] = field(default_factory=list)
    """Tokens, the one that ends the reply included."""
    ended: bool = False
    """Whether the model ended the reply itself."""
    logprobs: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    """For each token its log-probability, and the most probable tokens with theirs; empty unless asked for."""

    @property
    def said(self) -> list[int]:
        """Tokens without the one that ends the reply."""
        return self.ids[:-1] if self.ended else self.ids


@dataclass(frozen=True)
class CausalModel:
    """A loaded model.

    Attributes:
        ends: Ids of the tokens that end a reply.
        context_tokens: Longest prompt and reply together; ``None`` where the model names no limit.
        shared_tokens: Length at which positions change or end, see `shared_limit`; ``None`` where they go on for ever.
    """

    model: Any
    tokenizer: Any
    padding: int
    ends: frozenset[int]
    context_tokens: int | None
    shared_tokens: int | None = None

    def may_share(self, prompt_tokens: Sequence[int], most_tokens: int) -> bool:
        """Whether prompts may lie in one batch: each must be answered as it would be alone.

        A row that is done goes on until the last one is, so its positions go as far as the longest reply.

        Args:
            prompt_tokens: Length of every prompt.
            most_tokens: Longest reply.
        """
        limit = self.shared_tokens
        if limit is None or len(prompt_tokens) == 1:
            return True
        return max(prompt_tokens) + most_tokens <= limit or min(prompt_tokens) > limit

    def prompt_ids(self, messages: Sequence[dict[str, str]], template_values: dict[str, Any]) -> list[int]:
        """Token ids of a conversation in the model's chat template, up to where the reply begins.

        Args:
            messages: Role and content of every message.
            template_values: Further values for the template.

        Raises:
            ValueError: If the template refuses the messages.
            ConfigError: If there is no template, neither in the model's files nor among the values.
        """
        from jinja2 import TemplateError

        if not (self.tokenizer.chat_template or template_values.get("chat_template")):
            raise ConfigError(
                f"llm.model: {self.tokenizer.name_or_path} has no chat template, so nobody knows how it is to be asked;"
                " give an instruct model, or put the template into its chat_template.jinja"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **template_values
            )
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses these messages: {error}") from None
        return self.text_ids(text)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a bare text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def text(self, generated: Generated) -> str:
        """Text of a reply, without special tokens and without the token that ends it."""
        return encodable(self._decode(generated.said))

    def token_logprobs(self, generated: Generated) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of a reply's tokens; a character of several tokens belongs to the last of them."""
        texts, shown, known, said = list[str](), 0, 0, generated.said
        for end in range(1, len(said) + 1):
            before, now = self._decode(said[shown:known]), self._decode(said[shown:end])
            if now.endswith(_BROKEN) and end < len(said):
                texts.append("")
                continue
            texts.append(encodable(now[len(before) :]))
            shown, known = known, end
        texts += [""] * generated.ended
        return tuple(
            TokenLogprob(
                text,
                round(value, 6),
                tuple((encodable(self._decode([i])), round(v, 6)) for i, v in others if v >= MIN_LOGPROB),
            )
            for text, (value, others) in zip(texts, generated.logprobs, strict=True)
        )

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def generate(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], is_over: Callable[[int], bool]
    ) -> list[Generated]:
        """Replies to a batch of prompts.

        Args:
            prompts: Token ids of every prompt; `may_share` says which may be given at once.
            samplings: How each reply is chosen.
            is_over: Whether nobody waits for a row's reply any more; it ends at the next token.

        Raises:
            BackendError: If a single prompt does not fit into the device's memory; a batch that does not is halved.
        """
        import torch

        try:
            return self._generate(prompts, samplings, is_over)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise BackendError(
                    f"{len(prompts[0])} tokens of prompt and {samplings[0].max_tokens} of reply do not fit into the "
                    f"memory of {self.model.device}",
                    hint="shorten what the stage shows, lower llm.max_tokens, or use a device with more memory",
                ) from None
        half = len(prompts) // 2
        first = self.generate(prompts[:half], samplings[:half], is_over)
        return first + self.generate(prompts[half:], samplings[half:], lambda row: is_over(row + half))

    def _generate(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], is_over: Callable[[int], bool]
    ) -> list[Generated]:
        import torch
        from transformers import GenerationConfig

        longest = max(map(len, prompts))
        ids_bt = torch.full((len(prompts), longest), self.padding, dtype=torch.long)
        mask_bt = torch.zeros((len(prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids_bt[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask_bt[row, longest - len(prompt) :] = 1
        device = self.model.device
        choice = _Choice(samplings, self.ends, is_over, longest)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(s.max_tokens for s in samplings),
            eos_token_id=sorted(self.ends),
            pad_token_id=self.padding,
        )
        with torch.inference_mode():
            self.model.generate(
                input_ids=ids_bt.to(device),
                attention_mask=mask_bt.to(device),
                generation_config=config,
                logits_processor=[choice.choose],
                stopping_criteria=[choice.stop],
            )
        return choice.generated


class _Choice:
    """Chooses the next token of every row and knows when a row is at its end."""

    def __init__(
        self, samplings: Sequence[Sampling], ends: frozenset[int], is_over: Callable[[int], bool], prompt_tokens: int
    ) -> None:
        self.generated = [Generated() for _ in samplings]
        self._samplings, self._ends, self._is_over = samplings, ends, is_over
        self._prompt_tokens = prompt_tokens
        self._random = [np.random.default_rng(s.seed) for s in samplings]
        self._done = [False] * len(samplings)

    def choose(self, _ids_bt: Any, scores_bv: Any) -> Any:
        """Scores in which only the chosen token of every row is possible."""
        import torch

        logits_bv = scores_bv.float()
        chosen = logits_bv.argmax(dim=-1)
        drawing = [row for row, s in enumerate(self._samplings) if s.temperature > 0 and not self._done[row]]
        if drawing:
            numbers = [self._random[row].random() for row in drawing]
            chosen[drawing] = _draw(logits_bv[drawing], [self._samplings[row] for row in drawing], numbers)
        wanting = [row for row, s in enumerate(self._samplings) if s.logprobs and not self._done[row]]
        for row, found in zip(wanting, _logprobs(logits_bv[wanting], chosen[wanting]) if wanting else (), strict=True):
            self.generated[row].logprobs.append(found)
        for row, token in enumerate(chosen.tolist()):
            if not self._done[row]:
                self.generated[row].ids.append(token)
        return torch.full_like(scores_bv, -math.inf).scatter_(1, chosen[:, None], 0.0)

    def stop(self, ids_bt: Any, _scores: Any, **_: Any) -> Any:
        """Which rows are at their end."""
        import torch

        for row, (sampling, generated) in enumerate(zip(self._samplings, self.generated, strict=True)):
            if not self._done[row]:
                generated.ended = generated.ids[-1] in self._ends
                is_full = len(generated.ids) >= sampling.max_tokens
                self._done[row] = generated.ended or is_full or self._is_over(row)
        return torch.tensor(self._done, device=ids_bt.device)


def _draw(logits_bv: Any, samplings: Sequence[Sampling], numbers: Sequence[float]) -> Any:
    """A token out of each row's nucleus, by its number in [0, 1)."""
    import torch

    def column(values: Sequence[float]) -> Any:
        return torch.tensor(values, dtype=torch.float64, device=logits_bv.device)[:, None]

    temperatures = column([s.temperature for s in samplings])
    probabilities, ids = torch.sort(torch.softmax(logits_bv / temperatures, dim=-1), descending=True, stable=True)
    before = torch.cumsum(probabilities, dim=-1) - probabilities
    nucleus = torch.where(before < column([s.top_p for s in samplings]), probabilities, 0.0)
    cumulated = torch.cumsum(nucleus, dim=-1)
    places = (cumulated <= column(numbers) * cumulated[:, -1:]).sum(dim=-1, keepdim=True)
    last = (nucleus > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(places, last))[:, 0]


def _logprobs(logits_bv: Any, chosen_b: Any) -> list[tuple[float, list[tuple[int, float]]]]:
    """For each row the log-probability of its chosen token, and the most probable tokens with theirs."""
    import torch

    values_bv = torch.log_softmax(logits_bv, dim=-1)
    top, ids = torch.topk(values_bv, min(TOP_LOGPROBS, values_bv.shape[1]))
    chosen = values_bv.gather(1, chosen_b[:, None])[:, 0].tolist()
    rows = zip(ids.tolist(), top.tolist(), strict=True)
    return [(value, list(zip(i, v, strict=True))) for value, (i, v) in zip(chosen, rows, strict=True)]


def load_causal_model(folder: ModelFolder, device: str, dtype: str) -> CausalModel:
    """Load a model, its tokenizer and its chat template.

    Args:
        folder: Where it lies.
        device: Where it runs.
        dtype: Precision of its weights.

    Raises:
        ConfigError: If it cannot be loaded, or is no causal language model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    where = {"trust_remote_code": False, **folder.source}
    named = f"{folder.section}.model: {folder.name}"
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.name, use_fast=True, **where)
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder.name, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **where
        )
        model = model.to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(f"{named} cannot be loaded: {line}") from None
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ConfigError(f"{named} has no weights for {', '.join(missing[:3])}; save it again")
    ends = _ends(model, tokenizer)
    if not ends:
        raise ConfigError(f"{named} names no token that ends a reply (eos_token_id); save it with one")
    config = model.config.to_dict()
    context_tokens = context_limit(config, {"model_max_length": tokenizer.model_max_length})
    model.generation_config = type(model.generation_config)()  # the recipe decides, not the model's own habits
    return CausalModel(
        model=model,
        tokenizer=tokenizer,
        padding=next(i for i in (tokenizer.pad_token_id, model.config.pad_token_id, min(ends)) if isinstance(i, int)),
        ends=ends,
        context_tokens=context_tokens,
        shared_tokens=shared_limit(config, context_tokens),
    )


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that the model's files call the end of a reply."""
    named = [getattr(model.generation_config, "eos_token_id", None), model.config.eos_token_id, tokenizer.eos_token_id]
    listed = [ids if isinstance(ids, list) else [ids] for ids in named]
    return frozenset(i for ids in listed for i in ids if isinstance(i, int))


def context_limit(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int | None:
    """Longest prompt and reply together, by a model's files; ``None`` where they name no limit.

    Args:
        config: Content of ``config.json``.
        tokenizer_config: Content of ``tokenizer_config.json``.

    Example:
        >>> context_limit({"max_position_embeddings": 8192}, {"model_max_length": 4096})
        4096
    """
    inner = {**config, **(config.get("text_config") or {})}
    limits = [*map(inner.get, ("max_position_embeddings", "n_positions")), tokenizer_config.get("model_max_length")]
    known = (limit for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT)
    return min((int(limit) for limit in known), default=None)


def shared_limit(config: Mapping[str, Any], context_tokens: int | None) -> int | None:
    """Length at which a model's positions change for a whole batch, or end; ``None`` where neither happens.

    Transformers turns all rows of a batch by its longest one: with ``longrope`` by other factors beyond the length of
    the pretraining, with ``dynamic`` by ever other ones beyond the context. Positions that are learned end with it.

    Args:
        config: Content of ``config.json``.
        context_tokens: What `context_limit` says.

    Example:
        >>> rope = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
        >>> shared_limit({"max_position_embeddings": 131_072, "rope_parameters": rope}, 131_072)
        4096
    """
    inner = {**config, **(config.get("text_config") or {})}
    rope = inner.get("rope_parameters") or inner.get("rope_scaling")
    if not rope:
        return None if inner.get("rope_theta") else context_tokens
    limits = list[int | None]()
    for part in (part for part in (rope, *rope.values()) if isinstance(part, Mapping)):  # some have one for each layer
        kind, pretrained = str(part.get("rope_type") or part.get("type")), "original_max_position_embeddings"
        if kind == "longrope":
            limits.append(part.get(pretrained) or inner.get(pretrained) or context_tokens)
        elif "dynamic" in kind:
            limits.append(context_tokens)
    return min((limit for limit in limits if limit is not None), default=None)
