"""Tokenizers of a corpus: bytes as Lingua counts them; tiktoken and Hugging Face files give the same ids."""

import json
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pipeline_inputs import AWKWARD, EXAMPLES
from small_tokenizer import write_tokenizer

from fineinstructions.backends import tokenizer as module
from fineinstructions.backends.tokenizer import ByteTokenizer, PieceTokenizer, open_tokenizer
from fineinstructions.errors import ConfigError

needs_libraries = pytest.mark.skipif(
    not (find_spec("tiktoken") and find_spec("tokenizers")), reason="needs the extra 'corpus'"
)
SPECIALS = "<|begin_of_text|> and <|end_of_text|>, <|reserved_special_token_9|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def texts() -> list[str]:
    documents = pq.read_table(EXAMPLES / "documents.parquet", columns=["text"])["text"].to_pylist()
    draw = random.Random(7)
    drawn = [
        "".join(chr(draw.choice((32, 10, 65, 97, 0xE9, 0x4E2D, 0x1F600, 48))) for _ in range(300)) for _ in range(30)
    ]
    return [*documents[::9], *AWKWARD.values(), *drawn, SPECIALS, ""]


def test_bytes_are_counted_as_lingua_does() -> None:
    tokenizer = open_tokenizer("bytes")
    assert tokenizer.row_tokens(["", "abc", "é😀", SPECIALS]).tolist() == [2, 5, 8, len(SPECIALS) + 2]
    assert (tokenizer.facts.bos_id, tokenizer.facts.eos_id, tokenizer.facts.vocab_size) == (256, 257, 258)
    assert bytes(tokenizer.encode("é😀")).decode() == "é😀"


def test_long_texts_are_encoded_in_the_pieces_of_lingua() -> None:
    seen: list[int] = []

    def encode(piece: str) -> list[int]:
        seen.append(len(piece))
        return [len(piece)]

    def encode_pieces(pieces: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [np.array(encode(piece), np.uint32) for piece in pieces]

    tokenizer = PieceTokenizer(ByteTokenizer.facts, encode, encode_pieces)
    assert tokenizer.encode("x" * 900_000) == [400_000, 400_000, 100_000]
    assert tokenizer.row_tokens(["x" * 800_000, "x"]).tolist() == [4, 3]
    assert [ids.tolist() for ids in tokenizer.encode_batch(["x" * 800_001, "x"])] == [[400_000, 400_000, 1], [1]]


@pytest.mark.extra
@needs_libraries
def test_a_tokenizer_file_and_its_rank_file_give_the_same_ids(folder: Path) -> None:
    import tokenizers

    by_file, by_ranks = open_tokenizer(str(folder)), open_tokenizer(str(folder / "tokenizer.model"))
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.encode_special_tokens = True
    for text in texts():
        ids = plain.encode(text, add_special_tokens=False).ids
        assert by_file.encode(text) == ids == by_ranks.encode(text), text[:80]
    counts = [len(plain.encode(text, add_special_tokens=False).ids) + 2 for text in texts()]
    assert by_file.row_tokens(texts()).tolist() == counts == by_ranks.row_tokens(texts()).tolist()
    assert by_file.facts.kind == "hf"
    assert by_ranks.facts.kind == "tiktoken"
    assert by_file.facts.sha256 != by_ranks.facts.sha256
    facts = [(t.facts.bos_id, t.facts.eos_id, t.facts.vocab_size) for t in (by_file, by_ranks)]
    assert facts == [(1000, 1001, 1256)] * 2


@pytest.mark.extra
@needs_libraries
def test_what_looks_like_a_special_token_is_text(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        tokenizer = open_tokenizer(str(folder / name))
        assert max(tokenizer.encode(SPECIALS)) < 1000


def changed(folder: Path, to: Path, change: dict[str, Any]) -> Path:
    to.mkdir()
    plain = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        (plain[section] if section else plain)[name] = value
    (to / "tokenizer.json").write_text(json.dumps(plain), encoding="utf-8")
    return to


@pytest.mark.extra
@needs_libraries
@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"model.ignore_merges": False},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
    ],
    ids=["normalizer", "merges", "prefix space"],
)
def test_a_tokenizer_that_tiktoken_cannot_be_is_run_by_its_own_library(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    import tokenizers

    other = changed(folder, tmp_path / "other", change)
    plain = tokenizers.Tokenizer.from_file(str(other / "tokenizer.json"))
    plain.encode_special_tokens = True
    tokenizer = open_tokenizer(str(other))
    for text in texts():
        assert tokenizer.encode(text) == plain.encode(text, add_special_tokens=False).ids
    assert module._faster(json.loads((other / "tokenizer.json").read_text(encoding="utf-8")), tokenizer.encode) is None


@pytest.mark.extra
@needs_libraries
def test_hostile_lengths_take_no_longer_than_their_size(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        tokenizer = open_tokenizer(str(folder / name))
        for letter in (" ", "a", "\n", "é", "<", "😀"):
            assert tokenizer.row_tokens([letter * 1_000_000])[0] > 2


@pytest.mark.extra
@needs_libraries
def test_the_files_beside_a_tokenizer_name_the_tokens_around_a_row(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", {})
    config = {"bos_token": None, "eos_token": {"content": "<|reserved_special_token_7|>"}}
    (other / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = open_tokenizer(str(other))
    assert (tokenizer.facts.bos_id, tokenizer.facts.eos_id) == (None, 1007)
    assert tokenizer.row_tokens([""]).tolist() == [1]
    (other / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|none|>"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="no token for the end of a text"):
        open_tokenizer(str(other))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing", None, "no tokenizer here"),
        ("ranks.model", b"not base64 at all!\n", "not a tiktoken rank file"),
        ("gaps.model", b"YQ== 0\nYg== 7\n", "have gaps"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        open_tokenizer(str(tmp_path / name))


@pytest.mark.extra
@needs_libraries
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="not a Hugging Face tokenizer file"):
        open_tokenizer(str(tmp_path))
