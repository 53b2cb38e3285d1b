"""The part of a long document that a model is shown: within its limits, and with the passage that was matched."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends.tokens import most_tokens
from fineinstructions.pairs.window import document_window, fitting_window


@given(st.text(alphabet='ab. \n"é', max_size=1000), st.integers(0, 1000), st.integers(0, 400), st.integers(200, 900))
def test_a_fitting_window_keeps_to_both_limits(text, place, max_tokens, max_chars):
    focus = (min(place, len(text)), min(place + 20, len(text)))
    window = fitting_window(text, focus, max_chars, max_tokens, most_tokens)
    whole = most_tokens(json.dumps(text, ensure_ascii=False))
    if window is None:
        assert whole > max_tokens or not text
    else:
        start, end = window
        assert 0 <= start <= end <= len(text)
        assert end - start <= max_chars
        assert most_tokens(json.dumps(text[start:end], ensure_ascii=False)) <= max_tokens


@given(st.text(alphabet="ab. \n", max_size=80), st.integers(0, 80), st.integers(0, 80), st.integers(1, 90))
def test_a_window_is_a_part_of_the_document_that_holds_the_middle_of_the_focus(text, one, two, max_chars):
    focus = (min(one, two, len(text)), min(max(one, two), len(text)))
    start, end = document_window(text, focus, max_chars)
    assert 0 <= start <= end <= len(text)
    assert end - start <= max_chars
    middle = (focus[0] + focus[1]) // 2
    if text:
        assert start <= min(middle, len(text) - 1) < end
    reach = min(max(0, min(middle, len(text) - 1) - max_chars // 2), max(0, len(text) - max_chars))
    assert start <= max(focus[0], reach), "no border inside the focus cuts its beginning off"
    assert end >= min(focus[1], reach + max_chars), "nor its end"
    if focus[1] - focus[0] <= max_chars:
        assert start <= focus[0] <= focus[1] <= end
