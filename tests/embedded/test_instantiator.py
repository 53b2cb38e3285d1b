"""Filled templates, refusals, and excerpts that are found exactly once."""

import json
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.embedded.instantiator import EmbeddedInstantiator, excerpt
from fineinstructions.embedded.relations import RelationGate
from fineinstructions.records import Document, Draft, Match, Rejection, Template


@dataclass(frozen=True)
class Request:
    match: Match
    template: Template
    document: Document
    focus: tuple[int, int]


def ask(text, template, title="", focus=None):
    document = Document("d-1", text, title)
    made = Template("t-1", template, "", template.count("<fi>"), ("q-1",))
    request = Request(Match("d-1", "t-1", -1, 0.5), made, document, focus or (0, len(text)))
    return next(EmbeddedInstantiator().instantiate([request]))


def expanded(answer, text):
    """The answer with its excerpts written out; every one must have exactly one match."""

    def write(found):
        head, dots, tail = found.group(1).partition("<...>")
        assert text.count(head) == 1
        start = text.index(head)
        if not dots:
            return head
        assert text.count(tail) == 1
        assert text.index(tail) >= start + len(head)
        return text[start : text.index(tail) + len(tail)]

    return re.sub(r"<excerpt>(.*?)</excerpt>", write, answer, flags=re.DOTALL)


LONG = """Cutis laxa

Cutis laxa is a disorder of connective tissue, which is the tissue that gives the body its structure and strength. \
It is rare in people without cutis laxa.

## Inheritance

This condition is inherited in an autosomal dominant pattern in most families.
"""


def test_draft_quotes_whole_sentences_in_short_hand():
    draft = ask(LONG, "What is <fi>a topic</fi>?", "Cutis laxa")
    assert isinstance(draft, Draft)
    assert draft.instruction == "What is cutis laxa?"
    assert draft.slots[0].value == "cutis laxa"
    assert "<...>" in draft.answer
    assert expanded(draft.answer, LONG).endswith("without cutis laxa.")


def test_subject_takes_the_place_of_this_condition():
    draft = ask(LONG, "How is <fi>a disease</fi> inherited?", "Cutis laxa")
    assert expanded(draft.answer, LONG).startswith("Cutis laxa is inherited in")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("Write a poem about love.", "refused_relation_unknown"),
        ("Who is <fi>a person</fi>?", "refused_no_evidence"),
        ("What are <fi>things</fi>?", "refused_no_evidence"),
        ("When was <fi>a company</fi> founded?", "refused_no_evidence"),
    ],
)
def test_refusals_say_why(template, why):
    refusal = ask(LONG, template, "Cutis laxa")
    assert isinstance(refusal, Rejection)
    assert (refusal.stage, refusal.reason) == ("instantiate", why)
    assert json.loads(refusal.record)["document_id"] == "d-1"


def test_evidence_in_the_focus_is_preferred():
    first = "Osmosis is a process in which water moves through a membrane. "
    last = "Diffusion is a process in which particles spread out evenly. "
    text = first + "Osmosis and diffusion matter. " * 20 + last + "We see osmosis and diffusion."
    focus = (text.index("Diffusion is"), len(text))
    assert ask(text, "What is <fi>a topic</fi>?", focus=focus).instruction == "What is diffusion?"
    assert ask(text, "What is <fi>a topic</fi>?", focus=(0, 60)).instruction == "What is osmosis?"


def test_markup_in_the_document_is_refused():
    text = "Osmosis is a process in which <excerpt>water</excerpt> moves through a wall. Osmosis is slow."
    assert isinstance(ask(text, "What is <fi>a topic</fi>?"), Rejection)


def test_order_of_requests_does_not_matter():
    documents = [Document(f"d-{n}", LONG.replace("laxa", f"laxa{n}"), f"Cutis laxa{n}") for n in range(5)]
    made = Template("t-1", "What is <fi>a topic</fi>?", "", 1, ("q-1",))
    requests = [Request(Match(d.document_id, "t-1", -1, 0.5), made, d, (0, 50)) for d in documents]
    forward = list(EmbeddedInstantiator().instantiate(requests))
    backward = list(EmbeddedInstantiator().instantiate(reversed(requests)))
    assert forward == backward[::-1]


TOKENS = ("the", "cell", "divides", "and", "grows", "in", "a", "wet", "place", ".", "Two")
WORDS = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(WORDS, st.data())
def test_excerpts_are_found_exactly_once(words, data):
    text = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = len(" ".join(words[:first])) + (first > 0)
    end = len(" ".join(words[: last + 1]))
    marked = excerpt(text, start, end)
    if marked:
        assert expanded(marked, text) == text[start:end]


PIECES = (
    *(
        "<fi>x</fi>",
        "</excerpt>",
        "<excerpt>",
        "<...>",
        "{0}",
        '{"a": 1}',
        "\x00",
        "\u202e",
        "שלום",
        "|",
        ":",
        "(",
        ")",
        "é",
    ),
    *("Osmosis is a process that", "moves water.", "The", "was founded in 1960 by", "John Smith", "'"),
    *("\n\n", "## Symptoms", "\n- ", "```", "\r\n"),
)
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=30)
BANK = [
    Template(f"t-{n}", text, "", 1, ("q-1",))
    for n, text in enumerate(
        (
            "What is <fi>a topic</fi>?",
            "When was <fi>it</fi> founded?",
            "What are the symptoms of <fi>a disease</fi>?",
            "<fi></fi>",
            "<fi>",
        )
    )
]


@settings(max_examples=200, deadline=None)
@given(HOSTILE, st.sampled_from(["", "Osmosis", "<fi>", "{}", "\x00"]))
def test_hostile_documents_never_crash(pieces, title):
    document = Document("d-1", " ".join(pieces), title)
    RelationGate(BANK).allowed(document)
    requests = [Request(Match("d-1", t.template_id, 0, 0.1), t, document, (0, 10)) for t in BANK]
    results = list(EmbeddedInstantiator().instantiate(requests))
    assert len(results) == len(BANK)
    for result in results:
        if isinstance(result, Draft):
            expanded(result.answer, document.text)
            assert "<fi>" not in result.instruction
