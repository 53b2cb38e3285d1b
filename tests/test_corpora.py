"""Corpora of a run, through the front door: token for token, the same bytes on any number of workers, checked."""

import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from exported import every_file, export, rows_of
from pipeline_inputs import command, in_process
from small_run import some_texts, write_run

from fineinstructions.backends.tokenizer import ByteTokenizer
from fineinstructions.config import to_plain
from fineinstructions.corpora import as_export_config
from fineinstructions.corpus.budget import LedgerRow
from fineinstructions.corpus.check import check_corpora
from fineinstructions.corpus_rows import Exported, open_exported
from fineinstructions.runs import Phase, RunFolder, read_table

pytestmark = pytest.mark.xdist_group("corpora")
LONGEST_PAIR = 120


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pairs cost more than its documents."""
    return write_run(tmp_path_factory.mktemp("dense"), some_texts(60), lambda n: 3 + n % 5)


def test_pairs_cost_what_their_documents_cost(dense: Path, tmp_path: Path) -> None:
    facts = export(dense, tmp_path / "out")
    documents = ByteTokenizer().row_tokens(some_texts(60)).sum()
    rows = rows_of(tmp_path / "out", "fineinstructions")
    tokens = ByteTokenizer().row_tokens([row["text"] for row in rows])
    assert tokens.tolist() == [row["num_tokens"] for row in rows]
    assert facts["documents"] == {"rows": 60, "tokens": documents}
    assert 0 <= documents - tokens.sum() == facts["deficit_tokens"] < LONGEST_PAIR
    ledger = list(read_table(tmp_path / "out" / "ledger.parquet", LedgerRow))
    assert [row.document_id for row in ledger] == [f"d{n}" for n in range(60)]
    assert all(row.emitted_tokens <= row.document_tokens + row.carry_tokens for row in ledger)
    spent = Counter[str]()
    for row in rows:
        spent[row["document_id"]] += row["num_tokens"]
    assert spent == Counter({row.document_id: row.emitted_tokens for row in ledger if row.emitted_tokens})


def test_every_pair_is_in_the_corpus_or_among_the_rejected(dense: Path, tmp_path: Path) -> None:
    export(dense, tmp_path / "out", "--set", "sift.min_score=4")
    rows = rows_of(tmp_path / "out", "fineinstructions")
    pairs = pq.read_table(dense / "pairs").to_pylist()
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    kept, lost = {row["id"] for row in rows}, {row["record_id"] for row in rejected}
    assert not kept & lost
    assert sorted(kept | lost) == sorted(pair["pair_id"] for pair in pairs)
    assert len(kept) + len(lost) == len(pairs)
    scores = {pair["pair_id"]: pair["judge_score"] for pair in pairs}
    assert {r["reason"] for r in rejected} == {"low_score", "over_budget"}
    assert {r["value"] for r in rejected if r["reason"] == "low_score"} == {3.0}
    assert min(scores[name] for name in kept) == 4
    texts = {pair["pair_id"]: pair["text"] for pair in pairs}
    assert all(row["text"] == texts[row["id"]] for row in rows)


def test_without_a_budget_all_pairs_are_there(dense: Path, tmp_path: Path) -> None:
    facts = export(dense, tmp_path / "out", "--budget", "none")
    assert facts["arms"]["fineinstructions"]["rows"] == pq.read_table(dense / "pairs").num_rows
    assert facts["deficit_tokens"] == 0
    assert check_corpora(tmp_path / "out") == []


def test_arms_get_the_same_number_of_tokens(tmp_path: Path) -> None:
    """Also where pairs run out: then the documents are cut, and little is missing."""
    run = write_run(tmp_path, some_texts(90), lambda n: n % 2)
    words = ("--arm", "standard", "--arm", "fineinstructions", "--arm", "half=documents:1,pairs:1")
    facts = export(run, tmp_path / "out", *words)
    tokens = {arm: figures["tokens"] for arm, figures in facts["arms"].items()}
    assert facts["deficit_tokens"] > 0
    assert max(tokens.values()) == tokens["fineinstructions"]
    assert max(tokens.values()) - min(tokens.values()) < 60, tokens
    half = facts["arms"]["half"]
    used = {row["document_id"] for row in rows_of(tmp_path / "out", "half")}
    assert half["documents"] == len(used) < half["rows"], "one that both sources have counts once"
    assert abs(half["sources"]["documents"]["tokens"] - half["sources"]["pairs"]["tokens"]) < 60
    cut = [r for r in pq.read_table(tmp_path / "out" / "rejected").to_pylist() if r["stage"] == "cut"]
    left_out = [r["record_id"] for r in cut if json.loads(r["record"])["arm"] == "standard"]
    assert sorted([*left_out, *(r["id"] for r in rows_of(tmp_path / "out", "standard"))]) == sorted(
        f"d{n}" for n in range(90)
    )
    assert check_corpora(tmp_path / "out") == []
    whole = export(run, tmp_path / "whole", *words, "--set", "equal_tokens=false")
    assert whole["arms"]["standard"]["tokens"] == facts["documents"]["tokens"]
    assert whole["arms"]["fineinstructions"]["epochs"] == round(
        whole["arms"]["standard"]["tokens"] / whole["arms"]["fineinstructions"]["tokens"], 4
    )


@pytest.mark.parametrize("form", ["parquet", "jsonl", "jsonl gzip", "jsonl none", "hf", "torchtitan", "lingua"])
def test_every_format_holds_the_same_rows(dense: Path, tmp_path: Path, form: str) -> None:
    export(dense, tmp_path / "plain")
    form, _, compression = form.partition(" ")
    words = ["--compression", compression] if compression else []
    facts = export(dense, tmp_path / form, "--format", form, "--ranks", "3", *words)
    endings = {"": ".zst", "gzip": ".gz", "none": ".jsonl"}
    ending = endings[compression] if form == "jsonl" else ".jsonl" if form == "lingua" else ".parquet"
    assert {Path(name).suffix for name in facts["arms"]["fineinstructions"]["files"]} == {ending}
    card = yaml.safe_load((tmp_path / form / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    pattern = card["configs"][0]["data_files"][0]["path"]
    assert len(list((tmp_path / form).glob(pattern))) == len(facts["arms"]["fineinstructions"]["files"])
    plain, found = rows_of(tmp_path / "plain", "fineinstructions"), rows_of(tmp_path / form, "fineinstructions")
    assert sorted((r["id"], r["text"]) for r in found) == sorted((r["id"], r["text"]) for r in plain)
    is_in_order = [r["id"] for r in found] == [r["id"] for r in plain]
    assert is_in_order == (form not in ("lingua", "torchtitan")) == (not facts["arms"]["fineinstructions"]["shuffled"])
    assert check_corpora(tmp_path / form) == []
    code, said, _ = in_process("verify", tmp_path / form)
    assert (code, "clean" in said) == (0, True)


def test_workers_that_are_sent_no_objects_find_everything_in_the_work_folder(dense: Path, tmp_path: Path) -> None:
    config = as_export_config({"arms": {"half": {"documents": 1, "pairs": 3}}}, ["sift.min_score=4", "ranks=2"])
    plain = {"run": str(dense), **to_plain(config)}
    with RunFolder.create_or_open(tmp_path / "out.work", plain, [Phase("count_pairs", "x")]).lease():
        assert open_exported(tmp_path / "out.work") == Exported(dense, config)


def test_the_seed_decides(dense: Path, tmp_path: Path) -> None:
    chosen = {}
    for seed in ("0", "1", "0 again"):
        export(dense, tmp_path / seed, "--seed", seed[0])
        chosen[seed] = [row["id"] for row in rows_of(tmp_path / seed, "fineinstructions")]
    assert chosen["0"] == chosen["0 again"] != chosen["1"]


@pytest.mark.slow
def test_the_same_bytes_from_any_number_of_workers(dense: Path, tmp_path: Path) -> None:
    words = ("--arm", "standard", "--arm", "fineinstructions", "--format", "lingua", "--ranks", "4")
    made = {}
    for workers in ("1", "2", "7"):  # in one place: recipes for Lingua say where the files lie
        export(dense, tmp_path / "out", *words, "--workers", workers, "--set", "unit_rows=20")
        made[workers] = every_file(tmp_path / "out")
        (tmp_path / "out").rename(tmp_path / f"by {workers}")
    assert made["7"] == made["2"] == made["1"]


@pytest.mark.slow
def test_a_killed_export_goes_on_and_makes_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_texts(60), lambda n: 6, unit_rows=5)
    words = ("--arm", "standard", "--arm", "fineinstructions", "--workers", "0", "--set", "unit_rows=60")
    out, work = tmp_path / "killed" / "out", tmp_path / "killed" / "out.work"
    out.parent.mkdir()
    for wanted in (3, 14):
        program = subprocess.Popen(command("export", run, "--out", out, *words), stderr=subprocess.PIPE)
        while program.poll() is None and len(list(work.glob("units/*/*/manifest.json"))) < wanted:
            time.sleep(0.01)
        program.kill()
        program.communicate()
    export(run, out, *words)
    (tmp_path / "whole").mkdir()
    export(run, tmp_path / "whole" / "out", *words)
    assert every_file(out) == every_file(tmp_path / "whole" / "out")
    assert check_corpora(out) == []


def test_units_change_no_byte(dense: Path, tmp_path: Path) -> None:
    for rows in ("7", "1000"):
        (tmp_path / rows).mkdir()
        export(dense, tmp_path / rows / "out", "--set", f"unit_rows={rows}")
    assert every_file(tmp_path / "7" / "out") == every_file(tmp_path / "1000" / "out")


def test_a_second_call_has_nothing_to_do_and_other_settings_are_refused(dense: Path, tmp_path: Path) -> None:
    export(dense, tmp_path / "out")
    before = every_file(tmp_path / "out")
    code, said, _ = in_process("export", dense, "--out", tmp_path / "out", "--workers", "0")
    assert (code, "complete already" in said) == (0, True)
    code, _, errors = in_process("export", dense, "--out", tmp_path / "out", "--seed", "5")
    assert (code, "other settings" in errors, len(errors.splitlines())) == (2, True, 1)
    assert every_file(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious", encoding="utf-8")
    code, _, errors = in_process("export", dense, "--out", tmp_path / "mine")
    assert (code, "something else" in errors) == (2, True)
    assert every_file(tmp_path / "mine") == {"thesis.txt": b"precious"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--arm", "nonsense"), "nonsense"),
        (("--arm", "x=documents"), "documents:0.5"),
        (("--arm", "x=documents:0"), "above 0"),
        (("--arm", "standard", "--arm", "standard"), "twice"),
        (("--view", "messages", "--arm", "standard"), "have no instruction"),
        (("--format", "tar"), "format"),
        (("--tokenizer", "no/such/file"), "no tokenizer here"),
        (("--set", "sift.benchmarks=[{path: nowhere.jsonl}]"), "nowhere.jsonl"),
        (("--ranks", "0"), "ranks"),
        (("--compression", "gzip"), "only jsonl has a choice"),
        (("--format", "jsonl", "--compression", "lz4"), "'gzip' or 'none'"),
        (("--arm", "rejected=documents:1"), "no name for an arm"),
    ],
)
def test_a_mistake_is_one_line(dense: Path, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    code, _, errors = in_process("export", dense, "--out", tmp_path / "out", "--workers", "0", *words)
    assert (code, len(errors.strip().splitlines())) == (2, 1), errors
    assert told in errors
    assert not (tmp_path / "out").exists()


def test_more_ranks_than_rows_are_refused(dense: Path, tmp_path: Path) -> None:
    """Lingua would wait for ever on an empty file."""
    words = ("--format", "lingua", "--ranks", "500", "--workers", "0")
    code, _, errors = in_process("export", dense, "--out", tmp_path / "out", *words)
    assert (code, "lower --ranks" in errors.splitlines()[-1]) == (2, True), errors
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_is_refused(dense: Path, tmp_path: Path) -> None:
    code, _, errors = in_process("export", tmp_path, "--out", tmp_path / "out")
    assert (code, "no run here" in errors) == (2, True)
    shutil.copytree(dense, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "pairs")
    code, _, errors = in_process("export", tmp_path / "run", "--out", tmp_path / "out")
    assert (code, "not complete" in errors) == (2, True)


def test_benchmarks_are_kept_out_of_instructions_and_answers(dense: Path, tmp_path: Path) -> None:
    pairs = pq.read_table(dense / "pairs").to_pylist()
    long_answer = max(pairs, key=lambda pair: len(pair["answer"]))
    items = [{"question": pairs[3]["instruction"]}, {"question": long_answer["answer"]}]
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    benchmark = f"sift.benchmarks=[{{path: {tmp_path / 'bench.jsonl'}}}]"
    facts = export(dense, tmp_path / "out", "--budget", "none", "--set", benchmark)
    hits = pq.read_table(tmp_path / "out" / "benchmark_hits.parquet").to_pylist()
    found = {(hit["record_id"], hit["part"]) for hit in hits}
    assert (pairs[3]["pair_id"], "instruction") in found
    assert (long_answer["pair_id"], "answer") in found
    rejected = [r for r in pq.read_table(tmp_path / "out" / "rejected").to_pylist() if r["reason"] == "benchmark"]
    assert sorted(r["record_id"] for r in rejected) == sorted(hit["record_id"] for hit in hits)
    assert sum(hit["rows"] for hit in facts["benchmark_hits"]) == len(hits) > 1
    assert {hit["benchmark"] for hit in facts["benchmark_hits"]} == {str(tmp_path / "bench.jsonl")}
    kept = {row["id"] for row in rows_of(tmp_path / "out", "fineinstructions")}
    assert not kept & {hit["record_id"] for hit in hits}
    assert check_corpora(tmp_path / "out") == []


def test_repeated_instructions_and_templates_that_come_too_often(tmp_path: Path) -> None:
    run = write_run(
        tmp_path,
        some_texts(20),
        lambda n: 4,
        lambda n, i: (f"What is {'the ' if n % 2 else ''}topic {n // 2 * 4 + i}?", f"It is {n}."),
    )
    sifts = ("--set", "sift.near_duplicates=true", "--set", "sift.max_template_share=0.3")
    facts = export(run, tmp_path / "out", "--budget", "none", *sifts)
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    repeated = [r for r in rejected if r["reason"] == "near_duplicate"]
    assert len(repeated) == 40
    assert {json.loads(r["record"])["document_id"] for r in repeated} == {f"d{n}" for n in range(1, 20, 2)}
    rows = rows_of(tmp_path / "out", "fineinstructions")
    template = {p["pair_id"]: p["template_id"] for p in pq.read_table(run / "pairs").to_pylist()}
    counts = Counter(template[row["id"]] for row in rows)
    assert max(counts.values()) <= 0.3 * len(rows)
    assert facts["stages"]["sift"]["out"] == len(rows) == 80 - len(rejected)


@pytest.mark.parametrize(
    "name", ["ledger.parquet", "fineinstructions/part-00000.parquet", "rejected/part-00000.parquet"]
)
def test_a_changed_file_is_noticed(dense: Path, tmp_path: Path, name: str) -> None:
    export(dense, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / name)
    pq.write_table(table.slice(1), tmp_path / "out" / name)
    code, said, _ = in_process("verify", tmp_path / "out")
    assert code == 1
    assert name in said


def test_hostile_documents_stay_what_they_are(tmp_path: Path) -> None:
    texts = ["\0 {x} <|end_of_text|>\u2028\u2029\x85\r", '"}\n{"text": "stolen"}', "\ufeff\u202e", "x" * 5000]
    run = write_run(tmp_path, texts, lambda n: 2, lambda n, i: (f"{texts[n]}{i}", texts[n]))
    for form in ("jsonl", "lingua", "parquet"):
        words = ("--format", form, "--ranks", "2", "--arm", "standard", "--arm", "fineinstructions")
        export(run, tmp_path / form, *words, "--budget", "none", "--set", "equal_tokens=false")
        found = {row["id"]: row["text"] for row in rows_of(tmp_path / form, "standard")}
        assert found == {f"d{n}": text for n, text in enumerate(texts)}
        assert len(rows_of(tmp_path / form, "fineinstructions")) == 8
        assert check_corpora(tmp_path / form) == []


def test_arms_can_be_made_of_the_documents_that_have_pairs_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_texts(40), lambda n: n % 3)
    words = ("--arm", "standard", "--arm", "ipt", "--arm", "fineinstructions", "--set", "documents=with_pairs")
    facts = export(run, tmp_path / "out", *words)
    have_pairs = {row["document_id"] for row in rows_of(tmp_path / "out", "fineinstructions")}
    for arm in ("standard", "ipt"):
        used = {row["document_id"] for row in rows_of(tmp_path / "out", arm)}
        assert used
        assert all(int(name[1:]) % 3 for name in used), "a document without pairs"
        assert have_pairs & used
    cut = facts["stages"]["cut"]
    assert cut["rejected"]["no_pairs"] >= 2 * 14
    for arm, figures in facts["arms"].items():
        assert figures["documents"] == len({row["document_id"] for row in rows_of(tmp_path / "out", arm)}), arm
    assert cut["in"] == cut["out"] + sum(cut["rejected"].values())
    assert check_corpora(tmp_path / "out") == []
