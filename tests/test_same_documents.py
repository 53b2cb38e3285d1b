"""Arms of the same documents and the same tokens, through the front door."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported import every_file, export, rows_of
from pipeline_inputs import in_process
from small_run import some_texts, write_run

from fineinstructions.corpus.check import check_corpora, check_same_documents

pytestmark = pytest.mark.xdist_group("corpora")
ARMS = ("--arm", "standard", "--arm", "ipt", "--arm", "fineinstructions", "--arm", "control=documents:0.9,pairs:0.1")
SAME = ("--set", "documents=same")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which some documents have no pairs, and some have more than they have room for."""
    return write_run(tmp_path_factory.mktemp("run"), some_texts(60), lambda n: n % 4)


def test_every_arm_has_the_same_documents_and_tokens(run: Path, tmp_path: Path) -> None:
    facts = export(run, tmp_path / "out", *ARMS, *SAME, "--set", "shuffle=true")
    used = {arm: {row["document_id"] for row in rows_of(tmp_path / "out", arm)} for arm in facts["arms"]}
    assert len(used["fineinstructions"]) > 20
    assert all(documents == used["fineinstructions"] for documents in used.values())
    assert {figures["documents"] for figures in facts["arms"].values()} == {len(used["fineinstructions"])}
    tokens = [figures["tokens"] for figures in facts["arms"].values()]
    shortest = min(row["num_tokens"] for arm in facts["arms"] for row in rows_of(tmp_path / "out", arm))
    assert max(tokens) - min(tokens) < shortest
    standard = facts["arms"]["standard"]["sources"]["documents"]
    assert 0 < standard["shortened_rows"] <= standard["rows"]
    with_pairs = facts["arms"]["ipt"]["sources"]["documents_with_pairs"]["rows_with_pairs"]
    assert with_pairs == sum("Answer:" in row["text"] for row in rows_of(tmp_path / "out", "ipt")) > 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "same documents" in card
    assert f"standard: {standard['shortened_rows']} of {standard['rows']} documents are cut." in card
    assert check_corpora(tmp_path / "out") == []


def test_any_beginning_of_two_arms_has_the_same_documents(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", *ARMS, *SAME, "--set", "shuffle=true")
    orders = {arm: [row["document_id"] for row in rows_of(tmp_path / "out", arm)] for arm in ("standard", "control")}
    pairs = [row["document_id"] for row in rows_of(tmp_path / "out", "fineinstructions")]
    assert list(dict.fromkeys(pairs)) == orders["standard"] == list(dict.fromkeys(orders["control"]))
    assert orders["standard"] != sorted(orders["standard"], key=lambda name: int(name[1:])), "shuffled"


def test_what_an_arm_does_not_take_is_told(run: Path, tmp_path: Path) -> None:
    facts = export(run, tmp_path / "out", *ARMS, *SAME)
    cut = facts["stages"]["cut"]
    assert cut["in"] == cut["out"] + sum(cut["rejected"].values())
    assert set(cut["rejected"]) == {"no_pairs", "other_source"}
    table = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert all(row["carry_tokens"] == 0 and row["emitted_tokens"] <= row["document_tokens"] for row in table)
    assert facts["deficit_tokens"] == sum(row["left_tokens"] for row in table)


@pytest.mark.parametrize("form", ["lingua", "hf"])
def test_other_formats_hold_the_same(run: Path, tmp_path: Path, form: str) -> None:
    facts = export(run, tmp_path / "out", *ARMS, *SAME, "--format", form, "--ranks", "2")
    tokens = [figures["tokens"] for figures in facts["arms"].values()]
    assert max(tokens) - min(tokens) < 10
    assert check_corpora(tmp_path / "out") == []


def test_documents_that_differ_are_found(run: Path, tmp_path: Path) -> None:
    """By `verify`, were an export to mix them up: the rule is held against the arms of another export."""
    facts = export(run, tmp_path / "out", *ARMS, "--set", "documents=with_pairs")
    found = {arm: list(check_same_documents(tmp_path / "out", arm, figures)) for arm, figures in facts["arms"].items()}
    assert "documents" in found["standard"][0].problem
    assert found["fineinstructions"] == []


@pytest.mark.slow
def test_the_same_bytes_from_any_number_of_workers(run: Path, tmp_path: Path) -> None:
    made = {}
    for workers in ("1", "2", "7"):
        out = tmp_path / workers / "out"
        out.parent.mkdir()
        export(run, out, *ARMS, *SAME, "--workers", workers, "--set", "unit_rows=20")
        made[workers] = every_file(out)
    assert made["7"] == made["2"] == made["1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--arm", "nemotron_qa", "--set", "llm.model=x"), "diverse_qa"),
        (("--budget", "none"), "budget: none"),
        (("--set", "equal_tokens=false"), "equal_tokens: false"),
    ],
)
def test_what_cannot_be_cut_that_way_is_refused(run: Path, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    code, _, errors = in_process("export", run, "--out", tmp_path / "out", "--workers", "0", *SAME, *words)
    assert (code, len(errors.strip().splitlines())) == (2, 1), errors
    assert told in errors
    assert "leave" in errors
    assert not (tmp_path / "out").exists()
