"""Token-for-token: which pairs of a document are trained on, so that pairs cost what their documents would have cost.

In: documents in plan order, each with the tokens of its text and of its pairs. Out: for each document a row of the
ledger and which pairs are taken. The decision a reader would question: this is one pass over numbers in one process.
What a document leaves over goes to the next one, so the choice depends on all documents before it; what is slow, the
counting of tokens, has been done by many processes before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fineinstructions.seeded_order import row_key

STAGE = "budget"
OVER_BUDGET = "over_budget"


@dataclass(frozen=True, slots=True)
class Offer:
    """A document with what its pairs would cost."""

    document_id: str
    document_tokens: int
    """Tokens of the document's training row, those around the text included."""
    pair_ids: tuple[str, ...] = ()
    pair_tokens: tuple[int, ...] = ()
    """Tokens of every pair's training row."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one document was given and spent."""

    document_id: str
    document_tokens: int
    carry_tokens: int
    """Left over by the documents before."""
    offered_pairs: int
    offered_tokens: int
    chosen_pairs: int
    emitted_tokens: int
    left_tokens: int
    """Goes on to the next document, where what is left does; of the last document, the deficit of the corpus."""


def spend(offers: Iterable[Offer], seed: int, carries: bool = True) -> Iterator[tuple[LedgerRow, tuple[bool, ...]]]:
    """Choose pairs within the budget of their documents.

    The pairs of a document are tried in seeded random order. One that costs more than is left is passed over and the
    next is tried; what is left after the last goes on to the next document.

    Args:
        offers: Documents in plan order, those without pairs too: their tokens are budget as well.
        seed: Decides the order of the pairs, together with their ids.
        carries: Whether the next document gets what is left over.

    Yields:
        The ledger's row, and for every pair in the order given whether it is taken.

    Source:
        arXiv:2601.22146, section 4.2. The paper does not say what becomes of a pair that costs too much; passing it
        over is ours, and so is the seed.

    Example:
        >>> row, taken = next(spend([Offer("d", 10, ("a", "b", "c"), (6, 5, 4))], seed=0))
        >>> sum(tokens for tokens, is_taken in zip((6, 5, 4), taken) if is_taken) == row.emitted_tokens <= 10
        True
    """
    carry = 0
    for offer in offers:
        left = offer.document_tokens + carry
        taken = [False] * len(offer.pair_ids)
        for place in _in_random_order(offer.pair_ids, seed):
            if offer.pair_tokens[place] <= left:
                taken[place] = True
                left -= offer.pair_tokens[place]
        yield (
            LedgerRow(
                document_id=offer.document_id,
                document_tokens=offer.document_tokens,
                carry_tokens=carry,
                offered_pairs=len(offer.pair_ids),
                offered_tokens=sum(offer.pair_tokens),
                chosen_pairs=sum(taken),
                emitted_tokens=offer.document_tokens + carry - left,
                left_tokens=left,
            ),
            tuple(taken),
        )
        carry = left if carries else 0


def _in_random_order(pair_ids: Sequence[str], seed: int) -> Sequence[int]:
    places = range(len(pair_ids))
    return sorted(places, key=lambda place: row_key(seed, STAGE, pair_ids[place])) if len(places) > 1 else places


def take_all(offers: Iterable[Offer]) -> Iterator[tuple[LedgerRow, tuple[bool, ...]]]:
    """Take every pair, whatever it costs; the ledger then only tells, and nothing is carried over."""
    for offer in offers:
        emitted = sum(offer.pair_tokens)
        row = LedgerRow(
            *(offer.document_id, offer.document_tokens, 0, len(offer.pair_ids), emitted, len(offer.pair_ids)),
            emitted,
            left_tokens=0,
        )
        yield row, (True,) * len(offer.pair_ids)


def ledger_problems(rows: Iterable[LedgerRow], carries: bool = True) -> Iterator[str]:
    """What does not add up in a ledger that was kept with a budget.

    Args:
        rows: The ledger, in plan order.
        carries: Whether what was left over went on to the next document.

    Yields:
        One line per document that breaks a rule.

    Example:
        >>> list(ledger_problems([LedgerRow("d", 10, 0, 1, 12, 1, 12, -2)]))
        ['d: 12 tokens of pairs for 10 of the document and 0 carried over']
    """
    carry = 0
    for row in rows:
        if row.carry_tokens != carry:
            yield f"{row.document_id}: {row.carry_tokens} tokens carried over, but {carry} were left before"
        if row.emitted_tokens > row.document_tokens + row.carry_tokens:
            yield (
                f"{row.document_id}: {row.emitted_tokens} tokens of pairs for {row.document_tokens} of the document"
                f" and {row.carry_tokens} carried over"
            )
        elif row.left_tokens != row.document_tokens + row.carry_tokens - row.emitted_tokens:
            yield f"{row.document_id}: {row.left_tokens} tokens left do not fit what was given and spent"
        carry = row.left_tokens if carries else 0
