"""Models: counted without their weights, drawn as Lingua draws them, rows kept apart by positions."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_rows import packed_rows, tiny_model
from small_tokenizer import write_tokenizer

from fineinstructions.backends.tokenizer import BYTES, ByteTokenizer, TokenizerFacts, open_tokenizer
from fineinstructions.errors import ConfigError
from fineinstructions.llama_shapes import SHAPES
from fineinstructions.training import models
from fineinstructions.training.saved_tokenizer import as_transformers
from fineinstructions.training.sequences import Sequences, collate

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.extra

LLAMA_3 = TokenizerFacts(kind="tiktoken", sha256="", vocab_size=128_256, bos_id=128_000, eos_id=128_001)
SMALL = TokenizerFacts(kind="hf", sha256="", vocab_size=4096, bos_id=0, eos_id=1)


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("facts", [LLAMA_3, SMALL])
def test_sizes_count_what_their_shapes_say(name: str, facts: TokenizerFacts) -> None:
    found = models.model_facts(models.model_config(name, facts, 4096), 4096, name)
    shape = SHAPES[name]
    assert found.num_parameters == shape.num_parameters(facts.vocab_size)
    assert found.num_non_embedding == found.num_parameters - facts.vocab_size * shape.dim
    assert found.flops_per_token == 6 * found.num_non_embedding + 6 * shape.n_layers * 4096 * shape.dim
    assert found.lr == shape.lr


def test_the_papers_model_has_the_papers_parameters() -> None:
    config = models.model_config("1.8b", LLAMA_3, 4096)
    assert models.model_facts(config, 4096).num_parameters == 1_809_946_624
    assert (config.intermediate_size, config.num_key_value_heads, config.tie_word_embeddings) == (5632, 16, False)


def test_any_config_that_transformers_knows(tmp_path: Path) -> None:
    tied = {"model_type": "gpt2", "vocab_size": 258, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    (tmp_path / "config.json").write_text(json.dumps(tied))
    config = models.model_config(str(tmp_path), ByteTokenizer.facts, 64)
    found = models.model_facts(config, 64)
    assert found.num_parameters == found.num_non_embedding
    assert config.eos_token_id == 257


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"vocab_size": 257}, "vocab_size 257, but the tokenizer has 258 ids"),
        ({"max_position_embeddings": 32}, "of 32 positions, fewer than seq_len 64"),
        ({"model_type": "no such thing"}, "not a config.json of a model"),
    ],
)
def test_a_config_that_does_not_fit(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "config.json", **changes)
    with pytest.raises(ConfigError, match=line):
        models.model_config(str(path), ByteTokenizer.facts, 64)
    with pytest.raises(ConfigError, match=r"no such size or file; there are 7b, 1\.8b"):
        models.model_config("2b", ByteTokenizer.facts, 64)


def test_weights_before_training_depend_on_the_seed_alone(tmp_path: Path) -> None:
    config = models.model_config(str(tiny_model(tmp_path / "config.json")), ByteTokenizer.facts, 64)
    one, same, other = (models.build_model(config, seed, like_lingua=True).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name, weight in one.items():
        if weight.dim() == 1:
            assert torch.equal(weight, torch.ones_like(weight))
        else:
            assert not torch.equal(weight, other[name])
            std = 1 / math.sqrt(weight.shape[1])
            assert weight.abs().max() <= 3 * std
            assert abs(weight.std().item() / std - 0.9866) < 0.1  # of a normal cut at three deviations


def test_restarted_positions_keep_rows_apart(tmp_path: Path) -> None:
    """What each row gives in a sequence with others is what it gives alone, and it is not so without them."""
    packed = packed_rows(tmp_path, [["some row", "another row", "x", "and the last one"]])
    config = models.model_config(str(tiny_model(tmp_path / "config.json")), ByteTokenizer.facts, 64)
    model = models.build_model(config, 0, like_lingua=True).train()
    model.config.use_cache = False  # as the trainer has it
    length = packed.num_tokens - 1
    outputs = {}
    for kept_apart in (True, False):
        sequences = Sequences(packed, length, 1, answers_only=False, restart_positions=kept_apart)
        batch: dict[str, Any] = collate([sequences[0], sequences[0]])
        with torch.no_grad():
            outputs[kept_apart] = model(**batch).logits[1]
    rows = packed.stretch(0, length).rows
    for row in range(packed.num_rows):
        ids = torch.tensor(packed.stretch(0, length).tokens[rows == row])[None]
        with torch.no_grad():
            alone = model(input_ids=ids).logits[0]
        place = torch.tensor(np.flatnonzero(rows == row))
        assert torch.allclose(outputs[True][place], alone, atol=1e-5)
        assert row == 0 or not torch.allclose(outputs[False][place], alone, atol=1e-2)


def test_saved_tokenizers_give_the_ids_of_the_corpus(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    folder = write_tokenizer(tmp_path / "t", num_documents=10)
    texts = ["", "Rain falls.\n\nIt's 2024:  naïve", "日本語 😀\t x1234567 don't\r\n end  "]
    for name in (BYTES, str(folder / "tokenizer.json"), str(folder / "tokenizer.model")):
        ours = open_tokenizer(name)
        as_transformers(name, ours.facts).save_pretrained(tmp_path / "saved")
        from transformers import AutoTokenizer

        saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert (saved.bos_token_id, saved.eos_token_id) == (ours.facts.bos_id, ours.facts.eos_id)
        assert len(saved) == ours.facts.vocab_size
        for text in texts:
            ids = saved(text)["input_ids"]
            assert ids == [ours.facts.bos_id, *ours.encode(text)], name
            if not name.endswith(".json"):  # the one of this test was saved without a decoder
                assert saved.decode(ids, skip_special_tokens=True) == text
