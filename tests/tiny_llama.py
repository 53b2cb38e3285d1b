"""Small real models with random weights, a byte-level tokenizer and a chat template; need the extra [hf]."""

from pathlib import Path
from typing import Any

CONTEXT_TOKENS = 4096
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def save_llama(
    folder: Path,
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    context_tokens: int = CONTEXT_TOKENS,
    ends_every: int = 0,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A model that says something else to everybody; each byte of a text is a token, so no text is unknown to it.

    With `ends_every`, every so many-th token ends a reply, so that replies are short. `changes` are further settings.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(context_tokens, chat_template)
    config = LlamaConfig(**_sizes(tokenizer), num_key_value_heads=2, max_position_embeddings=context_tokens, **changes)
    model = _with_random_weights(LlamaForCausalLM, config, seed)
    if ends_every:
        model.generation_config.eos_token_id = [1, *range(len(SPECIAL), len(tokenizer), ends_every)]
    return _saved(folder, model, tokenizer)


def save_long_phi3(folder: Path, *, short_tokens: int, context_tokens: int) -> Path:
    """A model that turns its positions otherwise in texts of more than `short_tokens`."""
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = _tokenizer(context_tokens, CHAT_TEMPLATE)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 6, "long_factor": [8.0] * 6}
    config = Phi3Config(
        **_sizes(tokenizer), num_key_value_heads=2, max_position_embeddings=context_tokens,
        original_max_position_embeddings=short_tokens, rope_parameters=rope,
    )  # fmt: skip
    return _saved(folder, _with_random_weights(Phi3ForCausalLM, config), tokenizer)


def save_gpt2(folder: Path, *, context_tokens: int) -> Path:
    """A model that has learned its positions and knows none beyond."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer(None, CHAT_TEMPLATE)
    config = GPT2Config(**_sizes(tokenizer), max_position_embeddings=context_tokens)
    return _saved(folder, _with_random_weights(GPT2LMHeadModel, config), tokenizer)


def _tokenizer(context_tokens: int | None, chat_template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    inner = Tokenizer(models.BPE(vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    limit = {} if context_tokens is None else {"model_max_length": context_tokens}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<|pad|>", eos_token="<|end|>", **limit,
        additional_special_tokens=list(SPECIAL[2:]), chat_template=chat_template,
    )  # fmt: skip


def _sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
        "tie_word_embeddings": False,
    }  # fmt: skip


def _with_random_weights(kind: Any, config: Any, seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    return kind(config)


def _saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
