"""The short answer inside a response, by rule: no judge, no model.

In: a response and what would be right. Out: the letter of an option or nothing; for free text an exact match, a
containment and an overlap of words. Models that were trained on instructions answer in sentences, so rules that expect
a bare answer and a judge that reads the sentence give different scores for the same response: both are shown.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_SAID = re.compile(
    r"(?:answer|option|choice|solution)s?\s*(?:is|are|would be|was)?\s*[:=]?\s*(?:option\s*)?[\"'*(\[]*\s*",
    re.IGNORECASE,
)
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_FIRST_PART = re.compile(r"[^\n]*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")


def letters(number: int) -> str:
    """Names of so many options.

    Example:
        >>> letters(4)
        'ABCD'
    """
    return string.ascii_uppercase[:number]


def chosen_letter(response: str, options: Sequence[str]) -> str | None:
    """The option that a response chooses, as far as rules can tell.

    Args:
        response: What the model said.
        options: The options, in order.

    Returns:
        Its letter; None where no option or several are named.

    Source:
        Ours. In this order: a response that is, or begins with, a letter; the last "answer is B"; the one option
        whose text stands in the response.

    Example:
        >>> chosen_letter("(B) a lake", ["a sea", "a lake"]), chosen_letter("So the answer is: A.", ["x", "y"])
        ('B', 'A')
        >>> chosen_letter("It must be a lake, I think", ["a sea", "a lake"])
        'B'
        >>> chosen_letter("a sea or a lake", ["a sea", "a lake"]) is None
        True
    """
    names = letters(len(options))
    text = response.strip()
    beginning = re.match(rf"[\s\"'*(\[]*([{names}])(?:[)\].:,*\"']|\s*\Z|\n|\s+-)", text)
    if beginning:
        return beginning[1]
    said = [
        found[1]
        for place in _SAID.finditer(text)
        if (found := re.compile(rf"([{names}])(?![\w'])").match(text, place.end()))
    ]
    if said:
        return said[-1]
    plain = f" {normalised(text)} "
    held = [name for name, option in zip(names, options, strict=True) if f" {normalised(option)} " in plain]
    return held[0] if len(held) == 1 else None


def short_answer(response: str) -> str:
    r"""The part of a response that most likely is the answer: what follows the last "answer is", else the first line.

    Example:
        >>> short_answer("First we add. So the answer is 42. Good luck!"), short_answer("Paris\nIt is in France.")
        ('42', 'Paris')
    """
    text = response.strip()
    said = [m for m in re.finditer(r"answer(?:\s+is|\s+was)?\s*[:=]?\s*", text, re.IGNORECASE) if m.end() < len(text)]
    if said:
        rest = text[said[-1].end() :].strip()
        end = _SENTENCE_END.search(rest)
        return rest[: end.start()].strip() if end else rest
    first = _FIRST_PART.match(text)
    return first[0].strip() if first else ""


def normalised(text: str) -> str:
    """A text without case, punctuation, articles and separators of thousands, its words one blank apart.

    Example:
        >>> normalised("The  U.S. paid $1,200!")
        'u s paid 1200'
    """
    words = _THOUSANDS.sub("", text.lower()).translate(_PUNCTUATION).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def exact_match(answer: str, targets: Sequence[str]) -> bool:
    """Whether an answer is one of the targets, both normalised."""
    plain = normalised(answer)
    return bool(plain) and any(plain == normalised(target) for target in targets)


def holds_target(response: str, targets: Sequence[str]) -> bool:
    """Whether one of the targets stands in a response, word for word after normalising both."""
    plain = f" {normalised(response)} "
    return any(f" {wanted} " in plain for wanted in map(normalised, targets) if wanted)


def word_overlap(answer: str, targets: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall of an answer's words against a target's.

    Source:
        Rajpurkar et al. 2016 (arXiv:1606.05250), section 6.1.

    Example:
        >>> word_overlap("the big lake", ["lake", "sea"])
        0.6666666666666666
    """
    said = Counter(normalised(answer).split())
    best = 0.0
    for target in targets:
        wanted = Counter(normalised(target).split())
        shared = sum((said & wanted).values())
        if shared:
            best = max(best, 2 * shared / (said.total() + wanted.total()))
    return best


def context_of(row: Mapping[str, Any]) -> str:
    """The text that a question is about; what the files write for none counts as none."""
    context = row.get("context")
    return context if isinstance(context, str) and context.strip().lower() not in ("", "none", "null") else ""
