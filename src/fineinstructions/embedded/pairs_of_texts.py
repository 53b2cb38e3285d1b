"""Pairs of texts that belong together, for the encoder: from labelled questions and from documents' own structure.

In: documents and labelled questions. Out: `Source`s of the encoder's rows. The decision to question: a description is
paired with the sections whose headings name its relation, since nothing else shows the encoder what a description asks.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.embedded.contrastive import Source
from fineinstructions.embedded.descriptions import describe, relations_of

Encode = Callable[[str], NDArray[np.int32]]
"""A text's rows in the encoder's table."""
Texts = tuple[str, str]

MAX_WORDS = 160
"""Longest text of a pair, in words; a longer one is cut into several pairs."""
MIN_WORDS = 12
MAX_WINDOWS = 3
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)
_KIND_OF_DOMAIN = {"medicine": "a disease", "recipes": "a food or dish", "technical_docs": "a command"}
HOLD_OUT = 12
"""One story and page of so many is kept from training, to choose the weight of the encoder on."""
SHARES = {"questions on stories": 2.0, "questions on health": 3.0, "questions on meetings": 1.5}
SHARES |= {"titles": 2.0, "headings": 2.5, "neighbours": 3.5, "descriptions": 2.0}


def windows(text: str) -> list[str]:
    """A text in runs of at most `MAX_WORDS` words, the first few of them.

    Example:
        >>> [len(w.split()) for w in windows("word " * 400)]
        [160, 160, 80]
    """
    words = text.split()
    runs = [words[k : k + MAX_WORDS] for k in range(0, len(words), MAX_WORDS)]
    return [" ".join(run) for run in runs if len(run) >= MIN_WORDS][:MAX_WINDOWS]


def is_kept_back(group: str) -> bool:
    """Whether questions about a story or page are kept from training."""
    return hashlib.blake2b(f"encoder {group}".encode(), digest_size=4).digest()[0] % HOLD_OUT == 0


def question_pairs(supervised: Path, held_out: frozenset[str]) -> dict[str, list[Texts]]:
    """Training questions with the passages that answer them, by source."""
    stories = pq.read_table(supervised / "fairytaleqa.parquet").to_pylist()
    health = pq.read_table(supervised / "medquad.parquet").to_pylist()
    meetings = pq.read_table(supervised / "qmsum.parquet").to_pylist()
    return {
        "questions on stories": [
            (r["question"], r["context"])
            for r in stories
            if r["split"] == "train" and r["doc_id"] not in held_out and not is_kept_back(r["story"])
        ],
        "questions on health": [
            (r["question"], window)
            for r in health
            if r["doc_split"] == "corpus" and r["doc_id"] not in held_out and not is_kept_back(r["doc_id"])
            for window in windows(r["answer"])[:1]
        ],
        "questions on meetings": [
            (r["query"], window)
            for r in meetings
            if r["split"] == "train" and r["evidence_text"]
            for window in windows(r["evidence_text"])
        ],
    }


def document_pairs(documents: Iterable[tuple[str, str, str]]) -> dict[str, list[Texts]]:
    """Pairs that documents give by themselves, by source.

    Args:
        documents: Domain, title and text of each.
    """
    found: dict[str, list[Texts]] = {"titles": [], "headings": [], "neighbours": [], "descriptions": []}
    for domain, title, text in documents:
        body = windows(text)
        if title:
            found["titles"] += [(title, window) for window in body[:1]]
        found["neighbours"] += list(zip(_halves(body, 0), _halves(body, 1), strict=True))
        for heading, section in _sections(text):
            for window in windows(section)[:1]:
                found["headings"].append((f"{title} {heading}".strip(), window))
                if relations_of(heading.lower()):
                    kind = _KIND_OF_DOMAIN.get(domain, "a topic")
                    found["descriptions"].append((describe(f"{heading.lower()} of _", (kind,)), window))
    return found


def _halves(body: Sequence[str], which: int) -> Iterator[str]:
    for window in body:
        words = window.split()
        yield " ".join(words[: len(words) // 2] if which == 0 else words[len(words) // 2 :])


def _sections(text: str) -> Iterator[Texts]:
    marks = list(_HEADING.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        yield mark.group(1), text[mark.end() : following.start() if following else len(text)]


def sources(pairs: Mapping[str, Sequence[Texts]], encode: Encode) -> list[Source]:
    """Pairs as rows of the encoder's table; texts without a known word are left out."""
    made = []
    for name, texts in pairs.items():
        rows = [(encode(left), encode(right)) for left, right in texts]
        kept = [number for number, (left, right) in enumerate(rows) if len(left) and len(right)]
        left_id, right_id = (_numbered([texts[number][side] for number in kept]) for side in (0, 1))
        left_rows, right_rows = ([rows[number][side] for number in kept] for side in (0, 1))
        made.append(Source(name, left_rows, right_rows, right_id, left_id, SHARES[name]))
    return made


def _numbered(texts: Sequence[str]) -> NDArray[np.int64]:
    """A number for every text, the same for the same text."""
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(text, len(ids)) for text in texts], np.int64)
