"""Rows of one's own choice as an export lays them out, and trainings small enough for a test."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.backends.tokenizer import ByteTokenizer, Tokenizer
from fineinstructions.progress import Silent
from fineinstructions.training.pack import SourceFile, pack
from fineinstructions.training.packed import PackedTokens

Row = str | tuple[str, str]
"""A whole text, or a prompt and its completion."""
BYTES = ByteTokenizer()


def write_source(path: Path, rows: Sequence[Row], tokenizer: Tokenizer = BYTES, first: int = 0) -> SourceFile:
    """A Parquet file of an arm, all rows in one view."""
    texts = [row if isinstance(row, str) else "".join(row) for row in rows]
    columns: dict[str, Any] = {"id": [f"r{first + n}" for n in range(len(rows))], "document_id": ["d"] * len(rows)}
    if rows and isinstance(rows[0], tuple):
        columns |= {"prompt": [row[0] for row in rows], "completion": [row[1] for row in rows]}
    else:
        columns["text"] = texts
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, path, row_group_size=7)
    return SourceFile(path, f"content of {path.name}", len(rows), int(tokenizer.row_tokens(texts).sum()))


def packed_rows(
    folder: Path, files: Sequence[Sequence[Row]], tokenizer: Tokenizer = BYTES, threads: int = 2
) -> PackedTokens:
    """Rows of several files, packed."""
    folder.mkdir(parents=True, exist_ok=True)
    sources, first = [], 0
    for number, rows in enumerate(files):
        sources.append(write_source(folder / f"{number}.parquet", rows, tokenizer, first))
        first += len(rows)
    pack(folder / "packed", sources, tokenizer, Silent(), threads)
    return PackedTokens(folder / "packed", len(files))


def as_row(text: str) -> list[int]:
    """A text as a row of bytes."""
    return [256, *text.encode(), 257]


def tiny_model(path: Path, vocab_size: int = 258, **changes: Any) -> Path:
    """A config.json of a Llama that trains in seconds."""
    plain = {
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    path.write_text(json.dumps(plain | changes), encoding="utf-8")
    return path
