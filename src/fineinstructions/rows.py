"""Side hallway: labelled rows through single stages, without retrieval; one output row per input row, in order.

In: a Parquet file of documents, each with a query or a template. Out: a Parquet file of `RowOutcome`. The stages are
the ordinary operators: genericize (where a query is given), instantiate, expand, judge, and the threshold.

The decision a reader would question: the rows are worked off as a run with one phase, in a folder beside the output
that vanishes with success. So they are cut into units, spread over processes and continued after a kill like any run.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from fineinstructions import __version__
from fineinstructions.backends.tokens import estimated_tokens
from fineinstructions.config import digest, to_plain
from fineinstructions.endpoints import ENDPOINTS_FILE, asked_models, record_endpoints, require_answers_now, runs_here
from fineinstructions.engines.engine import open_engine
from fineinstructions.engines.tally import Progress as EngineProgress
from fineinstructions.engines.tally import SetAside
from fineinstructions.engines.worker import Job
from fineinstructions.errors import ConfigError
from fineinstructions.given_rows import STAGE, GivenRow, find_columns, lone_template, read_given_rows, require_rows
from fineinstructions.markup import slot_names
from fineinstructions.models import Models, build_models
from fineinstructions.pairs.excerpts import expand
from fineinstructions.pairs.instantiate import Request, instantiate
from fineinstructions.pairs.judge import judge, select
from fineinstructions.parquet import open_parquet
from fineinstructions.progress import Progress, Silent
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import (
    GLOBAL_CHUNK,
    Excerpt,
    Match,
    Query,
    Rejection,
    RowOutcome,
    TemplateDraft,
    as_dict,
    failure,
    schema_of,
    to_json,
    to_table,
)
from fineinstructions.runs import Phase, RunFolder, Unit, UnitSpec, describe_parquet, plan_units
from fineinstructions.runs.durable import TEMPORARY_PREFIX, make_room_for, sync_file, write_text
from fineinstructions.sense import check_sense
from fineinstructions.serving import serving
from fineinstructions.setup import Setup, open_setup
from fineinstructions.staleness import without
from fineinstructions.templates.genericize import genericize

R = TypeVar("R")
Out = TypeVar("Out")

PHASES = ("genericize", "pairs")
"""Phases of a run that have the stages of this one."""
STAGES = ("genericize", "instantiate", "judge")
"""Stages that may ask a model, the first only about rows with a query."""
COLUMNS_FILE = "columns.json"
MARK = b"fineinstructions"
"""Metadata of an output: what made it; beside it, under ``fineinstructions.endpoints``, what its models can do."""


@dataclass
class RowsResult:
    """What became of the rows."""

    path: Path
    num_rows: int = 0
    num_failed: int = 0
    """Rows that an engine failed on; the same command tries those again."""
    set_aside: list[SetAside] = field(default_factory=list)


def instantiate_rows(
    rows: str | Path,
    out: str | Path,
    recipe: RunConfig | dict[str, Any] | str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    redo: bool = False,
    progress: Progress | None = None,
) -> RowsResult:
    """Genericize, instantiate, expand and judge given rows; continue where an earlier call was stopped.

    Args:
        rows: Parquet file; `given_rows.COLUMNS` says which columns it has to have. Ids may repeat.
        out: Parquet file of `RowOutcome` rows, as many as there are input rows and in their order; appears when it is
            complete.
        recipe: Settings and models of the stages; the embedded tier by default.
        overrides: ``a.b=value`` strings.
        columns: Role of a column (`given_rows.COLUMNS`) to its name, where it is not one of the known ones.
        redo: Whether an output that other settings or rows have made may be made again.
        progress: Told what goes on; by default nobody.

    Raises:
        ConfigError: If the rows, the recipe or the place of the output is wrong, or other settings made what is there.
        BackendError: If an engine failed for good; what is done stays for the next call.
    """
    config = as_config(recipe if recipe is not None else {}, overrides)
    source, target, told = Path(rows), Path(out), progress or Silent()
    if target.is_dir() or target.resolve() == source.resolve():
        raise ConfigError(f"{target}: must be a file of its own; choose another --out")
    require_rows(source)
    with open_parquet(source, str(source)) as file:
        found = find_columns(file.schema_arrow, str(source), columns or {})
        id_type = file.schema_arrow.field(str(found["id"])).type
    make_room_for(target)
    asking = STAGES if found["query"] else STAGES[1:]
    work_dir = target.with_name(f"{target.name}.work")
    check_sense(config, work_dir)
    require_answers_now(config)
    setup = Setup(config, work_dir)
    phase, rows_given = _phase(setup), describe_parquet(source.absolute())
    mark = digest(phase.digest, rows_given.fingerprint, found)
    if _is_made(target, mark, redo) and not work_dir.exists():
        return _made(target)
    run = RunFolder.create_or_open(work_dir, to_plain(config), [phase], redo=redo)
    with run.lease():
        write_text(work_dir / COLUMNS_FILE, json.dumps(columns or {}) + "\n")
        specs = plan_units([rows_given], config.engine.unit_bytes, config.engine.unit_rows)
        outcome = _do(run, setup, specs, asking, told)
        result = _gather(run, specs, id_type, target, mark)
    result.set_aside = outcome
    if not result.num_failed:
        shutil.rmtree(work_dir)
    return result


def _phase(setup: Setup) -> Phase:
    """The one phase, with what decides its bytes."""
    config = setup.config
    stages = [without(section, "llm") for section in (config.genericize, config.instantiate, config.judge)]
    decides = [*stages, config.excerpts, _model_names(build_models(setup))]
    return Phase(STAGE, digest(__version__, *decides), entry=STAGE)


def _model_names(models: Models) -> dict[str, str]:
    """Models of the three stages, each a JSON object."""
    return {
        "genericizer": models.genericizer_name,
        "instantiator": models.instantiator_name,
        "judge": models.judge_name,
    }


def _do(
    run: RunFolder, setup: Setup, specs: Sequence[UnitSpec], asking: Sequence[str], progress: Progress
) -> list[SetAside]:
    """Do what is left of the rows, while the models of the stages that ask are served."""
    todo = run.todo(STAGE, specs, retry_failed=True)
    asking = asking if todo else ()
    with serving(setup, STAGE, asking, progress.note, publish=True) as served:
        record_endpoints(served, asking, progress.note)
        return _do_units(run, served, len(specs), todo, progress)


def _do_units(
    run: RunFolder, setup: Setup, num_units: int, todo: Sequence[UnitSpec], progress: Progress
) -> list[SetAside]:
    engine = setup.config.engine
    progress.start(STAGE, num_units, num_units - len(todo))
    told = 0

    def tell(state: EngineProgress) -> None:
        nonlocal told
        progress.advance(STAGE, state.num_rows_done - told)
        told = state.num_rows_done

    job = Job(
        run,
        STAGE,
        work_off,
        build_models,
        config=setup,
        open_units=engine.open_units if asked_models(setup.config, *PHASES) else 1,
        max_local_workers=1 if any(runs_here(setup.config, phase) for phase in PHASES) else None,
        asks_servers=bool(asked_models(setup.config, *PHASES)),
        reopen=open_setup,
    )
    few = engine.kind == "local" and len(todo) <= 1
    launch = engine.model_copy(update={"workers": 0}) if few else engine
    with open_engine(run, launch, [], progress.note) as place:
        outcome = place.run_units(job, todo, tell)
    progress.finish(STAGE)
    return outcome.set_aside


def work_off(unit: Unit, models: Models, setup: Setup) -> None:
    """What a unit does: its rows through the stages, one outcome for each."""
    config = setup.config
    rows = read_given_rows(unit.spec, _named_columns(setup.root))
    rows = _through(
        rows,
        lambda queries: genericize(queries, models.genericizer, config.genericize),
        lambda row: None if row.template else Query(row.document.document_id, row.query),
        _take_template,
    )
    rows = _through(rows, lambda r: instantiate(r, models.instantiator), _request, lambda row, d: _set(row, draft=d))
    rows = _through(
        rows,
        lambda drafts: expand(drafts, config.excerpts),
        lambda row: (row.draft, row.document) if row.draft else None,
        lambda row, expanded: _set(row, expanded=expanded),
    )
    rows = _through(
        rows,
        lambda expanded: judge(expanded, models.judge),
        lambda row: (row.expanded, row.template, row.document) if row.expanded and row.template else None,
        lambda row, pair: _set(row, pair=pair),
    )
    rows = _through(rows, lambda p: select(p, config.judge, surplus=()), lambda row: row.pair, lambda *_: None)
    named = _model_names(models)
    failed: dict[str, list[Rejection]] = {}

    def outcomes() -> Iterator[RowOutcome]:
        for row in rows:
            if row.turned_away is not None and row.turned_away.failed:
                failed.setdefault(row.turned_away.stage, []).append(row.turned_away)
            yield _outcome(row, named)

    unit.write(outcomes(), RowOutcome)
    for stage, lost in failed.items():  # so that the unit is known to be worth another try
        for _ in unit.keep(stage, lost):
            raise AssertionError("only failures were filed")


def _through(
    rows: Iterator[GivenRow],
    operator: Callable[[Iterator[R]], Iterable[Out | Rejection]],
    record_of: Callable[[GivenRow], R | None],
    take: Callable[[GivenRow, Out], None],
) -> Iterator[GivenRow]:
    """The same rows in order, each with what the operator made of it; those turned away before it pass by.

    Args:
        rows: Rows on their way.
        operator: One outcome per record, in order; it may run ahead.
        record_of: The record for a row, ``None`` for a row that skips this operator.
        take: Notes what the operator made.
    """
    entered: deque[tuple[GivenRow, bool]] = deque()

    def entering() -> Iterator[R]:
        for row in rows:
            record = None if row.turned_away else record_of(row)
            entered.append((row, record is not None))
            if record is not None:
                yield record

    for outcome in operator(entering()):
        while not entered[0][1]:
            yield entered.popleft()[0]
        row, _ = entered.popleft()
        if isinstance(outcome, Rejection):
            row.turned_away = outcome
        else:
            take(row, outcome)
        yield row
    yield from (row for row, _ in entered)


def _set(row: GivenRow, **made: Any) -> None:
    for name, value in made.items():
        setattr(row, name, value)


def _take_template(row: GivenRow, draft: TemplateDraft) -> None:
    row.template = lone_template(draft.template, draft.compatible_document_description, len(slot_names(draft.template)))


def _request(row: GivenRow) -> Request | None:
    if row.template is None:
        return None
    match = Match(row.document.document_id, row.template.template_id, GLOBAL_CHUNK, 1.0, sampled=True)
    return Request(match, row.template, row.document, (0, len(row.document.text)))


def _outcome(row: GivenRow, models: dict[str, str]) -> RowOutcome:
    """What is written for a row."""
    why = row.turned_away
    record = json.loads(why.record) if why is not None and why.stage in ("instantiate", "excerpts") else {}
    last: dict[str, Any] = as_dict(row.pair or row.expanded) if row.pair or row.expanded else record
    draft = row.draft or row.expanded
    found = tuple(Excerpt(**e) for e in last.get("excerpts", ()))
    answer = last.get("answer")
    is_expanded = "excerpt_ratio" in last
    template = row.template
    return RowOutcome(
        id=None if row.row_id is None else str(row.row_id),
        instruction=last.get("instruction"),
        answer=answer if why is None else None,
        excerpts=found,
        excerpt_ratio=last.get("excerpt_ratio"),
        judge_score=row.pair.judge_score if row.pair else None,
        rejected_stage=why.stage if why else None,
        reason=why.reason if why else None,
        draft=(answer or last.get("raw") or None) if why else None,
        judge_feedback=row.pair.judge_feedback if row.pair else None,
        template=template.template if template else None,
        num_slots=template.num_slots if template else None,
        document_chars=len(row.document.text),
        generated_tokens=draft.generated_tokens if draft else last.get("generated_tokens"),
        answer_tokens=estimated_tokens(answer) if answer and is_expanded else None,
        models=to_json(
            {role: json.loads(model) for role, model in models.items() if role != "genericizer" or row.query}
        ),
        failed=bool(why and why.failed),
    )


def _named_columns(work_dir: Path) -> dict[str, str]:
    """Columns that the user has chosen, as workers of any engine read them."""
    file = work_dir / COLUMNS_FILE
    named: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return named


def _is_made(target: Path, mark: str, redo: bool) -> bool:
    """Whether the output is there, made of the same rows with the same settings.

    Raises:
        ConfigError: If something else lies there, or other settings have made it and nobody said ``redo``.
    """
    if not target.exists():
        return False
    with open_parquet(target, str(target)) as file:
        made_with = (file.schema_arrow.metadata or {}).get(MARK, b"").decode(errors="replace")
    if not made_with:
        raise ConfigError(f"{target}: is no output of `instantiate`; choose another --out, or remove it")
    if made_with != mark and not redo:
        raise ConfigError(
            f"{target}: was made of other rows or with other settings; choose another --out, or say --redo"
        )
    return bool(made_with == mark)


def _made(target: Path) -> RowsResult:
    """The result that an earlier call has written."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    failed = pq.read_table(target, columns=["failed"])["failed"]
    return RowsResult(target, len(failed), pc.sum(failed).as_py() or 0)


def _gather(run: RunFolder, specs: Sequence[UnitSpec], id_type: pa.DataType, target: Path, mark: str) -> RowsResult:
    """Write the outcomes of all units into one file, which appears when it is whole."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = schema_of(RowOutcome)
    if pa.types.is_integer(id_type):
        schema = schema.set(0, pa.field("id", id_type))
    schema = schema.with_metadata({MARK: mark, **_endpoints(run.root)})
    result = RowsResult(target)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in (table for spec in specs for table in _outcomes(run, spec)):
                writer.write_table(table.cast(schema))
                result.num_rows += table.num_rows
                result.num_failed += pc.sum(table["failed"]).as_py() or 0
        sync_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return result


def _endpoints(work_dir: Path) -> dict[bytes, bytes]:
    """What the models can do, for the output's metadata: the folder vanishes; no address, as everywhere in lineage."""
    file = work_dir / ENDPOINTS_FILE
    if not file.exists():
        return {}
    known = {s: {k: v for k, v in e.items() if k != "addresses"} for s, e in json.loads(file.read_bytes()).items()}
    return {MARK + b".endpoints": json.dumps(known, ensure_ascii=False, sort_keys=True).encode()}


def _outcomes(run: RunFolder, spec: UnitSpec) -> Iterator[pa.Table]:
    """Outcomes of a unit; of one that was set aside, its rows as failed ones."""
    manifest = run.manifest(STAGE, spec)
    if manifest is None or not manifest.set_aside:
        yield from run.unit_groups(STAGE, spec, "row_outcome")
        return
    for row in read_given_rows(spec, _named_columns(run.root)):
        row.turned_away = row.turned_away or failure(STAGE, manifest.set_aside, str(row.number), {"row": row.number})
        yield to_table([_outcome(row, {})], RowOutcome)
