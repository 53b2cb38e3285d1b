"""A judge's free-text reply to a verdict.

One parser per protocol. A reply that does not state exactly one score of 1 to 5 has no verdict: the parsers raise
`ValueError` and never fall back to a low score. A verdict says where in the reply its score stands, so that the
probabilities of the other scores can be read at that very token.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fineinstructions.backends.logprobs import TokenLogprob, token_at
from fineinstructions.backends.replies import json_reply, thinking_end

SCORES = (1, 2, 3, 4, 5)
_SCORE_TAG = re.compile(r"<score>(?:(.*?)</score>|.*)", re.DOTALL | re.IGNORECASE)
_FEEDBACK_TAG = re.compile(r"<feedback>(.*?)(?:</feedback>|\Z)", re.DOTALL | re.IGNORECASE)
"""A tag that is never closed takes the rest, so that a reply full of them costs one look and not one for each."""
_JSON_SCORE = re.compile(r'"score"\s*+:\s*+"?\s*+([1-5])(?!\d)')
_RESULT_MARK = re.compile(r"\[\s*RESULT\s*\]", re.IGNORECASE)
_RESULT_SCORE = re.compile(
    r"[\s:=*_]*+(?:(?:overall\s+|final\s+)?score[\s:=*_]*+)?[\[(<{\"'`]?\s*([1-5])", re.IGNORECASE
)
_GOES_ON = re.compile(r"\d|[.,]\d|\s*(?:[-\u2013]|to|or|and)\s*\d|\s*(?:/|out of)(?!\s*5(?!\d|\.\d))", re.IGNORECASE)
"""After a digit: what makes another number, a range or a grade on another scale of it."""
_FEEDBACK_LABEL = re.compile(r"\A[\s#*]*feedback\s*:?[\s*]*", re.IGNORECASE)


class Verdict(NamedTuple):
    """What a judge says about the one pair it was shown."""

    score: int
    feedback: str
    position: int | None = None
    """Place of the score's digit in the reply; None where it cannot be told."""


def parse_score(value: object) -> int:
    """A score of 1 to 5.

    Args:
        value: An integer, or text that is one digit and white space.

    Raises:
        ValueError: For anything else, such as 0, 6, 4.5 or true.

    Example:
        >>> parse_score(" 4 ")
        4
    """
    if isinstance(value, str) and value.strip() in {"1", "2", "3", "4", "5"}:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 5:
        return value
    raise ValueError(f"not a score of 1 to 5: {value!r:.40}")


def parse_json_verdict(text: str) -> Verdict:
    """Verdict of a reply ``{"feedback": ..., "score": n}``.

    Raises:
        ValueError: If the reply holds no such object or its score is not 1 to 5.
    """
    reply = json_reply(text, ("feedback", "score"))
    if reply is None or not isinstance(reply["feedback"], str):
        raise ValueError("the feedback is not text")
    score = parse_score(reply["score"])
    places = list(_JSON_SCORE.finditer(text, thinking_end(text)))  # inside a string the quotation marks are escaped
    position = places[0].start(1) if len(places) == 1 and int(places[0][1]) == score else None
    return Verdict(score, reply["feedback"].strip(), position)


def parse_flow_verdict(text: str) -> Verdict:
    r"""Verdict of a reply ``<feedback>...</feedback> <score>n</score>``, the format of Flow Judge.

    Raises:
        ValueError: If there is not exactly one score tag, or its content is not 1 to 5.

    Source:
        Flow Judge v0.1 model card; refusing several score tags is ours.

    Example:
        >>> parse_flow_verdict("<feedback>Clear.</feedback>\n<score>\n5\n</score>").score
        5
    """
    start = thinking_end(text)
    found = list(_SCORE_TAG.finditer(text, start))
    if len(found) != 1:
        raise ValueError(f"{len(found)} score tags instead of one")
    score = parse_score(found[0][1])
    feedback = _FEEDBACK_TAG.search(text, start)
    return Verdict(score, feedback[1].strip() if feedback else "", text.index(str(score), found[0].start(1)))


def parse_prometheus_verdict(text: str) -> Verdict:
    """Verdict of a reply ``Feedback: ... [RESULT] n``, the format of the Prometheus judges.

    A colon, brackets, emphasis and the word score before the number are let pass, "/5" and "out of 5" after it; the
    same result may be given twice.

    Raises:
        ValueError: If there is no result, one of them is not a whole number from 1 to 5, or they differ.

    Source:
        The prompts published with Prometheus 2 (arXiv:2405.01535); what is let pass and what is refused is ours.

    Example:
        >>> parse_prometheus_verdict("Feedback: Clear, 2 gaps. [RESULT] 4")
        Verdict(score=4, feedback='Clear, 2 gaps.', position=34)
    """
    start = thinking_end(text)
    marks = list(_RESULT_MARK.finditer(text, start))
    if not marks:
        raise ValueError("no [RESULT]")
    found = [_result(text, mark.end()) for mark in marks]
    if len({score for score, _ in found}) != 1:
        raise ValueError(f"{len(found)} different results")
    feedback = _FEEDBACK_LABEL.sub("", text[start : marks[0].start()]).strip().rstrip("*_#").rstrip()
    return Verdict(found[0][0], feedback, found[0][1])


def _result(text: str, start: int) -> tuple[int, int]:
    """The score that stands at a place, and where exactly."""
    found = _RESULT_SCORE.match(text, start)
    if not found or _GOES_ON.match(text, found.end()):
        raise ValueError(f"not a score of 1 to 5 after [RESULT]: {text[start : start + 20].strip()!r}")
    return int(found[1]), found.start(1)


VERDICT_PARSERS: Mapping[str, Callable[[str], Verdict]] = MappingProxyType(
    {"json": parse_json_verdict, "flow": parse_flow_verdict, "prometheus": parse_prometheus_verdict}
)
"""Parser of every judge protocol."""


def expected_score(text: str, verdict: Verdict, logprobs: Sequence[TokenLogprob] | None) -> float | None:
    """Mean of the scores 1 to 5, weighted by their probabilities at the token that holds the score.

    Args:
        text: The reply.
        verdict: What a parser made of it.
        logprobs: Of the reply's tokens.

    Returns:
        A number from 1 to 5, to six decimals; None where the token cannot be told or no probabilities are given.

    Source:
        Ours, after G-Eval (arXiv:2303.16634, section 2). The scores' probabilities are scaled to a sum of 1.

    Example:
        >>> even = (("4", math.log(0.5)), ("5", math.log(0.5)))
        >>> expected_score("4", Verdict(4, "", 0), [TokenLogprob("4", math.log(0.5), even)])
        4.5
    """
    if verdict.position is None or not logprobs:
        return None
    found = token_at(logprobs, text, verdict.position)
    if found is None:
        return None
    token, place = found
    before, after = token.token[:place].strip(), token.token[place + 1 :].strip()
    names = {f"{before}{score}{after}": score for score in SCORES}
    weights = dict.fromkeys(SCORES, 0.0)
    for name, logprob in dict([*token.alternatives, (token.token, token.logprob)]).items():
        if (score := names.get(name.strip())) is not None:
            weights[score] += math.exp(logprob)
    total = sum(weights.values())
    return round(sum(score * weight for score, weight in weights.items()) / total, 6) if total > 0 else None
