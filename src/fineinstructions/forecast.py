"""What a run would make and cost, forecast from a sample: counts, calls, tokens, time, disk.

In: a recipe. Out: a `Forecast`. The sample really runs, through the embedded tier, its encoder included: a model server
is asked nothing and no model is loaded, so the yields and the time are those of the embedded models, and only the calls
and tokens of a server are counted. The decision a reader would
question: documents are taken in short runs spread evenly over the input, because the first rows of a corpus are rarely
like the rest. A ready index of another encoder serves as a bank: its templates are embedded and indexed for the sample,
which the run itself need not do.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.endpoint_encoder import CHARS_PER_TOKEN, MAX_BATCH_TEXTS
from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.errors import ConfigError
from fineinstructions.pipeline import run
from fineinstructions.progress import Silent
from fineinstructions.readers import DocumentsConfig, read_documents, read_rows
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import Document, Pair, Rejection, Template, as_dict, schema_of, to_table
from fineinstructions.review.card import CARD_FILE
from fineinstructions.review.diagnostics import DIAGNOSTICS_FILE
from fineinstructions.staging import StagedFile, stage_documents
from fineinstructions.templates.bank import TemplatesConfig
from fineinstructions.templates.index import open_index

SAMPLE_DOCUMENTS = 200
SAMPLE_RUNS = 8
SAMPLE_QUERIES = 20_000
DESCRIPTION_CHARS = 80
"""Length of a compatible document description, about."""
BANK_PHASES = ("queries", "genericize", "templates", "index")
"""Phases whose work grows with the queries; that of the others grows with the documents."""
STAGES_OF_PAIRS = ("instantiate", "judge")
"""Stages that ask once for every match, or draft."""
VERDICT_CHARS = 250
"""Length of a compatibility judge's reply, about."""
PROMPT_OVERHEAD_TOKENS = 500
"""Instructions around a document or query in our own prompts, about."""
_BANK_ROWS = 16_384


@dataclass(frozen=True)
class Calls:
    """What one stage would ask of a model server."""

    stage: str
    model: str
    num_calls: int
    prompt_tokens: int
    completion_tokens: int
    is_limit: bool = False
    """Whether there are that many at most."""
    cost: float | None = None
    """In the currency of the recipe's prices; ``None`` where it names none."""


@dataclass(frozen=True)
class Forecast:
    """Estimates for the whole input, and the sample they come from."""

    num_queries: int
    num_documents: int
    sample_queries: int
    sample_documents: int
    num_templates: int
    """Templates of the sample's bank; grows more slowly than the queries do."""
    num_matches: int
    """As the embedded models choose, which find few compatible."""
    num_pairs: int
    """As the embedded models make them; language models make more."""
    seconds: float
    """On this machine with these workers; model servers and encoders other than the embedded one not counted."""
    bytes_on_disk: int
    calls: tuple[Calls, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The forecast as plain values."""
        return as_dict(self)


class _Clock(Silent):
    """Reporter that measures how long every phase takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = 0.0

    def start(self, phase: str, total: int, done: int) -> None:
        """Start the watch."""
        del phase, total, done
        self._began = time.monotonic()

    def finish(self, phase: str) -> None:
        """Note the time."""
        self.seconds[phase] = time.monotonic() - self._began


def forecast(
    recipe: RunConfig | dict[str, Any] | str | Path, *, overrides: Sequence[str] = (), distilling: bool = False
) -> Forecast:
    """Forecast a run from a sample of its input.

    Args:
        recipe: Path of a YAML recipe, a mapping, or a config.
        overrides: ``a.b=value`` strings.
        distilling: Whether to count what `distill` asks beyond that; its time and disk are not forecast.

    Returns:
        Estimates for the whole input.

    Raises:
        ConfigError: If the recipe or an input is wrong.
        DataError: If a ready index is damaged.
    """
    config = as_config(recipe, overrides)
    if config.documents is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    with tempfile.TemporaryDirectory(prefix="fineinstructions-") as folder:
        root = Path(folder)
        staged = stage_documents(config.documents, root / "input")
        num_documents = sum(file.num_rows for file in staged)
        documents, num_read = _sample(staged, config.documents)
        num_queries = 0 if config.queries is None else sum(1 for _ in read_rows(config.queries))
        path = root / "documents.parquet"
        pq.write_table(to_table(documents, Document), path)
        clock = _Clock()
        result = run(_sample_config(config, path, root), root / "run", progress=clock)
        accounts = {figure.stage: figure.account for figure in result.funnel()}
        pairs = list(result.pairs())
        num_templates = result.folder.published("templates")
        scale = num_documents / num_read
        query_scale = num_queries / min(num_queries, SAMPLE_QUERIES) if num_queries else 1.0
        if config.templates.index:  # an index made for the sample only is none of the run's
            clock.seconds.pop("index", None)
            shutil.rmtree(root / "run" / "units" / "index")
        num_bytes = _size(root / "input") + _run_bytes(root / "run", query_scale, scale)
    num_matches, num_judged = (round(accounts[s].num_in * scale) if s in accounts else 0 for s in STAGES_OF_PAIRS)
    num_asked, num_judged = _at_most(config, num_documents) or (num_matches, num_judged)
    num_embedded = num_templates.counts["rows"] if num_templates and not config.templates.index else 0
    return Forecast(
        num_queries=num_queries,
        num_documents=num_documents,
        sample_queries=min(num_queries, SAMPLE_QUERIES),
        sample_documents=len(documents),
        num_templates=num_templates.counts["rows"] if num_templates else 0,
        num_matches=num_matches,
        num_pairs=round(len(pairs) * scale),
        seconds=sum(s * (query_scale if phase in BANK_PHASES else scale) for phase, s in clock.seconds.items()),
        bytes_on_disk=num_bytes,
        calls=(
            *_encoder_calls(config, num_embedded, num_documents, documents),
            *_calls(config, num_queries, num_asked, num_judged, documents, pairs),
            *_verdict_calls(config, num_documents, num_asked, documents, distilling),
        ),
    )


def _at_most(config: RunConfig, num_documents: int) -> tuple[int, int] | None:
    """Drafts and verdicts behind an instantiator that is a language model, at most: no gate stands before it."""
    most = num_documents * config.sample.templates_per_document
    return (most, most) if config.instantiate.model == "openai" else None


def _sample_config(config: RunConfig, documents: Path, folder: Path) -> RunConfig:
    """The recipe over the sample, on this machine, all models embedded; what has to be made for it goes to a folder."""
    sections: dict[str, Any] = {
        name: getattr(config, name).model_copy(update={"model": "embedded"})
        for name in ("genericize", "instantiate", "judge")
    }
    sections["compatibility"] = config.compatibility.model_copy(update={"screen": False})
    if config.queries is not None:
        limit = min(config.queries.limit or SAMPLE_QUERIES, SAMPLE_QUERIES)
        sections["queries"] = config.queries.model_copy(update={"limit": limit})
    if config.encoder.engine != "embedded":  # a threshold means nothing to another encoder
        sections["encoder"] = EncoderConfig()
        sections["retrieve"] = config.retrieve.model_copy(update={"min_cosine": None})
        if config.templates.index:
            sections["templates"] = _as_bank(Path(config.templates.index), folder / "bank.parquet")
    sections["documents"] = DocumentsConfig(path=str(documents), id_column="document_id")
    if config.engine.kind != "local":
        sections["engine"] = config.engine.model_copy(update={"kind": "local", "workers": None, "resources": {}})
    return config.model_copy(update=sections)


def _as_bank(index: Path, path: Path) -> TemplatesConfig:
    """The templates of a ready index as a bank, because its vectors mean nothing to the embedded encoder."""
    templates = open_index(index, verify=False).live_templates()
    with pq.ParquetWriter(path, schema_of(Template)) as writer:
        while batch := list(islice(templates, _BANK_ROWS)):
            writer.write_table(to_table(batch, Template))
    return TemplatesConfig(bank=str(path))


def _sample(staged: Sequence[StagedFile], config: DocumentsConfig) -> tuple[list[Document], int]:
    """Documents from runs of rows spread evenly over the input, and how many rows were read for them.

    Where all of those rows are bad, the rows from the start up to the first good one are the sample.
    """
    total = sum(file.num_rows for file in staged)
    length = max(1, min(SAMPLE_DOCUMENTS, total) // SAMPLE_RUNS)
    starts = sorted({min(total * i // SAMPLE_RUNS, max(total - length, 0)) for i in range(SAMPLE_RUNS)})
    rows = [row for start in starts for row in islice(_rows(staged, start, config), length)]
    documents = [row for row in rows if isinstance(row, Document)]
    if documents:
        return documents, len(rows)
    for number, row in enumerate(_rows(staged, 0, config), start=1):
        if isinstance(row, Document):
            return [row], number
    raise ConfigError(f"{config.path}: no valid row; check documents.text_column and the files")


def _rows(staged: Sequence[StagedFile], start: int, config: DocumentsConfig) -> Iterator[Document | Rejection]:
    """What the rows of the input are, from one of them on."""
    for file in staged:
        if start < file.num_rows:
            yield from read_documents(file.path, start, file.num_rows, config, name=file.name)
        start = max(0, start - file.num_rows)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _run_bytes(run: Path, query_scale: float, scale: float) -> int:
    """Size of the whole run's folder: what the queries made and what the documents made, each at its own scale."""
    units = {phase.name: _size(phase) for phase in (run / "units").iterdir()}
    rejected = {phase: sum(f.stat().st_size for f in (run / "units" / phase).rglob("rejected-*")) for phase in units}
    share = sum(rejected[phase] for phase in units if phase in BANK_PHASES) / max(1, sum(rejected.values()))
    merged = _size(run / "rejected")
    bank = sum(units[phase] for phase in units if phase in (*BANK_PHASES, "popularity"))  # a number per template
    bank += _size(run / "templates") + round(share * merged) + (run / DIAGNOSTICS_FILE).stat().st_size
    fixed = (run / CARD_FILE).stat().st_size + _size(run / "plan")  # about as long whatever the run
    return round(bank * query_scale + (_size(run) - bank - fixed) * scale) + fixed


def _encoder_calls(
    config: RunConfig, num_templates: int, num_documents: int, documents: Sequence[Document]
) -> Iterator[Calls]:
    """Calls of an encoder behind a server: every description that no index has and every document once.

    At best in full batches.
    """
    if config.encoder.engine == "endpoint":
        chars = num_documents * _mean([len(d.text) for d in documents]) + num_templates * DESCRIPTION_CHARS
        tokens = round(chars / CHARS_PER_TOKEN)
        by_texts, by_tokens = (num_documents + num_templates) / MAX_BATCH_TEXTS, tokens / config.encoder.batch_tokens
        yield Calls("encoder", config.encoder.model, round(max(by_texts, by_tokens, 1)), tokens, 0)


def _calls(
    config: RunConfig,
    num_queries: int,
    num_instantiated: int,
    num_judged: int,
    documents: Sequence[Document],
    pairs: Sequence[Pair],
) -> Iterator[Calls]:
    """Calls of the stages that ask a language model; lengths are those of the sample.

    Behind a language model matches and drafts are counted at their limit: the gate of the embedded models, which made
    the sample, lets few through that a language model would be asked about.
    """
    document_chars = min(_mean([len(d.text) for d in documents]), config.instantiate.max_document_chars)
    pair_chars = _mean([len(p.text) for p in pairs]) or 800.0
    plans = (
        ("genericize", config.genericize, num_queries, 100.0, 400.0),
        ("instantiate", config.instantiate, num_instantiated, document_chars, pair_chars / 2),
        ("judge", config.judge, num_judged, pair_chars, 300.0),
    )
    for stage, section, number, prompt_chars, reply_chars in plans:
        if section.model == "openai":
            prompt_tokens = PROMPT_OVERHEAD_TOKENS + prompt_chars / CHARS_PER_TOKEN
            llm = with_overrides(config.llm, section.llm)
            tokens = round(number * prompt_tokens), round(number * reply_chars / CHARS_PER_TOKEN)
            is_limit = stage != "genericize" and config.instantiate.model == "openai"
            yield Calls(stage, llm.model, number, *tokens, is_limit, _cost(llm, *tokens))


def _verdict_calls(
    config: RunConfig, num_documents: int, num_matches: int, documents: Sequence[Document], distilling: bool
) -> Iterator[Calls]:
    """Calls of the compatibility judge, at most: the matches, and for `distill` every vector's nearest templates."""
    section = config.compatibility
    if section.model == "openai" and (distilling or section.screen):
        vectors = 1 if config.encoder.engine == "endpoint" else config.chunk.coverage_chunks + 1
        near = num_documents * vectors * config.distill.candidates_per_vector if distilling else 0
        number = near + num_matches
        chars = min(_mean([len(d.text) for d in documents]), section.max_document_chars)
        prompt_tokens = PROMPT_OVERHEAD_TOKENS + chars / CHARS_PER_TOKEN
        llm = with_overrides(config.llm, section.llm)
        tokens = round(number * prompt_tokens), round(number * VERDICT_CHARS / CHARS_PER_TOKEN)
        yield Calls("compatibility", llm.model, number, *tokens, True, _cost(llm, *tokens))


def _cost(llm: LlmConfig, prompt_tokens: int, completion_tokens: int) -> float | None:
    """What tokens cost at the recipe's prices; ``None`` where there are none."""
    if llm.prompt_price is None and llm.completion_price is None:
        return None
    return (prompt_tokens * (llm.prompt_price or 0) + completion_tokens * (llm.completion_price or 0)) / 1e6


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
