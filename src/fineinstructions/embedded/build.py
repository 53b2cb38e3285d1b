"""The recipe that makes everything in ``data/`` from Parquet files of documents and queries.

Run as ``python -m fineinstructions.embedded.build --documents DOCS.parquet... --queries QUERIES.parquet --out DIR``.
It needs nothing but the base installation, and the same inputs give the same bytes.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fineinstructions.embedded.encoder import word_spans
from fineinstructions.embedded.genericizer import save_frames
from fineinstructions.embedded.learn_encoder import learn_encoder, passages, quantised
from fineinstructions.embedded.learn_frames import WordCounter, learn_frames
from fineinstructions.embedded.relation_words import RELATIONS

FICTION_STRIDE = 5
"""Of the fiction documents every fifth is read: novels would drown the rest."""
MAX_QUERY_CHARS = 300
WINDOW_TOKENS = 8192
MIN_COSINE = 0.03


def read_texts(paths: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """Domain, title and text of every document, thinned as `FICTION_STRIDE` says."""
    num_fiction = 0
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            domain = row.get("domain") or ""
            if domain == "fiction":
                num_fiction += 1
                if num_fiction % FICTION_STRIDE:
                    continue
            yield domain, row.get("title") or "", row["text"]


def read_queries(path: Path) -> list[str]:
    """Query texts, cut to their beginning."""
    return [text[:MAX_QUERY_CHARS] for text in pq.read_table(path).column("text").to_pylist()]


def build_genericizer(documents: Sequence[Path], queries: Path, ratings: Path | None, out_dir: Path) -> None:
    """Write ``words.parquet`` and ``frames.parquet``."""
    texts = read_queries(queries)
    rated: dict[str, float] = {}
    if ratings:
        table = pq.read_table(ratings)
        rated = dict(zip(table.column("text").to_pylist(), table.column("wellformedness").to_pylist(), strict=True))
    counter = WordCounter()
    for _, _, text in read_texts(documents):
        counter.add_document(text)
    for text in texts:
        counter.add_query(text)
    frames, words = learn_frames(texts, counter.table(), rated)
    words.save(out_dir / "words.parquet")
    save_frames(frames, out_dir / "frames.parquet")


def build_encoder(documents: Sequence[Path], queries: Path, out_dir: Path) -> None:
    """Write ``encoder.npz`` and ``encoder.json``."""
    corpus = [p for _, title, text in read_texts(documents) for p in passages(title, text)]
    words = (word for text in read_queries(queries) for word, _, _ in word_spans(text))
    learned = learn_encoder(corpus, words)
    vectors, scales = quantised(learned.vectors)
    keys = np.frombuffer("\n".join(learned.keys).encode("utf-8"), np.uint8)
    with (out_dir / "encoder.npz").open("wb") as file:
        np.savez(file, keys=keys, vectors=vectors, scales=scales)
    settings = {"window_tokens": WINDOW_TOKENS, "min_cosine": MIN_COSINE, "relations": list(RELATIONS)}
    (out_dir / "encoder.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, nargs="+", required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--ratings", type=Path, help="queries rated for well-formedness: columns text, wellformedness")
    parser.add_argument("--only", choices=["genericizer", "encoder"], help="build one of the two models")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "genericizer"):
        build_genericizer(options.documents, options.queries, options.ratings, options.out)
    if options.only in (None, "encoder"):
        build_encoder(options.documents, options.queries, options.out)


if __name__ == "__main__":
    main()
