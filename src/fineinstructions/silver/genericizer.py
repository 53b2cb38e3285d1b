"""Template drafts to training rows of a genericizer.

In: queries with the drafts that a teacher made of them. Out: rows or rejections, one per draft. The decision a reader
would question: drafts and not merged templates, because a student has to learn what one query becomes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fineinstructions.markup import slot_names
from fineinstructions.records import Query, Rejection, TemplateDraft, content_id, rejection
from fineinstructions.silver.choose import DistillConfig, lowest, luck, split_of
from fineinstructions.silver.rows import GenericizerRow, conversation

STAGE = "silver_genericizer"


@dataclass(frozen=True)
class Student:
    """How a student is asked and answers; given by the room whose work it learns."""

    messages: Callable[[str], tuple[tuple[str, str], ...]]
    """From a query to the prompt, role and content of every turn."""
    reply: Callable[[str, str], str]
    """From template and description to the reply."""


def last_drawn(query_ids: Iterable[str], config: DistillConfig, seed: int) -> int:
    """Highest luck of a query that is still drawn."""
    return lowest(np.fromiter((luck(seed, STAGE, i) for i in query_ids), np.uint64), config.genericizer_rows)


def genericizer_rows(
    items: Iterable[tuple[Query, TemplateDraft]],
    last: int,
    student: Student,
    teacher: str,
    config: DistillConfig,
    seed: int,
) -> Iterator[GenericizerRow | Rejection]:
    """Rows of the drawn queries.

    Args:
        items: Queries with their checked drafts.
        last: What `last_drawn` says.
        student: How a student is asked and answers.
        teacher: The genericizer that made the drafts.
        config: The share of validation.
        seed: Seed of the run.

    Yields:
        One row or rejection per item: ``surplus`` where the query is not drawn.

    Source:
        arXiv:2601.22146, section 3.1: about 50,000 queries.
    """
    for query, draft in items:
        if luck(seed, STAGE, query.query_id) > last:
            yield rejection(STAGE, "surplus", query.query_id, {"query_id": query.query_id})
            continue
        reply = student.reply(draft.template, draft.compatible_document_description)
        prompt, completion = conversation(student.messages(query.text), reply)
        yield GenericizerRow(
            row_id=content_id("g", query.query_id),
            split=split_of(seed, "query", query.query_id, config.validation_share),
            prompt=prompt,
            completion=completion,
            reply=reply,
            query_id=query.query_id,
            query=query.text,
            template=draft.template,
            compatible_document_description=draft.compatible_document_description,
            num_slots=len(slot_names(draft.template)),
            source=query.source,
            licence=query.licence,
            teacher=teacher,
        )
