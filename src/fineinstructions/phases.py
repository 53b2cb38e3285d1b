"""What one work unit of every phase does: plain calls of the operators, in flow order.

In: a unit of the run folder. Out: its tables, its counts and its rejections. The order of the work is read here from
top to bottom; `pipeline` says which phases there are and runs them.

The decision a reader would question: the documents of a unit are read from the input again in `make_pairs`, because
reading costs less than storing every text twice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.config import digest
from fineinstructions.errors import ConfigError
from fineinstructions.matches.chunk import ChunkedDocument, chunk, chunk_span
from fineinstructions.matches.retrieve import Candidates, Gate, RetrieveConfig, retrieve, threshold
from fineinstructions.matches.sample import sample
from fineinstructions.pairs.excerpts import expand
from fineinstructions.pairs.instantiate import Instantiator, PromptedInstantiator, Request, instantiate
from fineinstructions.pairs.judge import Judge, PromptedJudge, judge, select, surplus_pairs
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.recipe import RunConfig
from fineinstructions.records import (
    Document,
    Draft,
    Match,
    Pair,
    Query,
    Rejection,
    Template,
    TemplateDraft,
    content_id,
)
from fineinstructions.runs import Unit, UnitSpec, plan_units, single_unit
from fineinstructions.staging import StagedFile, find_repeated_ids, stage_documents
from fineinstructions.templates.bank import read_bank
from fineinstructions.templates.genericize import Genericizer, PromptedGenericizer, genericize
from fineinstructions.templates.index import TemplateIndex, build_index, open_index
from fineinstructions.templates.merge import SERVER_MIN_QUERIES, merge
from fineinstructions.templates.queries import clean, read_queries

if TYPE_CHECKING:
    from fineinstructions.backends.encoder import Encoder
    from fineinstructions.backends.llm import ChatClient

REPEATED_FILE = "repeated.npz"


@dataclass(frozen=True)
class Setup:
    """What every worker is given: the recipe and where the run lies."""

    config: RunConfig
    root: Path

    @property
    def input_dir(self) -> Path:
        """Converted input files and the rows with repeated ids."""
        return self.root / "input"

    @property
    def index_dir(self) -> Path:
        """The template index."""
        if self.config.templates.index:
            return Path(self.config.templates.index)
        return self.root / "units" / "index" / single_unit().folder_name / "index"


@dataclass(frozen=True)
class DocumentChunks:
    """Where the coverage chunks of a document lie, so that `make_pairs` need not encode it again."""

    document_id: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open character span of every chunk."""
        return tuple(zip(self.starts, self.ends, strict=True))


class Models:
    """The models of one process, each built when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._config = setup.config

    @cached_property
    def client(self) -> "ChatClient":
        """Connection to the model server, with the run's response cache."""
        from fineinstructions.backends.cache import ResponseCache
        from fineinstructions.backends.llm import ChatClient

        return ChatClient(self._config.llm, ResponseCache(self._setup.root / "cache"))

    @cached_property
    def encoder(self) -> "Encoder":
        """Encoder of descriptions and documents; loads nothing large before it encodes."""
        from fineinstructions.backends.encoders import open_encoder

        return open_encoder(self._config.encoder, self._config.llm)

    @cached_property
    def retrieve(self) -> RetrieveConfig:
        """Settings of retrieval with the threshold that holds.

        The encoder is asked, not the index, so that an encoder can be calibrated without embedding a bank again.

        Raises:
            ConfigError: If neither the recipe, nor the gate, nor the encoder has a threshold.
        """
        config = self._config.retrieve
        if config.min_cosine is not None or self._has_gate:
            return config
        return config.model_copy(update={"min_cosine": threshold(config, None, self.encoder.min_cosine)})

    @cached_property
    def genericizer(self) -> Genericizer:
        """Model of the first stage."""
        if self._config.genericize.model == "openai":
            return PromptedGenericizer(self.client, self._config.genericize)
        from fineinstructions.embedded.genericizer import EmbeddedGenericizer

        return EmbeddedGenericizer()

    @cached_property
    def index(self) -> TemplateIndex:
        """The run's template index.

        What makes the index stale holds it to the encoder, so that whoever only looks templates up needs none.
        """
        return open_index(self._setup.index_dir, verify=False)

    @property
    def _has_gate(self) -> bool:
        return self._config.instantiate.model != "openai"

    @cached_property
    def gate(self) -> Gate | None:
        """Compatibility test of the embedded tier, whatever the encoder; language models can refuse by themselves."""
        if not self._has_gate:
            return None
        from fineinstructions.embedded.relations import RelationGate

        return RelationGate(list(self.index.templates()), self._config.seed)

    @cached_property
    def instantiator(self) -> Instantiator:
        """Model that fills templates."""
        if self._config.instantiate.model == "openai":
            return PromptedInstantiator(self.client, self._config.instantiate)
        from fineinstructions.embedded.instantiator import EmbeddedInstantiator

        return EmbeddedInstantiator()

    @cached_property
    def judge(self) -> Judge:
        """Model that scores pairs."""
        if self._config.judge.model == "openai":
            return PromptedJudge(self.client, self._config.judge)
        from fineinstructions.embedded.judge import EmbeddedJudge

        return EmbeddedJudge()

    def close(self) -> None:
        """Close the connections to model servers, if any were made."""
        if "client" in vars(self):
            self.client.close()
        close = getattr(vars(self).get("encoder"), "close", None)
        if close is not None:
            close()

    def lineage(self) -> dict[str, str]:
        """Models behind every pair that neither its draft nor its verdict names."""
        made_here = {} if self._config.templates.is_ready_made else {"genericizer": self.genericizer.model}
        return made_here | {"encoder": self.index.encoder_id}


def build_models(setup: Setup) -> Models:
    """The models of one worker process."""
    models = Models(setup)
    config = setup.config
    if "openai" in (config.genericize.model, config.instantiate.model, config.judge.model):
        models.client  # noqa: B018 -- built before there are threads: two clients would be two request windows
    return models


def read_and_clean(unit: Unit, models: Models, setup: Setup) -> None:
    """queries: input rows -> cleaned, distinct queries."""
    del models
    config = setup.config.queries
    if config is None:
        raise ConfigError("queries.path: missing; name the file with the queries, or a bank in templates.bank")
    reasons: Counter[str] = Counter()

    def noted(items: Iterable[Query | Rejection]) -> Iterator[Query | Rejection]:
        for item in items:
            if isinstance(item, Rejection):
                reasons[item.reason] += 1
            yield item

    if not unit.write(unit.keep("queries", noted(clean(read_queries(config), config))), Query):
        names = config.path if isinstance(config.path, str) else ", ".join(config.path)
        why = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
        raise ConfigError(f"{names}: {f'no usable query ({why})' if why else 'no rows'}; check queries.path")


def make_templates(unit: Unit, models: Models, setup: Setup) -> None:
    """genericize: queries -> template drafts."""
    config = setup.config.genericize
    drafts = unit.through("genericize", unit.rows(Query), lambda q: genericize(q, models.genericizer, config))
    unit.write(drafts, TemplateDraft)


def merge_templates(unit: Unit, models: Models, setup: Setup) -> None:
    """templates: drafts of all queries -> one template per meaning."""
    del models
    drafts = unit.read_all(TemplateDraft, phase="genericize")
    config = setup.config.merge
    if config.min_queries is None and setup.config.genericize.model == "openai":
        config = config.model_copy(update={"min_queries": SERVER_MIN_QUERIES})
    templates = unit.through("merge", drafts, lambda d: merge(d, config), stands_for=lambda t: len(t.query_ids))
    unit.write(templates, Template)


def take_bank(unit: Unit, models: Models, setup: Setup) -> None:
    """templates: the templates of a bank or an index that was made before."""
    config = setup.config.templates
    if config.index:
        number = unit.write(models.index.live_templates(), Template)
    else:
        number = unit.write(unit.keep("templates", read_bank(config)), Template)
    unit.count("banked", number)


def index_templates(unit: Unit, models: Models, setup: Setup) -> None:
    """index: descriptions -> vectors -> template index; nothing to do where one was made before."""
    if setup.config.templates.index:
        unit.count("indexed", len(models.index))
        return
    templates = unit.read_all(Template, phase="templates")
    index = build_index(templates, models.encoder, setup.config.index, unit.folder / "index")
    unit.count("indexed", len(index))


def find_matches(unit: Unit, models: Models, setup: Setup) -> None:
    """matches: documents -> coverage chunks -> candidates -> sampled templates."""
    config = setup.config
    chunks = unit.writer(DocumentChunks, "chunks")
    matches = unit.writer(Match)

    def note_spans(chunked: Iterable[ChunkedDocument]) -> Iterator[ChunkedDocument]:
        for item in chunked:
            starts, ends = ([span[side] for span in item.chunk_spans] for side in (0, 1))
            chunks.add(DocumentChunks(item.document.document_id, tuple(starts), tuple(ends)))
            unit.count("tokens", item.num_tokens)
            yield item

    documents = unit.keep("documents", documents_of(unit.spec, setup))
    chunked = unit.through("chunk", documents, lambda d: chunk(d, models.encoder, config.chunk))
    found = unit.through(
        "retrieve", note_spans(chunked), lambda c: retrieve(c, models.index, models.gate, models.retrieve)
    )
    for item in unit.through("sample", found, lambda c: _sampled(c, models, setup)):
        for match in item.matches:
            matches.add(match)
            unit.count("candidates")
            unit.count("sampled", int(match.sampled))


def _sampled(candidates: Iterable[Candidates], models: Models, setup: Setup) -> Iterator[Candidates | Rejection]:
    return sample(candidates, models.index, setup.config.sample, setup.config.seed)


def documents_of(spec: UnitSpec, setup: Setup) -> Iterator[Document | Rejection]:
    """One item per input row of a unit."""
    config = setup.config.documents
    if config is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    repeated = np.empty(0, np.int64)
    marks = setup.input_dir / REPEATED_FILE
    if marks.exists():
        with np.load(marks, allow_pickle=False) as rows:
            repeated = rows.get(spec.path, repeated)
    return read_documents(spec.path, spec.row_start, spec.row_stop, config, repeated)


def document_units(setup: Setup) -> list[UnitSpec]:
    """Row ranges of the documents; what is no Parquet is converted first.

    Raises:
        ConfigError: If a file cannot be read, or there is not one valid document.
    """
    config, engine = setup.config.documents, setup.config.engine
    if config is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    staged = stage_documents(config, setup.input_dir)
    found = _repeated_rows(staged, config, setup.input_dir / REPEATED_FILE)
    repeated = {s.parquet.path: rows for s, rows in zip(staged, found, strict=True)}
    files = [s.parquet for s in staged]
    units = plan_units(files, engine.unit_bytes, engine.unit_rows, max_rows=sum(s.num_rows for s in staged))
    return [_told_apart(unit, repeated[unit.path]) for unit in units]


def _told_apart(unit: UnitSpec, repeated: NDArray[np.int64]) -> UnitSpec:
    """A unit whose id tells which of its rows repeat an id, because that depends on the rows and files before it."""
    rows = repeated[(unit.row_start <= repeated) & (repeated < unit.row_stop)].tolist()
    return replace(unit, unit_id=content_id("u", unit.unit_id, *map(str, rows))) if rows else unit


def _repeated_rows(staged: Sequence[StagedFile], config: DocumentsConfig, marks: Path) -> list[NDArray[np.int64]]:
    """Rows of every file whose id occurred before; found once per input and kept for the workers."""
    seen = [(s.parquet.path, s.parquet.fingerprint, s.num_rows) for s in staged]
    key = digest(seen, config.model_copy(update={"limit": None}))  # the limit is in the rows of every file
    arrays: dict[str, Any] = {}
    if marks.exists():
        with np.load(marks, allow_pickle=False) as found:
            if str(found["key"]) == key:
                return [found[s.parquet.path] for s in staged]
            arrays = {name: found[name] for name in found.files if name != "key"}  # what is committed still needs them
    marks.parent.mkdir(parents=True, exist_ok=True)
    repeated = find_repeated_ids(staged, config)
    arrays |= {s.parquet.path: rows for s, rows in zip(staged, repeated, strict=True)}
    temporary = marks.with_suffix(".tmp.npz")
    np.savez(temporary, key=np.array(key), **arrays)
    temporary.replace(marks)
    return repeated


def make_pairs(unit: Unit, models: Models, setup: Setup) -> None:
    """pairs: sampled matches -> drafts -> expanded drafts -> judged pairs, whatever their score."""
    config = setup.config
    documents = {d.document_id: d for d in documents_of(unit.spec, setup) if not isinstance(d, Rejection)}
    spans = {c.document_id: c.spans for c in unit.read(DocumentChunks, phase="matches", name="chunks")}
    templates: dict[str, Template] = {}

    def requests() -> Iterator[Request]:
        for match in unit.read(Match, phase="matches"):
            if match.sampled:
                document = documents[match.document_id]
                if match.template_id not in templates:
                    templates[match.template_id] = models.index.template(match.template_id)
                focus = chunk_span(spans[match.document_id], document, match.chunk)
                yield Request(match, templates[match.template_id], document, focus)

    def focus_of(draft: Draft, document: Document) -> tuple[int, int]:
        return chunk_span(spans[draft.document_id], document, draft.chunk)

    drafts = unit.through("instantiate", requests(), lambda r: instantiate(r, models.instantiator))
    expanded = unit.through(
        "excerpts", ((d, documents[d.document_id]) for d in drafts), lambda d: expand(d, config.excerpts, focus_of)
    )
    judged = unit.through(
        "judge",
        ((e, templates[e.template_id], documents[e.document_id]) for e in expanded),
        lambda e: judge(e, models.judge, models.lineage()),
    )
    unit.write(judged, Pair)


def select_pairs(unit: Unit, models: Models, setup: Setup) -> None:
    """assemble: the thresholds that are applied late, over the pairs of all units."""
    del models
    config = setup.config.judge
    scored = (
        (pair.pair_id, pair.template_id)
        for pair in unit.read_all(Pair, phase="pairs")
        if pair.judge_score >= config.min_score
    )
    surplus = surplus_pairs(scored, config.max_template_share, setup.config.seed, config.template_cap_floor)
    pairs = unit.read_all(Pair, phase="pairs")
    unit.write(unit.through("select", pairs, lambda p: select(p, config, surplus)), Pair)
