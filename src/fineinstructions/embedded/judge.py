"""The embedded judge: a 1-5 score from the pair's form, with a sentence that names what decided.

In: a pair with its template and document. Out: a `Judgement`. The decision to question: it reads form, not truth. It
looks for the faults readers named most often: an instruction that needs the document, a filler that names nothing, an
answer that opens in the middle of something, stops before its end, repeats the question or shares no word with it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from fineinstructions.embedded.identity import HERE, RELATIONS, code_digest
from fineinstructions.embedded.relations.grammar import noun_stem, verb_stem
from fineinstructions.embedded.relations.tables import pattern, words
from fineinstructions.embedded.words import NAMES_IN_CAPITALS
from fineinstructions.records import Document, ExpandedDraft, Judgement, Rejection, Template, content_id

CODE = (HERE / "judge.py", *RELATIONS)
_REQUEST = pattern("request", re.IGNORECASE)
_POINTS = pattern("points_at_something", re.IGNORECASE)
_OPENS_DANGLING = pattern("opens_dangling", re.IGNORECASE)
_POINTS_ELSEWHERE = pattern("answer_points_elsewhere", re.IGNORECASE)
_FRAME_WORDS = words("frame_words")
_HAS_ANTECEDENT = re.compile(r".*\bX\b|\S+ .*\b[A-Z][a-z]", re.DOTALL)
"""Before a pronoun: a filled slot or a name that it can mean."""
_MAX_ONE_SENTENCE_WORDS = 15
"""A longer instruction may explain its own pronouns (ours)."""
_MAX_WORDS = 400
"""Answers over this length are marked down (ours)."""

Test = Callable[[str, str, list[str], str], str]
"""Reads instruction, answer, fillers and title; returns feedback where it objects, otherwise nothing."""


class EmbeddedJudge:
    """Judge of the embedded tier; deterministic, no state between items."""

    def __init__(self) -> None:
        self.model = json.dumps({"name": "embedded-judge", "digest": code_digest(*CODE)}, sort_keys=True)

    def judge(self, items: Iterable[tuple[ExpandedDraft, Template, Document]]) -> Iterator[Judgement | Rejection]:
        """One judgement per pair, in order.

        Args:
            items: Pairs with the template and the document they come from.

        Yields:
            A judgement with a score of 1 (useless) to 5 (nothing to object to); 4 means a reader would accept.
        """
        for draft, _, document in items:
            score, feedback = verdict(draft.instruction, draft.answer, [s.value for s in draft.slots], document.title)
            yield Judgement(content_id("p", draft.document_id, draft.template_id), score, feedback, self.model)


def verdict(instruction: str, answer: str, fillers: list[str], title: str = "") -> tuple[int, str]:
    """Score and feedback for one pair.

    Args:
        instruction: The filled instruction.
        answer: The answer, excerpts expanded.
        fillers: Words in the slots.
        title: The document's title, a hint at what the answer is about.

    Returns:
        Score from 1 to 5 and one sentence of feedback.

    Example:
        >>> verdict("What is glycolysis?", "Glycolysis is the first step in the breakdown of glucose.", ["glycolysis"])
        (5, 'good: the answer names the subject and is whole')
        >>> verdict("What is it?", "It was there.", ["it"])[0]
        1
    """
    for score, test in _TESTS:
        if feedback := test(instruction.strip(), answer.strip(), fillers, title):
            return score, feedback
    return 5, "good: the answer names the subject and is whole"


def _empty(instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    if len(instruction.split()) < 2 or not answer:
        return "empty: there is no instruction or no answer"
    if re.search(r"</?(?:fi|excerpt)>|<\.\.\.>", instruction + answer):
        return "markup: a tag is left in the text"
    return "" if re.search(r"[^\W\d_]{3}", answer) else "empty: the answer has no words"


def _vague(instruction: str, _answer: str, fillers: list[str], _title: str) -> str:
    for filler in fillers:
        word = filler.strip()
        if (_POINTS.fullmatch(word) and word not in NAMES_IN_CAPITALS) or not re.search(r"\w", filler):
            return f"filler: '{filler}' names nothing without the document"
    asked = instruction
    for filler in fillers:
        asked = asked.replace(filler, "X")
    found = _POINTS.search(asked) if len(asked.split()) <= _MAX_ONE_SENTENCE_WORDS else None
    if found and (found.group().startswith("the ") or not _HAS_ANTECEDENT.match(asked[: found.start()])):
        return f"context: '{found.group()}' in the instruction is not understood without the document"
    return ""


def _form(instruction: str, _answer: str, _fillers: list[str], _title: str) -> str:
    if not _REQUEST.match(instruction) and len(instruction.split()) < 4:
        return "form: the instruction is neither a question nor a request"
    words = instruction.casefold().split()
    if any(a == b and a not in ("had", "that") for a, b in pairwise(words)):
        return "form: the instruction repeats a word"
    return (
        "form: the instruction has a blank or bracket out of place"
        if instruction.count("(") != instruction.count(")")
        else ""
    )


def _no_support(instruction: str, answer: str, fillers: list[str], title: str) -> str:
    asked = _content(" ".join(fillers) if fillers else instruction)
    given = _content(answer[:2000]) | _content(title)
    if asked and not asked & given:
        return "support: the answer shares no word with what is asked"
    return ""


def _short(instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    words = answer.split()
    if len(words) < 4:
        return "short: the answer is too short to be an explanation"
    if set(_content(answer)) <= set(_content(instruction)):
        return "repeats: the answer says no more than the question"
    return ""


def _long(_instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    return "long: the answer is longer than a reader wants" if len(answer.split()) > _MAX_WORDS else ""


def _dangling(_instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    if found := _OPENS_DANGLING.match(answer):
        return f"dangling: the answer opens with '{found.group()}', which points to text that is not there"
    if (
        answer[:1].islower()
        and not re.match(r"[a-z]+[A-Z0-9]|[a-z][\w-]* (?:is|are|was|were)\b", answer)
        and len(answer) > 60
    ):
        return "dangling: the answer opens in the middle of a sentence"
    return ""


def _elsewhere(_instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    found = _POINTS_ELSEWHERE.search(answer)
    return f"context: '{found.group()}' points to something outside the answer" if found else ""


def _unfinished(_instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    last = answer.rstrip()[-1:]
    lines = answer.strip().splitlines()
    listed = re.match(r"\s*(?:[-*•]|\d+[.)])", lines[-1]) is not None
    if last in ",:;—–-" or answer.rstrip().endswith((" and", " or", " the", " of")):
        return "unfinished: the answer stops before its end"
    return (
        ""
        if last in ".!?\"”’')`]" or listed or (last.isalnum() and len(lines) > 1)
        else "unfinished: the answer does not end like a sentence"
    )


def _residue(_instruction: str, answer: str, _fillers: list[str], _title: str) -> str:
    if re.search(r"•|\|.*\|.*\||[A-Z]{4,} [A-Z]{4,} [A-Z]{4,}", answer):
        return "residue: the answer holds table or page-header residue"
    links = len(re.findall(r"\b(?:MedlinePlus|Registry|Encyclopedia)\b", answer))
    return "residue: the answer is a list of links" if links > 2 else ""


def _content(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", text.casefold())
    return {
        verb_stem(noun_stem(word)) for word in words if (word not in _FRAME_WORDS and len(word) > 2) or word.isdigit()
    } - _FRAME_WORDS


_TESTS: tuple[tuple[int, Test], ...] = (
    (1, _empty),
    (1, _vague),
    (2, _form),
    (2, _no_support),
    (2, _short),
    (3, _dangling),
    (3, _elsewhere),
    (3, _unfinished),
    (3, _residue),
    (3, _long),
)
