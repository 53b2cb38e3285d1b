"""Pairs, verdicts and drafts to training rows: what is drawn, what is written, and that a student can read it back."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.pairs import instantiate as instantiating
from fineinstructions.pairs.excerpts import ExcerptsConfig, expand
from fineinstructions.pairs.window import document_window
from fineinstructions.records import (
    Compatibility,
    Document,
    Draft,
    Excerpt,
    Pair,
    Query,
    Rejection,
    Slot,
    Template,
    TemplateDraft,
    from_table,
    to_table,
)
from fineinstructions.silver import embedder, genericizer, instantiator
from fineinstructions.silver.choose import DistillConfig
from fineinstructions.silver.rows import EmbedderRow, GenericizerRow, InstantiatorRow
from fineinstructions.silver.shorthand import shorthand
from fineinstructions.templates import genericize as genericizing

SENTENCES = [f"Sentence number {n} says that item {n} of the list weighs exactly {n} grams in all." for n in range(40)]
TEXT = " ".join(SENTENCES)
TEMPLATE = Template("t-1", "How heavy is <fi>an item</fi>?", "A list of weights.", 1, ("q-1",), "forum", "CC0")
STUDENT = instantiator.Student(
    lambda text, focus: document_window(text, focus, 100_000),
    instantiating.published_messages,
    instantiating.published_reply,
    instantiating.PUBLISHED_REFUSAL,
)


def pair_of(number, first=3, last=5, score=5, topic="weights", document_id=None):
    start = TEXT.index(SENTENCES[first])
    end = TEXT.index(SENTENCES[last]) + len(SENTENCES[last])
    answer = f"In short: {TEXT[start:end]}"
    return Pair(
        pair_id=f"p-{number}",
        document_id=document_id or f"d-{number}",
        template_id="t-1",
        query_ids=("q-1",),
        chunk=-1,
        cosine=0.5,
        instruction="How heavy is item 3?",
        answer=answer,
        slots=(Slot("an item", "item 3"),),
        excerpts=(Excerpt(len("In short: "), len(answer), start, end),),
        excerpt_ratio=0.9,
        coverage_ratio=1.0,
        judge_score=score,
        judge_feedback="",
        models='{"instantiator":{"model":"teacher"},"judge":"j"}',
        licence="CC-BY",
        template_licence="CC0",
        source="web",
        title="",
        url="",
        metadata=json.dumps({"domain": topic}),
        text="",
    )


def answered(pair):
    low = None if pair.judge_score >= 4 else ("low_score", float(pair.judge_score))
    return instantiator.Answered(pair, TEMPLATE, Document(pair.document_id, TEXT, licence="CC-BY"), (0, 10), low)


def refused(number, contradicted=False):
    verdict = Compatibility(f"d-{number}", "t-1", 1, 0.4, False, "It weighs nothing.", -1, -1, '{"model":"judge"}')
    return instantiator.Refused(verdict, TEMPLATE, Document(f"d-{number}", TEXT), (0, 10), contradicted)


def round_of(number, items, config):
    pairs = [i.pair for i in items if isinstance(i, instantiator.Answered)]
    facts = [
        instantiator.facts_of(p.pair_id, p.answer, len(p.slots), p.judge_score >= 4, p.source, p.metadata, config)
        for p in pairs
    ]
    ids = [i.record_id for i in items if isinstance(i, instantiator.Refused) and not i.contradicted]
    choice = instantiator.choose_round(number, facts, ids, config, 0)
    made = list(instantiator.instantiator_rows(items, choice, STUDENT, config, 0))
    assert len(made) == len(items)
    return [r for r in made if not isinstance(r, Rejection)], Counter(
        r.reason for r in made if isinstance(r, Rejection)
    )


def test_a_student_that_gives_the_reply_makes_the_pair_again():
    pair = pair_of(1)
    (row,), _ = round_of(1, [answered(pair)], DistillConfig(refusal_share=0))
    assert [(m.role, m.content) for m in row.prompt] == list(instantiating.published_messages(TEMPLATE.template, TEXT))
    assert [(m.role, m.content) for m in row.completion] == [("assistant", row.reply)]
    filled = instantiating.parse_reply(row.reply)
    assert len(filled.answer) < len(pair.answer)
    draft = Draft(pair.document_id, "t-1", -1, 0.5, filled.instruction, filled.answer, pair.slots)
    (expanded,) = expand([(draft, Document(pair.document_id, TEXT))], ExcerptsConfig(min_ratio=0))
    assert (expanded.instruction, expanded.answer, expanded.excerpts) == (pair.instruction, pair.answer, pair.excerpts)
    assert json.loads(row.teacher) == {"model": "teacher"}
    assert list(from_table(to_table([row], InstantiatorRow), InstantiatorRow)) == [row]


@given(
    st.lists(st.integers(0, 39), min_size=1, max_size=3, unique=True),
    st.sampled_from(["", " ", "Also: ", "\n"]),
    st.sampled_from([0, 12, 120]),
)
def test_short_hand_is_the_answer_in_fewer_words(numbers, between, whole_words):
    answer, excerpts = "", []
    for number in numbers:
        start = TEXT.index(SENTENCES[number])
        answer += between if answer else ""
        answer += " " if answer and not between else ""
        excerpts.append(
            Excerpt(len(answer), len(answer) + len(SENTENCES[number]), start, start + len(SENTENCES[number]))
        )
        answer += SENTENCES[number]
    pair = replace(pair_of(1), answer=answer, excerpts=tuple(excerpts))
    tagged, reason = shorthand(pair, TEXT, (0, len(TEXT)), whole_words)
    assert reason == ""
    longest = max(len(SENTENCES[number].split()) for number in numbers)
    assert ("<...>" in tagged) == (longest > whole_words)
    draft = Draft("d-1", "t-1", -1, 0.5, "Why?", tagged, ())
    (expanded,) = expand([(draft, Document("d-1", TEXT))], ExcerptsConfig(min_ratio=0))
    assert (expanded.answer, expanded.excerpts) == (answer, tuple(excerpts))


def test_what_cannot_be_written_in_short_hand_is_turned_away_with_its_reason():
    pair = pair_of(1)
    assert shorthand(pair, TEXT, (0, 100), 12) == ("", "outside_window")
    assert shorthand(pair, f"{TEXT} {TEXT}", (0, len(TEXT)), 12)[1] == "not_unique"


def test_round_1_takes_all_that_is_grounded_and_round_2_what_the_judge_keeps():
    items = [answered(pair_of(n, score=1 + n % 5)) for n in range(50)]
    config = DistillConfig(instantiator_rows=100, refusal_share=0)
    first, _ = round_of(1, items, config)
    second, turned_away = round_of(2, items, config)
    assert {r.judge_score for r in first} == {1, 2, 3, 4, 5}
    assert {r.judge_score for r in second} == {4, 5}
    assert (len(first), len(second), turned_away) == (50, 20, {"low_score": 30})
    assert [{r.round for r in rows} for rows in (first, second)] == [{1}, {2}]


def test_round_2_is_even_over_length_and_topic_where_round_1_is_not():
    items = [answered(pair_of(n, topic="common")) for n in range(300)]
    items += [answered(pair_of(n, topic="rare")) for n in range(300, 330)]
    items += [answered(pair_of(n, last=20, topic="common")) for n in range(330, 350)]
    config = DistillConfig(instantiator_rows=60, refusal_share=0)
    shares = [Counter((r.length, r.topic) for r in round_of(number, items, config)[0]) for number in (1, 2)]
    assert all(sum(counts.values()) == 60 for counts in shares)
    assert min(shares[0].values()) < 15, "one draw from all keeps the shares of the pool"
    assert sorted(shares[1].values()) == [20, 20, 20]
    assert set(shares[1]) == {("50-149", "common"), ("50-149", "rare"), ("150-399", "common")}


def test_round_2_is_even_over_slot_counts_too():
    few = [pair_of(number) for number in range(200)]
    many = [replace(pair_of(number), slots=(Slot("an item", "item 3"),) * 4) for number in range(200, 230)]
    config = DistillConfig(instantiator_rows=40, refusal_share=0)
    rows = round_of(2, [answered(pair) for pair in (*few, *many)], config)[0]
    assert Counter(row.document_id in {pair.document_id for pair in many} for row in rows) == {True: 20, False: 20}


def test_one_row_in_twenty_refuses_and_what_the_run_has_answered_does_not():
    items = [answered(pair_of(n)) for n in range(300)]
    items += [refused(n) for n in range(300, 400)] + [refused(n, contradicted=True) for n in range(400, 410)]
    rows, turned_away = round_of(1, items, DistillConfig(instantiator_rows=200))
    refusals = [row for row in rows if row.refusal]
    assert (len(rows), len(refusals)) == (200, 10)
    assert {row.reply for row in refusals} == {"null"}
    assert instantiating.parse_reply(refusals[0].reply) is None
    assert {row.reason for row in refusals} == {"It weighs nothing."}
    assert turned_away == {"surplus": 110 + 90, "contradicted": 10}
    rows, _ = round_of(1, items[:38] + items[300:], DistillConfig(instantiator_rows=200))
    assert (len(rows), sum(row.refusal for row in rows)) == (40, 2), "few answers have few refusals"
    rows, _ = round_of(1, items[:38], DistillConfig(instantiator_rows=200))
    assert len(rows) == 38


def test_rows_of_one_document_lie_on_one_side_in_every_file():
    config = DistillConfig(instantiator_rows=400, validation_share=0.3)
    items = [answered(pair_of(n, document_id=f"d-{n % 40}")) for n in range(300)] + [refused(n) for n in range(40)]
    verdicts = [judged(f"d-{n}", n % 2 == 0) for n in range(40)]
    rows = [r for number in (1, 2) for r in round_of(number, items, config)[0]]
    rows += list(embedder.embedder_rows(verdicts, 2**64, config, 0))
    sides = {(row.document_id, row.split) for row in rows}
    assert len(sides) == len({document_id for document_id, _ in sides}) == 40
    assert {split for _, split in sides} == {"train", "validation"}


def judged(document_id, compatible, quote=(-1, -1), contradicted=False):
    verdict = Compatibility(document_id, "t-1", 1, 0.4, compatible, "Because.", *quote, "{}")
    spans = ((0, 100), (100, 200), (200, len(TEXT)))
    return embedder.Judged(verdict, TEMPLATE, Document(document_id, TEXT, licence="CC-BY"), spans, contradicted)


@pytest.mark.parametrize(
    ("compatible", "quote", "label", "chunk"),
    [(True, (150, 170), 1.0, 1), (True, (250, 270), 1.0, 2), (True, (-1, -1), 1.0, 1), (False, (-1, -1), 0.0, 1)],
)
def test_the_relevant_chunk_is_the_one_that_the_judge_quotes(compatible, quote, label, chunk):
    (row,) = embedder.embedder_rows([judged("d-1", compatible, quote)], 2**64, DistillConfig(), 0)
    assert (row.label, row.chunk, row.retrieved_chunk) == (label, chunk, 1)
    assert (row.document, row.description) == (TEXT, "A list of weights.")
    assert (row.licence, row.template_licence) == ("CC-BY", "CC0")
    assert list(from_table(to_table([row], EmbedderRow), EmbedderRow)) == [row]


def test_whole_documents_are_drawn_for_the_embedder_and_contradictions_are_not():
    items = [judged(f"d-{n // 4}", True) for n in range(80)]
    config = DistillConfig(embedder_rows=30)
    last = embedder.last_drawn((i.document.document_id for i in items), config, 0)
    made = list(embedder.embedder_rows(items, last, config, 0))
    taken = Counter(r.document_id for r in made if not isinstance(r, Rejection))
    assert set(taken.values()) == {4}
    assert sum(taken.values()) == 28
    assert {r.reason for r in made if isinstance(r, Rejection)} == {"surplus"}
    (outcome,) = embedder.embedder_rows([judged("d-1", False, contradicted=True)], 2**64, config, 0)
    assert outcome.reason == "contradicted"


def test_a_genericizer_learns_what_the_published_one_is_asked():
    queries = [Query(f"q-{n}", f"Is food {n} bad?", "forum", "CC0") for n in range(20)]
    drafts = [TemplateDraft(q.query_id, "Is <fi>a food</fi> bad?", "A pet text.") for q in queries]
    student = genericizer.Student(genericizing.published_messages, genericizing.published_reply)
    config = DistillConfig(genericizer_rows=5)
    last = genericizer.last_drawn([q.query_id for q in queries], config, 3)
    made = list(
        genericizer.genericizer_rows(zip(queries, drafts, strict=True), last, student, '{"model":"m"}', config, 3)
    )
    rows = [row for row in made if isinstance(row, GenericizerRow)]
    assert (len(made), len(rows)) == (20, 5)
    for row in rows:
        assert [(m.role, m.content) for m in row.prompt] == [("user", row.query)]
        assert genericizing.parse_reply(row.reply) == (row.template, row.compatible_document_description)
        assert row.num_slots == 1
        assert list(from_table(to_table([row], GenericizerRow), GenericizerRow)) == [row]
