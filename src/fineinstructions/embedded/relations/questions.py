"""What a template asks for: its words and slot names, read into a typed relation.

In: a template such as ``When was <fi>a company</fi> founded?``. Out: a `Wanted` with the key ``when:found`` and the
shape of the slot that names the subject; ``None`` for a template this tier cannot read. The decision to question: a
closed list of question forms. A missing form is a template that is never chosen; a form that is too wide is a wrong
answer.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from fineinstructions.embedded.relations.grammar import is_participle, is_past, noun_stem, number_word, verb_stem
from fineinstructions.embedded.relations.tables import by_member, rules, words

_SLOT = re.compile(r"<fi>(.*?)</fi>", re.DOTALL)

NOUN_KEYS = by_member("relation_nouns")
"""Relation nouns that mean the same to a reader; other nouns are their own key."""

SAME_VERB = by_member("same_verb")
"""Verbs that ask for the same time, place or agent."""
_NO_NAME_END = words("no_name_end")

_DROPPED = (
    r"(?:(?:main|major|most|common|typical|usual|different|various|possible|basic|primary|key|important|principal|general|overall|"
    r"potential|many|several|some|early|first|exact|actual|official|scientific|medical|best|known|two|three|four|five)\s+)*"
)
_STRICT = re.compile(r"\b(?:first|early|scientific|official|medical|best|most)\b")
_SLOTTED = r"(?:[\w'’-]+ ){0,3}§\d(?:'s|’s)?(?: [\w'’-]+){0,2}?"
_MACROS = {
    "ASLOT": r"(?P<s>(?:a |an |the |your |my )?§\d)",
    "TERM": r"(?:(?:(?:a|the) )?(?:word|term|phrase|concept|idea|concept of|idea of) )?",
    "YOU": r"(?:you|we|i|one|people|someone|a person|doctors)",
    "NS": r"(?P<ns>§\d)",
    "BE": r"(?P<be>is|are|was|were)",
    "DO": r"(?P<do>do|does|did)",
    "PP": r"(?P<pp>\w+)",
    "S": rf"(?P<s>{_SLOTTED})",
    "O": r"(?P<o>(?:a |an |the )?§\d)",
    "N": rf"(?P<drop>{_DROPPED})(?P<n>[a-z]+(?: (?:factor|test|expectancy)s?)?)",
    "V": (
        r"(?P<v>(?!(?:is|are|was|were|be|do|does|did|can|could|will|would|should|has|have|had|to|of|the|a|an|if|"
        r"about)\b)[a-z]+)"
    ),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a template asks for."""

    key: str
    """Relation key, the same string that `Evidence` carries."""
    slot: int
    """Index of the slot that names the subject."""
    article: str = ""
    """Article the template puts before the subject."""
    before: tuple[str, ...] = ()
    """Frame words between the article and the slot, part of the subject's name or its class."""
    after: tuple[str, ...] = ()
    """Frame words after the slot that belong to the subject's name: ``syndrome``, ``disease``."""
    plural: bool | None = None
    """Number the frame's verb asks for."""
    past: bool | None = None
    """Tense the frame's verb asks for, where it matters."""
    kind: str = ""
    """Kind of subject the slot's name, the class word or the question word asks for."""
    named: bool = False
    """Whether the words before the slot are a class word ("the movie ...") and need not stand in the name."""
    count: str = ""
    """How many things the frame asks for: ``two``, ``three``."""
    other: int | None = None
    """Index of a second slot, for relations between two things or a slot for the relation itself."""
    other_kind: str = ""
    other_article: str = ""
    """Article the template puts before the second slot."""


_SLOT_KINDS = by_member("slot_kinds")
_PLURAL = {"is": False, "was": False, "are": True, "were": True, "does": False, "do": True}
_PAST = {**dict.fromkeys(("is", "are", "do", "does"), False), **dict.fromkeys(("was", "were", "did", "caused"), True)}
_ONE_OF_A_KIND = ("noun:function", "noun:purpose", "noun:goal", "noun:responsibility")
"""Relations that one sentence tells in the singular only."""
_CLASS_OF = {word: "" if kind == "term" else kind for word, kind in by_member("class_words").items()}


def slot_kind(description: str) -> str:
    """Kind of thing a slot's name asks for; empty when it says nothing definite.

    Example:
        >>> slot_kind("a disease"), slot_kind("name of a city"), slot_kind("something"), slot_kind("year")
        ('disease', 'place', '', 'never')
    """
    found = set()
    for choice in re.split(r",| or ", description.lower()):
        words = [noun_stem(word) for word in re.findall(r"[a-z]+", choice)]
        found.add(next((_SLOT_KINDS[word] for word in reversed(words) if word in _SLOT_KINDS), ""))
    return found.pop() if len(found) == 1 else ""


@lru_cache(maxsize=65536)
def wanted(template: str) -> Wanted | None:
    """Relation that a template asks for.

    Args:
        template: Template with ``<fi>...</fi>`` slots.

    Returns:
        The relation, or ``None`` when no known question form fits or a slot asks for something that is never a subject.

    Example:
        >>> wanted("When was <fi>a company</fi> founded?").key
        'when:found'
        >>> wanted("What are the symptoms of <fi>a disease</fi>?").key
        'noun:symptom'
        >>> wanted("Write a poem.") is None
        True
    """
    names = _SLOT.findall(template)
    if not names or len(names) > 2:
        return None
    counter = iter(range(len(names)))
    frame = _SLOT.sub(lambda _: f"§{next(counter)}", template)
    frame = " ".join(
        re.sub(r"[?.!,\"“”:]+", " ", frame.replace("what's", "what is").replace("What's", "What is")).lower().split()
    )
    for form, key in _FORMS:
        if found := form.fullmatch(frame):
            made = _build({name: part for name, part in found.groupdict().items() if part}, key, names)
            if made is not None:
                return made
    return None


def _build(parts: dict[str, str], key: str, names: list[str]) -> Wanted | None:
    """A `Wanted` from the named parts of a matched form."""
    words = parts["s"].split()
    places = [number for number, word in enumerate(words) if word.startswith("§")]
    others = re.findall(r"§(\d)", parts.get("o", "") + parts.get("ns", ""))
    if len(places) != 1 or len(others) + 1 != len(names) or _strict(parts, key):
        return None
    if parts.get("pp") and not is_participle(parts["pp"]):
        return None
    place = places[0]
    before, after = words[:place], words[place + 1 :]
    if after and (after[-1] in _NO_NAME_END or is_participle(after[-1]) or after[-1].endswith("ing")):
        return None
    article = _article(before)
    before = before[1:] if article else before
    slot = int(words[place][1:2])
    full = _full_key(parts, key)
    if (
        full in ("noun:type", "noun:part", "noun:symptom", "noun:step", "noun:stage")
        and parts.get("n")
        and parts.get("be") in ("is", "was")
    ):
        return None
    if full in _ONE_OF_A_KIND and parts.get("n") and parts.get("be") in ("are", "were"):
        return None
    class_kind = _CLASS_OF.get(before[-1]) if before else None
    kind = "person" if key == "identity" else slot_kind(names[slot]) or class_kind or ""
    verb = parts.get("be") or parts.get("do") or ""
    other = int(others[0]) if others else None
    return Wanted(
        key=full,
        slot=slot,
        article=article,
        before=tuple(before),
        after=tuple(after),
        plural=None if parts.get("n") else _PLURAL.get(verb),
        past=_PAST.get(verb, is_past(parts["v"]) if key.startswith("who:") and parts.get("v") else None),
        kind=kind,
        named=class_kind is not None and class_kind in ("", kind),
        count=number_word(parts.get("drop", "")),
        other=other,
        other_kind="" if other is None else slot_kind(names[other]),
        other_article=_article(parts.get("o", "").split()),
    )


def _article(words: list[str]) -> str:
    """The article that opens some words; ``a`` for "an", nothing where there is none."""
    return {"a": "a", "an": "a", "the": "the"}.get(words[0], "") if words else ""


def _full_key(parts: dict[str, str], key: str) -> str:
    """The relation key with verb, noun and preposition filled in."""
    verb = verb_stem(parts.get("v") or parts.get("pp") or "")
    if key.split(":")[0] in ("when", "when2", "whenp", "where", "who", "how"):
        verb = SAME_VERB.get(verb, verb)
    noun = noun_stem(parts.get("n", "").replace(" ", "-"))
    full = key.format(v=verb, n=NOUN_KEYS.get(noun, noun), p=parts.get("p", ""), a=parts.get("a", ""))
    return "meaning" if full == "noun:definition" else full


def _strict(parts: dict[str, str], key: str) -> bool:
    """Whether a dropped adjective changes the question: "the first cause" is not "the cause"."""
    return key.startswith("noun") and _STRICT.search(parts.get("drop", "")) is not None


def _read_forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    """The question forms that lie beside this file as text."""
    forms = []
    for key, form in rules("question_forms.txt"):
        expression = re.sub(r"(?<!\(\?)(?<!\\)\b(?:TERM |[A-Z]+\b)", lambda m: _MACROS[m.group().strip()], form)
        forms.append((re.compile(expression), key))
    return tuple(forms)


_FORMS = _read_forms()
