"""Arms beside pairs and documents: documents with their pairs, and documents that a language model rephrased."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from exported import export, rows_of
from golden_files import check_golden
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions.backends.scripted_server import ScriptedServer, StatusError
from fineinstructions.backends.tokenizer import ByteTokenizer
from fineinstructions.corpus.check import check_corpora
from fineinstructions.corpus.rephrase import STYLES
from fineinstructions.pair_text import pair_text

pytestmark = pytest.mark.xdist_group("corpora")
NUM_DOCUMENTS = 30
MODEL = "llm.model=scripted"


def rewrite(body: Mapping[str, Any]) -> str:
    """A page of the document's own words; short for some, a refusal to speak for one."""
    document = json.loads(body["messages"][-1]["content"])["document"]
    number = int(document.split("number ")[1].split(".")[0])
    if number == 7:
        raise StatusError(400, "this one is not answered")
    return "too short" if number % 10 == 3 else f"# A page\n\n**{document.upper()}** " + "and more of it. " * 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), some_texts(NUM_DOCUMENTS), lambda n: 4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer(rewrite, keep_bodies=True) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield server


def test_documents_are_followed_by_the_pairs_that_the_budget_chose(run: Path, tmp_path: Path) -> None:
    words = ("--arm", "ipt", "--arm", "fineinstructions", "--set", "equal_tokens=false", "--format", "jsonl")
    facts = export(run, tmp_path / "out", *words)
    chosen = {row["id"] for row in rows_of(tmp_path / "out", "fineinstructions")}
    pairs = [p for p in pq.read_table(run / "pairs").to_pylist() if p["pair_id"] in chosen]
    texts = some_texts(NUM_DOCUMENTS)
    expected = {
        f"d{n}": "\n\n".join(
            [text, *(pair_text(p["instruction"], p["answer"]) for p in pairs if p["document_id"] == f"d{n}")]
        )
        for n, text in enumerate(texts)
    }
    rows = rows_of(tmp_path / "out", "ipt")
    assert {row["id"]: row["text"] for row in rows} == expected
    assert [row["num_tokens"] for row in rows] == ByteTokenizer().row_tokens([row["text"] for row in rows]).tolist()
    assert {row["template_licence"] for row in rows if "Answer:" in row["text"]} == {"CC0; MIT"}
    assert facts["arms"]["ipt"]["rows"] == NUM_DOCUMENTS
    assert check_corpora(tmp_path / "out") == []


@pytest.mark.slow
def test_all_arms_have_the_same_tokens(run: Path, tmp_path: Path, server: ScriptedServer) -> None:
    """One server answers for all of them, once per document and style; another export asks it nothing."""
    arms = ("standard", "fineinstructions", "ipt", "wrap", "nemotron_qa", "nemotron_mixture")
    words = [word for arm in arms for word in ("--arm", arm)]
    command = ("export", run, *words, "--workers", "0", "--set", MODEL, "--set", "llm.max_in_flight=8")
    code, _, errors = in_process(*command, "--out", tmp_path / "out")
    assert code == 1, errors
    assert f"{len(STYLES)} documents failed" in errors
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    tokens = {arm: figures["tokens"] for arm, figures in facts["arms"].items()}
    assert list(tokens) == list(arms)
    left_out = [r for r in pq.read_table(tmp_path / "out" / "rejected").to_pylist() if r["reason"] == "equal_tokens"]
    for arm, number in tokens.items():
        rows = [r["value"] for r in left_out if json.loads(r["record"])["arm"] == arm]
        assert max(tokens.values()) - number < min(rows, default=1), (arm, tokens)
    account = facts["stages"]["rephrase"]
    assert (account["in"], account["rejected"], account["failed"]) == (
        len(STYLES) * NUM_DOCUMENTS,
        {"too_short": 3 * len(STYLES)},
        {"request": len(STYLES)},
    )
    rows = rows_of(tmp_path / "out", "nemotron_mixture")
    assert all(row["text"].startswith("A page\n\nABOUT") and "**" not in row["text"] for row in rows)
    assert check_corpora(tmp_path / "out") == []
    asked = len(server.bodies)
    code, _, errors = in_process(*command, "--out", tmp_path / "again", "--seed", "4", "--format", "lingua")
    assert code == 1, errors
    new = len(server.bodies) - asked
    assert new <= len(STYLES), "only what failed is asked again"


def test_a_document_that_holds_a_benchmark_is_not_rephrased(tmp_path: Path, server: ScriptedServer) -> None:
    run = write_run(tmp_path, some_texts(NUM_DOCUMENTS), lambda n: 4)  # nothing of it has been asked before
    held_out = some_texts(NUM_DOCUMENTS)[10]
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": held_out}) + "\n", encoding="utf-8")
    words = ("--arm", "nemotron_qa", "--arm", "standard", "--workers", "0", "--set", MODEL)
    benchmark = ("--set", f"sift.benchmarks=[{{path: {tmp_path / 'b.jsonl'}}}]")
    code, _, _ = in_process("export", run, "--out", tmp_path / "out", *words, *benchmark)
    assert code == 1, "one document failed"
    shown = {json.loads(body["messages"][-1]["content"])["document"] for body in server.bodies}
    assert held_out.strip() not in {text.strip() for text in shown}
    assert len(shown) == NUM_DOCUMENTS - 1
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    lost = {source: s["benchmark_rows"] for f in facts["arms"].values() for source, s in f["sources"].items()}
    assert lost == {"diverse_qa": 1, "documents": 1}
    assert facts["stages"]["decontaminate"]["in"] == 2 * NUM_DOCUMENTS
    assert facts["stages"]["rephrase"]["in"] == NUM_DOCUMENTS - 1
    assert check_corpora(tmp_path / "out") == []


def test_rephrased_rows_too_come_from_documents_that_have_pairs(tmp_path: Path, server: ScriptedServer) -> None:
    run = write_run(tmp_path, some_texts(NUM_DOCUMENTS), lambda n: n % 3)
    words = ("--arm", "nemotron_qa", "--arm", "wrap", "--arm", "fineinstructions", "--workers", "0", "--set", MODEL)
    code, _, errors = in_process("export", run, "--out", tmp_path / "out", *words, "--set", "documents=with_pairs")
    assert code == 1, errors
    for arm in ("nemotron_qa", "wrap"):
        used = {row["document_id"] for row in rows_of(tmp_path / "out", arm)}
        assert used
        assert all(int(name[1:]) % 3 for name in used), arm
    cut = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))["stages"]["cut"]
    assert cut["in"] == cut["out"] + sum(cut["rejected"].values())
    assert check_corpora(tmp_path / "out") == []


def test_a_rephrased_page_stands_beside_as_much_of_the_originals(
    run: Path, tmp_path: Path, server: ScriptedServer
) -> None:
    export_words = ("--arm", "wrap", "--workers", "0", "--set", MODEL)
    code, _, _ = in_process("export", run, "--out", tmp_path / "out", *export_words)
    assert code == 1, "one document failed"
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    halves = {source: share["tokens"] for source, share in facts["arms"]["wrap"]["sources"].items()}
    assert abs(halves["documents"] - halves["wikipedia_style"]) < 400
    models = json.loads(
        next(row for row in (tmp_path / "out" / "README.md").read_text().splitlines() if "rephraser" in row).split("`")[
            1
        ]
    )
    assert models["style"] == "wikipedia_style"
    assert models["rephraser"]["model"] == "scripted"


def test_a_model_has_to_be_named(run: Path, tmp_path: Path) -> None:
    for words, told in (((), "llm.model"), (("--set", MODEL, "--set", "llm.engine=batch"), "batch files")):
        code, _, errors = in_process("export", run, "--out", tmp_path / "out", "--arm", "nemotron_qa", *words)
        assert (code, told in errors, len(errors.strip().splitlines())) == (2, True, 1), errors


@pytest.mark.parametrize("style", STYLES)
def test_prompts(style: str) -> None:
    """A prompt decides what a model writes, so that a change of it is seen."""
    from fineinstructions.backends.prompt import as_input, read_prompt
    from fineinstructions.corpus import rephrase

    prompt = read_prompt(Path(rephrase.__file__).with_name(f"rephrase.{style}.prompt.txt"), ("input",))
    filled = prompt.fill({"input": as_input(document='Rain "falls". {{input}} </s>')})
    check_golden(f"rephrase.{style}.txt", "\n=== user ===\n".join(content for _, content in filled) + "\n")
