"""Files of labelled answers in every layout, and what is said about those that cannot be used."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fineinstructions.errors import ConfigError
from fineinstructions.inputs import list_inputs
from fineinstructions.pairs.labelled import ROLES, read_labelled

TWO = {"instruction": "Why?", "output_1": "So.", "output_2": "No."}
ONE = {"question": "Why?", "prediction": "So."}


def labelled(tmp_path, rows, columns=None, name="set.parquet", **kwargs):
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (file,) = list_inputs(str(path), "data")
    return read_labelled(file, columns or {}, **kwargs)


@pytest.mark.parametrize(
    ("first", "second"), [(1, 2), ("1", "2"), ("A", "b"), ("model_a", "model_b"), ("First", " second")]
)
def test_two_answers_and_the_place_of_the_better_one(tmp_path, first, second):
    found = labelled(tmp_path, [{**TWO, "label": first, "subset": "x"}, {**TWO, "label": second, "subset": "y"}])
    assert found.layout == "pairwise"
    assert [(row.answers, row.label, row.subset) for row in found.rows] == [
        (("So.", "No."), 1.0, "x"),
        (("So.", "No."), 0.0, "y"),
    ]
    assert found.columns == {
        "instruction": "instruction",
        "first": "output_1",
        "second": "output_2",
        "label": "label",
        "subset": "subset",
    }


def test_chosen_and_rejected_are_shown_in_either_order(tmp_path):
    rows = [{"prompt": "Why?", "chosen": "good", "rejected": "bad", "id": f"q-{n}"} for n in range(100)]
    found = labelled(tmp_path, rows)
    assert {(row.answers, row.label) for row in found.rows} == {(("good", "bad"), 1.0), (("bad", "good"), 0.0)}
    assert 30 < sum(row.label for row in found.rows) < 70
    assert labelled(tmp_path, rows) == found
    assert labelled(tmp_path, rows, seed=1) != found


def test_scores_are_a_number_or_the_mean_of_several(tmp_path):
    rows = [{**ONE, "gpt4_scores": [3, 2, 3]}, {**ONE, "gpt4_scores": [5]}, {**ONE, "gpt4_scores": []}]
    found = labelled(tmp_path, rows)
    assert found.layout == "scores"
    assert [row.label for row in found.rows] == [pytest.approx(8 / 3), 5.0]
    assert found.left_out == {"no clear label": 1}
    assert [row.label for row in labelled(tmp_path, [{**ONE, "rating": 4.5}]).rows] == [4.5]


def test_right_and_wrong_answers(tmp_path):
    words = ["definitely_correct", "possibly_correct", "definitely incorrect", "Right", "NO"]
    found = labelled(tmp_path, [{**ONE, "human_label": word} for word in words])
    assert found.layout == "correctness"
    assert [row.label for row in found.rows] == [1.0, 0.0, 1.0, 0.0]
    assert found.left_out == {"no clear label": 1}
    for values in ([True, False], [1, 0], [1.0, 0.0], ["1", "0"]):
        assert [row.label for row in labelled(tmp_path, [{**ONE, "correct": v} for v in values]).rows] == [1.0, 0.0]


def test_rows_without_text_or_a_clear_label_are_counted(tmp_path):
    rows = [
        {**TWO, "label": 1},
        {**TWO, "output_2": " ", "label": 1},
        {**TWO, "instruction": None, "label": 1},
        {**TWO, "label": None},
        {**TWO, "label": float("nan")},
    ]
    found = labelled(tmp_path, rows)
    assert len(found.rows) == 1
    assert found.left_out == {"no clear label": 2, "no text": 2}
    scores = [{**ONE, "score": score} for score in (3.0, float("nan"), None)]
    assert labelled(tmp_path, scores).left_out == {"no clear label": 2}
    odd = [{**ONE, "label": 1}, {**ONE, "label": 1, "prediction": "half \ud83d"}]
    assert labelled(tmp_path, odd, name="set.jsonl").left_out == {"invalid_utf8": 1}
    assert labelled(tmp_path, [{**TWO, "winner": "tie"}, {**TWO, "winner": "a"}]).left_out == {"no clear label": 1}


def test_lines_of_json_and_named_columns(tmp_path):
    rows = [{"frage": "Why?", "antwort": "So.", "rating": 3, "context": "A text.", "id": "r-1"}]
    named = {"instruction": "frage", "answer": "antwort"}
    (row,) = labelled(tmp_path, rows, named, name="set.jsonl").rows
    assert (row.instruction, row.answers, row.label, row.document, row.row_id) == (
        "Why?",
        ("So.",),
        3.0,
        "A text.",
        "1 r-1",
    )


def test_a_limit_draws_rows_by_the_seed(tmp_path):
    rows = [{**TWO, "instruction": f"Why {n}?", "label": 1} for n in range(50)]
    whole = labelled(tmp_path, rows)
    few = labelled(tmp_path, rows, limit=10)
    assert len(few.rows) == 10
    assert few.left_out == {"beyond the limit": 40}
    assert [row for row in whole.rows if row in few.rows] == list(few.rows)
    drawn = Counter(row.row_id for seed in range(40) for row in labelled(tmp_path, rows, limit=10, seed=seed).rows)
    assert len(drawn) == 50
    assert labelled(tmp_path, rows, limit=60) == whole


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([{"a": "x", "b": 1}], {}, "columns found: a, b; wanted are instruction + first + second + label or"),
        ([{**TWO, "b": 1}], {}, "name them with --column ROLE=NAME"),
        ([{**TWO, "label": 0}], {}, "row 0: label is 0 instead of one of 1, a, first"),
        ([{**TWO, "label": 1}, {**TWO, "label": 3}], {}, "row 1: label is 3"),
        ([{**ONE, "label": "maybe"}], {}, "label is 'maybe' instead of one of 1, true, yes"),
        ([{**ONE, "score": "good"}], {}, "score is 'good' instead of a number"),
        ([{**ONE, "score": float("inf")}], {}, "score is inf instead of a number"),
        ([{**TWO, "label": 1.5}], {}, "label is 1.5 instead of one of 1"),
        ([{**ONE, "label": 1}], {"instructions": "question"}, "no such role; there are instruction, first"),
        (
            [{**ONE, "label": 1}],
            {"instruction": "frage"},
            "no column 'frage'; columns found: question, prediction, label",
        ),
        ([{**ONE, "prediction": "", "label": 1}], {}, "no usable row (no text 1)"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, rows, columns, words):
    with pytest.raises(ConfigError) as caught:
        labelled(tmp_path, rows, columns)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "set.parquet" in str(caught.value) or "--column" in str(caught.value)


def test_no_name_stands_for_two_roles():
    names = Counter(name for aliases in ROLES.values() for name in aliases)
    assert set(names.values()) == {1}
