"""Learning a tokenizer: an ordinary Hugging Face folder, the same from the same texts."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, in_process

from fineinstructions.backends.tokenizer import open_tokenizer
from fineinstructions.errors import ConfigError
from fineinstructions.readers import DocumentsConfig
from fineinstructions.tokenizer_training import BOS, EOS, train_tokenizer

pytestmark = pytest.mark.extra
DOCUMENTS = EXAMPLES / "documents.parquet"


def trained(*words: str | Path) -> dict[str, object]:
    code, out, errors = in_process("tokenizer", "train", DOCUMENTS, "--vocab-size", "600", "--json", *words)
    assert code == 0, errors
    found: dict[str, object] = json.loads(out)
    return found


def test_the_same_texts_in_any_order_give_the_same_tokenizer(tmp_path: Path) -> None:
    facts = trained("--out", tmp_path / "first")
    assert facts["vocab_size"] == 600
    rows = pq.read_table(DOCUMENTS).to_pylist()
    random.Random(3).shuffle(rows)
    for number, part in enumerate((rows[:20], rows[20:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"part-{number}.parquet")
    paths = [str(tmp_path / f"part-{number}.parquet") for number in (1, 0)]
    train_tokenizer(DocumentsConfig(path=paths), tmp_path / "second", vocab_size=600)
    assert (tmp_path / "first" / "tokenizer.json").read_bytes() == (tmp_path / "second" / "tokenizer.json").read_bytes()


def test_both_libraries_read_it_alike_and_no_text_is_lost(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trained("--out", tmp_path / "t", "--share", "0.5")
    ours, theirs = open_tokenizer(str(tmp_path / "t")), AutoTokenizer.from_pretrained(str(tmp_path / "t"))
    assert (ours.facts.bos_id, ours.facts.eos_id) == (theirs.bos_token_id, theirs.eos_token_id) == (598, 599)
    assert theirs.convert_ids_to_tokens([598, 599]) == [BOS, EOS]
    assert theirs("Rain")["input_ids"][0] == 598
    texts = [
        *pq.read_table(DOCUMENTS)["text"].to_pylist()[:5],
        "naïve 日本語 😀\n\n\tx1234",
        f"a text with {EOS} inside",
    ]
    for text in texts:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_share_reads_fewer_texts(tmp_path: Path) -> None:
    whole, half = trained("--out", tmp_path / "1"), trained("--out", tmp_path / "2", "--share", "0.5")
    assert 0 < int(str(half["texts"])) < int(str(whole["texts"])) == pq.read_metadata(DOCUMENTS).num_rows


def test_what_is_there_is_kept_and_never_overwritten(tmp_path: Path) -> None:
    source = DocumentsConfig(path=str(DOCUMENTS))
    assert not train_tokenizer(source, tmp_path / "t", vocab_size=400).was_there
    assert train_tokenizer(source, tmp_path / "t", vocab_size=400).was_there
    with pytest.raises(ConfigError, match="another --out"):
        train_tokenizer(source, tmp_path / "t", vocab_size=401)
    with pytest.raises(ConfigError, match="at least 258"):
        train_tokenizer(source, tmp_path / "x", vocab_size=257)
    with pytest.raises(ConfigError, match="share"):
        train_tokenizer(source, tmp_path / "x", share=0.0)
    assert not (tmp_path / "x").exists()
