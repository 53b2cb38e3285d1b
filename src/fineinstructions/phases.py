"""What one work unit of every phase does: plain calls of the operators, in flow order.

In: a unit of the run folder. Out: its tables, its counts and its rejections. The order of the work is read here from
top to bottom; `pipeline` says which phases there are and runs them.

The decision a reader would question: the corpus is passed over twice before anything is asked of a model. The first
pass encodes and searches; the second chooses, with what the first has counted over all documents, and reads none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from fineinstructions.backends.tokens import estimated_tokens
from fineinstructions.documents import documents_of
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import DocumentCandidates, candidate_table, match_table, read_candidates
from fineinstructions.matches.chunk import ChunkedDocument, chunk, chunk_span
from fineinstructions.matches.popularity import (
    add_documents,
    find_chances,
    log_damping,
    pilot,
    save_popularity,
)
from fineinstructions.matches.retrieve import retrieve
from fineinstructions.matches.sample import Popularity, sample
from fineinstructions.models import Models, metered
from fineinstructions.pairs.compatibility import SCREEN, screen
from fineinstructions.pairs.excerpts import expand
from fineinstructions.pairs.instantiate import Request, instantiate
from fineinstructions.pairs.judge import judge, select, surplus_pairs, too_low
from fineinstructions.records import (
    Document,
    Draft,
    ExpandedDraft,
    Match,
    Pair,
    Query,
    Rejection,
    Template,
    TemplateDraft,
    from_table,
)
from fineinstructions.runs import Unit
from fineinstructions.runs.tables import fitting
from fineinstructions.setup import Setup
from fineinstructions.templates.bank import read_bank
from fineinstructions.templates.genericize import genericize
from fineinstructions.templates.index import build_index, open_index
from fineinstructions.templates.merge import SERVER_MIN_QUERIES, merge
from fineinstructions.templates.queries import clean, read_queries

GROUP_DOCUMENTS = 512
"""Documents whose candidates are written together."""
_FACTS = ("pair_id", "template_id", "judge_score", "judge_expected_score")
"""Columns that decide whether a pair is kept."""


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
    drafts = unit.through(
        "genericize", unit.rows(Query), lambda q: genericize(q, metered(models.genericizer, unit, "genericize"), config)
    )
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
        unit.count("indexed", len(open_index(setup.index_dir, models.encoder).live_rows))
        return
    templates = unit.read_all(Template, phase="templates")
    index = build_index(templates, models.encoder, setup.config.index, unit.folder / "index")
    unit.count("indexed", len(index))


def find_candidates(unit: Unit, models: Models, setup: Setup) -> None:
    """candidates: documents -> coverage chunks -> templates near them. The first and dear pass over the corpus."""
    config = setup.config
    chunks = unit.writer(DocumentChunks, "chunks")
    candidates = unit.writer(DocumentCandidates, "candidates")

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
    while items := list(islice(found, GROUP_DOCUMENTS)):
        candidates.add_table(candidate_table(items))
        unit.count("candidates", sum(len(item.rows) for item in items))


def count_popularity(unit: Unit, models: Models, setup: Setup) -> None:
    """popularity: candidates of all documents -> how many documents found each template, and what follows from it."""
    config, seed = setup.config.sample, setup.config.seed
    counts = np.zeros(len(models.index.num_slots), np.int64)
    num_documents = sum(add_documents(counts, table) for table in unit.all_groups("candidates", "candidates", ["rows"]))
    log_weights, chances = log_damping(counts, config), None
    if config.max_sampled_share is not None:
        tables = unit.all_groups("candidates", "candidates")
        documents = pilot((item for table in tables for item in read_candidates(table)), num_documents, seed)
        chances = find_chances(documents, models.index, config, seed, log_weights)
    save_popularity(counts, Popularity(log_weights, chances), unit.folder)
    unit.count("templates_found", int(np.count_nonzero(counts)))


def find_matches(unit: Unit, models: Models, setup: Setup) -> None:
    """matches: candidates -> sampled templates. The second pass, which reads no document."""
    del setup
    matches = unit.writer(Match)
    candidates = (item for table in unit.groups("candidates", "candidates") for item in read_candidates(table))
    sampled = unit.through("sample", candidates, lambda c: sample(c, models.sampler))
    while items := list(islice(sampled, GROUP_DOCUMENTS)):
        matches.add_table(match_table(items, models.index))
        unit.count("matches", sum(len(item.rows) for item in items))
        unit.count("sampled", sum(int(np.count_nonzero(item.sampled)) for item in items))


def make_pairs(unit: Unit, models: Models, setup: Setup) -> None:
    """pairs: sampled matches (-> screened ones) -> drafts -> expanded drafts -> judged pairs, whatever their score."""
    config = setup.config
    documents = {d.document_id: d for d in documents_of(unit.spec, setup) if not isinstance(d, Rejection)}
    spans = {c.document_id: c.spans for c in unit.read(DocumentChunks, phase="candidates", name="chunks")}
    templates: dict[str, Template] = {}

    def requests() -> Iterator[Request]:
        for table in unit.groups("matches", "match"):
            matches = list(from_table(table.filter(table["sampled"]), Match))
            new = list(dict.fromkeys(m.template_id for m in matches if m.template_id not in templates))
            templates.update(zip(new, models.index.templates_of(new), strict=True))
            for match in matches:
                document = documents[match.document_id]
                focus = chunk_span(spans[match.document_id], document, match.chunk)
                yield Request(match, templates[match.template_id], document, focus)

    def focus_of(draft: Draft, document: Document) -> tuple[int, int]:
        return chunk_span(spans[draft.document_id], document, draft.chunk)

    def with_document(drafts: Iterable[Draft]) -> Iterator[tuple[Draft, Document]]:
        for draft in drafts:
            unit.count("repairs", draft.repairs)
            yield draft, documents[draft.document_id]

    def counted(expanded: Iterable[ExpandedDraft]) -> Iterator[ExpandedDraft]:
        for item in expanded:
            unit.count("generated_tokens", item.generated_tokens)
            unit.count("answer_tokens", estimated_tokens(item.answer))
            yield item

    asked: Iterable[Request] = requests()
    if config.compatibility.screen:
        compatibility = metered(models.compatibility, unit, SCREEN)
        asked = unit.through(SCREEN, asked, lambda r: screen(r, compatibility))
    instantiator = metered(models.instantiator, unit, "instantiate")
    drafts = unit.through("instantiate", asked, lambda r: instantiate(r, instantiator))
    expanded = unit.through("excerpts", with_document(drafts), lambda d: expand(d, config.excerpts, focus_of))
    judged = unit.through(
        "judge",
        ((e, templates[e.template_id], documents[e.document_id]) for e in counted(expanded)),
        lambda e: judge(e, metered(models.judge, unit, "judge"), models.lineage()),
    )
    unit.write(judged, Pair)


def select_pairs(unit: Unit, models: Models, setup: Setup) -> None:
    """assemble: the thresholds that are applied late, over the pairs of all units."""
    del models
    config = setup.config.judge

    def facts(tables: Iterable[pa.Table]) -> Iterator[tuple[str, str, bool]]:
        """Id and template of every pair, and whether it is above the thresholds."""
        for table in tables:
            ids, templates, scores, expected = (table[name].to_pylist() for name in _FACTS)
            high = (too_low(*both, config) is None for both in zip(scores, expected, strict=True))
            yield from zip(ids, templates, high, strict=True)

    scored = ((pair, template) for pair, template, high in facts(unit.all_groups("pairs", "pair", _FACTS)) if high)
    surplus = surplus_pairs(scored, config.max_template_share, setup.config.seed, config.template_cap_floor)
    chosen = unit.sift(
        "select",
        (fitting(table, Pair) for table in unit.all_groups("pairs", "pair")),
        lambda table: [high and pair not in surplus for pair, _, high in facts([table])],
        lambda pairs: select(pairs, config, surplus),
        Pair,
    )
    unit.write_tables(chosen, Pair)
