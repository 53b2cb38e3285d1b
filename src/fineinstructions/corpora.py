"""Hallway: a finished run to one corpus per arm.

    count_documents, count_pairs -> sift -> spend -> cut -> shuffle -> write

In: a run folder and what to make of it. Out: a folder with the files of every arm, a ledger, the rejected rows, a
manifest. The decision a reader would question: only tokens are counted in work units, on as many workers as there are.
Everything after it looks at numbers, or copies rows as Arrow has them, which one process does fast enough.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions import __version__
from fineinstructions.backends.llm_config import with_overrides
from fineinstructions.backends.tokenizer import TokenizerFacts, open_tokenizer
from fineinstructions.config import digest, from_mapping, load, to_plain
from fineinstructions.corpus import lingua
from fineinstructions.corpus.export import ExportConfig
from fineinstructions.corpus.layout import CORPUS_FILE
from fineinstructions.corpus.rephrase import STAGE
from fineinstructions.corpus_rows import (
    REPHRASE,
    Counters,
    Exported,
    RunRows,
    build_counters,
    count_documents,
    count_pairs,
    open_exported,
    rephrase_documents,
)
from fineinstructions.corpus_writing import CorpusWriting, settings_of
from fineinstructions.engines.engine import Engine, open_engine
from fineinstructions.engines.tally import Progress as EngineProgress
from fineinstructions.engines.worker import Job
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.inputs import list_inputs
from fineinstructions.progress import Progress, Silent
from fineinstructions.runs import Phase, RunFolder, UnitSpec
from fineinstructions.runs.durable import TEMPORARY_PREFIX, make_room_for, replace_folder
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest

FEW_UNITS = 2
"""Units that are not worth a process."""


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
    opened = open_tokenizer(settings.tokenizer)
    tokenizer = opened.facts
    if settings.format == "lingua":
        lingua.check_tokenizer(tokenizer)
    rephrasers = _rephrasers(exported)

    def made_of(kept: Mapping[str, Any] | None) -> str:
        return digest(_made_of(settings, rows, tokenizer, kept), rephrasers)

    found = _found(target, made_of)
    work_dir = target.with_name(f"{target.name}.work")
    if found is not None:
        shutil.rmtree(work_dir, ignore_errors=True)  # of a call that was stopped at its very end
        return found
    phases = _phases(settings, rows, tokenizer, rephrasers)
    plain = {"run": str(exported.run_dir), **to_plain(settings)}
    folder = RunFolder.create_or_open(work_dir, plain, phases, redo=True)
    with folder.lease():
        _count(exported, rows, folder, progress or Silent())
        temporary = work_dir / f"{TEMPORARY_PREFIX}export"
        temporary.mkdir()
        writing = CorpusWriting(exported.config, rows, folder, opened, progress or Silent())
        facts = writing.write(temporary, target, made_of(None))
        replace_folder(temporary, target)
    shutil.rmtree(work_dir)
    return ExportResult(target, facts)


def _phases(
    config: ExportConfig, rows: RunRows, tokenizer: TokenizerFacts, rephrasers: dict[str, list[Any]]
) -> list[Phase]:
    """What is done in work units, each with what decides it."""
    counted, plain = dataclasses.asdict(tokenizer), to_plain(config.sift)
    of_documents = digest(__version__, counted, plain["benchmarks"], _benchmarks(config), rows.documents)
    return [
        Phase("count_documents", of_documents, entry="count_documents"),
        Phase("count_pairs", digest(counted, _sieve(config, plain), rows.pairs.seal), entry="count_pairs"),
        *(Phase(f"{REPHRASE}{style}", digest(of_documents, by), entry=STAGE) for style, by in rephrasers.items()),
    ]


def _made_of(config: ExportConfig, rows: RunRows, tokenizer: TokenizerFacts, kept: Mapping[str, Any] | None) -> str:
    """Digest of everything that decides the bytes of a corpus; `kept` are the settings of one that is there."""
    plain = {name: value for name, value in settings_of(config, kept).items() if name != "tokenizer"}
    sieve = _sieve(config, plain["sift"])
    return digest(__version__, plain, sieve, dataclasses.asdict(tokenizer), rows.pairs.seal, rows.documents)


def _rephrasers(exported: Exported) -> dict[str, list[Any]]:
    """What decides the rephrased rows, by style."""
    if not exported.config.styles:
        return {}
    counters = Counters(exported)
    settings = {k: v for k, v in to_plain(exported.config.rephrase).items() if k != "llm"}
    try:
        return {style: [counters.rephraser(style).model, settings] for style in exported.config.styles}
    finally:
        counters.close()


def _sieve(config: ExportConfig, sift: dict[str, Any]) -> list[Any]:
    """What decides the facts about pairs, the content of benchmark files included."""
    rules = ["documents too"] if config.sift.benchmarks else []
    return [__version__, sift, _benchmarks(config), *rules]


def _benchmarks(config: ExportConfig) -> list[str]:
    """Digests of the benchmark files."""
    files = [file for b in config.sift.benchmarks for file in list_inputs(b.path, "sift.benchmarks")]
    return [file.content() for file in files]


def _found(target: Path, made_of: Callable[[Mapping[str, Any] | None], str]) -> ExportResult | None:
    """The corpora that are there already; none where there is nothing.

    Raises:
        ConfigError: If there is something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        make_room_for(target)
        return None
    remedy = "choose another --out, or delete it"
    if not target.is_dir() or not (target / CORPUS_FILE).is_file():
        raise ConfigError(f"{target}: holds something else than corpora of a run; {remedy}")
    manifest = read_manifest(FolderFiles(target))
    problems = file_problems(FolderFiles(target), manifest.files) if manifest else []
    if problems:
        raise ConfigError(f"{target}: damaged, {problems[0]}; {remedy}")
    facts = json.loads((target / CORPUS_FILE).read_text(encoding="utf-8")) if manifest else {}
    if manifest is None or manifest.digest != made_of(facts["config"]):
        raise ConfigError(f"{target}: holds corpora of another run, or made with other settings; {remedy}")
    return ExportResult(target, facts, was_there=True)


def _count(exported: Exported, rows: RunRows, folder: RunFolder, progress: Progress) -> None:
    """Count the tokens of all documents and pairs, on as many workers as there are."""
    documents, pairs = rows.document_units(), rows.pair_units(exported.config.unit_rows)
    launch = exported.config.engine
    styles = [f"{REPHRASE}{style}" for style in exported.config.styles]
    if launch.kind == "local" and len(documents) + len(pairs) <= FEW_UNITS and not styles:
        launch = launch.model_copy(update={"workers": 0})
    with open_engine(folder, launch, [], progress.note) as engine:
        for phase, work, specs in (
            ("count_documents", count_documents, documents),
            ("count_pairs", count_pairs, pairs),
        ):
            job = Job(folder, phase, work, build_counters, config=exported, reopen=open_exported)
            _do(engine, job, specs, progress)
        for phase in styles:
            job = Job(
                folder,
                phase,
                rephrase_documents,
                build_counters,
                config=exported,
                open_units=launch.open_units,
                max_local_workers=1 if _runs_here(exported.config) else None,
                asks_servers=True,
                reopen=open_exported,
            )
            _do(engine, job, documents, progress)


def _runs_here(config: ExportConfig) -> bool:
    """Whether the language model lies in the worker process, which then is the only one."""
    return with_overrides(config.llm, config.rephrase.llm).engine == "transformers"


def _do(engine: Engine, job: Job[Counters, Exported], specs: Sequence[UnitSpec], progress: Progress) -> None:
    todo = job.run.todo(job.phase, specs, retry_failed=True)
    progress.start(job.phase, len(specs), len(specs) - len(todo))
    told = 0

    def tell(state: EngineProgress) -> None:
        nonlocal told
        progress.advance(job.phase, state.num_rows_done - told)
        told = state.num_rows_done

    outcome = engine.run_units(job, todo, tell)
    progress.finish(job.phase)
    if outcome.set_aside:
        first = outcome.set_aside[0]
        raise DataError(f"{first.spec.folder_name} of {job.phase}: {first.reason}: {first.detail}; run again to retry")
