"""Hallway: a finished run to one corpus per arm.

    count_documents, count_pairs -> sift -> spend -> cut -> shuffle -> write

In: a run folder and what to make of it. Out: a folder with the files of every arm, a ledger, the rejected rows, a
manifest. The decision a reader would question: only tokens are counted in work units, on as many workers as there are.
Everything after it looks at numbers, or copies rows as Arrow has them, and one process does that as fast as disks are.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fineinstructions import __version__
from fineinstructions.backends.tokenizer import TokenizerFacts, open_tokenizer
from fineinstructions.config import digest, from_mapping, load, to_plain
from fineinstructions.corpus.arms import Share, Source, open_array, share_out
from fineinstructions.corpus.budget import LedgerRow
from fineinstructions.corpus.choose import Choice, DocumentFacts
from fineinstructions.corpus.export import DOCUMENTS, PAIRS, ExportConfig
from fineinstructions.corpus.layout import CORPUS_FILE, HITS_FILE, LEDGER_FILE, REJECTED, open_writer
from fineinstructions.corpus.order import row_keys
from fineinstructions.corpus.shuffle import KEY, shuffled
from fineinstructions.corpus.sift import BenchmarkHit, PairFacts, hits_by_benchmark
from fineinstructions.corpus.write import RankWriter
from fineinstructions.corpus_rows import (
    Counters,
    Exported,
    RunRows,
    build_counters,
    count_documents,
    count_pairs,
    open_exported,
)
from fineinstructions.engines.engine import Engine, open_engine
from fineinstructions.engines.tally import Progress as EngineProgress
from fineinstructions.engines.worker import Job
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.inputs import list_inputs
from fineinstructions.pairs.judge import template_cap
from fineinstructions.progress import Progress, Silent
from fineinstructions.records import Rejection, rejection
from fineinstructions.runs import Manifest, Phase, RunFolder, StageAccount, TableWriter, Unit, UnitSpec, read_table
from fineinstructions.runs.durable import TEMPORARY_PREFIX, replace_folder, write_text
from fineinstructions.runs.ledger import file_problems, list_files, load_manifest
from fineinstructions.runs.tables import table_name, write_parts

PHASE = "export"
CUT = "cut"
FEW_UNITS = 2
"""Units that are not worth a process."""
CHANGE_NOTHING = ("engine", "unit_rows")
"""Settings that change no byte of a corpus."""


@dataclass
class ExportResult:
    """What an export made."""

    path: Path
    facts: dict[str, Any]
    """What stands in ``corpus.json``."""
    was_there: bool = False
    """Whether an earlier call had made it."""


def as_export_config(
    config: ExportConfig | dict[str, Any] | str | Path | None, overrides: Iterable[str] = ()
) -> ExportConfig:
    """Settings of an export, given as a path, as a mapping or checked.

    Raises:
        ConfigError: If they cannot be read or one is wrong.
    """
    if isinstance(config, str | Path):
        return load(config, ExportConfig, list(overrides))
    plain = to_plain(config) if isinstance(config, ExportConfig) else config or {}
    return from_mapping(plain, ExportConfig, list(overrides), where="export")


def export(
    run: str | Path,
    out: str | Path,
    config: ExportConfig | dict[str, Any] | str | Path | None = None,
    *,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> ExportResult:
    """Make corpora of a finished run; continue where an earlier call was stopped.

    Args:
        run: Run folder.
        out: Folder of the corpora; appears when it is whole.
        config: What to make; by default the pairs of the run, token for token.
        overrides: ``a.b=value`` strings.
        progress: Told what goes on; by default nobody.

    Raises:
        ConfigError: If the run is not finished, a setting is wrong, or the folder holds something else.
        BackendError: If an engine failed for good; what was counted stays for the next call.
        DataError: If the run is damaged.
    """
    exported = Exported(Path(run).absolute(), as_export_config(config, overrides))
    target, settings = Path(out), exported.config
    rows = RunRows(exported.run_dir)
    tokenizer = open_tokenizer(settings.tokenizer).facts
    made_of = _made_of(settings, rows, tokenizer)
    found = _found(target, made_of)
    if found is not None:
        return found
    work_dir = target.with_name(f"{target.name}.work")
    phases = [
        Phase("count_documents", digest(dataclasses.asdict(tokenizer), rows.documents), entry="count_documents"),
        Phase(
            "count_pairs", digest(dataclasses.asdict(tokenizer), _sieve(settings), rows.pairs.seal), entry="count_pairs"
        ),
    ]
    plain = {"run": str(exported.run_dir), **to_plain(settings)}
    folder = RunFolder.create_or_open(work_dir, plain, phases, redo=True)
    exporting = _Exporting(exported, rows, folder, tokenizer, progress or Silent())
    with folder.lease():
        exporting.count()
        temporary = work_dir / f"{TEMPORARY_PREFIX}export"
        temporary.mkdir()
        facts = exporting.write(temporary, made_of)
        replace_folder(temporary, target)
    shutil.rmtree(work_dir)
    return ExportResult(target, facts)


def _made_of(config: ExportConfig, rows: RunRows, tokenizer: TokenizerFacts) -> str:
    """Digest of everything that decides the bytes of a corpus."""
    plain = {name: value for name, value in to_plain(config).items() if name not in (*CHANGE_NOTHING, "tokenizer")}
    return digest(__version__, plain, _sieve(config), dataclasses.asdict(tokenizer), rows.pairs.seal, rows.documents)


def _sieve(config: ExportConfig) -> list[Any]:
    """What decides the facts about pairs, the content of benchmark files included."""
    files = [file for b in config.sift.benchmarks for file in list_inputs(b.path, "sift.benchmarks")]
    return [__version__, to_plain(config.sift), [file.content() for file in files]]


def _found(target: Path, made_of: str) -> ExportResult | None:
    """The corpora that are there already; none where there is nothing.

    Raises:
        ConfigError: If there is something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        if not target.absolute().parent.is_dir():
            raise ConfigError(f"{target.absolute().parent}: no such folder; make it, or choose another --out")
        return None
    remedy = "choose another --out, or delete it"
    if not target.is_dir() or not (target / CORPUS_FILE).is_file():
        raise ConfigError(f"{target}: holds something else than corpora of a run; {remedy}")
    manifest = load_manifest(target)
    if manifest is None or manifest.digest != made_of:
        raise ConfigError(f"{target}: holds corpora of another run, or made with other settings; {remedy}")
    problems = file_problems(target, manifest.files)
    if problems:
        raise ConfigError(f"{target}: damaged, {problems[0]}; {remedy}")
    return ExportResult(target, json.loads((target / CORPUS_FILE).read_text(encoding="utf-8")), was_there=True)


class _Exporting:
    """One call of `export`: counts, then everything else."""

    def __init__(
        self, exported: Exported, rows: RunRows, folder: RunFolder, tokenizer: TokenizerFacts, progress: Progress
    ) -> None:
        self._exported, self._config = exported, exported.config
        self._rows, self._folder, self._progress = rows, folder, progress
        self._tokenizer = tokenizer
        self._accounts: dict[str, StageAccount] = {}
        self._arms: dict[str, list[Share]] = {}

    def count(self) -> None:
        """Tokens of all documents and pairs, on as many workers as there are."""
        documents, pairs = self._rows.document_units(), self._rows.pair_units(self._config.unit_rows)
        launch = self._config.engine
        if launch.kind == "local" and len(documents) + len(pairs) <= FEW_UNITS:
            launch = launch.model_copy(update={"workers": 0})
        with open_engine(self._folder, launch, [], self._progress.note) as engine:
            self._do(engine, "count_documents", count_documents, documents)
            self._do(engine, "count_pairs", count_pairs, pairs)

    def _do(
        self, engine: Engine, phase: str, work: Callable[[Unit, Counters, Exported], None], specs: list[UnitSpec]
    ) -> None:
        todo = self._folder.todo(phase, specs, retry_failed=True)
        self._progress.start(phase, len(specs), len(specs) - len(todo))
        told = 0

        def tell(state: EngineProgress) -> None:
            nonlocal told
            self._progress.advance(phase, state.num_rows_done - told)
            told = state.num_rows_done

        job = Job(self._folder, phase, work, build_counters, config=self._exported, reopen=open_exported)
        outcome = engine.run_units(job, todo, tell)
        self._progress.finish(phase)
        if outcome.set_aside:
            first = outcome.set_aside[0]
            raise DataError(f"unit {first.spec.folder_name} could not be counted: {first.reason}: {first.detail}")

    def write(self, out: Path, made_of: str) -> dict[str, Any]:
        """Choose rows, write the files of all arms, and what tells about them.

        Args:
            out: Empty folder.
            made_of: Digest of what decides its bytes.

        Returns:
            What stands in ``corpus.json``.
        """
        arrays = self._folder.root / f"{TEMPORARY_PREFIX}arrays"
        arrays.mkdir()
        pairs = self._source(PAIRS, "count_pairs", PairFacts, "pair_id", self._rows.pair_tables, arrays)
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
        num_rejected = self._choose(out, choice, {PAIRS: pairs, DOCUMENTS: documents}, arrays)
        self._progress.finish("choose")
        written = {arm: self._write_arm(out / arm, arm, shares) for arm, shares in self._arms.items()}
        return self._tell(out, made_of, choice, written, num_rejected)

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
        specs = self._folder.planned(phase) or []
        manifests = [self._folder.manifest(phase, spec) for spec in specs]
        number = sum(manifest.counts["rows"] for manifest in manifests if manifest)
        tokens = open_array(arrays / f"tokens-{name}", np.int64, number)
        keys = open_array(arrays / f"keys-{name}", np.uint64, number)
        live = open_array(arrays / f"live-{name}", np.bool_, number)
        live[:] = True
        start = 0
        for spec in specs:
            for table in self._folder.unit_groups(phase, spec, table_name(facts), [id_column, "num_tokens"]):
                stop = start + table.num_rows
                tokens[start:stop] = table.column("num_tokens").to_numpy()
                keys[start:stop] = row_keys(self._config.seed, CUT, table.column(id_column).to_pylist())
                start = stop
        return Source(name, tables, tokens, keys, live)

    def _choose(self, out: Path, choice: Choice, sources: dict[str, Source], arrays: Path) -> int:
        """Mark the rows of every arm; write the ledger, the hits and what is turned down."""
        config = self._config
        ledger = TableWriter(out / LEDGER_FILE, LedgerRow)
        hits = TableWriter(out / HITS_FILE, BenchmarkHit) if config.sift.benchmarks else None
        (out / REJECTED).mkdir()
        try:
            rejected = chain(
                choice.sift(config.sift, config.seed, template_cap, hits.add if hits else lambda _: None),
                choice.spend(config.budget, config.seed, ledger.add),
                self._cut(sources, arrays),
            )
            rows = write_parts(out / REJECTED, rejected, Rejection, config.rows_per_part, config.bytes_per_part)
        finally:
            ledger.close()
            if hits:
                hits.close()
        self._accounts = {**choice.accounts, **self._accounts}
        return sum(rows.values())

    def _cut(self, sources: dict[str, Source], arrays: Path) -> Iterator[Rejection]:
        """Share the rows out among the arms; a rejection for every row that its arm has no room for."""
        self._arms = share_out(sources, self._config.mixtures, self._config.equal_tokens, arrays)
        account = self._accounts[CUT] = StageAccount()
        for arm, shares in self._arms.items():
            for share in shares:
                account.num_in += int(share.source.live.sum())
                account.num_out += int(share.kept.sum())
                yield from self._left_out(arm, share, account)

    def _left_out(self, arm: str, share: Share, account: StageAccount) -> Iterator[Rejection]:
        places = share.left_out()
        place = next(places, None)
        row = 0
        for table in share.source.tables() if place is not None else ():
            while place is not None and place < row + table.num_rows:
                name = table.column("id")[place - row].as_py()
                account.rejected["equal_tokens"] = account.rejected.get("equal_tokens", 0) + 1
                kept = {"arm": arm, "source": share.source.name}
                yield rejection(CUT, "equal_tokens", name, kept, float(share.source.tokens[place]))
                place = next(places, None)
            row += table.num_rows

    def _write_arm(self, folder: Path, arm: str, shares: list[Share]) -> dict[str, Any]:
        """Write one arm; its figures."""
        folder.mkdir()
        self._progress.start(f"write {arm}", 1, 0)
        tables: Iterator[pa.Table] = chain.from_iterable(share.tables() for share in shares)
        if self._config.is_shuffled(arm):
            buckets = self._folder.root / f"{TEMPORARY_PREFIX}buckets"
            tables = (t.drop_columns([KEY]) for t in shuffled(map(self._with_keys, tables), buckets))
        writer = open_writer(self._config, folder)
        try:
            for table in tables:
                writer.write(table)
            files = writer.close()
        except BaseException:  # Ctrl-C too must not leave an open file behind
            writer.abandon()
            raise
        self._progress.finish(f"write {arm}")
        of_sources = {
            s.source.name: {"rows": int(s.kept.sum()), "tokens": s.num_tokens, "all_tokens": int(s.source.tokens.sum())}
            for s in shares
        }
        facts: dict[str, Any] = {
            "rows": sum(file.num_rows for file in files),
            "tokens": sum(file.num_tokens for file in files),
            "sources": of_sources,
            "shuffled": self._config.is_shuffled(arm),
            "files": {f"{arm}/{file.name}": {"rows": file.num_rows, "tokens": file.num_tokens} for file in files},
        }
        ranks = (
            {"rank_tokens": [n for of_file in writer.rank_tokens for n in of_file]}
            if isinstance(writer, RankWriter)
            else {}
        )
        return facts | ranks

    def _with_keys(self, table: pa.Table) -> pa.Table:
        keys = row_keys(self._config.seed, "shuffle", table.column("id").to_pylist())
        return table.append_column(KEY, pa.array(keys))

    def _tell(
        self, out: Path, made_of: str, choice: Choice, written: dict[str, dict[str, Any]], num_rejected: int
    ) -> dict[str, Any]:
        """Write ``corpus.json`` and the manifest."""
        largest = max(arm["tokens"] for arm in written.values())
        for arm in written.values():
            arm["epochs"] = round(largest / arm["tokens"], 4) if arm["tokens"] else None
        hits = read_table(out / HITS_FILE, BenchmarkHit) if self._config.sift.benchmarks else iter(())
        config = {name: value for name, value in to_plain(self._config).items() if name not in CHANGE_NOTHING}
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
