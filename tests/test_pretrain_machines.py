"""What depends on the machine: bf16, torch.compile and trackers. On the CPU, with a model of some thousand weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from exported import export
from small_experiment import write_model
from small_run import some_texts, write_run

from fineinstructions.errors import ConfigError
from fineinstructions.pretraining import PretrainResult, pretrain
from fineinstructions.training.metrics import read_metrics

pytestmark = [pytest.mark.extra, pytest.mark.xdist_group("pretrain")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("corpora")
    export(write_run(folder, some_texts(30), lambda n: 3), folder / "c")
    return {
        **{"corpora": str(folder / "c"), "model": write_model(folder / "tiny"), "seq_len": 32, "device": "cpu"},
        **{"sequences_per_step": 2, "steps": 4, "log_every_steps": 1, "optimiser": {"lr": 3e-3, "warmup_steps": 1}},
    }


@pytest.fixture(scope="module")
def plain(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    """In fp32, which is what a CPU does by itself."""
    return pretrain(recipe, tmp_path_factory.mktemp("plain") / "out")


def losses(result: PretrainResult) -> list[float]:
    return [line["loss"] for line in read_metrics(result.metrics)]


def test_bf16_rounds_and_keeps_its_weights_in_fp32(
    recipe: dict[str, Any], plain: PretrainResult, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    result = pretrain(recipe | {"precision": "bf16"}, tmp_path / "out")
    assert losses(result) == pytest.approx(losses(plain), rel=1e-3)
    assert losses(result) != losses(plain), "nothing was done in bf16"
    weights = load_file(result.model / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile calls a C++ compiler")
def test_a_compiled_model_learns_the_same(recipe: dict[str, Any], plain: PretrainResult, tmp_path: Path) -> None:
    result = pretrain(recipe | {"compile": True}, tmp_path / "out")
    assert losses(result) == pytest.approx(losses(plain), rel=1e-4)


def test_fsdp_on_a_cpu_is_refused(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `accelerate launch` asks for it; accelerate itself would train without it and not say so."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP: accelerate turns it on for accelerators only"):
        pretrain(recipe, tmp_path / "out")


def test_tensorboard_is_told_what_the_metrics_have(
    recipe: dict[str, Any], plain: PretrainResult, tmp_path: Path
) -> None:
    """And it is still there when the training is done."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = pretrain(recipe | {"report_to": ["tensorboard"]}, tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("train/loss")}
    assert told == pytest.approx(dict(enumerate(losses(result), start=1)), rel=1e-6)
    assert losses(result) == losses(plain)
    assert not (tmp_path / "out" / "checkpoints").exists()
