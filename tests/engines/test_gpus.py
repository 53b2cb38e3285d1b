"""Which worker of this machine sees which GPUs; the variable alone is looked at, so no GPU is needed."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_run
from pydantic import ValidationError
from toy_run import Toy, run_toy, some_texts, write_documents

from fineinstructions.engines.resources import Gpus, Resources, visible_gpus
from fineinstructions.engines.staff import Staff
from fineinstructions.engines.worker import Report
from fineinstructions.errors import ConfigError
from fineinstructions.recipe import RunConfig
from fineinstructions.runs import RunFolder


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(60))
    return Toy(inputs=(str(documents),), out=str(tmp_path / "run"))


@pytest.mark.slow
def test_every_worker_sees_its_own_gpus(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them allow one worker of two, which the next phase's worker takes over; one per worker allows three."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert visible_gpus() == ["3", "5", "7"]
    run_toy(replace(toy, workers=3, gpus=2, seconds=0.01))
    assert seen_gpus(toy) == {"3,5"}
    run_toy(replace(toy, workers=8, gpus=1, out=f"{toy.out}-2", seconds=0.05, unit_rows=2))
    assert seen_gpus(replace(toy, out=f"{toy.out}-2")) == {"3", "5", "7"}
    third = replace(toy, workers=3, gpus=0.5, out=f"{toy.out}-3", seconds=0.05, unit_rows=2)
    told: list[str] = []
    run_toy(third, note=told.append)
    assert seen_gpus(third) == {"3", "5", "7"}
    assert told == []
    run_toy(replace(third, workers=7, redo=True, words=2), note=told.append)
    assert set(told) == {
        f"engine.workers: 7, but phase {phase!r} has 6: a worker has 0.5 of this machine's GPUs for itself"
        " (engine.resources)"
        for phase in ("matches", "pairs")
    }
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5,7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
    assert visible_gpus() == ["0"]
    with pytest.raises(ConfigError, match=r"^engine\.resources: a worker is to have 2 GPUs, but this machine shows 1;"):
        run_toy(replace(toy, workers=1, gpus=2, redo=True, words=2))


def test_workers_are_spread_over_gpus_in_the_machines_order() -> None:
    gpus = Gpus(["3", "5", "7"])
    assert [gpus.room(n, others) for n, others in ((1, ()), (2, ()), (4, ()), (1 / 3, ("7",)))] == [3, 1, 0, 6]
    assert [gpus.take(1 / 3, ("5",)) for _ in range(6)] == [("3",), ("7",)] * 3
    gpus.give_back(("7",), 1 / 3)
    assert (gpus.take(1 / 3, ("5",)), gpus.take(0, ())) == (("7",), ())
    for name in ("3", "7"):
        for _ in range(3):
            gpus.give_back((name,), 1 / 3)
    assert (gpus.take(2), gpus.take(1)) == (("3", "5"), ("7",))
    with pytest.raises(ValidationError, match="must be a whole number, or a share of one GPU"):
        Resources(gpus=1.5)


def test_an_encoder_has_a_gpu_of_this_machine_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus(phase: str, **settings: Any) -> float:
        return (
            RunConfig.model_validate({"encoder": {"model": "a/b", "revision": "1"}, **settings})
            .resources_of(phase)
            .gpus
        )

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [gpus(phase) for phase in ("index", "candidates", "compatibility", "matches", "pairs")] == [1, 1, 1, 0, 0]
    shared = {"resources": {"candidates": {"gpus": 0.5}, "index": {"cpus": 2}}}
    assert [gpus(phase, engine=shared) for phase in ("candidates", "index", "compatibility")] == [0.5, 0, 1]
    assert gpus("candidates", encoder={"model": "a/b", "revision": "1", "device": "cpu"}) == 0
    assert gpus("candidates", encoder={}) == 0
    assert gpus("candidates", engine={"kind": "slurm"}) == 0
    assert gpus("candidates", engine={"kind": "ray"}) == 0, "GPUs of this machine say nothing of a cluster's"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus("candidates") == 0


def test_who_could_use_a_gpu_and_was_not_told() -> None:
    def told(phase: str, **settings: Any) -> bool:
        with_encoder = {"encoder": {"model": "a/b", "revision": "1"}, "engine": {"kind": "ray"}, **settings}
        return RunConfig.model_validate(with_encoder).could_use_gpu(phase)

    assert [told(phase) for phase in ("index", "candidates", "compatibility", "matches")] == [True, True, True, False]
    assert not told("candidates", encoder={})
    assert not told("candidates", encoder={"model": "a/b", "revision": "1", "device": "cpu"})
    silent = {"kind": "slurm", "resources": {"candidates": {"gpus": 0}}}
    assert [told(phase, engine=silent) for phase in ("index", "candidates")] == [True, False]


def seen_gpus(toy: Toy) -> set[str]:
    """What workers found in their environment when they closed their models."""
    return set(Path(toy.out).with_suffix(".gpus").read_text().split())


def test_a_worker_with_other_resources_is_another_one(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Staff() as staff:
        run = RunFolder(Path(toy.out), phases=tuple(toy.phases()))
        first = staff.hire(toy_run.job_of(toy, run, "matches"))
        assert list(staff.listen([first])) == [(first, Report(None, "ready"))]
        first.ready = True
        staff.take_back([first])
        wanted = toy_run.job_of(replace(toy, gpus=1), run, "matches")
        second = staff.hire(replace(wanted, other_gpus=("0",)))
        assert (second.gpus, second.process.pid == first.process.pid) == (("1",), False)
        assert staff.room(replace(wanted, other_gpus=("0",))) == 1
        assert not first.process.is_alive()
        staff.end([second])
