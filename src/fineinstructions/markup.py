"""The two tag grammars: ``<fi>description</fi>`` in templates and ``<excerpt>start<...>end</excerpt>`` in answers.

Text in, segments out, and back. The decision one may question: white space just inside a tag is not an error but is
moved outside it, because language models put it there and the words beside the tag need it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_ELISION = re.compile(r"<(?:\.\.\.|…)>")
_ANY_TAG = re.compile(r"<\s*/?\s*(?:fi|excerpt)\s*/?\s*>|<\s*(?:\.\.\.|…)\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextSegment:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class SlotSegment:
    """One ``<fi>name</fi>``; its tags stand at ``template[start:end]``."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ExcerptSegment:
    """One ``<excerpt>``; its tags stand at ``answer[start:end]``."""

    opening: str
    """The whole excerpt, or its first words where `closing` is set."""
    closing: str | None
    """The last words of a shortened excerpt; ``None`` for one written out in full."""
    start: int
    end: int


def parse_template(template: str) -> tuple[TextSegment | SlotSegment, ...]:
    """Split a template into text and slots.

    Args:
        template: Text with ``<fi>description</fi>`` slots.

    Returns:
        Segments in order; empty texts are left out.

    Raises:
        ValueError: If a tag is unbalanced, nested or empty; the message starts with its position.

    Example:
        >>> parse_template("What is <fi>a disease</fi>?")
        (TextSegment(text='What is '), SlotSegment(name='a disease', start=8, end=26), TextSegment(text='?'))
    """
    return tuple(
        SlotSegment(part.inner, part.start, part.end) if isinstance(part, _Tagged) else TextSegment(part)
        for part in _split(template, "fi")
    )


def print_template(segments: Iterable[TextSegment | SlotSegment]) -> str:
    """Write segments as a template; the inverse of `parse_template`."""
    return "".join(s.text if isinstance(s, TextSegment) else f"<fi>{s.name}</fi>" for s in segments)


def slot_names(template: str) -> tuple[str, ...]:
    """Names of a template's slots, in order.

    Raises:
        ValueError: As `parse_template`.
    """
    return tuple(s.name for s in parse_template(template) if isinstance(s, SlotSegment))


def skeleton(template: str) -> str:
    """A template without the names of its slots.

    Two templates of one skeleton ask the same thing, whatever their slots are called.

    Raises:
        ValueError: As `parse_template`.

    Example:
        >>> skeleton("Who wrote <fi>name of a book</fi>?")
        'Who wrote <fi></fi>?'
    """
    return "".join(s.text if isinstance(s, TextSegment) else "<fi></fi>" for s in parse_template(template))


def fill(template: str, values: Sequence[str]) -> str:
    """Put values in the slots of a template, in one pass: tags or braces inside a value stay as they are.

    Args:
        template: Text with ``<fi>`` slots.
        values: One value per slot, in order.

    Returns:
        The filled instruction.

    Raises:
        ValueError: As `parse_template`, or if the number of values differs from the number of slots.

    Example:
        >>> fill("Between <fi>entity</fi> and <fi>entity</fi>, which is larger?", ["Chad", "Mali"])
        'Between Chad and Mali, which is larger?'
    """
    segments = parse_template(template)
    num_slots = sum(isinstance(s, SlotSegment) for s in segments)
    if num_slots != len(values):
        raise ValueError(f"the template has {num_slots} slots, but {len(values)} values were given")
    remaining = iter(values)
    return "".join(s.text if isinstance(s, TextSegment) else next(remaining) for s in segments)


def parse_answer(answer: str) -> tuple[TextSegment | ExcerptSegment, ...]:
    """Split an answer into its own words and its excerpts.

    Args:
        answer: Text with ``<excerpt>whole span</excerpt>`` or ``<excerpt>start<...>end</excerpt>``.

    Returns:
        Segments in order; empty texts are left out.

    Raises:
        ValueError: If a tag is unbalanced, nested or empty; the message starts with its position.

    Example:
        >>> parse_answer("Yes: <excerpt>It rose<...>by noon.</excerpt>")[1]
        ExcerptSegment(opening='It rose', closing='by noon.', start=5, end=44)
    """
    return tuple(
        _excerpt(part) if isinstance(part, _Tagged) else TextSegment(part) for part in _split(answer, "excerpt")
    )


def print_answer(segments: Iterable[TextSegment | ExcerptSegment]) -> str:
    """Write segments as an answer; the inverse of `parse_answer`."""
    return "".join(s.text if isinstance(s, TextSegment) else excerpt_tag(s.opening, s.closing) for s in segments)


def excerpt_tag(opening: str, closing: str | None = None) -> str:
    """One excerpt with its tags, in full or shortened to its two ends.

    Example:
        >>> excerpt_tag("It rose", "by noon.")
        '<excerpt>It rose<...>by noon.</excerpt>'
    """
    return f"<excerpt>{opening}</excerpt>" if closing is None else f"<excerpt>{opening}<...>{closing}</excerpt>"


def has_tag(text: str) -> bool:
    """Whether any tag of either grammar is left in a text, also one with odd spacing or capitals.

    Example:
        >>> has_tag("What is < FI >this?"), has_tag("a < b > c")
        (True, False)
    """
    return _ANY_TAG.search(text) is not None


@dataclass(frozen=True, slots=True)
class _Tagged:
    inner: str
    start: int
    end: int


def _split(text: str, tag: str) -> Iterator[str | _Tagged]:
    """Texts between the tags, and what the tags enclose, both with the white space moved outside."""
    opening: re.Match[str] | None = None
    before = ""
    position = 0
    for found in re.finditer(f"<(/?){tag}>", text):
        if found[1] and opening is None:
            raise ValueError(f"position {found.start()}: </{tag}> without <{tag}>")
        if not found[1]:
            if opening is not None:
                raise ValueError(f"position {found.start()}: <{tag}> inside another <{tag}>")
            opening = found
            before += text[position : found.start()]
        elif opening is not None:
            enclosed = text[position : found.start()]
            inner = enclosed.strip()
            if not inner:
                raise ValueError(f"position {opening.start()}: <{tag}> encloses nothing")
            lead, trail = enclosed[: enclosed.index(inner)], enclosed[enclosed.index(inner) + len(inner) :]
            before = _join(before, lead)
            if before:
                yield before
            yield _Tagged(inner, opening.start(), found.end())
            opening = None
            before = "" if text[found.end() : found.end() + 1].isspace() else trail
        position = found.end()
    if opening is not None:
        raise ValueError(f"position {opening.start()}: <{tag}> is never closed")
    if before + text[position:]:
        yield before + text[position:]


def _join(before: str, space: str) -> str:
    """Text with white space after it, unless it already ends in some."""
    return before if before[-1:].isspace() else before + space


def _excerpt(part: _Tagged) -> ExcerptSegment:
    ends = _ELISION.split(part.inner)
    if len(ends) > 2:
        raise ValueError(f"position {part.start}: more than one <...> in one <excerpt>")
    stripped = [end.strip() for end in ends]
    if not all(stripped):
        raise ValueError(f"position {part.start}: an <excerpt> needs words on both sides of <...>")
    return ExcerptSegment(stripped[0], stripped[1] if len(ends) == 2 else None, part.start, part.end)
