"""Small English grammar: verb stems, number, clean noun phrases, and the kind of thing a phrase names.

In: words. Out: what a relation needs to know about them. The decision to question: everything here prefers to say "not
clean" when in doubt, because a wrong filler costs a pair and a missed one costs nothing.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from fineinstructions.embedded.relations.tables import by_member, groups, pattern, words
from fineinstructions.embedded.words import NAME_IN_CAPITALS

_IRREGULAR = groups("irregular_verbs")
_BASE = {form: base for base, forms in _IRREGULAR.items() for form in forms} | {base: base for base in _IRREGULAR}
PARTICIPLES = words("participles")

_KIND_OF_NOUN = by_member("kind_nouns")

PRONOUNS = words("pronouns")
_VAGUE = words("vague_nouns")
_IRREGULAR_PLURALS = words("irregular_plurals")
_NOT_PARTICIPLES = words("not_participles")
_ANAPHORIC_ADJECTIVES = words("anaphoric_adjectives")
_PHRASE_ENDS = words("phrase_ends")
_MAX_CHARS = 60
_NUMBER_WORD = re.compile(r"\b(?:two|three|four|five)\b")
_CLASS_OF = re.compile(r"(?:an?|the) (?:\w+ )?(?:group|type|form|kind|class|family|set|series|area|areas|region) of ")
_COMPLEMENT_END = re.compile(
    r"\b(?:that|which|who|whose|where|in|of|for|from|by|with|on|at|to|used|located|based)\b|[,.;(]"
)
_SECOND_ARTICLE = re.compile(r"(?<=[a-z]) (?:a|an|the) ")
_BEHIND_HEAD = ("and", "or", "active", "born", "living", "currently", "who", "best")
_BAD_INSIDE = pattern("bad_inside", re.IGNORECASE)
_BAD_START = pattern("bad_start", re.IGNORECASE)
_RESIDUE = re.compile(
    r"['’]s (?:first|second|third|last|next|new|own|only|original|final)\b|\b(\w+) \1\b|[a-z] [A-Z]{5,}\Z"
    r"|[a-z]{3}(?:A|An|The)\b"
)
"""A possessor's "first design", a word twice, a running head behind a phrase, and a heading that ran into it."""
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


def is_past(verb: str) -> bool:
    """Whether a verb form is a past tense."""
    return verb.endswith("ed") or (_BASE.get(verb, verb) != verb and not verb.endswith(("s", "ing")))


def number_word(text: str) -> str:
    """The first number word from two to five, or nothing."""
    found = _NUMBER_WORD.search(text)
    return found.group() if found else ""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase that can fill a slot."""

    text: str
    """The phrase without its article, in the spelling it has inside a sentence."""
    article: str = ""
    """``the``, ``a`` (for a and an) or empty."""
    plural: bool = False
    kind: str = ""
    """A group of ``[kind_nouns]``, or ``dish``, ``command``, ``task``; empty when unknown."""

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
    if re.match(r"(?:(?i:uni(?!n)|use|usu|ur[aeio]|ute|eu|one\b|u[bt]i)|U[A-Z])", word) or first not in "aeiou":
        return "an" if re.match(r"(?:hour|honest|heir|[FHLMNRSX][A-Z0-9\b]|x-)", word) else "a"
    return "an"


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase is plural by its form; the noun before a preposition decides."""
    head = re.split(r" (?:of|in|for|to|on|with) ", phrase)[0].split()[-1:] or [""]
    word = head[0].strip("()").lower()
    regular = word.endswith("s") and len(word) > 3 and not _SINGULAR_S.search(word)
    return regular or word in _IRREGULAR_PLURALS or " and " in phrase


def noun_phrase(raw: str, plural: bool | None = None) -> Phrase | None:
    """A clean noun phrase, or nothing when it is vague, anaphoric or no noun phrase at all.

    Args:
        raw: Words as they stand in the text.
        plural: Number, where the verb tells it.

    Returns:
        The phrase, or ``None``.

    Example:
        >>> noun_phrase("the cell cycle")
        Phrase(text='cell cycle', article='the', plural=False, kind='')
        >>> noun_phrase("This condition") is None, noun_phrase("people") is None
        (True, True)
    """
    text = " ".join(raw.replace("*", "").replace("`", "").split()).strip(' ,;:"“”')
    article = ""
    if found := _ARTICLE.match(text):
        article = "the" if found.group(1).lower() == "the" else "a"
        text = text[found.end() :]
    if not text or len(text) > _MAX_CHARS or not _CLEAN.match(text) or text[-1] in ".-–—'’" or _RESIDUE.search(text):
        return None
    if _is_no_phrase(text, article) or _is_vague(text, article):
        return None
    return Phrase(text, article, is_plural(text) if plural is None else plural)


def _is_no_phrase(text: str, article: str) -> bool:
    """Whether words are no noun phrase by their first, last or inner words."""
    text = NAME_IN_CAPITALS.sub("Xx", text)  # "US Marines" and "IT staff" hold no pronoun
    tokens = text.lower().split()
    if tokens[0] in PRONOUNS or tokens[-1] in _PHRASE_ENDS or _BAD_START.match(text) or _BAD_INSIDE.search(text):
        return True
    if len(tokens) == 1:
        return _ends_in_ed(tokens[0]) and not text.isupper()
    shown = tokens[-1] in PARTICIPLES and tokens[-1].endswith("n")
    if shown or _ends_in_ed(tokens[-1]) or (not article and _ends_in_ed(tokens[0]) and not is_plural(text)):
        return True
    return not article and tokens[0].endswith("ing") and tokens[1] in ("a", "an", "the")


def _ends_in_ed(word: str) -> bool:
    return word.endswith("ed") and len(word) > 4 and word not in _NOT_PARTICIPLES


def _is_vague(text: str, article: str) -> bool:
    """Whether a phrase names nothing without the text before it: "the new rule", "people", "the Garden"."""
    tokens = text.lower().split()
    head = noun_stem(tokens[tokens.index("of") - 1] if "of" in tokens[1:] else tokens[-1])
    if len(tokens) == 1:
        common = head in _VAGUE or tokens[0] in _VAGUE or len(tokens[0]) < 3 or tokens[0].isdigit()
        return common or (article == "the" and text.istitle())
    adverb = tokens[0].endswith("ly") and tokens[0] not in ("family", "assembly", "early")
    if adverb or head.endswith("ly"):
        return True
    if "of" in tokens[1:] or "for" in tokens[1:]:
        return tokens[-1] in _VAGUE and tokens[-2] in ("the", "of", "for", "a")
    if article == "the" and head in _VAGUE and len(tokens) == 2 and text.islower():
        return True
    return tokens[0] in _ANAPHORIC_ADJECTIVES and text.islower()


def names_person(phrase: str) -> bool:
    """Whether a phrase is a name behind somebody's trade.

    Example:
        >>> names_person("manager Steve Castle"), names_person("manager of Leeds")
        (True, False)
    """
    trade, *name = phrase.split()
    return bool(name) and _KIND_OF_NOUN.get(trade) == "person" and all(word[0].isupper() for word in name)


def kind_of_head(phrase: str) -> str:
    """Kind that a phrase's own head noun tells: "place" for "the old town"."""
    if names_person(phrase):
        return "person"
    tokens = re.split(r" (?:of|in|for|to|on|with) ", phrase)[0].lower().split() or [""]
    head = noun_stem(tokens[-1])
    return "person" if head.endswith("ologist") else _KIND_OF_NOUN.get(head, "")


def kind_of_complement(complement: str) -> str:
    """Kind of thing that "is a ..." names: that of the last noun before a preposition or relative clause.

    Example:
        >>> [kind_of_complement(c) for c in ("an Ethiopian footballer who plays", "a city in Kansas", "an idea")]
        ['person', 'place', '']
    """
    complement = _CLASS_OF.sub("", complement)
    head = _COMPLEMENT_END.split(complement, maxsplit=1)[0]
    words = re.findall(r"[\w-]+", _SECOND_ARTICLE.split(head.lower(), maxsplit=1)[0])
    while len(words) > 1 and (is_participle(words[-1]) or words[-1] in _BEHIND_HEAD):
        words.pop()
    kinds = [_KIND_OF_NOUN.get(word) or _KIND_OF_NOUN.get(noun_stem(word), "") for word in words[-5:]]
    return kinds[-1] if kinds and kinds[-1] else "event" if "event" in kinds else ""
