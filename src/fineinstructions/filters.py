"""Text filters that queries, templates and pairs share: Unicode clean-up, language, exact and near duplicates.

In: single texts. Out: cleaned text, a language verdict, or the name of the earlier text that this one repeats. The
classes that look for duplicates keep hashes and short signatures, never texts, and answer for one text at a time, so a
stream of any length passes through in one order: the first text of a group of duplicates stays.
"""

import hashlib
import html
import re
import unicodedata
from functools import lru_cache
from typing import Any

WORD = re.compile(r"\w+")

_UNSEEN = dict.fromkeys(
    [c for c in range(0x20) if c not in (0x09, 0x0A)]
    + list(range(0x7F, 0xA0))
    + [0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF]
    + list(range(0x202A, 0x202F))
    + list(range(0x2066, 0x206A))
)
"""Control characters, soft hyphen, zero-width space, byte order mark and writing-direction marks: deleted."""
_LINE_BREAKS = re.compile(r"\r\n?|\x0b|\x0c|\x85|\u2028|\u2029")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANKS_AT_BREAK = re.compile(r" ?\n ?")
_MANY_BREAKS = re.compile(r"\n{3,}")


def clean_text(text: str) -> str:
    r"""Clean a query up: Unicode form, HTML entities, unseen characters and white space.

    Args:
        text: Any text.

    Returns:
        NFC text without control characters; runs of blanks are one blank, line breaks stay, at most one line is empty.

    Source:
        Ours; the paper describes no such step. Applied to queries only: documents are never altered.

    Example:
        >>> clean_text("What\u200b is&nbsp;R&amp;D?\r\n\r\n\r\n\r\nTell  me. ")
        'What is R&D?\n\nTell me.'
    """
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _LINE_BREAKS.sub("\n", text).translate(_UNSEEN)
    text = _BLANKS_AT_BREAK.sub("\n", _BLANKS.sub(" ", text))
    return _MANY_BREAKS.sub("\n\n", text).strip()


def words(text: str) -> list[str]:
    """Words for comparing texts: compatibility form, case folded, without punctuation.

    Example:
        >>> words("Who's the ＣＥＯ, then?")
        ['who', 's', 'the', 'ceo', 'then']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return WORD.findall(text.casefold())


_SENTENCE_MARKS = re.compile(r"[\s.,;:!?'\"()\[\]`´‘’“”…]+")


def text_key(text: str) -> int:
    """64-bit hash of a text with case, white space and sentence marks folded; two equal keys mean the same text.

    Symbols stay: C, C++ and C# are different questions, and so are ``x < 5`` and ``x > 5``.

    Example:
        >>> text_key("Who wrote Hamlet?") == text_key("who wrote  hamlet")
        True
        >>> text_key("What is C?") == text_key("What is C#?")
        False
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return hash64(_SENTENCE_MARKS.sub(" ", text.casefold()).strip())


def hash64(text: str) -> int:
    """64 bits of BLAKE2b, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class ExactDuplicates:
    """Texts met so far, as 64-bit keys."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def is_repeat(self, text: str) -> bool:
        """Whether an equal text came before; remembers this one."""
        key = text_key(text)
        if key in self._keys:
            return True
        self._keys.add(key)
        return False


_EMPTY_WORDS = frozenset(["a", "an", "the", "is", "are", "of", "in", "on", "at", "what", "which", "s", "do", "does"])
"""Words that do not change what a short question asks for. Negations, other question words, tenses and the prepositions
of direction (to, from, for, with) do, so they count."""

_TOKEN = re.compile(r"[^\s.,;:!?'\"()\[\]`´‘’“”…]+")


def question_key(text: str) -> int:
    """64-bit hash of what a short question asks for: its content words in order, plurals folded.

    Example:
        >>> question_key("What is the capital of Romania?") == question_key("capital of romania")
        True
        >>> question_key("train to London") == question_key("train from London")
        False
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    tokens = _TOKEN.findall(text.casefold())
    content = [_singular(t) for t in tokens if t not in _EMPTY_WORDS]
    return hash64(" ".join(content or tokens))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


class NearDuplicates:
    """Texts met so far, found again by likeness: `question_key` for short texts, MinHash for long ones.

    MinHash would call two questions of eight words alike when they differ in the year, and the year is what matters. So
    a short text is a near duplicate only when its content words are the same in the same order; a text over
    `short_words` words is compared by its 5-word shingles.

    Args:
        threshold: Jaccard similarity of the shingle sets from which a long text is a near duplicate.
        short_words: Longest text, in words, that is compared by its content words alone.
        num_perm: MinHash permutations; the estimate's standard error is at most 0.5 / sqrt(num_perm).

    Source:
        Ours; the paper names no near-duplicate step. 0.7 on 5-word shingles with banded LSH is common practice for web
        text.
    """

    def __init__(self, threshold: float = 0.7, short_words: int = 20, num_perm: int = 128) -> None:
        from rensa import RMinHashLSH

        if not 0 < threshold <= 1 or num_perm % 4:
            raise ValueError(f"threshold {threshold} must be in (0, 1] and num_perm {num_perm} a multiple of 4")
        self._threshold = threshold
        self._short_words = short_words
        self._num_perm = num_perm
        self._short: dict[int, str] = {}
        self._long: list[tuple[str, Any]] = []
        self._index = RMinHashLSH(threshold=threshold, num_perm=num_perm, num_bands=num_perm // 4)

    def find(self, text: str, name: str) -> tuple[str, float] | None:
        """The earlier text that this one repeats; remembers this one when there is none.

        Args:
            text: The text.
            name: What to call it when a later text repeats it.

        Returns:
            Name of the earlier text and the similarity (1.0 for short texts), or ``None``.
        """
        tokens = words(text)
        if len(tokens) <= self._short_words:
            key = question_key(text)
            if key in self._short:
                return self._short[key], 1.0
            self._short[key] = name
            return None
        sketch = self._sketch(tokens)
        best, similarity = -1, 0.0
        for candidate in sorted(self._index.query(sketch)):
            found = float(sketch.jaccard(self._long[candidate][1]))
            if found > similarity:
                best, similarity = candidate, found
        if best >= 0 and similarity >= self._threshold:
            return self._long[best][0], similarity
        self._index.insert(len(self._long), sketch)
        self._long.append((name, sketch))
        return None

    def _sketch(self, tokens: list[str]) -> Any:
        from rensa import RMinHash

        sketch = RMinHash(num_perm=self._num_perm, seed=42)
        sketch.update(shingles(tokens))
        return sketch


def shingles(tokens: list[str], size: int = 5) -> list[str]:
    """Distinct runs of `size` words, in order; the whole text where it is shorter.

    Example:
        >>> shingles(["a", "b", "c"], size=2)
        ['a b', 'b c']
    """
    runs = (" ".join(tokens[i : i + size]) for i in range(max(len(tokens) - size + 1, 1)))
    return list(dict.fromkeys(runs))


_ENGLISH_ONLY = frozenset(
    WORD.findall(
        """the and what which who whom whose how why where when does did with from this that these those are were been
        being have should would could cannot then there their they your you my his its it about between because into
        during after before many much some other write"""
    )
)
_ENGLISH = _ENGLISH_ONLY | frozenset(WORD.findall("was is for her of not if can had has first any while more than"))
"""Frequent English words; those of the second list are words of other languages too: evidence, not proof."""


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def detect_language(text: str) -> tuple[str, float]:
    """Most likely language of a text, and its probability, by py3langid on the first 2,000 characters.

    Example:
        >>> detect_language("Wie heißt der Bürgermeister von Wesel, und seit wann ist er im Amt?")[0]
        'de'
    """
    language, probability = _identifier().classify(text[:2000])
    return str(language), float(probability)


def foreign_probability(text: str, languages: tuple[str, ...], min_words: int = 5) -> float:
    """How surely a text is in none of the wanted languages.

    A short text is often misjudged: names, product codes and search terms have no language. So a text in Latin letters
    with fewer than `min_words` words is never called foreign, and an English text is recognised by its function words
    before the model is asked. In Latin letters the model must be sure of another language; in other letters it is
    enough that it is none of the wanted ones, since related languages share the probability between them.

    Args:
        text: The text.
        languages: Two-letter codes of the wanted languages.
        min_words: Shortest text whose language is judged.

    Returns:
        Latin letters: probability of the most likely language where that is an unwanted one, otherwise 0. Other
        letters: 1 less the probability of the wanted languages.

    Source:
        Ours; the paper's queries are tagged English, its filter is not described.
    """
    tokens = words(text[:2000])
    if "en" in languages and _looks_english(text, tokens):
        return 0.0
    if not _is_latin(text):
        ranked = _identifier().rank(text[:2000])
        return 1.0 - float(sum(probability for language, probability in ranked if language in languages))
    if len(tokens) < min_words:
        return 0.0
    language, probability = detect_language(text)
    return 0.0 if language in languages else probability


def _looks_english(text: str, tokens: list[str]) -> bool:
    if not text.isascii() or not tokens:
        return False
    known = sum(t in _ENGLISH for t in tokens)
    return known * 5 >= len(tokens) and any(t in _ENGLISH_ONLY for t in tokens)


def _is_latin(text: str) -> bool:
    if text.isascii():
        return True
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(c < "\u0250" for c in letters) >= len(letters)
