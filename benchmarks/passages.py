"""Documents to passages that a small model can read whole, and passages to a task that teaches it to copy.

A passage is the title of its document and some paragraphs, or some sentences of one that is too long. The task asks, in
the published format of an instantiator, for what stands behind given words of a passage: whole, which is much to copy,
or as an excerpt in short-hand, for which the end of a sentence has to be found.

    python benchmarks/passages.py documents.parquet ... --out passages.parquet --copies copies.parquet
"""

import argparse
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.embedded.instantiator import excerpt
from fineinstructions.pairs.instantiate import published_messages

MAX_CHARS, MIN_CHARS = 850, 120
"""Length of a passage without its title: about 300 tokens of a vocabulary of 4,096."""
MIN_SECTION_CHARS = 250
"""A heading begins a new passage where the one before has as much."""
OPENING_WORDS = 3
"""Words that tell a model where to begin."""
WHOLE_SHARE = 0.6
"""Share of the tasks that want all words; the others want short-hand."""
ROW_GROUP = 10_000
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def passages(title: str, text: str) -> Iterator[str]:
    """The passages of a document, without its title."""
    paragraphs = [part for part in text.split("\n\n") if part.strip() and part.strip() != title.strip()]
    passage = ""
    for paragraph in paragraphs:
        for part in _parts(paragraph):
            is_new_section = part.startswith("#") and len(passage) > MIN_SECTION_CHARS
            if passage and (is_new_section or len(passage) + len(part) + 2 > MAX_CHARS):
                yield passage
                passage = ""
            passage = f"{passage}\n\n{part}" if passage else part
    if passage:
        yield passage


def _parts(paragraph: str) -> Iterator[str]:
    """A paragraph, or groups of its sentences where it is too long."""
    part = ""
    for sentence in _SENTENCE.split(paragraph) if len(paragraph) > MAX_CHARS else [paragraph]:
        if part and len(part) + len(sentence) + 1 > MAX_CHARS:
            yield part
            part = ""
        part = f"{part} {sentence}" if part else sentence
    yield part


def rows_of(documents: Iterable[dict[str, Any]], without: frozenset[str]) -> Iterator[dict[str, Any]]:
    """A row per passage, with the columns of a document; domains that are named in `without` are left out."""
    for document in documents:
        if document.get("domain") in without:
            continue
        for number, passage in enumerate(passages(document["title"], document["text"])):
            if MIN_CHARS <= len(passage) <= MAX_CHARS:
                named = {"id": f"{document['id']}-{number}", "text": f"{document['title']}\n\n{passage}"}
                yield {name: document.get(name, "") for name in ("source", "domain", "title", "licence")} | named


def copy_row(row: dict[str, Any], random: np.random.Generator) -> dict[str, Any] | None:
    """A task of copying, as a row that an instantiator is trained on; None where the passage has nothing to copy."""
    text, title = row["text"], row["title"]
    borders = [len(title) + 2, *(found.end() for found in _SENTENCE.finditer(text, len(title) + 2)), len(text)]
    sentences = [(a, b) for a, b in itertools.pairwise(borders) if len(text[a:b].split()) > 2 * OPENING_WORDS]
    if not sentences:
        return None
    start, end = sentences[random.integers(len(sentences))]
    is_whole = bool(random.random() < WHOLE_SHARE)
    end = len(text) if is_whole else end
    quoted = text[start:end].rstrip()
    opening = " ".join(quoted.split()[:OPENING_WORDS])
    tagged = f"<excerpt>{quoted}</excerpt>" if is_whole else excerpt(text, start, start + len(quoted))
    if not tagged or "<" in quoted or text.count(opening) != 1:
        return None
    task = "goes on" if is_whole else "is the sentence"
    template = f"What {task} at “{opening}” in <fi>a topic</fi>?"
    reply = {"instruction": template.replace("<fi>a topic</fi>", title), "answer": tagged}
    prompt = [{"role": role, "content": content} for role, content in published_messages(template, text)]
    completion = [{"role": "assistant", "content": json.dumps(reply, ensure_ascii=False)}]
    return {"row_id": f"copy-{row['id']}", "split": "train", "round": 1, "prompt": prompt, "completion": completion}


def copy_rows(rows: Iterable[dict[str, Any]], number: int, seed: int) -> Iterator[dict[str, Any]]:
    """At most `number` tasks of copying, each of another passage, drawn at random."""
    found, random = list(rows), np.random.default_rng(seed)
    tasks = (copy_row(found[place], random) for place in random.permutation(len(found)))
    for _, task in zip(range(number), filter(None, tasks), strict=False):
        yield task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "documents", type=Path, nargs="+", help="Parquet files with id, title, text, source, domain, licence"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--copies", type=Path, help="file for the tasks of copying")
    parser.add_argument("--number", type=int, default=8000, help="tasks of copying")
    parser.add_argument("--without", nargs="*", default=["fiction", "meeting_transcript"], help="domains to leave out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    documents = (row for path in args.documents for row in pq.read_table(path).to_pylist())
    rows = list(rows_of(documents, frozenset(args.without)))
    pq.write_table(pa.Table.from_pylist(rows), args.out, row_group_size=ROW_GROUP)
    print(f"{args.out}: {len(rows):,} passages")
    if args.copies:
        tasks = list(copy_rows(rows, args.number, args.seed))
        pq.write_table(pa.Table.from_pylist(tasks), args.copies, row_group_size=ROW_GROUP)
        print(f"{args.copies}: {len(tasks):,} tasks of copying")


if __name__ == "__main__":
    main()
