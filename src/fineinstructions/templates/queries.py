"""Stage 1: reads real user queries and cleans them, each drop with its reason.

In: files of queries in any format. Out: cleaned `Query` records and rejections, one per row, in input order. Clean-up
and scrubbing change a text, the other filters only drop; filters that look at one query run before the two that look
for duplicates, so which queries survive depends on their order only among duplicates, where the first one stays.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from fineinstructions.backends.llm_config import without_secrets
from fineinstructions.config import Config
from fineinstructions.decontamination import BenchmarkConfig, Decontaminator
from fineinstructions.errors import BackendError, DataError
from fineinstructions.filters import ExactDuplicates, NearDuplicates, clean_text, foreign_probability, hash64
from fineinstructions.formats import Row
from fineinstructions.moderation import ModerationEndpoint, Moderator, Verdict, WordList
from fineinstructions.pii import scrub
from fineinstructions.readers import SourceConfig, read_rows, take_fields
from fineinstructions.records import Query, Rejection, rejection

STAGE = "queries"

T = TypeVar("T")
U = TypeVar("U")


class ModerationConfig(Config):
    """Harmful queries: off unless a word list or a model is named."""

    word_list: str | None = None
    """File with one word or phrase per line; a query with one of them is dropped."""
    model: str | None = None
    """Model of an OpenAI-compatible moderation endpoint, as in the paper (section 3.1): ``omni-moderation-latest``."""
    base_url: Annotated[str, AfterValidator(without_secrets)] | None = None
    """Server of the endpoint; ``None`` takes ``OPENAI_BASE_URL``."""
    batch_size: int = Field(default=32, ge=1)
    """Queries in one request. Default: ours."""


class QueriesConfig(SourceConfig):
    """Real user queries: where they are, and which are kept."""

    section: ClassVar[str] = "queries"
    noun: ClassVar[str] = "query"

    text_mode: Literal["file", "line"] = "line"
    """What one row of a plain text file is. Default: one query per line."""
    min_chars: int = Field(default=3, ge=1)
    """Shortest query in characters, after clean-up. Default: ours; the paper states no length filter."""
    max_chars: int = Field(default=4000, ge=1)
    """Longest query in characters. Default: ours."""
    min_words: int = Field(default=2, ge=1)
    """Fewest words. Default: ours; one word has nothing to put a slot beside."""
    max_words: int = Field(default=800, ge=1)
    """Most words. Default: ours."""
    languages: list[str] = Field(default=["en"])
    """Two-letter codes of the languages to keep; an empty list keeps all. Default: the released queries are English."""
    min_foreign_probability: float = Field(default=0.9, ge=0, le=1)
    """How sure the language model must be to drop a query. Default: ours, short queries are often misjudged."""
    pii: Literal["scrub", "reject", "keep"] = "scrub"
    """E-mail and IP addresses, phone, card and account numbers, passwords in addresses: replaced by their kind, cause
    to drop the query, or left; the rejections on file are scrubbed too, unless they are left. Default: ours; the paper
    describes no such step."""
    near_duplicates: bool = True
    """Whether near duplicates are dropped; exact ones always are. Default: ours."""
    near_duplicate_threshold: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of 5-word shingles that makes a query over 20 words a repetition. Default: ours."""
    benchmarks: list[BenchmarkConfig] = Field(default=[])
    """Benchmarks whose items are kept out. Default: none, we ship none; the paper used the Tulu 3 procedure."""
    min_benchmark_share: float = Field(default=0.5, gt=0, le=1)
    """Share of 8-grams in common with one benchmark item from which a query is dropped. Default: Tulu 3, one half."""
    moderation: ModerationConfig = ModerationConfig()
    """Filter for harmful queries."""


def read_queries(config: QueriesConfig) -> Iterator[Query | Rejection]:
    """Queries of all input files, as they were written.

    Args:
        config: The ``queries`` section.

    Yields:
        One item per row. Reasons as in `readers.read_documents`, with ``query_too_large``.

    Raises:
        ConfigError: If a file cannot be read or lacks the text column.
        DataError: If rows of the files and items do not agree in number.
    """
    return one_each(read_rows(config), lambda rows: _queries_of(rows, config))


def one_each(rows: Iterable[T], operator: Callable[[Iterator[T]], Iterator[U]]) -> Iterator[U]:
    """What an operator makes of rows, counted at both ends.

    The rows of queries are not planned like those of documents, so that nothing else knows how many there are.

    Args:
        rows: Rows as they come from the source.
        operator: Turns an iterator of rows into one item per row; it may run ahead.

    Yields:
        The operator's items.

    Raises:
        DataError: At the end, if the operator lost rows, invented items or stopped early.
    """
    num_rows = num_items = 0

    def counted() -> Iterator[T]:
        nonlocal num_rows
        for row in rows:
            num_rows += 1
            yield row

    entering = counted()
    for item in operator(entering):
        num_items += 1
        yield item
    for _ in entering:
        pass
    if num_rows != num_items:
        raise DataError(f"queries: {num_rows} rows were read, but {num_items} are accounted for")


def _queries_of(rows: Iterable[tuple[Row, str, bool]], config: QueriesConfig) -> Iterator[Query | Rejection]:
    seen: set[int] = set()
    for row, name, has_id in rows:
        fields = take_fields(row, config, name, has_id)
        if isinstance(fields, Rejection):
            yield fields
            continue
        key = hash64(fields.record_id)
        if has_id and key in seen:
            yield rejection(STAGE, "repeated_id", fields.record_id, {"file": name, "row": row.number})
            continue
        seen.add(key)
        yield Query(fields.record_id, fields.text, fields.source, fields.licence)


def clean(
    rows: Iterable[Query | Rejection],
    config: QueriesConfig,
    decontaminator: Decontaminator | None = None,
    moderator: Moderator | None = None,
) -> Iterator[Query | Rejection]:
    """Clean queries up and drop those that are of no use.

    Args:
        rows: Queries, and rejections that pass through.
        config: The ``queries`` section.
        decontaminator: Benchmarks to keep out; by default those of the config.
        moderator: Judge of harm; by default that of the config.

    Yields:
        One item per row, in order. Reasons: ``empty``, ``too_short``, ``too_long``, ``too_few_words``,
        ``too_many_words``, ``foreign_language`` (value: probability), ``harmful`` (value: score), ``benchmark_exact``,
        ``benchmark_13_gram`` and ``benchmark_8_gram`` (value: share of 8-grams), ``pii``, ``exact_duplicate``,
        ``near_duplicate`` (value: similarity).

    Raises:
        ConfigError: If a benchmark or word list cannot be read.
        BackendError: If a moderation endpoint does not answer, or not for every query.
        DataError: If a row was lost on the way.
    """
    return one_each(rows, lambda counted: _cleaned(counted, config, decontaminator, moderator))


def _cleaned(
    rows: Iterable[Query | Rejection],
    config: QueriesConfig,
    decontaminator: Decontaminator | None,
    moderator: Moderator | None,
) -> Iterator[Query | Rejection]:
    if decontaminator is None and config.benchmarks:
        decontaminator = Decontaminator.from_files(config.benchmarks, config.min_benchmark_share)
    judged = _moderated(rows, moderator or _moderator(config.moderation), config)
    exact = ExactDuplicates()
    near = NearDuplicates(config.near_duplicate_threshold) if config.near_duplicates else None
    for item in judged:
        if isinstance(item, Rejection):
            yield item
            continue
        kept = _scrubbed(_uncontaminated(item, decontaminator, config), config)
        yield kept if isinstance(kept, Rejection) else _first_of_its_kind(kept, exact, near)


def _moderator(config: ModerationConfig) -> Moderator | None:
    moderators: list[Moderator] = []
    if config.word_list:
        moderators.append(WordList.from_file(config.word_list))
    if config.model:
        moderators.append(ModerationEndpoint(config.model, config.base_url))
    return _All(moderators) if moderators else None


class _All:
    """Several moderators as one: the first that flags a text speaks for all."""

    def __init__(self, moderators: list[Moderator]) -> None:
        self._moderators = moderators

    def moderate(self, texts: Sequence[str]) -> list[Verdict]:
        verdicts = [m.moderate(texts) for m in self._moderators]
        return [next((v for v in several if v.is_flagged), several[0]) for several in zip(*verdicts, strict=True)]


def _moderated(
    rows: Iterable[Query | Rejection], moderator: Moderator | None, config: QueriesConfig
) -> Iterator[Query | Rejection]:
    """Clean-up, length and language; then the moderator, a batch at a time."""
    checked = (row if isinstance(row, Rejection) else _well_formed(row, config) for row in rows)
    if moderator is None:
        yield from checked
        return
    while batch := list(islice(checked, config.moderation.batch_size)):
        queries = [item for item in batch if isinstance(item, Query)]
        judged = moderator.moderate([q.text for q in queries]) if queries else []
        if len(judged) != len(queries):
            raise BackendError(f"moderation: {len(judged)} verdicts for {len(queries)} queries")
        verdicts = iter(judged)
        for item in batch:
            yield item if isinstance(item, Rejection) else _unharmful(item, next(verdicts), config)


def _unharmful(query: Query, verdict: Verdict, config: QueriesConfig) -> Query | Rejection:
    return _turned_away(query, "harmful", config, verdict.score) if verdict.is_flagged else query


def _turned_away(query: Query, reason: str, config: QueriesConfig, value: float | None = None) -> Rejection:
    """A rejection that keeps no personal data that a kept query would not have kept."""
    filed = query if config.pii == "keep" else replace(query, text=scrub(query.text)[0])
    return rejection(STAGE, reason, query.query_id, filed, value)


def _well_formed(query: Query, config: QueriesConfig) -> Query | Rejection:
    text = clean_text(query.text)
    query = replace(query, text=text)
    num_chars, num_words = len(text), len(text.split())
    reason, value = "", None
    if not text:
        reason = "empty"
    elif num_chars < config.min_chars:
        reason, value = "too_short", num_chars
    elif num_chars > config.max_chars:
        reason, value = "too_long", num_chars
    elif num_words < config.min_words:
        reason, value = "too_few_words", num_words
    elif num_words > config.max_words:
        reason, value = "too_many_words", num_words
    if reason:
        return _turned_away(query, reason, config, value)
    if config.languages:
        probability = foreign_probability(text, tuple(config.languages))
        if probability >= config.min_foreign_probability:
            return _turned_away(query, "foreign_language", config, probability)
    return query


def _uncontaminated(query: Query, decontaminator: Decontaminator | None, config: QueriesConfig) -> Query | Rejection:
    overlap = decontaminator.find(query.text) if decontaminator else None
    if overlap is None:
        return query
    return _turned_away(query, f"benchmark_{overlap.kind}", config, overlap.share)


def _scrubbed(query: Query | Rejection, config: QueriesConfig) -> Query | Rejection:
    if isinstance(query, Rejection) or config.pii == "keep":
        return query
    text, kinds = scrub(query.text)
    if kinds and config.pii == "reject":
        return rejection(STAGE, "pii", query.query_id, {"query_id": query.query_id, "kinds": list(kinds)})
    return replace(query, text=text) if kinds else query


def _first_of_its_kind(query: Query, exact: ExactDuplicates, near: NearDuplicates | None) -> Query | Rejection:
    if exact.is_repeat(query.text):
        return rejection(STAGE, "exact_duplicate", query.query_id, query)
    earlier = near.find(query.text, query.query_id) if near else None
    if earlier is None:
        return query
    name, similarity = earlier
    record = {"query_id": query.query_id, "text": query.text, "duplicate_of": name}
    return rejection(STAGE, "near_duplicate", query.query_id, record, similarity)
