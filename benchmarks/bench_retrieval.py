"""Do documents find the questions that were asked about them: precision at 10, with and without coverage chunks.

    python benchmarks/bench_retrieval.py --questions MEDQUAD.parquet FAIRYTALEQA.parquet --documents DOCS.parquet ... \
        [--encoder MODEL] --out benchmarks/results/NAME.md

Every question of a file is indexed; every document that has a question there looks for the ten nearest. Found is what
reaches the threshold; right is what was asked about that very document. "Whole" searches with the mean vector alone,
"K + 1" with the coverage chunks too, a question counting with its best cosine. Many a document has fewer than ten
questions, so the highest precision that is possible stands beside what came out. Thresholds are quartiles of the
cosines of the ten nearest of the K + 1, because each encoder has a scale of its own. Search is exact.

Files of questions need the columns ``question`` and ``doc_id``, files of documents ``id`` and ``text``.
"""

import argparse
import datetime
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.backends.encoder import Encoder, EncoderConfig
from fineinstructions.backends.encoders import open_encoder
from fineinstructions.backends.endpoint import LlmConfig
from fineinstructions.pooling import Pooling

TOP = 10
DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Asked:
    """Questions and the documents that they were asked about."""

    name: str
    questions: list[str]
    documents: list[str]
    owner: NDArray[np.int64]
    """Row of every question's document, shape (number of questions,)."""


@dataclass(frozen=True)
class Found:
    """The ten nearest questions of every document, best first, shapes (B, 10)."""

    cosines: NDArray[np.float32]
    right: NDArray[np.bool_]


def read_asked(questions: Path, texts: dict[str, str]) -> Asked:
    """Distinct questions whose document is known; one that was asked about several belongs to none."""
    table = pq.read_table(questions, columns=["question", "doc_id"]).to_pylist()
    owners: dict[str, set[str]] = {}
    for row in table:
        if row["doc_id"] in texts:
            owners.setdefault(row["question"].strip(), set()).add(row["doc_id"])
    single = {question: next(iter(ids)) for question, ids in owners.items() if len(ids) == 1}
    ids = sorted(set(single.values()))
    place = {name: row for row, name in enumerate(ids)}
    owner = np.array([place[name] for name in single.values()])
    return Asked(questions.stem, list(single), [texts[name] for name in ids], owner)


def nearest(asked: Asked, encoder: Encoder, pooling: Pooling) -> tuple[Found, Found]:
    """What every document finds with its mean vector alone, and with all its vectors."""
    questions = encoder.encode_texts(asked.questions)
    parts: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    rights: tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]] = ([], [])
    for start in range(0, len(asked.documents), DOCUMENTS_AT_ONCE):
        pooled = encoder.encode_documents(asked.documents[start : start + DOCUMENTS_AT_ONCE], pooling)
        for row, document in enumerate(pooled, start):
            cosines = document.vectors @ questions.T
            for kind, scores in enumerate((cosines[-1], cosines.max(axis=0))):
                order = np.argsort(-scores, kind="stable")[:TOP]
                parts[kind].append(scores[order])
                rights[kind].append(asked.owner[order] == row)
    whole, chunked = (Found(np.stack(p), np.stack(r)) for p, r in zip(parts, rights, strict=True))
    return whole, chunked


def table(asked: Asked, whole: Found, chunked: Found) -> Iterator[str]:
    """One row per threshold and kind of search."""
    num_own = np.bincount(asked.owner, minlength=len(asked.documents))
    ceiling = np.minimum(num_own, TOP).mean() / TOP
    yield f"\n## {asked.name}\n"
    chance = (num_own / len(asked.questions)).mean()
    yield (
        f"{len(asked.documents):,} documents, {len(asked.questions):,} questions, of one document at most "
        f"{num_own.max()}, in the middle {np.median(num_own):.0f}. Highest precision at {TOP} that is possible: "
        f"{ceiling:.3f}; by chance: {chance:.4f}.\n"
    )
    yield "| threshold | vectors | precision at 10 | of possible hits | documents that find any | first one right |"
    yield "| --- | --- | --- | --- | --- | --- |"
    quartiles = np.quantile(chunked.cosines, [0.25, 0.5, 0.75])
    for threshold in (-1.0, *np.round(quartiles, 3).tolist()):
        for kind, found in (("whole", whole), ("K + 1", chunked)):
            counted = found.cosines >= threshold
            hits = (found.right & counted).sum()
            precision = hits / max(1, counted.sum())
            recall = hits / np.minimum(num_own, TOP).sum()
            first = (found.right & counted)[:, 0].mean()
            figures = (precision, recall, counted.any(axis=1).mean(), first)
            label = "none" if threshold < 0 else f"{threshold:.3f}"
            yield f"| {label} | {kind} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def read_texts(paths: Sequence[Path]) -> dict[str, str]:
    tables = [pq.read_table(path, columns=["id", "text"]).to_pylist() for path in paths]
    return {row["id"]: row["text"] for rows in tables for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, nargs="+", required=True)
    parser.add_argument("--documents", type=Path, nargs="+", required=True)
    parser.add_argument("--encoder", default="embedded", help="what `encoder.model` of a recipe may be")
    parser.add_argument("--revision", help="of a model on the hub")
    parser.add_argument("--coverage-chunks", type=int, default=5)
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoder = open_encoder(EncoderConfig(model=options.encoder, revision=options.revision), LlmConfig())
    pooling = Pooling(options.coverage_chunks, options.sigma, options.alpha)
    texts = read_texts(options.documents)
    lines = [f"# Documents find their questions, {datetime.date.today()}\n"]
    lines.append(f"`bench_retrieval.py`, {platform.machine()}, encoder {encoder.encoder_id}, {pooling}.")
    for path in options.questions:
        asked = read_asked(path, texts)
        lines += table(asked, *nearest(asked, encoder, pooling))
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
