"""The rows that students are trained on, one type per student; their fields are the columns of the Parquet files.

`prompt` and `completion` are lists of messages, which is what ``trl.SFTTrainer`` takes as a prompt-completion data set
(loss on the completion only); `reply` is the completion's text by itself. The prompt is, message by message, what
`fineinstructions run` asks a student with ``prompt: published``, so a student meets in production what it has learnt.
"""

from dataclasses import dataclass
from typing import Any

TRAIN, VALIDATION = "train", "validation"
PHASES = ("compatibility", "silver")
"""Phases that make silver data."""
LINKS = (("chunk", "mine"), ("mined", "compatibility"))
"""What leaves the first figure enters the second."""
REJECTED = "silver_rejected"
"""Table of what those phases turned away."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


def conversation(prompt: tuple[tuple[str, str], ...], reply: str) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """A prompt and its completion as messages.

    Args:
        prompt: Role and content of every turn.
        reply: What the assistant is to answer.
    """
    return tuple(Message(role, content) for role, content in prompt), (Message("assistant", reply),)


@dataclass(frozen=True, slots=True)
class GenericizerRow:
    """One query and the template that a student is to make of it."""

    row_id: str
    split: str
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    reply: str
    query_id: str
    query: str
    template: str
    compatible_document_description: str
    num_slots: int
    source: str
    licence: str
    """Licence of the query."""
    teacher: str
    """The genericizer, as a JSON object."""


@dataclass(frozen=True, slots=True)
class InstantiatorRow:
    """One template and document, and the filled instruction and answer, or ``null``, that a student is to make."""

    row_id: str
    split: str
    round: int
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    reply: str
    refusal: bool
    document_id: str
    window_start: int
    """The part of the document that the prompt shows, half-open."""
    window_end: int
    template_id: str
    template: str
    query_ids: tuple[str, ...]
    instruction: str
    """Empty for a refusal, as are the next two."""
    answer: str
    """With its excerpts written out; the reply has them in short-hand."""
    excerpt_ratio: float | None
    judge_score: int | None
    length: str
    """Stratum of the answer's length in words, such as ``50-149``."""
    num_slots: int
    topic: str
    reason: str
    """Why the compatibility judge turned the template down; empty where the row is no refusal."""
    source: str
    licence: str
    """Licence of the document."""
    template_licence: str
    teacher: str
    """The instantiator of an answer, the compatibility judge of a refusal, as a JSON object."""


@dataclass(frozen=True, slots=True)
class EmbedderRow:
    """One document and description, and whether they belong together.

    The first three columns are those of a sentence-transformers data set for a loss on cosines.
    """

    document: str
    description: str
    """The compatible document description."""
    label: float
    """1 where the judge calls the pair compatible, else 0."""
    chunk: int
    """Coverage chunk that the pair is about, 0-based, -1 for the whole document: the one in which the judge found the
    answer, else the one whose vector retrieved the template."""
    split: str
    row_id: str
    document_id: str
    template_id: str
    template: str
    retrieved_chunk: int
    cosine: float
    """Between the retrieving vector and the description, by the encoder of the run."""
    quote_start: int
    """Where the judge's quotation stands in the document, half-open; -1 for none."""
    quote_end: int
    reason: str
    source: str
    licence: str
    """Licence of the document."""
    template_licence: str
    teacher: str
    """The compatibility judge, as a JSON object."""


TABLES: dict[str, type[Any]] = {
    "genericizer": GenericizerRow,
    "instantiator_1": InstantiatorRow,
    "instantiator_2": InstantiatorRow,
    "embedder": EmbedderRow,
}
"""Tables of silver data and what their rows are; each is written once per split."""
PUBLISHED = {f"{name}_{split}": f"{name}_{split}" for name in TABLES for split in (TRAIN, VALIDATION)}
"""Figure that equals the number of rows of every table."""
