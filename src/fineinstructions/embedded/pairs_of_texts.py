"""Pairs of texts that belong together, for the encoder: from labelled questions and from documents' own structure.

In: documents and labelled questions. Out: `Source`s of the encoder's rows. The decision to question: descriptions learn
from question types of health pages and from headings alone, so what no heading names stays as the counts had it.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.embedded.contrastive import Source
from fineinstructions.embedded.descriptions import describe, relations_of

Encode = Callable[[str], NDArray[np.int32]]
"""A text's rows in the encoder's table."""
Page = tuple[str, str, str, str]
"""Id, domain, title and text of a document."""


class Pair(NamedTuple):
    """Two texts that belong together."""

    left: str
    right: str
    group: str
    """Where the pair is from: a story, page, meeting or document."""
    asks: tuple[str, ...] = ()
    """What the left text asks for, if it is a description."""
    tells: frozenset[tuple[str, ...]] = frozenset()
    """All that the right text answers."""


MAX_WORDS = 160
"""Longest text of most pairs, in words; a longer one is cut into several pairs."""
MAX_PAGE_WORDS = 1500
"""Longest page that a description is paired with."""
MIN_WORDS = 12
MAX_WINDOWS = 3
MAX_CLOZES = 8
"""Most sentences of a document that are paired with what stands around them."""
WINDOW_WORDS = 140
KEPT_WORDS, CUT_OUT = 0.6, 0.6
"""Share of a sentence's words that stay in its pair; share of pairs where it is cut out of its surroundings."""
HOLD_OUT, HOLD_OUT_MEETINGS = 12, 6
"""One story and page of so many is kept from training, and one meeting, to choose settings on."""
SHARES = {"questions on stories": 2.0, "questions on health": 3.0, "questions on meetings": 1.5, "titles": 2.0}
SHARES |= {"headings": 2.5, "sentences": 4.0, "descriptions of sections": 3.0, "descriptions of pages": 3.0}
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NO_LETTER = re.compile(r"[^\w ]")
_KIND_OF_DOMAIN = {"medicine": "a disease", "recipes": "a food or dish", "technical_docs": "a command"}
_ARTICLES = {"the", "a", "an"}


def windows(text: str) -> list[str]:
    """A text in runs of at most `MAX_WORDS` words, the first few of them.

    Example:
        >>> [len(w.split()) for w in windows("word " * 400)]
        [160, 160, 80]
    """
    words = text.split()
    runs = [words[k : k + MAX_WORDS] for k in range(0, len(words), MAX_WORDS)]
    return [" ".join(run) for run in runs if len(run) >= MIN_WORDS][:MAX_WINDOWS]


def is_kept_back(group: str, one_in: int = HOLD_OUT) -> bool:
    """Whether questions about a story, page or meeting are kept from training."""
    return hashlib.blake2b(f"encoder {group}".encode(), digest_size=4).digest()[0] % one_in == 0


def health_rows(supervised: Path, held_out: frozenset[str]) -> list[dict[str, Any]]:
    """Labelled questions on health pages of the training part, those kept back included."""
    rows: list[dict[str, Any]] = pq.read_table(supervised / "medquad.parquet").to_pylist()
    return [row for row in rows if row["doc_split"] == "corpus" and row["doc_id"] not in held_out]


def question_pairs(supervised: Path, held_out: frozenset[str]) -> dict[str, list[Pair]]:
    """Training questions with the passages that answer them, by source."""
    stories = pq.read_table(supervised / "fairytaleqa.parquet").to_pylist()
    meetings = pq.read_table(supervised / "qmsum.parquet").to_pylist()
    return {
        "questions on stories": [
            Pair(r["question"], r["context"], r["story"])
            for r in stories
            if r["split"] == "train" and r["doc_id"] not in held_out and not is_kept_back(r["story"])
        ],
        "questions on health": [
            Pair(r["question"], window, r["doc_id"])
            for r in health_rows(supervised, held_out)
            if not is_kept_back(r["doc_id"])
            for window in windows(r["answer"])[:1]
        ],
        "questions on meetings": [
            Pair(r["query"], window, r["meeting"])
            for r in meetings
            if r["split"] == "train" and r["evidence_text"] and not is_kept_back(r["meeting"], HOLD_OUT_MEETINGS)
            for window in windows(r["evidence_text"])
        ],
    }


def document_pairs(documents: Iterable[Page]) -> dict[str, list[Pair]]:
    """Pairs that documents give by themselves, by source."""
    found: dict[str, list[Pair]] = {"titles": [], "headings": [], "sentences": []}
    for name, _, title, text in documents:
        if title:
            found["titles"] += [Pair(title, window, name) for window in windows(text)[:1]]
        for heading, section in _sections(text):
            found["headings"] += [Pair(f"{title} {heading}".strip(), window, name) for window in windows(section)[:1]]
        found["sentences"] += _clozes(name, text)
    return found


def _clozes(name: str, text: str) -> Iterator[Pair]:
    """Some of a sentence's words, as a question has them, with what stands around it; drawn by the document's id."""
    digest = hashlib.blake2b(f"encoder {name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    runs: list[list[list[str]]] = [[]]
    for sentence in _SENTENCE.split(text):
        if sum(map(len, runs[-1])) >= WINDOW_WORDS:
            runs.append([])
        if words := sentence.split():
            runs[-1].append(words)
    for number in generator.permutation(len(runs))[:MAX_CLOZES]:
        run = runs[number]
        long = [place for place, words in enumerate(run) if len(words) >= 6]
        if len(run) < 3 or not long:
            continue
        chosen = long[int(generator.integers(len(long)))]
        is_cut = generator.random() < CUT_OUT
        around = [word for place, words in enumerate(run) if not (is_cut and place == chosen) for word in words]
        asked = [word for word in run[chosen] if len(run[chosen]) <= 8 or generator.random() < KEPT_WORDS]
        if len(around) >= MIN_WORDS and len(asked) >= 3:
            yield Pair(" ".join(asked), " ".join(around[: MAX_WORDS + 40]), name)


def frame_of(question_template: str) -> str:
    """A question type's wording as the frame of a template.

    Example:
        >>> frame_of("What are the symptoms of {focus} ?")
        'what are symptoms of _'
    """
    words = _NO_LETTER.sub(" ", question_template.replace("{focus}", "_").lower()).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def description_pairs(health: Sequence[Mapping[str, Any]], documents: Iterable[Page]) -> dict[str, list[Pair]]:
    """Descriptions with a slot that nothing fills, with the sections and whole pages that answer them.

    Args:
        health: Labelled questions on health pages, see `health_rows`; pages kept back are left out.
        documents: All documents.
    """
    typed: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in health:
        if "_" in frame_of(row["question_template"] or ""):
            typed[row["doc_id"]].append(row)
    found: dict[str, list[Pair]] = {"descriptions of sections": [], "descriptions of pages": []}
    for name, domain, _, text in documents:
        if name in typed and is_kept_back(name):
            continue
        asked = _asked_by_types(typed[name]) if name in typed else _asked_by_headings(domain, text)
        page = " ".join(text.split()[:MAX_PAGE_WORDS])
        tells = frozenset(asks for _, asks, _ in asked)
        for described, asks, section in asked:
            found["descriptions of sections"].append(Pair(described, section, name, asks, frozenset({asks})))
            found["descriptions of pages"].append(Pair(described, page, name, asks, tells))
    return found


def _asked_by_types(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...], str]]:
    """Description, what it asks for, and the section that answers it."""
    asked = []
    for row in rows:
        frame = frame_of(row["question_template"])
        described = describe(frame, ("a disease",))
        section = " ".join([row["question_type"], *row["answer"].split()[:MAX_WORDS]])
        asked.append((described, relations_of(frame) or (described,), section))
    return asked


def _asked_by_headings(domain: str, text: str) -> list[tuple[str, tuple[str, ...], str]]:
    asked = []
    for heading, section in _sections(text):
        words = section.split()
        if len(words) >= MIN_WORDS and (asks := relations_of(heading.lower())):
            described = describe(f"{heading.lower()} of _", (_KIND_OF_DOMAIN.get(domain, "a topic"),))
            asked.append((described, asks, " ".join([heading, *words[:MAX_WORDS]])))
    return asked


def _sections(text: str) -> Iterator[tuple[str, str]]:
    marks = list(_HEADING.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        yield mark.group(1), text[mark.end() : following.start() if following else len(text)]


def sources(pairs: Mapping[str, Sequence[Pair]], encode: Encode) -> list[Source]:
    """Pairs as rows of the encoder's table; texts without a known word are left out."""
    known: dict[str, NDArray[np.int32]] = {}

    def rows(text: str) -> NDArray[np.int32]:
        if text not in known:
            known[text] = encode(text)
        return known[text]

    made = []
    for name, of_source in pairs.items():
        kept = [pair for pair in of_source if len(rows(pair.left)) and len(rows(pair.right))]
        left_id = _numbered([pair.left for pair in kept])
        made.append(
            Source(
                name,
                [rows(pair.left) for pair in kept],
                [rows(pair.right) for pair in kept],
                left_id,
                _numbered([pair.right for pair in kept]),
                _numbered([pair.group for pair in kept]),
                SHARES[name],
                _fits(kept, left_id) if any(pair.tells for pair in kept) else None,
            )
        )
    return made


def _fits(pairs: Sequence[Pair], left_id: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each pair's right text answers what each left text asks, shape (pairs, left texts)."""
    number: dict[tuple[str, ...], int] = {}
    asks = np.array([number.setdefault(pair.asks, len(number)) for pair in pairs])
    tells = np.zeros((len(pairs), len(number)), np.bool_)
    for row, pair in enumerate(pairs):
        tells[row, [number[told] for told in pair.tells if told in number]] = True
    of_left = np.zeros(int(left_id.max()) + 1, np.int64)
    of_left[left_id] = asks
    return np.asarray(tells[:, of_left])


def _numbered(texts: Sequence[str]) -> NDArray[np.int64]:
    """A number for every text, the same for the same text."""
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(text, len(ids)) for text in texts], np.int64)
