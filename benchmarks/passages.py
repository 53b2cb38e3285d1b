"""Documents to passages that a small model can read whole, and passages to lessons that teach it to copy.

A passage is the title of its document and some paragraphs, or some sentences of one that is too long. A lesson says
the title again and quotes one sentence, in the published format of an instantiator.

    python benchmarks/passages.py documents.parquet ... --out passages.parquet --lessons lessons.parquet
    python benchmarks/passages.py others.parquet --domains medicine --unlike passages.parquet --out held-out.parquet
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.pairs.instantiate import published_messages, published_reply

MAX_CHARS, MIN_CHARS = 850, 120
"""Length of a passage without its title: about 300 tokens of a vocabulary of 4,096."""
MIN_SECTION_CHARS = 250
"""A heading begins a new passage where the one before has as much."""
ROW_GROUP = 10_000
DOMAINS = [
    "encyclopedic",
    "fiction_short",
    "government_manual",
    "history",
    "medicine",
    "recipes",
    "science",
    "technical_docs",
]
"""All but novels and meetings, whose passages say little by themselves."""


SENTENCE_WORDS = (6, 40)
"""Shortest and longest sentence that a lesson quotes."""
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


def rows_of(documents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row per passage, with the columns of a document."""
    for document in documents:
        for number, passage in enumerate(passages(document["title"], document["text"])):
            if MIN_CHARS <= len(passage) <= MAX_CHARS:
                named = {"id": f"{document['id']}-{number}", "text": f"{document['title']}\n\n{passage}"}
                yield {name: document.get(name, "") for name in ("source", "domain", "title", "licence")} | named


def chosen(
    documents: Iterable[dict[str, Any]], domains: frozenset[str], known_titles: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """Documents of some domains about something that is not known yet."""
    return (row for row in documents if row["domain"] in domains and row["title"].casefold() not in known_titles)


def lessons(rows: Sequence[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """Rows to train an instantiator on: the title of a passage, and one of its sentences from beginning to end."""
    random = np.random.default_rng(seed)
    for index in random.permutation(len(rows)):
        title, text = rows[index]["title"], rows[index]["text"]
        told = text.removeprefix(title)
        sentences = [s for line in told.split("\n") for s in _SENTENCE.split(line.strip()) if _can_be_quoted(s, text)]
        if not sentences:
            continue
        prompt = published_messages("<fi>a title</fi>", text)
        reply = published_reply(title, f"<excerpt>{sentences[random.integers(len(sentences))]}</excerpt>")
        yield {
            "row_id": f"lesson-{rows[index]['id']}",
            "split": "train",
            "round": 1,
            "prompt": [{"role": role, "content": content} for role, content in prompt],
            "completion": [{"role": "assistant", "content": reply}],
        }


def _can_be_quoted(sentence: str, text: str) -> bool:
    shortest, longest = SENTENCE_WORDS
    return shortest <= len(sentence.split()) <= longest and text.count(sentence) == 1 and "<" not in sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "documents", type=Path, nargs="+", help="Parquet files with id, title, text, source, domain, licence"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lessons", type=Path, help="file for lessons in copying")
    parser.add_argument("--number", type=int, default=1_900, help="lessons")
    parser.add_argument("--domains", nargs="*", default=DOMAINS, help="what documents are taken")
    parser.add_argument("--unlike", type=Path, help="passages; documents with a title that is in there are left out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    known = pq.read_table(args.unlike, columns=["title"])["title"].to_pylist() if args.unlike else []
    documents = (row for path in args.documents for row in pq.read_table(path).to_pylist())
    rows = list(rows_of(chosen(documents, frozenset(args.domains), frozenset(map(str.casefold, known)))))
    pq.write_table(pa.Table.from_pylist(rows), args.out, row_group_size=ROW_GROUP)
    print(f"{args.out}: {len(rows):,} passages")
    if args.lessons:
        tasks = list(islice(lessons(rows, args.seed), args.number))
        pq.write_table(pa.Table.from_pylist(tasks), args.lessons, row_group_size=ROW_GROUP)
        print(f"{args.lessons}: {len(tasks):,} lessons")


if __name__ == "__main__":
    main()
