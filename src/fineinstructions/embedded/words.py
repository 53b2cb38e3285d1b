"""Words: tokens with character offsets, word classes, a light stemmer, and corpus counts per word.

Everything embedded reads English through this module. The closed word classes are written down; the open ones (noun,
verb, name) are read off corpus counts: a word seen after "the" is a noun, after "to" a verb, and a word that is mostly
capitalised inside sentences is a name. That survives lower-case search queries, which no capital letter helps with.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple


def read_word_lists(file_name: str) -> dict[str, tuple[str, ...]]:
    """Read a list file that lies beside this module.

    Lines are ``name: word word ...``; an indented line goes on with the list above, ``#`` starts a comment.

    Args:
        file_name: Name of the file.

    Returns:
        Words by list name, both in file order.
    """
    lists: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in Path(__file__).with_name(file_name).read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            name = line.partition(":")[0]
        words = line.removeprefix(f"{name}:").split()
        lists[name] = (*lists.get(name, ()), *words)
    return lists


WORD_CLASSES = {name: frozenset(words) for name, words in read_word_lists("word_classes.txt").items()}
WH_WORDS = WORD_CLASSES["wh_words"]
AUXILIARIES = WORD_CLASSES["auxiliaries"]
PREPOSITIONS = WORD_CLASSES["prepositions"]
ARTICLES = WORD_CLASSES["articles"]
PRONOUNS = WORD_CLASSES["pronouns"]
IMPERATIVES = WORD_CLASSES["imperatives"]
ADJECTIVES = WORD_CLASSES["adjectives"]
IRREGULAR_PASTS = WORD_CLASSES["irregular_pasts"]
FUNCTION_WORDS = WH_WORDS | AUXILIARIES | PREPOSITIONS | ARTICLES | PRONOUNS | WORD_CLASSES["particles"]
NAMES_IN_CAPITALS = frozenset(word.upper() for word in WORD_CLASSES["capitals"])
"""Names that are pronouns in lower case: "IT", "US", "WHO"."""
NAME_IN_CAPITALS = re.compile(rf"\b(?:{'|'.join(sorted(NAMES_IN_CAPITALS))})\b")

_WORD_OR_MARK = re.compile(r"[^\W_]+n't\b|'[sS]\b|[^\W_]+(?:[-.&/+#_][^\W_]+|'(?![sS]\b)[^\W_]+)*[+#]*|[^\w\s]|_")


class Token(NamedTuple):
    """A lower-case token and its half-open character span."""

    text: str
    start: int
    end: int


def tokenize(text: str) -> list[Token]:
    """Split a text into lower-case tokens with character offsets.

    A possessive ``'s`` is a token of its own; ``don't`` stays whole; every other punctuation mark is one token.

    Args:
        text: Any text.

    Returns:
        Tokens in order; ``text[t.start:t.end].lower()`` is the token with curly apostrophes straightened.

    Example:
        >>> [t.text for t in tokenize("What's Bob's 2nd C++ book?")]
        ['what', "'s", 'bob', "'s", '2nd', 'c++', 'book', '?']
    """
    straight = text.replace("’", "'")
    return [Token(m.group().lower(), m.start(), m.end()) for m in _WORD_OR_MARK.finditer(straight)]


_SUFFIXES = (
    ("ational", "ate"), ("ization", "ize"), ("fulness", "ful"), ("iveness", "ive"), ("ousness", "ous"),
    ("ements", "e"), ("ement", "e"), ("ments", "ment"), ("ations", "ate"), ("ation", "ate"), ("ities", "ity"),
    ("ings", ""), ("ing", ""), ("ies", "y"), ("ied", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"),
    ("shes", "sh"), ("ed", ""), ("ers", "er"), ("ly", ""), ("es", "e"), ("s", ""),
)  # fmt: skip


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Light English stem: inflection goes, derivation mostly stays.

    Example:
        >>> [stem(w) for w in ("symptoms", "causes", "caused", "founded", "founding", "running", "cities", "glass")]
        ['symptom', 'caus', 'caus', 'found', 'found', 'run', 'city', 'glass']
    """
    word = word.lower()
    if len(word) <= 3 or not word.isascii() or word.endswith(("ss", "us", "is")):
        return word
    for suffix, replacement in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: len(word) - len(suffix)] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


@dataclass(frozen=True, slots=True)
class WordCounts:
    """What the corpus and the queries say about one word."""

    lower: int = 0
    """Lower-case occurrences in documents and cased queries."""
    capital: int = 0
    """Capitalised occurrences inside sentences."""
    noun: int = 0
    """Occurrences after a determiner or "of"."""
    verb: int = 0
    """Occurrences after "to" or a modal."""
    person: int = 0
    """Capitalised occurrences after a title such as "Mr." or before a verb of speech or birth."""
    place: int = 0
    """Capitalised occurrences after "in", "near" or "from"."""
    queries: int = 0
    """Queries that hold the word."""
    relation: float = 0.0
    """How much the word speaks for a shared frame (0 to about 1.6): high for "symptoms", "capital", "founded"."""


_UNSEEN = WordCounts()


class WordTable:
    """Corpus counts per word, with the questions that the genericizer asks of them.

    Args:
        counts: Counts by lower-case word.
    """

    def __init__(self, counts: dict[str, WordCounts]) -> None:
        self.counts = counts
        self._general: dict[str, bool] = {}
        self.name_starts = frozenset(word.partition(" ")[0] for word in counts if " " in word)
        """First words of names of several words."""

    @classmethod
    def load(cls, path: Path) -> "WordTable":
        """Read a table that `save` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        names = [n for n in table.column_names if n != "word"]
        columns = [table.column(n).to_pylist() for n in names]
        rows = zip(*columns, strict=True)
        words = table.column("word").to_pylist()
        return cls({w: WordCounts(**dict(zip(names, row, strict=True))) for w, row in zip(words, rows, strict=True)})

    def save(self, path: Path) -> None:
        """Write the table as Parquet, sorted by word."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        words = sorted(self.counts)
        columns: dict[str, pa.Array] = {"word": pa.array(words, pa.string())}
        for name in WordCounts.__slots__:
            kind = pa.float32() if name == "relation" else pa.int32()
            columns[name] = pa.array([getattr(self.counts[w], name) for w in words], kind)
        pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)

    def get(self, word: str) -> WordCounts:
        """Counts of a word; all zero for an unseen one."""
        return self.counts.get(word, _UNSEEN)

    def is_name(self, *words: str) -> bool:
        """Whether words that are general each are a name side by side: "star wars"."""
        return len(words) > 1 and " ".join(words) in self.counts

    def name_share(self, word: str) -> float:
        """Share of the word's occurrences inside sentences that are capitalised (0 to 1)."""
        counts = self.get(word)
        return counts.capital / (counts.capital + counts.lower + 1.0)

    def is_general(self, word: str) -> bool:
        """Whether the word may stay in a template: a function word, or common and no name."""
        known = self._general.get(word)
        if known is None:
            known = self._general[word] = self._find_general(word)
        return known

    def _find_general(self, word: str) -> bool:
        if word in FUNCTION_WORDS or word in IMPERATIVES:
            return True
        counts = self.get(word)
        least = MIN_GENERAL_QUERIES if counts.lower < FREQUENT_OCCURRENCES else MIN_GENERAL_QUERIES // 2
        common = counts.queries >= least and counts.lower >= MIN_GENERAL_OCCURRENCES
        return common and word.isalpha() and len(word) > 1 and self.name_share(word) < MAX_GENERAL_NAME_SHARE

    def is_verb(self, word: str) -> bool:
        """Whether the word is often a bare verb."""
        counts = self.get(word)
        return counts.verb > 3 and counts.verb >= 0.25 * counts.noun

    def is_past(self, word: str) -> bool:
        """Whether the word is a past tense or past participle."""
        return word in IRREGULAR_PASTS or (word.endswith("ed") and len(word) > 4 and self._is_rarely_noun(word))

    def _is_rarely_noun(self, word: str) -> bool:
        counts = self.get(word)
        return counts.noun <= 0.25 * counts.lower

    def is_finite(self, word: str) -> bool:
        """Whether the word can be the verb of "what ... _": past tense, third person, or a bare verb."""
        third = word.endswith("s") and (self.is_verb(word[:-1]) or self.is_verb(word[:-2]))
        return self.is_past(word) or third or self.is_verb(word)

    def is_mainly_verb(self, word: str) -> bool:
        """Whether the word is more often a bare verb than a noun."""
        counts = self.get(word)
        return counts.verb > 5 and counts.verb > 2 * counts.noun

    def is_mainly_noun(self, word: str) -> bool:
        """Whether the word is hardly ever a verb form."""
        counts = self.get(word)
        return counts.noun > 5 and counts.noun > 6 * counts.verb and not word.endswith(("ed", "ing"))


MIN_GENERAL_QUERIES = 6
FREQUENT_OCCURRENCES = 100
MIN_GENERAL_OCCURRENCES = 12
MAX_GENERAL_NAME_SHARE = 0.4
