"""Files and recipes for Lingua, held against a reader written from its loader's behaviour."""

import json
import random
from pathlib import Path

import pytest
import yaml
from lingua_reader import counted_parameters, largest_epoch, one_epoch
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions.backends.tokenizer import ByteTokenizer, TokenizerFacts
from fineinstructions.corpus.lingua import SIZES, recipe, steps_without_repeat
from fineinstructions.errors import ConfigError
from fineinstructions.llama_shapes import SHAPES

LLAMA_3 = TokenizerFacts(kind="tiktoken", sha256="", vocab_size=128_256, bos_id=128_000, eos_id=128_001)


def export(run: Path, out: Path, ranks: int, *words: str) -> Path:
    code, _, errors = in_process(
        "export", run, "--out", out, "--format", "lingua", "--ranks", str(ranks), "--workers", "0", *words
    )
    assert code == 0, errors
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), some_texts(80), lambda n: 3)


@pytest.mark.parametrize("ranks", [1, 8, 5])
def test_every_row_is_read_once_and_no_file_is_left_over(run: Path, tmp_path: Path, ranks: int) -> None:
    out = export(run, tmp_path / "out", ranks, "--arm", "standard", "--arm", "fineinstructions", "--seed", "3")
    for arm in ("standard", "fineinstructions"):
        by_rank = one_epoch(out / arm, ranks)
        ids = [name for found in by_rank for name in found]
        rows = json.loads((out / "corpus.json").read_text(encoding="utf-8"))["arms"][arm]["rows"]
        assert len(ids) == len(set(ids)) == rows > 20
        assert len(list((out / arm).iterdir())) == ranks
        assert min(map(len, by_rank)) > 0


def test_ranks_that_share_a_file_read_it_in_turn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.corpus.write.MAX_RANK_FILES", 4)
    out = export(run, tmp_path / "out", 12)
    assert len(list((out / "fineinstructions").iterdir())) == 4
    ids = [name for found in one_epoch(out / "fineinstructions", 12) for name in found]
    assert len(ids) == len(set(ids))
    plain = export(run, tmp_path / "plain", 1)
    assert sorted(ids) == sorted(one_epoch(plain / "fineinstructions", 1)[0])


def test_rows_are_shuffled_over_the_whole_corpus(run: Path, tmp_path: Path) -> None:
    orders = [one_epoch(export(run, tmp_path / seed, 1, "--seed", seed) / "fineinstructions", 1)[0] for seed in "12"]
    assert orders[0] != orders[1]
    with_documents = export(run, tmp_path / "documents", 1, "--arm", "standard")
    places = [int(name[1:]) for name in one_epoch(with_documents / "standard", 1)[0]]
    assert places != sorted(places)
    assert len(places) == 80


@pytest.mark.parametrize("ranks", [2, 4])
def test_no_rank_begins_a_second_epoch_within_the_steps_of_the_recipe(tmp_path: Path, ranks: int) -> None:
    draw = random.Random(5)
    texts = [f"{n} " + "word " * draw.randint(100, 9000) for n in range(160)]
    out = export(write_run(tmp_path, texts, lambda n: 0), tmp_path / "out", ranks, "--arm", "standard")
    plan = out / "lingua.standard.5m.yaml"
    steps = yaml.safe_load(plan.read_text(encoding="utf-8"))["steps"]
    assert steps >= 2
    assert largest_epoch(plan) == 0
    assert largest_epoch(plan, steps + 2) == 1, "the reader would notice"


def test_the_papers_model_and_its_steps(run: Path, tmp_path: Path) -> None:
    """1.810 billion parameters and 1,048,576 tokens a step, counted from the recipe."""
    rank_tokens = [23_068_672_000 // 8 + 1024 * 4 * 4096 + 1] * 8
    path = tmp_path / "paper.yaml"
    path.write_text(recipe("1.8b", "pairs", "/data", rank_tokens, LLAMA_3, "/tokenizer.model"), encoding="utf-8")
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert counted_parameters(path) == 1_809_946_624
    data, ranks = plain["data"], plain["distributed"]["dp_replicate"]
    assert data["batch_size"] * data["seq_len"] * plain["grad_acc_steps"] * ranks == 1_048_576
    assert (plain["steps"], plain["optim"]["warmup"], data["prefetch_size"]) == (22_000, 2_000, 1024)
    assert (plain["grad_acc_steps"], data["tokenizer"]) == (8, {"name": "tiktoken", "path": "/tokenizer.model"})
    assert "1,809.9 million parameters, 1,048,576 tokens a step" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_the_parameters_that_it_states(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.yaml"
    facts = ByteTokenizer.facts
    path.write_text(recipe(name, "pairs", "/data", [10**9] * 4, facts, ""), encoding="utf-8")
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert counted_parameters(path) == SHAPES[name].num_parameters(facts.vocab_size)
    assert plain["model"]["dim"] % plain["model"]["n_heads"] == 0
    assert plain["data"]["tokenizer"] == {"name": "bytes"}
    assert plain["grad_acc_steps"] * 4 * 4096 * 4 == 1 << 20


def test_steps_leave_what_is_read_ahead() -> None:
    for tokens in (0, 1, 5000, 16_385, 10**6, 10**9):
        steps, prefetch = steps_without_repeat([tokens, tokens * 2], 3)
        assert 1 <= prefetch <= 1024
        assert steps == 0 or (steps * 3 + prefetch) * 4 * 4096 + 1 <= tokens


def test_a_tokenizer_that_lingua_cannot_read_is_refused(run: Path, tmp_path: Path) -> None:
    from fineinstructions.corpus.lingua import check_tokenizer

    check_tokenizer(LLAMA_3)
    with pytest.raises(ConfigError, match=r"tokenizer\.model"):
        check_tokenizer(TokenizerFacts("hf", "", 10, None, 1))
