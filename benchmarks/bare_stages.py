"""The stages of a recipe as bare function calls in one process: what a run costs without everything around the stages.

    python benchmarks/bare_stages.py RECIPE.yaml OUT.parquet

The same operators with the same models over the same input as `fineinstructions run`: queries to templates and their
index, documents to candidates, choice, drafts, written-out answers, verdicts and the late thresholds. There are no run
folder, work units, workers, digests, accounts, rejections on disk, cache of replies or second reading of the input;
the kept pairs are written once. The last line of the output says how much processor time that took: reading the
documents, building the models and writing included, starting Python and importing modules not.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from fineinstructions.backends.encoders import open_encoder
from fineinstructions.backends.llm import ChatClient
from fineinstructions.config import load
from fineinstructions.embedded.genericizer import EmbeddedGenericizer
from fineinstructions.embedded.instantiator import EmbeddedInstantiator
from fineinstructions.embedded.judge import EmbeddedJudge
from fineinstructions.embedded.relations import RelationGate
from fineinstructions.matches.candidates import Candidates, match_table
from fineinstructions.matches.chunk import ChunkedDocument, chunk, chunk_span
from fineinstructions.matches.retrieve import retrieve, threshold
from fineinstructions.matches.sample import Sampler, sample
from fineinstructions.pairs.excerpts import expand
from fineinstructions.pairs.instantiate import PromptedInstantiator, Request, instantiate
from fineinstructions.pairs.judge import PromptedJudge, judge, select, surplus_pairs, too_low_score
from fineinstructions.parquet import leave_pandas_out
from fineinstructions.phases import GROUP_DOCUMENTS
from fineinstructions.readers import read_documents
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Document, Match, Pair, Rejection, Template, from_table, to_table
from fineinstructions.templates.genericize import PromptedGenericizer, genericize
from fineinstructions.templates.index import TemplateIndex, build_index
from fineinstructions.templates.merge import SERVER_MIN_QUERIES, merge
from fineinstructions.templates.queries import clean, read_queries

T = TypeVar("T")


def good(items: Iterable[T | Rejection]) -> Iterator[T]:
    """What was not turned away."""
    return (item for item in items if not isinstance(item, Rejection))


def make_templates(config: RunConfig, client: ChatClient | None) -> tuple[list[Template], str]:
    """Queries to templates, and the model that made them."""
    assert config.queries is not None
    model = PromptedGenericizer(client, config.genericize) if client else EmbeddedGenericizer()
    merging = config.merge.model_copy(update={"min_queries": SERVER_MIN_QUERIES}) if client else config.merge
    drafts = genericize(good(clean(read_queries(config.queries), config.queries)), model, config.genericize)
    return list(good(merge(good(drafts), merging))), model.model


def find_matches(
    documents: Iterable[Document], index: TemplateIndex, encoder: Any, config: RunConfig, gate: RelationGate | None
) -> tuple[list[Match], dict[str, Document], dict[str, tuple[tuple[int, int], ...]]]:
    """Documents to sampled matches, with the documents and their chunks."""
    kept: dict[str, Document] = {}
    spans: dict[str, tuple[tuple[int, int], ...]] = {}

    def noted(chunked: Iterable[ChunkedDocument]) -> Iterator[ChunkedDocument]:
        for item in chunked:
            kept[item.document.document_id] = item.document
            spans[item.document.document_id] = item.chunk_spans
            yield item

    wanted = threshold(config.retrieve, gate, encoder.min_cosine)
    retrieving = config.retrieve.model_copy(update={"min_cosine": wanted})
    found = good(retrieve(noted(good(chunk(documents, encoder, config.chunk))), index, gate, retrieving))
    sampled = sample(found, Sampler(index, config.sample, config.seed, None))
    return list(_chosen(sampled, index)), kept, spans


def _chosen(sampled: Iterator[Candidates], index: TemplateIndex) -> Iterator[Match]:
    while items := list(islice(sampled, GROUP_DOCUMENTS)):
        table = match_table(items, index)
        yield from from_table(table.filter(table["sampled"]), Match)


def run(config: RunConfig, folder: Path) -> list[Pair]:
    """All stages of a recipe; the pairs that are kept.

    Args:
        config: The recipe, with queries and documents, every model either embedded or asked by `openai`.
        folder: Where the template index may lie.
    """
    assert config.documents is not None
    asks = config.judge.model == "openai"
    client = ChatClient(config.llm) if asks else None
    templates, model_name = make_templates(config, client)
    encoder = open_encoder(config.encoder, config.llm)
    index = build_index(templates, encoder, config.index, folder / "index")
    gate = None if client else RelationGate(list(index.live_templates()), config.seed, index.live_rows)
    num_rows = pq.read_metadata(config.documents.path).num_rows
    documents = good(read_documents(str(config.documents.path), 0, num_rows, config.documents))
    matches, kept, spans = find_matches(documents, index, encoder, config, gate)
    by_id = {template.template_id: template for template in templates}

    def span(item: Any, document: Document) -> tuple[int, int]:
        return chunk_span(spans[item.document_id], document, item.chunk)

    def requests() -> Iterator[Request]:
        for match in matches:
            document = kept[match.document_id]
            yield Request(match, by_id[match.template_id], document, span(match, document))

    filler = PromptedInstantiator(client, config.instantiate, config.excerpts) if client else EmbeddedInstantiator()
    grader = PromptedJudge(client, config.judge) if client else EmbeddedJudge()
    models = {"genericizer": model_name, "encoder": index.encoder_id}
    drafts = good(instantiate(requests(), filler))
    expanded = good(expand(((d, kept[d.document_id]) for d in drafts), config.excerpts, span))
    judged = ((e, by_id[e.template_id], kept[e.document_id]) for e in expanded)
    pairs = list(good(judge(judged, grader, models)))
    scored = ((p.pair_id, p.template_id) for p in pairs if too_low_score(p, config.judge) is None)
    surplus = surplus_pairs(scored, config.judge.max_template_share, config.seed, config.judge.template_cap_floor)
    if client:
        client.close()
    return list(good(select(pairs, config.judge, surplus)))


def main() -> None:
    """Run a recipe and say what it took."""
    config = load(sys.argv[1], RunConfig)
    leave_pandas_out()
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        pairs = run(config, Path(folder))
        pq.write_table(to_table(pairs, Pair), sys.argv[2], compression="zstd")
    print(json.dumps({"cpu_seconds": time.process_time() - before, "pairs": len(pairs)}))


if __name__ == "__main__":
    main()
