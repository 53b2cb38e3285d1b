"""The tag grammars: what is written parses, and prints back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.markup import (
    ExcerptSegment,
    SlotSegment,
    TextSegment,
    excerpt_tag,
    fill,
    has_tag,
    parse_answer,
    parse_template,
    print_answer,
    print_template,
    skeleton,
    slot_names,
)

words = st.text(st.characters(blacklist_characters="<>", blacklist_categories=("Cs",)), min_size=1)
"""Any text without an angle bracket."""
trimmed = words.map(str.strip).filter(bool)


@given(st.lists(st.tuples(words, trimmed)), words)
def test_template_prints_back(parts: list[tuple[str, str]], tail: str) -> None:
    template = "".join(f"{text}<fi>{name}</fi>" for text, name in parts) + tail
    segments = parse_template(template)
    assert print_template(segments) == template
    assert slot_names(template) == tuple(name for _, name in parts)
    for segment in segments:
        if isinstance(segment, SlotSegment):
            assert template[segment.start : segment.end] == f"<fi>{segment.name}</fi>"


@given(st.lists(st.tuples(words, trimmed, st.none() | trimmed)), words)
def test_answer_prints_back(parts: list[tuple[str, str, str | None]], tail: str) -> None:
    answer = "".join(text + excerpt_tag(opening, closing) for text, opening, closing in parts) + tail
    segments = parse_answer(answer)
    assert print_answer(segments) == answer
    found = [(s.opening, s.closing) for s in segments if isinstance(s, ExcerptSegment)]
    assert found == [(opening, closing) for _, opening, closing in parts]
    for segment in segments:
        if isinstance(segment, ExcerptSegment):
            assert answer[segment.start : segment.end] == excerpt_tag(segment.opening, segment.closing)


@given(st.text("<>/.fiexcrpt ab…", max_size=60))
def test_any_text_parses_or_is_refused_and_what_parses_is_stable(text: str) -> None:
    for parse, write in ((parse_template, print_template), (parse_answer, print_answer)):
        try:
            printed = write(parse(text))  # type: ignore[operator]
        except ValueError as error:
            assert str(error).startswith("position ")
        else:
            assert write(parse(printed)) == printed  # type: ignore[operator]


@given(st.lists(st.tuples(words, trimmed, st.text()), max_size=4))
def test_fill_puts_each_value_where_its_slot_was(parts: list[tuple[str, str, str]]) -> None:
    template = "".join(f"{text}<fi>{name}</fi>" for text, name, _ in parts)
    assert fill(template, [value for *_, value in parts]) == "".join(text + value for text, _, value in parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <fi>b", "position 2: <fi> is never closed"),
        ("a</fi>", "position 1: </fi> without <fi>"),
        ("<fi>a<fi>b</fi></fi>", "position 5: <fi> inside another <fi>"),
        ("<fi>a</fi></fi>", "position 10: </fi> without <fi>"),
        ("x<fi> \n</fi>", "position 1: <fi> encloses nothing"),
    ],
)
def test_bad_template(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_template(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<excerpt>a", "position 0: <excerpt> is never closed"),
        ("a</excerpt>", "position 1: </excerpt> without <excerpt>"),
        ("<excerpt>a<excerpt>b</excerpt></excerpt>", "position 10: <excerpt> inside another"),
        ("b<excerpt></excerpt>", "position 1: <excerpt> encloses nothing"),
        ("<excerpt>a<...></excerpt>", "position 0: an <excerpt> needs words on both sides"),
        ("<excerpt> <...>a</excerpt>", "position 0: an <excerpt> needs words on both sides"),
        ("<excerpt>a<...>b<...>c</excerpt>", "position 0: more than one <...>"),
    ],
)
def test_bad_answer(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_answer(text)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<excerpt> a b </excerpt>", " <excerpt>a b</excerpt> "),
        ("so<excerpt> a </excerpt>then", "so <excerpt>a</excerpt> then"),
        ("so <excerpt> a </excerpt> then", "so <excerpt>a</excerpt> then"),
        ("<excerpt>a</excerpt><excerpt> b</excerpt>", "<excerpt>a</excerpt> <excerpt>b</excerpt>"),
        ("<excerpt>a <...> b</excerpt>", "<excerpt>a<...>b</excerpt>"),
        ("<excerpt>a<…>b</excerpt>", "<excerpt>a<...>b</excerpt>"),
    ],
)
def test_space_inside_a_tag_moves_outside(answer: str, expected: str) -> None:
    assert print_answer(parse_answer(answer)) == expected


def test_text_between_is_kept() -> None:
    assert parse_answer("a{b}\n") == (TextSegment("a{b}\n"),)
    assert parse_answer("") == ()
    assert skeleton("Is <fi>x</fi> a <fi> y</fi>?") == "Is <fi></fi> a <fi></fi>?"


def test_fill_refuses_a_wrong_number_of_values() -> None:
    with pytest.raises(ValueError, match="2 slots, but 1 values"):
        fill("<fi>a</fi><fi>b</fi>", ["x"])


def test_braces_and_tags_in_values_are_harmless() -> None:
    assert fill("Explain <fi>code</fi>.", ["{0} <fi>%s</fi>"]) == "Explain {0} <fi>%s</fi>."


@pytest.mark.parametrize("text", ["<fi>", "</fi>", "x</excerpt>", "<...>", "<…>", "<Excerpt>", "< / fi >", "<fi/>"])
def test_tags_are_seen(text: str) -> None:
    assert has_tag(text)


@pytest.mark.parametrize("text", ["", "fi", "<file>", "a<b", "<..>", "...", "<excerpts>"])
def test_other_text_is_no_tag(text: str) -> None:
    assert not has_tag(text)
