"""How fast rows become packed tokens, against the tokenizer alone on the same texts.

    python benchmarks/bench_packing.py --documents D.parquet --tokenizers RANKS JSON --out benchmarks/results/NAME.md

Every turn measures both one after the other in this process, so that a busy machine slows both; ratios are made turn by
turn and medians are told. The tokenizer alone encodes the texts one by one and throws the ids away: no file is read, no
array made, nothing written. Packing reads Parquet, encodes, puts BOS and EOS around, writes tokens, places and ids, and
takes digests of what it wrote. Both with one thread, in seconds of this process's processors, all its threads
and digests included. How much faster several threads are is not told: that needs a quiet machine.
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.backends.tokenizer import BYTES, Tokenizer, open_tokenizer
from fineinstructions.progress import Silent
from fineinstructions.training.pack import SourceFile, pack


def seconds(work: Callable[[], object]) -> float:
    """What something takes of the processors."""
    began = time.process_time()
    work()
    return time.process_time() - began


def alone(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Encode texts and keep nothing."""
    for text in texts:
        tokenizer.encode(text)


def packing(tokenizer: Tokenizer, source: Path, texts: list[str], folder: Path) -> Callable[[], None]:
    """What packs a file into a new folder."""
    stated = SourceFile(source, "digest of the file", len(texts), int(tokenizer.row_tokens(texts).sum()))
    turn = iter(range(1_000_000))
    return lambda: pack(folder / str(next(turn)), [stated], tokenizer, Silent(), 1)


def measure(name: str, texts: list[str], source: Path, folder: Path, turns: int) -> str:
    """One row of the report."""
    tokenizer = open_tokenizer(name)
    folder.mkdir()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    packs = packing(tokenizer, source, texts, folder)
    packs()  # the first time loads what is loaded late
    found = []
    for _ in range(turns):
        by_itself, packed = seconds(lambda: alone(tokenizer, texts)), seconds(packs)
        found.append((by_itself, packed, by_itself / packed))
    by_itself, packed, ratio = (statistics.median(column) for column in zip(*found, strict=True))
    least, most = min(row[2] for row in found), max(row[2] for row in found)
    label = BYTES if name == BYTES else f"{tokenizer.facts.kind}, {tokenizer.facts.vocab_size:,} ids"
    million_tokens = sum(map(len, tokenizer.encode_batch(texts))) / 1e6
    speeds = f"{megabytes / by_itself:,.1f} | {megabytes / packed:,.1f}"
    speeds += f" | {million_tokens / by_itself:,.2f} | {million_tokens / packed:,.2f}"
    return f"| {label} | {speeds} | {ratio:.2f} ({least:.2f} to {most:.2f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokenizers", nargs="*", default=[], help="tokenizer.json or rank files, beside bytes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    once = pq.read_table(options.documents, columns=["text"])["text"].to_pylist()
    texts = once * options.copies
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "rows.parquet"
        ids = [f"r{n}" for n in range(len(texts))]
        pq.write_table(pa.table({"id": ids, "document_id": ids, "text": texts}), source, compression="zstd")
        rows = [
            measure(name, texts, source, Path(place) / str(number), options.turns)
            for number, name in enumerate([*options.tokenizers, BYTES])
        ]
    lines = [
        f"# Packing, {datetime.date.today()}",
        "",
        f"`bench_packing.py --copies {options.copies} --turns {options.turns}`, {platform.machine()}, Python"
        f" {platform.python_version()}, medians of {options.turns} turns, load {os.getloadavg()[0]:.0f} on"
        f" {os.cpu_count()} processors. {len(texts):,} rows with {sum(len(t.encode()) for t in texts) / 1e6:,.0f} MB.",
        "",
        "| tokenizer | MB/s alone | MB/s packed | Mtokens/s alone | Mtokens/s packed | ratio (least to most) |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
