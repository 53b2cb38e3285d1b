"""Hallway: texts to a byte-level BPE tokenizer, for models that are too small for the vocabulary of a large one.

In: files with texts. Out: an ordinary Hugging Face folder, the same bytes from the same texts. Texts are split as
Llama 3 splits them, so that tiktoken can run the tokenizer where a corpus is counted. The decision to question: a share
of the texts is chosen by hashes of their ids, not from the top, so that it does not depend on how files are ordered.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.backends.tokenizer import EXTRA, LLAMA_3_PATTERN
from fineinstructions.config import digest, known_settings
from fineinstructions.errors import ConfigError
from fineinstructions.inputs import list_inputs
from fineinstructions.readers import DocumentsConfig, read_rows, take_fields
from fineinstructions.records import Rejection
from fineinstructions.runs.durable import beside, replace_folder, write_text
from fineinstructions.seeded_order import row_key

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
FACTS_FILE = "training.json"
MIN_VOCAB = 258
"""256 bytes and the two tokens around a text."""
STAGE = "tokenizer"


@dataclass(frozen=True)
class TokenizerResult:
    """A tokenizer folder, and from what it was made."""

    path: Path
    num_texts: int
    num_chars: int
    vocab_size: int
    was_there: bool = False


def train_tokenizer(
    documents: DocumentsConfig, out: str | Path, *, vocab_size: int = 4096, share: float = 1.0, seed: int = 0
) -> TokenizerResult:
    """Train a byte-level BPE tokenizer on texts; nothing is done where it is there already.

    Args:
        documents: Files and their text column. Rows without a usable text are passed by.
        out: Folder; gets ``tokenizer.json`` and ``tokenizer_config.json``, and appears when it is whole.
        vocab_size: Tokens, bytes and the two around a text included.
        share: Share of the texts that are read, chosen by the hash of their ids.
        seed: Decides which.

    Raises:
        ConfigError: If the folder holds something else, a number is out of range, there is no text, or what trains it
            is not installed.
    """
    if vocab_size < MIN_VOCAB:
        raise ConfigError(f"--vocab-size {vocab_size}: too few; a byte-level tokenizer has at least {MIN_VOCAB} tokens")
    if not 0 < share <= 1:
        raise ConfigError(f"--share {share}: give a share above 0 and at most 1")
    target = Path(out)
    files = [file.content() for file in list_inputs(documents.path, documents.section)]

    def settings(kept: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: value for name, value in known_settings(documents, kept).items() if name != "path"}

    def made_of(kept: Mapping[str, Any] | None) -> str:
        return digest(settings(kept), files, vocab_size, share, seed)

    found = _found(target, made_of)
    if found is not None:
        return found
    texts = _Texts(documents, share, seed)
    content = _trained(texts, vocab_size)
    if not texts.num_texts:
        raise ConfigError(f"{documents.path}: no text to learn a tokenizer from; check the path and --share")
    folder = beside(target)
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    named: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS}
    named |= {"pad_token": EOS, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    size = len(json.loads(content)["model"]["vocab"]) + 2
    facts = {
        "made_of": made_of(None),
        "documents": settings(None),
        "texts": texts.num_texts,
        "chars": texts.num_chars,
        "vocab_size": size,
    }
    write_text(folder / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
    replace_folder(folder, target)
    return TokenizerResult(target, texts.num_texts, texts.num_chars, size)


def _found(target: Path, made_of: Callable[[Mapping[str, Any] | None], str]) -> TokenizerResult | None:
    if not target.exists():
        return None
    try:
        facts = json.loads((target / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    if facts.get("made_of") != made_of(facts.get("documents")):
        raise ConfigError(f"{target}: holds something else, or a tokenizer of other texts; choose another --out")
    return TokenizerResult(target, facts["texts"], facts["chars"], facts["vocab_size"], was_there=True)


class _Texts:
    """The texts that a tokenizer learns from, counted while they pass."""

    def __init__(self, documents: DocumentsConfig, share: float, seed: int) -> None:
        self._documents, self._limit, self._seed = documents, int(share * 2**64), seed
        self.num_texts = self.num_chars = 0

    def __iter__(self) -> Iterator[str]:
        for row, name, has_id in read_rows(self._documents):
            fields = take_fields(row, self._documents, name, has_id)
            if not isinstance(fields, Rejection) and row_key(self._seed, STAGE, fields.record_id) < self._limit:
                self.num_texts += 1
                self.num_chars += len(fields.text)
                yield fields.text


def _trained(texts: _Texts, vocab_size: int) -> str:
    """The content of ``tokenizer.json``: ids rise in the order of the merges, special tokens come last."""
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    except ImportError:
        raise ConfigError(f"tokenizer train: needs pip install 'fineinstructions[{EXTRA}]'") from None
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(iter(texts), trainer)
    tokenizer.add_special_tokens([BOS, EOS])
    around = [(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=around[:1])
    content: str = tokenizer.to_str(pretty=True)
    return content + "\n"
