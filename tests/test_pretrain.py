"""Pre-training through the front door: in order, resumable to the token, and never a token twice unasked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import export, rows_of
from packed_rows import tiny_model
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions import pretraining
from fineinstructions.errors import ConfigError
from fineinstructions.pretraining import PretrainResult, pretrain
from fineinstructions.training import sequences as cutting
from fineinstructions.training.metrics import read_metrics

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = [pytest.mark.extra, pytest.mark.usefixtures("one_thread")]

SEQ_LEN, BATCH = 32, 4
PROGRAM = [sys.executable, "-c", "from fineinstructions.cli import main; main()"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
KILLED_AT = """
import os, signal, sys
from fineinstructions.pretraining import pretrain
from fineinstructions.progress import Silent

class Kill(Silent):
    steps = 0
    def advance(self, phase, rows):
        self.steps += phase == "train"
        if self.steps == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

pretrain(sys.argv[1], sys.argv[2], progress=Kill())
"""
SLOW_TO_TELL = ("tokens_per_second", "mfu")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms in several files, and pairs in two parts."""
    folder = tmp_path_factory.mktemp("corpora")
    run = write_run(folder, some_texts(60), lambda n: 3)
    export(run, folder / "c", "--arm", "standard", "--arm", "fineinstructions", "--set", "rows_per_part=40")
    export(run, folder / "parts", "--arm", "fineinstructions", "--view", "prompt_completion")
    tiny_model(folder / "config.json")
    return folder


def recipe(folder: Path, **keys: Any) -> dict[str, Any]:
    return {
        "corpora": str(folder / "c"), "model": str(folder / "config.json"), "seq_len": SEQ_LEN,
        "sequences_per_step": BATCH, "micro_batch": 2, "log_every_steps": 2, "device": "cpu",
        "optimiser": {"lr": 3e-3, "warmup_steps": 2}, **keys,
    }  # fmt: skip


def weights(result: PretrainResult | Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    folder = result.model if isinstance(result, PretrainResult) else result / "model"
    return dict(load_file(folder / "model.safetensors"))


def told(path: Path) -> list[dict[str, Any]]:
    """Metrics without what depends on the machine."""
    return [{k: v for k, v in line.items() if k not in SLOW_TO_TELL} for line in read_metrics(path)]


@pytest.fixture(scope="module")
def trained(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    """Twelve steps without a stop."""
    return pretrain(recipe(corpora, steps=12), tmp_path_factory.mktemp("trained") / "out")


def test_a_plain_loop_over_the_files_learns_the_same(trained: PretrainResult, corpora: Path) -> None:
    """Written from the method alone: BOS text EOS, cut, next token, AdamW with decay, warm-up and cosine."""
    import math

    tokens = [t for row in rows_of(corpora / "c", "fineinstructions") for t in (256, *row["text"].encode(), 257)]
    torch.manual_seed(42)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(corpora / "config.json"), dtype=torch.float32
    )
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    losses, size = [], SEQ_LEN * BATCH
    for step in range(12):
        part = torch.tensor(tokens[step * size : (step + 1) * size + 1])
        logits = model(part[:-1].view(BATCH, SEQ_LEN)).logits
        loss = torch.nn.functional.cross_entropy(logits.view(size, -1), part[1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        cosine = 1e-6 + 0.5 * (1 - 1e-6) * (1 + math.cos(math.pi * (step - 2) / 10))
        adam.param_groups[0]["lr"] = 3e-3 * (step / 2 if step < 2 else cosine)
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    means = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert [line["loss"] for line in told(trained.metrics)] == pytest.approx(means, rel=1e-4)
    assert means[-1] < means[0]
    for name, weight in weights(trained).items():
        assert torch.allclose(weight, model.state_dict()[name], atol=2e-4), name


def test_what_a_training_leaves(trained: PretrainResult, corpora: Path) -> None:
    assert [line["step"] for line in told(trained.metrics)] == [2, 4, 6, 8, 10, 12]
    assert [line["tokens"] for line in told(trained.metrics)] == [n * SEQ_LEN * BATCH for n in range(2, 13, 2)]
    assert all(line["mfu"] is None and line["tokens_per_second"] > 0 for line in read_metrics(trained.metrics))
    assert (trained.tokens, trained.unique_tokens) == (12 * SEQ_LEN * BATCH, 12 * SEQ_LEN * BATCH)
    assert 0 < trained.epochs < 1
    model = transformers.AutoModelForCausalLM.from_pretrained(trained.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.model)
    reply = model.generate(**tokenizer("Instruction:", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert reply.shape[1] <= 1 + len("Instruction:") + 3
    assert model.config.use_cache
    again = pretrain(recipe(corpora, steps=12), trained.path)
    assert again.was_there
    assert again.facts == trained.facts


class Recording(cutting.Sequences):
    """Sequences that remember what was asked for."""

    seen: list[list[int]]

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        Recording.seen.append([])

    def __getitem__(self, position: int) -> Any:
        Recording.seen[-1].append(position)
        return super().__getitem__(position)


def test_arms_visit_the_same_positions_in_the_same_order(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recording.seen = []
    monkeypatch.setattr(pretraining, "Sequences", Recording)
    results = [
        pretrain(recipe(corpora, steps=5, arm=arm, seed=seed), tmp_path / f"{arm}{seed}")
        for arm, seed in (("standard", 1), ("fineinstructions", 1), ("standard", 2))
    ]
    assert Recording.seen == [list(range(5 * BATCH))] * 3  # whatever arm and seed: nothing is shuffled
    first, _, other = (weights(result) for result in results)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_several_epochs_only_where_they_are_asked_for(corpora: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(corpora, tokens=10**6)))
    code, _, errors = in_process("pretrain", path, "--out", tmp_path / "out")
    assert code == 2
    assert "1,000,000" not in errors  # whole steps are told
    assert "which would begin epoch 2; set epochs: " in errors
    assert not (tmp_path / "out").exists()
    code, out, _ = in_process("pretrain", path, "--out", tmp_path / "out", "--set", "epochs=999", "--dry-run", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["epochs"] > 1
    assert facts["unique_tokens"] < facts["tokens"]
    assert not (tmp_path / "out").exists()


def test_only_answers_are_learned(corpora: Path, tmp_path: Path) -> None:
    masked = {"steps": 2, "document_mask": True}
    keys = {**masked, "loss": "answers"}
    found = pretrain(recipe(corpora, corpora=str(corpora / "parts"), **keys), tmp_path / "answers")
    other = pretrain(recipe(corpora, corpora=str(corpora / "parts"), **masked), tmp_path / "all")
    assert told(found.metrics)[0]["loss"] != told(other.metrics)[0]["loss"]
    with pytest.raises(ConfigError, match="export pairs with --view prompt_completion"):
        pretrain(recipe(corpora, **keys), tmp_path / "text")


def test_what_does_not_fit_is_one_line(corpora: Path, tmp_path: Path, trained: PretrainResult) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    (tmp_path / "tokenizer.json").write_text("{}")
    convolving = tmp_path / "config.json"
    convolving.write_text(json.dumps({"model_type": "lfm2", "layer_types": ["conv"] * 2, "num_hidden_layers": 2}))
    wrong: list[tuple[dict[str, Any], Path, str]] = [
        ({"arm": "ipt"}, tmp_path / "x", "has no arm 'ipt'; there are standard, fineinstructions"),
        ({"corpora": str(tmp_path)}, tmp_path / "x", "holds no corpora"),
        ({"tokenizer": str(tmp_path / "t")}, tmp_path / "x", "no such file; name the tokenizer"),
        ({"tokenizer": str(tmp_path / "tokenizer.json")}, tmp_path / "x", "not a Hugging Face tokenizer file"),
        ({"keep_checkpoints": 10**12}, tmp_path / "x", "GB free, but checkpoints"),
        ({"report_to": ["wandb"]}, tmp_path / "x", "wandb is not installed"),
        ({}, tmp_path / "other", "holds something else than a training"),
        ({"seed": 1}, trained.path, r"another recipe \(seed was 42, is 1\)"),
        ({"steps": 12, "tokens": 5}, tmp_path / "x", "not both"),
        ({"model": str(convolving), "document_mask": True}, tmp_path / "x", "a lfm2 does not look back by attention"),
    ]
    for keys, out, line in wrong:
        with pytest.raises(ConfigError, match=line) as error:
            pretrain(recipe(corpora, **({"steps": 12} | keys)), out)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_another_tokenizer_would_not_be_token_for_token(corpora: Path, tmp_path: Path) -> None:
    from small_tokenizer import write_tokenizer

    folder = write_tokenizer(tmp_path / "t", num_documents=5)
    with pytest.raises(ConfigError, match=r"was counted with \(bytes, 258 ids\).* export again with --tokenizer"):
        pretrain(recipe(corpora, tokenizer=str(folder)), tmp_path / "x")


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_token(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of a real process between checkpoints: the same losses, and weights that are equal to the bit."""
    keys = {"arm": "standard", "steps": 20, "save_every_steps": 8, "log_every_steps": 1}
    path, out = tmp_path / "r.yaml", tmp_path / "killed"
    path.write_text(yaml.safe_dump(recipe(corpora, **keys)))
    command = [sys.executable, "-c", KILLED_AT, str(path), str(out), "12"]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [line["step"] for line in told(out / "metrics.jsonl")] == list(range(1, 12))
    torn = out / "checkpoints" / "checkpoint-1000"  # what a kill in the middle of saving leaves
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    Recording.seen = []
    monkeypatch.setattr(pretraining, "Sequences", Recording)
    resumed, whole = pretrain(path, out), pretrain(path, tmp_path / "whole")
    assert Recording.seen == [list(range(8 * BATCH, 20 * BATCH)), list(range(20 * BATCH))]
    assert told(resumed.metrics) == told(whole.metrics)
    assert [line["step"] for line in told(resumed.metrics)] == list(range(1, 21))
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torn.exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(corpora: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(corpora, steps=4)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launcher, *PROGRAM, "pretrain", str(path), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one = pretrain(recipe(corpora, steps=4), tmp_path / "one")
    two = told(tmp_path / "two" / "metrics.jsonl")
    assert [line["step"] for line in two] == [2, 4]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in told(one.metrics)], rel=1e-5)
