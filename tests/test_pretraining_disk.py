"""Room for a training: what an earlier call has written counts as there."""

import shutil
from pathlib import Path

import pytest

from fineinstructions.errors import ConfigError
from fineinstructions.pretraining import _check_disk
from fineinstructions.training.plan import Plan


def planned(disk_bytes: int) -> Plan:
    return Plan(
        num_parameters=1,
        num_non_embedding=1,
        corpus_tokens=1,
        steps=1,
        tokens_per_step=1,
        tokens=1,
        unique_tokens=1,
        epochs=1.0,
        left_over_tokens=0,
        flops=1.0,
        flops_per_token=1.0,
        memory_bytes=1,
        disk_bytes=disk_bytes,
        lr=1e-3,
        warmup_steps=0,
        save_every_steps=1,
    )


def test_what_is_written_already_needs_no_room(tmp_path: Path) -> None:
    """Sparse files stand for checkpoints and packed tokens: they have a size and take no room."""
    out, packed = tmp_path / "out", tmp_path / "packed"
    needed = shutil.disk_usage(tmp_path).free + (64 << 30)
    with pytest.raises(ConfigError, match=r"GB free, but checkpoints, model and packed tokens take about"):
        _check_disk(out, packed, planned(needed))
    _check_disk(out, packed, planned(1))
    for folder in (out / "checkpoints", packed):
        folder.mkdir(parents=True)
        with (folder / "large.bin").open("wb") as file:
            file.truncate(64 << 30)
    _check_disk(out, packed, planned(needed))
