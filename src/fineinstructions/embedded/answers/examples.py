"""Labelled questions for the answer models: people's questions about stories, and about health pages.

In: Parquet files of questions and documents. Out: `Example`s with the spans that answer. The decision to question: a
document of the development set is never learned from, whatever split its questions are marked with.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

NUM_FOLDS = 5
"""The last fold is held out to choose thresholds."""


@dataclass(frozen=True)
class Example:
    """A question and the spans of a text that answer it."""

    question: str
    text: str
    title: str
    spans: tuple[tuple[int, int], ...]
    group: str
    """Story or page; a text of the same group is about the same thing."""
    kind: str
    """``story``, ``health`` or ``page``."""
    asks: str = ""
    """Type of question, where the data tell it."""

    @property
    def fold(self) -> int:
        """Which fold the group is in: the same for everything about one story or page."""
        return hashlib.blake2b(self.group.encode(), digest_size=1).digest()[0] % NUM_FOLDS


def story_examples(path: Path, split: str, held_out: frozenset[str] = frozenset()) -> list[Example]:
    """Questions about stories that a literal span answers.

    Args:
        path: FairytaleQA.
        split: ``train`` or ``val``.
        held_out: Documents whose questions are dropped.
    """
    found = []
    for row in pq.read_table(path).to_pylist():
        spans = tuple((a, b) for a, b in zip(row["answer_starts"], row["answer_ends"], strict=True) if a >= 0)
        if row["split"] == split and spans and row["doc_id"] not in held_out and row["explicitness"] == "explicit":
            found.append(Example(row["question"], row["context"], "", spans, row["story"], "story"))
    return found


def health_examples(path: Path, texts: Mapping[str, tuple[str, str]]) -> list[Example]:
    """Questions about health pages, of pages whose title and text are given.

    Args:
        path: MedQuAD.
        texts: Title and text by document id.
    """
    found = []
    for row in pq.read_table(path).to_pylist():
        if row["doc_id"] in texts and row["answer_start"] is not None and row["answer_start"] >= 0:
            title, text = texts[row["doc_id"]]
            span = (row["answer_start"], row["answer_end"])
            question = row["question"].replace("What is (are)", "What is")
            found.append(Example(question, text, title, (span,), row["doc_id"], "health", row["question_type"]))
    return found


def read_documents(paths: Iterable[Path], held_out: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """Title and text by id, without those that are held out."""
    found = {}
    for path in paths:
        for row in pq.read_table(path, columns=["id", "title", "text"]).to_pylist():
            if row["id"] not in held_out:
                found[row["id"]] = (row["title"] or "", row["text"])
    return found


def read_ids(path: Path) -> frozenset[str]:
    """Ids of the documents of a file."""
    return frozenset(pq.read_table(path, columns=["id"])["id"].to_pylist())
