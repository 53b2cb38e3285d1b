"""Labelled questions on stories, health pages and meetings, by what they may be used for.

In: a folder with ``docs_dev.parquet`` and ``supervised/``. Out: pools of questions and texts. The decision to question:
training rows of a development document are for nothing, and what the encoder was not trained on is for choosing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.embedded.pairs_of_texts import HOLD_OUT, HOLD_OUT_MEETINGS, is_kept_back


@dataclass(frozen=True)
class Pool:
    """Questions, texts, and which text each question belongs to."""

    name: str
    """What it is called at the head of a table."""
    kind: str
    """``stories``, ``health`` or ``meetings``."""
    questions: list[str]
    texts: list[str]
    right: NDArray[np.int64]
    groups: list[str]
    """Story, page or meeting of every question."""


Row = tuple[str, str, str]
"""A question, the text it was written for, and the story, page or meeting that both are from."""


def pool(name: str, kind: str, asked: Sequence[Row], more: Sequence[str] = ()) -> Pool:
    """A pool of the questions' own texts and some more."""
    texts = list(dict.fromkeys([text for _, text, _ in asked] + list(more)))
    place = {text: row for row, text in enumerate(texts)}
    right = np.array([place[text] for _, text, _ in asked])
    return Pool(name, kind, [q for q, _, _ in asked], texts, right, [group for _, _, group in asked])


@dataclass(frozen=True)
class Labelled:
    """Labelled questions: what is measured, what settings are chosen on, and what may be learned from."""

    pools: list[Pool]
    tuning: list[Pool]
    training: list[Row]


def read_labelled(data: Path) -> Labelled:
    """Read the questions and part them by what they may be used for."""
    supervised = data / "supervised"
    held_out = set(pq.read_table(data / "docs_dev.parquet", columns=["id"])["id"].to_pylist())
    stories = pq.read_table(supervised / "fairytaleqa.parquet").to_pylist()
    val = [(r["question"], r["context"], r["story"]) for r in stories if r["split"] == "val"]
    train = [r for r in stories if r["split"] == "train"]
    contexts = [r["context"] for r in train]
    tales = [(r["question"], r["context"], r["story"]) for r in train if r["doc_id"] not in held_out]
    health = pq.read_table(supervised / "medquad.parquet").to_pylist()
    dev = [(r["question"], r["answer"], r["doc_id"]) for r in health if r["doc_split"] == "dev"]
    pages = [
        (r["question"], r["answer"], r["doc_id"])
        for r in health
        if r["doc_split"] == "corpus" and r["doc_id"] not in held_out
    ]
    meetings = [r for r in pq.read_table(supervised / "qmsum.parquet").to_pylist() if r["evidence_text"]]
    asked = [(r["query"], r["evidence_text"], r["meeting"]) for r in meetings if r["split"] == "val"]
    talks = [(r["query"], r["evidence_text"], r["meeting"]) for r in meetings if r["split"] != "val"]
    others = [text for _, text, _ in talks]
    pools = [
        pool("stories, val contexts", "stories", val),
        pool("stories, val and train contexts", "stories", val, contexts),
        pool("health answers, dev", "health", dev),
        pool("meetings, val evidence", "meetings", asked),
        pool("meetings, val and train evidence", "meetings", asked, others),
    ]
    tales_kept, tales_left = _apart(tales, HOLD_OUT)
    pages_kept, pages_left = _apart(pages, HOLD_OUT)
    talks_kept, talks_left = _apart(talks, HOLD_OUT_MEETINGS)
    tuning = [
        pool("stories kept back", "stories", tales_kept),
        pool("stories kept back, all contexts", "stories", tales_kept, contexts),
        pool("health kept back", "health", pages_kept),
        pool("meetings kept back", "meetings", talks_kept),
        pool("meetings kept back, all evidence", "meetings", talks_kept, others),
    ]
    return Labelled(pools, tuning, [*tales_left, *pages_left, *talks_left])


def _apart(rows: Sequence[Row], one_in: int) -> tuple[list[Row], list[Row]]:
    """Questions with texts: those kept back from training, and the others."""
    kept = [row for row in rows if is_kept_back(row[2], one_in)]
    return kept, [row for row in rows if not is_kept_back(row[2], one_in)]
