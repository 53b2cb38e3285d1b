"""Scores and feedback of the embedded judge, on pairs from anywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.embedded.judge import EmbeddedJudge, verdict
from fineinstructions.records import Document, ExpandedDraft, Slot, Template

GOOD = [
    ("What is glycolysis?", "Glycolysis is the first step in the breakdown of glucose.", ["glycolysis"]),
    ("How is cutis laxa treated?", "Treatment depends on the symptoms. Surgery can help.", ["cutis laxa"]),
    ("What is the recipe for fajitas?", "1. Cut the meat for the fajitas.\n2. Grill it\n3. Serve", ["fajitas"]),
    ("Write a short note about the history of Kansas.", "Kansas was admitted to the Union in 1861.", []),
    ("How does IT work?", "In a company IT moves and stores the data.", ["IT"]),
    ("What is the process of mitosis?", "In mitosis the nucleus divides into two equal parts.", ["mitosis"]),
]
BAD = [
    ("What is it?", "It was there for a long time.", ["it"], "filler"),
    ("What is THE COMPANY?", "THE COMPANY was there for a long time.", ["THE COMPANY"], "filler"),
    ("What is THIS?", "THIS was there for a long time.", ["THIS"], "filler"),
    ("What did the company do?", "It sold many cars in the year 1960.", [], "context"),
    ("What is glycolysis?", "", ["glycolysis"], "empty"),
    ("What is <fi>x</fi>?", "A thing of some kind is here.", [], "markup"),
    ("What is glycolysis?", "However, glycolysis is the first step in the chain.", ["glycolysis"], "dangling"),
    ("What is glycolysis?", "Paris lies on the river Seine in France.", ["glycolysis"], "support"),
    ("What is glycolysis?", "Glycolysis is glycolysis.", ["glycolysis"], "short"),
    ("What is glycolysis?", "Glycolysis consists of several steps, such as:", ["glycolysis"], "unfinished"),
    ("What is glycolysis?", "Glycolysis is shown in Figure 3 of the book here.", ["glycolysis"], "context"),
    ("What is of of glycolysis?", "Glycolysis is the first step in the breakdown.", ["glycolysis"], "form"),
]


@pytest.mark.parametrize(("instruction", "answer", "fillers"), GOOD)
def test_good_pairs_are_kept(instruction, answer, fillers):
    title = "cutis laxa" if "cutis" in instruction else "fajitas"
    score, feedback = verdict(instruction, answer, fillers, title)
    assert score >= 4, feedback


@pytest.mark.parametrize(("instruction", "answer", "fillers", "why"), BAD)
def test_bad_pairs_are_named(instruction, answer, fillers, why):
    score, feedback = verdict(instruction, answer, fillers)
    assert score < 4
    assert feedback.startswith(why)


def test_judge_gives_one_judgement_per_item_in_order():
    template = Template("t", "What is <fi>x</fi>?", "", 1, ("q",))
    document = Document("d", "text")
    items = [
        (ExpandedDraft("d", "t", -1, 0.5, q, a, (Slot("x", f[0]),), (), 1.0, 1.0), template, document)
        for q, a, f in [GOOD[0], ("What is it?", "It was there.", ["it"])]
    ]
    judge = EmbeddedJudge()
    scores = [judgement.score for judgement in judge.judge(iter(items))]
    assert scores[0] == 5
    assert scores[1] == 1
    assert "embedded-judge" in judge.model


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=200), st.lists(st.text(max_size=20), max_size=3))
def test_any_text_gets_a_score(instruction, answer, fillers):
    score, feedback = verdict(instruction, answer, fillers)
    assert 1 <= score <= 5
    assert feedback
