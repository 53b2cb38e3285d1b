"""Tokenizers that a corpus is counted and packed with: bytes, a tiktoken rank file, a Hugging Face tokenizer file.

In: a name or path. Out: an object that encodes and counts texts. A text is only text: what looks like a special token
in a document is encoded letter by letter, and the tokens at the beginning and end of a row are added by whoever writes
rows. The decision a reader would question: every tokenizer is given a text in pieces of 400,000 characters, because
Lingua does so; else counts of very long documents would differ from what it trains on.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError

BYTES = "bytes"
EXTRA = "corpus"
MAX_PIECE_CHARS = 400_000
"""Longest text that is encoded at once. Lingua's own (field: `TIKTOKEN_MAX_ENCODE_CHARS`)."""
LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How Llama 3 splits a text before byte pairs are merged; a rank file does not say it."""
NUM_LLAMA_3_SPECIALS = 256
_STARTS = ("<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>")
_ENDS = ("<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|endoftext|>")
"""Usual names of the tokens around a text, where no ``tokenizer_config.json`` tells them."""
_PROBE = "It's 2024: naïve  CAFÉ\n\n\n  日本語 😀\t<|end_of_text|> x1234567 don't\r\n end  "
MAX_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What tells one tokenizer from another."""

    kind: str
    """``bytes``, ``tiktoken`` or ``hf``: what Lingua calls it."""
    sha256: str
    """Of the tokenizer's file; empty for bytes."""
    vocab_size: int
    """Number of ids, special ones included."""
    bos_id: int | None
    """Put before every row; ``None`` where the tokenizer has none."""
    eos_id: int
    """Put behind every row."""

    @property
    def tokens_around(self) -> int:
        """Tokens that a row has beside those of its text."""
        return 1 + (self.bos_id is not None)


class Tokenizer(Protocol):
    """Turns texts into numbers."""

    @property
    def facts(self) -> TokenizerFacts:
        """Which it is."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without those around a row."""

    def row_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """How many tokens each text has as a row of a corpus, those around it included."""

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of texts, without those around a row; other threads go on meanwhile."""


class ByteTokenizer:
    """One token per byte of UTF-8, ids as Lingua has them."""

    facts = TokenizerFacts(kind=BYTES, sha256="", vocab_size=258, bos_id=256, eos_id=257)

    def encode(self, text: str) -> list[int]:
        """Bytes of a text."""
        return list(text.encode("utf-8"))

    def row_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Bytes of each text, and two."""
        sizes = (len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts)
        return np.fromiter(sizes, np.int64, len(texts)) + self.facts.tokens_around

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Bytes of texts."""
        return [np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.uint32) for text in texts]


class PieceTokenizer:
    """A tokenizer behind a function that encodes one piece of text.

    Args:
        facts: Which it is.
        encode_piece: From at most `MAX_PIECE_CHARS` characters to ids; knows no special tokens.
        encode_pieces: The same for many pieces, to arrays.
    """

    def __init__(
        self,
        facts: TokenizerFacts,
        encode_piece: Callable[[str], Sequence[int]],
        encode_pieces: Callable[[Sequence[str]], list[NDArray[np.uint32]]],
    ) -> None:
        self.facts = facts
        self._encode_piece = encode_piece
        self._encode_pieces = encode_pieces

    def encode(self, text: str) -> list[int]:
        """Ids of a text, piece by piece."""
        return [token for piece in _pieces(text) for token in self._encode_piece(piece)]

    def row_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, and those around it."""
        sizes = (sum(len(self._encode_piece(piece)) for piece in _pieces(text)) for text in texts)
        return np.fromiter(sizes, np.int64, len(texts)) + self.facts.tokens_around

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of texts, the pieces of a long one put together."""
        if all(len(text) <= MAX_PIECE_CHARS for text in texts):
            return self._encode_pieces(texts)
        return [np.concatenate(self._encode_pieces(_pieces(text))) for text in texts]


def _pieces(text: str) -> Sequence[str]:
    if len(text) <= MAX_PIECE_CHARS:
        return (text,)
    return [text[start : start + MAX_PIECE_CHARS] for start in range(0, len(text), MAX_PIECE_CHARS)]


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a name.

    Args:
        name: ``bytes``; a tiktoken rank file, such as Llama 3's ``tokenizer.model``; a ``tokenizer.json``; or a folder
            that holds one of the two. None ships with this package, and none is fetched.

    Raises:
        ConfigError: If there is no such file, it is no tokenizer, or what reads it is not installed.
    """
    if name == BYTES:
        return ByteTokenizer()
    path = tokenizer_file(name)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which is no tokenizer; check --tokenizer")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if path.suffix == ".json":
        return _open_json(path, content, digest)
    return _open_ranks(path, digest)


def tokenizer_file(name: str) -> Path:
    """The file that a name of a tokenizer means, bytes aside.

    Raises:
        ConfigError: If there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    for inside in ("tokenizer.json", "tokenizer.model"):
        if (path / inside).is_file():
            return path / inside
    raise ConfigError(
        f"{path}: no tokenizer here; --tokenizer takes 'bytes', a tokenizer.json, a tiktoken rank file, or a folder"
        " with one of them"
    )


def _open_ranks(path: Path, digest: str) -> Tokenizer:
    ranks = read_ranks(path)
    encoding = _tiktoken(path.stem, LLAMA_3_PATTERN, ranks)
    facts = TokenizerFacts(
        kind="tiktoken",
        sha256=digest,
        vocab_size=len(ranks) + NUM_LLAMA_3_SPECIALS,
        bos_id=len(ranks),
        eos_id=len(ranks) + 1,
    )
    return PieceTokenizer(facts, encoding.encode_ordinary, partial(_encode_pieces, encoding))


def read_ranks(path: Path) -> dict[bytes, int]:
    """Byte sequences with their ranks, as a rank file has them: base64 and a number on every line.

    Raises:
        ConfigError: If it is no rank file.
    """
    import base64
    import binascii

    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_bytes().splitlines():
            if line:
                token, _, rank = line.partition(b" ")
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"{path}: not a tiktoken rank file ({error}); check --tokenizer") from None
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise ConfigError(f"{path}: its ranks have gaps, or not all bytes; fetch the tokenizer again")
    return ranks


def _tiktoken(name: str, pattern: str, ranks: dict[bytes, int]) -> Any:
    try:
        import tiktoken
    except ImportError:
        raise ConfigError(f"--tokenizer {name}: needs pip install 'fineinstructions[{EXTRA}]'") from None
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _encode_pieces(encoding: Any, pieces: Sequence[str]) -> list[NDArray[np.uint32]]:
    # tiktoken's own way to arrays looks for special tokens first, and takes twice the time of its lists.
    return [np.array(encoding.encode_ordinary(piece), np.uint32) for piece in pieces]


def _open_json(path: Path, content: bytes, digest: str) -> Tokenizer:
    try:
        import tokenizers
    except ImportError:
        raise ConfigError(f"--tokenizer {path}: needs pip install 'fineinstructions[{EXTRA}]'") from None
    try:
        plain = json.loads(content)
        loaded = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        loaded.no_truncation()
        loaded.no_padding()
        loaded.encode_special_tokens = True
    except Exception as error:  # noqa: BLE001 -- the library raises plain exceptions for files that it cannot read
        line = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not a Hugging Face tokenizer file ({line}); check --tokenizer") from None
    bos, eos = _around(path, loaded)
    facts = TokenizerFacts("hf", digest, loaded.get_vocab_size(with_added_tokens=True), bos, eos)

    def encode(piece: str) -> list[int]:
        ids: list[int] = loaded.encode(piece, add_special_tokens=False).ids
        return ids

    def encode_pieces(pieces: Sequence[str]) -> list[NDArray[np.uint32]]:
        found = loaded.encode_batch_fast(list(pieces), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in found]

    fast = _faster(plain, encode)
    if fast is not None:
        return PieceTokenizer(facts, fast.encode_ordinary, partial(_encode_pieces, fast))
    return PieceTokenizer(facts, encode, encode_pieces)


def _around(path: Path, loaded: Any) -> tuple[int | None, int]:
    """Ids of the tokens before and behind a text, as the files beside the tokenizer name them."""
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path.parent / name).is_file():
            try:
                found = json.loads((path.parent / name).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path.parent / name}: cannot be read ({error}); fetch it again") from None
            named |= {key: found[key] for key in ("bos_token", "eos_token") if found.get(key)}
    ids = []
    for key, usual in (("bos_token", _STARTS), ("eos_token", _ENDS)):
        told = named.get(key)
        told = told.get("content") if isinstance(told, dict) else told
        names = (told,) if told else usual if not named else ()
        ids.append(next((found for name in names if (found := loaded.token_to_id(str(name))) is not None), None))
    if ids[1] is None:
        raise ConfigError(
            f"{path}: has no token for the end of a text; put the tokenizer_config.json that names eos_token beside it"
        )
    return ids[0], ids[1]


def _faster(plain: dict[str, Any], encode: Callable[[str], list[int]]) -> Any:
    """The same tokenizer run by tiktoken, which is several times faster; none where the two could differ."""
    pattern, ranks = _split_pattern(plain), _merge_ranks(plain)
    if pattern is None or ranks is None:
        return None
    try:
        fast = _tiktoken("hf", pattern, ranks)
        same = fast.encode_ordinary(_PROBE) == encode(_PROBE)
    except (ConfigError, ValueError):
        return None
    return fast if same else None


def _split_pattern(plain: dict[str, Any]) -> str | None:
    """The regular expression that splits a text, where splitting and bytes are all that happens before the merges."""
    steps = (plain.get("pre_tokenizer") or {}).get("pretokenizers", [])
    if plain.get("normalizer") or [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, level = steps
    is_plain = split.get("behavior") == "Isolated" and not split.get("invert") and not level.get("add_prefix_space")
    only_special = all(token.get("special") for token in plain.get("added_tokens", []))
    if not is_plain or level.get("use_regex", True) or not only_special:
        return None
    found = (split.get("pattern") or {}).get("Regex")
    return found if isinstance(found, str) else None


def _merge_ranks(plain: dict[str, Any]) -> dict[bytes, int] | None:
    """Byte sequences by id, where ids rise in the order of the merges, as tiktoken takes for granted."""
    model = plain.get("model") or {}
    if model.get("type") != "BPE" or not model.get("ignore_merges") or model.get("dropout"):
        return None
    if any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")):
        return None
    special = {token["content"] for token in plain.get("added_tokens", [])}
    letters = {letter: byte for byte, letter in enumerate(byte_letters())}
    vocab = {token: number for token, number in model["vocab"].items() if token not in special}
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merged = [vocab.get("".join(pair), -1) for pair in merges]
    if merged != sorted(merged) or any(letter not in vocab for letter in letters):
        return None
    if any(letter not in letters for token in vocab for letter in token):
        return None
    return {bytes(letters[letter] for letter in token): number for token, number in vocab.items()}


def byte_letters() -> list[str]:
    """The printable letter that stands for every byte in a byte-level vocabulary.

    Source:
        GPT-2: bytes that are printable in Latin-1 stand for themselves, the others follow from U+0100 on.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
