"""Which pairs of a run make it into a corpus, over all of them: what stands against each, then the budget.

In: facts about pairs and documents, in the order of the run, which may be read several times. Out: a mark for every
pair, the ledger, and a rejection for every pair that does not stay. Marks are one byte a pair and may lie on disk, so
that memory does not grow with the run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fineinstructions.corpus import budget, sift
from fineinstructions.corpus.budget import LedgerRow, Offer, spend, take_all
from fineinstructions.corpus.sift import BenchmarkHit, PairFacts, SiftConfig, repeats, surplus_rows
from fineinstructions.errors import DataError
from fineinstructions.records import Rejection, rejection
from fineinstructions.runs import StageAccount


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """What is known of a document."""

    document_id: str
    num_tokens: int
    """Of its text as a training row, the tokens around it included."""
    share: float | None = None
    """Of a benchmark's item, where the text shares wording with one."""
    kind: str = ""
    """How it overlaps (`decontamination.Overlap`)."""
    item: str = ""
    """The benchmark's item: file and number; empty where there is none."""


FindCap = Callable[[Sequence[int], float], int | None]
"""From the number of pairs of every template and a largest share to the most pairs of one; ``None`` for no limit."""


@dataclass
class Choice:
    """The choice among the pairs of a run; its parts are read to their ends in the order in which they stand here.

    Args:
        live: One mark for every pair; filled.
        pairs: Gives the facts of all pairs.
        instructions: Gives the instructions of all pairs.
        documents: Gives the facts of all documents.
    """

    live: NDArray[np.bool_]
    pairs: Callable[[], Iterable[PairFacts]]
    instructions: Callable[[], Iterable[str]]
    documents: Callable[[], Iterable[DocumentFacts]]
    accounts: dict[str, StageAccount] = field(
        default_factory=lambda: {sift.STAGE: StageAccount(), budget.STAGE: StageAccount()}
    )
    num_documents: int = 0
    document_tokens: int = 0
    sifted_tokens: int = 0
    """Of the pairs that the budget chose from."""
    _with_benchmarks: dict[str, DocumentFacts] = field(default_factory=dict)
    """Documents that share wording with a benchmark, by id."""
    deficit_tokens: int = 0
    """Tokens of documents that no pair took the place of."""

    def sift(
        self, config: SiftConfig, seed: int, find_cap: FindCap, note_hit: Callable[[BenchmarkHit], None]
    ) -> Iterator[Rejection]:
        """Turn down what is not wanted in a corpus.

        Yields:
            Rejections. Reasons: ``low_score``, ``low_excerpt_ratio``, ``benchmark``, ``benchmark_document``,
            ``near_duplicate``, ``template_cap``.
        """
        account = self.accounts[sift.STAGE]
        if config.benchmarks:
            yield from self._without_benchmarks(note_hit)
        for row, facts in enumerate(self.pairs()):
            account.num_in += 1
            document = self._with_benchmarks.get(facts.document_id)
            self.live[row] = not facts.reason and document is None
            if facts.item:
                note_hit(BenchmarkHit(facts.pair_id, facts.part, facts.kind, facts.value or 0.0, facts.item))
            if facts.reason:
                yield self._turned_down(sift.STAGE, facts.reason, facts, facts.value, facts.item)
            elif document is not None:
                yield self._turned_down(sift.STAGE, "benchmark_document", facts, document.share, document.item)
        if config.near_duplicates:
            yield from self._without_repeats()
        if config.max_template_share is not None:
            yield from self._without_surplus(config.max_template_share, seed, find_cap)
        account.num_out = account.num_in - account.num_turned_away

    def _without_benchmarks(self, note_hit: Callable[[BenchmarkHit], None]) -> Iterator[Rejection]:
        """Turn down documents, which are then passed over wherever they come up again."""
        account = self.accounts[sift.DECONTAMINATE] = StageAccount()
        for facts in self.documents():
            account.num_in += 1
            if facts.item:
                self._with_benchmarks[facts.document_id] = facts
                note_hit(BenchmarkHit(facts.document_id, "document", facts.kind, facts.share or 0.0, facts.item))
                account.rejected["benchmark"] = len(self._with_benchmarks)
                yield sift.document_rejection(facts.document_id, facts.share, facts.item)
        account.num_out = account.num_in - account.num_turned_away

    def _live(self) -> Iterator[tuple[int, PairFacts]]:
        return ((row, facts) for row, facts in enumerate(self.pairs()) if self.live[row])

    def _without_repeats(self) -> Iterator[Rejection]:
        both = enumerate(zip(self.pairs(), self.instructions(), strict=True))
        entering = ((row, facts.pair_id, text) for row, (facts, text) in both if self.live[row])
        found = {repeat.row: repeat for repeat in repeats(entering)}
        for row, facts in self._live() if found else ():
            if row in found:
                self.live[row] = False
                again = found[row]
                yield self._turned_down(sift.STAGE, "near_duplicate", facts, again.similarity, again.earlier)

    def _without_surplus(self, max_share: float, seed: int, find_cap: FindCap) -> Iterator[Rejection]:
        counts = Counter(facts.template_id for _, facts in self._live())
        cap = find_cap(list(counts.values()), max_share)
        if cap is None:
            return
        surplus = surplus_rows(((row, f.pair_id, f.template_id) for row, f in self._live()), counts, cap, seed)
        for row, facts in self._live():
            if row in surplus:
                self.live[row] = False
                yield self._turned_down(sift.STAGE, "template_cap", facts, float(cap))

    def spend(
        self, kind: Literal["document", "none"], carries: bool, seed: int, note: Callable[[int, LedgerRow], None]
    ) -> Iterator[Rejection]:
        """Keep the pairs that the budget allows.

        Args:
            kind: Whether there is a budget.
            carries: Whether documents inherit what earlier ones left over.
            seed: Decides the order of the pairs.
            note: Given the place of every document that is not left out, and its row of the ledger.

        Yields:
            Rejections, with the pair's tokens as their value. Reasons: ``over_budget``.

        Raises:
            DataError: If pairs do not come in the order of their documents.
        """
        account = self.accounts[budget.STAGE]
        asked: list[tuple[int, list[tuple[int, PairFacts]]]] = []

        def offers() -> Iterator[Offer]:
            for number, (document, offered) in enumerate(_by_document(self.documents(), self._live())):
                if document.item:
                    continue
                asked.append((number, offered))
                facts = [f for _, f in offered]
                yield Offer(
                    document.document_id,
                    document.num_tokens,
                    tuple(f.pair_id for f in facts),
                    tuple(f.num_tokens for f in facts),
                )

        for row, taken in spend(offers(), seed, carries) if kind == "document" else take_all(offers()):
            number, offered = asked.pop()
            note(number, row)
            self.num_documents += 1
            self.document_tokens += row.document_tokens
            self.sifted_tokens += row.offered_tokens
            account.num_in += row.offered_pairs
            account.num_out += row.chosen_pairs
            for (place, facts), is_taken in zip(offered, taken, strict=True):
                if not is_taken:
                    self.live[place] = False
                    yield self._turned_down(budget.STAGE, budget.OVER_BUDGET, facts, float(facts.num_tokens))
            self.deficit_tokens = row.left_tokens if carries else self.deficit_tokens + row.left_tokens

    def _turned_down(
        self, stage: str, reason: str, facts: PairFacts, value: float | None, because_of: str = ""
    ) -> Rejection:
        rejected = self.accounts[stage].rejected
        rejected[reason] = rejected.get(reason, 0) + 1
        kept = {"document_id": facts.document_id, "template_id": facts.template_id, "num_tokens": facts.num_tokens}
        return rejection(stage, reason, facts.pair_id, kept | ({"because_of": because_of} if because_of else {}), value)


def _by_document(
    documents: Iterable[DocumentFacts], pairs: Iterator[tuple[int, PairFacts]]
) -> Iterator[tuple[DocumentFacts, list[tuple[int, PairFacts]]]]:
    """Every document with its pairs; both come in the order of the run."""
    waiting = next(pairs, None)
    for document in documents:
        found = []
        while waiting is not None and waiting[1].document_id == document.document_id:
            found.append(waiting)
            waiting = next(pairs, None)
        yield document, found
    if waiting is not None:
        facts = waiting[1]
        raise DataError(
            f"pair {facts.pair_id} of document {facts.document_id!r} does not stand in the order of the documents; the"
            " run and its input do not belong together, run it again"
        )
