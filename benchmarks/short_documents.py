"""As many distinct short documents as wanted, recombined from real ones; the same from the same seed.

Every document is the title of a real document and a sentence of another or the same: as short as what still finds
templates, so that a million of them take minutes. Written in row groups, so that memory does not grow with their number
beyond one number for each.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MIN_CHARS, MAX_CHARS = 40, 160
"""Length of a sentence that is used."""
GROUP_ROWS = 10_000
_BORDER = re.compile(r"(?<=[.!?])\s+|\n+")


def titles_and_sentences(documents: Path) -> tuple[list[str], list[str]]:
    """The titles and the usable sentences of some documents, each once."""
    table = pq.read_table(documents, columns=["title", "text"])
    titles = dict.fromkeys(filter(None, table["title"].to_pylist()))
    pieces = (piece.strip() for text in table["text"].to_pylist() for piece in _BORDER.split(text))
    fit = (piece for piece in pieces if MIN_CHARS <= len(piece) <= MAX_CHARS and piece.endswith((".", "!", "?")))
    return list(titles), list(dict.fromkeys(fit))


def write_short_documents(documents: Path, number: int, seed: int, path: Path) -> Path:
    """Write a Parquet file of distinct short documents with the columns ``id``, ``title`` and ``text``.

    Args:
        documents: Parquet file of real documents with the columns ``title`` and ``text``.
        number: How many to write; the first ones of a larger number are the same.
        seed: Chooses the sentences.
        path: File to write.

    Raises:
        SystemExit: If there are too few titles and sentences for so many documents.
    """
    titles, sentences = titles_and_sentences(documents)
    if number > len(titles) * len(sentences) // 2:
        found = f"{len(titles):,} titles and {len(sentences):,} usable sentences"
        raise SystemExit(f"{documents}: {found} are too few for {number:,} distinct documents")
    schema = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        start = 0
        for choices in _choices(len(titles), len(sentences), number, seed):
            rows = [
                (f"short-{place:07d}", titles[title], f"{titles[title]}\n\n{sentences[sentence]}")
                for place, (title, sentence) in enumerate(choices, start)
            ]
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
            start += len(rows)
    return path


def _choices(num_titles: int, num_sentences: int, number: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Groups of pairs of a title and a sentence, no pair twice."""
    rng = np.random.default_rng(seed)
    seen: set[int] = set()
    while len(seen) < number:
        group = []
        for key in rng.integers(num_titles * num_sentences, size=GROUP_ROWS).tolist():
            if key not in seen and len(seen) < number:
                seen.add(key)
                group.append(divmod(key, num_sentences))
        yield group
