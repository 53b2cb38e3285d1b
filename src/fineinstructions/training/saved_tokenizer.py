"""The tokenizer of a corpus as a Hugging Face tokenizer, so that a checkpoint can be used by itself.

In: the name of a tokenizer. Out: the same ids from transformers, whatever kind it was. The decision a reader would
question: the saved tokenizer puts the token for the beginning before a text by itself, because no row was trained
without it.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from fineinstructions.backends.tokenizer import (
    BYTES,
    LLAMA_3_PATTERN,
    NUM_LLAMA_3_SPECIALS,
    TokenizerFacts,
    byte_letters,
    read_ranks,
    tokenizer_file,
)

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"


def as_transformers(name: str, facts: TokenizerFacts) -> Any:
    """A tokenizer of transformers.

    Args:
        name: ``bytes``, or a path.
        facts: What is known about it.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if facts.kind == "hf":
        inner = Tokenizer.from_file(str(tokenizer_file(name)))
    elif facts.kind == BYTES:
        inner = _byte_level({bytes([byte]): byte for byte in range(256)}, [BEGIN, END], None)
    else:
        reserved = [f"<|reserved_special_token_{n}|>" for n in range(NUM_LLAMA_3_SPECIALS - 2)]
        inner = _byte_level(read_ranks(tokenizer_file(name)), [BEGIN, END, *reserved], LLAMA_3_PATTERN)
    begin = None if facts.bos_id is None else inner.id_to_token(facts.bos_id)
    end = inner.id_to_token(facts.eos_id)
    _put_before(inner, begin, facts.bos_id)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=begin, eos_token=end, clean_up_tokenization_spaces=False
    )


def _put_before(inner: Any, begin: str | None, begin_id: int | None) -> None:
    """Let a tokenizer put its first token before a text, unless it does."""
    from tokenizers import processors

    if begin is None or begin_id in inner.encode("a").ids:
        return
    template = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, begin_id)]
    )
    before = inner.post_processor
    inner.post_processor = template if before is None else processors.Sequence([before, template])


def _byte_level(ranks: dict[bytes, int], specials: Iterable[str], pattern: str | None) -> Any:
    """A byte-level BPE with the ids of a rank file."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {written(token): rank for token, rank in ranks.items()}
    merges = [(written(a), written(b)) for a, b in _merges(ranks)]
    inner = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    inner.pre_tokenizer = pre_tokenizers.Sequence([*split, level])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return inner


def _merges(ranks: dict[bytes, int]) -> Iterable[tuple[bytes, bytes]]:
    """The two parts that every longer token was made of, in the order of the ranks."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = [token[n : n + 1] for n in range(len(token))]
            while len(parts) > 2:
                joined = [(ranks.get(a + b, rank), n) for n, (a, b) in enumerate(pairwise(parts))]
                lowest, place = min(joined)
                if lowest >= rank:
                    break
                parts[place : place + 2] = [parts[place] + parts[place + 1]]
            if len(parts) == 2:
                yield parts[0], parts[1]
