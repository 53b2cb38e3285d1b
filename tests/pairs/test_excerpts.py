"""Excerpts: whatever a model writes, an answer quotes its document exactly or is refused with a reason."""

import json
import unicodedata
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fineinstructions import markup
from fineinstructions.markup import excerpt_tag
from fineinstructions.pairs.excerpts import ExcerptsConfig, coverage_ratio, excerpt_ratio, expand, find_fault
from fineinstructions.pairs.locate import fold
from fineinstructions.records import Document, Draft, Excerpt, ExpandedDraft, Rejection

TEXT = (
    "The river Aare rises in the Alps. It flows through Bern.\n\nIt is 288 km long. “Its colour,” wrote Anna, "
    "“is a well-known green.” The river Aare joins the Rhine."
)


def draft(answer: str, instruction: str = "What is the Aare?") -> Draft:
    return Draft("d1", "t-1", -1, 0.9, instruction, answer, ())


def expand_one(
    answer: str,
    text: str = TEXT,
    instruction: str = "What is the Aare?",
    focus: tuple[int, int] | None = None,
    **config: object,
) -> ExpandedDraft | Rejection:
    settings = ExcerptsConfig.model_validate({"min_ratio": 0.0} | config)
    items = expand([(draft(answer, instruction), Document("d1", text))], settings, lambda *_: focus)
    (item,) = items
    return item


def quoted(item: ExpandedDraft | Rejection, text: str = TEXT) -> list[str]:
    """The excerpts' texts, checked to be the same in the answer and in the document."""
    assert isinstance(item, ExpandedDraft), item
    for e in item.excerpts:
        assert item.answer[e.answer_start : e.answer_end] == text[e.document_start : e.document_end]
    return [item.answer[e.answer_start : e.answer_end] for e in item.excerpts]


def reason(item: ExpandedDraft | Rejection) -> tuple[str, float | None]:
    assert isinstance(item, Rejection), item
    assert item.stage == "excerpts"
    assert not item.failed
    return item.reason, item.value


def test_whole_and_shortened_excerpts() -> None:
    item = expand_one("Well: <excerpt>It flows<...>km long.</excerpt> And <excerpt>joins the Rhine.</excerpt>")
    assert quoted(item) == ["It flows through Bern.\n\nIt is 288 km long.", "joins the Rhine."]
    assert isinstance(item, ExpandedDraft)
    assert item.answer == "Well: It flows through Bern.\n\nIt is 288 km long. And joins the Rhine."
    assert item.excerpt_ratio == pytest.approx((42 + 16) / len(item.answer))
    assert item.coverage_ratio == pytest.approx(41 / 68)  # the line break counts as one space


def test_the_first_end_after_the_start_closes_a_shortened_excerpt() -> None:
    text = "a start one end two end three"
    assert quoted(expand_one("<excerpt>start<...>end</excerpt>", text), text) == ["start one end"]


@pytest.mark.parametrize(
    ("excerpt", "expected"),
    [
        ("it FLOWS through bern.", "It flows through Bern."),
        ("It flows through Bern. It is 288 km long.", "It flows through Bern.\n\nIt is 288 km long."),
        ('"Its colour," wrote Anna', "“Its colour,” wrote Anna"),
        ("a well—known green", "a well-known green"),
        ("a well known green", "a well-known green"),
        ("IT FLOWS<...>BERN.", "It flows through Bern."),
        ('"is a<...>green."', "“is a well-known green.”"),
    ],
)
def test_small_slips_are_found_and_the_document_text_is_written(excerpt: str, expected: str) -> None:
    assert quoted(expand_one(f"<excerpt>{excerpt}</excerpt>")) == [expected]
    assert reason(expand_one(f"<excerpt>{excerpt}</excerpt>", tolerant=False)) == ("excerpt_not_found", None)


@pytest.mark.parametrize(
    ("excerpt", "expected"),
    [
        ("It flows trough Bern. It is 288 km long.", "It flows through Bern.\n\nIt is 288 km long."),
        ("It flows through the Bern. It is 288 km long", "It flows through Bern.\n\nIt is 288 km long"),
        ("It flows through Bern. It 288 km long.", "It flows through Bern.\n\nIt is 288 km long."),
        ("The river Are rises in the Alps.<...>km long.", TEXT[: TEXT.index("long.") + 5]),
        ("The river Aare rises<...>a wel-known green.” The river Aare", TEXT[: TEXT.index(" joins")]),
    ],
)
def test_words_copied_with_a_slip_are_found_where_they_are_meant(excerpt: str, expected: str) -> None:
    assert quoted(expand_one(f"<excerpt>{excerpt}</excerpt>")) == [expected]
    assert reason(expand_one(f"<excerpt>{excerpt}</excerpt>", min_similarity=1.0)) == ("excerpt_not_found", None)


def test_a_slip_that_resembles_two_places_is_ambiguous() -> None:
    text = "In the year 1901 the old bridge was rebuilt. In the year 1907 the old bridge was rebuilt."
    excerpt = "<excerpt>In the year 1904 the old bridge was rebuilt.</excerpt>"
    assert reason(expand_one(excerpt, text)) == ("ambiguous_excerpt", 2.0)


def test_other_words_are_not_taken_for_a_slip() -> None:
    for excerpt in ("It flows through Thun. It is 9 miles long.", "Flows through Bern. It is 288 km wide and"):
        assert reason(expand_one(f"<excerpt>{excerpt}</excerpt>")) == ("excerpt_not_found", None)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_accents_in_either_form(form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD"]) -> None:
    text = unicodedata.normalize(form, "Le café fermé. Das Büro der ﬁnanzen.")
    excerpt = unicodedata.normalize(other, "le café fermé")
    assert quoted(expand_one(excerpt_tag(excerpt), text), text) == [unicodedata.normalize(form, "Le café fermé")]
    assert quoted(expand_one(excerpt_tag("der finanzen"), text), text) == ["der ﬁnanzen"]


def test_offsets_count_code_points() -> None:
    text = "😀 שלום עולם 😀 and more"
    item = expand_one("<excerpt>שלום עולם</excerpt>", text)
    assert quoted(item, text) == ["שלום עולם"]
    assert isinstance(item, ExpandedDraft)
    assert item.excerpts == (Excerpt(0, 9, 2, 11),)


def test_a_tolerant_match_never_cuts_a_word() -> None:
    assert reason(expand_one("<excerpt>THE RIVE</excerpt>", tolerant=True)) == ("excerpt_not_found", None)


def test_side_by_side() -> None:
    apart = expand_one("<excerpt>It flows through Bern.</excerpt><excerpt>joins the Rhine.</excerpt>")
    assert isinstance(apart, ExpandedDraft)
    assert apart.answer == "It flows through Bern. joins the Rhine."
    touching = expand_one("<excerpt>It flows through</excerpt><excerpt> Bern.</excerpt>", TEXT)
    assert isinstance(touching, ExpandedDraft)
    assert touching.answer == "It flows through Bern."
    joined = expand_one("<excerpt>288 k</excerpt><excerpt>m long</excerpt>")
    assert isinstance(joined, ExpandedDraft)
    assert joined.answer == "288 km long"
    assert joined.excerpt_ratio == 1.0


def test_space_around_the_answer_goes() -> None:
    item = expand_one(" \n<excerpt>\tIt flows through Bern. </excerpt>\n ")
    assert isinstance(item, ExpandedDraft)
    assert (item.answer, item.excerpt_ratio) == ("It flows through Bern.", 1.0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<excerpt>It flows", ("unbalanced_tags", None)),
        ("It flows</excerpt>", ("unbalanced_tags", None)),
        ("<excerpt>It <excerpt>flows</excerpt></excerpt>", ("unbalanced_tags", None)),
        ("<excerpt></excerpt>", ("unbalanced_tags", None)),
        ("A <fi>river</fi> <excerpt>It flows</excerpt>", ("leftover_tag", None)),
        ("It <...> long", ("leftover_tag", None)),
        ("<Excerpt>It flows</Excerpt>", ("leftover_tag", None)),
        ("  ", ("empty_answer", None)),
        ("<excerpt>It runs</excerpt>", ("excerpt_not_found", None)),
        ("<excerpt>joins the<...>Alps.</excerpt>", ("excerpt_not_found", None)),
        ("<excerpt>—</excerpt>", ("excerpt_not_found", None)),
        ("<excerpt>The river Aare</excerpt>", ("ambiguous_excerpt", 2.0)),
        ("<excerpt>The river<...>Rhine.</excerpt>", ("ambiguous_excerpt", 2.0)),
        ("<excerpt>the RIVER aare</excerpt>", ("ambiguous_excerpt", 2.0)),
        (
            "<excerpt>It flows through Bern.</excerpt> <excerpt>through Bern.</excerpt>",
            ("overlapping_excerpts", None),
        ),
        ("<excerpt>It flows<...>Rhine.</excerpt>", ("excerpt_too_long", 125.0)),
    ],
)
def test_refusals(answer: str, expected: tuple[str, float | None]) -> None:
    assert reason(expand_one(answer, max_excerpt_chars=100)) == expected


def test_tags_in_the_instruction_and_the_document_are_refused() -> None:
    assert reason(expand_one("<excerpt>It flows</excerpt>", instruction="What is <fi>x</fi>?")) == (
        "leftover_tag",
        None,
    )
    assert reason(expand_one("<excerpt>It flows</excerpt>", instruction=" ")) == ("empty_instruction", None)
    text = "Write the tag <fi> first. Then </excerpt> and {braces}."
    assert reason(expand_one("<excerpt>Write<...>first.</excerpt>", text)) == ("tag_in_excerpt", None)
    assert reason(expand_one("<excerpt>Then </excerpt> and</excerpt>", text)) == ("unbalanced_tags", None)
    assert quoted(expand_one("<excerpt>and {braces}.</excerpt>", text), text) == ["and {braces}."]
    assert reason(expand_one("<<excerpt>fi> first</excerpt>", "say fi> first")) == ("tag_in_excerpt", None)


def test_a_focus_settles_what_stands_twice() -> None:
    second = TEXT.rindex("The river")
    item = expand_one("<excerpt>The river Aare</excerpt>", focus=(second, len(TEXT)))
    assert isinstance(item, ExpandedDraft)
    assert item.excerpts[0].document_start == second
    assert reason(expand_one("<excerpt>The river Aare</excerpt>", focus=(0, len(TEXT)))) == ("ambiguous_excerpt", 2.0)
    assert reason(expand_one("<excerpt>The river Aare</excerpt>", focus=(40, 45))) == ("ambiguous_excerpt", 2.0)


def test_a_low_ratio_keeps_the_expanded_answer_in_its_record() -> None:
    answer = "In my own words it is a river: <excerpt>It flows through Bern.</excerpt>"
    item = expand_one(answer, min_ratio=0.8)
    assert isinstance(item, Rejection)
    assert item.reason == "low_excerpt_ratio"
    record = json.loads(item.record)
    assert record["answer"] == "In my own words it is a river: It flows through Bern."
    assert item.value == record["excerpt_ratio"] == pytest.approx(22 / 53)


def test_one_output_per_draft_in_order() -> None:
    document = Document("d1", TEXT)
    answers = ["<excerpt>It flows</excerpt>", "none", "<excerpt>288 km</excerpt>"]
    items = list(expand([(draft(a), document) for a in answers], ExcerptsConfig()))
    assert [type(i) for i in items] == [ExpandedDraft, Rejection, ExpandedDraft]


texts = st.text("ab .,—“\"'\n\u00a0éE\u0301ß<>{}0😀", max_size=60)


@given(texts, st.data())
def test_every_excerpt_is_a_substring_at_its_offsets(text: str, data: st.DataObject) -> None:
    answer = ""
    for _ in range(data.draw(st.integers(0, 3))):
        ends = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
        opening, closing = text[ends[0] : ends[1]], text[ends[2] : ends[3]]
        opening = opening.upper() if data.draw(st.booleans()) else opening
        answer += data.draw(st.sampled_from(["", " ", "and "]))
        answer += excerpt_tag(opening, data.draw(st.sampled_from([None, closing])))
    item = expand_one(answer, text)
    if isinstance(item, ExpandedDraft):
        quoted(item, text)
        assert item.answer == item.answer.strip()
        assert 0.0 <= item.excerpt_ratio <= 1.0
        assert 0.0 <= item.coverage_ratio <= 1.0


@given(st.text("abc de.", min_size=1, max_size=40).map(str.strip).filter(bool), st.integers(0, 30), st.integers(1, 30))
def test_a_span_that_stands_once_is_found_at_its_place(text: str, start: int, length: int) -> None:
    span = text[start : start + length]
    if not span or span != span.strip():
        return
    places = [i for i in range(len(text)) if text.startswith(span, i)]
    item = expand_one(excerpt_tag(span), text, tolerant=False)
    if len(places) == 1:
        assert isinstance(item, ExpandedDraft)
        assert item.excerpts == (Excerpt(0, len(span), places[0], places[0] + len(span)),)
    else:
        assert reason(item) == ("ambiguous_excerpt", 2.0)


@given(st.text())
def test_fold_maps_every_character_to_the_one_it_came_from(text: str) -> None:
    folded, origins = fold(text)
    assert len(folded) == len(origins)
    assert origins == sorted(origins)
    assert "  " not in folded
    assert fold(folded)[0] == folded


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=5), st.integers(1, 50))
def test_excerpt_ratio_counts_the_union(spans: list[tuple[int, int]], length: int) -> None:
    inside = [(min(a, b, length), min(max(a, b), length)) for a, b in spans]
    union = {i for a, b in inside for i in range(a, b)}
    assert excerpt_ratio("x" * length, [Excerpt(a, b, 0, 0) for a, b in inside]) == len(union) / length


def brute_force_coverage(answer: str, document: str) -> float:
    """The definition, letter by letter: try every length at every start of a word or mark."""
    answer, document = " ".join(answer.split()), " ".join(document.split())
    covered = position = 0
    while position < len(answer):
        before, here = answer[position - 1 : position], answer[position]
        is_word = here.isalnum() or here == "_"
        if here.isspace() or (is_word and before and (before.isalnum() or before == "_")):
            position += 1
            continue
        best = 0
        for end in range(position + 1, len(answer) + 1):
            piece = answer[position:end]
            whole = end == len(answer) or not (answer[end].isalnum() and answer[end - 1].isalnum())
            words = "".join(c if c.isalnum() or c == "_" else " " for c in piece).split()
            num_words = len(words) if whole else len(words) - 1
            if piece in document and (len(piece) >= 20 or num_words >= 5):
                best = len(piece.rstrip())
        covered += best
        position += best or 1
    return covered / len(answer) if answer else 0.0


@given(st.text("ab .", max_size=120), st.text("ab .", max_size=120))
@example("a b a b a c", "a b a b a b")
@example("", "a")
def test_coverage_ratio_is_the_brute_force_one(answer: str, document: str) -> None:
    ratio = coverage_ratio(answer, document)
    assert 0.0 <= ratio <= 1.0
    assert ratio == brute_force_coverage(answer, document)


@given(st.data(), st.text("abc de.", min_size=60, max_size=200))
def test_coverage_ratio_of_shuffled_pieces(data: st.DataObject, document: str) -> None:
    pieces = []
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(document) - 1))
        pieces.append(document[start : start + data.draw(st.integers(1, 50))])
    answer = data.draw(st.sampled_from([" ", "! ", ""])).join(pieces)
    assert coverage_ratio(answer, document) == brute_force_coverage(answer, document)


def test_coverage_ratio_ignores_line_breaks() -> None:
    assert coverage_ratio("It flows through Bern. It is 288 km long.", TEXT) == 1.0
    assert coverage_ratio("A text of quite other words altogether, truly.", TEXT) == 0.0


marked = st.text("a <>/.…\n", max_size=12)
pieces = st.one_of(
    marked,
    st.sampled_from(["<excerpt>", "</excerpt>", "<...>", "<…>", "<fi>", " "]),
    st.builds(excerpt_tag, st.text("ab <", max_size=4), st.one_of(st.none(), st.text("ab >", max_size=4))),
)


def parsed(answer: str, parse: Callable[[str], object]) -> object:
    try:
        return parse(answer)
    except ValueError as error:
        return str(error)


@given(st.lists(pieces, max_size=8).map("".join))
@example("So <excerpt>a<...>b</excerpt><excerpt> c</excerpt> d")
def test_the_quick_way_to_read_an_answer_gives_what_the_whole_grammar_gives(answer: str) -> None:
    whole = parsed(answer, lambda text: markup._pieces_of(markup.parse_answer(text)))
    assert parsed(answer, markup.answer_pieces) == whole


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("<excerpt>It runs</excerpt>", ("excerpt_not_found", "It runs")),
        ("Yes: <excerpt>joins the<...>Alps.</excerpt>", ("excerpt_not_found", "joins the<...>Alps.")),
        ("<excerpt>The river Aare</excerpt>", ("ambiguous_excerpt", "The river Aare")),
        ("In my own words: <excerpt>It flows through Bern.</excerpt>", ("low_excerpt_ratio", "")),
        ("<excerpt>It flows through Bern.</excerpt>", None),
        ("<excerpt>It flows", None),
    ],
)
def test_a_fault_names_the_excerpt_that_a_model_may_mend(answer: str, fault: tuple[str, str] | None) -> None:
    found = find_fault(draft(answer), TEXT, ExcerptsConfig(), None)
    assert (found and (found.reason, found.excerpt)) == fault
    if found is not None:
        assert found.excerpt in found.line
        assert "\n" not in found.line
