"""How fast a run becomes corpora: MB of training text a second, against writing the same rows with plain pyarrow.

    python benchmarks/bench_export.py --documents D.parquet --out benchmarks/results/NAME.md

A run is written whose pairs quote sentences of the documents, six pairs of each; documents come several times until
there is enough. Every turn measures the baseline and all formats one after the other in this process, so that a busy
machine slows both; ratios are made turn by turn and medians are told. The baseline reads the columns that a corpus has,
row group by row group, and writes them with the same compression: nothing is counted, chosen, shuffled or hashed.
Seconds are the processor's, because the machine is shared; everything is one process, and Arrow uses one thread.
"""

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.backends.tokenizer import BYTES, open_tokenizer
from fineinstructions.config import from_mapping, to_plain
from fineinstructions.corpora import export
from fineinstructions.documents import document_units
from fineinstructions.pair_text import pair_text
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Pair, content_id
from fineinstructions.runs import Phase, RunFolder
from fineinstructions.setup import Setup

PHASES = [Phase("candidates", "c", entry="documents"), Phase("assemble", "a", upstream=("candidates",))]
PAIRS_A_DOCUMENT = 6
COLUMNS = ["pair_id", "document_id", "text", "source", "licence", "template_licence"]
CASES = {
    "parquet": ["format=parquet"],
    "parquet, shuffled": ["format=parquet", "shuffle=true"],
    "jsonl": ["format=jsonl"],
    "lingua, 8 ranks": ["format=lingua", "ranks=8"],
}


@dataclass
class Watch:
    """Seconds of every step of an export; a `Progress`."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = 0.0

    def start(self, phase: str, total: int, done: int) -> None:
        """A step begins."""
        del phase, total, done
        self.began = time.process_time()

    def advance(self, phase: str, rows: int) -> None:
        """Say nothing."""
        del phase, rows

    def finish(self, phase: str) -> None:
        """A step is over."""
        self.seconds[phase.split()[0]] = time.process_time() - self.began

    def note(self, line: str) -> None:
        """Say nothing."""
        del line


def write_run(folder: Path, documents: Path, copies: int) -> Path:
    """A finished run over copies of documents, with pairs of their sentences."""
    rows = pq.read_table(documents, columns=["id", "text"]).to_pylist()
    texts = [(f"{copy}-{row['id']}", row["text"]) for copy in range(copies) for row in rows]
    table = pa.table({"id": [name for name, _ in texts], "text": [text for _, text in texts]})
    pq.write_table(table, folder / "documents.parquet", row_group_size=200)
    config = from_mapping({"documents": {"path": str(folder / "documents.parquet")}}, RunConfig)
    run = RunFolder.create_or_open(folder / "run", to_plain(config), PHASES)
    with run.lease():
        specs = document_units(Setup(config, folder / "run"))
        run.todo("candidates", specs)
        for spec in specs:
            with run.unit("candidates", spec) as unit:
                for _ in unit.keep("documents", range(spec.num_rows)):
                    pass
                unit.commit()
        run.publish("pairs", Pair, pairs_of(texts), phase="assemble")
    return folder / "run"


def pairs_of(texts: list[tuple[str, str]]) -> Iterator[Pair]:
    """Six pairs of every document, each with another sixth of its text as the answer."""
    for name, text in texts:
        for number in range(PAIRS_A_DOCUMENT):
            part = text[len(text) * number // 6 : len(text) * (number + 1) // 6]
            instruction, answer = f"What does part {number} of {name} say?", part
            yield Pair(
                *(content_id("p", name, str(number)), name, f"t{number}", ("q",), -1, 0.5, instruction, answer, (), ()),
                *(1.0, 1.0, 4, "", "{}", "CC0", "MIT", "source", "", "", "{}", pair_text(instruction, answer)),
            )


def plain_pyarrow(run: Path, out: Path) -> float:
    """Seconds that copying the columns of a corpus takes."""
    began = time.process_time()
    for path in sorted((run / "pairs").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            schema = pa.schema([file.schema_arrow.field(name) for name in COLUMNS])
            with pq.ParquetWriter(out / path.name, schema, compression="zstd", compression_level=3) as writer:
                for group in range(file.metadata.num_row_groups):
                    table = file.read_row_group(group, columns=COLUMNS, use_threads=False)
                    writer.write_table(table.select(COLUMNS), row_group_size=table.num_rows)
    return time.process_time() - began


def exported(run: Path, out: Path, words: list[str], budget: str) -> tuple[float, dict[str, float]]:
    """Seconds of a whole export in one process, and of its steps."""
    watch = Watch()
    began = time.process_time()
    export(run, out, overrides=[*words, f"budget={budget}", "engine.workers=0"], progress=watch)
    return time.process_time() - began, watch.seconds


def measure(run: Path, turns: int, num_bytes: int, budget: str) -> list[str]:
    """Rows of the report."""
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CASES}
    baselines = []
    for turn in range(turns):
        with tempfile.TemporaryDirectory(dir=run.parent) as folder:
            plain = plain_pyarrow(run, Path(folder))
            baselines.append(plain)
            for number, (name, words) in enumerate(CASES.items()):
                whole, steps = exported(run, Path(folder) / f"{turn}-{number}", words, budget)
                count = steps["count_documents"] + steps["count_pairs"]
                found[name].append((whole, count, steps["write"], plain / steps["write"]))
    megabytes = num_bytes / 1e6
    lines = ["| what | MB/s whole | MB/s counted | MB/s written | writing, of plain pyarrow's speed (least to most) |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    lines += [f"| plain pyarrow |  |  | {megabytes / statistics.median(baselines):,.0f} | 1.00 |"]
    for name, times in found.items():
        whole, count, write, ratio = (statistics.median(column) for column in zip(*times, strict=True))
        least, most = min(t[3] for t in times), max(t[3] for t in times)
        speeds = " | ".join(f"{megabytes / seconds:,.0f}" for seconds in (whole, count, write))
        lines.append(f"| {name} | {speeds} | {ratio:.2f} ({least:.2f} to {most:.2f}) |")
    return lines


def counting(names: list[str], texts: list[str], turns: int) -> Iterator[str]:
    """How fast each tokenizer counts, on some of the texts."""
    num_bytes = sum(len(text.encode()) for text in texts)
    yield from ("| tokenizer | MB/s counted |", "| --- | --- |")
    for name in names:
        tokenizer, seconds = open_tokenizer(name), []
        for _ in range(turns):
            began = time.process_time()
            tokenizer.row_tokens(texts)
            seconds.append(time.process_time() - began)
        size = f"{tokenizer.facts.vocab_size:,} ids"
        label = f"{tokenizer.facts.kind}, {Path(name).name}, {size}" if name != BYTES else BYTES
        yield f"| {label} | {num_bytes / 1e6 / statistics.median(seconds):,.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="Parquet with the columns id and text")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokenizers", nargs="*", default=[], help="tokenizer.json or rank files to count with")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), options.documents, options.copies)
        texts = [t for p in (run / "pairs").glob("*.parquet") for t in pq.read_table(p, columns=["text"])["text"]]
        num_bytes = sum(len(text.as_py().encode()) for text in texts)
        lines = [
            f"# Export, {datetime.date.today()}",
            "",
            f"`bench_export.py`, {platform.machine()}, Python {platform.python_version()}, one process, seconds of its "
            f"processor, medians of {options.turns} turns. {len(texts):,} pairs with {num_bytes / 1e6:,.0f} MB of text "
            "(no budget); tokens are bytes.",
            "",
            *measure(run, options.turns, num_bytes, "none"),
            "",
            *counting([BYTES, *options.tokenizers], [text.as_py() for text in texts[:2000]], options.turns),
        ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
