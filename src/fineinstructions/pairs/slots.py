"""Slot values read back from a filled instruction.

In: a template and the instruction that a model made of it. Out: one value per slot, in order. Words are aligned, so a
model may change a word of the template here and there; a slot whose neighbours were reworded too has no certain value,
and then there is none for the whole instruction.
"""

import difflib
import itertools
import re
from collections.abc import Sequence

from fineinstructions.markup import SlotSegment, TextSegment, parse_template

_WORD = re.compile(r"\w+")
_MAX_WORDS = 2000
"""Longer instructions are not aligned: the cost grows with the square."""


def align_slots(template: str, instruction: str) -> tuple[str, ...] | None:
    """Values of a template's slots in a filled instruction.

    Args:
        template: Instruction template.
        instruction: The same, filled and perhaps lightly reworded.

    Returns:
        One value per slot, or None if some slot's value is uncertain.

    Raises:
        ValueError: If the template is malformed.

    Example:
        >>> align_slots("Is <fi>a city</fi> in <fi>a country</fi>?", "Is Cuzco in Peru?")
        ('Cuzco', 'Peru')
        >>> align_slots("Tell me how <fi>a thing</fi> works", "Explain how a kiln works.")
        ('a kiln',)
        >>> align_slots("Name <fi>one</fi> <fi>two</fi>", "Name red apples") is None
        True
    """
    segments = parse_template(template)
    template_words: list[str | None] = []
    for segment in segments:
        template_words += [None] if isinstance(segment, SlotSegment) else _words(segment.text)
    places = list(_WORD.finditer(instruction))
    if max(len(places), len(template_words)) > _MAX_WORDS or (None, None) in itertools.pairwise(template_words):
        return None
    words = [place[0].lower() for place in places]
    ends = _slot_ends(template_words, words)
    if ends is None:
        return None
    values = []
    slots = [number for number, segment in enumerate(segments) if isinstance(segment, SlotSegment)]
    for number, (first, last) in zip(slots, ends, strict=True):
        start = places[first - 1].end() if first else 0
        end = places[last].start() if last < len(places) else len(instruction)
        values.append(_trimmed(instruction[start:end], segments[max(0, number - 1)], segments[number + 1 :][:1]))
    return tuple(values) if all(values) else None


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _slot_ends(template: Sequence[str | None], words: Sequence[str]) -> list[tuple[int, int]] | None:
    """Half-open range of instruction words in the place of each slot."""
    exact = _exact_ends(template, words)
    if exact is not None:
        return exact
    # Every slot is a word of its own (its position), which matches nothing.
    marked = [str(number) + " " if word is None else word for number, word in enumerate(template)]
    blocks = difflib.SequenceMatcher(None, marked, list(words), autojunk=False).get_matching_blocks()
    ends = []
    after_template = after_words = 0
    for block in blocks:
        gap = template[after_template : block.a]
        if None in gap:
            if len(gap) > 1 or block.b <= after_words:
                return None
            ends.append((after_words, block.b))
        after_template, after_words = block.a + block.size, block.b + block.size
    return ends


def _exact_ends(template: Sequence[str | None], words: Sequence[str]) -> list[tuple[int, int]] | None:
    """The same where the instruction holds every word of the template; each slot as short as possible."""
    runs: list[list[str]] = [[]]
    for word in template:
        if word is None:
            runs.append([])
        else:
            runs[-1].append(word)
    position = len(runs[0])
    if list(words[:position]) != runs[0]:
        return None
    ends = []
    for number, run in enumerate(runs[1:], start=1):
        last = number == len(runs) - 1
        starts = [len(words) - len(run)] if last else range(position + 1, len(words) - len(run) + 1)
        found = next((s for s in starts if s > position and list(words[s : s + len(run)]) == run), None)
        if found is None:
            return None
        ends.append((position, found))
        position = found + len(run)
    return ends


def _trimmed(value: str, before: TextSegment | SlotSegment, after: Sequence[TextSegment | SlotSegment]) -> str:
    """A value without the punctuation that belongs to the template's own text around it."""
    value = value.strip()
    if isinstance(before, TextSegment):
        lead = re.split(r"\w", before.text)[-1].strip()
        value = value.removeprefix(lead).strip()
    if after and isinstance(after[0], TextSegment):
        trail = re.split(r"\w", after[0].text)[0].strip()
        value = value.removesuffix(trail).strip()
    return value
