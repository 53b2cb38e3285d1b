"""What an export does once tokens are counted: choose rows, cut arms, shuffle, write files and what tells about them.

In: a run, and the tokens of its documents and pairs in a work folder. Out: the files of an export, in a folder that is
not in its place yet. Everything here is one process that looks at numbers or hands Arrow tables on.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.artefacts import made_with
from fineinstructions.backends.tokenizer import BYTES, Tokenizer, tokenizer_file
from fineinstructions.config import known_settings
from fineinstructions.corpus import lingua, torchtitan
from fineinstructions.corpus.arms import DocumentCount, Share, Source, open_array
from fineinstructions.corpus.budget import LedgerRow
from fineinstructions.corpus.card import CARD_FILE, RowTallies, card_text
from fineinstructions.corpus.choose import Choice, DocumentFacts
from fineinstructions.corpus.export import DOCUMENTS, PAIRS, REJECTED, WITH_PAIRS, ExportConfig
from fineinstructions.corpus.layout import CORPUS_FILE, HITS_FILE, LEDGER_FILE, open_writer
from fineinstructions.corpus.shuffle import KEY, shuffled
from fineinstructions.corpus.sift import DECONTAMINATE, BenchmarkHit, PairFacts, hits_by_benchmark
from fineinstructions.corpus.sift import STAGE as SIFT
from fineinstructions.corpus.write import RankWriter, TrainingRow
from fineinstructions.corpus_rows import REPHRASE, UNTOKENIZED, RunRows
from fineinstructions.corpus_sharing import CUT, cut_arms, share_arms
from fineinstructions.errors import ConfigError
from fineinstructions.pairs.judge import template_cap
from fineinstructions.progress import Progress
from fineinstructions.records import Rejection
from fineinstructions.runs import Manifest, RunFolder, StageAccount, TableWriter, UnitSpec, read_table
from fineinstructions.runs.durable import TEMPORARY_PREFIX, write_text
from fineinstructions.runs.ledger import list_files
from fineinstructions.runs.tables import table_name, tables_of, write_parts
from fineinstructions.seeded_order import row_keys

PHASE = "export"
CHANGE_NOTHING = ("engine", "unit_rows", "llm")


def settings_of(config: ExportConfig, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings that decide a corpus, and nothing that tells of servers or keys.

    Args:
        config: All settings.
        kept: Those of a corpus that is there; what came later and has its default is then left out.
    """
    plain = {name: value for name, value in known_settings(config, kept).items() if name not in CHANGE_NOTHING}
    plain["rephrase"] = {name: value for name, value in plain["rephrase"].items() if name != "llm"}
    return plain


"""Settings that change no byte of a corpus, or are told with every row that they have made."""


def _of_benchmarks(stages: Mapping[str, StageAccount]) -> int:
    """Documents that were turned down for a benchmark."""
    return stages[DECONTAMINATE].num_turned_away if DECONTAMINATE in stages else 0


class CorpusWriting:
    """One export from counted rows to files.

    Args:
        config: Settings of the export.
        rows: The run.
        folder: Work folder with the counted tokens.
        tokenizer: What they were counted with.
        progress: Told what goes on.
    """

    def __init__(
        self, config: ExportConfig, rows: RunRows, folder: RunFolder, tokenizer: Tokenizer, progress: Progress
    ) -> None:
        self._config, self._rows, self._folder = config, rows, folder
        self._counter, self._tokenizer, self._progress = tokenizer, tokenizer.facts, progress
        self._accounts: dict[str, StageAccount] = {}
        self._arms: dict[str, list[Share]] = {}
        self._wanted: NDArray[np.int64] = np.zeros(0, np.int64)
        """Tokens of the pairs that were chosen, by document."""
        self._benchmark_rows: dict[str, int] = {}
        self._tallies = RowTallies()

    def write(self, out: Path, target: Path, made_of: str) -> dict[str, Any]:
        """Choose rows, write the files of all arms, and what tells about them.

        Args:
            out: Empty folder.
            target: Where it will lie.
            made_of: Digest of what decides its bytes.

        Returns:
            What stands in ``corpus.json``.
        """
        arrays = self._folder.root / f"{TEMPORARY_PREFIX}arrays"
        arrays.mkdir()
        of_pairs = "document_id" if self._config.has_same_documents else "pair_id"
        pairs = self._source(PAIRS, "count_pairs", PairFacts, of_pairs, self._rows.pair_tables, arrays)
        documents = self._source(
            DOCUMENTS, "count_documents", DocumentFacts, "document_id", self._rows.document_tables, arrays
        )
        choice = Choice(
            pairs.live,
            lambda: self._folder.records("count_pairs", PairFacts),
            self._rows.instructions,
            lambda: self._folder.records("count_documents", DocumentFacts),
        )
        self._progress.start("choose", 1, 0)
        sources = {PAIRS: pairs, DOCUMENTS: documents}
        for style in self._config.styles:
            phase = f"{REPHRASE}{style}"
            tables = partial(self._made_tables, phase)
            sources[style] = self._source(style, phase, TrainingRow, "document_id", tables, arrays)
        num_rejected = self._choose(out, choice, sources, arrays)
        self._progress.finish("choose")
        written = {arm: self._write_arm(out / arm, arm, shares) for arm, shares in self._arms.items()}
        self._write_recipes(out, target, written)
        return self._tell(out, made_of, choice, written, num_rejected)

    def _write_recipes(self, out: Path, target: Path, written: dict[str, dict[str, Any]]) -> None:
        """What a training program is started with."""
        path = "" if self._tokenizer.kind == BYTES else str(tokenizer_file(self._config.tokenizer).absolute())
        if self._config.format == "lingua":
            ranks = {arm: figures["rank_tokens"] for arm, figures in written.items()}
            lingua.write_recipes(out, target, ranks, self._tokenizer, path)
        if self._config.format == "torchtitan":
            torchtitan.write_settings(out, target, written, self._config.ranks)

    def _source(
        self,
        name: str,
        phase: str,
        facts: type[Any],
        id_column: str,
        tables: Callable[[], Iterator[pa.Table]],
        arrays: Path,
    ) -> Source:
        """Tokens and keys of all rows of a source, as they were counted."""
        specs: Sequence[UnitSpec] = self._folder.planned(phase) or []
        manifests = [self._folder.manifest(phase, spec) for spec in specs]
        number = sum(manifest.counts["rows"] for manifest in manifests if manifest)
        tokens = open_array(arrays / f"tokens-{name}", np.int64, number)
        keys = open_array(arrays / f"keys-{name}", np.uint64, number)
        live = open_array(arrays / f"live-{name}", np.bool_, number)
        live[:] = name != DOCUMENTS
        start = 0
        for spec in specs:
            for table in self._folder.unit_groups(phase, spec, table_name(facts), [id_column, "num_tokens"]):
                stop = start + table.num_rows
                tokens[start:stop] = table.column("num_tokens").to_numpy()
                keys[start:stop] = row_keys(self._config.seed, CUT, table.column(id_column).to_pylist())
                start = stop
        offered = live
        if name != PAIRS:  # rows of documents without pairs are still offered, and turned down arm by arm
            offered = open_array(arrays / f"offered-{name}", np.bool_, number)
            offered[:] = name != DOCUMENTS
        return Source(name, tables, tokens, keys, live, offered)

    def _made_tables(self, phase: str) -> Iterator[pa.Table]:
        """Rows that a phase of the export made, without their tokens."""
        for spec in self._folder.planned(phase) or []:
            for table in self._folder.unit_groups(phase, spec, table_name(TrainingRow), UNTOKENIZED.names):
                yield table.cast(UNTOKENIZED)

    def _choose(self, out: Path, choice: Choice, sources: dict[str, Source], arrays: Path) -> int:
        """Mark the rows of every arm; write the ledger, the hits and what is turned down."""
        config = self._config
        ledger = TableWriter(out / LEDGER_FILE, LedgerRow)
        hits = TableWriter(out / HITS_FILE, BenchmarkHit) if config.sift.benchmarks else None
        (out / REJECTED).mkdir()

        self._wanted = open_array(arrays / "wanted", np.int64, len(sources[DOCUMENTS].tokens))

        documents = sources[DOCUMENTS]

        def note(place: int, row: LedgerRow) -> None:
            documents.offered[place] = True
            documents.live[place] = config.documents == "all" or row.chosen_pairs > 0
            self._wanted[place] = row.emitted_tokens
            ledger.add(row)

        try:
            turned_down = chain(
                choice.sift(config.sift, config.seed, template_cap, hits.add if hits else lambda _: None),
                choice.spend(config.budget, not config.has_same_documents, config.seed, note),
                self._cut(sources, arrays),
            )
            rephrased = self._folder.rejected_tables(*(f"{REPHRASE}{style}" for style in self._config.styles))
            rejected = chain(rephrased, tables_of(turned_down, Rejection))
            rows = write_parts(out / REJECTED, rejected, Rejection, config.rows_per_part, config.bytes_per_part)
        finally:
            ledger.close()
            if hits:
                hits.close()
        self._account_for(choice)
        return sum(rows.values())

    def _account_for(self, choice: Choice) -> None:
        """Put the accounts of all stages together, and what benchmarks cost each source."""
        stages = {
            style: [
                manifest.stages
                for spec in self._folder.planned(f"{REPHRASE}{style}") or []
                if (manifest := self._folder.manifest(f"{REPHRASE}{style}", spec)) is not None
            ]
            for style in self._config.styles
        }
        accounts: dict[str, StageAccount] = {}
        for of_unit in (*chain.from_iterable(stages.values()), choice.accounts, self._accounts):
            for stage, account in of_unit.items():
                accounts.setdefault(stage, StageAccount()).add(account)
        self._accounts = accounts
        lost = {style: sum(_of_benchmarks(of_unit) for of_unit in found) for style, found in stages.items()}
        documents = _of_benchmarks({DECONTAMINATE: choice.accounts.get(DECONTAMINATE, StageAccount())})
        pairs = sum(choice.accounts[SIFT].rejected.get(reason, 0) for reason in ("benchmark", "benchmark_document"))
        self._benchmark_rows = {DOCUMENTS: documents, WITH_PAIRS: documents, PAIRS: pairs, **lost}

    def _cut(self, sources: dict[str, Source], arrays: Path) -> Iterator[Rejection]:
        """Share the rows out among the arms; a rejection for every row that its arm has no room for."""
        documents = sources[DOCUMENTS]
        for style in self._config.styles if self._config.documents == "with_pairs" else ():
            rephrased = sources[style]  # whose keys are those of their documents
            rephrased.live[:] = np.isin(rephrased.keys, documents.keys[documents.live])
        self._arms = share_arms(self._config, sources, self._wanted, self._counter, arrays)
        account = self._accounts[CUT] = StageAccount()
        yield from cut_arms(self._arms, account, self._config.has_same_documents)

    def _write_arm(self, folder: Path, arm: str, shares: list[Share]) -> dict[str, Any]:
        """Write one arm; its figures."""
        folder.mkdir()
        self._progress.start(f"write {arm}", 1, 0)
        tables: Iterator[pa.Table] = chain.from_iterable(share.tables() for share in shares)
        documents = DocumentCount(self._folder.root / f"{TEMPORARY_PREFIX}arrays" / f"documents-{arm}", shares)
        tables = documents.counted(tables)
        if self._config.is_shuffled(arm):
            buckets = self._folder.root / f"{TEMPORARY_PREFIX}buckets"
            tables = (t.drop_columns([KEY]) for t in shuffled(map(self._with_keys, tables), buckets))
        writer = open_writer(self._config, folder)
        try:
            for table in self._tallies.counted(tables):
                writer.write(table)
            files = writer.close()
        except BaseException:  # Ctrl-C too must not leave an open file behind
            writer.abandon()
            raise
        self._progress.finish(f"write {arm}")
        of_sources = {
            share.source.name: {
                "rows": int(share.kept.sum()),
                "tokens": share.num_tokens,
                "all_tokens": int(share.source.tokens.sum()),
                **share.shortened,
                **({"benchmark_rows": self._benchmark_rows[share.source.name]} if self._config.sift.benchmarks else {}),
            }
            for share in shares
        }
        facts: dict[str, Any] = {
            "rows": sum(file.num_rows for file in files),
            "tokens": sum(file.num_tokens for file in files),
            "documents": documents.number(),
            "sources": of_sources,
            "shuffled": self._config.is_shuffled(arm),
            "files": {f"{arm}/{file.name}": {"rows": file.num_rows, "tokens": file.num_tokens} for file in files},
        }
        if isinstance(writer, RankWriter):
            facts["rank_tokens"] = [tokens for of_file in writer.rank_tokens for tokens in of_file]
            if not min(facts["rank_tokens"]):
                raise ConfigError(
                    f"{arm}: has fewer rows than there are ranks, and Lingua waits for ever on an empty file; lower"
                    " --ranks"
                )
        return facts

    def _with_keys(self, table: pa.Table) -> pa.Table:
        """Rows of a document stay together where all arms have the same: then any beginning of one arm has them too."""
        by = "document_id" if self._config.has_same_documents else "id"
        keys = row_keys(self._config.seed, "shuffle", table.column(by).to_pylist())
        return table.append_column(KEY, pa.array(keys))

    def _tell(
        self, out: Path, made_of: str, choice: Choice, written: dict[str, dict[str, Any]], num_rejected: int
    ) -> dict[str, Any]:
        """Write ``corpus.json``, the data card and the manifest."""
        largest = max(arm["tokens"] for arm in written.values())
        for arm in written.values():
            arm["epochs"] = round(largest / arm["tokens"], 4) if arm["tokens"] else None
        hits = read_table(out / HITS_FILE, BenchmarkHit) if self._config.sift.benchmarks else iter(())
        config = settings_of(self._config)
        facts = {
            "format": self._config.format,
            "tokenizer": dataclasses.asdict(self._tokenizer),
            "arms": written,
            "documents": {"rows": choice.num_documents, "tokens": choice.document_tokens},
            "pairs": {"rows": choice.accounts["sift"].num_in, "tokens_offered": choice.sifted_tokens},
            "deficit_tokens": choice.deficit_tokens,
            "stages": {name: account.to_plain() for name, account in self._accounts.items()},
            "benchmark_hits": hits_by_benchmark(hits),
            "config": config,
        }
        write_text(out / CORPUS_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        write_text(out / CARD_FILE, card_text(facts, self._tallies, made_with(self._rows.setup.config)) + "\n")
        rows = {name: file["rows"] for arm in written.values() for name, file in arm["files"].items()}
        manifest = Manifest(
            phase=PHASE,
            unit_id="corpora",
            digest=made_of,
            inputs=self._rows.pairs.seal,
            stages=self._accounts,
            counts={"rejected": num_rejected, **{f"{arm}_tokens": f["tokens"] for arm, f in written.items()}},
            files=list_files(out, rows),
        )
        manifest.save(out)
        return facts
