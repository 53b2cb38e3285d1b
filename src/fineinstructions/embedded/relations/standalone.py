"""What a sentence needs to stand by itself as an answer.

In: a `Reading` and sentences. Out: yes or no, and the spans of an answer. The decision to question: a sentence that
points at a figure, a chapter or "this section" is dropped even where the pointing does no harm.
"""

import re
from dataclasses import replace

from fineinstructions.embedded.document_text import Sentence
from fineinstructions.embedded.relations.grammar import Phrase, kind_of_head
from fineinstructions.embedded.relations.reading import MAX_ANSWER_WORDS, Evidence, Reading, Subject
from fineinstructions.embedded.relations.tables import pattern

Spans = tuple[tuple[int, int], ...]

_POINTS_ELSEWHERE = pattern("points_elsewhere", re.IGNORECASE)
_CITATION = re.compile(r" \((?:FM|ADP|ADRP|ATP|JP|AR|TC|DODD)s? [\d.-]+[A-Z]?(?:/[A-Z]+ [\d.-]+[A-Z]?)?\)")
"""A source in brackets, which takes nothing away from a sentence: "(ADP 3-90)"."""
_RESIDUE = re.compile(r"\b(?:in|by|from|of|see|with) ?[.)]|•|[<|]|\n\n|[A-Z]{3,} [A-Z]{3,} [A-Z]{3,}")
_GENERIC_VERB = re.compile(r"(?:is|are|also|often|usually|consists?|contains?|[a-z]+s)\b")
_STATES_CLASS = re.compile(r"(?:is|are) (?:an?|the|one)\b")
_LOOK_BACK = 20_000
"""How far back a first mention is looked for, in characters (ours)."""
_MAX_LIST_WORDS = MAX_ANSWER_WORDS - 60


def is_self_contained(text: str) -> bool:
    """Whether a sentence is whole and points at nothing outside itself.

    Example:
        >>> is_self_contained("Glycolysis is a pathway."), is_self_contained("See Figure 3 for details.")
        (True, False)
    """
    text = _CITATION.sub("", text)
    if text[-1] not in '.!:"”)' or text[0].islower() or not (text[0].isalnum() or text[0] in "*`\"“'"):
        return False
    if text.count("(") != text.count(")") or text.count('"') % 2:
        return False
    if "following" in text and ":" not in text:
        return False
    return _RESIDUE.search(text) is None and _POINTS_ELSEWHERE.search(text) is None


def answer_spans(reading: Reading, sentence: Sentence) -> Spans | None:
    """Span of a sentence, with the list it announces; ``None`` where an announced list cannot follow."""
    structure = reading.structure
    if reading.text[sentence.end - 1] != ":":
        return ((sentence.start, sentence.end),)
    items = structure.items_after(sentence.block)
    if len(items) < 2 or structure.sentence_after(sentence):
        return None
    if structure.words(items[0].start, items[-1].end) > _MAX_LIST_WORDS:
        return None
    return ((sentence.start, items[-1].end),)


def extended(reading: Reading, evidence: Evidence, max_words: int = 70) -> Evidence:
    """Evidence with the sentences behind it that go on about the same subject.

    Args:
        reading: The document.
        evidence: Evidence that ends with a sentence.
        max_words: Longest answer after extension.
    """
    structure = reading.structure
    start, end = evidence.spans[-1]
    sentence = structure.sentence_ending(end)
    while sentence and (following := structure.sentence_after(sentence)):
        text = reading.text[following.start : following.end]
        goes_on = re.match(r"(?:It|They|Its|Their|He|She|His|Her)\b", text) or opens_with(text, evidence.subject)
        fits = structure.words(evidence.start, following.end) <= max_words
        if not (goes_on and fits and is_self_contained(text)) or text[-1] == ":":
            break
        sentence, end = following, following.end
    return replace(evidence, spans=(*evidence.spans[:-1], (start, end)))


def opens_with(text: str, phrase: Phrase) -> bool:
    """Whether a sentence opens with the phrase."""
    return re.match(r"(?:The |An? )?" + re.escape(phrase.text) + r"\b", text, re.IGNORECASE) is not None


def is_anaphoric(reading: Reading, phrase: Phrase, sentence: Sentence, predicate: str) -> bool:
    """Whether a phrase in the middle of a text leans on what stands before it: "the crash"."""
    tokens = phrase.text.split()
    if phrase.article != "the" or not phrase.text.islower():
        return False
    if phrase.plural or not _GENERIC_VERB.match(predicate):
        return True
    if kind_of_head(phrase.text) not in ("", "disease", "animal"):
        return True
    if len(tokens) == 1 and not _STATES_CLASS.match(predicate):
        return True
    name = re.escape(phrase.text)
    mentioned = rf"\b(?:an?|this|that|each|new) (?:\w+ )?{name}\b"
    if len(tokens) == 1:
        mentioned += rf"|\b(?:an?|called|the) (?:[\w-]+ ){{1,2}}{name}\b"
    before = reading.text[max(0, sentence.start - _LOOK_BACK) : sentence.start]
    return re.search(mentioned, before, re.IGNORECASE) is not None


def is_part_of_title(phrase: Phrase, subject: Subject) -> bool:
    """Whether "the series" stands for the series that the document is about."""
    title = subject.phrase.text.casefold().split()
    tokens = phrase.text.casefold().split()
    return phrase.article == "the" and len(tokens) < len(title) and all(token in title for token in tokens)
