import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends.logprobs import TokenLogprob
from fineinstructions.backends.replies import json_reply
from fineinstructions.judging import (
    VERDICT_PARSERS,
    Verdict,
    expected_score,
    parse_flow_verdict,
    parse_json_verdict,
    parse_prometheus_verdict,
    parse_score,
)


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


@pytest.mark.parametrize(
    "text",
    [
        "Feedback: Good. [RESULT] 4",
        "Good. [RESULT] 4",
        "Feedback: Good. [RESULT]: 4.",
        "Feedback: Good. [Result]\n4\n",
        "### Feedback:\nGood.\n\n[RESULT] (4)",
        "**Feedback:** Good. **[RESULT]** 4",
        "Feedback: Good. [RESULT] **4**",
        "Feedback: Good. [RESULT] [4]",
        'Feedback: Good. [RESULT] "4"',
        "Feedback: Good. [RESULT] Score: 4",
        "Feedback: Good. [RESULT] 4/5",
        "Feedback: Good. [RESULT] 4/5.",
        "Feedback: Good. [RESULT] 4 out of 5",
        "Feedback: Good. [RESULT] 4\n\nIn short: [RESULT] 4",
        "Feedback: Good. [RESULT] 4\n\n###Feedback: 2 more things",
        "<think>[RESULT] 1?</think>Feedback: Good. [RESULT] 4",
    ],
)
def test_prometheus_verdicts_in_the_usual_variants(text):
    verdict = parse_prometheus_verdict(text)
    assert (verdict.score, verdict.feedback) == (4, "Good.")
    assert text[verdict.position] == "4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "Feedback: Good. Score: 4",
        "[RESULT]",
        "[RESULT] four",
        "[RESULT] 0",
        "[RESULT] 6",
        "[RESULT] -4",
        "[RESULT] 4.5",
        "[RESULT] 4,5",
        "[RESULT] 45",
        "[RESULT] 4/10",
        "[RESULT] 4 / 50",
        "[RESULT] 4 out of 10",
        "[RESULT] 4-5",
        "[RESULT] 4 \u2013 5",
        "[RESULT] 4 or 5",
        "[RESULT] \u0664",
        "[RESULT] 4 and then [RESULT] 5",
        "[RESULT] 4 and then [RESULT] 6",
        "I shall write [RESULT] and a number. [RESULT] 4",
        "[RESULT] (a whole number from 1 to 5)",
    ],
)
def test_what_is_no_prometheus_verdict(text):
    with pytest.raises(ValueError, match=r"RESULT|results"):
        parse_prometheus_verdict(text)


@pytest.mark.parametrize(
    ("protocol", "text", "digit"),
    [
        ("json", '{"feedback": "4 of 5 points, \\"score\\": 4", "score": 4}', "4}"),
        ("json", '<think>"score": 4?</think> {"score": " 4", "feedback": "4"}', '4", "f'),
        ("flow", "<feedback>4 of 5</feedback><score>\n 4 </score>", "4 </"),
        ("flow", "<think><score>1</score></think><feedback>4</feedback><score>4</score>", "4</score>"),
        ("prometheus", "Feedback: 4 of 5, [4]. [RESULT] (4)", "4)"),
    ],
)
def test_a_verdict_knows_where_its_score_stands(protocol, text, digit):
    verdict = VERDICT_PARSERS[protocol](text)
    assert verdict.position == text.rindex(digit)
    assert text[verdict.position] == str(verdict.score) == "4"


def test_a_place_that_is_not_certain_is_not_told():
    text = '{"feedback": "x", "score": 4, "parts": {"score": 4}}'
    assert parse_json_verdict(text) == Verdict(4, "x", None)


def tokens(*parts):
    """Tokens from texts, and from dictionaries of the texts at one place with their probabilities."""
    made = []
    for part in parts:
        chances = part if isinstance(part, dict) else {part: 1.0}
        others = tuple((text, math.log(chance)) for text, chance in chances.items())
        made.append(TokenLogprob(*others[0], others))
    return made


LIKELY = {"4": 0.5, "5": 0.25, "3": 0.25}
TEXT = "<feedback>4 of 5</feedback>\n<score>4</score>"
OPENING = ("<feedback>", {"4": 0.5, "1": 0.5}, " of", " 5", "</feedback>", "\n", "<score>")


@pytest.mark.parametrize(
    ("at_the_score", "expected"),
    [
        (tokens(LIKELY, "</score>"), 4.0),
        (tokens({"4": 0.6, "5": 0.2}, "</score>"), (0.6 * 4 + 0.2 * 5) / 0.8),
        (tokens({"4": 0.6, "<": 0.3, "5": 0.1}, "</score>"), (0.6 * 4 + 0.1 * 5) / 0.7),
        (tokens({"4": 0.5, " 4": 0.25, "1": 0.25, "10": 0.1}, "</score>"), (0.75 * 4 + 0.25) / 1.0),
        (tokens({"4</": 0.5, "2</": 0.5}, "score>"), 3.0),
        (tokens({"4": 1.0}, "</score>"), 4.0),
    ],
)
def test_the_expected_score_is_read_at_the_score_and_not_at_digits_before_it(at_the_score, expected):
    verdict = parse_flow_verdict(TEXT)
    found = expected_score(TEXT, verdict, [*tokens(*OPENING), *at_the_score])
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_alternatives_the_score_itself_is_expected():
    assert expected_score("4", Verdict(4, "", 0), [TokenLogprob("4", -0.3)]) == 4.0


def test_no_expected_score_where_it_cannot_be_told():
    good = [*tokens(*OPENING), *tokens(LIKELY, "</score>")]
    verdict = parse_flow_verdict(TEXT)
    assert expected_score(TEXT, verdict, None) is None
    assert expected_score(TEXT, verdict, ()) is None
    assert expected_score(TEXT, verdict._replace(position=None), good) is None
    assert expected_score(TEXT, verdict, tokens("another text", "5")) is None
    certain_of_none = [*tokens(*OPENING), TokenLogprob("4", -9999.0), TokenLogprob("</score>", 0.0)]
    assert expected_score(TEXT, verdict, certain_of_none) is None


@given(st.lists(st.floats(1e-4, 1), min_size=5, max_size=5), st.integers(1, 5))
def test_an_expected_score_lies_on_the_scale_and_near_the_likely_ones(weights, score):
    chances = {str(n): weight for n, weight in zip((score, *({1, 2, 3, 4, 5} - {score})), weights, strict=True)}
    text = f"3 of 5. [RESULT] {score}"
    found = expected_score(text, parse_prometheus_verdict(text), tokens("3 of 5.", " [RESULT]", " ", chances))
    total = sum(chances.values())
    assert 1 <= found <= 5
    assert found == pytest.approx(sum(int(n) * w for n, w in chances.items()) / total, abs=1e-4)


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
