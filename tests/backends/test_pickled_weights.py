"""Weights in a pickle are refused unread: reading one runs what it says."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_encoders

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.sentence_encoder import SentenceEncoder
from fineinstructions.errors import ConfigError

pytestmark = [pytest.mark.extra, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("sentence_transformers", reason="needs the extra [embed]")


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def pickled(place: Path, trap: Path) -> None:
    """Put a pickle in the place of a folder's weights."""
    import torch

    (place / "model.safetensors").unlink()
    torch.save({"weight": Trap(trap)}, place / "pytorch_model.bin")


@pytest.mark.parametrize("place", ["", "2_Dense"])
def test_a_pickle_is_refused_and_its_code_not_run(tmp_path: Path, place: str) -> None:
    plain = tiny_encoders.save_bert(tmp_path / "plain")
    folder = tiny_encoders.save_sentence_transformer(tmp_path / "dense", plain, dense=12)
    found = SentenceEncoder(EncoderConfig(model=str(folder)))
    assert found.encode_texts(["word1"]).shape == (1, 12)
    broken = shutil.copytree(folder, tmp_path / "broken")
    pickled(broken / place, tmp_path / "trapped")
    encoder = SentenceEncoder(EncoderConfig(model=str(broken)))
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        encoder.encode_texts(["word1"])
    assert "safetensors" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "trapped").exists()
