"""Bad input through the whole program: one clear line and exit code 2, or a rejection with its reason; nothing lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import AWKWARD, EXAMPLES, awkward_documents, call, in_process, output_json, reasons, rows

import fineinstructions
from fineinstructions.markup import has_tag
from fineinstructions.records import Template, schema_of, to_table

FILLER = "The water of the lake is cold. The lake is a body of water that lies between two hills."
TEMPLATES = (
    ("What is <fi>a thing</fi>?", "A text that defines a thing."),
    ("How does <fi>a thing</fi> work?", "A text that explains how a thing works."),
    ("What are the benefits of <fi>a thing</fi>?", "A text about the benefits of a thing."),
)


@pytest.fixture
def recipe(tmp_path: Path, bank: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    sections = {"templates": {"bank": str(bank)}, "engine": {"workers": 0, "unit_rows": 5}}
    path.write_text(yaml.safe_dump({**sections, "documents": {"path": str(tmp_path / "absent.parquet")}}))
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def lines(path: Path, *records: Any) -> Path:
    return raw(path, b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in records))


def refused(*words: str | Path) -> str:
    """The one line of a call that has to end with exit code 2."""
    code, out, errors = in_process(*words)
    assert code == 2, errors
    assert out == ""
    told = [line for line in errors.splitlines() if ": progress, " not in line and ": done, " not in line]
    assert len(told) == 1, errors
    assert told[0].startswith("fineinstructions: ")
    return told[0]


def finish(recipe: Path, run: Path, documents: Path, *words: str) -> dict[tuple[str, str], int]:
    """Run to the end; nothing may be lost. Gives the reasons of the `documents` and `chunk` stages."""
    code, _, errors = in_process("run", recipe, "--out", run, "--set", f"documents.path={documents}", *words)
    assert code == 0, errors
    assert fineinstructions.verify(run) == []
    code, out, _ = in_process("status", run, "--json")
    assert code == 0
    for figures in json.loads(out)["funnel"]:
        turned_away = sum(figures["rejected"].values()) + sum(figures["failed"].values())
        assert figures["in"] == figures["out"] + turned_away
        assert not figures["failed"]
    return {key: number for key, number in reasons(run).items() if key[0] in ("documents", "chunk")}


def test_a_run_that_is_refused_at_once_leaves_no_folder(tmp_path: Path, recipe: Path) -> None:
    for documents in (tmp_path / "absent.parquet", parquet(tmp_path / "d.parquet", id=["a"], body=["x"])):
        refused("run", recipe, "--out", tmp_path / "new" / "run", "--set", f"documents.path={documents}")
        assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    refused("run", recipe, "--out", tmp_path / "mine")
    assert (tmp_path / "mine").exists()


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated Parquet": (
        lambda t: raw(t / "d.parquet", parquet(t / "w.parquet", id=["a"], text=["x"]).read_bytes()[:-30]),
        "not a readable Parquet file",
    ),
    "no Parquet at all": (lambda t: raw(t / "d.parquet", b"id,text\na,b\n"), "not a readable Parquet file"),
    "empty Parquet file": (lambda t: raw(t / "d.parquet", b""), "not a readable Parquet file"),
    "missing column": (lambda t: parquet(t / "d.parquet", id=["a"], body=["x"]), "columns found: id, body; set"),
    "wrong type": (lambda t: parquet(t / "d.parquet", id=["a"], text=[1.5]), "'text' is double, not text; set"),
    "Parquet without rows": (lambda t: parquet(t / "d.parquet", text=pa.array([], pa.string())), "no rows"),
    "empty JSON lines": (lambda t: raw(t / "d.jsonl", b""), "no rows"),
    "empty CSV": (lambda t: raw(t / "d.csv", b""), "no rows"),
    "empty text": (lambda t: raw(t / "d.txt", b""), "d.txt: no "),
    "not one valid row": (lambda t: parquet(t / "d.parquet", text=["", None]), "(empty_text 1, missing_text 1); check"),
    "invalid UTF-8 only": (lambda t: raw(t / "d.jsonl", b'{"text": "\xff"}\n'), "(invalid_utf8 1); check"),
    "no JSON": (lambda t: raw(t / "d.jsonl", b"hello\nworld\n"), "(malformed_json 2); check"),
    "truncated gzip": (lambda t: raw(t / "d.jsonl.gz", b"\x1f\x8b\x08\x00"), "truncated or corrupt compressed file"),
    "absent file": (lambda t: t / "nowhere.parquet", "no such file"),
    "unknown extension": (lambda t: raw(t / "d.docx", b"x"), "unknown extension; known: .parquet"),
    "empty path": (lambda t: Path(" "), "path: an empty path"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("section", ["documents", "queries"])
def test_a_bad_file_is_one_line(tmp_path: Path, recipe: Path, section: str, name: str) -> None:
    make, expected = BAD_FILES[name]
    path = make(tmp_path)
    words = ["--set", f"{section}.path='{path}'"]
    if section == "queries":
        documents = lines(tmp_path / "good.jsonl", {"id": "a", "text": FILLER})
        words += ["--set", "templates.bank=null", "--set", f"documents.path={documents}"]
    line = refused("run", recipe, "--out", tmp_path / "run", *words)
    assert expected in line
    assert str(path).strip() in line
    assert not (tmp_path / "run" / "pairs").exists()


def test_the_program_itself_says_the_same(tmp_path: Path, recipe: Path) -> None:
    path = raw(tmp_path / "d.parquet", b"PAR1")
    done = call("run", recipe, "--out", tmp_path / "run", "--set", f"documents.path={path}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"fineinstructions: {path}: not a readable Parquet file")
    assert "Traceback" not in done.stderr


def test_bad_documents_are_told_before_the_queries_cost_anything(tmp_path: Path, recipe: Path) -> None:
    path = raw(tmp_path / "d.parquet", b"PAR1")
    queries = ["--set", "templates.bank=null", "--set", f"queries.path={EXAMPLES / 'queries.parquet'}"]
    refused("run", recipe, "--out", tmp_path / "run", "--set", f"documents.path={path}", *queries)
    assert not (tmp_path / "run" / "units").exists()


@pytest.mark.parametrize("has_checksums", [True, False])
def test_a_damaged_page(tmp_path: Path, recipe: Path, has_checksums: bool) -> None:
    """With checksums one line, without them a rejection of every text that is damaged."""
    path = tmp_path / "d.parquet"
    texts = [f"{FILLER} It was measured {i} times in {i * 7919} days." for i in range(2000)]
    table = pa.table({"text": texts, "id": list(range(2000))})
    pq.write_table(table, path, row_group_size=500, compression="none", write_page_checksum=has_checksums)
    content = bytearray(path.read_bytes())
    place = content.find(b"measured 1700 times")
    content[place : place + 15] = b"\xff" * 15
    path.write_bytes(bytes(content))
    words = ["--set", "engine.unit_rows=500", "--set", "engine.unit_bytes=100000000"]
    if has_checksums:
        words += ["--set", f"documents.path={path}"]
        assert "corrupt from row 1500" in refused("run", recipe, "--out", tmp_path / "run", *words)
    else:
        assert finish(recipe, tmp_path / "run", path, *words) == {("documents", "invalid_utf8"): 1}


def bank_of(folder: Path, *templates: tuple[str, str]) -> Path:
    """A bank file; every template claims to have one slot."""
    records = [
        Template(f"t-{i}", text, description, 1, (f"q{i}",), "hand", "CC0-1.0")
        for i, (text, description) in enumerate(templates)
    ]
    pq.write_table(to_table(records, Template), folder / "b.parquet")
    return folder / "b.parquet"


BAD_BANKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absent": (lambda t: t / "nowhere", "no template bank; make one with"),
    "empty file": (lambda t: raw(t / "b.parquet", b""), "not a readable Parquet file"),
    "other columns": (
        lambda t: parquet(t / "b.parquet", a=["x"]),
        "no column 'template' or 'instruction_template'; columns found: a",
    ),
    "other types": (
        lambda t: parquet(t / "b.parquet", **{name: ["x"] for name in schema_of(Template).names}),
        "holds no usable template (no_slot 1)",
    ),
    "no template": (bank_of, "holds no usable template (no rows)"),
    "slot left open": (
        lambda t: bank_of(t, ("What is <fi>a thing?", "A text.")),
        "holds no usable template (broken_template 1)",
    ),
    "no description": (
        lambda t: bank_of(t, ("What is <fi>a thing</fi>?", " ")),
        "holds no usable template (missing_description 1)",
    ),
}


@pytest.mark.parametrize("name", BAD_BANKS)
def test_a_bad_bank_is_one_line(tmp_path: Path, recipe: Path, name: str) -> None:
    make, expected = BAD_BANKS[name]
    documents = lines(tmp_path / "good.jsonl", {"id": "a", "text": FILLER})
    words = ["--set", f"templates.bank={make(tmp_path)}", "--set", f"documents.path={documents}"]
    assert expected in refused("run", recipe, "--out", tmp_path / "run", *words)


def test_queries_without_a_template_say_where_they_were_lost(tmp_path: Path, recipe: Path) -> None:
    documents = lines(tmp_path / "good.jsonl", {"id": "a", "text": FILLER})
    words = ["--set", "templates.bank=null", "--set", f"documents.path={documents}"]
    foreign = lines(tmp_path / "f.jsonl", {"id": "1", "text": "Was ist die Hauptstadt von Deutschland, und warum?"})
    line = refused("run", recipe, "--out", tmp_path / "a", *words, "--set", f"queries.path={foreign}")
    assert "no usable query (foreign_language 1); check queries.path" in line
    lonely = lines(tmp_path / "l.jsonl", {"id": "1", "text": "What is the capital of France?"})
    line = refused("run", recipe, "--out", tmp_path / "b", *words, "--set", f"queries.path={lonely}")
    assert "no query became a template" in line
    assert "turned away 1 of 1" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a mapping such as"),
        ("- a\n", "found list"),
        ("queries: [", "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("querys: {path: x}\n", "unknown key 'querys'; did you mean 'queries'?"),
        ("documents: {path: x, txt_column: y}\n", "unknown key 'documents.txt_column'; did you mean 'text_column'?"),
        ("judge: {llm: {modle: x}}\n", "judge.llm: unknown key 'modle'; did you mean 'model'?"),
        ("documents: 3\n", "documents: expected a section such as 'documents: {key: value}', found 3"),
        ("documents: {path: 3}\n", "documents.path: input should be a valid string"),
        ("judge: {min_score: 9}\n", "judge.min_score: input should be less than or equal to 5"),
        ("llm: {api_key_env: sk-abc}\n", "never the key itself"),
        ("queries: {path: x}\n", "documents.path: missing"),
    ],
)
def test_a_bad_recipe_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = raw(tmp_path / "r.yaml", text.encode())
    assert expected in refused("run", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    assert "no such recipe" in refused("run", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert "cannot be read" in refused("run", tmp_path, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("judge.min_score", "write it as a.b=value"),
        ("=3", "write it as a.b=value"),
        ("seed=[", "not valid YAML"),
        ("judge.min_scor=3", "did you mean 'min_score'?"),
        ("judge.min_score=high", "judge.min_score: input should be a valid integer"),
        ("seed.x=3", "seed: input should be a valid integer"),
        ("documents.path.x=3", "'path' is a value, not a section"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, recipe: Path, setting: str, expected: str) -> None:
    assert expected in refused("run", recipe, "--out", tmp_path / "run", "--set", setting)


def test_a_bad_run_folder_is_one_line(tmp_path: Path, recipe: Path) -> None:
    documents = lines(tmp_path / "good.jsonl", {"id": "a", "text": FILLER})
    words = ["--set", f"documents.path={documents}"]
    file = raw(tmp_path / "file", b"x")
    assert "is a file; choose another --out" in refused("run", recipe, "--out", file, *words)
    assert "cannot be made" in refused("run", recipe, "--out", file / "under", *words)
    assert "cannot be made" in refused("run", recipe, "--out", "/proc/run", *words)
    (tmp_path / "notes").mkdir()
    raw(tmp_path / "notes" / "letter.txt", b"keep me")
    assert "holds 'letter.txt' and no run" in refused("run", recipe, "--out", tmp_path / "notes", *words)
    assert (tmp_path / "notes" / "letter.txt").read_bytes() == b"keep me"
    for verb in ("status", "verify", "inspect"):
        for place in (file, tmp_path / "notes", tmp_path / "nowhere"):
            assert "no run here" in refused(verb, place)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_awkward_texts_go_all_the_way(tmp_path: Path, recipe: Path, suffix: str) -> None:
    """Real documents with awkward text before, inside and after every paragraph."""
    texts = awkward_documents()
    texts |= {f"only {name}": awkward for name, awkward in AWKWARD.items() if name != "blanks"}
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        parquet(path, id=list(texts), text=list(texts.values()))
    elif suffix == "jsonl":
        lines(path, *({"id": i, "text": t} for i, t in texts.items()))
    else:
        quoted = [",".join('"' + v.replace('"', '""') + '"' for v in item) for item in texts.items()]
        raw(path, "\r\n".join(["id,text", *quoted]).encode())
    assert finish(recipe, tmp_path / "run", path, "--set", "retrieve.min_cosine=-1.0") == {}
    assert any(match["sampled"] for match in rows(tmp_path / "run", "matches"))
    for pair in rows(tmp_path / "run", "pairs"):
        assert not has_tag(pair["text"])
        for e in pair["excerpts"]:
            quoted_text = texts[pair["document_id"]][e["document_start"] : e["document_end"]]
            assert pair["answer"][e["answer_start"] : e["answer_end"]] == quoted_text
    for verb in ("status", "inspect"):
        assert in_process(verb, tmp_path / "run")[0] == 0


def test_bad_rows_among_good_ones_in_json_lines(tmp_path: Path, recipe: Path) -> None:
    path = lines(
        tmp_path / "d.jsonl",
        {"id": "good", "text": FILLER},
        b'{"id": "utf8", "text": "\xff\xfe"}\n',
        b'{"id": "half", "text": "\\ud800 alone"}\n',
        b'{"id": "\\udfff", "text": "a lone surrogate in the id"}\n',
        b"{oops\n",
        b"[1, 2]\n",
        b"\n",
        {"id": None, "text": FILLER},
        {"text": FILLER},
        {"id": "good", "text": "the same id again"},
        {"id": 7, "text": FILLER},
        {"id": "7", "text": "the same id as the number"},
        {"id": "number", "text": 5},
        {"id": "list", "text": ["a"]},
        {"id": ["list"], "text": "an id that is a list"},
        {"id": 1.5, "text": "an id that is a fraction"},
        {"id": True, "text": "an id that is a truth value"},
        {"id": "null", "text": None},
        {"id": "none"},
        {"id": "blank", "text": " \n\t "},
        {"id": "nul", "text": f"\0 {FILLER} \0"},
        {"id": " space ", "text": FILLER, "title": 5, "url": None, "licence": ["x"], "source": {"a": 1}},
    )
    expected = {
        ("documents", "invalid_utf8"): 3,
        ("documents", "malformed_json"): 2,
        ("documents", "missing_id"): 2,
        ("documents", "repeated_id"): 2,
        ("documents", "wrong_type"): 5,
        ("documents", "missing_text"): 2,
        ("documents", "empty_text"): 1,
    }
    assert finish(recipe, tmp_path / "run", path) == expected
    named = {row["record_id"] for row in rows(tmp_path / "run", "rejected") if row["stage"] == "documents"}
    assert {"good", "7", "number", "null", "d.jsonl:2", "d.jsonl:5"} <= named


def test_bad_rows_among_good_ones_in_parquet(tmp_path: Path, recipe: Path) -> None:
    texts = pa.array([FILLER.encode(), b"\xc3\x28", b"\xed\xa0\x80", None, b"", FILLER.encode()], pa.binary())
    path = parquet(tmp_path / "d.parquet", id=pa.array([1, 2, 3, 4, 5, 1]), text=texts.view(pa.string()))
    expected = {("documents", "invalid_utf8"): 2, ("documents", "missing_text"): 1, ("documents", "empty_text"): 1}
    assert finish(recipe, tmp_path / "run", path) == expected | {("documents", "repeated_id"): 1}
    ids = pa.array(["x", None, "", "y"])
    path = parquet(tmp_path / "e.parquet", id=ids, text=[FILLER] * 4, metadata=["a"] * 4, document_id=["b"] * 4)
    assert finish(recipe, tmp_path / "other", path) == {("documents", "missing_id"): 2}


def test_a_document_over_the_limit_is_rejected_unread(tmp_path: Path, recipe: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"id": "a", "text": FILLER}, {"id": "b", "text": FILLER * 100})
    words = ["--set", "documents.max_document_bytes=1000"]
    assert finish(recipe, tmp_path / "run", path, *words) == {("documents", "document_too_large"): 1}
    (row,) = (row for row in rows(tmp_path / "run", "rejected") if row["stage"] == "documents")
    assert (row["record_id"], row["value"]) == ("b", 100.0 * len(FILLER))


def test_a_file_that_changes_between_two_calls(tmp_path: Path, recipe: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"id": "a", "text": FILLER})
    assert finish(recipe, tmp_path / "run", path) == {}
    lines(path, {"id": "b", "text": FILLER + " More."})
    line = refused("run", recipe, "--out", tmp_path / "run", "--set", f"documents.path={path}")
    assert "--redo" in line
    assert finish(recipe, tmp_path / "run", path, "--redo") == {}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "txt"])
def test_a_document_of_200_megabytes_is_rejected(tmp_path: Path, recipe: Path, suffix: str) -> None:
    size = 200_000_000
    huge = b"long " * (size // 5)
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        column = pa.array([FILLER.encode(), huge], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"id": ["a", "b"], "text": column}), path, use_dictionary=False, write_statistics=False)
    elif suffix == "jsonl":
        lines(path, {"id": "a", "text": FILLER}, b'{"id": "b", "text": "' + huge + b'"}\n')
    else:
        raw(path, huge)
        raw(tmp_path / "a.txt", FILLER.encode())
        path = tmp_path / "*.txt"
    del huge
    assert finish(recipe, tmp_path / "run", path) == {("documents", "document_too_large"): 1}


@pytest.mark.slow
def test_a_hundred_thousand_documents_of_one_word(tmp_path: Path, recipe: Path) -> None:
    number = 100_000
    path = parquet(tmp_path / "d.parquet", id=list(range(number)), text=[f"word{i % 1000}" for i in range(number)])
    words = ["--set", f"documents.path={path}", "--set", "engine.unit_rows=10000", "--workers", "2"]
    done = call("run", recipe, "--out", tmp_path / "run", *words, timeout=600)
    assert done.returncode == 0, done.stderr
    funnel = {row["stage"]: row for row in output_json(call("status", tmp_path / "run", "--json"))["funnel"]}
    assert funnel["documents"]["in"] == funnel["documents"]["out"] == number
    assert fineinstructions.verify(tmp_path / "run") == []
    shutil.rmtree(tmp_path / "run")
