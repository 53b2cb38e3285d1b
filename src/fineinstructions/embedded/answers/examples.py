"""Labelled questions for the answer models: people's questions about stories, and about health pages.

In: Parquet files of questions and documents. Out: `Example`s with the spans that answer. The decision to question: a
document of the development set is never learned from, whatever split its questions are marked with.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from fineinstructions.embedded.answers.lexical import content_stems
from fineinstructions.embedded.answers.sentences import Sentences

NUM_FOLDS = 3
"""Every fold is scored by what the others taught."""
MIN_INFERRED_SHARE = 0.6
"""A sentence must hold so much of an answer's words to be taken for where the answer was read (ours)."""

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Example:
    """A question and the spans of a text that answer it."""

    question: str
    text: str
    title: str
    spans: Spans
    group: str
    """Story or page; a text of the same group is about the same thing."""
    kind: str
    """``story``, ``health`` or ``page``."""
    asks: str = ""
    """Type of question, where the data tell it."""
    source: str = ""
    """Publisher of the page, where there are several."""
    inferred: bool = False
    """Whether the spans are a sentence that holds the answer's words, not one that a person marked."""

    @property
    def luck(self) -> int:
        """A number from the group alone: the same for everything about one story or page."""
        return int.from_bytes(hashlib.blake2b(self.group.encode(), digest_size=4).digest(), "little")

    @property
    def fold(self) -> int:
        """Which fold the group is in."""
        return self.luck % NUM_FOLDS


def story_examples(
    path: Path, split: str, held_out: frozenset[str] = frozenset(), infer: bool = False
) -> list[Example]:
    """Questions about stories that a literal span answers.

    Args:
        path: FairytaleQA.
        split: ``train`` or ``val``.
        held_out: Documents whose questions are dropped.
        infer: Whether other questions are taken too, where one sentence holds most of an answer's words.
    """
    found = []
    for row in pq.read_table(path).to_pylist():
        if row["split"] != split or row["doc_id"] in held_out:
            continue
        spans = tuple((a, b) for a, b in zip(row["answer_starts"], row["answer_ends"], strict=True) if a >= 0)
        marked = bool(spans) and row["explicitness"] == "explicit"
        if infer and not spans:
            spans = _inferred(row["context"], row["question"], row["answers"])
        if spans and (marked or infer):
            example = Example(row["question"], row["context"], "", spans, row["story"], "story")
            found.append(replace(example, inferred=not marked))
    return found


def _inferred(text: str, question: str, answers: Sequence[str]) -> Spans:
    """The one sentence that holds more of an answer's words than any other, if they are most of them."""
    sentences = Sentences(text)
    asked = set(content_stems(question))
    for answer in answers:
        words = set(content_stems(answer))
        words = words - asked or words
        shares = [len(words & stems) / max(1, len(words)) for stems in sentences.sets]
        best = max(shares, default=0.0)
        if best >= MIN_INFERRED_SHARE and shares.count(best) == 1:
            return (sentences.spans[shares.index(best)],)
    return ()


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
            asks, source = row["question_type"], row.get("subsource") or ""
            found.append(Example(question, text, title, (span,), row["doc_id"], "health", asks, source))
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
