"""The embedded instantiator: fills a template from a document's evidence and quotes whole sentences or sections.

In: requests (match, template, document, focus). Out: drafts in excerpt short-hand, or refusals. The decision to
question: it writes no words but the subject's name in place of a pronoun, so an answer is never better written than
its source.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from fineinstructions.embedded.identity import HERE, RELATIONS, code_digest
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.gate import FOCUS_GAIN, evidence
from fineinstructions.embedded.relations.questions import wanted
from fineinstructions.embedded.relations.reading import MAX_ANSWER_WORDS, Evidence
from fineinstructions.records import Document, Draft, Match, Rejection, Slot, Template, content_id, rejection

CODE = (HERE / "instantiator.py", *RELATIONS)
MIN_ANSWER_WORDS = 5
"""Shortest answer, in words (ours)."""
_ANCHOR_WORDS = 4
"""Words at each end of a shortened excerpt, as in the paper's example; more where four are not unique."""
_WHOLE_WORDS = 12
"""Excerpts up to this length are written in full (ours)."""
_MAX_LEAD_RATIO = 0.2
"""Longest lead, as a share of what is quoted; with it the excerpt ratio stays above 0.8 (paper: at least 0.8)."""
_SLOT = re.compile(r"<fi>(.*?)</fi>", re.DOTALL)
_MARKUP = re.compile(r"</?(?:excerpt|fi)>|<\.\.\.>")


class RequestLike(Protocol):
    """What an instantiator is asked; `pairs.instantiate.Request` has this shape."""

    @property
    def match(self) -> Match: ...  # noqa: D102
    @property
    def template(self) -> Template: ...  # noqa: D102
    @property
    def document(self) -> Document: ...  # noqa: D102
    @property
    def focus(self) -> tuple[int, int]: ...  # noqa: D102


class EmbeddedInstantiator:
    """Instantiator of the embedded tier; deterministic, no state between requests."""

    def __init__(self) -> None:
        self.model = json.dumps({"name": "embedded-instantiator", "digest": code_digest(*CODE)}, sort_keys=True)

    def instantiate(self, requests: Iterable[RequestLike]) -> Iterator[Draft | Rejection]:
        """One draft or refusal per request, in order.

        Args:
            requests: Requests, read lazily.

        Yields:
            A draft, or a rejection with the reason ``refused`` or ``refused_<why>``.
        """
        for request in requests:
            yield self._one(request)

    def _one(self, request: RequestLike) -> Draft | Rejection:
        asked = wanted(request.template.template)
        if asked is None:
            return _refuse(request, "relation_unknown")
        fitting = [
            (e, words) for e in evidence(request.document).get(asked.key, ()) if (words := fit(asked, e)) is not None
        ]
        if not fitting:
            return _refuse(request, "no_evidence")
        why = "no_answer"
        for found, words in sorted(fitting, key=lambda pair: _rank(pair[0], request.focus, len(request.document.text))):
            answer = marked_answer(request.document.text, found)
            if answer.startswith("!"):
                why = answer[1:]
                continue
            return self._draft(request, words, answer)
        return _refuse(request, why)

    def _draft(self, request: RequestLike, words: dict[int, str], answer: str) -> Draft:
        names = _SLOT.findall(request.template.template)
        match = request.match
        return Draft(
            document_id=match.document_id,
            template_id=match.template_id,
            chunk=match.chunk,
            cosine=match.cosine,
            instruction=filled(request.template.template, words),
            answer=answer,
            slots=tuple(Slot(name, words[number]) for number, name in enumerate(names)),
            model=self.model,
        )


def _refuse(request: RequestLike, why: str) -> Rejection:
    record_id = content_id("p", request.match.document_id, request.match.template_id)
    return rejection("instantiate", f"refused_{why}", record_id, request.match)


def _rank(found: Evidence, focus: tuple[int, int], length: int) -> tuple[float, int]:
    """Most reliable first; evidence inside the focus gains, evidence far from it loses a little."""
    middle = (focus[0] + focus[1]) / 2
    inside = focus[0] <= found.middle < focus[1]
    distance = abs(found.middle - middle) / max(1, length)
    return (-round(found.reliability + (FOCUS_GAIN if inside else -FOCUS_GAIN * distance), 4), found.start)


def filled(template: str, words: dict[int, str]) -> str:
    """The template with its slots filled; a slot that opens the sentence gets a capital.

    Example:
        >>> filled("What is <fi>a disease</fi>?", {0: "cutis laxa"})
        'What is cutis laxa?'
    """
    counter = iter(range(len(words)))
    text = _SLOT.sub(lambda _: words[next(counter)], template).strip()
    return text[:1].upper() + text[1:]


def marked_answer(text: str, found: Evidence) -> str:
    """Answer of one piece of evidence in excerpt short-hand, or ``!reason`` when it cannot be given."""
    words = sum(len(text[a:b].split()) for a, b in found.spans)
    if words + len(found.lead.split()) < MIN_ANSWER_WORDS:
        return "!too_short"
    if words > MAX_ANSWER_WORDS:
        return "!too_long"
    if len(found.lead) > _MAX_LEAD_RATIO * sum(b - a for a, b in found.spans):
        return "!mostly_own_words"
    pieces = []
    for start, end in found.spans:
        piece = excerpt(text, start, end)
        if not piece:
            return "!ambiguous"
        pieces.append(piece)
    answer = "\n".join(pieces)
    return f"{found.lead} {answer}" if found.lead else answer


def excerpt(text: str, start: int, end: int, whole_words: int = _WHOLE_WORDS) -> str:
    """A span in short-hand, with ends long enough to be found exactly once; empty when that is impossible.

    Args:
        text: The document.
        start: First character of the span.
        end: Behind its last character.
        whole_words: A span of at most so many words is written out.

    Returns:
        ``<excerpt>...</excerpt>``, or an empty string.

    Example:
        >>> excerpt("One two three. Four five.", 15, 25)
        '<excerpt>Four five.</excerpt>'
    """
    whole = text[start:end]
    if _MARKUP.search(whole) or "\x00" in whole:
        return ""
    words = [(start + m.start(), start + m.end()) for m in re.finditer(r"\S+", whole)]
    if len(words) > whole_words:
        first = _unique_start(text, start, words)
        last = _unique_end(text, end, words)
        if first and last and first < last:
            return f"<excerpt>{text[start:first]}<...>{text[last:end]}</excerpt>"
    if not words or text.find(whole) != start or text.find(whole, start + 1) != -1:
        return ""
    return f"<excerpt>{whole}</excerpt>"


def _unique_start(text: str, start: int, words: list[tuple[int, int]]) -> int:
    for _, end in words[_ANCHOR_WORDS - 1 : len(words) // 2]:
        head = text[start:end]
        if text.find(head) == start and text.find(head, start + 1) == -1:
            return end
    return 0


def _unique_end(text: str, end: int, words: list[tuple[int, int]]) -> int:
    for begin, _ in reversed(words[len(words) // 2 : len(words) - _ANCHOR_WORDS + 1]):
        tail = text[begin:end]
        if text.find(tail) == begin and text.find(tail, begin + 1) == -1:
            return begin
    return 0
