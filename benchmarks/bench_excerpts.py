"""Writing excerpts out, against two `str.find` per excerpt and against a regular expression; and what short-hand saves.

    python benchmarks/bench_excerpts.py --documents DOCS.parquet --supervised MEDQUAD.parquet FAIRYTALEQA.parquet \
        QMSUM.parquet --texts CORPUS.parquet ... --out benchmarks/results/NAME.md

Speed: for every document some drafts of three excerpts, each a sentence shortened to its first and last four words
that stand only once. The yardstick finds the first words, then the last words behind them, and nothing else: it does
not look whether they stand elsewhere too, reads no tags and writes no answer. The regular expression, one per excerpt,
tolerates other white space, which is what a first draft of such a program does. Tolerant location gets the same
excerpts in capitals. All are timed in turns, a hundred drafts of each after the other, in processor time; ratios
are those within a turn.

Short-hand: every answer's verbatim spans (greedy longest matches with its document of at least 5 words or 20
characters) are written as the instantiator's prompt asks: first and last words up to where they stand only once (4 to
8), whole where they are shorter than 12 words or not unique; what is not verbatim is written out. Tokens of that over
tokens of the answer, by the package's estimate (`backends.tokens.estimated_tokens`), on both sides.
"""

import argparse
import datetime
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fineinstructions.backends.tokens import estimated_tokens
from fineinstructions.markup import excerpt_tag
from fineinstructions.pairs import excerpts as stage
from fineinstructions.pairs.excerpts import ExcerptsConfig, coverage_ratio, expand
from fineinstructions.records import Document, Draft, ExpandedDraft

EXCERPTS_PER_DRAFT = 3
END_WORDS = 4
DRAFTS_PER_PIECE = 100
_SENTENCE = re.compile(r"[^.!?\n<>]{40,400}[.!?](?=\s)")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Work:
    """Drafts, and the ends of each draft's excerpts."""

    drafts: list[tuple[Draft, Document]]
    ends: list[list[tuple[str, str]]]
    num_excerpts: int


def draw_work(documents: list[Document], drafts_per_document: int) -> Work:
    """Drafts over sentences whose ends stand only once; documents with too few of them have none."""
    rng = random.Random(0)
    drafts, ends = [], []
    for document in documents:
        found = list(unique_ends(document.text))
        if len(found) < EXCERPTS_PER_DRAFT:
            continue
        for number in range(drafts_per_document):
            drawn = sorted(rng.sample(range(len(found)), EXCERPTS_PER_DRAFT))
            chosen = [found[place] for place in drawn]
            answer = " ".join(excerpt_tag(*pair) for pair in chosen)
            draft = Draft(document.document_id, f"t-{number}", -1, 0.9, "What is it?", answer, ())
            drafts.append((draft, document))
            ends.append(chosen)
    return Work(drafts, ends, EXCERPTS_PER_DRAFT * len(drafts))


def unique_ends(text: str) -> Iterator[tuple[str, str]]:
    """First and last words of every sentence, where both stand only once."""
    for found in _SENTENCE.finditer(text):
        sentence = found[0].strip()
        words = list(_WORD.finditer(sentence))
        if len(words) <= 3 * END_WORDS:
            continue
        first, last = sentence[: words[END_WORDS - 1].end()], sentence[words[-END_WORDS].start() :]
        if text.count(first) == 1 and text.count(last) == 1:
            yield first, last


def two_finds(work: Work) -> None:
    """The yardstick."""
    for (_, document), ends in zip(work.drafts, work.ends, strict=True):
        text = document.text
        for first, last in ends:
            text.find(last, text.find(first) + len(first))


def regular_expression(work: Work) -> None:
    """One pattern per excerpt: both ends, any white space between their words."""
    for (_, document), ends in zip(work.drafts, work.ends, strict=True):
        for first, last in ends:
            words = [r"\s+".join(map(re.escape, part.split())) for part in (first, last)]
            if re.compile(".*?".join(words), re.DOTALL).search(document.text) is None:
                raise AssertionError(first)


def expansion(work: Work, config: ExcerptsConfig) -> int:
    """The operator, without its coverage ratio; gives the number of drafts that it expanded."""
    measured, stage.coverage_ratio = stage.coverage_ratio, lambda *_: 0.0
    try:
        return sum(isinstance(item, ExpandedDraft) for item in expand(work.drafts, config))
    finally:
        stage.coverage_ratio = measured


def in_capitals(work: Work) -> Work:
    """The same drafts with excerpts that are found by the tolerant search alone."""
    drafts = []
    for (draft, document), ends in zip(work.drafts, work.ends, strict=True):
        answer = " ".join(excerpt_tag(first.upper(), last.upper()) for first, last in ends)
        drafts.append((Draft(draft.document_id, draft.template_id, -1, 0.9, draft.instruction, answer, ()), document))
    return Work(drafts, work.ends, work.num_excerpts)


def speed(work: Work, turns: int) -> Iterator[str]:
    """Table of processor time per excerpt, and ratios to two finds."""
    config = ExcerptsConfig(min_ratio=0)
    pieces = list(in_pieces(work))
    capitals = [in_capitals(piece) for piece in pieces]
    answers = [expanded_answers(piece, config) for piece in pieces]
    if sum(map(len, answers)) < 0.999 * len(work.drafts):  # a sentence in a list may hold another one's ends
        raise AssertionError(f"only {sum(map(len, answers))} of {len(work.drafts)} drafts were expanded")
    parts: dict[str, Callable[[int], object]] = {
        "two `str.find`": lambda n: two_finds(pieces[n]),
        "`expand`, exact path": lambda n: expansion(pieces[n], config),
        "regular expression": lambda n: regular_expression(pieces[n]),
        "`expand`, tolerant location": lambda n: expansion(capitals[n], config),
        "`coverage_ratio`": lambda n: [coverage_ratio(answer, text) for answer, text in answers[n]],
    }
    seconds = {name: [0.0] * turns for name in parts}
    for turn in range(turns):
        for number in range(len(pieces)):
            for name, part in parts.items():
                start = time.process_time()
                part(number)
                seconds[name][turn] += time.process_time() - start
    yardstick = seconds["two `str.find`"]
    yield "| what | us per excerpt | times two `str.find` (least to most) |"
    yield "| --- | --- | --- |"
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(found, yardstick, strict=True)]
        each = 1e6 * statistics.median(found) / work.num_excerpts
        yield f"| {name} | {each:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    found_in_capitals = sum(expansion(piece, config) for piece in capitals) / len(work.drafts)
    yield ""
    yield f"In capitals {found_in_capitals:.1%} of the drafts are expanded; the others' ends stand several times then."


def in_pieces(work: Work) -> Iterator[Work]:
    """The same in pieces, so that whatever else the machine does falls on all parts alike."""
    for start in range(0, len(work.drafts), DRAFTS_PER_PIECE):
        drafts, ends = (part[start : start + DRAFTS_PER_PIECE] for part in (work.drafts, work.ends))
        yield Work(drafts, ends, EXCERPTS_PER_DRAFT * len(drafts))


def expanded_answers(work: Work, config: ExcerptsConfig) -> list[tuple[str, str]]:
    """Answers with their excerpts written out, each with its document."""
    items = zip(expand(work.drafts, config), work.drafts, strict=True)
    return [(item.answer, document.text) for item, (_, document) in items if isinstance(item, ExpandedDraft)]


def short_hand(answer: str, document: str) -> str:
    """An answer with its verbatim spans as the instantiator's prompt asks."""
    written, position = [], 0
    for start, end in verbatim_spans(answer, document):
        written += [answer[position:start], shortened(answer[start:end], document)]
        position = end
    return "".join([*written, answer[position:]])


def verbatim_spans(answer: str, document: str) -> Iterator[tuple[int, int]]:
    """Greedy longest runs of whole words that stand in the document, as `coverage_ratio` counts them."""
    words = [(word.start(), word.end()) for word in _WORD.finditer(answer)]
    first = 0
    while first < len(words):
        last, place = first, 0
        while last < len(words):  # a longer piece stands nowhere before the shorter one
            place = document.find(answer[words[first][0] : words[last][1]], place)
            if place < 0:
                break
            last += 1
        start, end = words[first][0], words[max(first, last - 1)][1]
        if last > first and (last - first >= stage.MIN_MATCH_WORDS or end - start >= stage.MIN_MATCH_CHARS):
            yield start, end
            first = last
        else:
            first += 1


def shortened(span: str, document: str) -> str:
    """One excerpt: its ends where they stand only once, else the whole."""
    words = list(_WORD.finditer(span))
    if len(words) >= 12:
        for number in range(4, 9):
            first, last = span[: words[number - 1].end()], span[words[-number].start() :]
            if 2 * number < len(words) and document.count(first) == 1 and document.count(last) == 1:
                return excerpt_tag(first, last)
    return excerpt_tag(span)


def answers_of(path: Path, documents: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Answers of a labelled file, each with its document: its own text, or the one that its id names."""
    for row in pq.read_table(path).to_pylist():
        given = row.get("evidence_text") or row.get("context")
        text = given if given else documents.get(str(row.get("doc_id")), "")
        found: Any = row.get("answer") or row.get("answers")
        answer = found if isinstance(found, str) else (found or [""])[0]
        if text and answer and answer.strip():
            yield answer.strip(), text


def savings(files: list[Path], documents: dict[str, str], most: int) -> Iterator[str]:
    """Table of tokens to write per token of the answer."""
    yield (
        "| answers | number | median tokens | verbatim share of characters | tokens to write per answer token | "
        "with at least 0.8 verbatim: number, tokens to write |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for path in files:
        rows = []
        found = list(answers_of(path, documents))
        for answer, text in found[:: max(1, len(found) // most)][:most]:
            shares = sum(end - start for start, end in verbatim_spans(answer, text)) / len(answer)
            rows.append((shares, estimated_tokens(answer), estimated_tokens(short_hand(answer, text)), len(answer)))
        if not rows:
            yield f"| {path.stem} | 0 | | | | no answer whose document is known |"
            continue
        grounded = [row for row in rows if row[0] >= 0.8]
        share = sum(row[0] * row[3] for row in rows) / sum(row[3] for row in rows)
        saved = f"{len(grounded):,}, {per_token(grounded):.2f}" if grounded else "0"
        median = statistics.median(row[1] for row in rows)
        yield f"| {path.stem} | {len(rows):,} | {median:.0f} | {share:.2f} | {per_token(rows):.2f} | {saved} |"


def per_token(rows: list[tuple[float, int, int, int]]) -> float:
    return sum(row[2] for row in rows) / sum(row[1] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, nargs="+", required=True, help="Parquet with the columns id and text")
    parser.add_argument("--supervised", type=Path, nargs="*", default=[], help="labelled answers")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="further documents of labelled answers")
    parser.add_argument("--answers", type=int, default=2000, help="most answers of a file, evenly spread over it")
    parser.add_argument("--drafts-per-document", type=int, default=4)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tables = [pq.read_table(path, columns=["id", "text"]).to_pylist() for path in options.documents]
    documents = [Document(row["id"], row["text"]) for table in tables for row in table]
    work = draw_work(documents, options.drafts_per_document)
    lengths = sorted(len(document.text) for _, document in work.drafts)
    lines = [
        f"# Excerpts, {datetime.date.today()}",
        "",
        f"`bench_excerpts.py`, {platform.machine()}, Python {platform.python_version()}, one thread, "
        f"medians of {options.turns} turns.",
        "",
        f"## {work.num_excerpts:,} excerpts in {len(work.drafts):,} drafts, documents of "
        f"{lengths[len(lengths) // 2]:,} characters in the middle",
        "",
        *speed(work, options.turns),
    ]
    if options.supervised:
        more = [pq.read_table(path, columns=["id", "text"]).to_pylist() for path in options.texts]
        texts = {row["id"]: row["text"] for table in [*tables, *more] for row in table}
        lines += [
            "",
            "## Tokens to write per token of the answer",
            "",
            *savings(options.supervised, texts, options.answers),
        ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
