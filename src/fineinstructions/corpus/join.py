"""Documents with their pairs as one row each: whole, or shortened to a number of tokens.

In: documents and pairs in the order of the run. Out: one row per document. The decision a reader would question: a
shortened document is the longest beginning, by characters, whose row has at most the wanted tokens. A character may
cost several tokens, so a few can be missing; the next document is wanted with those on top, and what is missing in the
end is less than a character's tokens, however many documents there are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.backends.tokenizer import Tokenizer
from fineinstructions.corpus.budget import Offer, spend
from fineinstructions.corpus.render import with_pairs
from fineinstructions.corpus.write import TrainingRow

PAIRS_SHARE = 0.5
"""Most of a shortened document's tokens that its pairs may take. Ours."""
Row = dict[str, Any]


def joined_rows(
    documents: Iterable[pa.Table], pairs: Iterable[pa.Table], tokenizer: Tokenizer
) -> Iterator[TrainingRow]:
    """Every document followed by its pairs, as one row; both come in the order of the run.

    Args:
        documents: Documents as rows without tokens.
        pairs: Pairs as rows without tokens.
        tokenizer: Counts the rows.

    Yields:
        One row per document, with the licences of its pairs' templates and what made them.
    """
    for document, of_document in _with_their_pairs(documents, pairs):
        text = with_pairs(document["text"], _texts(of_document))
        yield _row(document, of_document, text, int(tokenizer.row_tokens([text])[0]))


@dataclass(frozen=True, slots=True)
class ShortenedRow:
    """A row of a document's beginning."""

    row: TrainingRow
    is_shortened: bool
    """Whether the document goes on behind it."""
    num_pairs: int
    """Pairs behind the beginning."""


def shortened_rows(
    documents: Iterable[pa.Table],
    pairs: Iterable[pa.Table],
    wanted: NDArray[np.int64],
    own_tokens: NDArray[np.int64],
    kept: NDArray[np.bool_],
    tokenizer: Tokenizer,
    seed: int,
) -> Iterator[ShortenedRow]:
    """Beginnings of documents, each followed by some of its pairs, with a given number of tokens.

    Pairs come before the document: they are tried in the order of the budget, as long as they take at most half of the
    tokens, and the document's beginning fills the rest. Without pairs it fills all.

    Args:
        documents: Documents as rows without tokens, in the order of the run.
        pairs: Pairs as rows without tokens, in the order of the run; none for documents alone.
        wanted: Tokens of every document's row, at most the document's own.
        own_tokens: Of every document.
        kept: Documents that are wanted; the others yield a row without a text.
        tokenizer: Counts the rows.
        seed: Decides the order of the pairs, together with their ids.

    Yields:
        One row per document. All of them together lack less than one character's tokens of what was wanted.
    """
    carry = 0
    for place, (document, offered) in enumerate(_with_their_pairs(documents, pairs)):
        own = int(own_tokens[place])
        if not kept[place]:
            yield ShortenedRow(_row(document, [], "", own), is_shortened=True, num_pairs=0)
            continue
        most = int(wanted[place]) + carry
        taken, pair_tokens = _within(offered, int(most * PAIRS_SHARE), tokenizer, seed)
        text, num_tokens, is_shortened = _shortened(
            document["text"], _texts(taken), most, tokenizer, len(document["text"]) * (most - pair_tokens) // own
        )
        carry = most - num_tokens
        yield ShortenedRow(_row(document, taken, text, num_tokens), is_shortened, len(taken))


def _with_their_pairs(documents: Iterable[pa.Table], pairs: Iterable[pa.Table]) -> Iterator[tuple[Row, list[Row]]]:
    waiting = (row for table in pairs for row in table.to_pylist())
    pair = next(waiting, None)
    for document in (row for table in documents for row in table.to_pylist()):
        of_document = []
        while pair is not None and pair["document_id"] == document["id"]:
            of_document.append(pair)
            pair = next(waiting, None)
        yield document, of_document


def _texts(pairs: Sequence[Row]) -> list[tuple[str, str]]:
    return [(pair["instruction"], pair["answer"]) for pair in pairs]


def _row(document: Row, pairs: Sequence[Row], text: str, num_tokens: int) -> TrainingRow:
    licences = {name.strip() for pair in pairs for name in pair["template_licence"].split(";")}
    return TrainingRow(
        **{name: document[name] for name in ("id", "document_id", "source", "licence")},
        text=text,
        instruction=None,
        answer=None,
        template_licence="; ".join(sorted(licences)),
        models=pairs[0]["models"] if pairs else "",
        num_tokens=num_tokens,
    )


def _within(pairs: Sequence[Row], most: int, tokenizer: Tokenizer, seed: int) -> tuple[list[Row], int]:
    """Pairs that fit into a number of tokens, in the order of the run, and what they take."""
    tokens = tokenizer.row_tokens([pair["text"] for pair in pairs]).tolist()
    offer = Offer("", most, tuple(pair["id"] for pair in pairs), tuple(tokens))
    entry, taken = next(spend([offer], seed))
    return [pair for pair, is_taken in zip(pairs, taken, strict=True) if is_taken], entry.emitted_tokens


def _shortened(
    text: str, pairs: Sequence[tuple[str, str]], most: int, tokenizer: Tokenizer, guess: int
) -> tuple[str, int, bool]:
    """The longest beginning of a text with its pairs that fits, the tokens of both, and whether the text goes on."""

    def row(num_chars: int) -> str:
        return with_pairs(text[:num_chars], pairs)

    def count(num_chars: int) -> int:
        return int(tokenizer.row_tokens([row(num_chars)])[0])

    found = largest(len(text), lambda num_chars: count(num_chars) <= most, guess)
    return row(found), count(found), found < len(text)


def largest(most: int, fits: Callable[[int], bool], guess: int) -> int:
    """The largest number that fits, looked for around a guess; 0 where none does.

    Args:
        most: Largest number that is tried.
        fits: Whether a number fits; where it does, smaller ones nearly always do.
        guess: Where to begin.

    Example:
        >>> largest(1000, lambda number: number <= 617, guess=400)
        617
    """
    low, high = 0, most + 1
    place, step = min(max(guess, 1), most), max(guess // 16, 8)
    while high - low > 1:
        if fits(place):
            low = place
        else:
            high = place
        if high > most:
            place, step = min(low + step, most), 2 * step
        elif not low:
            place, step = max(high - step, 1), 2 * step
        else:
            place = (low + high) // 2
    return low
