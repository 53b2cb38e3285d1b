"""Frames: the shapes of questions, with ``_`` where a slot goes ("what is capital of _").

A query comes in as text; out come all readings of it as a frame plus the character spans of its slots, each checked
for grammar. Which reading to believe is decided in `genericizer`, by how many queries share the frame. Articles are
left out of frames, so that "what is a X" and "what is the X" count together.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from fineinstructions.embedded.words import (
    ADJECTIVES,
    ARTICLES,
    AUXILIARIES,
    FUNCTION_WORDS,
    IMPERATIVES,
    IRREGULAR_PASTS,
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
_FUSED = {"whats": "what", "whos": "who", "wheres": "where", "hows": "how", "whens": "when"}
_HOW_TO = tuple(
    tuple(opening.split())
    for opening in (
        "how to", "how do i", "how can i", "how should i", "how would i", "how do we", "how can we", "how can you",
        "how would you", "how does one", "how can one", "how could i", "how could you",
    )
)  # fmt: skip
_QUOTES = frozenset("\"'“”‘’`«»")
_CLOSING = frozenset("?.!,;:")
_BREAKING = frozenset(".?!;:()[]{}<>|=\\*~^…–—")
_SLOT_PRONOUNS = frozenset({"one", "you", "me", "i", "my", "it", "her", "your"})
_FRAME_PRONOUNS = frozenset({"you", "i", "there", "it"})
_MAY_START_SLOT_AUX = frozenset({"may", "will", "can"})
_APPOSITION = WORD_CLASSES["apposition"]
_RELATION_PREPOSITIONS = frozenset(("of", "between", "for", "in"))
_OPEN_DETERMINERS = WORD_CLASSES["open_determiners"]
_ONLY_PAST = IRREGULAR_PASTS - frozenset(("put", "let", "set", "read", "hit", "cut", "become", "come", "run"))
_DO = frozenset(("do", "does", "did", "don't", "doesn't", "didn't"))
_DO_OR_MODAL = frozenset(("do", "does", "did", "can", "could", "will", "would", "should", "may", "might", "must"))
_AFTER_SLOT_NOUNS = frozenset(("mean", "stand", "work", "syndrome"))
_BARE_QUESTIONS = frozenset(
    f"{wh} {be} _" for wh in ("what", "who", "where", "when") for be in ("is", "are", "was", "were")
)


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

    Example:
        >>> parse("What's the capital of France?").words
        ('what', 'is', 'capital', 'of', 'france')
    """
    text = " ".join(text.split())
    text = _POLITE.sub("", text, count=1)
    text = _TITLE_OPENING.sub(r"what is the \1 ", text, count=1)
    tokens = tokenize(text)
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
    if not 3 <= len(words) <= MAX_QUERY_WORDS or not opens_question(words) or not _BREAKING.isdisjoint(words):
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


def content_words(frame: str) -> list[str]:
    """The words of a frame that carry its relation."""
    return [w for w in frame.split() if w != "_" and w not in FUNCTION_WORDS]


class FrameGrammar:
    """Checks and prices frames with the help of word counts.

    Args:
        table: Word counts.
    """

    def __init__(self, table: WordTable) -> None:
        self._table = table
        self.is_wellformed = lru_cache(maxsize=200_000)(self._is_wellformed)
        self._span_cost = lru_cache(maxsize=4096)(self._price_span)
        self.relation_value = lru_cache(maxsize=200_000)(self._relation_value)

    def _is_wellformed(self, frame: str) -> bool:
        """Whether a frame reads like a complete English question."""
        words = frame.split()
        content = content_words(frame)
        if not content:
            return frame in _BARE_QUESTIONS
        if any(w in PRONOUNS and w not in _FRAME_PRONOUNS for w in words):
            return False
        if any(w == "i" and words[k - 1] not in AUXILIARIES for k, w in enumerate(words)):
            return False
        if "_ _" in frame or frame.endswith((" and", " or", "'s")):
            return False
        auxiliaries = [w for w in words if w in AUXILIARIES]
        if len(set(auxiliaries)) < len(auxiliaries):
            return False
        if words[0] in {"how", "when", "where", "why"} and not auxiliaries:
            return False
        return self._opens_well(words) and self._verbs_agree(words) and self._slots_stand_well(words)

    def _opens_well(self, words: list[str]) -> bool:
        """Every question has a verb: "who" an inflected one, "how do" one after its subject."""
        table = self._table
        if words[0] in {"what", "which", "who"} and AUXILIARIES.isdisjoint(words):
            after = [w for w in words[2:] if w != "_" and w not in FUNCTION_WORDS]
            opening = (
                words[1] not in FUNCTION_WORDS and table.is_finite(words[1]) and not table.is_mainly_noun(words[1])
            )
            if not (opening or any(table.is_finite(w) and not table.is_mainly_noun(w) for w in after)):
                return False
        if words[0] == "who" and table.is_finite(words[1]) and not AUXILIARIES.isdisjoint(words[2:]):
            return False
        if words[:2] == ["who", "_"] or words[-1] in WH_WORDS or words[-1] in {"is", "was", "are", "were", "and"}:
            return False
        if words[0] == "who" and table.is_verb(words[1]) and not words[1].endswith(("s", "ed")):
            return False
        return not (words[0] == "how" and words[1] in _DO and table.is_mainly_verb(words[2]))

    def _verbs_agree(self, words: list[str]) -> bool:
        """After "did" or "does" comes a bare verb; after "is" or "was" before a slot none does."""
        table = self._table
        for k, word in enumerate(words):
            if word in _DO:
                rest = [w for w in words[k + 1 :] if w != "_" and w not in FUNCTION_WORDS]
                if words[k + 1 : k + 2] == ["you"] and not rest:
                    return False
                if not any(table.is_verb(w) for w in rest):
                    return False
                slot = words.index("_", k) if "_" in words[k:] else k
                after = [w for w in words[slot + 1 :] if w != "_" and w not in FUNCTION_WORDS]
                if slot == k + 1 and (not after or not table.is_verb(after[0]) or after[0] in _ONLY_PAST):
                    return False
                verb = next(w for w in rest if table.is_verb(w) or w.endswith("ed"))
                if verb.endswith("ed") and verb not in {
                    "need",
                    "feed",
                    "speed",
                    "bleed",
                    "breed",
                    "succeed",
                    "proceed",
                }:
                    return False
            if word in {"is", "was", "were", "are"} and words[k + 1 : k + 2] == ["_"] and k + 2 < len(words):
                verb = words[k + 2]
                if table.is_mainly_verb(verb) and not verb.endswith(("ed", "en", "t", "n", "d", "ing")):
                    return False
        return True

    def _slots_stand_well(self, words: list[str]) -> bool:
        """A slot is a whole noun phrase: no kept adjective before it, no kept head noun after it."""
        table = self._table
        for k, word in enumerate(words):
            if word != "_":
                continue
            before = words[k - 1]
            after = words[k + 1] if k + 1 < len(words) else ""
            if before in ADJECTIVES or (
                before.endswith("est") and before not in {"test", "invest", "rest", "interest"}
            ):
                return False
            if before in WH_WORDS or before in _OPEN_DETERMINERS:
                return False
            if before not in FUNCTION_WORDS and table.is_mainly_noun(before) and before not in _APPOSITION:
                return False
            if after == "of" or (after in PRONOUNS and after != "you"):
                return False
            if not after or after in FUNCTION_WORDS or after in _AFTER_SLOT_NOUNS:
                continue
            counts = table.get(after)
            others = [w for w in words if w != after and w != "_" and w not in FUNCTION_WORDS and table.is_verb(w)]
            asked = any(w in _DO_OR_MODAL for w in words[:k]) and not others
            if table.is_mainly_noun(after) or (
                not asked and counts.noun > max(5, counts.verb) and not after.endswith("ed")
            ):
                return False
        return True

    def _relation_value(self, frame: str) -> float:
        """Worth of the relation words that a frame keeps, at most four of them."""
        values = sorted((self._table.get(w).relation for w in content_words(frame)), reverse=True)
        return sum(values[:4]) - (1.5 if not values else 0.0) - 0.3 * max(0, len(values) - 3)

    def filler_cost(self, words: tuple[str, ...], spans: tuple[tuple[int, int], ...]) -> float:
        """How little the slots' words look like noun phrases (0 is perfect)."""
        return sum(self._span_cost(words, start, end) for start, end in spans)

    def _price_span(self, words: tuple[str, ...], start: int, end: int) -> float:
        table = self._table
        first, last = words[start], words[end - 1]
        inner = words[start:end]
        counts = table.get(last)
        cost = 1.5 * self._keeps_relation_noun(inner)
        if counts.verb > counts.noun and table.name_share(last) < 0.5:
            cost += 1.5
        if table.is_mainly_verb(first):
            cost += 2.0
        if table.is_past(first) or (words[start - 1] in AUXILIARIES and first.endswith("ly")):
            cost += 3.0
        if end - start > 1 and (table.is_past(last) or last.endswith("ly")):
            cost += 2.5
        if first in ADJECTIVES or first.endswith("est"):
            cost += 1.0
        cost += 0.6 * ("to" in inner)
        cost += 0.6 * sum(w in PREPOSITIONS or w in AUXILIARIES or w in PRONOUNS or w in {"and", "'s"} for w in inner)
        return cost + 0.5 * max(0, len(inner) - 4)

    def _keeps_relation_noun(self, inner: tuple[str, ...]) -> bool:
        """Whether a slot swallowed "structure of ...": a general noun before a preposition."""
        return any(
            after in _RELATION_PREPOSITIONS and word not in FUNCTION_WORDS and self._table.is_general(word)
            for word, after in pairwise(inner)
        )

    def score(self, reading: Reading, words: tuple[str, ...], num_fillers: int) -> float:
        """How believable a reading is, from the fillers its frame has, the relation it keeps and the slots it makes."""
        shared = 0.6 * min(math.log2(max(num_fillers, 1)), 5.0)
        value = shared + self.relation_value(reading.frame) - 0.5 * (len(reading.spans) - 1)
        return value - self.filler_cost(words, reading.spans)
