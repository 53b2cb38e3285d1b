"""The recipes of the embedded tier run to their end on small data, and give models that work."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES

from fineinstructions.embedded.answers.model import AnswerModel
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.contrastive import Training
from fineinstructions.embedded.encoder import DATA_DIR, EmbeddedEncoder
from fineinstructions.embedded.genericizer import EmbeddedGenericizer, load_frames
from fineinstructions.embedded.recipes import TrainingData, make_encoder
from fineinstructions.embedded_training import MAX_BYTES, train_embedded
from fineinstructions.errors import ConfigError
from fineinstructions.records import Query, TemplateDraft

MARK = "zzyzxword"
PARTS = {
    "treatment": "Treatment of {} includes rest and medicines that a doctor may prescribe for some weeks or more.",
    "symptoms": "Symptoms of {} are fever and pain in the joints that come and go over many days in most people.",
    "causes": "Changes in a gene cause {} in families, and the change is passed from parents to their children.",
}


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def health_page(number: int) -> tuple[str, str, dict[str, tuple[int, int]]]:
    """Title, text and the spans that answer."""
    title = f"gout{number}"
    written = {kind: part.format(title) for kind, part in PARTS.items() if kind != "causes" or number % 2}
    text = f"{title.title()} is a disease.\n\n" + "\n\n".join(f"## {k.title()}\n\n{p}" for k, p in written.items())
    return title, text, {kind: (text.index(p), text.index(p) + len(p)) for kind, p in written.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of everything that is learned from; one page is in the corpus and held out too."""
    folder = tmp_path_factory.mktemp("data")
    documents = pq.read_table(EXAMPLES / "documents.parquet").slice(0, 90).to_pylist()
    corpus = [{k: d[k] for k in ("id", "domain", "title", "text")} for d in documents]
    medquad = []
    for number in range(60):
        title, text, spans = health_page(number)
        corpus.append({"id": f"h-{number}", "domain": "medicine", "title": title, "text": text})
        for kind, (start, end) in spans.items():
            row = {"doc_id": f"h-{number}", "question": f"What is the {kind} of {title}?", "question_type": kind}
            row["question_template"] = f"What is the {kind} of {{focus}}?"
            medquad.append(
                {**row, "answer": text[start:end], "answer_start": start, "answer_end": end, "doc_split": "corpus"}
            )
    held_out = {"id": "held", "domain": "medicine", "title": MARK, "text": f"{MARK} is a disease. " * 40}
    write(folder / "corpus" / "part-00.parquet", [*corpus, held_out])
    write(folder / "docs_dev.parquet", [held_out])
    queries = pq.read_table(EXAMPLES / "queries.parquet").slice(0, 1500).to_pylist()
    write(folder / "queries.parquet", queries)
    stories = []
    for number in range(60):
        for part in (1, 2):
            text = f"The wolf met King{number} on day {part}. He ate bread with honey. Then he slept under tree {part}."
            start = text.index("He ate")
            row = {"split": "train", "story": f"tale {number}", "doc_id": f"s-{number}", "context": text}
            row |= {"question": f"What did King{number} eat?", "explicitness": "explicit"}
            stories.append({**row, "answer_starts": [start], "answer_ends": [start + 20]})
    write(folder / "supervised" / "fairytaleqa.parquet", stories)
    write(folder / "supervised" / "medquad.parquet", medquad)
    meetings = [
        {"split": "train", "meeting": f"m{n}", "query": f"What about {n}?", "evidence_text": "we talk " * 30}
        for n in range(9)
    ]
    write(folder / "supervised" / "qmsum.parquet", meetings)
    write(folder / "supervised" / "query_wellformedness.parquet", [{"text": "What is it?", "wellformedness": 0.9}])
    write(folder / "benchmarks" / "judges" / "a.parquet", [{"question": queries[0]["text"].upper() + "??"}])
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    pytest.importorskip("lightgbm")
    out, said = tmp_path_factory.mktemp("out"), []
    train_embedded(data, out, say=said.append)
    return out, said


@pytest.mark.slow
@pytest.mark.extra
def test_all_recipes_run_and_their_models_work(data: Path, trained: tuple[Path, list[str]]) -> None:
    out, said = trained
    rows = pq.read_table(data / "queries.parquet").slice(0, 300).to_pylist()
    outcomes = list(EmbeddedGenericizer(out).genericize(Query(r["id"], r["text"]) for r in rows))
    assert len(outcomes) == 300
    assert sum(isinstance(outcome, TemplateDraft) for outcome in outcomes) >= 10
    vectors = EmbeddedEncoder(out).encode_texts(["symptoms of a disease", "fever and pain"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    title, text, _ = health_page(7)
    asked = AnswerModel.load(out).ask(f"What is the treatment of {title}?", Sentences(text, title))
    assert "Treatment" in asked.sentences.string(int(asked.chances.argmax()))
    assert pq.read_table(out / "bank.parquet").num_rows > 10
    assert any("1 of 1,500 are asked by a judge set" in line for line in said)


@pytest.mark.slow
@pytest.mark.extra
def test_held_out_documents_are_not_read(trained: tuple[Path, list[str]]) -> None:
    out, _ = trained
    assert MARK not in pq.read_table(out / "words.parquet")["word"].to_pylist()
    for name, key in (("encoder.npz", "keys"), ("answers.npz", "rarity.words")):
        with np.load(out / name, allow_pickle=False) as arrays:
            assert MARK not in arrays[key].tobytes().decode("utf-8").split("\n")


@pytest.mark.slow
@pytest.mark.extra
def test_the_same_inputs_give_the_same_bytes(data: Path, trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    out, _ = trained
    files = train_embedded(data, tmp_path, say=lambda _: None)
    assert [path.name for path in files] == sorted(path.name for path in out.iterdir())
    for path in files:
        if path.suffix != ".npz":
            assert path.read_bytes() == (out / path.name).read_bytes(), path.name
            continue
        with np.load(path) as here, np.load(out / path.name) as there:
            assert here.files == there.files
            assert all(here[name].tobytes() == there[name].tobytes() for name in here.files), path.name


@pytest.mark.extra
def test_an_encoder_alone_is_the_same_twice(data: Path, tmp_path: Path) -> None:
    """A few steps are enough to show that the same inputs give the same bytes, and that held-out pages are not read."""
    pytest.importorskip("scipy")
    folders, said = (tmp_path / "a", tmp_path / "b"), []
    for folder in folders:
        folder.mkdir()
        make_encoder(TrainingData(data), folder, said.append, Training(steps=24, batch=64))
    for name in ("encoder.npz", "encoder.json"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second, name
    encoder = EmbeddedEncoder(folders[0])
    question, *texts = encoder.encode_texts(
        ["treatment of gout8", PARTS["treatment"].format("gout8"), "a king and bread"]
    )
    assert question @ texts[0] > question @ texts[1]
    with np.load(folders[0] / "encoder.npz", allow_pickle=False) as arrays:
        assert MARK not in arrays["keys"].tobytes().decode("utf-8").split("\n")
    assert any("descriptions of pages" in line for line in said)


def test_missing_inputs_are_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="corpus: no"):
        train_embedded(tmp_path, tmp_path / "out")
    (tmp_path / "corpus").symlink_to(data / "corpus")
    with pytest.raises(ConfigError, match=r"docs_dev\.parquet: not found"):
        train_embedded(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="no such model"):
        train_embedded(data, tmp_path / "out", ["judge"])


def test_shipped_files_are_small_and_load_without_torch() -> None:
    assert sum(path.stat().st_size for path in DATA_DIR.iterdir()) <= MAX_BYTES
    assert {path.suffix for path in DATA_DIR.iterdir()} <= {".npz", ".json", ".parquet"}
    code = """
import sys
from fineinstructions.embedded.answers.model import AnswerModel
from fineinstructions.embedded.encoder import DATA_DIR, EmbeddedEncoder
from fineinstructions.embedded.genericizer import EmbeddedGenericizer
AnswerModel.load(DATA_DIR), EmbeddedEncoder().encode_texts(["gout"]), EmbeddedGenericizer()
print(sorted({"torch", "scipy", "sklearn", "lightgbm"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "[]"


def test_shipped_frames_are_shared() -> None:
    frames = load_frames(DATA_DIR / "frames.parquet")
    assert sum(frame.num_fillers >= 2 for frame in frames.values()) > 2_000
