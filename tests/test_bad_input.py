"""Bad input at the level of the readers: one clear line for a bad file, one rejection for a bad row, nothing lost."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.spec import AbstractFileSystem

from fineinstructions.errors import ConfigError
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.records import Document, Rejection
from fineinstructions.staging import find_repeated_ids, stage_documents

AWKWARD = [
    "Fill <fi>a name</fi> here, and <fi>",
    "</excerpt> closes nothing; <excerpt>opens<...>nothing",
    "{braces} {{double}} {0} %s $x ${y}",
    json.dumps({"instruction": "x", "answer": ["y"]}),
    "NUL \0 bell \a escape \x1b[31m delete \x7f next line \x85",
    "\u05d0\u05d1\u05d2 \u202etfel ot thgir\u202c \u0627\u0644\u0639",
    "e\u0301 is not \u00e9, \ufeff stays, \U0001f469\u200d\U0001f52c too, \u2028 \u2029",
    " \t leading and trailing blanks \r\n",
    "lone carriage\rreturn",
]


def stage(path: Path, **settings: Any) -> list[Document | Rejection]:
    config = DocumentsConfig(path=str(path), **settings)
    staged = stage_documents(config, path.parent / "input")
    repeated = find_repeated_ids(staged, config)
    items: list[Document | Rejection] = []
    for file, rows in zip(staged, repeated, strict=True):
        items += read_documents(file.path, 0, file.num_rows, config, rows)
    return items


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        stage(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def reasons(items: list[Document | Rejection]) -> list[str]:
    return ["ok" if isinstance(item, Document) else item.reason for item in items]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def lines(path: Path, *raw: bytes) -> Path:
    path.write_bytes(b"\n".join(raw))
    return path


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_truncated_parquet(tmp_path: Path, keep: int) -> None:
    path = parquet(tmp_path / "d.parquet", id=["a"], text=["x"])
    path.write_bytes(path.read_bytes()[:keep])
    assert "d.parquet: not a readable Parquet file" in refused(path)


def test_parquet_with_a_corrupt_page(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    texts = [f"text number {i}" for i in range(1000)]
    pq.write_table(pa.table({"id": list(range(1000)), "text": texts}), path, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 4
    raw[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(bytes(raw))
    assert "corrupt from row" in refused(path)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("d.parquet", None),
        ("d.csv", b"key,body\n1,x\n"),
        ("d.jsonl", b'{"key": 1, "body": "x"}\n{"key": 2, "body": "y"}\n'),
        ("d.json", b'[{"key": 1, "body": "x"}]'),
    ],
)
def test_missing_column_names_those_found(tmp_path: Path, name: str, raw: bytes | None) -> None:
    path = tmp_path / name
    if raw is None:
        parquet(path, key=[1], body=["x"])
    else:
        path.write_bytes(raw)
    message = refused(path)
    assert f"{name}: no column 'text'; columns found: key, body; set documents.text_column" in message


def test_a_named_id_column_has_to_exist(tmp_path: Path) -> None:
    path = parquet(tmp_path / "d.parquet", key=[1], text=["x"])
    assert "no column 'doc_id'; columns found: key, text; set documents.id_column" in refused(path, id_column="doc_id")
    path = lines(tmp_path / "d.jsonl", b'{"key": 1, "text": "x"}')
    assert "no column 'doc_id'" in refused(path, id_column="doc_id")
    assert "no column 'id'" in refused(path, id_column="id")
    assert reasons(stage(path)) == ["ok"]
    assert "no column 'id'" in refused(path, id_column="id")  # staged by now, and refused all the same


@pytest.mark.parametrize("values", [[1, 2], [1.5], [True], [["a"]], [{"a": 1}]])
def test_wrong_type_of_text(tmp_path: Path, values: list[Any]) -> None:
    path = parquet(tmp_path / "d.parquet", text=values)
    assert "column 'text' is" in refused(path) and "documents.text_column" in refused(path)
    path = lines(tmp_path / "d.jsonl", *[json.dumps({"text": v}).encode() for v in values])
    assert "column 'text' is" in refused(path)


def test_wrong_type_in_some_rows_is_a_rejection(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "x"}, {"id": 2, "text": 5}, {"id": [3], "text": "x"}, {"id": 4}, {"id": 5, "text": None}]
    path = lines(tmp_path / "d.jsonl", *[json.dumps(r).encode() for r in rows])
    assert reasons(stage(path)) == ["ok", "wrong_type", "wrong_type", "missing_text", "missing_text"]
    path = parquet(tmp_path / "d.parquet", id=[1.5, 2.5], text=["x", "y"])
    assert "column 'id' is double" in refused(path)


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.tsv", "d.txt", "d.jsonl.gz", "d.jsonl.zst"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    empty = {"gz": gzip.compress(b""), "zst": zstandard.ZstdCompressor().compress(b"")}
    path = tmp_path / name
    path.write_bytes(empty.get(name.rpartition(".")[2], b""))
    assert "no rows" in refused(path) or "no valid row (empty_text 1)" in refused(path)


def test_no_rows_and_no_valid_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "d.parquet", id=pa.array([], pa.string()), text=pa.array([], pa.string()))
    assert "no rows; check documents.path" in refused(path)
    assert "no rows" in refused(lines(tmp_path / "d.csv", b"id,text"))
    path = parquet(tmp_path / "e.parquet", id=["a", "b"], text=["", None])
    assert "no valid row (empty_text 1, missing_text 1)" in refused(path)
    path = parquet(tmp_path / "f.parquet", id=["a"], text=pa.array([None]))
    assert "no valid row (missing_text 1)" in refused(path)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.parquet")
    assert "no such file" in refused(tmp_path / "*.parquet")
    (tmp_path / "d.docx").write_bytes(b"x")
    assert "d.docx: unknown extension; known: .parquet, .jsonl" in refused(tmp_path / "d.docx")
    with pytest.raises(ConfigError, match="not installed; install the fsspec package for adl://"):
        stage_documents(DocumentsConfig(path="adl://store/x.parquet"), tmp_path)
    with pytest.raises(ConfigError, match=r"documents\.path"):
        stage_documents(DocumentsConfig(path="nonsense://x.parquet"), tmp_path)


def test_a_missing_filesystem_names_its_extra(tmp_path: Path) -> None:
    if importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(ConfigError, match=r"pip install 'fineinstructions\[s3\]'"):
        stage_documents(DocumentsConfig(path="s3://bucket/x.parquet"), tmp_path)


class _UnpluggedError(Exception):
    """What a remote filesystem raises when the network is gone: a type that we do not know."""


class _RemoteStore(AbstractFileSystem):
    protocol = "fi-remote"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if "there" not in path:
            raise _UnpluggedError("no route to\nhost")
        return {"name": path, "size": 10, "type": "file"}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        raise _UnpluggedError("connection reset")


def test_a_remote_store_that_fails_is_one_line(tmp_path: Path) -> None:
    fsspec.register_implementation("fi-remote", _RemoteStore, clobber=True)
    for name, why in [("x.jsonl", "no route to host"), ("there.jsonl", "connection reset")]:
        with pytest.raises(ConfigError, match=rf"{name}: cannot be read \(_UnpluggedError: {why}\); check"):
            stage_documents(DocumentsConfig(path=f"fi-remote://{name}"), tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(tmp_path: Path) -> None:
    path = lines(tmp_path / "d.jsonl", b'{"text": "x"}')
    path.chmod(0)
    assert "cannot be read (PermissionError" in refused(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_and_corrupt_compression(tmp_path: Path, suffix: str) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    raw = pack(b"".join(json.dumps({"id": i, "text": f"{i * i}"}).encode() + b"\n" for i in range(5000)))
    path = tmp_path / f"d.jsonl{suffix}"
    path.write_bytes(raw[: len(raw) // 2])
    assert "truncated or corrupt compressed file" in refused(path)
    path.write_bytes(b"not compressed at all")
    assert "truncated or corrupt compressed file" in refused(path)


def test_invalid_utf8(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "d.jsonl",
        b'{"id": "a", "text": "ok"}',
        b'{"id": "b", "text": "\xff\xfe"}',
        b'{"id": "c", "text": "\\ud800"}',
        b'{"id": "d", "text": "x", "note": "\\udfff"}',
        b'{"id": "e", "text": "\\ud83d\\ude00"}',
    )
    assert reasons(stage(path)) == ["ok", "invalid_utf8", "invalid_utf8", "invalid_utf8", "ok"]
    path = lines(tmp_path / "d.csv", b"id,text", b"a,ok", b"b,\xe9t\xe9", b"c,fine")
    assert reasons(stage(path)) == ["ok", "invalid_utf8", "ok"]
    for kind in [pa.binary(), pa.large_binary(), pa.string()]:
        raw = pa.array([b"ok", b"\xc3\x28", b"\xed\xa0\x80", "naïve".encode()], pa.binary())
        column = raw.view(pa.string()) if kind == pa.string() else raw.cast(kind)
        items = stage(parquet(tmp_path / "d.parquet", id=["a", "b", "c", "d"], text=column))
        assert reasons(items) == ["ok", "invalid_utf8", "invalid_utf8", "ok"]
        assert isinstance(items[1], Rejection) and items[1].record_id == "b"
    (tmp_path / "u.csv").write_text("id,text\na,b\n", encoding="utf-16")
    assert "is UTF-16; save it as UTF-8" in refused(tmp_path / "u.csv")


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_first_line_of_json_is_held_to_the_limit(tmp_path: Path, end: bytes) -> None:
    many = [{"id": str(number), "text": f"text {number} " + "x" * 80} for number in range(20_000)]
    long = b'{"id": "a", "text": "' + b"x" * 3_000_000 + b'"}'
    path = lines(tmp_path / "d.json", b"", long, b'{"id": "b", "text": "x"}')
    first, second = stage(path, max_document_bytes=100)
    assert isinstance(first, Rejection) and isinstance(second, Document)
    assert (first.reason, first.value, json.loads(first.record)["row"]) == ("document_too_large", len(long) + 1, 2)
    lines(path, long + end)
    assert "no valid row (document_too_large 1)" in refused(path, max_document_bytes=100)
    lines(path, json.dumps(many).encode() + end)  # an array on a single line
    assert len(stage(path, max_document_bytes=100)) == 20_000
    lines(path, json.dumps({row["id"]: {"text": row["text"]} for row in many}).encode() + end)
    assert [item.document_id for item in stage(path, max_document_bytes=100) if isinstance(item, Document)] == [
        row["id"] for row in many
    ]


def test_malformed_rows_keep_their_line(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    path = lines(tmp_path / "d.jsonl", b'{"id": 1, "text": "x"}', b"", b"{oops", b"[1]", b'"text"', deep, b"1" * 5000)
    items = stage(path)
    assert reasons(items) == ["ok"] + ["malformed_json"] * 5
    assert [json.loads(i.record)["row"] for i in items if isinstance(i, Rejection)] == [3, 4, 5, 6, 7]
    path = lines(tmp_path / "d.csv", b"id,text", b"a,x", b"b", b"c,y,z", b"d,w")
    items = stage(path)
    assert reasons(items) == ["ok", "malformed_csv", "malformed_csv", "ok"]
    assert [json.loads(i.record)["row"] for i in items if isinstance(i, Rejection)] == [3, 4]


@pytest.mark.parametrize("name", ["d.parquet", "d.jsonl", "d.csv"])
def test_awkward_texts_come_through_unaltered(tmp_path: Path, name: str) -> None:
    texts = [t for t in AWKWARD if name != "d.csv" or "\r" not in t]
    path = tmp_path / name
    if name == "d.parquet":
        parquet(path, id=[str(i) for i in range(len(texts))], text=texts)
    elif name == "d.jsonl":
        lines(path, *[json.dumps({"id": i, "text": t}).encode() for i, t in enumerate(texts)])
    else:
        quoted = ["{},{}".format(i, '"' + t.replace('"', '""') + '"').encode() for i, t in enumerate(texts)]
        lines(path, b"id,text", *quoted)
    assert [d.text for d in stage(path) if isinstance(d, Document)] == texts


def test_a_hundred_thousand_words(tmp_path: Path) -> None:
    count = 100_000
    path = parquet(tmp_path / "d.parquet", id=list(range(count)), text=["word"] * count)
    config = DocumentsConfig(path=str(path))
    (staged,) = stage_documents(config, tmp_path / "input")
    assert sum(1 for d in read_documents(staged.path, 0, count, config) if isinstance(d, Document)) == count
    assert [len(r) for r in find_repeated_ids([staged], config)] == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "d.parquet",
        "d.jsonl.gz",
        pytest.param("d.csv", marks=pytest.mark.slow),
        pytest.param("d.txt", marks=pytest.mark.slow),
        pytest.param("d.json", marks=pytest.mark.slow),
    ],
)
def test_a_document_of_200_megabytes(tmp_path: Path, name: str) -> None:
    """Rejected with its size; the rows beside it stay."""
    size = 200_000_000
    huge = b"long " * (size // 5)
    path = tmp_path / name
    if name == "d.parquet":
        column = pa.array([b"before", huge, b"after"], pa.binary()).view(pa.string())
        pq.write_table(
            pa.table({"id": ["a", "b", "c"], "text": column}),
            path,
            use_dictionary=False,
            write_statistics=False,
            compression="zstd",
        )
    elif name == "d.txt":
        path.write_bytes(huge)
        (tmp_path / "e.txt").write_bytes(b"after")
        path = tmp_path / "*.txt"
    elif name == "d.csv":
        path.write_bytes(b'id,text\na,before\nb,"' + huge + b'"\nc,after\n')
    else:
        rows = b'{"id":"a","text":"before"}\n{"id":"b","text":"' + huge + b'"}\n{"id":"c","text":"after"}\n'
        path.write_bytes(gzip.compress(rows, 1) if name.endswith(".gz") else rows)
    del huge
    items = stage(path)
    expected = ["document_too_large", "ok"] if name == "d.txt" else ["ok", "document_too_large", "ok"]
    assert reasons(items) == expected
    (rejected,) = (item for item in items if isinstance(item, Rejection))
    assert rejected.value is not None and size <= rejected.value <= size + 100


_STAGE_AND_MEASURE = """
import resource, sys
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.staging import stage_documents
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = DocumentsConfig(path=sys.argv[1])
(staged,) = stage_documents(config, Path(sys.argv[2]))
assert len(list(read_documents(staged.path, 0, staged.num_rows, config))) == 3
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.csv", "d.json"])
def test_a_huge_document_is_never_held_whole(tmp_path: Path, name: str) -> None:
    huge = b"long " * 40_000_000
    path = tmp_path / name
    if name == "d.csv":
        path.write_bytes(b'id,text\na,before\nb,"' + huge + b'"\nc,after\n')
    elif name == "d.json":  # one object per line all the same, and the first is the huge one
        path.write_bytes(b'{"id":"b","text":"' + huge + b'"}\n{"id":"a","text":"x"}\n{"id":"c","text":"after"}\n')
    else:
        rows = b'{"id":"a","text":"before"}\n{"id":"b","text":"' + huge + b'"}\n{"id":"c","text":"after"}\n'
        path.write_bytes(gzip.compress(rows, 1))
    del huge
    command = [sys.executable, "-c", _STAGE_AND_MEASURE, str(path), str(tmp_path / "input")]
    grown_megabytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown_megabytes < 120
