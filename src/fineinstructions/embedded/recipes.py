"""The recipes that make the models of this tier, from Parquet files of documents, queries and labelled questions.

In: a `TrainingData`. Out: files in a folder. The genericizer needs nothing but the base installation, the encoder and
the answer models the extra ``train``; the same inputs give the same bytes on one machine. The decision to question: no
document of the development set is read, and no query that a judge set asks, so that both can measure what was learned.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.embedded.answers.examples import Example, health_examples, read_ids, story_examples
from fineinstructions.embedded.answers.learn import learn_answers
from fineinstructions.embedded.answers.lexical import counted
from fineinstructions.embedded.answers.silver import page_examples
from fineinstructions.embedded.contrastive import Training, train_rows
from fineinstructions.embedded.encoder import DATA_DIR, EmbeddedEncoder, find_row, token_key, word_spans
from fineinstructions.embedded.genericizer import save_frames
from fineinstructions.embedded.learn_encoder import LearnedEncoder, learn_encoder, passages, quantised
from fineinstructions.embedded.learn_frames import WordCounter, learn_frames
from fineinstructions.embedded.pairs_of_texts import (
    description_pairs,
    document_pairs,
    health_rows,
    is_kept_back,
    question_pairs,
    sources,
)
from fineinstructions.embedded.threshold import calibrated
from fineinstructions.records import Document, Template, from_table

Say = Callable[[str], None]

FICTION_STRIDE = 4
"""Of the fiction documents every fourth is read: novels would drown the rest."""
MAX_QUERY_CHARS = 300
WINDOW_TOKENS = 8192
MIN_COSINE = 0.03
"""Threshold of an encoder for which too few pages were kept back to choose one."""
RARITY_CHARS, MAX_RARITY_CHARS, MIN_RARITY_PASSAGES = 800, 4_000, 5
"""Words are counted in passages of so many characters, of the beginning of every document."""
MAX_PAGES = 80
"""Pages of each domain that templates are filled from, for the answer models."""


@dataclass(frozen=True)
class TrainingData:
    """Where everything lies that is learned from.

    Args:
        folder: Holds ``corpus/*.parquet``, ``queries.parquet``, ``supervised/``, ``docs_dev.parquet`` and, where there
            are judge sets, ``benchmarks/judges/*.parquet``.
    """

    folder: Path

    @property
    def corpus(self) -> list[Path]:
        """Files of documents."""
        return sorted((self.folder / "corpus").glob("*.parquet"))

    @property
    def supervised(self) -> Path:
        """Folder of labelled questions."""
        return self.folder / "supervised"

    def needed(self) -> list[Path]:
        """Files that must be there, beside those of the corpus."""
        names = ("fairytaleqa", "medquad", "qmsum", "query_wellformedness")
        labelled = [self.supervised / f"{name}.parquet" for name in names]
        return [self.folder / "docs_dev.parquet", self.folder / "queries.parquet", *labelled]

    def held_out(self) -> frozenset[str]:
        """Ids of the development documents."""
        return read_ids(self.folder / "docs_dev.parquet")

    def documents(self) -> Iterator[tuple[str, str, str, str]]:
        """Id, domain, title and text of every document that may be learned from, thinned as `FICTION_STRIDE` says."""
        held_out = self.held_out()
        num_fiction = 0
        for path in self.corpus:
            for row in pq.read_table(path, columns=["id", "domain", "title", "text"]).to_pylist():
                if row["id"] in held_out:
                    continue
                if row["domain"] == "fiction":
                    num_fiction += 1
                    if num_fiction % FICTION_STRIDE:
                        continue
                yield row["id"], row["domain"] or "", row["title"] or "", row["text"]

    def judged(self) -> frozenset[str]:
        """Every question of a judge set, folded."""
        found: set[str] = set()
        for path in sorted((self.folder / "benchmarks" / "judges").glob("*.parquet")):
            table = pq.read_table(path)
            for column in {"question", "instruction"} & set(table.column_names):
                found.update(folded(text) for text in table[column].to_pylist() if text)
        return frozenset(found)

    def queries(self, say: Say) -> list[str]:
        """Query texts, cut to their beginning, without those that a judge set asks."""
        judged = self.judged()
        texts: list[str] = pq.read_table(self.folder / "queries.parquet")["text"].to_pylist()
        kept = [text[:MAX_QUERY_CHARS] for text in texts if folded(text) not in judged]
        say(f"queries: {len(texts) - len(kept):,} of {len(texts):,} are asked by a judge set and left out")
        return kept


def folded(text: str) -> str:
    """A question without case and punctuation, so that the same question in other spelling is found.

    Example:
        >>> folded("What's  the Capital?") == folded("what s the capital")
        True
    """
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def make_genericizer(data: TrainingData, out: Path, say: Say) -> None:
    """Write ``words.parquet`` and ``frames.parquet``."""
    texts = data.queries(say)
    ratings = pq.read_table(data.supervised / "query_wellformedness.parquet")
    rated = dict(zip(ratings["text"].to_pylist(), ratings["wellformedness"].to_pylist(), strict=True))
    counter = WordCounter(texts)
    for _, _, _, text in data.documents():
        counter.add_document(text)
    for text in texts:
        counter.add_query(text)
    frames, words = learn_frames(texts, counter.table(), rated)
    words.save(out / "words.parquet")
    save_frames(frames, out / "frames.parquet")
    say(f"genericizer: {sum(f.num_fillers > 0 for f in frames.values()):,} frames that queries share")


def make_encoder(data: TrainingData, out: Path, say: Say, how: Training | None = None) -> None:
    """Write ``encoder.npz`` and ``encoder.json``."""
    documents = list(data.documents())
    corpus = [passage for _, _, title, text in documents for passage in passages(title, text)]
    words = (word for text in data.queries(lambda _: None) for word, _, _ in word_spans(text))
    start = learn_encoder(corpus, words)
    say(f"encoder: {len(start.keys):,} rows of {start.vectors.shape[1]} numbers from {len(corpus):,} passages")
    del corpus
    held_out = data.held_out()
    health = health_rows(data.supervised, held_out)
    pairs = {**question_pairs(data.supervised, held_out), **document_pairs(documents)}
    pairs |= description_pairs(health, documents)
    say("encoder: " + ", ".join(f"{len(texts):,} {name}" for name, texts in pairs.items()))
    trained = train_rows(start.vectors, sources(pairs, _rows_of(start)), how or Training(), say)
    vectors, scales = quantised(trained)
    keys = np.frombuffer("\n".join(start.keys).encode("utf-8"), np.uint8)
    with (out / "encoder.npz").open("wb") as file:
        np.savez(file, keys=keys, vectors=vectors, scales=scales)
    _write_settings(out, MIN_COSINE)
    pages = {name: text for name, _, _, text in documents}
    kept_back = [row for row in health if is_kept_back(row["doc_id"]) and row["doc_id"] in pages]
    min_cosine, told = calibrated(EmbeddedEncoder(out), kept_back, pages, MIN_COSINE)
    _write_settings(out, min_cosine)
    say(f"encoder: {told}")


def _write_settings(out: Path, min_cosine: float) -> None:
    settings = {"window_tokens": WINDOW_TOKENS, "min_cosine": min_cosine}
    (out / "encoder.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _rows_of(learned: LearnedEncoder) -> Callable[[str], NDArray[np.int32]]:
    """Looks up the rows of a text's known words."""
    place = {key: number for number, key in enumerate(learned.keys, start=1)}
    find = cache(lambda word: find_row(place, token_key(word)))

    def rows(text: str) -> NDArray[np.int32]:
        found = np.array([find(word) for word, _, _ in word_spans(text)], np.int32)
        return np.asarray(found[found > 0] - 1)

    return rows


def make_answers(data: TrainingData, out: Path, say: Say) -> None:
    """Write ``answers.npz`` and ``answers.json``."""
    held_out = data.held_out()
    texts = {name: (title, text) for name, _, title, text in data.documents()}
    rarity = counted(_passages([text for _, text in texts.values()]), MIN_RARITY_PASSAGES)
    stories = story_examples(data.supervised / "fairytaleqa.parquet", "train", held_out, infer=True)
    health = health_examples(data.supervised / "medquad.parquet", texts)
    bank = out / "bank.parquet" if (out / "bank.parquet").is_file() else DATA_DIR / "bank.parquet"
    say(f"answers: templates of {bank if bank.parent == out else 'the bank that ships with the package'}")
    pages = _page_examples(data, bank)
    counts = f"{len(stories):,} questions on stories, {len(health):,} on health pages, {len(pages):,} on other pages"
    say(f"answers: {counts}")
    learn_answers([*stories, *health, *pages], rarity, say).save(out)


def _page_examples(data: TrainingData, bank: Path) -> list[Example]:
    """Templates of a bank, filled from pages of all sorts but those on health."""
    table = pq.read_table(bank)
    by_domain: defaultdict[str, list[Document]] = defaultdict(list)
    for name, domain, title, text in data.documents():
        if domain != "medicine" and len(by_domain[domain]) < MAX_PAGES:
            by_domain[domain].append(Document(name, text, title))
    documents = [document for of_domain in by_domain.values() for document in of_domain]
    return list(page_examples(list(from_table(table, Template)), documents))


def _passages(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, min(len(text), MAX_RARITY_CHARS), RARITY_CHARS):
            yield text[start : start + RARITY_CHARS]


RECIPES: dict[str, Callable[[TrainingData, Path, Say], None]] = {
    "genericizer": make_genericizer,
    "encoder": make_encoder,
    "answers": make_answers,
}
