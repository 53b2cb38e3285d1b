"""Packed tokens: nothing lost, every token traced back to its row, the same from any number of threads."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import BYTES, Row, as_row, packed_rows, write_source
from small_tokenizer import write_tokenizer

from fineinstructions.backends.tokenizer import TokenizerFacts, open_tokenizer
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.progress import Silent
from fineinstructions.training import pack as packing
from fineinstructions.training.pack import SourceFile, pack
from fineinstructions.training.packed import PackedTokens

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def all_tokens(packed: PackedTokens) -> list[int]:
    return packed.stretch(0, packed.num_tokens).tokens.tolist()


@settings(max_examples=15)  # each one writes to a disk
@given(st.lists(st.lists(TEXTS, max_size=9), min_size=1, max_size=3), st.data())
def test_every_token_of_every_row_is_there_once_and_knows_its_row(files: list[list[str]], data: st.DataObject) -> None:
    rows = [text for file in files for text in file]
    with tempfile.TemporaryDirectory() as folder:
        packed = packed_rows(Path(folder), files)
        assert packed.num_rows == len(rows)
        expected = [(token, row, place) for row, t in enumerate(rows) for place, token in enumerate(as_row(t))]
        assert packed.num_tokens == len(expected)
        if not expected:
            return
        start = data.draw(st.integers(0, len(expected) - 1))
        stop = data.draw(st.integers(start + 1, len(expected)))
        found = packed.stretch(start, stop)
        columns = found.tokens.tolist(), found.rows.tolist(), found.places.tolist()
        assert list(zip(*columns, strict=True)) == expected[start:stop]
        assert found.is_answer.all()
        row = data.draw(st.integers(0, len(rows) - 1))
        assert packed.row_id(row) == (f"r{row}", "d")


def test_the_same_bytes_from_one_thread_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BATCH_ROWS", 3)
    files = [[f"row {n} ünïcödé" * (n % 4) for n in range(40)], ["x"], []]
    one, many = (packed_rows(tmp_path / str(threads), files, threads=threads) for threads in (1, 5))
    assert all_tokens(one) == all_tokens(many) == [t for file in files for text in file for t in as_row(text)]
    for path in (p for p in one.folder.rglob("*") if p.is_file() and p.name != "lease"):
        assert path.read_bytes() == (many.folder / path.relative_to(one.folder)).read_bytes()


def test_long_rows_are_encoded_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BATCH_CHARS", 10)
    rows = ["a" * 25, "b", "c" * 9, "d" * 2]
    sizes = [len(batch.texts) for batch in packing.read_batches(write_source(tmp_path / "f.parquet", rows).path)]
    assert sizes == [1, 2, 1]
    assert all_tokens(packed_rows(tmp_path / "p", [rows])) == [t for text in rows for t in as_row(text)]


def test_answers_of_pairs_in_two_parts(tmp_path: Path) -> None:
    pairs: list[Row] = [("Instruction: a\n\nAnswer:", " b"), ("Instruction: \n\nAnswer:", " é")]
    packed = packed_rows(tmp_path, [pairs])
    packed.require_answers()
    found = packed.stretch(0, packed.num_tokens)
    learned = bytes(token for token in found.tokens[found.is_answer].tolist() if token < 256).decode()
    assert learned == " b é"
    assert found.tokens[found.is_answer].tolist().count(257) == 2  # the ends belong to the answers
    assert 256 not in found.tokens[found.is_answer]
    with pytest.raises(ConfigError, match="prompt_completion"):
        packed_rows(tmp_path / "whole", [["a text"]]).require_answers()


def test_a_token_that_reaches_into_the_answer_belongs_to_it() -> None:
    prompt, row = np.array([5, 6, 7], np.uint32), np.array([5, 6, 9], np.uint32)
    assert packing.same_beginning(prompt, row) == 2
    assert packing.same_beginning(row[:2], row) == 2


def test_parts_that_are_there_are_kept(tmp_path: Path) -> None:
    packed_rows(tmp_path, [["one", "two"], ["three"]])
    folder = tmp_path / "packed"
    first, second = folder / "part-00000" / "tokens.bin", folder / "part-00001" / "tokens.bin"
    before, content = first.stat().st_ino, second.read_bytes()
    second.write_bytes(content[:-1])  # what a full disk leaves
    (folder / "tmp-part-00001").mkdir()
    with pytest.raises(DataError, match="bytes instead of"):
        PackedTokens(folder, 2)
    packed_rows(tmp_path, [["one", "two"], ["three"]])
    assert first.stat().st_ino == before
    assert second.read_bytes() == content
    assert not (folder / "tmp-part-00001").exists()


def test_tokens_of_another_corpus_are_not_touched(tmp_path: Path) -> None:
    one, two = (write_source(tmp_path / f"{name}.parquet", [name]) for name in ("a", "b"))
    pack(tmp_path / "p", [one, two], BYTES, Silent())
    for others in ([two, one], [SourceFile(one.path, "changed", 1, 3), two]):
        with pytest.raises(ConfigError, match="another corpus or tokenizer"):
            pack(tmp_path / "p", others, BYTES, Silent())
    with pytest.raises(ConfigError, match="larger corpus"):
        pack(tmp_path / "p", [one], BYTES, Silent())


def test_files_that_do_not_hold_what_was_stated(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.parquet", ["a", "b"])
    wrong = SourceFile(source.path, source.sha256, 2, source.num_tokens + 1)
    with pytest.raises(DataError, match=r"a\.parquet: holds 2 rows with 6 tokens, but .* 2 with 7"):
        pack(tmp_path / "p", [wrong], BYTES, Silent())
    source.path.write_bytes(source.path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        pack(tmp_path / "q", [source], BYTES, Silent())


@pytest.mark.parametrize(("vocab_size", "name"), [(258, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_the_vocabulary_decides_the_width(vocab_size: int, name: str, tmp_path: Path) -> None:
    class Wide:
        facts = TokenizerFacts("hf", "x", vocab_size, None, vocab_size - 1)
        row_tokens = BYTES.row_tokens
        encode = BYTES.encode
        encode_batch = BYTES.encode_batch

    source = write_source(tmp_path / "a.parquet", ["ab"])
    pack(tmp_path / "p", [SourceFile(source.path, "", 1, 3)], Wide(), Silent())
    stored = np.fromfile(tmp_path / "p" / "part-00000" / "tokens.bin", name)
    assert stored.tolist() == [97, 98, vocab_size - 1]
    assert all_tokens(PackedTokens(tmp_path / "p", 1)) == stored.tolist()


@pytest.mark.extra
def test_batches_have_the_tokens_of_single_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    folder = write_tokenizer(tmp_path / "t", num_documents=10)
    slow = tmp_path / "slow" / "tokenizer.json"
    slow.parent.mkdir()
    slow.write_text((folder / "tokenizer.json").read_text().replace('"ignore_merges": true', '"ignore_merges": false'))
    texts = ["", "Rain falls <|end_of_text|>", "日本語 😀 " * 20]
    for path in (folder / "tokenizer.json", folder / "tokenizer.model", slow):
        tokenizer = open_tokenizer(str(path))
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
        packed = packed_rows(tmp_path / path.parent.name / path.suffix[1:], [texts], tokenizer)
        assert packed.num_tokens == tokenizer.row_tokens(texts).sum()
    monkeypatch.setattr("fineinstructions.backends.tokenizer.MAX_PIECE_CHARS", 7)
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
