"""A setting that a new version adds: what was made before it existed is recognised as long as it has its default."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from exported import export
from pydantic import Field
from small_experiment import write_held_out
from small_run import some_texts, write_run

from fineinstructions import corpora as exporting
from fineinstructions import tokenizer_training
from fineinstructions.config import Config, known_settings
from fineinstructions.corpus.export import ExportConfig
from fineinstructions.corpus.sift import SiftConfig
from fineinstructions.decontamination import BenchmarkConfig
from fineinstructions.errors import ConfigError
from fineinstructions.readers import DocumentsConfig
from fineinstructions.scores.config import ScoresConfig
from fineinstructions.scores.heldout import QuestionsConfig
from fineinstructions.scores.ledger import Ledger, read_ledger
from fineinstructions.scores.score import read_held_out

pytestmark = pytest.mark.xdist_group("corpora")


class Item(Config):
    """Part of a list."""

    path: str
    only: str = ""


class Older(Config):
    """A recipe as it was."""

    name: str
    items: list[Item] = Field(default=[])
    free: dict[str, Any] = Field(default_factory=dict)


class NewerItem(Item):
    """With a setting more."""

    limit: int = 7


class Newer(Older):
    """The same a version later."""

    items: list[NewerItem] = Field(default=[])  # type: ignore[assignment]
    speed: int = 1
    more: NewerItem = NewerItem(path="p")


KEPT = Older(name="n", items=[Item(path="a")], free={"x": {"y": 1}}).model_dump(mode="json")


def test_a_setting_of_its_default_is_not_told_apart() -> None:
    same = {"name": "n", "items": [{"path": "a"}], "free": {"x": {"y": 1}}}
    assert known_settings(Newer.model_validate(same), KEPT) == KEPT
    assert known_settings(Newer.model_validate(same | {"speed": 1}), KEPT) == KEPT


@pytest.mark.parametrize(
    "change",
    [
        {"speed": 2},
        {"more": {"path": "p", "limit": 8}},
        {"items": [{"path": "a", "limit": 8}]},
        {"items": [{"path": "a", "only": "x"}]},
        {"items": [{"path": "a"}, {"path": "a"}]},
        {"items": []},
        {"free": {}},
        {"free": {"x": {"y": 1, "z": None}}},
        {"name": "m"},
    ],
)
def test_any_other_value_is(change: dict[str, Any]) -> None:
    same = {"name": "n", "items": [{"path": "a"}], "free": {"x": {"y": 1}}}
    assert known_settings(Newer.model_validate(same | change), KEPT) != KEPT


class NewerSift(SiftConfig):
    """Sifting with a setting more."""

    new_setting: int = 0


class NewerExport(ExportConfig):
    """An export with two settings more, one of them inside."""

    new_setting: int = 0
    sift: NewerSift = NewerSift()  # type: ignore[assignment]


def test_corpora_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path, some_texts(12), lambda n: 2)
    export(run, tmp_path / "out")
    monkeypatch.setattr(exporting, "ExportConfig", NewerExport)
    assert exporting.export(run, tmp_path / "out").was_there
    for changed in ("new_setting=1", "sift.new_setting=1"):
        with pytest.raises(ConfigError, match="other settings"):
            exporting.export(run, tmp_path / "out", overrides=[changed])


def test_a_benchmark_named_before_rows_could_be_chosen_is_the_same(tmp_path: Path) -> None:
    config = ExportConfig(sift=SiftConfig(benchmarks=[BenchmarkConfig(path="b.jsonl")]))
    kept = config.model_dump(mode="json")
    del kept["sift"]["benchmarks"][0]["where"]
    assert known_settings(config, kept) == kept
    chosen = ExportConfig(sift=SiftConfig(benchmarks=[BenchmarkConfig(path="b.jsonl", where={"split": "val"})]))
    assert known_settings(chosen, kept) != kept


class NewerQuestions(QuestionsConfig):
    """Questions with a setting more."""

    new_setting: int = 0


class NewerScores(ScoresConfig):
    """Scores with a setting more, inside a list."""

    questions: list[NewerQuestions] = Field(default=[])  # type: ignore[assignment]


def test_scores_are_recognised(tmp_path: Path) -> None:
    plain = write_held_out(tmp_path)
    old = read_held_out(ScoresConfig.model_validate(plain))
    path = tmp_path / "scores.jsonl"
    Ledger(path, old.made_of, old.settings())
    new = read_held_out(NewerScores.model_validate(plain))
    Ledger(path, new.made_of, new.settings())
    plain["questions"][0]["new_setting"] = 1
    changed = read_held_out(NewerScores.model_validate(plain))
    with pytest.raises(ConfigError, match="holds scores of another model or of other items"):
        Ledger(path, changed.made_of, changed.settings())


def test_a_ledger_that_does_not_keep_its_settings_is_still_compared(tmp_path: Path) -> None:
    """As those are that were begun before settings stood in them."""
    held_out = read_held_out(ScoresConfig.model_validate(write_held_out(tmp_path)))
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps({"made_of": held_out.made_of()}) + "\n", encoding="utf-8")
    Ledger(path, held_out.made_of, held_out.settings())
    assert read_ledger(path)[0] == {"made_of": held_out.made_of()}
    path.write_text(json.dumps({"made_of": "0"}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds scores of another model"):
        Ledger(path, held_out.made_of, held_out.settings())


class NewerDocuments(DocumentsConfig):
    """Documents with a setting more."""

    new_setting: int = 0


@pytest.mark.extra
def test_a_tokenizer_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"{n}", "text": t}) + "\n" for n, t in enumerate(some_texts(20))))
    train = tokenizer_training.train_tokenizer
    train(DocumentsConfig(path=str(path)), tmp_path / "out", vocab_size=280)
    assert train(NewerDocuments(path=str(path)), tmp_path / "out", vocab_size=280).was_there
    with pytest.raises(ConfigError, match="of other texts"):
        train(NewerDocuments(path=str(path), new_setting=1), tmp_path / "out", vocab_size=280)


@pytest.mark.extra
def test_trainings_are_recognised_finished_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_experiment import write_model

    from fineinstructions import pretraining
    from fineinstructions.training.metrics import read_metrics
    from fineinstructions.training.recipe import OptimiserConfig, PretrainConfig

    class NewerOptimiser(OptimiserConfig):
        """How weights are changed, with a setting more."""

        new_setting: int = 0

    class NewerPretrain(PretrainConfig):
        """A training with two settings more, one of them inside."""

        new_setting: int = 0
        optimiser: NewerOptimiser = NewerOptimiser()  # type: ignore[assignment]

    run = write_run(tmp_path, some_texts(30), lambda n: 3)
    export(run, tmp_path / "c")
    recipe = {
        **{"corpora": str(tmp_path / "c"), "model": write_model(tmp_path / "tiny"), "seq_len": 16},
        **{"sequences_per_step": 2, "steps": 4, "save_every_steps": 2, "leave_checkpoints": True, "device": "cpu"},
    }
    finished = pretraining.pretrain(recipe, tmp_path / "finished")
    shutil.copytree(tmp_path / "finished", tmp_path / "stopped")
    (tmp_path / "stopped" / "pretrain.json").unlink()
    shutil.rmtree(tmp_path / "stopped" / "model")
    monkeypatch.setattr(pretraining, "PretrainConfig", NewerPretrain)
    again = pretraining.pretrain(recipe, tmp_path / "finished")
    assert again.was_there
    assert again.facts == finished.facts
    steps = len(read_metrics(tmp_path / "stopped" / "metrics.jsonl"))
    resumed = pretraining.pretrain(recipe, tmp_path / "stopped")
    assert resumed.facts["made_of"] == finished.facts["made_of"]
    assert len(read_metrics(resumed.metrics)) == steps, "went on at its last checkpoint, which is the last step"
    for changed in ("new_setting", "optimiser.new_setting"):
        with pytest.raises(ConfigError, match=rf"another recipe \({changed} was None, is 1\)"):
            pretraining.pretrain(recipe, tmp_path / "finished", overrides=[f"{changed}=1"])
