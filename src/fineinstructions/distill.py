"""Side hallway: a teacher does the ordinary work, and what it made becomes training data for its students.

    the phases of `run` -> compatibility -> silver

In: a recipe whose stages ask a teacher. Out: a run folder as `run` makes it, and beside it ``genericizer_train``,
``instantiator_1_train``, ``instantiator_2_train``, ``embedder_train``, each with its ``..._validation``.

The decision a reader would question: the teacher is asked by the ordinary operators with the ordinary prompts, in one
whole run with its judge; there is no second pipeline for silver data, only another end of it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fineinstructions import __version__
from fineinstructions.artefacts import made_with
from fineinstructions.config import digest, to_plain
from fineinstructions.documents import documents_of
from fineinstructions.endpoints import served_names
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkedDocument, chunk, chunk_span
from fineinstructions.matches.retrieve import RetrieveConfig, retrieve
from fineinstructions.models import Models, metered
from fineinstructions.pairs import instantiate as instantiating
from fineinstructions.pairs.compatibility import compatibility
from fineinstructions.pairs.judge import too_low, too_low_score
from fineinstructions.pairs.window import document_window
from fineinstructions.phases import DocumentChunks
from fineinstructions.pipeline import Driver, RunResult
from fineinstructions.progress import Progress, Silent
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import (
    Compatibility,
    Document,
    Match,
    Pair,
    Query,
    Rejection,
    TemplateDraft,
    from_table,
)
from fineinstructions.review.card import write_card
from fineinstructions.runs import Phase, Unit, UnitSpec, read_table, single_unit
from fineinstructions.runs.places import gone_unless_begun, run_root
from fineinstructions.setup import Setup
from fineinstructions.silver import embedder, genericizer, instantiator
from fineinstructions.silver.rows import PHASES, REJECTED, TABLES, TRAIN, VALIDATION, InstantiatorRow
from fineinstructions.staleness import UNITS_TELL, without
from fineinstructions.templates import genericize as genericizing


def distill(
    recipe: RunConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    redo: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    work: str | Path | None = None,
) -> RunResult:
    """Make silver data for the students; continue where an earlier call stopped.

    Args, returns and errors are those of `pipeline.run`.
    """
    config = as_config(recipe, overrides)
    if config.documents is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    driver = _Distilling(config, run_root(out, work), redo, retry_failed, progress or Silent())
    with gone_unless_begun(driver.folder.root) as is_ours, driver.lease, driver.engine:
        is_ours()
        units = driver.document_units()
        driver.make_bank()
        driver.make_pairs(units)
        driver.make_silver(units)
    return driver.result


class _Distilling(Driver):
    """One call of `distill`: the phases of a run, then those that make silver data."""

    VERB = ("distill",)

    def phases(self, models: Models) -> list[Phase]:
        """Phases in flow order."""
        return [*super().phases(models), *silver_phases(self._config, models)]

    def make_silver(self, units: Sequence[UnitSpec]) -> None:
        """Verdicts on near misses, then the rows of every student."""
        if self._config.templates.is_ready_made:
            self._progress.note("distill: the templates were made before, so there are no rows for a genericizer")
        self._do("compatibility", judge_near_misses, units, build_teachers)
        self._do("silver", make_silver, [single_unit()], build_teachers)
        for name, record_type in TABLES.items():
            for split in (TRAIN, VALIDATION):
                rows = self.folder.tables("silver", record_type, f"{name}_{split}")
                self._publish(f"{name}_{split}", record_type, rows, "silver")
        self._publish(REJECTED, Rejection, self.folder.rejected_tables(*PHASES), "silver")
        tables = {name: {split: f"{name}_{split}" for split in (TRAIN, VALIDATION)} for name in TABLES}
        write_card(self.folder, made_with(self._config, served_names(self.setup), with_compatibility=True), tables)


def silver_phases(config: RunConfig, models: Models) -> list[Phase]:
    """Phases that make silver data, each with what decides its bytes."""
    made, documents = to_plain(config.distill), to_plain(config.documents) if config.documents else {}
    mining = {name: made.pop(name) for name in ("candidates_per_vector", "min_cosine")}
    read = {name: value for name, value in documents.items() if name not in UNITS_TELL}
    judge = (without(config.compatibility, "llm", "screen"), models.compatibility.model)
    prompts = [genericizing.published_messages(""), instantiating.published_messages("", "")]
    thresholds = (config.judge.min_score, config.judge.min_expected_score)
    student = (thresholds, config.instantiate.max_document_chars, prompts)
    from_queries = () if config.templates.is_ready_made else ("queries", "genericize")
    return [
        Phase(
            "compatibility",
            digest(__version__, read, config.chunk, config.index.nprobe, mining, *judge),
            upstream=("index", "matches"),
            entry="documents",
        ),
        Phase(
            "silver",
            digest(__version__, made, config.seed, *student),
            upstream=(*from_queries, "index", "candidates", "pairs", "compatibility"),
        ),
    ]


def build_teachers(setup: Setup) -> Models:
    """The models of one worker process, built before there are threads."""
    models = Models(setup)
    models.compatibility  # noqa: B018 -- two clients would be two request windows
    models.encoder  # noqa: B018
    return models


def judge_near_misses(unit: Unit, models: Models, setup: Setup) -> None:
    """compatibility: documents -> the templates nearest to their vectors, and their matches -> verdicts.

    No gate and a low threshold: the encoder is to learn from what it places wrongly. The matches are what a student
    will be asked about.
    """
    config = setup.config
    wanted = RetrieveConfig(min_cosine=config.distill.min_cosine, max_candidates=config.distill.candidates_per_vector)
    chunks = unit.writer(DocumentChunks, "chunks")
    documents: dict[str, tuple[Document, tuple[tuple[int, int], ...]]] = {}

    def noted(chunked: Iterable[ChunkedDocument]) -> Iterator[ChunkedDocument]:
        for item in chunked:
            starts, ends = (tuple(span[side] for span in item.chunk_spans) for side in (0, 1))
            chunks.add(DocumentChunks(item.document.document_id, starts, ends))
            documents[item.document.document_id] = item.document, item.chunk_spans
            yield item

    read = unit.keep("documents", documents_of(unit.spec, setup))
    chunked = unit.through("chunk", read, lambda d: chunk(d, models.encoder, config.chunk))
    mined = unit.through("mine", noted(chunked), lambda c: _under("mine", retrieve(c, models.index, None, wanted)))
    requests = _requests(unit, mined, models, documents)
    verdicts = unit.through(
        "compatibility", requests, lambda r: compatibility(r, metered(models.compatibility, unit, "compatibility"))
    )
    unit.write(verdicts, Compatibility)


def _under(stage: str, items: Iterable[Candidates | Rejection]) -> Iterator[Candidates | Rejection]:
    """The same items, rejections under the name of another stage."""
    for item in items:
        yield replace(item, stage=stage) if isinstance(item, Rejection) else item


def _requests(
    unit: Unit,
    mined: Iterable[Candidates],
    models: Models,
    documents: dict[str, tuple[Document, tuple[tuple[int, int], ...]]],
) -> Iterator[instantiating.Request]:
    """What the judge is asked: every template once per document, by the vector that found it best.

    A document that `mine` turned away for want of a near template still has the matches of the run.
    """
    sampled: dict[str, list[Match]] = defaultdict(list)
    for table in unit.groups("matches", "match"):
        for match in from_table(table.filter(table["sampled"]), Match):
            sampled[match.document_id].append(match)
    for name, near in _with_those_passed_over(mined, documents):
        document, spans = documents.pop(name)
        best: dict[str, Match] = {}
        for match in (*(near.matches(models.index) if near else ()), *sampled[name]):
            known = best.get(match.template_id)
            if known is None or match.cosine > known.cosine:
                best[match.template_id] = match
        unit.count("mined", len(best))
        for match in best.values():
            focus = chunk_span(spans, document, match.chunk)
            yield instantiating.Request(match, models.index.template(match.template_id), document, focus)


def _with_those_passed_over(
    mined: Iterable[Candidates], documents: Mapping[str, Any]
) -> Iterator[tuple[str, Candidates | None]]:
    """All documents in order of entering, each with its candidates, or None where it has none.

    Args:
        mined: Candidates, in the order of their documents.
        documents: What has entered, in order, by id; the caller takes out every document that it is given.
    """
    for candidates in mined:
        while (name := next(iter(documents))) != candidates.document_id:
            yield name, None
        yield name, candidates
    yield from ((name, None) for name in tuple(documents))


def make_silver(unit: Unit, models: Models, setup: Setup) -> None:
    """silver: what all units made -> the rows that are drawn, in training and validation."""
    _make_genericizer(unit, models, setup)
    _make_instantiator(unit, models, setup)
    _make_embedder(unit, models, setup)


def _write(unit: Unit, name: str, rows: Iterable[Any]) -> None:
    """Rows into the table of their split; an empty table is written too."""
    writers = {split: unit.writer(TABLES[name], f"{name}_{split}") for split in (TRAIN, VALIDATION)}
    counts: Counter[str] = Counter()
    for row in rows:
        writers[row.split].add(row)
        counts[row.split] += 1
    for split in writers:
        unit.count(f"{name}_{split}", counts[split])


def _make_genericizer(unit: Unit, models: Models, setup: Setup) -> None:
    config, seed = setup.config.distill, setup.config.seed
    specs: Sequence[UnitSpec] = () if setup.config.templates.is_ready_made else unit.layout.planned("genericize") or ()
    teacher = models.genericizer.model if specs else ""
    student = genericizer.Student(genericizing.published_messages, genericizing.published_reply)

    def items() -> Iterator[tuple[Query, TemplateDraft]]:
        for spec in specs:
            queries = {q.query_id: q for q in read_table(Path(spec.path), Query, spec.row_start, spec.row_stop)}
            for draft in unit.layout.unit_records("genericize", spec, TemplateDraft):
                yield queries[draft.query_id], draft

    ids = (draft.query_id for spec in specs for draft in unit.layout.unit_records("genericize", spec, TemplateDraft))
    last = genericizer.last_drawn(ids, config, seed)
    rows = unit.through(
        genericizer.STAGE, items(), lambda i: genericizer.genericizer_rows(i, last, student, teacher, config, seed)
    )
    _write(unit, "genericizer", rows)


def _make_instantiator(unit: Unit, models: Models, setup: Setup) -> None:
    config, seed = setup.config.distill, setup.config.seed
    window = partial(_window, max_chars=setup.config.instantiate.max_document_chars)
    student = instantiator.Student(
        window, instantiating.published_messages, instantiating.published_reply, instantiating.PUBLISHED_REFUSAL
    )
    specs: Sequence[UnitSpec] = unit.layout.planned("pairs") or ()
    for number in instantiator.ROUNDS:
        items = (item for spec in specs for item in _instantiator_items(unit, spec, models, setup))
        choice = instantiator.choose_round(
            number, _pair_facts(unit, specs, setup), _refusal_ids(unit, specs, setup), config, seed
        )
        work: Callable[[Iterator[instantiator.Item]], Iterable[InstantiatorRow | Rejection]] = partial(
            instantiator.instantiator_rows, choice=choice, student=student, config=config, seed=seed
        )
        _write(unit, f"instantiator_{number}", unit.through(instantiator.stage(number), items, work))


def _window(text: str, focus: tuple[int, int], max_chars: int) -> tuple[int, int]:
    return document_window(text, focus, max_chars)


def _pair_facts(unit: Unit, specs: Sequence[UnitSpec], setup: Setup) -> Iterator[instantiator.PairFacts]:
    columns = ["pair_id", "answer", "slots", "judge_score", "judge_expected_score", "source", "metadata"]
    for spec in specs:
        for table in unit.layout.unit_groups("pairs", spec, "pair", columns):
            for row in table.to_pylist():
                kept = too_low(row["judge_score"], row["judge_expected_score"], setup.config.judge) is None
                yield instantiator.facts_of(
                    row["pair_id"], row["answer"], len(row["slots"]), kept, row["source"], row["metadata"],
                    setup.config.distill,
                )  # fmt: skip


def _refusals(unit: Unit, spec: UnitSpec, setup: Setup) -> Iterator[tuple[Compatibility, bool]]:
    """Matches of a unit that were turned down, and whether the run has a good pair of them all the same."""
    kept = _kept(unit, spec, setup)
    for verdict in unit.layout.unit_records("compatibility", spec, Compatibility):
        if not verdict.compatible:
            yield verdict, (verdict.document_id, verdict.template_id) in kept


def _kept(unit: Unit, spec: UnitSpec, setup: Setup) -> set[tuple[str, str]]:
    """Document and template of every pair of a unit that the judge keeps."""
    columns = ["document_id", "template_id", "judge_score", "judge_expected_score"]
    rows = (row for table in unit.layout.unit_groups("pairs", spec, "pair", columns) for row in table.to_pylist())
    return {
        (row["document_id"], row["template_id"])
        for row in rows
        if too_low(row["judge_score"], row["judge_expected_score"], setup.config.judge) is None
    }


def _refusal_ids(unit: Unit, specs: Sequence[UnitSpec], setup: Setup) -> Iterator[str]:
    for spec in specs:
        for verdict, contradicted in _refusals(unit, spec, setup):
            if not contradicted:
                yield instantiator.refusal_id(verdict)


def _instantiator_items(unit: Unit, spec: UnitSpec, models: Models, setup: Setup) -> Iterator[instantiator.Item]:
    """Pairs and refusals of one unit, with their documents and templates."""
    documents = {d.document_id: d for d in documents_of(spec, setup) if not isinstance(d, Rejection)}
    spans: dict[str, tuple[tuple[int, int], ...]] = {}
    for phase in ("compatibility", "candidates"):
        spans |= {c.document_id: c.spans for c in unit.layout.unit_records(phase, spec, DocumentChunks, "chunks")}
    for pair in unit.layout.unit_records("pairs", spec, Pair):
        document = documents[pair.document_id]
        focus = chunk_span(spans[pair.document_id], document, pair.chunk)
        template, low = models.index.template(pair.template_id), too_low_score(pair, setup.config.judge)
        yield instantiator.Answered(pair, template, document, focus, low)
    for verdict, contradicted in _refusals(unit, spec, setup):
        document = documents[verdict.document_id]
        focus = chunk_span(spans[verdict.document_id], document, verdict.chunk)
        template = models.index.template(verdict.template_id)
        yield instantiator.Refused(verdict, template, document, focus, contradicted)


def _make_embedder(unit: Unit, models: Models, setup: Setup) -> None:
    config, seed = setup.config.distill, setup.config.seed
    specs: Sequence[UnitSpec] = unit.layout.planned("compatibility") or ()
    verdicts = (v for spec in specs for v in unit.layout.unit_records("compatibility", spec, Compatibility))
    last = embedder.last_drawn((verdict.document_id for verdict in verdicts), config, seed)

    def items() -> Iterator[embedder.Judged]:
        for spec in specs:
            documents = {d.document_id: d for d in documents_of(spec, setup) if not isinstance(d, Rejection)}
            records = unit.layout.unit_records("compatibility", spec, DocumentChunks, "chunks")
            spans = {c.document_id: c.spans for c in records}
            kept = _kept(unit, spec, setup)
            for verdict in unit.layout.unit_records("compatibility", spec, Compatibility):
                template, document = models.index.template(verdict.template_id), documents[verdict.document_id]
                contradicted = not verdict.compatible and (verdict.document_id, verdict.template_id) in kept
                yield embedder.Judged(verdict, template, document, spans[verdict.document_id], contradicted)

    rows = unit.through(embedder.STAGE, items(), lambda i: embedder.embedder_rows(i, last, config, seed))
    _write(unit, "embedder", rows)
