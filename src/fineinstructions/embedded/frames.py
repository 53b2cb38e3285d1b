"""Frames: the shapes of questions, with ``_`` where a slot goes ("what is capital of _").

A query comes in as text; out come all readings of it as a frame plus the character spans of its slots, each checked
for grammar. Which reading to believe is decided in `genericizer`, by how many queries share the frame. Articles are
left out of frames, so that "what is a X" and "what is the X" count together.
"""

import re
from dataclasses import dataclass

from fineinstructions.embedded.words import (
    ARTICLES,
    AUXILIARIES,
    FUNCTION_WORDS,
    IMPERATIVES,
    NAME_IN_CAPITALS,
    PREPOSITIONS,
    PRONOUNS,
    WH_WORDS,
    WORD_CLASSES,
    Token,
    WordTable,
    tokenize,
)

MAX_QUERY_WORDS = 18
MAX_SLOT_WORDS = 8
MAX_SPANS_FOR_PAIRS = 40

_POLITE = re.compile(
    r"^(?:please|hi|hello|hey)[, ]+|^(?:can|could|would|will) you (?:please )?(?:tell me|explain to me)(?: about)? "
    r"|^(?:do you know|tell me|i (?:want|need|would like) to know|does anyone know) (?=wh(?:at|o|en|ere|y|ich)|how)",
    re.IGNORECASE,
)
_TITLE_OPENING = re.compile(
    r"^(?:the )?(difference between|meaning of|definition of|history of|purpose of) ", re.IGNORECASE
)
_NOMINAL = re.compile(r"^(?:the |an? )?((?:[a-z]+ )?[a-z]{3,}) (of|for|between) (?=.{2,80}\?$)", re.IGNORECASE)
_FUSED = {"whats": "what", "whos": "who", "wheres": "where", "hows": "how", "whens": "when"}
_HOW_TO = tuple(
    tuple(opening.split())
    for opening in (
        "how to", "how do i", "how can i", "how should i", "how would i", "how do we", "how can we", "how can you",
        "how would you", "how does one", "how can one", "how could i", "how could you",
    )
)  # fmt: skip
_SINGULAR_S = WORD_CLASSES["singular_s"]
_IRREGULAR_PLURALS = WORD_CLASSES["irregular_plurals"]
_QUOTES = frozenset("\"'“”‘’`«»")
_CLOSING = frozenset("?.!,;:")
_BREAKING = frozenset(".?!;:()[]{}<>|=\\*~^…–—")
_MAY_START_SLOT_AUX = frozenset({"may", "will", "can"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a query: its frame and the slots' spans, as word indices into `words`."""

    frame: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query's words without articles, quotes and closing marks."""

    text: str
    words: tuple[str, ...]
    starts: tuple[int, ...]
    """Start of each word in `text`, including an article before it."""
    ends: tuple[int, ...]
    articles: tuple[str, ...]
    """The article before each word, or an empty string."""


def parse(text: str) -> ParsedQuery:
    """Fold a query: polite openings, articles, quotes and closing punctuation go, "what's" becomes "what is".

    "It's" after anything but a question word is read as "its", which is what people mean in "get it's name".

    Example:
        >>> parse("What's the capital of France?").words
        ('what', 'is', 'capital', 'of', 'france')
    """
    text = " ".join(text.split())
    text = _POLITE.sub("", text, count=1)
    text = _TITLE_OPENING.sub(r"what is the \1 ", text, count=1)
    text = _NOMINAL.sub(_with_verb, text, count=1)
    tokens = _with_capitals(tokenize(text), text)
    while tokens and tokens[-1].text in _CLOSING:
        tokens.pop()
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    articles: list[str] = []
    article: Token | None = None
    for position, token in enumerate(tokens):
        if token.text in _QUOTES:
            continue
        if (token.text in ARTICLES or token.text in {"my", "your", "our"}) and position + 1 < len(tokens):
            article = token
            continue
        word = token.text
        if len(words) <= 1 and word == "'s":
            word = "is"
        elif word == "'s" and words[-1] == "it" and words[-2] not in WH_WORDS:
            words[-1], ends[-1] = "its", token.end
            continue
        elif not words and word in _FUSED:
            words.append(_FUSED[word])
            starts.append(token.start)
            ends.append(token.end)
            articles.append("")
            word = "is"
        words.append(word)
        starts.append(article.start if article else token.start)
        ends.append(token.end)
        articles.append(article.text if article else "")
        article = None
    return _ask_you(ParsedQuery(text, tuple(words), tuple(starts), tuple(ends), tuple(articles)))


def _with_capitals(tokens: list[Token], text: str) -> list[Token]:
    """Names in capitals that would be pronouns in lower case stay in capitals: "the US Marines", "an IT department".

    The first word is none, as in "WHO wrote it", and in a query all in capitals nothing tells a name from a pronoun.
    """
    if not NAME_IN_CAPITALS.search(text) or text.isupper():
        return tokens
    return [
        token._replace(text=token.text.upper())
        if k and NAME_IN_CAPITALS.fullmatch(text, token.start, token.end)
        else token
        for k, token in enumerate(tokens)
    ]


def _with_verb(nominal: re.Match[str]) -> str:
    """The question of a bare "population of"; words that are no noun stay as they are."""
    nouns, preposition = nominal.group(1).lower(), nominal.group(2).lower()
    words = nouns.split()
    if not FUNCTION_WORDS.isdisjoint(words) or words[0] in IMPERATIVES or words[-1].endswith(("ing", "ed")):
        return nominal.group()
    return f"what {'are' if is_plural(words[-1]) else 'is'} the {nouns} {preposition} "


def is_plural(noun: str) -> bool:
    """Whether a noun is plural, by its form."""
    regular = noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in _SINGULAR_S
    return regular or noun in _IRREGULAR_PLURALS


def _ask_you(query: ParsedQuery) -> ParsedQuery:
    """One wording for one meaning: "how to", "how can I" and "how does one" become "how do you"."""
    length = next((len(opening) for opening in _HOW_TO if query.words[: len(opening)] == opening), 0)
    if not length or len(query.words) <= length:
        return query
    start, end = query.starts[0], query.ends[length - 1]
    return ParsedQuery(
        query.text,
        ("how", "do", "you", *query.words[length:]),
        (start, end, end, *query.starts[length:]),
        (start, end, end, *query.ends[length:]),
        ("", "", "", *query.articles[length:]),
    )


def opens_question(words: tuple[str, ...]) -> bool:
    """Whether the words begin like an English question or request."""
    if len(words) < 2:
        return False
    first = words[0]
    if first in PREPOSITIONS:
        return words[1] in WH_WORDS
    return first in WH_WORDS or first in AUXILIARIES or first in IMPERATIVES


def readings(query: ParsedQuery, table: WordTable) -> list[Reading]:
    """All readings of a query with one or two slots whose frame keeps only general words.

    Args:
        query: The folded query.
        table: Word counts; a word that is not general must lie in a slot.

    Returns:
        Readings in order of position; none for a query that is too long or punctuated inside.
    """
    words = query.words
    if not 2 <= len(words) <= MAX_QUERY_WORDS or not opens_question(words) or not _BREAKING.isdisjoint(words):
        return []
    particular = [k for k, word in enumerate(words) if not table.is_general(word)]
    spans = _slot_spans(words)
    found: list[tuple[tuple[int, int], ...]] = [
        ((a, b),) for a, b in spans if not particular or (a <= particular[0] and particular[-1] < b)
    ]
    if len(spans) <= MAX_SPANS_FOR_PAIRS:
        for a, b in spans:
            if particular and particular[0] < a:
                continue
            rest = [k for k in particular if k >= b]
            found += [((a, b), (c, d)) for c, d in spans if c > b and (not rest or (c <= rest[0] and rest[-1] < d))]
    return [Reading(_frame(words, chosen), chosen) for chosen in found]


TASK_FRAME = "how do you _"


def task_reading(query: ParsedQuery) -> Reading | None:
    """The reading of "how do you change the oil in a car" whose slot is the whole task, if the query has that form."""
    words = query.words
    if words[:3] != ("how", "do", "you") or len(words) < 5 or words[3] in FUNCTION_WORDS or words[-1] in FUNCTION_WORDS:
        return None
    if not PRONOUNS.isdisjoint(words[3:]) or not WH_WORDS.isdisjoint(words[3:]) or not _BREAKING.isdisjoint(words):
        return None
    return Reading(TASK_FRAME, ((3, len(words)),))


def _slot_spans(words: tuple[str, ...]) -> list[tuple[int, int]]:
    """Runs of words that could be a noun phrase."""
    spans = []
    for start in range(1, len(words)):
        first = words[start]
        if first in FUNCTION_WORDS or not first[0].isalnum():
            continue
        for end in range(start + 1, min(len(words), start + MAX_SLOT_WORDS) + 1):
            last = words[end - 1]
            if last in WH_WORDS or (last in AUXILIARIES and last not in _MAY_START_SLOT_AUX):
                break
            if last in FUNCTION_WORDS or not (last[-1].isalnum() or last[-1] in "+#"):
                continue
            spans.append((start, end))
    return spans


def _frame(words: tuple[str, ...], spans: tuple[tuple[int, int], ...]) -> str:
    parts: list[str] = []
    position = 0
    for start, end in spans:
        parts += words[position:start]
        parts.append("_")
        position = end
    parts += words[position:]
    return " ".join(parts)
