r"""Hallway 1: queries and documents to judged pairs, in one run folder that can be stopped and continued.

    queries -> genericize -> templates -> index
                                              \
    documents --------------------> candidates -> popularity -> matches -> pairs -> assemble

In: a recipe. Out: ``RUN/templates``, ``RUN/matches``, ``RUN/pairs``, ``RUN/rejected``, ``RUN/diagnostics.json``.
`phases` says what a unit of each phase does, `staleness` what makes a phase stale; here is the order in which the
phases run.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fineinstructions import phases as work
from fineinstructions.artefacts import made_with
from fineinstructions.config import to_plain
from fineinstructions.diagnostics import write_diagnostics
from fineinstructions.documents import REPEATED_FILE, document_units, documents_reader
from fineinstructions.endpoints import asked_models, asking, batch_round, record_endpoints, runs_here, served_names
from fineinstructions.engines.engine import open_engine
from fineinstructions.engines.tally import Progress as EngineProgress
from fineinstructions.engines.tally import SetAside
from fineinstructions.engines.worker import Job
from fineinstructions.errors import ConfigError
from fineinstructions.input_changes import InputChanges
from fineinstructions.models import Models, build_models
from fineinstructions.progress import Progress, Silent
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import Match, Pair, Rejection, Template
from fineinstructions.review import lineage
from fineinstructions.review.card import write_card
from fineinstructions.review.lineage import Lineage
from fineinstructions.runs import Finding, Phase, RunFolder, StageFigures, Unit, funnel
from fineinstructions.runs import verify as verify_folder
from fineinstructions.runs.places import fresh_look, gone_unless_begun, open_run, run_root
from fineinstructions.runs.plan import describe_parquet, plan_units
from fineinstructions.runs.specs import UnitSpec, num_rows, single_unit
from fineinstructions.runs.verify import DocumentReader
from fineinstructions.sense import check_sense
from fineinstructions.serving import prepare_serving, require_engines, serving
from fineinstructions.setup import Setup, open_setup
from fineinstructions.silver import rows as silver
from fineinstructions.staleness import bank_phases, links_between, pair_phases

__all__ = ["RunConfig", "RunResult", "build_templates", "explain", "run", "verify"]

Work = Callable[[Unit, Any, Setup], None]
Build = Callable[[Setup], Models]

PROGRAM = (sys.executable, "-m", "fineinstructions.cli")

PUBLISHED = {"templates": "merge", "matches": "matches", "pairs": "select"}
"""Figure that equals the number of rows of every published table."""


@dataclass
class RunResult:
    """What a run made, and where it lies."""

    folder: RunFolder
    set_aside: list[SetAside] = field(default_factory=list)
    """Units that were given up; all of their rows are counted as failed."""
    num_units_done: int = 0
    """Units that this call did; 0 when there was nothing left to do."""

    @property
    def path(self) -> Path:
        """The run folder; of a run on a store the working folder."""
        return self.folder.root

    def pairs(self) -> Iterator[Pair]:
        """Kept pairs, in plan order."""
        return self.folder.published_records("pairs", Pair)

    def templates(self) -> Iterator[Template]:
        """The template bank."""
        return self.folder.published_records("templates", Template)

    def rejections(self) -> Iterator[Rejection]:
        """Everything that was turned away, with its reason."""
        return self.folder.published_records("rejected", Rejection)

    def funnel(self) -> list[StageFigures]:
        """Accounts of all stages, in flow order."""
        return funnel(self.folder)


def run(
    recipe: RunConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    redo: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    work: str | Path | None = None,
) -> RunResult:
    """Make judged pairs; continue where an earlier call stopped.

    Args:
        recipe: Path of a YAML recipe, a mapping, or a config.
        out: Run folder, or URL (``s3://``, ``gs://``, ``hf://``) under which the run is kept.
        overrides: ``a.b=value`` strings.
        redo: Whether results that a changed recipe made stale may be dropped and made again.
        retry_failed: Whether units that were set aside, or lost single records to an engine, are tried again.
        progress: Told what goes on; by default nobody.
        work: Folder of working folders of runs on a store; by default one in the user's cache directory.

    Returns:
        The finished run.

    Raises:
        ConfigError: If the recipe or an input is wrong, or the folder holds results of another recipe.
        BackendError: If an engine failed for good; what is committed stays. Of its kind `PendingError`, where the
            requests stand in batch files and wait for their answers.
        HandedOverError: If the run is detached, and jobs of a cluster go on with it.
        DataError: If a committed unit turns out to be damaged.
    """
    config = as_config(recipe, overrides)
    if config.documents is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    driver = Driver(config, run_root(out, work), redo, retry_failed, progress or Silent())
    with gone_unless_begun(driver.folder.root) as is_ours, driver.lease, driver.engine:
        is_ours()
        units = driver.document_units()
        driver.make_bank()
        driver.make_pairs(units)
        write_card(driver.folder, made_with(config, served_names(driver.setup)))
    return driver.result


def build_templates(
    recipe: RunConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    redo: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    work: str | Path | None = None,
) -> RunResult:
    """Make a template bank from queries: the first half of `run`, for use by other runs.

    Args, returns and errors are those of `run`; ``documents`` in the recipe is not looked at.
    """
    config = as_config(recipe, overrides)
    driver = Driver(config, run_root(out, work), redo, retry_failed, progress or Silent(), bank_only=True)
    with gone_unless_begun(driver.folder.root) as is_ours, driver.lease, driver.engine:
        is_ours()
        driver.make_bank()
        driver.publish_bank_rejections()
    return driver.result


def verify(path: str | Path, work: str | Path | None = None) -> list[Finding]:
    """Check a finished run: completeness between and inside stages, digests, and every excerpt against its document.

    Args:
        path: Run folder, or URL of a run on a store, all of which is read from there again.
        work: Folder of working folders of runs on a store.

    Returns:
        What is wrong; empty for a clean run.

    Raises:
        ConfigError: If there is no run in the folder, or an input file is gone.
    """
    with fresh_look(path, work) as root:
        return _verify(RunFolder.open(root))


def _verify(folder: RunFolder) -> list[Finding]:
    has_pairs = any(phase.name == "pairs" for phase in folder.phases)
    names = {phase.name for phase in folder.phases}
    links = links_between(folder.phases)
    published = {n: f for n, f in PUBLISHED.items() if has_pairs or n == "templates"}
    if "genericize" not in names:
        published["templates"] = "banked"
    documents = _reader(folder) if has_pairs else None
    has_silver = names.issuperset(silver.PHASES)
    links += silver.LINKS if has_silver else ()
    published |= silver.PUBLISHED if has_silver else {}
    apart = (silver.REJECTED, silver.PHASES) if has_silver else ("", ())
    return verify_folder(
        folder, links=links, published=published, documents=documents, document_phase="candidates", apart=apart
    )


def explain(path: str | Path, pair_id: str, work: str | Path | None = None) -> Lineage:
    """Where a kept pair comes from.

    Args:
        path: Run folder, or URL of a run on a store.
        pair_id: Id of the pair.
        work: Folder of working folders of runs on a store.

    Raises:
        ConfigError: If there is no such run or pair, or an input file is gone.
    """
    folder = open_run(path, work)
    return lineage.explain(folder, pair_id, _reader(folder))


def _reader(folder: RunFolder) -> DocumentReader:
    """Reads the documents of a unit, as the run's own recipe says."""
    read = documents_reader(open_setup(folder.root))
    return lambda spec: (d for d in read(spec) if not isinstance(d, Rejection))


class Driver:
    """One call of `run` or `build_templates`: the phases in order, each planned, done and merged."""

    VERB: tuple[str, ...] = ("run",)
    """What the command line calls it."""

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        redo: bool,
        retry_failed: bool,
        progress: Progress,
        *,
        bank_only: bool = False,
    ) -> None:
        self._config, self._retry_failed, self._progress = config, retry_failed, progress
        self.setup = Setup(config, out)
        check_sense(config, out)
        prepare_serving(config)
        models = build_models(self.setup)  # only asked which they are, so nothing is opened that must be closed
        phases = bank_phases(config, models) if bank_only else self.phases(models)
        self._inputs = InputChanges(config, out)
        with self._inputs.named():
            self.folder = RunFolder.create_or_open(out, to_plain(config), phases, redo=redo)
        self.lease = self.folder.lease(progress.note, config.output.lease_seconds)
        self.result = RunResult(self.folder)
        flags = [flag for flag, is_set in (("--redo", redo), ("--retry-failed", retry_failed)) if is_set]
        verb = ("templates", "build") if bank_only else self.VERB
        self.engine = open_engine(
            self.folder,
            config.engine,
            config.engine.resources.values(),
            progress.note,
            models.import_modules,
            again=[*PROGRAM, *verb, *map(str, (self.folder.recipe_file.absolute(), "--out", out.absolute())), *flags],
        )
        if config.encoder.engine == "endpoint" and not bank_only:
            progress.note(
                "encoder: a server gives one vector for a whole document, so there are no coverage chunks in this run; "
                "every match is one of the whole document (chunk -1)"
            )

    def phases(self, models: Models) -> list[Phase]:
        """All phases, in flow order."""
        return [*bank_phases(self._config, models), *pair_phases(self._config, models)]

    def document_units(self) -> Sequence[UnitSpec]:
        """Row ranges of the documents.

        Found before anything else, so that a file that cannot be read is told before the queries have cost anything.
        """
        self._progress.start("input", 1, int((self.setup.input_dir / REPEATED_FILE).exists()))
        units = document_units(self.setup)
        self._progress.advance("input", num_rows(units))
        self._progress.finish("input")
        return units

    def make_bank(self) -> None:
        """Queries or a bank to the template index."""
        if self._config.templates.is_ready_made:
            self._do("templates", work.take_bank, [single_unit()])
        else:
            self._do("queries", work.read_and_clean, [single_unit()])
            self._do("genericize", work.make_templates, self._query_units())
            self._do("templates", work.merge_templates, [single_unit()])
        self._publish("templates", Template, self.folder.tables("templates", Template), "index")
        self._require_templates()
        self._do("index", work.index_templates, [single_unit()])

    def make_pairs(self, units: Sequence[UnitSpec]) -> None:
        """Documents and the template index to judged pairs."""
        self._do("candidates", work.find_candidates, units)
        self._do("popularity", work.count_popularity, [single_unit()])
        self._do("matches", work.find_matches, units)
        self._do("pairs", work.make_pairs, units)
        self._do("assemble", work.select_pairs, [single_unit()])
        self._publish("matches", Match, self.folder.tables("matches", Match), "assemble")
        self._publish("pairs", Pair, self.folder.tables("assemble", Pair), "assemble")
        self._publish("rejected", Rejection, self._rejections(), "assemble")
        write_diagnostics(self.folder, self.setup)

    def publish_bank_rejections(self) -> None:
        """Tell why queries gave no template, unless a whole run in the same folder has told more."""
        told = self.folder.published("rejected")
        if told is None or told.phase == "index":
            self._publish("rejected", Rejection, self._rejections(), "index")

    def _rejections(self) -> Iterator[pa.Table]:
        """What the phases of the bank and the pairs turned away; the phases behind them have a table of their own."""
        names = (phase.name for phase in self.folder.phases)
        return self.folder.rejected_tables(*(name for name in names if name not in silver.PHASES))

    def _require_templates(self) -> None:
        """Refuse to go on without a single template, saying where they were lost."""
        made = self.folder.published("templates")
        if made is not None and made.counts["rows"]:
            return
        if self._config.templates.is_ready_made:
            bank = self._config.templates.index or self._config.templates.bank
            accounts = [f.account for f in self.result.funnel() if f.stage == "templates"]
            why = ", ".join(f"{reason} {n:,}" for account in accounts for reason, n in account.rejected.items())
            raise ConfigError(f"{bank}: holds no usable template ({why or 'no rows'}); make the bank again")
        lost = [
            f"{f.stage} turned away {f.account.num_turned_away:,} of {f.account.num_in:,}" for f in self.result.funnel()
        ]
        shared = any("frame_not_shared" in f.account.rejected for f in self.result.funnel())
        remedy = "give more queries, or set merge.min_queries to 1" if shared else "give more or other queries"
        raise ConfigError(f"no query became a template ({', '.join(lost)}); {remedy}")

    def _publish(self, name: str, record_type: type[Any], tables: Iterator[pa.Table], phase: str) -> None:
        """Write a merged table, unless it stands there as the units of the phase's upstream phases make it."""
        if not self.folder.is_published(name, phase):
            self.folder.publish(name, record_type, tables, phase=phase, **self._parts())

    def _parts(self) -> dict[str, Any]:
        return {
            "rows_per_part": self._config.output.rows_per_part,
            "bytes_per_part": self._config.output.bytes_per_part,
        }

    def _do(self, phase: str, function: Work, specs: Sequence[UnitSpec], build: Build = build_models) -> None:
        """Do what is left of a phase."""
        with self._inputs.named():
            todo = self.folder.todo(phase, specs, retry_failed=self._retry_failed)
        self._inputs.note(phase)
        if todo:
            require_engines(self._config, [p.name for p in self.folder.phases], phase)
        self._progress.start(phase, len(specs), len(specs) - len(todo))
        told = 0

        def tell(state: EngineProgress) -> None:
            nonlocal told
            self._progress.advance(phase, state.num_rows_done - told)
            told = state.num_rows_done

        note, stages = self._progress.note, asking(self._config, phase) if todo else ()
        with serving(self.setup, phase, stages, note, publish=True) as setup:
            record_endpoints(setup, stages, note)
            with batch_round(setup, phase, note, retry_failed=self._retry_failed):
                outcome = self.engine.run_units(self._job(setup, phase, function, build), todo, tell)
        self._progress.finish(phase)
        self.result.num_units_done += outcome.num_done
        self.result.set_aside += outcome.set_aside

    def _job(self, setup: Setup, phase: str, function: Work, build: Build) -> Job[Models, Setup]:
        asks_a_server, resources = _asks_a_server(self._config, phase), self._config.resources_of(phase)
        return Job(
            self.folder,
            phase,
            function,
            build_searching if asks_a_server and phase == "candidates" else build,
            config=setup,
            open_units=self._config.engine.open_units if asks_a_server else 1,
            resources=resources,
            could_use_gpu=self._config.could_use_gpu(phase),
            max_local_workers=1 if runs_here(self._config, phase) and not resources.gpus else None,
            other_gpus=setup.served_gpus,
            asks_servers=asks_a_server or self._config.encoder.engine == "endpoint",
            reopen=open_setup,
        )

    def _query_units(self) -> Sequence[UnitSpec]:
        """Row ranges of the cleaned queries."""
        path = self.folder.fetched("queries", single_unit()) / "query.parquet"
        return plan_units([describe_parquet(path)], self._config.engine.unit_bytes, self._config.engine.query_unit_rows)


def _asks_a_server(config: RunConfig, phase: str) -> bool:
    if phase == "candidates":
        return config.encoder.engine == "endpoint"
    return bool(asked_models(config, phase))


def build_searching(setup: Setup) -> Models:
    """The models of a worker that searches in several threads: what is made on demand is made before there are any."""
    models = build_models(setup)
    models.retrieve  # noqa: B018 -- two encoders would be two request windows
    models.gate  # noqa: B018
    models.encoder  # noqa: B018
    models.index.vectors.vectors(np.zeros(1, np.int64))  # finds out where rows lie
    return models
