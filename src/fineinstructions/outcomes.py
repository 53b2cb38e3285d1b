"""What became of every template that was to be filled: read from finished runs and from outputs of `rows`.

In: run folders, or files of `RowOutcome`. Out: `Attempt`s, which `review.yields` adds up; and a bank without the
templates that never work. Nothing is computed again but the lengths of documents, which are read from the input.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fineinstructions.backends.llm import with_overrides
from fineinstructions.backends.tokens import estimated_tokens
from fineinstructions.config import from_mapping
from fineinstructions.documents import documents_reader
from fineinstructions.errors import ConfigError
from fineinstructions.pairs.judge import too_low_score
from fineinstructions.parquet import open_parquet
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Document, Pair, Rejection, RowOutcome, Template, schema_of
from fineinstructions.review.yields import Attempt, Figures, ModelNames, by_template, never_working
from fineinstructions.runs import RunFolder, TableWriter, UnitSpec
from fineinstructions.runs.durable import TEMPORARY_PREFIX, replace_folder
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.places import open_run
from fineinstructions.runs.tables import tables_of, write_parts
from fineinstructions.setup import Setup
from fineinstructions.stores import is_url
from fineinstructions.templates.index import TemplateIndex, open_index

PRUNED_FILE = "pruned.parquet"
FROM_A_BANK = "bank"
"""Name for the genericizer of a bank that does not tell what made it."""


def attempts_of(paths: Iterable[str | Path], work: str | Path | None = None) -> Iterator[Attempt]:
    """Attempts of runs and of outputs of ``fineinstructions instantiate``, one after the other.

    Args:
        paths: Folders or URLs of finished runs, or Parquet files.
        work: Folder of working folders of runs on a store.

    Raises:
        ConfigError: If one is neither, or an input file of a run is gone.
    """
    for path in paths:
        is_run = is_url(path) or Path(path).is_dir()
        yield from attempts_of_run(path, work) if is_run else _attempts_of_rows(Path(path))


def attempts_of_run(path: str | Path, work: str | Path | None = None) -> Iterator[Attempt]:
    """Attempts of one run, in plan order; arguments as `attempts_of`.

    Raises:
        ConfigError: If there is no run, it has not come to its pairs, or an input file is gone.
    """
    run = open_run(path, work)
    specs = run.planned("pairs")
    if specs is None:
        raise ConfigError(f"{path}: has no pairs yet; finish it first with 'fineinstructions run'")
    setup = Setup(from_mapping(run.config, RunConfig, where=str(run.recipe_file)), run.root)
    index = open_index(setup.index_dir, verify=False)
    slots = lru_cache(maxsize=1 << 16)(lambda template_id: _num_slots(index, template_id))
    models, read = _models_of(setup.config), documents_reader(setup)
    for spec in specs:
        if run.manifest("pairs", spec) is None:
            raise ConfigError(f"{path}: not all pairs are made yet; finish it first with 'fineinstructions run'")
        yield from _attempts_of_unit(run, spec, read(spec), setup, models, slots)


def _num_slots(index: TemplateIndex, template_id: str) -> int:
    return index.template(template_id).num_slots


def _attempts_of_unit(
    run: RunFolder,
    spec: UnitSpec,
    documents: Iterable[Document | Rejection],
    setup: Setup,
    models: ModelNames,
    slots: Callable[[str], int],
) -> Iterator[Attempt]:
    lengths = _Lengths({d.document_id: len(d.text) for d in documents if not isinstance(d, Rejection)})
    for pair in run.unit_records("pairs", spec, Pair):
        too_low = too_low_score(pair, setup.config.judge)
        yield Attempt(
            template_id=pair.template_id,
            num_slots=slots(pair.template_id),
            document_chars=lengths[pair.document_id],
            reason=f"select: {too_low[0]}" if too_low else "",
            excerpt_ratio=pair.excerpt_ratio,
            judge_score=pair.judge_score,
            generated_tokens=pair.generated_tokens,
            answer_tokens=estimated_tokens(pair.answer),
            models=models,
        )
    for lost in run.unit_rejections("pairs", spec):
        record = json.loads(lost.record)
        if "template_id" not in record:
            continue  # a row of a unit that was set aside as a whole: an engine's failure, told by `status`
        ratio = record.get("excerpt_ratio")
        yield Attempt(
            template_id=record["template_id"],
            num_slots=slots(record["template_id"]),
            document_chars=lengths[record["document_id"]],
            reason=f"{lost.stage}: {lost.reason}",
            failed=lost.failed,
            excerpt_ratio=ratio,
            generated_tokens=record.get("generated_tokens", 0),
            answer_tokens=estimated_tokens(record["answer"]) if ratio is not None else 0,
            models=models,
        )


class _Lengths(dict[str, int]):
    """Characters of documents, by id."""

    def __missing__(self, document_id: str) -> int:
        raise ConfigError(f"document {document_id!r} is no longer in the input file of the run; put the file back")


def _models_of(config: RunConfig) -> ModelNames:
    """Names of the models of a run's stages."""
    genericizer = _model_name(config, "genericize")
    if config.templates.is_ready_made:
        bank = Layout(Path(config.templates.bank or "."))
        is_run = config.templates.bank is not None and bank.state_file.exists()
        made_with = from_mapping(bank.recipe(), RunConfig) if is_run else None
        genericizer = _model_name(made_with, "genericize") if made_with else FROM_A_BANK
    return ModelNames(genericizer, _model_name(config, "instantiate"), _model_name(config, "judge"))


def _model_name(config: RunConfig, stage: str) -> str:
    settings = getattr(config, stage)
    return str(with_overrides(config.llm, settings.llm).model) if settings.model == "openai" else str(settings.model)


def _attempts_of_rows(path: Path) -> Iterator[Attempt]:
    """Attempts of an output of ``fineinstructions instantiate``: the rows that had a template."""
    with open_parquet(path, str(path)) as file:
        missing = set(schema_of(RowOutcome).names) - set(file.schema_arrow.names)
        if missing:
            raise ConfigError(
                f"{path}: no output of 'fineinstructions instantiate' (no column {sorted(missing)[0]!r}); "
                "give one, or a run folder"
            )
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                if row["num_slots"] is not None:
                    yield _attempt_of_row(row)


def _attempt_of_row(row: dict[str, Any]) -> Attempt:
    names = {role: _told_name(model) for role, model in json.loads(row["models"]).items()}
    return Attempt(
        template_id=row["template"],
        num_slots=row["num_slots"],
        document_chars=row["document_chars"],
        models=ModelNames(*(names.get(role, "given") for role in ("genericizer", "instantiator", "judge"))),
        reason=f"{row['rejected_stage']}: {row['reason']}" if row["rejected_stage"] else "",
        failed=row["failed"],
        excerpt_ratio=row["excerpt_ratio"],
        judge_score=row["judge_score"],
        generated_tokens=row["generated_tokens"] or 0,
        answer_tokens=row["answer_tokens"] or 0,
    )


def _told_name(model: dict[str, Any]) -> str:
    return str(model["model"]) if "model" in model else "embedded"


@dataclass(frozen=True, slots=True)
class PrunedTemplate:
    """A template that was taken out of a bank, and why."""

    template_id: str
    template: str
    compatible_document_description: str
    num_slots: int
    num_tries: int
    num_kept: int
    reasons: str
    """Rejections by ``stage: reason``, as a JSON object."""


@dataclass(frozen=True)
class Pruning:
    """What `prune` did."""

    num_templates: int
    """Templates of the runs."""
    num_tried: int
    """Those that were tried often enough to say something."""
    pruned: tuple[PrunedTemplate, ...]
    """Most tried first."""


def prune(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    min_tries: int = 10,
    max_yield: float = 0.0,
    work: str | Path | None = None,
) -> Pruning:
    """Write a bank without the templates that (nearly) never become a pair.

    Args:
        runs: Finished runs; what they say of a template is added up.
        out: Folder of the bank: ``templates/`` with all that stay, ``pruned.parquet`` with those that go.
        min_tries: Fewest tries that say something about a template; one that was tried less stays.
        max_yield: Largest share of tries that became pairs.
        work: Folder of working folders of runs on a store.

    Raises:
        ConfigError: If `out` exists, a run is not finished, or two runs mean different templates by one id.
    """
    target = Path(out)
    if target.exists():
        raise ConfigError(f"{target}: exists already; choose another --out")
    figures = by_template(attempt for run in runs for attempt in attempts_of_run(run, work))
    going = {template_id: figures[template_id] for template_id in never_working(figures, min_tries, max_yield)}
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "templates").mkdir(parents=True)
    gone: dict[str, PrunedTemplate] = {}
    counted: Counter[str] = Counter()

    def staying() -> Iterator[Template]:
        for template in _templates_of(runs, work):
            counted["templates"] += 1
            if template.template_id in going:
                gone[template.template_id] = _pruned(template, going[template.template_id])
            else:
                yield template

    write_parts(temporary / "templates", tables_of(staying(), Template), Template, 1_000_000, 512 << 20)
    writer = TableWriter(temporary / PRUNED_FILE, PrunedTemplate)
    ordered = tuple(gone[template_id] for template_id in going)
    for template in ordered:
        writer.add(template)
    writer.close()
    replace_folder(temporary, target)
    tried = sum(found.num_tries >= min_tries for found in figures.values())
    return Pruning(counted["templates"], tried, ordered)


def _templates_of(runs: Sequence[str | Path], work: str | Path | None) -> Iterator[Template]:
    """Templates of all runs, each id once."""
    seen: dict[str, str] = {}
    for path in runs:
        for template in open_run(path, work).published_records("templates", Template):
            if template.template_id not in seen:
                if len(runs) > 1:
                    seen[template.template_id] = template.template
                yield template
            elif seen[template.template_id] != template.template:
                raise ConfigError(
                    f"{path}: template {template.template_id!r} is another one than in the runs before it; "
                    "prune runs of one bank together"
                )


def _pruned(template: Template, figures: Figures) -> PrunedTemplate:
    return PrunedTemplate(
        template.template_id,
        template.template,
        template.compatible_document_description,
        template.num_slots,
        figures.num_tries,
        figures.num_kept,
        json.dumps(dict(figures.reasons.most_common())),
    )
