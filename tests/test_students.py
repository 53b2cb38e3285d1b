"""Trainings of students by their commands: rows in, a folder out that works in a recipe; killed, continued, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import in_process, rows, write_recipe
from silver_rows import PLANTS, TEMPLATE, embedder_rows, genericizer_rows, instantiator_rows, write
from tiny_encoders import save_xlm_roberta
from tiny_llama import save_llama

from fineinstructions.backends.encoders import open_encoder
from fineinstructions.config import from_mapping
from fineinstructions.recipe import RunConfig
from fineinstructions.records import as_dict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.extra,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.xdist_group("students"),
]
pytest.importorskip("trl")
pytest.importorskip("sentence_transformers")


DIES_AFTER_A_CHECKPOINT = """
import os, signal
from transformers import Trainer
save = Trainer._save_checkpoint
def save_and_die(self, *words, **named):
    save(self, *words, **named)
    os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
from fineinstructions.cli import main
main()
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_llama(tmp_path_factory.mktemp("base") / "llama")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: llama3.2\n---\n", encoding="utf-8")
    return folder


def recipe_of(folder: Path, **settings: Any) -> Path:
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def trained(student: str, recipe: Path, out: Path, *more: str) -> dict[str, Any]:
    code, found, errors = in_process("train", student, recipe, "--out", out, "--json", *more)
    assert code == 0, errors
    facts: dict[str, Any] = json.loads(found)
    return facts


@pytest.fixture(scope="module")
def genericizer(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A recipe, the student that it made of JSON lines, and what the command told."""
    folder = tmp_path_factory.mktemp("genericizer")
    given = [as_dict(row) for row in genericizer_rows()]
    given.append({**given[0], "row_id": "long", "prompt": [{"role": "user", "content": "Is it tall? " * 60}]})
    given.append({**given[0], "row_id": "system", "prompt": [{"role": "system", "content": "x"}, *given[0]["prompt"]]})
    given.append({**given[0], "row_id": "broken", "completion": [{"role": "assistant", "content": "no JSON"}]})
    given.append({"query": "nothing else"})
    text = "".join(json.dumps(row) + "\n" for row in given) + "{no json\n"
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    recipe = recipe_of(
        folder, data=str(folder / "rows.jsonl"), model=str(llama), epochs=14, lr=4e-3, max_length=512,
        sequences_per_step=2, eval_max_tokens=160,
    )  # fmt: skip
    return recipe, folder / "student", trained("genericizer", recipe, folder / "student")


def test_every_row_is_trained_on_or_set_aside_with_its_reason(
    genericizer: tuple[Path, Path, dict[str, Any]],
) -> None:
    _, student, told = genericizer
    facts = told["training"]
    (trained_round,) = facts["rounds"]
    assert facts["rows_read"] == 29
    assert facts["set_aside"] == {
        "read: format": 1, "read: malformed_json": 1, "read: not_published_prompt": 1, "read: reply_format": 1,
        "sft: too_long": 1,
    }  # fmt: skip
    assert trained_round["rows"] + trained_round["held_out_rows"] + sum(facts["set_aside"].values()) == 29
    assert pq.read_table(student / "set_aside.parquet").num_rows == 5
    assert trained_round["last_loss"] < trained_round["first_loss"] / 4
    assert trained_round["held_out_after"] < trained_round["held_out_before"] / 4
    card = (student / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    for said in ("other (llama3.2)", "CC0 1.0", "teacher", "set aside, sft: too\\_long"):
        assert said in card.replace("too_long", "too\\_long"), said
    assert not student.with_name("student.work").exists()


def test_a_genericizer_works_at_once_in_a_recipe(
    genericizer: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    _, student, told = genericizer
    scores = {score["name"]: score for score in told["scores"]}
    assert scores["valid JSON"]["value"] == scores["slot agreement"]["value"] == 1.0
    assert json.loads((student / "evaluation.json").read_text())["scores"] == told["scores"]
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"id": p, "text": f"Is {p} tall?"}) + "\n" for p in PLANTS[:6]), encoding="utf-8"
    )
    section = yaml.safe_load(told["use"])["genericize"]
    section["llm"]["max_tokens"] = 160
    recipe = write_recipe(
        tmp_path, "unused", queries={"path": str(tmp_path / "queries.jsonl"), "min_chars": 1}, genericize=section,
        engine={"workers": 0},
    )  # fmt: skip
    code, _, errors = in_process("templates", "build", recipe, "--out", tmp_path / "bank")
    assert code == 0, errors
    assert [template["template"] for template in rows(tmp_path / "bank", "templates")] == [TEMPLATE]


def test_a_student_is_never_overwritten(genericizer: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    recipe, student, told = genericizer
    before = files_of(student)
    again = trained("genericizer", recipe, student)
    assert (again["was_there"], again["scores"]) == (True, told["scores"])
    code, _, errors = in_process("train", "genericizer", recipe, "--out", student, "--set", "seed=1")
    assert code == 2
    assert "made with other settings (seed: 42 -> 1); choose another --out" in " ".join(errors.split())
    (tmp_path / "other").mkdir()
    code, _, errors = in_process("train", "genericizer", recipe, "--out", tmp_path / "other")
    assert (code, "is no student of ours" in errors) == (2, True)
    assert files_of(student) == before


def test_a_killed_training_is_continued_and_ends_in_the_same_weights(llama: Path, tmp_path: Path) -> None:
    write(tmp_path / "silver", "genericizer", genericizer_rows(18))
    recipe = recipe_of(
        tmp_path, data=str(tmp_path / "silver"), model=str(llama), epochs=5, lr=1e-3, max_length=384, eval_rows=0,
        sequences_per_step=2, save_every_steps=3,
    )  # fmt: skip
    words = ("train", "genericizer", recipe, "--out", tmp_path / "killed")
    child = [sys.executable, "-c", DIES_AFTER_A_CHECKPOINT, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(child, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL
    work = tmp_path / "killed.work" / "genericizer" / "checkpoints"
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-3"]
    assert not (tmp_path / "killed").exists()
    (work / "checkpoint-999").mkdir()  # as a kill leaves one that is being written
    code, _, errors = in_process(*words, "--set", "lr=0.5")
    assert (code, "lr: 0.001 -> 0.5" in " ".join(errors.split())) == (2, True)
    assert trained("genericizer", recipe, tmp_path / "killed")["training"]["rounds"][0]["steps"] > 3
    trained("genericizer", recipe, tmp_path / "whole")
    names = ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json")
    assert {n: (tmp_path / "killed" / n).read_bytes() for n in names} == {
        n: (tmp_path / "whole" / n).read_bytes() for n in names
    }


def test_an_instantiator_is_trained_in_two_rounds_and_examined_by_its_task(llama: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "silver", f"instantiator_{number}", instantiator_rows(number))
    recipe = recipe_of(
        tmp_path, data=str(tmp_path / "silver"), model=str(llama), epochs=4, lr=4e-3, max_length=512,
        sequences_per_step=2, eval_max_tokens=120, eval_rows=6,
    )  # fmt: skip
    told = trained("instantiator", recipe, tmp_path / "student")
    first, second = told["training"]["rounds"]
    assert (first["name"], first["rows"], second["name"], second["rows"]) == ("round_1", 20, "round_2", 20)
    assert second["held_out_before"] < first["held_out_before"] / 2, "the second round goes on from the first"
    scores = {score["name"]: score for score in told["scores"]}
    assert set(scores) == {
        "valid JSON", "slots filled", "slot agreement", "excerpt validity", "excerpt ratio", "grounded answers",
        "refusal precision", "refusal recall",
    }  # fmt: skip
    assert scores["valid JSON"]["num_rows"] == 6
    assert scores["refusal recall"]["num_rows"] == 3
    assert scores["excerpt ratio"]["source"].startswith("paper")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("embedder")
    write(folder / "silver", "embedder", embedder_rows(72))
    base = save_xlm_roberta(folder / "base", contextual=False)
    recipe = recipe_of(
        folder, data=str(folder / "silver"), model=str(base), epochs=4, lr=5e-3, pairs_per_step=8, micro_batch=4
    )
    return folder / "student", trained("embedder", recipe, folder / "student")


def test_an_embedder_learns_what_belongs_together_and_where(embedder: tuple[Path, dict[str, Any]]) -> None:
    _, told = embedder
    scores = {score["name"]: score["value"] for score in told["scores"]}
    assert scores["AUC, nearest vector, after"] >= max(0.9, scores["AUC, nearest vector, before"])
    assert scores["right chunk, after"] >= 0.9
    assert [r["name"] for r in told["training"]["rounds"]] == ["document", "chunk"]
    assert all(r["held_out_after"] < r["held_out_before"] for r in told["training"]["rounds"][:1])


def test_the_encoder_of_a_recipe_has_the_threshold_that_was_calibrated(embedder: tuple[Path, dict[str, Any]]) -> None:
    student, told = embedder
    stored = json.loads((student / "fineinstructions.json").read_text())
    assert stored["min_cosine"] == told["training"]["min_cosine"]
    assert {"precision", "recall"} <= set(stored["thresholds"][0])
    recipe = from_mapping(yaml.safe_load(told["use"]), RunConfig)
    assert open_encoder(recipe.encoder, recipe.llm).min_cosine == stored["min_cosine"]
    assert (student / "modules.json").exists()


@pytest.mark.parametrize(
    ("student", "changes", "said"),
    [
        ("genericizer", {"data": "nowhere"}, "nowhere"),
        ("genericizer", {"model": "no/such", "revision": None}, "recipe.revision: missing"),
        ("genericizer", {"max_length": 20}, "max_length: no row of genericizer has at most 20 tokens; raise it"),
        ("genericizer", {"sequences_per_step": 3, "micro_batch": 2}, "make the one a multiple of the other"),
        ("genericizer", {"epochz": 3}, "did you mean 'epochs'"),
        ("instantiator", {}, "no row to train on (not_published_prompt 6)"),
        ("embedder", {"max_length": None}, "no row to train on (format 6)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_is_one_line(llama: Path, tmp_path: Path, student: str, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, "genericizer", genericizer_rows(6))
    files = [str(tmp_path / f"genericizer_{split}") for split in ("train", "validation")]
    settings = {"data": files, "model": str(llama), "max_length": 512, **changes}
    recipe = recipe_of(tmp_path, **{key: value for key, value in settings.items() if value is not None})
    code, _, errors = in_process("train", student, recipe, "--out", tmp_path / "student")
    assert code == 2
    assert said in " ".join(errors.split())
    assert len(errors.strip().splitlines()) <= 2
    assert not (tmp_path / "student").exists()
    shutil.rmtree(tmp_path)
