"""A small real Llama with random weights, a byte-level tokenizer and a chat template; needs the extra [hf]."""

from pathlib import Path

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
) -> Path:
    """A model that says something else to everybody; each byte of a text is a token, so no text is unknown to it.

    With `ends_every`, every so many-th token ends a reply, so that replies are short.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    inner = Tokenizer(models.BPE(vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<|pad|>", eos_token="<|end|>", model_max_length=context_tokens,
        additional_special_tokens=list(SPECIAL[2:]), chat_template=chat_template,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, max_position_embeddings=context_tokens, initializer_range=0.3, pad_token_id=0,
        eos_token_id=1, bos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if ends_every:
        model.generation_config.eos_token_id = [1, *range(len(SPECIAL), len(vocabulary), ends_every)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
