"""Figures of a judge's agreement, against cases worked out by hand."""

import pytest

from fineinstructions.judging import SCORES
from fineinstructions.pairs.calibrate import JudgedRow, judge_rows, measure
from fineinstructions.pairs.calibration_page import page, summary
from fineinstructions.pairs.labelled import LabelledRow, LabelledSet
from fineinstructions.records import Judgement, Pair, Rejection, content_id, rejection


class Table:
    """A judge that looks answers up: a score, a score and its expected score, or nothing to say."""

    model = '{"name":"table"}'

    def __init__(self, verdicts):
        self.verdicts = verdicts

    def judge(self, items):
        for draft, _, document in items:
            assert draft.document_id == document.document_id
            pair_id = content_id("p", draft.document_id, draft.template_id)
            said = self.verdicts[draft.answer]
            if said is None:
                yield rejection("judge", "unparseable", pair_id, draft)
            else:
                score, expected = said if isinstance(said, tuple) else (said, None)
                yield Judgement(pair_id, score, "Seen.", expected_score=expected)


def measured(layout, rows, verdicts, seed=0, **fields):
    made = tuple(
        LabelledRow(f"row {number}", f"Question {number}?", answers, float(label), **more)
        for number, (answers, label, *rest) in enumerate(rows)
        for more in [{"subset": rest[0]} if rest else {}]
    )
    labelled = LabelledSet("set", layout, made, {"instruction": "instruction"}, **fields)
    return measure(labelled, list(judge_rows(labelled, Table(verdicts))), seed, 4)


def values(found):
    return {figure.name: figure.value for figure in found.figures}


def test_every_answer_goes_through_the_operator_and_stays_with_its_row():
    rows = (
        LabelledRow("0", "Why?", ("good", "mute"), 1.0),
        LabelledRow("1", "How?", ("bad", "good"), 0.0, document="A text."),
    )
    labelled = LabelledSet("set", "pairwise", rows, {})
    judged = list(judge_rows(labelled, Table({"good": 5, "bad": 2, "mute": None})))
    assert [row.row for row in judged] == list(rows)
    assert [row.is_judged for row in judged] == [False, True]
    assert [type(outcome) for outcome in judged[0].outcomes] == [Pair, Rejection]
    assert [outcome.judge_score for outcome in judged[1].outcomes] == [2, 5]
    assert len({outcome.document_id for row in judged for outcome in row.outcomes if isinstance(outcome, Pair)}) == 3


def test_pairwise_figures_by_hand():
    verdicts = {"five": 5, "three": 3, "also three": 3, "one": 1, "mute": None}
    rows = [
        (("five", "one"), 1),  # right
        (("one", "five"), 0),  # right
        (("five", "three"), 0),  # wrong: the judge prefers the first
        (("three", "also three"), 1),  # a tie, half right
        (("five", "mute"), 1),  # no verdict
    ]
    found = measured("pairwise", rows, verdicts)
    assert (found.num_rows, found.num_judged, found.num_answers, found.num_ties) == (5, 4, 10, 1)
    assert found.unscored == {"unparseable": 1}
    assert values(found) == {
        "accuracy": (1 + 1 + 0 + 0.5) / 4,
        "first preferred": (1 + 0 + 1 + 0.5) / 4,
        "first labelled better": 2 / 4,
        "position bias": 0.625 - 0.5,
    }
    assert found.histogram == {1: 2, 2: 0, 3: 3, 4: 0, 5: 4}
    assert {figure.num_rows for figure in found.figures} == {4}
    for figure in found.figures:
        assert figure.low <= figure.value <= figure.high


def test_expected_scores_settle_ties():
    verdicts = {"a": (4, 4.4), "b": (4, 3.9), "c": (4, 4.1)}
    rows = [(("a", "b"), 1), (("b", "c"), 0), (("c", "a"), 1)]
    found = values(measured("pairwise", rows, verdicts))
    assert found["accuracy"] == 0.5
    assert found["accuracy by expected score"] == pytest.approx(2 / 3)
    some = values(measured("pairwise", rows, verdicts | {"c": 4}))
    assert "accuracy by expected score" not in some


def test_scores_by_hand():
    verdicts = {"a": 1, "b": 2, "c": 3, "d": 5}
    rows = [(("a",), 1), (("b",), 2.5), (("c",), 4), (("d",), 3.4)]
    found = values(measured("scores", rows, verdicts))
    assert found["spearman"] == pytest.approx(0.8)
    # Labels round to 1, 3, 4, 3: squared distances 0 + 1 + 1 + 4; by chance, over 16 combinations and 4 rows:
    # (0+4+9+4) + (1+1+4+1) + (4+0+1+0) + (16+4+1+4) = 54.
    assert found["quadratic kappa"] == pytest.approx(1 - 6 / (54 / 4))
    off_the_scale = [(answers, 10 * label) for answers, label in rows]
    assert list(values(measured("scores", off_the_scale, verdicts))) == ["spearman"]


def test_correctness_by_hand():
    verdicts = {"a": 1, "b": 4, "c": 4, "d": 5}
    rows = [(("a",), 0), (("b",), 0), (("c",), 1), (("d",), 1)]
    assert values(measured("correctness", rows, verdicts)) == {
        "auc": 3.5 / 4,
        "right answers with 4 or more": 1.0,
        "wrong answers with 4 or more": 0.5,
        "labelled right": 0.5,
    }


@pytest.mark.parametrize("layout", ["pairwise", "scores", "correctness"])
def test_a_judge_that_says_nothing_or_always_the_same_is_not_an_error(layout):
    rows = [(("a", "b") if layout == "pairwise" else ("a",), number % 2) for number in range(6)]
    silent = measured(layout, rows, {"a": None, "b": None})
    assert silent.num_judged == 0
    assert set(values(silent).values()) == {None}
    constant = measured(layout, rows, {"a": 3, "b": 3})
    main = constant.figures[0]
    assert main.value == {"pairwise": 0.5, "scores": None, "correctness": 0.5}[layout]
    for found in (silent, constant):
        assert "| none |" in page(Table.model, [found]) or main.value is not None


def test_subsets_have_the_main_figure_each():
    verdicts = {"good": 5, "bad": 1}
    rows = [(("good", "bad"), 1, "easy")] * 3 + [(("good", "bad"), 0, "hard")] * 2
    found = measured("pairwise", rows, verdicts)
    assert [(figure.name, figure.value, figure.num_rows) for figure in found.subsets] == [
        ("easy", 1.0, 3),
        ("hard", 0.0, 2),
    ]
    assert measured("pairwise", rows[:3], verdicts).subsets == ()


def test_the_page_shows_everything_that_was_counted():
    rows = [(("good", "bad"), 1), (("good", "mute"), 1), (("bad", "bad"), 0)]
    found = measured("pairwise", rows, {"good": 5, "bad": 1, "mute": None}, left_out={"no text": 7})
    text = page('{"name":"table"}', [found])
    assert summary(found) == (
        "2 of 3 rows judged (6 answers), 1 tie, 1 answer without a score (unparseable 1), 7 rows left out (no text 7)"
    )
    assert summary(found) in text
    assert "| accuracy | 0.750 |" in text
    assert f"| score | {' | '.join(map(str, SCORES))} |" in text
    assert "| answers | 3 | 0 | 0 | 0 | 2 |" in text


def test_another_seed_draws_other_resamples_and_the_same_seed_the_same():
    rows = [((f"answer {number}",), number * 7 % 31) for number in range(30)]
    verdicts = {f"answer {number}": number % 5 + 1 for number in range(30)}
    first, again, other = (measured("scores", rows, verdicts, seed=seed).figures[0] for seed in (0, 0, 1))
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)


def test_rows_of_one_instruction_are_one_sample():
    row = LabelledRow("0", "Same?", ("good", "bad"), 1.0)
    labelled = LabelledSet("set", "pairwise", (row,) * 5, {})
    judged = [JudgedRow(row, next(iter(judge_rows(labelled, Table({"good": 5, "bad": 1})))).outcomes)] * 5
    (accuracy, *_) = measure(labelled, judged, 0, 4).figures
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, None, None)
