import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends.replies import json_reply
from fineinstructions.judging import VERDICT_PARSERS, parse_flow_verdict, parse_json_verdict, parse_score


@pytest.mark.parametrize("value", [1, 2, 3, 4, 5, "1", " 5\n"])
def test_scores_of_one_to_five(value):
    assert parse_score(value) == int(value)


@pytest.mark.parametrize("value", [0, 6, -1, 4.0, 4.5, True, None, "4.5", "4/5", "", "four", "٤", "4 5", [4], 10**50])
def test_anything_else_is_no_score(value):
    with pytest.raises(ValueError, match="not a score"):
        parse_score(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"feedback": "Good.", "score": 4}',
        '{"score": "4", "feedback": " Good. "}',
        'Here it is:\n```json\n{"feedback": "Good.", "score": 4}\n```\nThank you {smile}.',
        '<think>{"feedback": "draft", "score": 1}</think>\n{"feedback": "Good.", "score": 4}',
        'The set {1, 2} is fine. {"feedback": "Good.", "score": 4, "confidence": {"score": 1}}',
        '{"confidence": 0.3} {"feedback": "Good.", "score": 4}',
    ],
)
def test_json_verdicts_in_many_wrappings(text):
    verdict = parse_json_verdict(text)
    assert (verdict.score, verdict.feedback) == (4, "Good.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "null",
        '{"score": 4}',
        '{"feedback": "x", "score": 0}',
        '{"feedback": "x", "score": 4.5}',
        '{"feedback": "x", "score": 4, "score": 1}',
        '{"feedback": 3, "score": 4}',
        '{"feedback": "\\ud800", "score": 4}',
        '{"feedback": "x", "score": NaN}',
        '[{"feedback": "x", "score": 4',
        pytest.param("{" * 5000, id="braces"),
        pytest.param('{"a":' * 50_000, id="deep"),
        pytest.param("[" * 100_000 + '{"feedback": ' * 3000, id="deep tail"),
    ],
)
def test_what_is_no_json_verdict(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json_verdict(text)


def test_flow_verdicts():
    for text in (
        "<feedback>Good.</feedback><score>4</score>",
        "x\n<feedback>\nGood.\n</feedback>\n<SCORE>\n 4 </SCORE> bye",
    ):
        verdict = parse_flow_verdict(text)
        assert (verdict.score, verdict.feedback) == (4, "Good.")
    assert parse_flow_verdict("<score>5</score>").feedback == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "<score>0</score>",
        "<score>6</score>",
        "<score>4.5</score>",
        "<score></score>",
        "<score>4</score> or <score>4</score>",
        "<score>1<score>4</score>",
        "<score>4",
        "<feedback>4</feedback>",
    ],
)
def test_what_is_no_flow_verdict(text):
    with pytest.raises(ValueError, match=r"score"):
        parse_flow_verdict(text)


@given(st.text(max_size=300))
def test_no_reply_crashes_a_parser(text):
    for parse in VERDICT_PARSERS.values():
        with contextlib.suppress(ValueError):
            assert 1 <= parse(text).score <= 5


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), st.text(alphabet="abc \n`.", max_size=30)
)
def test_an_object_is_found_behind_any_harmless_text(extra, noise):
    wanted = {**extra, "key": "value"}
    assert json_reply(noise + json.dumps(wanted) + noise, ["key"]) == wanted


@pytest.mark.parametrize(
    "text", ["null", " null.\n", "```json\nnull\n```", "```\nnull\n```", "None", "<think>hm</think>null"]
)
def test_null_where_it_is_allowed(text):
    assert json_reply(text, ["key"], null=True) is None
    with pytest.raises(ValueError, match="key"):
        json_reply(text, ["key"])
