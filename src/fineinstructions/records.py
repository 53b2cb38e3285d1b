"""The records that flow through the pipeline, and their Arrow schemas.

A record is a frozen dataclass; its Arrow schema is derived from its annotations, so a table and a record cannot drift
apart. What goes wrong with one record is a `Rejection`, which is a record too: nothing disappears.

Offsets are half-open and count Unicode code points of the text exactly as it was read.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

PENDING = "pending"
"""Reason of a record whose question stands in a batch file; the work unit waits for the answer and is not committed."""
GLOBAL_CHUNK = -1
"""Value of `chunk` for the vector of the whole document."""


def content_id(prefix: str, *parts: str) -> str:
    """Short content hash with a kind prefix, for ids that we make.

    Args:
        prefix: Kind of record, for example ``t`` for a template.
        parts: Texts that identify the record; their borders count.

    Returns:
        The prefix, a dash and 16 hexadecimal digits (64 bits of BLAKE2b).

    Example:
        >>> content_id("t", "What is <fi>a disease</fi>?")
        't-c16bea88888864c5'
        >>> content_id("t", "ab", "c") == content_id("t", "a", "bc")
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return f"{prefix}-{digest.hexdigest()}"


def content_ids(prefix: str, first: str, *columns: Iterable[int]) -> list[str]:
    """`content_id` of many records that share their first part, the other parts being whole numbers, in columns.

    Example:
        >>> content_ids("u", "file", [0, 10], [10, 20])[1] == content_id("u", "file", "10", "20")
        True
    """
    raw = first.encode("utf-8", "surrogatepass")
    begun = hashlib.blake2b(len(raw).to_bytes(8, "little") + raw, digest_size=8)

    def one(parts: tuple[bytes, ...]) -> str:
        digest = begun.copy()
        digest.update(b"".join(parts))
        return f"{prefix}-{digest.hexdigest()}"

    return [one(parts) for parts in zip(*map(_framed, columns), strict=False)]


def _framed(numbers: Iterable[int]) -> Iterator[bytes]:
    """Numbers as `content_id` takes their texts: each behind its length."""
    return (b"%c\0\0\0\0\0\0\0" % len(raw) + raw for raw in map(b"%d".__mod__, numbers))


@dataclass(frozen=True, slots=True)
class Query:
    """A real user query, cleaned."""

    query_id: str
    text: str
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class TemplateDraft:
    """What a genericizer made of one query; drafts of one meaning become one `Template`."""

    query_id: str
    template: str
    compatible_document_description: str
    fillers: tuple[str, ...] = ()
    """The query's own words in each slot, in slot order; empty where the genericizer does not tell."""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """An instruction template with ``<fi>description</fi>`` slots."""

    template_id: str
    template: str
    compatible_document_description: str
    num_slots: int
    query_ids: tuple[str, ...]
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the corpus, its text exactly as read."""

    document_id: str
    text: str
    title: str = ""
    url: str = ""
    source: str = ""
    licence: str = ""
    metadata: str = "{}"
    """The other columns of the input row, as a JSON object."""


@dataclass(frozen=True, slots=True)
class Match:
    """A template that a document's vector retrieved."""

    document_id: str
    template_id: str
    chunk: int
    """Coverage chunk whose vector retrieved the template, 0-based; `GLOBAL_CHUNK` for the whole document."""
    cosine: float
    sampled: bool = False
    num_above: int = 0
    """How many templates lay above the threshold for this vector, before `max_candidates` cut them."""


@dataclass(frozen=True, slots=True)
class Compatibility:
    """A judge's verdict on whether a document can answer what a template asks."""

    document_id: str
    template_id: str
    chunk: int
    """Coverage chunk whose vector retrieved the template, 0-based; `GLOBAL_CHUNK` for the whole document."""
    cosine: float
    compatible: bool
    reason: str
    quote_start: int
    """Where the words that the judge quotes stand in the document, half-open; -1 where it quotes none, or its words are
    not there, or in several places."""
    quote_end: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One filled slot."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A verbatim span: ``answer[answer_start:answer_end] == document[document_start:document_end]``."""

    answer_start: int
    answer_end: int
    document_start: int
    document_end: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A filled instruction and an answer that still holds ``<excerpt>`` tags."""

    document_id: str
    template_id: str
    chunk: int
    cosine: float
    instruction: str
    answer: str
    slots: tuple[Slot, ...]
    model: str = ""
    """The instantiator: model name, revision, prompt digest, as a JSON object."""
    raw: str = ""
    """The model's reply as it came; empty for models that do not reply in text."""
    generated_tokens: int = 0
    """Tokens that were generated for this draft, as the server counted them, or an estimate where nobody did; replies
    that did not parse are not among them."""
    repairs: int = 0
    """How often the model was asked to mend an excerpt."""


@dataclass(frozen=True, slots=True)
class ExpandedDraft:
    """A draft whose excerpts are verbatim text with offsets."""

    document_id: str
    template_id: str
    chunk: int
    cosine: float
    instruction: str
    answer: str
    slots: tuple[Slot, ...]
    excerpts: tuple[Excerpt, ...]
    excerpt_ratio: float
    """Share of the answer's characters inside the union of its excerpts."""
    coverage_ratio: float
    """Share of the answer's characters that greedy longest matches with the document cover, tags aside."""
    model: str = ""
    generated_tokens: int = 0
    """As `Draft.generated_tokens`."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's verdict on one pair."""

    pair_id: str
    score: int
    feedback: str
    model: str = ""
    """The judge: name, revision, prompt digest, length it is served with, as a JSON object; empty for `Judge.model`."""
    expected_score: float | None = None
    """Mean score by the probabilities of all five; None where the judge gives none."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A judged instruction-answer pair: one row of ``RUN/pairs``."""

    pair_id: str
    document_id: str
    template_id: str
    query_ids: tuple[str, ...]
    chunk: int
    cosine: float
    instruction: str
    answer: str
    slots: tuple[Slot, ...]
    excerpts: tuple[Excerpt, ...]
    excerpt_ratio: float
    coverage_ratio: float
    judge_score: int
    judge_expected_score: float | None = dataclasses.field(default=None, kw_only=True)
    """Mean of the scores 1 to 5 by their probabilities; null where the judge gives no probabilities."""
    judge_feedback: str
    models: str
    """Genericizer, encoder, instantiator and judge with their versions and prompt digests, as a JSON object."""
    licence: str
    """Licence of the document."""
    template_licence: str
    """Licences of the queries behind the template, separated by ``; ``."""
    source: str
    """Source of the document."""
    title: str
    url: str
    metadata: str
    text: str
    """``Instruction: ...\\n\\nAnswer: ...``, the paper's training format (section 4.2)."""
    generated_tokens: int = 0
    """As `Draft.generated_tokens`."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that left the pipeline, with the stage, the reason and the value that decided."""

    stage: str
    reason: str
    record_id: str
    value: float | None = None
    record: str = "{}"
    """The record as it was, as a JSON object, so that a threshold can be moved later without asking a model again."""
    failed: bool = False
    """True when an engine failed (a server did not answer, a worker died), false when the record was turned down."""


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What single stages made of one given row: a row of the output of ``fineinstructions instantiate``."""

    id: str | None
    """Id of the row, as given."""
    instruction: str | None
    answer: str | None
    """Verbatim excerpts written out; none where `rejected_stage` is set."""
    excerpts: tuple[Excerpt, ...]
    """Of `answer`, or of `draft` where the row was turned away later."""
    excerpt_ratio: float | None
    judge_score: int | None
    rejected_stage: str | None
    reason: str | None
    draft: str | None
    """The answer that was turned away: with its excerpts written out if they were found, else with its tags, or the
    model's whole reply where that could not be read."""
    judge_feedback: str | None
    template: str | None
    num_slots: int | None
    document_chars: int
    generated_tokens: int | None
    answer_tokens: int | None
    """Estimated."""
    models: str
    """Genericizer, instantiator and judge, as a JSON object."""
    failed: bool
    """Whether an engine failed on the row."""


R = TypeVar("R")


def _arrow_type(annotation: Any) -> pa.DataType:
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (a for a in typing.get_args(annotation) if a is not type(None))
        return _arrow_type(inner)
    if origin is tuple:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if dataclasses.is_dataclass(annotation):
        return pa.struct([pa.field(f.name, _arrow_type(t)) for f, t in _typed_fields(annotation)])
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[annotation]


def _typed_fields(record_type: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(record_type)
    return [(f, hints[f.name]) for f in dataclasses.fields(record_type)]


def schema_of(record_type: type[R]) -> pa.Schema:
    """Arrow schema of a record type; every column is nullable only where its annotation says so.

    Example:
        >>> schema_of(Slot).names
        ['name', 'value']
    """
    fields = []
    for field, annotation in _typed_fields(record_type):
        nullable = type(None) in typing.get_args(annotation)
        fields.append(pa.field(field.name, _arrow_type(annotation), nullable=nullable))
    return pa.schema(fields)


def to_table(records: Iterable[R], record_type: type[R]) -> pa.Table:
    """Records as an Arrow table in the schema of their type."""
    rows, schema = list(records), schema_of(record_type)
    columns = []
    for field in schema:
        values = [getattr(row, field.name) for row in rows]
        columns.append(pa.array(map(_plain, values) if pa.types.is_nested(field.type) else values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table, record_type: type[R]) -> Iterator[R]:
    """Rows of an Arrow table as records; columns that the record does not have are ignored."""
    names = [f.name for f in dataclasses.fields(typing.cast(Any, record_type)) if f.name in table.column_names]
    builders = [_builder(annotation) for f, annotation in _typed_fields(record_type) if f.name in names]
    for batch in table.select(names).to_batches(max_chunksize=1024):
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield record_type(**{n: build(v) for n, build, v in zip(names, builders, row, strict=True)})


def _builder(annotation: Any) -> Any:
    """Function that turns a plain Arrow value into what the annotation says."""
    if typing.get_origin(annotation) is tuple:
        inner = _builder(typing.get_args(annotation)[0])
        return lambda values: tuple(inner(v) for v in values)
    if dataclasses.is_dataclass(annotation):
        return lambda value: typing.cast(Any, annotation)(**value)
    return lambda value: value


def as_dict(record: Any) -> dict[str, Any]:
    """A record as plain dictionaries and lists, field by field."""
    return {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return as_dict(value) if dataclasses.is_dataclass(value) else value


def to_json(record: Any) -> str:
    """A record (or plain value) as compact JSON with sorted keys."""
    plain = as_dict(record) if dataclasses.is_dataclass(record) else record
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def rejection(stage: str, reason: str, record_id: str, record: Any, value: float | None = None) -> Rejection:
    """Rejection of a record, with the record itself kept as JSON."""
    return Rejection(stage=stage, reason=reason, record_id=record_id, value=value, record=to_json(record))


def failure(stage: str, reason: str, record_id: str, record: Any) -> Rejection:
    """Like `rejection`, for a record that an engine's failure took down."""
    return Rejection(stage=stage, reason=reason, record_id=record_id, record=to_json(record), failed=True)
