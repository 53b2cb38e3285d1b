"""Excerpt tags to verbatim source text with offsets, and how much of an answer is verbatim.

Drafts in, expanded drafts or rejections out. The decision one may question: an excerpt that fits two places is refused
rather than guessed, unless exactly one of them lies in the passage that retrieved the template.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.markup import answer_pieces, has_tag
from fineinstructions.pairs.locate import SourceText
from fineinstructions.records import Document, Draft, Excerpt, ExpandedDraft, Rejection, content_id, rejection

STAGE = "excerpts"
MIN_MATCH_CHARS = 20
MIN_MATCH_WORDS = 5

Focus = Callable[[Draft, Document], tuple[int, int] | None]
"""Character span of the passage that retrieved a draft's template; ``None`` where there is none."""

_WORD = re.compile(r"\w+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


class ExcerptsConfig(Config):
    """How excerpt tags become verbatim text, and which answers are grounded enough."""

    min_ratio: float = Field(default=0.8, ge=0.0, le=1.0)
    """Least share of an answer's characters that must be quoted. Paper, section 3.3."""
    max_excerpt_chars: int = Field(default=8000, ge=1)
    """Longest excerpt, in characters; a longer one usually means that its two ends do not belong together. Ours."""
    tolerant: bool = True
    """Find an excerpt that differs from the document in case, accents, spacing, quotes or dashes; the answer always
    gets the document's own text. Ours."""
    min_similarity: float = Field(default=0.9, gt=0.0, le=1.0)
    """Least similarity (1 = equal) of an excerpt of 24 or more characters, copied with a slip, to the one passage
    that is meant; the answer gets the document's own text. Only where `tolerant` is on; 1 for never. Ours."""


def expand(
    drafts: Iterable[tuple[Draft, Document]], config: ExcerptsConfig, focus: Focus | None = None
) -> Iterator[ExpandedDraft | Rejection]:
    """Replace every excerpt of every draft by the document's own text.

    Args:
        drafts: Drafts, each with its document; drafts of one document side by side are fastest.
        config: Thresholds.
        focus: Passage of the document that a draft is about; settles excerpts that stand in several places.

    Yields:
        One expanded draft or rejection per draft, in order. Reasons: ``unbalanced_tags``, ``leftover_tag``,
        ``empty_instruction``, ``empty_answer``, ``excerpt_not_found``, ``ambiguous_excerpt`` (value: places found),
        ``excerpt_too_long`` (value: characters), ``overlapping_excerpts``, ``tag_in_excerpt`` (the document itself
        holds a tag), ``low_excerpt_ratio`` (value: the ratio; the record is the expanded draft).

    Source:
        arXiv:2601.22146, section 3.3; the rules for ambiguous, overlapping and tolerant matches are ours.
    """
    source, source_text = None, SourceText("")
    for draft, document in drafts:
        if document is not source:
            source, source_text = document, SourceText(document.text)
        yield expand_draft(draft, source_text, config, focus(draft, document) if focus else None)


def expand_draft(
    draft: Draft, source: SourceText, config: ExcerptsConfig, focus: tuple[int, int] | None = None
) -> ExpandedDraft | Rejection:
    """Expand one draft; see `expand`.

    Args:
        draft: Filled instruction and tagged answer.
        source: Text of the draft's document.
        config: Thresholds.
        focus: Character span of the passage that the draft is about.

    Returns:
        The expanded draft, or the rejection that says why there is none.
    """
    try:
        answer, excerpts = _expand_answer(draft, source, config, focus)
    except _RefusedError as refused:
        return rejection(STAGE, refused.reason, _pair_id(draft), draft, refused.value)
    expanded = ExpandedDraft(
        document_id=draft.document_id,
        template_id=draft.template_id,
        chunk=draft.chunk,
        cosine=draft.cosine,
        instruction=draft.instruction.strip(),
        answer=answer,
        slots=draft.slots,
        excerpts=excerpts,
        excerpt_ratio=sum([e.answer_end - e.answer_start for e in excerpts]) / len(answer),  # they never overlap
        coverage_ratio=coverage_ratio(answer, source.text),
        model=draft.model,
        generated_tokens=draft.generated_tokens,
    )
    if expanded.excerpt_ratio < config.min_ratio:
        return rejection(STAGE, "low_excerpt_ratio", _pair_id(draft), expanded, expanded.excerpt_ratio)
    return expanded


def _pair_id(draft: Draft) -> str:
    return content_id("p", draft.document_id, draft.template_id)


def excerpt_ratio(answer: str, excerpts: Sequence[Excerpt]) -> float:
    """Share of an answer's characters inside the union of its excerpts, 0 to 1.

    Args:
        answer: Expanded answer.
        excerpts: Its excerpts, in any order; they may overlap.

    Returns:
        The share; 0 for an empty answer.

    Source:
        arXiv:2601.22146, section 3.3; counting characters is ours.

    Example:
        >>> excerpt_ratio("Yes, it did.", [Excerpt(5, 12, 90, 97)])
        0.5833333333333334
    """
    covered = reached = 0
    for excerpt in sorted(excerpts, key=lambda e: e.answer_start):
        if excerpt.answer_end > reached:
            covered += excerpt.answer_end - max(reached, excerpt.answer_start)
            reached = excerpt.answer_end
    return covered / len(answer) if answer else 0.0


def coverage_ratio(answer: str, document: str) -> float:
    """Share of an answer's characters that also stand in the document, whatever its tags claim, 0 to 1.

    Goes through the answer from left to right. At each word or mark it takes the longest piece that occurs in the
    document; a piece of at least 20 characters or 5 words counts, and the search goes on behind it. Runs of white
    space count as one space on both sides.

    Args:
        answer: Answer without tags.
        document: Text of the document.

    Returns:
        The share; 0 for an empty answer.

    Source:
        Ours, after the extractive-fragment coverage of Grusky et al., 2018 (arXiv:1804.11283), with a least length.

    Example:
        >>> coverage_ratio("It is one of the most used drugs.", "X is one of the most used drugs. Y")
        0.9090909090909091
    """
    answer, document = " ".join(answer.split()), " ".join(document.split())
    word_ends = [word.end() for word in _WORD.finditer(answer)]
    covered = reached = words_before = 0
    for found in _WORD_OR_MARK.finditer(answer):
        start = found.start()
        while words_before < len(word_ends) and word_ends[words_before] <= start:
            words_before += 1
        if start < reached:
            continue
        fifth_word = words_before + MIN_MATCH_WORDS - 1
        five_words = word_ends[fifth_word] - start if fifth_word < len(word_ends) else MIN_MATCH_CHARS
        shortest = min(MIN_MATCH_CHARS, five_words)
        if start + shortest <= len(answer) and answer[start : start + shortest] in document:
            piece = answer[start : start + _longest_match(answer, start, shortest, document)].rstrip()
            covered += len(piece)
            reached = start + len(piece)
    return covered / len(answer) if answer else 0.0


def _longest_match(answer: str, start: int, known: int, document: str) -> int:
    """Length of the longest ``answer[start:start + length]`` in the document, given one length that occurs."""
    limit = len(answer) - start
    step = known
    while known < limit and answer[start : start + min(known + step, limit)] in document:
        known = min(known + step, limit)
        step *= 2
    low, high = known, min(known + step, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if answer[start : start + middle] in document else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a draft's excerpts that the model which wrote them might mend."""

    reason: str
    excerpt: str
    """The excerpt as the draft has it, without its tags; empty where the answer as a whole is meant."""
    value: float | None

    @property
    def line(self) -> str:
        """What the model is told.

        Example:
            >>> Fault("low_excerpt_ratio", "", 0.5).line[:45]
            'Only 50% of the answer is quoted. Quote whole'
        """
        said = {
            "excerpt_not_found": f"The excerpt {self.excerpt!r} is not in the document. Copy its words exactly.",
            "ambiguous_excerpt": f"The excerpt {self.excerpt!r} fits several places of the document. Quote more of it.",
            "low_excerpt_ratio": f"Only {self.value or 0:.0%} of the answer is quoted. Quote whole sentences.",
        }
        return f"{said[self.reason]} Reply again with the whole JSON object, and change nothing else."


MENDABLE = ("excerpt_not_found", "ambiguous_excerpt", "low_excerpt_ratio")
"""Faults that a model can be told about in one line; the most frequent ones."""


def find_fault(draft: Draft, document: str, config: ExcerptsConfig, focus: tuple[int, int] | None) -> Fault | None:
    """Why `expand_draft` would turn a draft down, where its model might mend it.

    Args:
        draft: Filled instruction and tagged answer.
        document: Text of the draft's document.
        config: Thresholds.
        focus: Character span of the passage that the draft is about.
    """
    try:
        answer, excerpts = _expand_answer(draft, SourceText(document), config, focus)
    except _RefusedError as refused:
        fault = Fault(refused.reason, refused.excerpt, refused.value)
        return fault if refused.reason in MENDABLE else None
    ratio = excerpt_ratio(answer, excerpts)
    return Fault("low_excerpt_ratio", "", ratio) if ratio < config.min_ratio else None


class _RefusedError(Exception):
    def __init__(self, reason: str, value: float | None = None, excerpt: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.excerpt = excerpt


def _expand_answer(
    draft: Draft, source: SourceText, config: ExcerptsConfig, focus: tuple[int, int] | None
) -> tuple[str, tuple[Excerpt, ...]]:
    """The answer with its excerpts written out, and where they stand."""
    if not draft.instruction.strip():
        raise _RefusedError("empty_instruction")
    try:
        pieces = answer_pieces(draft.answer.strip())
    except ValueError:
        raise _RefusedError("unbalanced_tags") from None
    if has_tag(draft.instruction) or any(map(has_tag, filter(None, pieces[::3]))):
        raise _RefusedError("leftover_tag")
    answer, excerpts = _write_out(pieces, source, config, focus)
    if not answer:
        raise _RefusedError("empty_answer")
    if _overlap(excerpts):
        raise _RefusedError("overlapping_excerpts")
    if has_tag(answer):
        raise _RefusedError("tag_in_excerpt")
    return answer, excerpts


def _overlap(excerpts: Sequence[Excerpt]) -> bool:
    """Whether two excerpts have a character of the document in common."""
    reached = -1
    for excerpt in excerpts:
        if excerpt.document_start < reached:
            break
        reached = excerpt.document_end
    else:
        return False  # they stand in the order of the document, as nearly always
    spans = sorted((e.document_start, e.document_end) for e in excerpts)
    return any(before[1] > after[0] for before, after in itertools.pairwise(spans))


def _write_out(
    pieces: Sequence[str | None], source: SourceText, config: ExcerptsConfig, focus: tuple[int, int] | None
) -> tuple[str, tuple[Excerpt, ...]]:
    """Texts and excerpts in one string; excerpts side by side get a space unless the document joins them."""
    text, max_chars = source.text, config.max_excerpt_chars
    most = None if focus is not None else 2  # a focus may choose among all; else two are enough to be ambiguous
    answer = (pieces[0] or "").lstrip()
    excerpts: list[Excerpt] = []
    reached = joined = -1
    for opening, closing, own in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        found = source.exact_spans(opening or "", closing, most)
        start, end = found[0] if len(found) == 1 else _place(opening or "", closing, source, found, config, focus)
        if end - start > max_chars:
            raise _RefusedError("excerpt_too_long", float(end - start))
        begin = len(answer)
        if begin == reached and joined != start:
            answer, begin = f"{answer} ", begin + 1
        reached, joined = begin + end - start, end
        excerpts.append(Excerpt(begin, reached, start, end))
        answer += text[start:end] + own if own else text[start:end]
    return answer.rstrip(), tuple(excerpts)


def _place(
    opening: str,
    closing: str | None,
    source: SourceText,
    found: list[tuple[int, int]],
    config: ExcerptsConfig,
    focus: tuple[int, int] | None,
) -> tuple[int, int]:
    """The one span of the document that an excerpt stands for, where it is not found in exactly one place."""
    most = None if focus is not None else 2
    if not found and config.tolerant:
        found = list(itertools.islice(source.tolerant_spans(opening, closing), most))
    if not found and config.tolerant and config.min_similarity < 1:
        similar = source.similar_spans(opening, closing, config.min_similarity)
        found = list(itertools.islice(similar, most))
    if not found:
        raise _RefusedError("excerpt_not_found", excerpt=_quoted(opening, closing))
    if len(found) > 1 and focus is not None:
        near = [(start, end) for start, end in found if start < focus[1] and end > focus[0]]
        found = near if len(near) == 1 else found
    if len(found) > 1:
        raise _RefusedError("ambiguous_excerpt", float(len(found)), _quoted(opening, closing))
    return found[0]


def _quoted(opening: str, closing: str | None) -> str:
    return opening if closing is None else f"{opening}<...>{closing}"
