"""One document through every stage, with what each stage made of it: the way to look at the pipeline from inside.

In: a text, and a template bank or a query. Out: a `Trial`. The stages are the ordinary operators; nothing is written
but a temporary index.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fineinstructions.embedded.document_text import DocumentText
from fineinstructions.endpoints import asking, require_answers_now
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkedDocument, chunk
from fineinstructions.matches.retrieve import retrieve
from fineinstructions.matches.sample import Sampler, sample
from fineinstructions.models import Models
from fineinstructions.pairs.compatibility import SCREEN, screen
from fineinstructions.pairs.excerpts import expand
from fineinstructions.pairs.instantiate import Request, instantiate
from fineinstructions.pairs.judge import judge, select
from fineinstructions.progress import Silent
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import (
    GLOBAL_CHUNK,
    Document,
    Match,
    Query,
    Rejection,
    Template,
    as_dict,
    content_id,
    to_json,
)
from fineinstructions.serving import serving
from fineinstructions.setup import Setup
from fineinstructions.templates.bank import TemplatesConfig, read_bank
from fineinstructions.templates.genericize import genericize
from fineinstructions.templates.index import TemplateIndex, build_index, open_index
from fineinstructions.templates.merge import merge

EMBEDDED_BANK = Path(__file__).parent / "embedded" / "data" / "bank.parquet"


@dataclass
class Step:
    """What one stage made of the document."""

    stage: str
    made: list[Any] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The step as plain values."""
        turned_away = [{**as_dict(r), "record": json.loads(r.record)} for r in self.rejected]
        return {"stage": self.stage, "made": [as_dict(m) for m in self.made], "rejected": turned_away}


@dataclass
class Trial:
    """One document's way through the stages."""

    document: Document
    steps: list[Step] = field(default_factory=list)
    templates: dict[str, str] = field(default_factory=dict)
    """Words of every template that was a candidate, by id."""

    def step(self, stage: str) -> Step:
        """What a stage made; an empty step where the document did not get that far."""
        return next((step for step in self.steps if step.stage == stage), Step(stage))

    def take(self, stage: str, items: Iterable[Any]) -> list[Any]:
        """Note what a stage made and turned away; gives what it made."""
        step = Step(stage)
        for item in items:
            (step.rejected if isinstance(item, Rejection) else step.made).append(item)
        self.steps.append(step)
        return step.made


def try_document(
    text: str,
    *,
    query: str | None = None,
    bank: str | Path | None = None,
    recipe: RunConfig | dict[str, Any] | str | Path | None = None,
    title: str | None = None,
) -> Trial:
    """Take one document through every stage.

    Args:
        text: The document.
        query: Use the template of this query instead of a bank; it is tried whatever its cosine.
        bank: Template bank; by default the recipe's, else the one that ships with the package.
        recipe: Settings and models; the embedded tier by default.
        title: Title of the document; by default the heading that it begins with, if it does.

    Returns:
        What every stage made.

    Raises:
        ConfigError: If the text is empty, or the bank or recipe is wrong.
    """
    if not text.strip():
        raise ConfigError("the document is empty; give a text file with at least one sentence")
    config = as_config(recipe) if recipe is not None else RunConfig()
    require_answers_now(config)
    if query is not None or bank is not None:
        config = config.model_copy(update={"templates": config.templates.model_copy(update={"index": None})})
    trial = Trial(Document(content_id("d", text), text, title=_heading(text) if title is None else title))
    stages = (*(("genericize",) if query is not None else ()), *asking(config, "pairs"))
    with ExitStack() as stack:
        setup = Setup(config, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fineinstructions-"))))
        setup = stack.enter_context(serving(setup, "try", stages, Silent().note))
        with closing(Models(setup)) as models:
            if query is not None:
                templates = _templates_of(query, trial, models, config)
                if not templates:
                    return trial
                build_index(templates, models.encoder, config.index, setup.index_dir)
            elif not config.templates.index:
                templates = _templates_of_bank(bank, config.templates)
                build_index(templates, models.encoder, config.index, setup.index_dir)
            else:
                open_index(setup.index_dir, models.encoder, verify=False)  # refuses another encoder's
            requests = _matched(trial, models, config, forced=query is not None)
            _answered(trial, requests, models, config)
    return trial


def _heading(text: str) -> str:
    """The heading that a text begins with; empty where anything stands before the first one."""
    before, *others = DocumentText(text).sections
    return others[0].heading if others and not before.blocks else ""


def _templates_of_bank(named: str | Path | None, config: TemplatesConfig) -> list[Template]:
    """Templates of the bank that was named, else of the recipe's, else of the one that ships."""
    chosen = str(named or config.bank or EMBEDDED_BANK)
    if not (named or config.bank or EMBEDDED_BANK.exists()):
        raise ConfigError("this installation ships no template bank; name one with --bank, or give a --query")
    items = read_bank(config.model_copy(update={"bank": chosen}))
    return [item for item in items if isinstance(item, Template)]


def _templates_of(query: str, trial: Trial, models: Models, config: RunConfig) -> list[Template]:
    """The template of one query; a frame need not be shared here."""
    drafts = trial.take("genericize", genericize([Query("query", query)], models.genericizer, config.genericize))
    return trial.take("merge", merge(drafts, config.merge.model_copy(update={"min_queries": 1})))


def _matched(trial: Trial, models: Models, config: RunConfig, forced: bool) -> list[Request]:
    """Requests of the sampled matches; with a template of the user's own, of its best vector whatever the cosine."""
    chunked: list[ChunkedDocument] = []

    def noted() -> Iterator[Rejection | ChunkSummary]:
        for item in chunk([trial.document], models.encoder, config.chunk):
            if isinstance(item, Rejection):
                yield item
            else:
                chunked.append(item)
                yield ChunkSummary(item.num_tokens, tuple(item.span(k)[0] for k in range(len(item.chunk_spans))))

    trial.take("chunk", noted())
    if not chunked:
        return []
    limits = config.retrieve.model_copy(update={"min_cosine": -1.0}) if forced else models.retrieve
    found = list(retrieve(chunked, models.index, None if forced else models.gate, limits))
    candidates = [item for item in found if isinstance(item, Candidates)]
    rejected = [_with_template(item, models.index) for item in found if isinstance(item, Rejection)]
    matches = [match for c in candidates for match in c.matches(models.index)]
    trial.templates = {m.template_id: models.index.template(m.template_id).template for m in matches}
    trial.take("retrieve", matches + rejected)
    sampler = Sampler(models.index, config.sample, config.seed)  # one document has no corpus to be popular in
    sampled = [match for c in sample(candidates, sampler) for match in c.sampled_matches(models.index)]
    trial.take("sample", sampled)
    return [_request(match, models.index, chunked[0]) for match in sampled]


def _with_template(turned_away: Rejection, index: TemplateIndex) -> Rejection:
    """A rejection whose record also has the words of the nearest template."""
    record = json.loads(turned_away.record)
    if "template_id" not in record:
        return turned_away
    record["template"] = index.template(record["template_id"]).template
    return replace(turned_away, record=to_json(record))


@dataclass(frozen=True)
class ChunkSummary:
    """How a document was cut."""

    num_tokens: int
    chunk_starts: tuple[int, ...]
    """First character of every coverage chunk."""


def _request(match: Match, index: TemplateIndex, chunked: ChunkedDocument) -> Request:
    return Request(match, index.template(match.template_id), chunked.document, chunked.span(match.chunk))


def _answered(trial: Trial, requests: list[Request], models: Models, config: RunConfig) -> None:
    """The last stages and the threshold."""
    document = trial.document
    templates = {r.template.template_id: r.template for r in requests}
    spans = {r.match.template_id: r.focus for r in requests if r.match.chunk != GLOBAL_CHUNK}
    if config.compatibility.screen:
        screened = list(screen(requests, models.compatibility))
        trial.take(SCREEN, [item.match if isinstance(item, Request) else item for item in screened])
        requests = [item for item in screened if isinstance(item, Request)]
    drafts = trial.take("instantiate", instantiate(requests, models.instantiator))
    pairs = ((draft, document) for draft in drafts)
    expanded = trial.take("excerpts", expand(pairs, config.excerpts, lambda d, _: spans.get(d.template_id)))
    judged = trial.take("judge", judge(((e, templates[e.template_id], document) for e in expanded), models.judge))
    trial.take("select", select(judged, config.judge, surplus=()))
