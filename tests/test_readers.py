"""Reading every format, staging, row ranges and repeated ids, on real files."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.errors import ConfigError
from fineinstructions.formats import Quotes, _records
from fineinstructions.inputs import list_inputs
from fineinstructions.readers import DocumentsConfig, read_documents, read_rows
from fineinstructions.records import Document, Rejection, content_id
from fineinstructions.staging import StagedFile, find_repeated_ids, stage_documents

ROWS = [
    {"id": "a", "text": "First.\nIt has two lines, and a comma.", "title": "One", "url": "http://x/1", "n": 1},
    {"id": "b", "text": 'Second "quoted" naïve ☕ text', "title": "Two", "url": "http://x/2", "n": 2},
    {"id": "c", "text": "<fi>x</fi> {brace} \u202eRTL\u202c", "title": "", "url": "http://x/3", "n": 3},
]


def read_all(path: Path | str | list[str], out_dir: Path, **settings: Any) -> list[Document | Rejection]:
    config = DocumentsConfig(path=path if isinstance(path, list) else str(path), **settings)
    staged = stage_documents(config, out_dir)
    repeated = find_repeated_ids(staged, config)
    return [
        item
        for file, rows in zip(staged, repeated, strict=True)
        for item in read_documents(file.path, 0, file.num_rows, config, rows)
    ]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(path: Path, raw: bytes) -> Path:
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)(raw)
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".ndjson", ".json", "array.json", "keyed.json", ".csv", ".tsv"])
def test_every_format_gives_the_same_documents(tmp_path: Path, kind: str, suffix: str) -> None:
    raw = {
        ".csv": lambda: as_csv(ROWS),
        ".tsv": lambda: as_csv(ROWS, "\t"),
        "array.json": lambda: json.dumps(ROWS, indent=1).encode(),
        "keyed.json": lambda: json.dumps({r["id"]: {k: v for k, v in r.items() if k != "id"} for r in ROWS}).encode(),
    }.get(kind, lambda: as_lines(ROWS))()
    documents = read_all(write(tmp_path / f"rows{kind}{suffix}", raw), tmp_path / "input")
    expected = [(r["id"], r["text"], r["title"], r["url"]) for r in ROWS]
    assert [(d.document_id, d.text, d.title, d.url) for d in documents if isinstance(d, Document)] == expected
    assert [str(json.loads(d.metadata)["n"]) for d in documents if isinstance(d, Document)] == ["1", "2", "3"]


def test_parquet_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
    config = DocumentsConfig(path=str(path))
    (staged,) = stage_documents(config, tmp_path / "input")
    assert (staged.path, staged.num_rows, [n for n, _ in staged.parquet.row_groups]) == (path, 3, [2, 1])
    assert not (tmp_path / "input").exists()
    documents = list(read_documents(path, 0, 3, config))
    assert [d.text for d in documents if isinstance(d, Document)] == [r["text"] for r in ROWS]


def test_text_files_are_documents_or_lines(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(b"Eins\nzwei\r\n")
    write(tmp_path / "two.txt.gz", b"\xef\xbb\xbfTwo")
    (one, two) = read_all(tmp_path, tmp_path / "input")
    assert isinstance(one, Document) and isinstance(two, Document)
    assert (one.text, two.text) == ("Eins\nzwei\r\n", "Two")  # exactly as read, less the byte order mark
    assert one.document_id == content_id("d", one.text)
    assert json.loads(two.metadata) == {"file": "two.txt.gz"}
    lines = read_all(tmp_path / "one.txt", tmp_path / "input", text_mode="line")
    assert [d.text for d in lines if isinstance(d, Document)] == ["Eins", "zwei"]


def test_paths_globs_and_directories(tmp_path: Path) -> None:
    for name in ["b.jsonl", "a.csv", "sub/c.tsv", ".hidden.csv", "_tmp/d.csv", "notes.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [Path(f.name).name for f in list_inputs(str(tmp_path), "documents")]
    assert names == ["a.csv", "b.jsonl", "c.tsv"]
    both = [f"{tmp_path}/*.jsonl", str(tmp_path / "a.csv"), f"{tmp_path}/b.jsonl"]
    assert [Path(f.name).name for f in list_inputs(both, "documents")] == ["b.jsonl", "a.csv"]
    assert [f.path for f in list_inputs(f"file://{tmp_path}/a.csv", "documents")] == [str(tmp_path / "a.csv")]


def test_remote_files_are_staged_once(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    memory.pipe("/fi-test/rows.parquet", buffer.getvalue())
    memory.pipe("/fi-test/more.jsonl.gz", gzip.compress(as_lines([{"id": "z", "text": "remote"}])))
    documents = read_all("memory://fi-test", tmp_path / "input")
    assert [d.document_id for d in documents if isinstance(d, Document)] == ["z", "a", "b", "c"]
    staged = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "input").iterdir()}
    read_all("memory://fi-test", tmp_path / "input")
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "input").iterdir()} == staged
    assert len(staged) == 2
    config = DocumentsConfig(path="memory://fi-test/rows.parquet")
    assert [row.values["id"] for row, _, _ in read_rows(config)] == ["a", "b", "c"]
    memory.rm("/fi-test", recursive=True)


def test_a_changed_source_is_staged_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", as_lines(ROWS))
    config = DocumentsConfig(path=str(path))
    (before,) = stage_documents(config, tmp_path / "input")
    write(path, as_lines(ROWS[:2]))
    (after,) = stage_documents(config, tmp_path / "input")
    assert (before.num_rows, after.num_rows) == (3, 2)
    assert before.parquet.fingerprint != after.parquet.fingerprint


def test_limit_cuts_the_input(tmp_path: Path) -> None:
    for name in ["a.jsonl", "b.jsonl"]:
        rows = [{"id": f"{name}{i}", "text": "x"} for i in range(5)]
        write(tmp_path / name, as_lines(rows))
    documents = read_all(tmp_path, tmp_path / "input", limit=7)
    assert len(documents) == 7
    config = DocumentsConfig(path=str(tmp_path), limit=7)
    assert len(list(read_rows(config))) == 7


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array([7, None, 8]), "text": ["x", "y", "z"], "when": pa.array([0, 1, 2], pa.date32())})
    pq.write_table(table, tmp_path / "rows.parquet")
    first, second, third = read_all(tmp_path / "rows.parquet", tmp_path / "input")
    assert isinstance(first, Document) and isinstance(third, Document)
    assert (first.document_id, third.document_id) == ("7", "8")
    assert first.metadata == '{"when":"1970-01-01"}'
    assert isinstance(second, Rejection) and second.reason == "missing_id"
    blank = write(tmp_path / "rows.csv", b"id,text\n,x\n,y\na,z\n")
    reasons = [item.reason for item in read_all(blank, tmp_path / "input") if isinstance(item, Rejection)]
    assert reasons == ["missing_id", "missing_id"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "no_ids"])
def test_repeated_ids_are_found_over_all_files(tmp_path: Path, kind: str) -> None:
    ids = [["a", "b", "a"], ["c", "b", None, None, "d", "a"]]
    for number, file_ids in enumerate(ids):
        rows = [{"id": i, "text": f"t {i}"} for i in file_ids]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{number}.parquet")
        else:
            rows = [r for r in rows if r["id"]] if kind == "no_ids" else rows
            kept = [{"text": r["text"]} for r in rows] if kind == "no_ids" else rows
            write(tmp_path / f"{number}.jsonl", as_lines(kept))
    items = read_all(tmp_path, tmp_path / "input")
    reasons = ["ok" if isinstance(item, Document) else item.reason for item in items]
    middle = [] if kind == "no_ids" else ["missing_id", "missing_id"]
    assert reasons == ["ok", "ok", "repeated_id", "ok", "repeated_id", *middle, "ok", "repeated_id"]


def test_repeated_ids_of_many_files_match_a_plain_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    staged, seen, expected = [], set(), []
    config = DocumentsConfig(path=str(tmp_path))
    for number in range(4):
        ids = rng.integers(0, 3000, 2000)
        pq.write_table(pa.table({"id": ids, "text": ["x"] * 2000}), tmp_path / f"{number}.parquet")
        expected.append([row for row, i in enumerate(ids) if i in seen or seen.add(i)])  # type: ignore[func-returns-value]
    staged = stage_documents(config, tmp_path / "input")
    assert [rows.tolist() for rows in find_repeated_ids(staged, config)] == expected


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_row_range_is_the_slice_of_the_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    tmp_path = tmp_path_factory.mktemp("ranges")
    count = data.draw(st.integers(1, 40))
    rows = [{"id": str(i), "text": data.draw(st.sampled_from(["ok", "", "x" * 50]))} for i in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet", row_group_size=data.draw(st.integers(1, 9)))
    config = DocumentsConfig(path=str(tmp_path), max_document_bytes=20)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count + 3))
    whole = list(read_documents(tmp_path / "r.parquet", 0, count, config))
    assert len(whole) == count
    assert list(read_documents(tmp_path / "r.parquet", start, stop, config)) == whole[start:stop]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.text('ab",\n\0é', max_size=8), min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_records_are_those_of_the_csv_module(rows: list[list[str]], quoting: Any, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([["x", *row] for row in rows])
    records = _records(io.BytesIO(text.getvalue().encode()), 10**6, Quotes(b","))
    parsed = [list(csv.reader(io.StringIO(raw.decode(), newline=""))) for _, raw, _ in records if raw]
    assert [row for record in parsed for row in record] == [["x", *row] for row in rows]
    assert all(len(record) == 1 for record in parsed)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=8), st.sampled_from([".parquet", ".jsonl", ".csv.gz", ".tsv"]))
def test_any_text_comes_through_unaltered(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], kind: str
) -> None:
    path = tmp_path_factory.mktemp("texts") / f"rows{kind}"
    rows = [{"id": str(i), "text": text} for i, text in enumerate([*texts, "one good row"])]
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, as_lines(rows) if kind == ".jsonl" else as_csv(rows, "\t" if kind == ".tsv" else ","))
    items = read_all(path, path.parent / "input")
    assert len(items) == len(rows)
    for row, item in zip(rows, items, strict=True):
        if row["text"].strip():
            assert isinstance(item, Document) and (item.document_id, item.text) == (row["id"], row["text"])
        else:
            assert isinstance(item, Rejection) and (item.record_id, item.reason) == (row["id"], "empty_text")


def test_a_stray_quote_does_not_swallow_the_rows_after_it(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", b'id,text\na,5" floppy disk\nb,said "so" twice\nc,"two\nlines"\n')
    texts = [d.text for d in read_all(path, tmp_path / "input") if isinstance(d, Document)]
    assert texts == ['5" floppy disk', 'said "so" twice', "two\nlines"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"key": 1, "body": "hello", "link": "http://x", "license": "CC0-1.0", "nested": {"a": 1}}]
    path = write(tmp_path / "rows.jsonl", as_lines(rows))
    (document,) = read_all(path, tmp_path / "input", id_column="key", text_column="body", url_column="link")
    assert document == Document("1", "hello", url="http://x", licence="CC0-1.0")


def test_staging_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(as_lines(ROWS * 100))[:-20])
    with pytest.raises(ConfigError, match=r"rows\.jsonl\.gz: truncated or corrupt"):
        stage_documents(DocumentsConfig(path=str(path)), tmp_path / "input")
    assert list((tmp_path / "input").iterdir()) == []


def test_staged_rows_come_in_groups(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "word " * 100_000} for i in range(80)]
    path = write(tmp_path / "rows.jsonl", as_lines(rows))
    config = DocumentsConfig(path=str(path))
    first, second = stage_documents(config, tmp_path / "input")
    assert isinstance(first, StagedFile)
    assert [len(part.parquet.row_groups) for part in (first, second)] == [1, 2]
    assert first.num_rows + second.num_rows == 80
    (document,) = read_documents(second.path, second.num_rows - 1, 80, config)
    assert isinstance(document, Document) and document.document_id == "79"


@pytest.mark.parametrize(("name", "mark"), [("d.csv", ";"), ("d.csv", "\t"), ("d.tsv", ",")])
def test_another_delimiter_is_told(tmp_path: Path, name: str, mark: str) -> None:
    path = write(tmp_path / name, as_csv([{"id": "a", "text": "One, two; three"}], delimiter=mark))
    with pytest.raises(ConfigError, match=r"is one column, and seems to be separated by .*separate \.csv by commas"):
        read_all(path, tmp_path / "input")


STAGED_FORMATS = {
    "rows.jsonl": as_lines,
    "rows.jsonl.gz": as_lines,
    "rows.csv": as_csv,
    "rows.txt": lambda rows: "\n".join(row["text"] for row in rows).encode(),
}


@pytest.mark.parametrize("name", STAGED_FORMATS)
def test_what_a_limit_stages_is_the_beginning_of_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fineinstructions.staging.ROW_GROUP_BYTES", 400)
    monkeypatch.setattr("fineinstructions.staging.MAX_PART_BYTES", 1000)
    rows = [{"id": str(i), "text": f"text {i} " * (i % 7 + 1)} for i in range(60)]
    path = write(tmp_path / name, STAGED_FORMATS[name](rows))
    whole = DocumentsConfig(path=str(path), text_mode="line")
    expected = stage_documents(whole, tmp_path / "whole")
    assert len(expected) > 4 and sum(part.num_rows for part in expected) == 60
    made: dict[str, int] = {}
    for limit in (1, 3, 20, 20, 45, 60, None):
        staged = stage_documents(whole.model_copy(update={"limit": limit}), tmp_path / "input")
        assert sum(part.num_rows for part in staged) == (limit or 60)
        fingerprints = [part.parquet.fingerprint for part in expected[: len(staged)]]
        assert [part.parquet.fingerprint for part in staged] == fingerprints
        now = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "input").iterdir()}
        assert made.items() <= now.items()
        made = now
    assert set(made) == {part.path.name for part in expected}


def test_a_first_id_behind_the_limit_is_an_id_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a limit: rows that have none are told so, once it is known that there is such a column."""
    monkeypatch.setattr("fineinstructions.staging.ROW_GROUP_BYTES", 400)
    rows = [{"text": f"text {i}"} for i in range(20)] + [{"id": "x", "text": "the last"}]
    path = write(tmp_path / "rows.jsonl", as_lines(rows))
    documents = read_all(path, tmp_path / "input", limit=3)
    assert all(isinstance(document, Document) for document in documents)
    *others, last = read_all(path, tmp_path / "input")
    assert {r.reason for r in others if isinstance(r, Rejection)} == {"missing_id"} and len(others) == 20
    assert isinstance(last, Document) and last.document_id == "x"


def test_a_text_column_behind_the_first_rows_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.staging.ROW_GROUP_BYTES", 400)
    path = write(tmp_path / "rows.jsonl", as_lines([{"body": "word " * 50}] * 9 + [{"body": "", "text": "words"}]))
    for limit in (2, 5, 2):
        with pytest.raises(ConfigError, match="no column 'text'; columns found: body"):
            read_all(path, tmp_path / "input", limit=limit)
    assert [isinstance(row, Document) for row in read_all(path, tmp_path / "input")] == [False] * 9 + [True]
