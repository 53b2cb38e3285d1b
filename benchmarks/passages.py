"""Documents to passages that a small model can read whole, and passages to lessons that teach it to copy.

A passage is the title of its document and some paragraphs, or some sentences of one that is too long. The first lessons
say stretches of a text again, in the published format of an instantiator: of a few words first, so that a model without
any idea of where to look is right often enough to notice, then of more and more. The last asks for what stands behind
given words of a passage: whole, or as an excerpt in short-hand.

    python benchmarks/passages.py documents.parquet ... --out passages.parquet --lessons lessons.parquet
"""

import argparse
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Lesson:
    """How much is read and said again, in words."""

    rows: int
    words: int
    stretches: int
    words_each: int


LESSONS = (Lesson(15_000, 12, 3, 5), Lesson(4_000, 25, 3, 6), Lesson(3_000, 60, 3, 10), Lesson(3_000, 150, 4, 16))
"""One for each of the first rounds."""
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


def lesson_row(row: dict[str, Any], number: int, random: np.random.Generator) -> dict[str, Any] | None:
    """A stretch of a passage, and some stretches of that again; None where the passage is too short."""
    lesson, words = LESSONS[number - 1], row["text"].split()
    if len(words) < lesson.words:
        return None
    start = random.integers(len(words) - lesson.words + 1)
    read = words[start : start + lesson.words]
    starts = random.integers(lesson.words - lesson.words_each + 1, size=lesson.stretches)
    instruction, *quoted = (" ".join(read[begin : begin + lesson.words_each]) for begin in starts)
    answer = "\n".join(f"<excerpt>{stretch}</excerpt>" for stretch in quoted)
    return _training_row(
        f"lesson-{number}-{row['id']}", number, "<fi>some words</fi>", " ".join(read), instruction, answer
    )


def _training_row(name: str, number: int, template: str, text: str, instruction: str, answer: str) -> dict[str, Any]:
    """A row that an instantiator is trained on in round `number`."""
    prompt = [{"role": role, "content": content} for role, content in published_messages(template, text)]
    reply = json.dumps({"instruction": instruction, "answer": answer}, ensure_ascii=False)
    completion = [{"role": "assistant", "content": reply}]
    return {"row_id": name, "split": "train", "round": number, "prompt": prompt, "completion": completion}


def copy_row(row: dict[str, Any], number: int, random: np.random.Generator) -> dict[str, Any] | None:
    """A task of copying in the published format; None where the passage has nothing to copy."""
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
    return _training_row(
        f"copy-{row['id']}", number, template, text, template.replace("<fi>a topic</fi>", title), tagged
    )


def lessons(rows: Sequence[dict[str, Any]], number: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of all lessons, `number` of them in the last; passages are drawn at random, once in a lesson."""
    for place, wanted in enumerate((*(lesson.rows for lesson in LESSONS), number), start=1):
        random = np.random.default_rng((seed, place))
        make = lesson_row if place <= len(LESSONS) else copy_row
        tasks = (make(rows[index], place, random) for index in random.permutation(len(rows)))
        yield from itertools.islice(filter(None, tasks), wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "documents", type=Path, nargs="+", help="Parquet files with id, title, text, source, domain, licence"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lessons", type=Path, help="file for the lessons in copying")
    parser.add_argument("--number", type=int, default=3000, help="rows of the last lesson")
    parser.add_argument("--without", nargs="*", default=["fiction", "meeting_transcript"], help="domains to leave out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    documents = (row for path in args.documents for row in pq.read_table(path).to_pylist())
    rows = list(rows_of(documents, frozenset(args.without)))
    pq.write_table(pa.Table.from_pylist(rows), args.out, row_group_size=ROW_GROUP)
    print(f"{args.out}: {len(rows):,} passages")
    if args.lessons:
        tasks = list(lessons(rows, args.number, args.seed))
        pq.write_table(pa.Table.from_pylist(tasks), args.lessons, row_group_size=ROW_GROUP)
        print(f"{args.lessons}: {len(tasks):,} rows of lessons")


if __name__ == "__main__":
    main()
