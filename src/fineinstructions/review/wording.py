"""What kind of instruction a text is, as far as its words tell: type, opening, subject, length.

In: an instruction or a query. Out: names of classes. The decision to question: words alone decide, so that a million
texts are classed in a minute without a model; subjects overlap in the paper, where a language model named them, and are
rough here.
"""

import re
from functools import lru_cache
from itertools import islice
from pathlib import Path

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_DIALOGUE = re.compile(r"^\W*(?:hi|hello|hey|thanks|thank you|please tell me about yourself)\b", re.IGNORECASE)
TYPES = ("what", "how", "who, when, where, which", "why", "yes or no", "task", "dialogue", "other")
LENGTHS = ("1-5", "6-10", "11-20", "21-40", "41+")


def _lists() -> dict[str, list[str]]:
    """Words by the name of their list."""
    text = Path(__file__).with_name("wording.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            words = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            words += line.split()
    return found


_LISTS = _lists()
_ASKING, _YES_NO, _TASKS = (frozenset(_LISTS[name]) for name in ("asking", "yes or no", "task"))
_SUBJECT = {
    name.removeprefix("subject: "): re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
    for name, words in _LISTS.items()
    if name.startswith("subject: ")
}
SUBJECTS = tuple(_SUBJECT)
"""The paper's subjects (arXiv:2601.22146, appendix D)."""


@lru_cache(maxsize=4096)
def _type_of_word(word: str) -> str:
    if word in ("what", "what's"):
        return "what"
    if word in ("how", "why"):
        return word
    if word.partition("'")[0] in _ASKING:
        return "who, when, where, which"
    return "yes or no" if word in _YES_NO else "task" if word in _TASKS else ""


def instruction_type(text: str) -> str:
    """Type of an instruction, one of `TYPES`.

    Example:
        >>> [instruction_type(t) for t in ("What is rain?", "Please list three rivers", "in which year did it end?")]
        ['what', 'task', 'who, when, where, which']
    """
    if _DIALOGUE.match(text):
        return "dialogue"
    heads = [
        word.group().lower().replace("\u2019", "'") for word, _ in zip(_WORD.finditer(text), range(4), strict=False)
    ]
    return next((kind for head in heads if (kind := _type_of_word(head))), "other")


def opening(text: str) -> str:
    """The two words that tell what is asked: a task's verb and the word after it, else the first two of the text.

    Example:
        >>> opening("How do you make stoemp?"), opening("Please list three rivers.")
        ('how do', 'list three')
    """
    found = [word.group().lower() for word in islice(_WORD.finditer(text), 5)]
    is_task = instruction_type(text) == "task"
    begin = next(place for place, word in enumerate(found) if word in _TASKS) if is_task else 0
    return " ".join(found[begin : begin + 2])


def first_word(text: str) -> str:
    """The first word of a text, in small letters; empty where there is none."""
    found = _WORD.search(text)
    return found.group().lower() if found else ""


def length_class(text: str) -> str:
    """Class of a text by its words, one of `LENGTHS`."""
    number = len(text.split())
    return LENGTHS[sum(number > limit for limit in (5, 10, 20, 40))]


def subjects(text: str) -> list[str]:
    """Subjects whose words occur, ``none of them`` where none does; they overlap."""
    return [name for name, pattern in _SUBJECT.items() if pattern.search(text)] or ["none of them"]
