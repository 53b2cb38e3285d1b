"""The two tag grammars: ``<fi>description</fi>`` in templates and ``<excerpt>start<...>end</excerpt>`` in answers.

Text in, segments out, and back. The decision one may question: white space just inside a tag is not an error but is
moved outside it, because language models put it there and the words beside the tag need it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

_SLOT_TAG = re.compile(r"<(/?)fi>")
_EXCERPT_TAG = re.compile(r"<(/?)excerpt>")
_PLAIN_EXCERPT = re.compile(r"<excerpt>([^<>]*)(?:<\.\.\.>([^<>]*))?</excerpt>")
_ELISION = re.compile(r"<(?:\.\.\.|…)>")
_ANY_TAG = re.compile(r"<\s*+(?:/\s*+)?(?:(?:fi|excerpt)\s*+(?:/\s*+)?|(?:\.\.\.|…)\s*+)>", re.IGNORECASE)


class TextSegment(NamedTuple):
    """Plain text."""

    text: str


class SlotSegment(NamedTuple):
    """One ``<fi>name</fi>``; its tags stand at ``template[start:end]``."""

    name: str
    start: int
    end: int


class ExcerptSegment(NamedTuple):
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
    return tuple(_split(template, _SLOT_TAG, SlotSegment))


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
    return tuple(_split(answer, _EXCERPT_TAG, _excerpt))


def answer_pieces(answer: str) -> list[str | None]:
    """An answer in threes: own words, opening, closing, own words, ..., and own words last; empty where there are none.

    Says what `parse_answer` says but for the places, and is quicker where nothing is out of the ordinary.

    Raises:
        ValueError: As `parse_answer`.

    Example:
        >>> answer_pieces("Yes: <excerpt>It rose<...>by noon.</excerpt>")
        ['Yes: ', 'It rose', 'by noon.', '']
    """
    pieces: list[str | None] = list(_PLAIN_EXCERPT.split(answer))
    for text in pieces[::3]:
        if "<" in (text or ""):
            return _pieces_of(parse_answer(answer))
    for opening, closing in zip(pieces[1::3], pieces[2::3], strict=True):
        is_plain = (
            opening and opening == opening.strip() and (closing is None or (closing and closing == closing.strip()))
        )
        if not is_plain:
            return _pieces_of(parse_answer(answer))
    return pieces


def _pieces_of(segments: Iterable[TextSegment | ExcerptSegment]) -> list[str | None]:
    pieces: list[str | None] = [""]
    for segment in segments:
        if isinstance(segment, TextSegment):
            pieces[-1] = segment.text
        else:
            pieces += [segment.opening, segment.closing, ""]
    return pieces


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
    return "<" in text and _ANY_TAG.search(text) is not None


S = TypeVar("S")


def _split(text: str, tags: re.Pattern[str], make: Callable[[str, int, int], S]) -> list[TextSegment | S]:
    """Texts between the tags, and what `make` makes of what they enclose and where; white space moves outside."""
    segments: list[TextSegment | S] = []
    opening = -1
    before = ""
    position = 0
    for found in tags.finditer(text):
        start, end = found.span()
        if not found[1]:
            if opening >= 0:
                raise ValueError(f"position {start}: {found[0]} inside another {found[0]}")
            opening = start
            before += text[position:start]
        elif opening < 0:
            raise ValueError(f"position {start}: {found[0]} without {found[0].replace('/', '')}")
        else:
            enclosed = text[position:start]
            inner = enclosed.strip()
            if not inner:
                raise ValueError(f"position {opening}: {found[0].replace('/', '')} encloses nothing")
            trail = ""
            if len(inner) < len(enclosed):
                place = enclosed.index(inner)
                before, trail = _join(before, enclosed[:place]), enclosed[place + len(inner) :]
            if before:
                segments.append(TextSegment(before))
            segments.append(make(inner, opening, end))
            opening = -1
            before = "" if trail and text[end : end + 1].isspace() else trail
        position = end
    if opening >= 0:
        raise ValueError(f"position {opening}: {text[opening : text.index('>', opening) + 1]} is never closed")
    if before or position < len(text):
        segments.append(TextSegment(before + text[position:]))
    return segments


def _join(before: str, space: str) -> str:
    """Text with white space after it, unless it already ends in some."""
    return before if before[-1:].isspace() else before + space


def _excerpt(inner: str, start: int, end: int) -> ExcerptSegment:
    opening, mark, closing = inner.partition("<...>")
    if "<" in opening or "<" in closing:  # a mark written otherwise, a second one, or none
        ends = _ELISION.split(inner)
        if len(ends) > 2:
            raise ValueError(f"position {start}: more than one <...> in one <excerpt>")
        opening, mark, closing = ends[0], "<...>" if len(ends) == 2 else "", ends[-1]
    if not mark:
        return ExcerptSegment(inner, None, start, end)
    opening, closing = opening.strip(), closing.strip()
    if not opening or not closing:
        raise ValueError(f"position {start}: an <excerpt> needs words on both sides of <...>")
    return ExcerptSegment(opening, closing, start, end)
