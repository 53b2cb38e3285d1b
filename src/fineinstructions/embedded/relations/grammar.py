"""Small English grammar: verb stems, number, clean noun phrases, and the kind of thing a phrase names.

In: words. Out: what a relation needs to know about them. The decision to question: everything here prefers to say "not clean"
when in doubt, because a wrong filler costs a pair and a missed one costs nothing.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from fineinstructions.embedded.relations.tables import by_member, groups, pattern, words

_IRREGULAR = groups("irregular_verbs")
_BASE = {form: base for base, forms in _IRREGULAR.items() for form in forms} | {base: base for base in _IRREGULAR}
PARTICIPLES = words("participles")

_KIND_OF_NOUN = by_member("kind_nouns")

PRONOUNS = words("pronouns")
_VAGUE = words("vague_nouns")
_BAD_INSIDE = pattern("bad_inside", re.IGNORECASE)
_BAD_START = pattern("bad_start", re.IGNORECASE)
_CLEAN = re.compile(r"[^\W_][\w’'.&/+\-–—]*(?: [\w’'&/+\-–—.]+){0,6}\Z")
_ARTICLE = re.compile(r"(the|an|a)\s+(?=\S)", re.IGNORECASE)
_SINGULAR_S = pattern("singular_s", re.IGNORECASE)


@lru_cache(maxsize=65536)
def verb_stem(word: str) -> str:
    """One key for all forms of a verb.

    Example:
        >>> verb_stem("founded"), verb_stem("written"), verb_stem("caused"), verb_stem("cause"), verb_stem("located")
        ('found', 'write', 'caus', 'caus', 'locat')
    """
    word = word.lower()
    if word in ("founded", "founds", "founding"):
        return "found"
    if word in _BASE:
        return "discover" if word == "found" else _BASE[word]
    for ending, put in (("ies", "y"), ("ied", "y"), ("ying", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + put
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


@lru_cache(maxsize=65536)
def noun_stem(word: str) -> str:
    """Singular of a noun, lower case.

    Example:
        >>> [noun_stem(w) for w in ("Symptoms", "causes", "history", "countries", "analysis", "diagnoses")]
        ['symptom', 'cause', 'history', 'country', 'analysis', 'diagnosis']
    """
    word = word.lower()
    if word in ("diagnoses", "prognoses"):
        return word[:-2] + "is"
    if len(word) <= 3 or not word.endswith("s") or _SINGULAR_S.search(word):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "sses", "xes")) else word[:-1]


def is_participle(word: str) -> bool:
    """Whether a word has the form of a past participle."""
    return word.lower() in PARTICIPLES or (len(word) > 3 and word.endswith("ed"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase that can fill a slot."""

    text: str
    """The phrase without its article, in the spelling it has inside a sentence."""
    article: str = ""
    """``the``, ``a`` (for a and an) or empty."""
    plural: bool = False
    kind: str = ""
    """``person``, ``place``, ``work``, ``organisation``, ``event``, ``disease``, ``dish``, ``command``, ``task`` or empty when unknown."""

    @property
    def key(self) -> str:
        """What decides whether two phrases name the same thing."""
        return " ".join(noun_stem(word) for word in self.text.casefold().split())

    def with_article(self, article: str | None = None, capital: bool = False) -> str:
        """The phrase as it stands in a sentence."""
        article = self.article if article is None else article
        words = f"{indefinite(self.text) if article == 'a' else article} {self.text}" if article else self.text
        return words[:1].upper() + words[1:] if capital else words

    def of_kind(self, kind: str) -> "Phrase":
        """The same phrase with its kind set, unless it has one."""
        return self if self.kind or not kind else replace(self, kind=kind)


def indefinite(word: str) -> str:
    """``a`` or ``an``, by the sound the word begins with as far as its spelling tells."""
    first = word[:1].lower()
    if re.match(r"(?:uni|use|usu|eu|one\b|u[bt]i|U[A-Z])", word) or first not in "aeiou":
        return "an" if re.match(r"(?:hour|honest|heir|[FHLMNRSX][A-Z0-9\b])", word) else "a"
    return "an"


def is_plural(words: str) -> bool:
    """Whether a noun phrase is plural by its form; the noun before "of" decides."""
    head = re.split(r" (?:of|in|for|to|on|with) ", words)[0].split()[-1:] or [""]
    word = head[0].strip("()").lower()
    irregular = (
        "people",
        "children",
        "men",
        "women",
        "bacteria",
        "mice",
        "feet",
        "teeth",
        "fungi",
        "data",
        "police",
        "larvae",
        "alleles",
    )
    return (
        word in irregular or " and " in words or (word.endswith("s") and len(word) > 3 and not _SINGULAR_S.search(word))
    )


def noun_phrase(raw: str, plural: bool | None = None, at_start: bool = False) -> Phrase | None:
    """A clean noun phrase, or nothing when it is vague, anaphoric or no noun phrase at all.

    Args:
        raw: Words as they stand in the text.
        plural: Number, where the verb tells it.
        at_start: Whether the words open a sentence, so that their capital may mean nothing.

    Returns:
        The phrase, or ``None``.

    Example:
        >>> noun_phrase("The cell cycle", at_start=True)
        Phrase(text='cell cycle', article='the', plural=False, kind='')
        >>> noun_phrase("This condition") is None, noun_phrase("people") is None
        (True, True)
    """
    words = " ".join(raw.replace("*", "").replace("`", "").split()).strip(' ,;:"“”')
    article = ""
    if found := _ARTICLE.match(words):
        article = "the" if found.group(1).lower() == "the" else "a"
        words = words[found.end() :]
    elif at_start:
        words = _lower_first(words)
    if not words or len(words) > 60 or not _CLEAN.match(words) or words[-1] in ".-–—'’":
        return None
    tokens = words.lower().split()
    if article and len(tokens) == 1 and article == "the" and words[:1].isupper() and words[1:].islower():
        return None
    if (
        not article
        and len(tokens) > 1
        and (
            (tokens[0].endswith("ed") and len(tokens[0]) > 4 and not is_plural(words))
            or (tokens[0].endswith("ing") and tokens[1] in ("a", "an", "the"))
        )
    ):
        return None
    if (
        len(tokens) > 1
        and tokens[-1].endswith("ed")
        and len(tokens[-1]) > 4
        and tokens[-1] not in ("seed", "breed", "speed", "weed", "steed")
    ):
        return None
    if (
        tokens[0] in PRONOUNS
        or _BAD_START.match(words)
        or _BAD_INSIDE.search(words)
        or tokens[-1] in ("of", "in", "for", "to", "and", "the", "a", "an")
    ):
        return None
    if len(tokens) == 1 and (
        noun_stem(tokens[0]) in _VAGUE or tokens[0] in _VAGUE or len(tokens[0]) < 3 or tokens[0].isdigit()
    ):
        return None
    if _is_vague(tokens, article, words.split()) or (
        re.search(r"\b(?:19|20)\d\d\b", words) and tokens[0].isdigit() and len(tokens) == 1
    ):
        return None
    return Phrase(words, article, is_plural(words) if plural is None else plural)


def _is_vague(tokens: list[str], article: str, raw_tokens: list[str]) -> bool:
    """Whether a phrase needs the text before it: "the new rule", "the last step", "a second type"."""
    head = noun_stem(tokens[tokens.index("of") - 1] if "of" in tokens[1:] else tokens[-1])
    if head.endswith("ly") or (
        tokens[0].endswith("ly") and tokens[0] not in ("family", "assembly", "lily", "italy", "fly", "early")
    ):
        return True
    if "of" in tokens[1:] or "for" in tokens[1:]:
        return tokens[-1] in _VAGUE and tokens[-2] in ("the", "of", "for", "a")
    if article == "the" and head in _VAGUE and len(tokens) <= 2 and all(token.islower() for token in raw_tokens):
        return True
    if article == "the" and len(tokens) <= 3 and head in _VAGUE and all(token.islower() for token in tokens):
        adjective = tokens[0]
        return adjective in ("new", "old", "main", "major", "only", "best", "key", "entire", "whole", "original", "final", "following", "current",
                             "different", "remaining", "resulting", "same", "overall", "young", "whole", "initial", "largest", "primary")  # fmt: skip
    return tokens[0] in ("new", "main", "major", "final", "remaining", "resulting", "initial", "additional", "common", "important", "possible",
                         "good", "young", "old", "older", "larger", "smaller", "great", "little", "poor", "affected", "recent", "early")  # fmt: skip


def _lower_first(words: str) -> str:
    """Take back the capital a sentence gives its first word, unless the word looks like a name."""
    first, _, rest = words.partition(" ")
    if not first[:1].isupper() or any(c.isupper() or c.isdigit() for c in first[1:]) or len(first) == 1:
        return words
    if rest[:1].isupper() or first.endswith(("’s", "'s")):
        return words
    return first[:1].lower() + first[1:] + (f" {rest}" if rest else "")


def kind_of_complement(complement: str) -> str:
    """Kind of thing that "is a ..." names: the first noun of a known kind before a relative clause or preposition.

    Example:
        >>> kind_of_complement("an Ethiopian footballer who plays"), kind_of_complement("a city in Kansas"), kind_of_complement("an idea")
        ('person', 'place', '')
    """
    head = re.split(
        r"\b(?:that|which|who|whose|where|in|of|for|from|by|with|on|at|to|and|used|located|based|,)\b|[,.;(]",
        complement,
        maxsplit=1,
    )[0]
    for word in reversed(head.lower().split()[-4:]):
        if kind := _KIND_OF_NOUN.get(word) or _KIND_OF_NOUN.get(noun_stem(word)):
            return kind
    return ""
