"""The folder of an export: names of its files, and the writer of each format.

OUT/ARM/part-00000.parquet          rows (jsonl: part-00000.jsonl.zst, .jsonl.gz or .jsonl; hf and torchtitan:
                                    train-00000-of-00003.parquet; lingua: ARM.chunk.00.jsonl)
OUT/ledger.parquet                  what every document was given and spent
OUT/rejected/part-00000.parquet     rows that did not make it, with their reasons
OUT/benchmark_hits.parquet          pairs and documents that share wording with a benchmark, where some were named
OUT/corpus.json                     settings and figures
OUT/README.md                       data card
OUT/manifest.json                   digests of all files; written last
"""

from pathlib import Path

from fineinstructions.corpus.export import ExportConfig
from fineinstructions.corpus.write import PartWriter, RankWriter, RowWriter

CORPUS_FILE = "corpus.json"
LEDGER_FILE = "ledger.parquet"
HITS_FILE = "benchmark_hits.parquet"


def open_writer(config: ExportConfig, folder: Path) -> RowWriter:
    """What writes the rows of one arm.

    Args:
        config: The settings.
        folder: The arm's folder, which is there and empty.
    """
    if config.format == "lingua":
        return RankWriter(folder, config.ranks)
    return PartWriter(
        folder,
        config.view,
        config.rows_per_part,
        config.bytes_per_part,
        ending=config.ending,
        counted=config.format in ("hf", "torchtitan"),
    )
