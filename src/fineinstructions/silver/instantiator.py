"""Judged pairs and refused matches to training rows of an instantiator, in two rounds.

In: the pairs of a run, whatever their score, and the matches that the compatibility judge turned down. Out: rows or
rejections, one per item and round. Round 1 is drawn from all answers that are grounded; round 2 from those that the
judge keeps, as evenly as may be over length, slot count and topic; both with a share of refusals.

The decision a reader would question: both rounds draw from one pool, so a pair may stand in both. The paper does not
say whether its second hundred thousand were made anew.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fineinstructions.records import Compatibility, Document, Pair, Rejection, Template, content_id, rejection
from fineinstructions.silver.choose import DistillConfig, even_shares, lowest, luck, split_of, stratum_name
from fineinstructions.silver.rows import InstantiatorRow, conversation
from fineinstructions.silver.shorthand import shorthand

Stratum = tuple[str, str, str]
"""Length, slot count and topic; three empty texts in round 1, which has one stratum."""
ROUNDS = (1, 2)


def stage(round_number: int) -> str:
    """Name of the stage that makes a round's rows."""
    return f"silver_round_{round_number}"


@dataclass(frozen=True)
class Student:
    """How a student is asked and answers; given by the room whose work it learns."""

    window: Callable[[str, tuple[int, int]], tuple[int, int]]
    """From a document and the span that must be in the middle to the part that is shown."""
    messages: Callable[[str, str], tuple[tuple[str, str], ...]]
    """From template and document to the prompt, role and content of every turn."""
    reply: Callable[[str, str], str]
    """From instruction and answer to the reply."""
    refusal: str
    """The reply that refuses."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A pair with what its student is shown."""

    pair: Pair
    template: Template
    document: Document
    focus: tuple[int, int]
    too_low: tuple[str, float] | None = None
    """Reason and score of a pair that the run does not keep; round 2 does not take it."""

    @property
    def record_id(self) -> str:
        """Id of the pair."""
        return self.pair.pair_id


@dataclass(frozen=True, slots=True)
class Refused:
    """A match that the compatibility judge turned down, with what its student is shown."""

    verdict: Compatibility
    template: Template
    document: Document
    focus: tuple[int, int]
    contradicted: bool
    """Whether the run made a pair of it all the same, one that the judge of pairs keeps."""

    @property
    def record_id(self) -> str:
        """Id of the pair that it would have become."""
        return refusal_id(self.verdict)


Item = Answered | Refused


def refusal_id(verdict: Compatibility) -> str:
    """Id of the pair that a match would have become."""
    return content_id("p", verdict.document_id, verdict.template_id)


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What the choice of rows needs to know of a pair."""

    pair_id: str
    kept: bool
    """Whether its scores are good enough for the run."""
    stratum: Stratum


def facts_of(
    pair_id: str, answer: str, num_slots: int, kept: bool, source: str, metadata: str, config: DistillConfig
) -> PairFacts:
    """The facts of a pair, from its columns."""
    topic = json.loads(metadata).get(config.topic_key) or source
    length = stratum_name(len(answer.split()), config.length_borders_words)
    return PairFacts(pair_id, kept, (length, stratum_name(num_slots, config.slot_borders), str(topic)))


@dataclass(frozen=True, slots=True)
class RoundChoice:
    """Which items become the rows of a round."""

    number: int
    last: Mapping[Stratum, int]
    """Highest luck of a pair that is still drawn, by stratum."""
    last_refusal: int

    def draws(self, facts: PairFacts, seed: int) -> bool:
        """Whether a pair is drawn."""
        return luck(seed, stage(self.number), facts.pair_id) <= self.last.get(self.stratum(facts), -1)

    def stratum(self, facts: PairFacts) -> Stratum:
        """The stratum that a pair is drawn from."""
        return facts.stratum if self.number > 1 else ("", "", "")


def choose_round(
    number: int,
    pairs: Iterable[PairFacts],
    refusals: Iterable[str],
    config: DistillConfig,
    seed: int,
) -> RoundChoice:
    """Settle which pairs and refusals a round takes.

    Args:
        number: 1 or 2.
        pairs: All pairs of the run.
        refusals: Ids of the matches that may stand as refusals.
        config: Sizes and shares.
        seed: Seed of the run.

    Source:
        arXiv:2601.22146, section 3.3: two rounds of 100,000, the second filtered and stratified, about 5 % refusals.
    """
    choice = RoundChoice(number, {}, -1)
    found: dict[Stratum, array[int]] = defaultdict(lambda: array("Q"))  # eight bytes a pair
    for facts in pairs:
        if facts.kept or number == 1:
            found[choice.stratum(facts)].append(luck(seed, stage(number), facts.pair_id))
    refusals_wanted = round(config.instantiator_rows * config.refusal_share)
    wanted = config.instantiator_rows - refusals_wanted
    shares = even_shares({stratum: len(numbers) for stratum, numbers in found.items()}, wanted)
    last = {stratum: lowest(np.frombuffer(n, np.uint64), shares[stratum]) for stratum, n in found.items()}
    num_refusals = round(refusals_wanted * sum(shares.values()) / wanted) if wanted else 0
    draw = np.fromiter((luck(seed, stage(number), record_id) for record_id in refusals), np.uint64)
    return RoundChoice(number, last, lowest(draw, num_refusals))


def instantiator_rows(
    items: Iterable[Item], choice: RoundChoice, student: Student, config: DistillConfig, seed: int
) -> Iterator[InstantiatorRow | Rejection]:
    """Rows of one round.

    Args:
        items: Pairs and refused matches.
        choice: Which of them are taken.
        student: How a student is asked and answers.
        config: Strata, and the share of validation.
        seed: Seed of the run.

    Yields:
        One row or rejection per item, in order. Reasons: ``low_score`` and ``low_expected_score`` (value: that
        score), ``surplus``, ``contradicted``, and those of `shorthand`.
    """
    for item in items:
        if isinstance(item, Answered):
            yield _answer_row(item, choice, student, config, seed)
        else:
            yield _refusal_row(item, choice, student, config, seed)


def _turned_away(item: Item, choice: RoundChoice, reason: str, value: float | None = None) -> Rejection:
    ids = {"document_id": item.document.document_id, "template_id": item.template.template_id}
    return rejection(stage(choice.number), reason, item.record_id, ids, value)


def _answer_row(
    item: Answered, choice: RoundChoice, student: Student, config: DistillConfig, seed: int
) -> InstantiatorRow | Rejection:
    pair = item.pair
    facts = facts_of(
        pair.pair_id, pair.answer, len(pair.slots), item.too_low is None, pair.source, pair.metadata, config
    )
    if item.too_low is not None and choice.number > 1:
        return _turned_away(item, choice, *item.too_low)
    if not choice.draws(facts, seed):
        return _turned_away(item, choice, "surplus")
    window = student.window(item.document.text, item.focus)
    tagged, reason = shorthand(pair, item.document.text, window, config.whole_excerpt_words)
    if reason:
        return _turned_away(item, choice, reason)
    teacher = json.loads(pair.models).get("instantiator", "")
    return _row(
        item, choice, student, window, config, seed,
        reply=student.reply(pair.instruction, tagged), refusal=False, instruction=pair.instruction, answer=pair.answer,
        excerpt_ratio=pair.excerpt_ratio, judge_score=pair.judge_score, length=facts.stratum[0],
        topic=facts.stratum[2], reason="", teacher=teacher if isinstance(teacher, str) else json.dumps(teacher),
    )  # fmt: skip


def _refusal_row(
    item: Refused, choice: RoundChoice, student: Student, config: DistillConfig, seed: int
) -> InstantiatorRow | Rejection:
    if item.contradicted:
        return _turned_away(item, choice, "contradicted")
    if luck(seed, stage(choice.number), item.record_id) > choice.last_refusal:
        return _turned_away(item, choice, "surplus")
    document = item.document
    topic = json.loads(document.metadata).get(config.topic_key) or document.source
    return _row(
        item, choice, student, student.window(document.text, item.focus), config, seed,
        reply=student.refusal, refusal=True, instruction="", answer="", excerpt_ratio=None, judge_score=None,
        length="", topic=str(topic), reason=item.verdict.reason, teacher=item.verdict.model,
    )  # fmt: skip


def _row(
    item: Item,
    choice: RoundChoice,
    student: Student,
    window: tuple[int, int],
    config: DistillConfig,
    seed: int,
    *,
    reply: str,
    **facts: object,
) -> InstantiatorRow:
    document, template = item.document, item.template
    shown = document.text[window[0] : window[1]]
    prompt, completion = conversation(student.messages(template.template, shown), reply)
    plain: dict[str, object] = {
        "row_id": content_id("i", str(choice.number), item.record_id),
        "split": split_of(seed, "document", document.document_id, config.validation_share),
        "round": choice.number,
        "prompt": prompt,
        "completion": completion,
        "reply": reply,
        "document_id": document.document_id,
        "window_start": window[0],
        "window_end": window[1],
        "template_id": template.template_id,
        "template": template.template,
        "query_ids": template.query_ids,
        "num_slots": template.num_slots,
        "source": document.source,
        "licence": document.licence,
        "template_licence": template.licence,
    }
    return InstantiatorRow(**plain, **facts)  # type: ignore[arg-type]
