"""Where quoted words stand in a document: exactly, or past differences of case, spacing, quotes and dashes.

A document and quoted words in, spans of the document out. The decision one may question: a tolerant match still gives
back a span of the document as it is, so a model's small slips never reach an answer.
"""

import bisect
import functools
import re
import unicodedata
from collections.abc import Iterator

_QUOTES = frozenset("'\"`´‘’‚‛“”„‟′″‹›«»")
_SEPARATOR = " "
MIN_SIMILAR_CHARS = 24
"""Shortest words that are looked for by similarity; shorter ones resemble too much."""


class SourceText:
    """A document's text, with its folded copy made when a tolerant search first needs it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @functools.cached_property
    def _folded(self) -> tuple[str, list[int]]:
        return fold(self.text)

    def exact_spans(self, opening: str, closing: str | None, most: int | None = None) -> list[tuple[int, int]]:
        """Spans that begin with `opening` and end with the first `closing` after it.

        Args:
            opening: First words, or the whole excerpt.
            closing: Last words; ``None`` where `opening` is the whole excerpt.
            most: Look for no more spans than these; ``None`` finds all.

        Returns:
            Half-open spans in code points, from left to right.
        """
        text = self.text
        found: list[tuple[int, int]] = []
        start, closing_start = text.find(opening), -1
        while start >= 0:
            end = start + len(opening)
            if closing is not None:
                if closing_start < end:
                    closing_start = text.find(closing, end)
                if closing_start < 0:
                    break
                end = closing_start + len(closing)
            found.append((start, end))
            if len(found) == most:
                break
            start = text.find(opening, start + 1)
        return found

    def tolerant_spans(self, opening: str, closing: str | None) -> Iterator[tuple[int, int]]:
        """Like `exact_spans`, one by one, ignoring case, accents, spacing, quotes and dashes; never cuts a word.

        Yields:
            Half-open spans in code points of the unfolded text.
        """
        folded_opening = fold(opening)[0].strip()
        folded_closing = None if closing is None else fold(closing)[0].strip()
        if not folded_opening or folded_closing == "":
            return
        folded, origins = self._folded
        last = opening if closing is None else closing
        for start, end in _word_spans(folded, folded_opening, folded_closing):
            yield self._widen(origins[start], origins[end - 1] + 1, opening[0] in _QUOTES, last[-1] in _QUOTES)

    def similar_spans(self, opening: str, closing: str | None, min_similarity: float) -> Iterator[tuple[int, int]]:
        """Like `tolerant_spans`, for words that were copied with a slip: a letter, or a word left out or put in.

        Args:
            opening: First words, or the whole excerpt.
            closing: Last words; ``None`` where `opening` is the whole excerpt.
            min_similarity: Least similarity of the words to the passage, 0 to 1.

        Yields:
            Half-open spans in code points of the unfolded text; their first and last word are those asked for.
        """
        folded, origins = self._folded
        starts = _similar_places(folded, fold(opening)[0].strip(), min_similarity)
        ends = starts if closing is None else _similar_places(folded, fold(closing)[0].strip(), min_similarity)
        last = opening if closing is None else closing
        begins = [begin for begin, _ in ends]
        for start, opening_end in starts:
            following = bisect.bisect_left(begins, start if closing is None else opening_end)
            if following < len(ends):
                end = origins[ends[following][1] - 1] + 1
                yield self._widen(origins[start], end, opening[0] in _QUOTES, last[-1] in _QUOTES)

    def _widen(self, start: int, end: int, quote_before: bool, quote_after: bool) -> tuple[int, int]:
        """Take in the accents of the last letter, and the quotes that the excerpt had at its ends."""
        while end < len(self.text) and unicodedata.category(self.text[end]) == "Mn":
            end += 1
        if quote_before and self.text[start - 1 : start] in _QUOTES:
            start -= 1
        if quote_after and self.text[end : end + 1] in _QUOTES:
            end += 1
        return start, end


def fold(text: str) -> tuple[str, list[int]]:
    """A copy of a text in which only letters, digits and punctuation count.

    Letters lose case and accents; every run of spaces, quotes and dashes becomes one space.

    Args:
        text: Any text.

    Returns:
        The folded text, and for each of its characters the offset of the one it came from.

    Example:
        >>> fold("“Ça—va”?")
        (' ca va ?', [0, 1, 2, 3, 4, 5, 6, 7])
    """
    pieces: list[str] = []
    origins: list[int] = []
    last = ""
    for offset, character in enumerate(text):
        folded = _fold_character(character)
        if not folded or (folded == _SEPARATOR == last):
            continue
        last = folded
        pieces.append(folded)
        origins.extend([offset] * len(folded))
    return "".join(pieces), origins


@functools.lru_cache(maxsize=1 << 16)
def _fold_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Pd", "Pi", "Pf", "Cc") or character in _QUOTES or character.isspace() or character == "−":
        return _SEPARATOR
    if category in ("Cf", "Mn"):
        return ""
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn")
    return plain.casefold().strip()


def _word_spans(text: str, opening: str, closing: str | None) -> Iterator[tuple[int, int]]:
    """Like `SourceText.exact_spans`, between whole words only."""
    start = _find(text, opening, 0, True, closing is None)
    closing_start = -1
    while start >= 0:
        after = start + len(opening)
        if closing is None:
            yield start, after
        else:
            if closing_start < after:
                closing_start = _find(text, closing, after, False, True)
            if closing_start < 0:
                return
            yield start, closing_start + len(closing)
        start = _find(text, opening, start + 1, True, closing is None)


def _similar_places(folded: str, words: str, min_similarity: float) -> list[tuple[int, int]]:
    """Where folded words stand exactly or, if nowhere, where they nearly stand; two similar places are enough."""
    exact = list(_word_spans(folded, words, None)) if words else []
    if exact or len(words) < MIN_SIMILAR_CHARS:
        return exact
    best = _most_similar(folded, 0, len(folded), words, min_similarity)
    if best is None:
        return []
    beside = ((0, best[0]), (best[1], len(folded)))
    others = [place for lo, hi in beside if (place := _most_similar(folded, lo, hi, words, min_similarity))]
    return sorted([best, *others])


def _most_similar(folded: str, low: int, high: int, words: str, min_similarity: float) -> tuple[int, int] | None:
    """The stretch most similar to some words that begins and ends with the same word as they do."""
    if high - low < len(words):
        return None
    from rapidfuzz.fuzz import partial_ratio_alignment

    found = partial_ratio_alignment(words, folded[low:high], score_cutoff=100 * min_similarity)
    known = re.findall(r"\w+", words)
    if found is None or not known:
        return None
    slack = 2 + int(2 * len(words) * (1 - min_similarity))
    first = _nearest_word(folded, known[0], low + found.dest_start, slack)
    last = _nearest_word(folded, known[-1], low + found.dest_end - len(known[-1]), slack)
    if first is None or last is None or last[1] <= first[0]:
        return None
    marked = not words[-1].isalnum() and folded[last[1] : last[1] + 1].strip() and not folded[last[1]].isalnum()
    return first[0], last[1] + bool(marked)


def _nearest_word(text: str, word: str, place: int, slack: int) -> tuple[int, int] | None:
    """The occurrence of a word nearest to a place, at most `slack` characters away."""
    low = max(0, place - slack)
    near = re.compile(rf"\b{re.escape(word)}\b").finditer(text, low, min(len(text), place + slack + len(word) + 1))
    return min((found.span() for found in near), key=lambda span: abs(span[0] - place), default=None)


def _find(text: str, words: str, position: int, border_before: bool, border_after: bool) -> int:
    """Like ``str.find``, with word borders where asked for; -1 if there is none."""
    start = text.find(words, position)
    while start >= 0:
        end = start + len(words)
        if not (border_before and _cuts_word(text, start)) and not (border_after and _cuts_word(text, end)):
            return start
        start = text.find(words, start + 1)
    return -1


def _cuts_word(text: str, offset: int) -> bool:
    """Whether an offset lies inside a word; scripts without case are often written without spaces and never count."""
    beside = text[max(offset - 1, 0) : offset + 1]
    return len(beside) == 2 and all(c.isdigit() or c.lower() != c.upper() for c in beside)
