"""`try`: one text through every stage, as a person sees it and as JSON."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from pipeline_inputs import EXAMPLES, call, command, ended, in_process, take_documents, write_recipe

TEXT = """Photosynthesis is the process by which plants turn light, water and carbon dioxide into sugar and oxygen.
It takes place in the chloroplasts of the leaves, and it feeds nearly all life on Earth."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("try")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """A recipe over a bank of some example queries."""
    documents = take_documents(folder / "documents.parquet", 8, every=16)
    path = write_recipe(folder, documents, queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 500})
    assert call("templates", "build", path, "--out", folder / "bank").returncode == 0
    return write_recipe(folder, documents, queries=None, templates={"bank": str(folder / "bank")})


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    path = folder / "photosynthesis.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_try_takes_a_text_through_every_stage(text: Path, folder: Path, recipe: Path) -> None:
    shown = ended("try", text, "--query", "What is a mitochondrion?")
    for stage in ("genericize", "merge", "chunk", "retrieve", "sample"):
        assert f"\n{stage}  " in f"\n{shown}"
    assert " kept\n" in shown
    trial = json.loads(ended("try", text, "--query", "What is a mitochondrion?", "--json"))
    steps = {step["stage"]: step for step in trial["steps"]}
    assert list(steps) == [
        *("genericize", "merge", "chunk", "retrieve", "sample", "instantiate", "excerpts", "judge", "select")
    ]
    assert "<fi>" in steps["genericize"]["made"][0]["template"]
    assert steps["chunk"]["made"][0]["num_tokens"] > 10
    for pair in steps["select"]["made"]:
        assert pair["answer"] in TEXT or pair["excerpt_ratio"] >= 0.8
    trial = json.loads(ended("try", text, "--bank", folder / "bank", "--json"))
    assert [step["stage"] for step in trial["steps"]][:2] == ["chunk", "retrieve"]
    trial = json.loads(ended("try", text, "--recipe", recipe, "--json"))
    assert trial["document_id"].startswith("d-")


def test_try_takes_the_title_from_the_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "report_v2.txt"
    body = "A mitochondrion is an organelle found in the cells of most eukaryotes.\n\nWhere it is\n\nIn the cell.\n"
    for text, title in ((f"# Mitochondrion\n\n{body}", "from: Mitochondrion"), (body, "from: d-")):
        path.write_text(text, encoding="utf-8")
        shown = ended("try", path, "--query", "What is a mitochondrion?")
        assert title in shown and "report" not in shown


def test_try_tells_the_nearest_template_where_there_is_none_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("rain and more rain over the harbour all day long", encoding="utf-8")
    shown = " ".join(ended("try", path).split())
    assert "no_compatible_template" in shown and "the embedded gate knows" in shown
    assert re.search(r"nearest template: .*<fi>.* \(t-\w+\), cosine -?0\.\d{3}, threshold -0\.150", shown)


def test_try_shows_the_words_of_the_templates_that_it_tries(text: Path) -> None:
    query = "What is a mitochondrion?"
    shown = ended("try", text, "--query", query)
    trial = json.loads(ended("try", text, "--query", query, "--json"))
    words = trial["steps"][0]["made"][0]["template"]
    retrieved = shown[shown.index("\nretrieve") : shown.index("\ninstantiate")]
    assert shown.startswith("genericize")
    assert retrieved.count(words) == len(trial["steps"][3]["made"]) + len(trial["steps"][4]["made"])
    assert "t-" not in retrieved


def test_try_shows_what_a_screen_lets_through(text: Path, tmp_path: Path) -> None:
    screened = tmp_path / "screened.yaml"
    screened.write_text("compatibility: {screen: true}\n", encoding="utf-8")
    for query, passes in (("What is photosynthesis?", True), ("Who invented the power loom?", False)):
        words = ("--query", query, "--title", "Photosynthesis", "--recipe", screened, "--json")
        steps = json.loads(ended("try", text, *words))["steps"]
        found = {step["stage"]: step for step in steps}
        assert [bool(found["screen"][side]) for side in ("made", "rejected")] == [passes, not passes]
        assert len(found["instantiate"]["made"] + found["instantiate"]["rejected"]) == passes


def test_try_reads_standard_input(text: Path) -> None:
    words = command("try", "-", "--query", "What is a mitochondrion?", "--json")
    done = subprocess.run(words, input=TEXT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"]


def test_try_without_bank_uses_the_one_that_ships(text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fineinstructions import trial

    if trial.EMBEDDED_BANK.exists():
        steps = json.loads(ended("try", text, "--json"))["steps"]
        assert steps[0]["stage"] == "chunk"
    monkeypatch.setattr(trial, "EMBEDDED_BANK", tmp_path / "absent.parquet")
    code, _, errors = in_process("try", text)
    assert code == 2
    assert errors == (
        "fineinstructions: this installation ships no template bank; name one with --bank, or give a --query\n"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no such file"), (b" \n", "the document is empty"), (b"\xff\xfe\x00", "cannot be read as UTF-8 text")],
)
def test_try_refuses_what_is_no_text(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "d.txt"
    if content is not None:
        path.write_bytes(content)
    code, _, errors = in_process("try", path)
    assert code == 2
    assert expected in errors
    assert errors.count("\n") == 1
