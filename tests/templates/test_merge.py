import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.markup import parse_template
from fineinstructions.records import Rejection, Template, TemplateDraft
from fineinstructions.templates.merge import MergeConfig, fold, merge


def draft(
    query_id: str,
    template: str,
    description: str = "A page.",
    source: str = "s",
    licence: str = "CC-BY-4.0",
    fillers: tuple[str, ...] = (),
) -> TemplateDraft:
    return TemplateDraft(query_id, template, description, fillers or (query_id,), source, licence)


def split(items: list[Template | Rejection]) -> tuple[list[Template], list[Rejection]]:
    return [i for i in items if isinstance(i, Template)], [i for i in items if isinstance(i, Rejection)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is <fi>a term</fi>?", "what's <fi>a disease</fi>"),
        ("Whats <fi>a term</fi>?", "What is the <fi>thing</fi>?"),
        ("What’s the capital of <fi>a place</fi>?", "What is the capital of <fi>a country</fi>?"),
        ("How do I make <fi>a dish</fi>?", "How to make <fi>something</fi>?"),
        ("What are some of the causes of <fi>an event</fi>?", "What are the causes of <fi>a war</fi>?"),
        ("Please tell me who wrote <fi>a book</fi>.", "Who wrote the <fi>work</fi>?"),
    ],
)
def test_wordings_of_one_meaning_fold_together(first: str, second: str) -> None:
    assert fold(first) == fold(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Who is <fi>a person</fi>?", "Who was <fi>a person</fi>?"),
        ("What causes <fi>a disease</fi>?", "What does <fi>a disease</fi> cause?"),
        ("Is <fi>a thing</fi> <fi>a kind</fi>?", "Is <fi>a thing</fi>?"),
        ("What is <fi>a person</fi>'s name?", "What is <fi>a person</fi> name?"),
    ],
)
def test_different_meanings_stay_apart(first: str, second: str) -> None:
    assert fold(first) != fold(second)


def test_tense_aside_two_queries_share_a_frame_and_both_wordings_stay() -> None:
    drafts = [
        draft("q1", "When did <fi>a shop</fi> open?"),
        draft("q2", "In what year does <fi>a shop</fi> open?"),
        draft("q3", "When did <fi>a shop</fi> close?"),
    ]
    templates, rejected = split(list(merge(drafts, MergeConfig())))
    assert [t.query_ids for t in templates] in ([("q1",), ("q2",)], [("q2",), ("q1",)])
    assert [(r.reason, r.record_id) for r in rejected] == [("frame_not_shared", "q3")]


def test_adjectives_aside_two_queries_share_a_frame() -> None:
    drafts = [
        draft("q1", "What are the three main exports of <fi>a place</fi>?"),
        draft("q2", "What are the exports of <fi>a place</fi>?"),
    ]
    templates, rejected = split(list(merge(drafts, MergeConfig())))
    assert {t.query_ids for t in templates} == {("q1",), ("q2",)}
    assert not rejected


@pytest.mark.parametrize(
    ("template", "fillers", "reason"),
    [
        ("When did guardians of <fi>x</fi> open?", [("the galaxy",), ("the galaxy volume 2",)], "one_topic"),
        ("Who views <fi>x</fi> in <fi>y</fi>?", [("Luther", "Rome"), ("Luther", "Worms")], "one_topic"),
        ("How much does a pack of <fi>x</fi> weigh?", [("card sugar",), ("cane sugar",)], "one_topic"),
        ("Who fought in <fi>x</fi>?", [("the gulf war",), ("the civil war",)], ""),
        ("Who fought in <fi>x</fi>?", [("the gulf war",), ("the gulf war of 1991",)], "one_topic"),
        ("Summarize opinions about remote design of <fi>x</fi>.", [("buttons",), ("cases",)], "too_particular"),
        ("Summarize opinions about remote design of <fi>x</fi>.", [(w,) for w in "abcd"], ""),
    ],
)
def test_queries_about_one_topic_share_no_frame(template: str, fillers: list[tuple[str, ...]], reason: str) -> None:
    drafts = [draft(f"q{number}", template, fillers=row) for number, row in enumerate(fillers)]
    templates, rejected = split(list(merge(drafts, MergeConfig())))
    assert {r.reason for r in rejected} == ({reason} if reason else set())
    assert len(templates) == (not reason)
    assert len(split(list(merge(drafts, MergeConfig(min_queries=1))))[0]) == 1


def test_of_wordings_as_frequent_the_one_with_its_articles_is_kept() -> None:
    drafts = [draft("q1", "What is <fi>x</fi> in body?"), draft("q2", "What is <fi>x</fi> in the body?")]
    templates, _ = split(list(merge(drafts, MergeConfig())))
    assert [t.template for t in templates] == ["What is <fi>x</fi> in the body?"]


def test_slot_names_and_wording_go_by_majority() -> None:
    drafts = [
        draft("q3", "What are the symptoms of <fi>a disease</fi>?", "Health page."),
        draft("q1", "What are the symptoms of <fi>a disease</fi>?", "Health page."),
        draft("q2", "what are symptoms of <fi>a topic</fi>", "Any page."),
    ]
    templates, rejected = split(list(merge(drafts, MergeConfig())))
    assert not rejected
    assert [t.template for t in templates] == ["What are the symptoms of <fi>a disease</fi>?"]
    assert templates[0].query_ids == ("q1", "q2", "q3")
    assert templates[0].compatible_document_description == "Health page."
    assert templates[0].num_slots == 1


def test_sources_and_licences_are_joined() -> None:
    drafts = [
        draft("q1", "Who is <fi>x</fi>?", source="b", licence="MIT"),
        draft("q2", "Who is <fi>x</fi>?", source="a", licence="CC-BY-4.0"),
        draft("q3", "Who is <fi>x</fi>?", source="a", licence="MIT"),
    ]
    templates, _ = split(list(merge(drafts, MergeConfig())))
    assert templates[0].source == "a; b"
    assert templates[0].licence == "CC-BY-4.0; MIT"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("What is <fi>x</fi> of 1990?", "digit"),
        ("Who is <fi>x?", "slots_malformed"),
        ("Who is it?", "no_slot"),
        ("Write to someone@example.org about <fi>x</fi>.", "pii"),
        ("a " * 60 + "<fi>x</fi>", "too_long"),
    ],
)
def test_what_is_turned_down_keeps_its_reason(template: str, reason: str) -> None:
    templates, rejected = split(list(merge([draft("q1", template), draft("q2", template)], MergeConfig())))
    assert not templates
    assert [(r.record_id, r.reason) for r in rejected] == [("q1", reason), ("q2", reason)]


def test_a_frame_of_one_query_is_not_shared() -> None:
    drafts = [draft("q1", "Who is <fi>x</fi>?"), draft("q1", "Who is <fi>x</fi>?")]
    templates, rejected = split(list(merge(drafts, MergeConfig())))
    assert not templates
    assert {(r.reason, r.value) for r in rejected} == {("frame_not_shared", 1.0)}
    templates, rejected = split(list(merge(drafts, MergeConfig(min_queries=1))))
    assert len(templates) == 1 and not rejected


_TEMPLATES = st.sampled_from(
    [
        "What is <fi>a term</fi>?",
        "what's <fi>a disease</fi>?",
        "What is the <fi>topic</fi>?",
        "How to make <fi>a dish</fi>?",
        "How do I make <fi>a thing</fi>?",
        "Who wrote <fi>a book</fi> in <fi>a year</fi>?",
        "who wrote <fi>a work</fi> in <fi>a place</fi>",
        "broken <fi>slot",
        "no slot",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), _TEMPLATES, st.sampled_from(["A.", "B."])), max_size=30), st.randoms())
def test_merge_does_not_depend_on_order_and_loses_nothing(
    rows: list[tuple[int, str, str]], generator: random.Random
) -> None:
    drafts = [draft(f"q{number}", template, text) for number, template, text in rows]
    shuffled = list(drafts)
    generator.shuffle(shuffled)
    merged = list(merge(drafts, MergeConfig()))
    assert merged == list(merge(shuffled, MergeConfig()))
    templates, rejected = split(merged)
    for template in templates:
        parse_template(template.template)
    behind = {q for t in templates for q in t.query_ids} | {r.record_id for r in rejected}
    assert behind == {d.query_id for d in drafts}
    assert len({t.template_id for t in templates}) == len(templates)
