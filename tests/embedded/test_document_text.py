"""Blocks, sections and sentences of a document, as offsets into the text as read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.embedded.document_text import DocumentText, split_sentences

PAGE = """Skin Cancer

Skin cancer is a disease of the skin. It is common.

## Symptoms

- a new mole
- a sore that does not heal

## Treatment

Surgery removes it.

```sh
# not a heading
```

|a|b|
|-|-|
"""


def test_sections_have_headings_and_bodies():
    document = DocumentText(PAGE, "Skin Cancer")
    headings = [(section.heading, section.level, [b.kind for b in section.blocks]) for section in document.sections]
    assert headings == [
        ("", 0, []),
        ("Skin Cancer", 1, ["paragraph"]),
        ("Symptoms", 2, ["item", "item"]),
        ("Treatment", 2, ["paragraph", "code", "table"]),
    ]


def test_lines_that_only_look_like_headings():
    document = DocumentText("One paragraph here.\n\nInsulin's Role in Blood Glucose Control\n\nAnother paragraph.\n")
    assert [section.heading for section in document.sections] == ["", "Insulin's Role in Blood Glucose Control"]


def test_short_lines_behind_a_colon_are_a_list():
    document = DocumentText(
        "Signs include:\n\nShortness of breath\n\nPain in the chest\n\nIt may also spread slowly.\n"
    )
    assert [block.kind for block in document.blocks[:3]] == ["paragraph", "item", "item"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith left. He ran.", ["Dr. Smith left.", "He ran."]),
        ("It costs 3.5 dollars. Cheap!", ["It costs 3.5 dollars.", "Cheap!"]),
        ("J. R. Smith came.", ["J. R. Smith came."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Use e.g. Python. It works", ["Use e.g. Python.", "It works"]),
        ("The U.S. Army came. Why?", ["The U.S. Army came.", "Why?"]),
    ],
)
def test_sentences(text, sentences):
    assert [text[a:b] for a, b in split_sentences(text, 0, len(text))] == sentences


def test_neighbours():
    document = DocumentText("A cat sleeps. A dog runs.\n\nA cow stands.")
    first, second, third = document.sentences
    assert document.sentence_after(first) == second
    assert document.sentence_before(second) == first
    assert document.sentence_after(second) is None
    assert document.sentence_ending(third.end) == third


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("aB .!?\n#-|`:\"'(\u202eא1\r\t\x00"), max_size=200))
def test_blocks_and_sentences_lie_in_order_and_hold_all_words(text):
    document = DocumentText(text, "aB")
    ends = [0]
    for block in document.blocks:
        assert ends[-1] <= block.start < block.end <= len(text)
        ends.append(block.end)
    for before, after in zip(document.sentences, document.sentences[1:], strict=False):
        assert before.end <= after.start
    for block in document.blocks:
        spans = split_sentences(text, block.start, block.end)
        assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text[block.start : block.end].split())
