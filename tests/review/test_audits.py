"""The figures of the audits on rows whose answers are known by hand."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.errors import ConfigError
from fineinstructions.review.distribution import as_plain, compare, proposed_target
from fineinstructions.review.diversity import (
    growth,
    near_duplicate_share,
    openings,
    place_figures,
    self_bleu,
    spread,
    style,
)
from fineinstructions.review.labels import FAULTS, Label
from fineinstructions.review.rows import Rows
from fineinstructions.review.sheet import Rate, SheetRow, difference_interval, drawn, rates, read_sheet, sheet_text
from fineinstructions.review.thresholds import Thresholds, outcome
from fineinstructions.review.viewer import catalogue
from fineinstructions.review.viewer.marking import pieces, shown
from fineinstructions.review.viewer.wanted import BadAddressError, Wanted, read_wanted
from fineinstructions.review.wording import TYPES, instruction_type, subjects
from fineinstructions.statistics import wilson_interval

TEXTS = st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is rain?", "what"),
        ("how do magnets work", "how"),
        ("In which year did Rome fall?", "who, when, where, which"),
        ("Why is the sky blue?", "why"),
        ("Is a tomato a fruit?", "yes or no"),
        ("Please write a poem about rain", "task"),
        ("Hello, how are you?", "dialogue"),
        ("rain", "other"),
        ("", "other"),
    ],
)
def test_instruction_types(text: str, kind: str) -> None:
    assert instruction_type(text) == kind


@given(TEXTS)
def test_every_text_has_a_type_and_a_subject(text: str) -> None:
    assert instruction_type(text) in TYPES
    assert subjects(text)


def test_the_same_shares_do_not_diverge_and_what_is_missing_is_named() -> None:
    same = compare("x", {"a": 500, "b": 500}, {"a": 5000, "b": 5000}, 0)
    assert same.js == pytest.approx(0, abs=1e-4)
    assert same.missing == ()
    other = compare("x", {"a": 1000, "b": 0}, {"a": 400, "b": 600}, 0)
    assert other.missing == ("b",)
    assert other.js_low <= other.js <= other.js_high
    assert other.kl_generated_real_low < other.kl_generated_real < other.kl_generated_real_high
    assert other.kl_real_generated_low < other.kl_real_generated < other.kl_real_generated_high
    fewer = compare("x", {"a": 100, "b": 20}, {"a": 40, "b": 60}, 0)
    many = compare("x", {"a": 10_000, "b": 2000}, {"a": 4000, "b": 6000}, 0)
    for name in ("kl_generated_real", "kl_real_generated", "js"):
        widths = [getattr(one, f"{name}_high") - getattr(one, f"{name}_low") for one in (fewer, many)]
        assert widths[0] > 5 * widths[1] > 0, "a hundred times the rows, a tenth of the width"
        assert set(as_plain(many)) >= {name, f"{name}_low", f"{name}_high"}
    assert other.kl_real_generated > other.kl_generated_real > 0
    apart = compare("x", {"a": 10_000}, {"b": 10_000}, 0)
    assert apart.js == pytest.approx(1, abs=0.01)
    empty = compare("x", {}, {"a": 1}, 0)
    assert math.isnan(empty.js_low) and math.isnan(empty.kl_real_generated_high)


def test_the_proposed_target_moves_towards_real_queries() -> None:
    proposed = proposed_target((0.5, 0.5), Counter({0: 900, 1: 100}), Counter({0: 500, 1: 500}))
    assert proposed[1] > 0.5 > proposed[0]
    assert sum(proposed) == pytest.approx(1)
    assert proposed_target((2, 2), Counter({0: 50, 5: 50}), Counter({0: 50, 5: 50})) == [0.5, 0.5]


def table_of(folder: Path, **columns: list[object]) -> Rows:
    half = len(next(iter(columns.values()))) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        table = pa.table({name: values[part] for name, values in columns.items()})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=3)
    return Rows(sorted(folder.glob("*.parquet")))


def test_growth_counts_documents_and_templates_in_order(tmp_path: Path) -> None:
    documents = [f"d{n // 2}" for n in range(20)]
    templates = ["t0", "t1", "t0", "t0", "t2", "t1", *["t0"] * 14]
    found = growth(table_of(tmp_path, document_id=documents, template_id=templates))
    assert dict(zip(found.documents, found.templates, strict=True)) == {n: 2 if n < 3 else 3 for n in range(1, 11)}
    assert (found.top_template, found.top_share) == ("t0", 17 / 20)


def test_rows_are_found_wherever_they_lie(tmp_path: Path) -> None:
    rows = table_of(tmp_path, name=[f"n{n}" for n in range(20)], text=[f"Text {n % 4}" for n in range(20)])
    assert len(rows) == 20
    assert [row["name"] for row in rows.take([19, 0, 7, 7])] == ["n19", "n0", "n7", "n7"]
    assert (rows.find("name", "n13"), rows.find("name", "n13", hint=13), rows.find("name", "none")) == (13, 13, None)
    assert rows.search(np.arange(20), ["text"], "tEXT 3", 3, 100) == ([3, 7, 11], 12)
    assert rows.search(np.arange(20), ["text"], "text 3", 30, 2) == ([3], 6)  # two row groups of three
    assert rows.search(np.array([], np.int64), ["text"], "x", 3, 9) == ([], 0)
    assert rows.search(np.array([14, 3, 13, 7]), ["text"], "text 3", 9, 9) == ([3, 7], 4)  # a sample in its own order
    assert rows.is_text("text", "Text 3").nonzero()[0].tolist() == [3, 7, 11, 15, 19]
    assert rows.codes("text").counts() == {f"Text {n}": 5 for n in range(4)}


def test_places_and_their_correlation() -> None:
    chunks = np.array([0, 1, 2, 3, 4, -1])
    found = place_figures(np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.2]), chunks)
    assert found["pearson_chunk_place"] == pytest.approx(1)
    assert (found["num_by_chunk"], sum(found["histogram"])) == (5, 6)


def test_self_bleu_tells_repetition() -> None:
    assert self_bleu(["the same words here now"] * 5) == pytest.approx(1)
    assert self_bleu(["alpha beta gamma delta", "one two three four", "red green blue black"]) < 0.3
    assert self_bleu([]) == 0


def test_wording_of_texts_counted_by_hand() -> None:
    texts = ["What is rain?", "what is my name? ", "Tell me why.", "Tell us a tale or two."]
    assert style(texts) == {
        "words_mean": 4.0,  # 3, 4, 3 and 6 words
        "words_sd": pytest.approx(math.sqrt(1.5)),
        "first_words": 0.5,
        "question_marks": 0.5,
        "capitalised": 0.75,
        "you_or_i": 0.5,
    }
    asked = ["Please list three rivers", "List three lakes", "now list three", "How do you make stoemp?"]
    assert openings(asked) == {"list three": 0.75, "how do": 0.25}
    assert openings(asked, 1) == {"list three": 0.75}
    assert openings(["The rain", "", "In which year?"]) == dict.fromkeys(("", "in which", "the rain"), 1 / 3)
    assert near_duplicate_share(["What is rain?", "what is rain", "What is snow?", "Name a river."]) == 1 / 4
    assert (near_duplicate_share([]), spread(["one"])) == (0, 0)
    u, v, w = EmbeddedEncoder().encode_texts(texts[:3]).astype(np.float64)
    assert spread(texts[:3]) == pytest.approx(1 - (u @ v + u @ w + v @ w) / 3)
    assert spread(texts[:1] * 3) == pytest.approx(0, abs=1e-6)


def test_wilson_and_the_difference_of_rates() -> None:
    assert wilson_interval(0, 100)[0] == 0
    assert wilson_interval(100, 100)[1] == 1
    assert wilson_interval(0, 0) == (0, 1)
    low, high = difference_interval(Rate("any", 10, 100), Rate("any", 30, 100)) or (0, 0)
    assert low < -0.2 < high < 0
    assert difference_interval(Rate("any", 0, 0), Rate("any", 1, 2)) is None


def rows_of(number: int, arm: str = "run") -> list[SheetRow]:
    return [
        SheetRow(f"{arm}-{n}", arm, (f"=instruction {n}", f"answer\n{n}", 'a, "document"', "", ""))
        for n in range(number)
    ]


def test_a_sheet_holds_labels_and_gives_them_back(tmp_path: Path) -> None:
    rows = rows_of(6)
    labels = {"run-1": Label("run-1", ("hallucination", "unanswerable"), 'why, "so"'), "run-4": Label("run-4", ())}
    path = tmp_path / "sheet.csv"
    path.write_text(sheet_text(rows, labels, 0), encoding="utf-8")
    assert {label.record_id: label for label in read_sheet(path, lambda _: True)} == labels
    found = {rate.name: (rate.num_wrong, rate.num_judged) for rate in rates(rows, labels, "run")}
    assert found == {"any": (1, 2), **dict.fromkeys(FAULTS, (0, 2)), "hallucination": (1, 2), "unanswerable": (1, 2)}
    path.write_text(path.read_text(encoding="utf-8").replace(",x,", ",perhaps,"), encoding="utf-8")
    with pytest.raises(ConfigError, match="neither x nor empty"):
        read_sheet(path, lambda _: True)


def test_a_draw_depends_on_seed_and_ids_alone() -> None:
    rows = rows_of(30)
    assert drawn(rows, 10, 1) == drawn(list(reversed(rows)), 10, 1)
    assert drawn(rows, 10, 1) != drawn(rows, 10, 2)
    assert drawn([*rows, *rows], 30, 1) == drawn(rows, 30, 1)


def test_thresholds_tell_what_goes_and_what_comes_back() -> None:
    kept = (np.array([4, 5, 5], np.int8), np.array([0.8, 0.9, 1.0]), np.array([0.1, 0.2, 0.3], np.float32))
    found = outcome(Thresholds(5, 0.95, -1), kept, np.array([1.0, 3.0]), np.array([0.5, 0.79]))
    assert (found.num_kept, found.num_lost, found.num_back, found.num_to_judge) == (1, 2, 0, 0)
    found = outcome(Thresholds(3, 0.7, 0.2), kept, np.array([1.0, 3.0]), np.array([0.5, 0.79]))
    assert (found.num_kept, found.num_lost, found.num_back, found.num_to_judge) == (2, 1, 1, 1)


@given(TEXTS, st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=5))
def test_pieces_give_the_text_again(text: str, spans: list[tuple[int, int]]) -> None:
    found = pieces(text, spans)
    assert "".join(piece.text for piece in found) == shown(text)
    assert len(shown(text)) == len(text)
    shown(text).encode("utf-8")
    covered: set[int] = set()
    at = 0
    for piece in found:
        covered |= set(range(at, at + len(piece.text))) if piece.spans else set()
        at += len(piece.text)
    assert covered == {n for a, b in spans for n in range(max(0, a), min(b, len(text)))}


@given(
    st.builds(
        Wanted,
        q=st.text(st.characters(exclude_categories=("Cs",)), max_size=40).filter(lambda text: text == text.strip()),
        score=st.none() | st.integers(1, 5),
        min_ratio=st.none() | st.floats(0, 1),
        sort=st.sampled_from(("plan", "worst", "best", "shuffled")),
        at=st.none() | st.integers(0, 10**7),
    )
)
def test_every_state_has_an_address(wanted: Wanted) -> None:
    from urllib.parse import parse_qsl, urlsplit

    given = dict(parse_qsl(urlsplit(wanted.link("/pairs")).query, keep_blank_values=True))
    assert read_wanted(given) == wanted


@pytest.mark.parametrize("given", [{"score": "x"}, {"min_ratio": "nan"}, {"start": "-1"}, {"sort": "up"}])
def test_an_address_without_sense_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadAddressError):
        read_wanted(given)


def test_the_worst_of_many_are_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    figures = [
        (int(s), float(r), float(c))
        for s, r, c in zip(rng.integers(4, 6, 60), rng.random(60), rng.random(60), strict=True)
    ]
    scores, ratios, cosines = (list(column) for column in zip(*figures, strict=True))
    rows = table_of(tmp_path, judge_score=scores, excerpt_ratio=ratios, cosine=cosines)
    monkeypatch.setattr(catalogue, "MAX_ORDERED", 7)
    pairs = catalogue.PairList(rows, 0, seed=0)
    ranked = sorted(range(60), key=lambda n: figures[n])
    assert pairs.places(Wanted(sort="worst")).tolist() == ranked[:7]
    assert pairs.places(Wanted(sort="best")).tolist() == ranked[:-8:-1]


TEN: dict[str, list[object]] = {
    "pair_id": [f"p-{n}" for n in range(10)],
    "judge_score": [4, 5, 4, 5, 5, 4, 4, 5, 4, 5],
    "excerpt_ratio": [0.8, 0.9, 1.0, 0.85, 0.9, 0.95, 0.8, 1.0, 0.9, 0.8],
    "cosine": [0.75, 0.5, 0.25, 0.75, 0.5, 1.0, 0.0, -0.5, 0.5, 0.75],
    "template_id": ["t0", "t1", "t0", "t2", "t1", "t0", "t1", "t2", "t0", "t1"],
    "document_id": ["d0", "d0", "d1", "d1", "d1", "d2", "d3", "d3", "d4", "d5"],
    "source": ["wiki", "wiki", "web", "web", "web", "wiki", "news", "news", "wiki", "web"],
}


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Wanted(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (Wanted(score=5), [1, 3, 4, 7, 9]),
        (Wanted(score=3), []),
        (Wanted(min_ratio=0.9), [1, 2, 4, 5, 7, 8]),
        (Wanted(max_ratio=0.85), [0, 3, 6, 9]),
        (Wanted(min_ratio=0.85, max_ratio=0.9), [1, 3, 4, 8]),
        (Wanted(min_cosine=0.75), [0, 3, 5, 9]),
        (Wanted(template="t1"), [1, 4, 6, 9]),
        (Wanted(template="none"), []),
        (Wanted(document="d1"), [2, 3, 4]),
        (Wanted(document="d9"), []),
        (Wanted(source="web", template="t1"), [4, 9]),
        (Wanted(score=4, min_ratio=0.9, min_cosine=0.5, template="t0"), [5, 8]),
        (Wanted(document="d3", score=5, sample=1), [7]),
    ],
)
def test_filters_of_the_viewer_give_the_rows_of_the_table(tmp_path: Path, wanted: Wanted, places: list[int]) -> None:
    """Rows picked by eye; two files, and row groups of three."""
    pairs = catalogue.PairList(table_of(tmp_path, **TEN), 10, seed=0)
    assert pairs.places(wanted).tolist() == places
