"""Files made to do harm: each is refused or set aside with one line, in bounded memory and time."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hostile_files import claiming_parquet, empty_rows_parquet, gzip_bomb, long_text_parquet, zstd_bomb
from pipeline_inputs import EXAMPLES, content, in_process

from fineinstructions.errors import STEERING, BackendError, ConfigError, DataError, printable
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.records import Document
from fineinstructions.staging import stage_documents
from fineinstructions.templates.bank import TemplatesConfig, read_bank

MEMORY_BYTES = 3 << 30
MAX_GROWN_MEGABYTES = 300
MAX_SECONDS = 120
STEERED = "\x1b[2J\x1b]0;owned\x07\u202eevil\u202c\x9b31m\r"
"""Clears a screen, sets a window's title, turns the writing direction, and goes back to the start of the line."""

_READ_AND_MEASURE = """
import collections, json, pathlib, resource, sys
from fineinstructions.errors import FineInstructionsError
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.staging import find_repeated_ids, stage_documents
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
config = DocumentsConfig(path=sys.argv[1], max_document_bytes=100_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
line, reasons = "", collections.Counter()
try:
    staged = stage_documents(config, pathlib.Path(sys.argv[1] + "-input"))
    for file, repeated in zip(staged, find_repeated_ids(staged, config)):
        for item in read_documents(file.path, 0, file.num_rows, config, repeated):
            reasons[getattr(item, "reason", "ok")] += 1
except FineInstructionsError as error:
    line = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(json.dumps([line, reasons, grown]))
"""


def read_all(path: Path) -> tuple[str, dict[str, int]]:
    """What becomes of a file in a process of its own with little memory: the line that refuses it, else its reasons."""
    command = [sys.executable, "-c", _READ_AND_MEASURE, str(path), str(MEMORY_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    line, reasons, grown_megabytes = json.loads(done.stdout)
    assert grown_megabytes < MAX_GROWN_MEGABYTES
    assert len(line.splitlines()) <= 1
    return line, reasons


def reasons(path: Path, **settings: Any) -> list[str]:
    config = DocumentsConfig(path=str(path), **settings)
    items = [
        item
        for file in stage_documents(config, path.parent / "input")
        for item in read_documents(file.path, 0, file.num_rows, config)
    ]
    return ["ok" if isinstance(item, Document) else item.reason for item in items]


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zstd of one line": (lambda t: zstd_bomb(t / "d.jsonl.zst", b"\0" * (1 << 20), 1 << 14), "which is no text"),
    "zstd of rows": (lambda t: zstd_bomb(t / "d.csv.zst", b"a," + b"x" * 999_997 + b"\n", 400), "which is no text"),
    "gzip of one text": (lambda t: gzip_bomb(t / "d.txt.gz", b"\0" * (1 << 20), 400), "which is no text"),
    "gzip of JSON": (lambda t: gzip_bomb(t / "d.json.gz", b" " * (1 << 20), 400), "which is no text"),
    "one text of Parquet": (lambda t: long_text_parquet(t / "d.parquet", 300_000_000), "which is no text"),
    "brackets": (lambda t: zstd_bomb(t / "d.json.zst", b"[" + b"[]," * 20_000, 200), "not valid JSON"),
    "brackets in a row": (
        lambda t: zstd_bomb(t / "d.jsonl.zst", b'{"text":[' + b"[]," * 5_000_000 + b"[]]}\n", 1),
        "document_too_large 1",
    ),
    "rows of nothing": (lambda t: empty_rows_parquet(t / "d.parquet", 80_000_000), "claims 80,000,000 rows in"),
}


FAST = ("zstd of one line", "brackets")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BOMBS])
def test_a_bomb_is_one_line_in_little_memory(tmp_path: Path, name: str) -> None:
    make, expected = BOMBS[name]
    path = make(tmp_path)
    assert path.stat().st_size < 3_000_000
    line, _ = read_all(path)
    assert line.startswith(str(path))
    assert expected in line


@pytest.mark.parametrize(
    "claimed", [10**12, *(pytest.param(n, marks=pytest.mark.slow) for n in (-5, 0, 12_346, 2**62))]
)
def test_a_claim_of_rows_that_are_not_there(tmp_path: Path, claimed: int) -> None:
    path = claiming_parquet(tmp_path / "d.parquet", claimed)
    line, _ = read_all(path)
    assert line.startswith(str(path))
    assert any(words in line for words in (f"claims {claimed:,} rows", f"claims {claimed:,}", "no rows", "not a read"))


def test_a_schema_without_end(tmp_path: Path) -> None:
    kind = pa.int32()
    for _ in range(1000):
        kind = pa.struct([("a", kind)])
    pq.write_table(pa.table({"text": ["x"], "deep": pa.nulls(1, kind)}), tmp_path / "d.parquet")
    line, _ = read_all(tmp_path / "d.parquet")
    assert "d.parquet: not a readable Parquet file" in line


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_a_key_that_occurs_twice_sets_its_row_aside(tmp_path: Path, name: str) -> None:
    rows = [b'{"id": 1, "text": "x"}', b'{"id": 2, "text": "y", "text": "z"}', b'{"id": 3, "text": "w", "n": {}}']
    raw = b"\n".join(rows) if name == "d.jsonl" else b"[" + b",\n".join(rows) + b"]"
    (tmp_path / name).write_bytes(raw)
    assert reasons(tmp_path / name) == ["ok", "malformed_json", "ok"]


def test_members_of_one_name_are_rows_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_bytes(b'{"a": {"text": "x"},\n "b": {"text": "y"},\n "a": {"text": "z"}}')
    assert reasons(tmp_path / "d.json") == ["ok", "ok", "ok"]
    (tmp_path / "e.json").write_bytes(b'{"a": {"text": "x"},\n "text": "one row", "n": 3}')
    assert reasons(tmp_path / "e.json") == ["ok"]


def test_odd_values_in_json_lines(tmp_path: Path) -> None:
    rows = [
        b'{"id": "a", "text": "x", "note": NaN, "size": 1e999}',
        b'{"id": "b", "text": NaN}',
        b'{"id": -Infinity, "text": "x"}',
        b'{"id": "c", "text": "' + b"\\ud800" + b'"}',
        b'{"id": "d", "text": "x", "deep": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"id": "e", "text": "x", "big": ' + b"9" * 5000 + b"}",
        b'{"id": "f", "text": "' + b"x" * 700_000 + b'"}',
    ]
    (tmp_path / "d.jsonl").write_bytes(b"\n".join(rows))
    expected = ["ok", "wrong_type", "wrong_type", "invalid_utf8", "malformed_json", "malformed_json"]
    assert reasons(tmp_path / "d.jsonl", max_document_bytes=100_000) == [*expected, "document_too_large"]


@pytest.mark.parametrize("end", [b"", b"\n", b'\n"'])
def test_a_quote_that_is_never_closed_is_told(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "d.csv").write_bytes(b'id,text\na,x\nb,"never closed\nc,y\nd,z' + end)
    closed = end.endswith(b'"')
    assert reasons(tmp_path / "d.csv") == ["ok", "ok" if closed else "malformed_csv"]


def test_a_bank_that_is_not_utf8_or_corrupt_is_one_line(tmp_path: Path) -> None:
    texts = pa.array([b"What is <fi>it</fi>?", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"template": texts, "description": ["a", "b"]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet: corrupt from row 0 on"):
        list(read_bank(TemplatesConfig(bank=str(tmp_path / "b.parquet"))))


LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in itertools.pairwise("abcdefghij"))
BAD_RECIPES = {
    "aliases that multiply": (f"a: &a [x]\n{LAUGHS}", "more than 100,000 values"),
    "a list inside itself": ("a: &a [*a]\n", "inside each other"),
    "a section inside itself": ("a: &a {b: *a}\n", "inside each other"),
    "a chain of aliases": (
        "".join(f"k{i}: &k{i} [{f'*k{i - 1}' if i else ''}]\n" for i in range(100)),
        "inside each other",
    ),
    "brackets": ("seed: " + "[" * 5000, "nested too deeply"),
    "a number without end": ("seed: " + "9" * 5000, "not valid YAML"),
    "no such day": ("seed: 2020-13-45\n", "not valid YAML"),
    "half a character": ('documents: {path: "\\ud800"}\n', "lone surrogate"),
    "a long one": ("# " + "x" * 1_000_001, "longer than 1,000,000 characters"),
    "code": ("a: !!python/name:os.system\n", "not valid YAML"),
    "steering": (f"documents: {{path: x, {json.dumps(STEERED)}: 1}}\n", "unknown key"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_recipe_made_to_do_harm_is_one_line(tmp_path: Path, name: str) -> None:
    text, expected = BAD_RECIPES[name]
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    code, _, errors = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert expected in errors
    assert errors.count("\n") == 1
    assert errors == printable(errors[:-1]) + "\n"


def test_a_setting_made_to_do_harm_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("documents: {path: x}\n", encoding="utf-8")
    for setting in ("seed=" + "9" * 5000, "seed=2020-13-45", "llm.extra_body=&a [*a]"):
        code, _, errors = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--set", setting)
        assert code == 2
        assert "the value is not valid YAML" in errors


@pytest.mark.parametrize("kind", [ConfigError, DataError, BackendError])
def test_no_message_steers_a_terminal(kind: type[Exception]) -> None:
    said = str(kind(f"column {STEERED}\nfineinstructions: all is well \ud800"))
    assert said == printable(said)
    assert said.endswith("all is well \ufffd")
    assert len(said.splitlines()) == 1


def steers(shown: str) -> bool:
    """Whether a text holds a character that steers a terminal."""
    return re.search(f"[{STEERING}]", shown) is not None


def test_names_in_messages_steer_no_terminal(tmp_path: Path, bank: Path) -> None:
    recipe = tmp_path / "r.yaml"
    for number, name in enumerate([f"d{STEERED}.parquet", "d.parquet"]):
        path = tmp_path / name
        pq.write_table(pa.table({f"col{STEERED}\nfineinstructions: all is well": ["x"]}), path)
        recipe.write_text(yaml.safe_dump({"documents": {"path": str(path)}, "templates": {"bank": str(bank)}}))
        code, out, errors = in_process("run", recipe, "--out", tmp_path / f"run-{number}")
        assert code == 2
        assert "no column 'text'" in errors
        assert not steers(out + errors)
        assert not any(line.startswith("fineinstructions: all is well") for line in errors.splitlines())


def test_titles_and_ids_steer_no_terminal(tmp_path: Path, bank: Path) -> None:
    table = pq.read_table(EXAMPLES / "documents.parquet").slice(0, 12)
    for column in ("id", "title", "url", "source"):
        if column in table.schema.names:
            changed = pa.array([f"{value}{STEERED}" for value in table.column(column).to_pylist()])
            table = table.set_column(table.schema.names.index(column), column, changed)
    texts = pa.array([f"{STEERED} {text} {STEERED}" for text in table.column("text").to_pylist()])
    pq.write_table(table.set_column(table.schema.names.index("text"), "text", texts), tmp_path / "d.parquet")
    recipe = tmp_path / "r.yaml"
    sections = {"templates": {"bank": str(bank)}, "engine": {"workers": 0}, "judge": {"min_score": 1}}
    recipe.write_text(yaml.safe_dump({**sections, "documents": {"path": str(tmp_path / "d.parquet")}}))
    run = tmp_path / "run"
    code, out, errors = in_process("run", recipe, "--out", run)
    assert code == 0, errors
    pair_ids = pq.read_table(run / "pairs").column("pair_id").to_pylist()
    assert pair_ids
    shown = [out + errors]
    for words in (("status", run), ("inspect", run), ("verify", run), ("explain", run, pair_ids[0])):
        code, out, errors = in_process(*words)
        assert code == 0, errors
        shown.append(out + errors)
    assert "\u202e" in pq.read_table(run / "pairs").column("document_id")[0].as_py()  # kept as it was given
    assert not any(map(steers, shown))


@pytest.mark.parametrize("place", ["pairs", "units", "units/matches", "logs", "lease", "plan", "input", "logs/x.log"])
def test_a_run_follows_no_link_out_of_its_folder(tmp_path: Path, bank: Path, place: str) -> None:
    """Neither the files behind a link nor those beside the run folder are written, moved or removed."""
    documents = tmp_path / "d.jsonl"
    documents.write_text(json.dumps({"id": "../../evil", "text": "The water of the lake is cold.", "title": "../x"}))
    recipe = tmp_path / "r.yaml"
    sections = {"templates": {"bank": str(bank)}, "engine": {"workers": 0}}
    recipe.write_text(yaml.safe_dump({**sections, "documents": {"path": str(documents)}}))
    run, outside = tmp_path / "home" / "run", tmp_path / "outside"
    outside.mkdir()
    (outside / "tmp-letter.txt").write_text("keep me")
    assert in_process("run", recipe, "--out", run)[0] == 0
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    link = run / place
    if link.exists():
        link.rename(tmp_path / "aside")
    link.symlink_to(outside / "tmp-letter.txt" if place in ("lease", "logs/x.log") else outside)
    before = content(outside)
    code, _, errors = in_process("run", recipe, "--out", run)
    assert code == 2
    assert f"{link}: is a symbolic link" in errors
    assert content(outside) == before
