"""How judges of any protocol are asked for a grade, and what share of the full mark it is.

In: what is to be graded, with a criterion. Out: messages and a reader of the reply. With ``marks`` the judge ends with
a number in double brackets, as the benchmarks' own judges do; with ``flow``, ``prometheus`` and ``json`` it grades from
1 to 5 in the format that those judges are made for. The decision to question: a scale of 1 to 5 becomes a share of
(score - 1) / 4, so that the lowest score is worth nothing; a division by five would give every wrong answer a fifth.
"""

import re
from pathlib import Path
from typing import Literal

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.prompt import Message, Prompt, read_prompt
from fineinstructions.backends.replies import thinking_end
from fineinstructions.evaluation.items import Reading
from fineinstructions.judging import SCORES, VERDICT_PARSERS, expected_score

Protocol = Literal["marks", "flow", "prometheus", "json"]
ROOM = Path(__file__).parent
GRADE_PLACES = ("question", "answer", "reference", "criterion", "best", "worst")
_MARK = re.compile(r"\[\[\s*([^\[\]]{1,40}?)\s*\]\]")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def marks(text: str) -> list[str]:
    """What stands in double brackets in a reply, each thing once, thoughts left out.

    Example:
        >>> marks("<think>[[9]]</think>First [[ 0.5 ]], so it stays [[0.5]].")
        ['0.5']
    """
    return list(dict.fromkeys(_MARK.findall(text[thinking_end(text) :])))


def number_mark(text: str, low: float, high: float) -> float:
    """The one number in double brackets.

    Args:
        text: The reply.
        low: Least number allowed.
        high: Largest number allowed.

    Raises:
        ValueError: If there is none, there are several different ones, or it lies outside.

    Example:
        >>> number_mark("Rating: [[7]]", 1, 10)
        7.0
    """
    found = [mark for mark in marks(text) if _NUMBER.fullmatch(mark)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} numbers in double brackets instead of one")
    value = float(found[0])
    if not low <= value <= high:
        raise ValueError(f"[[{found[0]}]] is not from {low:g} to {high:g}")
    return value


def grade_prompt(protocol: Protocol) -> Prompt:
    """The prompt by which a judge of a 1-to-5 protocol is asked."""
    return read_prompt(ROOM / f"grade.{protocol}.prompt.txt", GRADE_PLACES)


def grade_messages(protocol: Protocol, **values: str) -> tuple[Message, ...]:
    """Messages that ask for a grade from 1 to 5.

    Args:
        protocol: ``flow``, ``prometheus`` or ``json``.
        values: Text for each of `GRADE_PLACES`.
    """
    return grade_prompt(protocol).fill(values)


def read_grade(protocol: Protocol, reply: ChatReply) -> Reading:
    """Share of the full mark, 0 to 1, with the score and the expected score.

    Raises:
        ValueError: If the reply has no one score of 1 to 5.
    """
    verdict = VERDICT_PARSERS[protocol](reply.text)
    expected = expected_score(reply.text, verdict, reply.logprobs)
    share = (verdict.score - SCORES[0]) / (SCORES[-1] - SCORES[0])
    return {"value": share, "score": verdict.score} | ({} if expected is None else {"expected": expected})
