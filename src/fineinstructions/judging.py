"""A judge's free-text reply to a verdict.

One parser per protocol. A reply that does not state exactly one score of 1 to 5 has no verdict: the parsers raise
`ValueError` and never fall back to a low score.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from fineinstructions.backends.replies import json_reply

_SCORE_TAG = re.compile(r"<score>(.*?)</score>", re.DOTALL | re.IGNORECASE)
_FEEDBACK_TAG = re.compile(r"<feedback>(.*?)</feedback>", re.DOTALL | re.IGNORECASE)


class Verdict(NamedTuple):
    """What a judge says about the one pair it was shown."""

    score: int
    feedback: str


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
    return Verdict(parse_score(reply["score"]), reply["feedback"].strip())


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
    scores = _SCORE_TAG.findall(text)
    if len(scores) != 1:
        raise ValueError(f"{len(scores)} score tags instead of one")
    feedback = _FEEDBACK_TAG.search(text)
    return Verdict(parse_score(scores[0]), feedback[1].strip() if feedback else "")


VERDICT_PARSERS: Mapping[str, Callable[[str], Verdict]] = MappingProxyType(
    {"json": parse_json_verdict, "flow": parse_flow_verdict}
)
"""Parser of every judge protocol."""
