"""A small byte-level BPE tokenizer with Llama 3's way of splitting, trained on the example documents in a second."""

import base64
import json
from pathlib import Path

import pyarrow.parquet as pq
from pipeline_inputs import EXAMPLES

from fineinstructions.backends.tokenizer import LLAMA_3_PATTERN, NUM_LLAMA_3_SPECIALS

NAMED_SPECIALS = {0: "<|begin_of_text|>", 1: "<|end_of_text|>"}


def special_tokens() -> list[str]:
    return [NAMED_SPECIALS.get(n, f"<|reserved_special_token_{n}|>") for n in range(NUM_LLAMA_3_SPECIALS)]


def write_tokenizer(folder: Path, vocab_size: int = 1000, num_documents: int = 60) -> Path:
    """Train and save ``tokenizer.json``, and the same as a rank file, ``tokenizer.model``; the folder."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    texts = pq.read_table(EXAMPLES / "documents.parquet", columns=["text"])["text"].to_pylist()[:num_documents]
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(special_tokens())
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_ranks(folder)
    return folder


def write_ranks(folder: Path) -> None:
    """Write the vocabulary of ``tokenizer.json`` as a rank file."""
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    letters = byte_of_letter()
    lines = []
    for token, rank in sorted(vocab.items(), key=lambda item: item[1]):
        raw = bytes(letters[letter] for letter in token)
        lines.append(f"{base64.b64encode(raw).decode()} {rank}")
    (folder / "tokenizer.model").write_text("\n".join(lines) + "\n", encoding="ascii")


def byte_of_letter() -> dict[str, int]:
    """What every letter of a byte-level vocabulary stands for, found out from the library itself."""
    from tokenizers import pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found: dict[str, int] = {}
    for point in range(0x800):
        raw = chr(point).encode()
        ((letters, _),) = level.pre_tokenize_str(chr(point))
        found |= dict(zip(letters, raw, strict=True))
    for point in (0x800, 0x10000, 0xF0000, 0x100000):  # the first bytes of longer characters
        for step in range(16):
            character = chr(min(point + step * (0x1000 if point < 0x10000 else 0x10000), 0x10FFFF))
            if not "\ud800" <= character <= "\udfff":
                ((letters, _),) = level.pre_tokenize_str(character)
                found |= dict(zip(letters, character.encode(), strict=True))
    unused = [byte for byte in range(256) if byte not in found.values()]  # bytes that no text holds
    rest = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(found))
    return found | dict(zip(rest, unused, strict=True))
