"""Files of a corpus: every row once and in order, files of a bounded size, ranks that get the same number of tokens."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from fineinstructions.corpus.render import View
from fineinstructions.corpus.write import ROW_SCHEMA, PartWriter, RankWriter, WrittenFile


def rows(number: int, first: int = 0) -> pa.Table:
    made = [
        {
            "id": f"p{n}",
            "document_id": f"d{n // 3}",
            "text": f"Instruction: q{n}\n\nAnswer: a\u2028{n}\r\n",
            "instruction": f"q{n}",
            "answer": f"a\u2028{n}\r\n",
            "source": "s",
            "licence": "CC0",
            "template_licence": "MIT; CC0",
            "models": "{}",
            "num_tokens": 5 + n * 7 % 40,
        }
        for n in range(first, first + number)
    ]
    return pa.Table.from_pylist(made, schema=ROW_SCHEMA)


ENDINGS = ["parquet", "jsonl.zst", "jsonl.gz", "jsonl"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    unpack = {".zst": lambda raw: zstandard.ZstdDecompressor().stream_reader(raw).read(), ".gz": gzip.decompress}
    text = unpack.get(path.suffix, bytes)(raw)
    return [json.loads(line) for line in text.decode().split("\n")[:-1]]


def written(folder: Path, tables: list[pa.Table], **settings: Any) -> list[WrittenFile]:
    folder.mkdir()
    most = {"view": "text", "rows_per_part": 100, "bytes_per_part": 1 << 30, "ending": "parquet"}
    writer = PartWriter(folder, **(most | settings))
    for table in tables:
        writer.write(table)
    return writer.close()


@pytest.mark.parametrize("ending", ENDINGS)
def test_parts_hold_every_row_in_order(tmp_path: Path, ending: str) -> None:
    tables = [rows(7, 0), rows(0, 7), rows(230, 7), rows(1, 237)]
    files = written(tmp_path / "out", tables, ending=ending)
    paths = [tmp_path / "out" / file.name for file in files]
    found = [read_lines(p) if ending != "parquet" else pq.read_table(p).to_pylist() for p in paths]
    assert [(f.num_rows, f.num_tokens) for f in files] == [(len(f), sum(r["num_tokens"] for r in f)) for f in found]
    assert [len(f) for f in found] == [100, 100, 38]
    kept = ["id", "document_id", "text", "num_tokens", "source", "licence", "template_licence"]
    assert [row for part in found for row in part] == rows(238).select(kept).to_pylist()


def test_how_rows_come_changes_no_byte(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", [rows(300)], rows_per_part=110)
    pieces = written(tmp_path / "pieces", [rows(300).slice(n, 1) for n in range(300)], rows_per_part=110)
    assert whole == pieces
    for file in whole:
        tables = [pq.read_table(tmp_path / name / file.name) for name in ("whole", "pieces")]
        assert tables[0].equals(tables[1])


def test_a_part_ends_at_its_size_in_bytes(tmp_path: Path) -> None:
    size = rows(100).nbytes // 100
    files = written(tmp_path / "out", [rows(100).slice(n, 1) for n in range(100)], bytes_per_part=size * 10)
    assert len(files) > 5
    assert sum(f.num_rows for f in files) == 100


@pytest.mark.parametrize("view", ["messages", "prompt_completion", "alpaca", "sharegpt"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_views_in_files(tmp_path: Path, view: View, ending: str) -> None:
    (file,) = written(tmp_path / "out", [rows(5)], view=view, ending=ending)
    path = tmp_path / "out" / file.name
    found = read_lines(path) if ending != "parquet" else pq.read_table(path).to_pylist()
    assert "text" not in found[0]
    assert [row["id"] for row in found] == [f"p{n}" for n in range(5)]
    if view == "messages":
        assert [row["messages"][1]["content"] for row in found] == rows(5)["answer"].to_pylist()


def test_names_that_count(tmp_path: Path) -> None:
    files = written(tmp_path / "out", [rows(250)], counted=True)
    assert [f.name for f in files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f.name for f in files]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_arm_without_rows_has_one_file(tmp_path: Path, ending: str) -> None:
    (file,) = written(tmp_path / "out", [], ending=ending)
    assert (file.num_rows, file.num_tokens) == (0, 0)
    path = tmp_path / "out" / file.name
    assert (read_lines(path) if ending != "parquet" else pq.read_table(path).to_pylist()) == []


@pytest.mark.parametrize(("ranks", "num_files"), [(1, 1), (8, 8), (512, 256), (300, 150)])
def test_ranks_get_the_same_number_of_tokens(tmp_path: Path, ranks: int, num_files: int) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    writer = RankWriter(folder, ranks)
    for first in range(0, 6000, 1000):
        writer.write(rows(1000, first))
    files = writer.close()
    assert len(files) == num_files
    shares = [tokens for of_file in writer.rank_tokens for tokens in of_file]
    assert len(shares) == ranks
    longest = 45
    assert max(shares) - min(shares) <= (longest if ranks == num_files else 8 * longest)
    lines = {file.name: read_lines(folder / file.name) for file in files}
    assert sorted(row["id"] for found in lines.values() for row in found) == sorted(f"p{n}" for n in range(6000))
    tokens = dict(zip(rows(6000)["id"].to_pylist(), rows(6000)["num_tokens"].to_pylist(), strict=True))
    by_rank = [
        sum(tokens[row["id"]] for row in found[place :: ranks // num_files])
        for found in lines.values()
        for place in range(ranks // num_files)
    ]
    assert by_rank == shares
