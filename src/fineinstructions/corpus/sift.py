"""Which pairs a corpus may hold: thresholds, benchmarks, repeated instructions, and no template too often.

In: pairs of a run. Out: facts about each of them, then whether it stays or a rejection. The decision a reader would
question: it is done in two steps. What can be said of one pair by itself (its tokens, its scores, a benchmark that it
quotes) is found by many processes; what depends on the other pairs is decided afterwards, in the order of the run, and
needs only numbers, or the instructions alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import Field

from fineinstructions.backends.tokenizer import Tokenizer
from fineinstructions.config import Config
from fineinstructions.decontamination import BenchmarkConfig, Decontaminator
from fineinstructions.filters import NearDuplicates
from fineinstructions.pair_text import pair_text
from fineinstructions.records import Document, Rejection, rejection
from fineinstructions.seeded_order import row_key

STAGE = "sift"
DECONTAMINATE = "decontaminate"
"""Stage of the documents that share wording with a benchmark."""
BATCH_ROWS = 512


class SiftConfig(Config):
    """Which pairs of a run go into a corpus; by default all that the run kept."""

    min_score: int | None = Field(default=None, ge=1, le=5)
    """Lowest judge's score; the run has its own threshold, below which it kept nothing. Ours: off."""
    min_excerpt_ratio: float | None = Field(default=None, ge=0, le=1)
    """Smallest share of an answer inside its excerpts; the run has its own threshold too. Ours: off."""
    benchmarks: list[BenchmarkConfig] = Field(default=[])
    """Benchmarks that no row may share wording with: a pair by its instruction or answer, a document by its text. A
    document that does is left out with all that is made of it. Ours: none; the paper decontaminates its queries
    (section 3.1), neither its pairs nor its documents."""
    near_duplicates: bool = False
    """Turn down instructions that repeat an earlier one in other words. Ours: off; holds a hash and an id
    of every different short instruction in memory, and a signature of every long one."""
    max_template_share: float | None = Field(default=None, gt=0, le=1)
    """Largest share of one template among the pairs that are left, before the budget. Ours: off; the run has its own
    cap."""


@dataclass(frozen=True, slots=True)
class PairText:
    """The columns of a pair that are looked at."""

    pair_id: str
    document_id: str
    template_id: str
    instruction: str
    answer: str
    judge_score: int
    excerpt_ratio: float


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What is known of a pair by itself."""

    pair_id: str
    document_id: str
    template_id: str
    num_tokens: int
    """Of its training row, the tokens around it included."""
    reason: str
    """Why it is turned down; empty where nothing speaks against it."""
    value: float | None
    """What decided: a score, a ratio, the share of a benchmark's item."""
    part: str
    """``instruction`` or ``answer``, where a benchmark was found in it."""
    kind: str
    """How it overlaps (`decontamination.Overlap`)."""
    item: str
    """The benchmark's item: file and number."""


@dataclass(frozen=True, slots=True)
class BenchmarkHit:
    """A pair or a document that shares wording with a benchmark: a row of the hit report."""

    record_id: str
    """Of the pair, or of the document."""
    part: str
    """``instruction`` or ``answer`` of a pair, or ``document``."""
    kind: str
    share: float
    item: str


def without_benchmarks(
    documents: Iterable[Document], benchmarks: Decontaminator | None
) -> Iterator[Document | Rejection]:
    """Turn down documents that share wording with a benchmark.

    Args:
        documents: Documents of a run.
        benchmarks: What their texts are compared with; without them all stay.

    Yields:
        One item per document, in order. Reasons: ``benchmark``.
    """
    for document in documents:
        found = benchmarks.find(document.text) if benchmarks is not None else None
        yield document if found is None else document_rejection(document.document_id, found.share, found.item)


def document_rejection(document_id: str, share: float | None, item: str) -> Rejection:
    """Why a document is left out that shares wording with a benchmark's item."""
    return rejection(DECONTAMINATE, "benchmark", document_id, {"because_of": item}, share)


def measure(
    pairs: Iterable[PairText], tokenizer: Tokenizer, benchmarks: Decontaminator | None, config: SiftConfig
) -> Iterator[PairFacts]:
    """Count the tokens of pairs, and find what speaks against each by itself.

    Args:
        pairs: Pairs of a run.
        tokenizer: Counts their training text.
        benchmarks: What their wording is compared with.
        config: Thresholds.

    Yields:
        One item per pair, in order. Reasons: ``low_score``, ``low_excerpt_ratio``, ``benchmark``.
    """
    rows = iter(pairs)
    while batch := list(islice(rows, BATCH_ROWS)):
        counts = tokenizer.row_tokens([pair_text(pair.instruction, pair.answer) for pair in batch])
        for pair, num_tokens in zip(batch, counts.tolist(), strict=True):
            against = _objection(pair, benchmarks, config)
            yield PairFacts(pair.pair_id, pair.document_id, pair.template_id, num_tokens, *against)


def _objection(
    pair: PairText, benchmarks: Decontaminator | None, config: SiftConfig
) -> tuple[str, float | None, str, str, str]:
    """Reason, value, and of a benchmark the part, kind and item."""
    if config.min_score is not None and pair.judge_score < config.min_score:
        return "low_score", float(pair.judge_score), "", "", ""
    if config.min_excerpt_ratio is not None and pair.excerpt_ratio < config.min_excerpt_ratio:
        return "low_excerpt_ratio", pair.excerpt_ratio, "", "", ""
    for part in ("instruction", "answer") if benchmarks is not None else ():
        found = benchmarks.find(getattr(pair, part)) if benchmarks is not None else None
        if found is not None:
            return "benchmark", found.share, part, found.kind, found.item
    return "", None, "", "", ""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An instruction that repeats an earlier one."""

    row: int
    """Which of the rows that were given."""
    similarity: float
    earlier: str
    """Id of the pair with the earlier one."""


def repeats(instructions: Iterable[tuple[int, str, str]]) -> Iterator[Repeat]:
    """Instructions that repeat an earlier one; the first of each group stays.

    Args:
        instructions: Row, pair id and instruction, in the order of the run, of pairs that are still there.

    Example:
        >>> list(repeats([(0, "p1", "What is rain?"), (1, "p2", "what is the rain"), (2, "p3", "Why?")]))
        [Repeat(row=1, similarity=1.0, earlier='p1')]
    """
    seen = NearDuplicates()
    for row, pair_id, instruction in instructions:
        found = seen.find(instruction, pair_id)
        if found is not None:
            yield Repeat(row, found[1], found[0])


def surplus_rows(
    pairs: Iterable[tuple[int, str, str]], counts: Mapping[str, int], cap: int, seed: int
) -> frozenset[int]:
    """Rows to turn down so that no template keeps more than `cap` pairs.

    Only pairs of templates above the cap are held in memory. Which of them stay is settled by seed and pair id.

    Args:
        pairs: Row, pair id and template id of the pairs that are still there.
        counts: Pairs of every template.
        cap: Most pairs of a template.
        seed: Seed of the export.

    Example:
        >>> rows = [(0, "a", "t"), (1, "b", "t"), (2, "c", "u")]
        >>> len(surplus_rows(rows, {"t": 2, "u": 1}, 1, seed=0) & {0, 1})
        1
    """
    of_template: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, pair_id, template_id in pairs:
        if counts[template_id] > cap:
            of_template[template_id].append((row_key(seed, "template_cap", pair_id), row))
    return frozenset(row for keyed in of_template.values() for _, row in sorted(keyed)[cap:])


def hits_by_benchmark(hits: Iterable[BenchmarkHit]) -> list[dict[str, Any]]:
    """The hit report in short: how many pairs and documents of each kind every benchmark file has cost."""
    counts = Counter((hit.item.rpartition(":")[0], hit.part, hit.kind) for hit in hits)
    return [
        {"benchmark": name, "part": part, "kind": kind, "rows": number}
        for (name, part, kind), number in sorted(counts.items())
    ]
