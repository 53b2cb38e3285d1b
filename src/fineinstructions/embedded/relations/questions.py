"""What a template asks for: its words and slot names, read into a typed relation.

In: a template such as ``When was <fi>a company</fi> founded?``. Out: a `Wanted` with the key ``when:found`` and the shape of the
slot that names the subject; ``None`` for a template this tier cannot read. The decision to question: a closed list of
question forms. A form that is missing is a template that is never chosen; a form that is too wide is a wrong answer.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from fineinstructions.embedded.relations.grammar import is_participle, noun_stem, verb_stem
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
    "TERM": r"(?:(?:(?:a|the) )?(?:word|term|phrase|concept|idea|concept of|idea of|name) )?",
    "YOU": r"(?:you|we|i|one|people|someone|a person|doctors)",
    "NS": r"(?P<ns>§\d)",
    "BE": r"(?P<be>is|are|was|were)",
    "DO": r"(?P<do>do|does|did)",
    "PP": r"(?P<pp>\w+)",
    "S": rf"(?P<s>{_SLOTTED})",
    "O": r"(?P<o>(?:a |an |the )?§\d)",
    "N": rf"(?P<drop>{_DROPPED})(?P<n>[a-z]+(?: (?:factor|test|expectancy)s?)?)",
    "V": r"(?P<v>(?!(?:is|are|was|were|be|do|does|did|can|could|will|would|should|has|have|had|to|of|the|a|an|if|about)\b)[a-z]+)",
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


_SLOT_KINDS = by_member("slot_kinds")
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
            made = _build(found.groupdict(), key, names)
            if made is not None:
                return made
    return None


def _build(parts: dict[str, str | None], key: str, names: list[str]) -> Wanted | None:
    """A `Wanted` from the named parts of a matched form."""
    subject = parts.get("s") or ""
    words = subject.split()
    slots = [number for number, word in enumerate(words) if word.startswith("§")]
    used = {
        int(found) for found in re.findall(r"§(\d)", " ".join(filter(None, (subject, parts.get("o"), parts.get("ns")))))
    }
    if len(slots) != 1 or used != set(range(len(names))) or ((parts.get("drop") or "").strip() and _strict(parts, key)):
        return None
    verb = parts.get("v") or ""
    noun = (parts.get("n") or "").replace(" ", "-")
    if parts.get("pp") and not is_participle(parts["pp"] or ""):
        return None
    stem = noun_stem(noun)
    verb_key = verb_stem(verb or parts.get("pp") or "")
    if key.split(":")[0] in ("when", "where", "who", "how"):
        verb_key = SAME_VERB.get(verb_key, verb_key)
    full = key.format(v=verb_key, n=NOUN_KEYS.get(stem, stem), p=parts.get("p") or "", a=parts.get("a") or "")
    before, after = words[: slots[0]], words[slots[0] + 1 :]
    if after and (after[-1] in _NO_NAME_END or is_participle(after[-1]) or after[-1].endswith("ing")):
        return None
    article = "a" if before[:1] in (["a"], ["an"]) else "the" if before[:1] == ["the"] else ""
    before = before[1:] if article else before
    slot = int(words[slots[0]][1:].removesuffix("'s").removesuffix("’s"))
    kind = slot_kind(names[slot])
    class_kind = _CLASS_OF.get(before[-1]) if before else ""
    other = re.search(r"§(\d)", parts.get("o") or parts.get("ns") or "")
    verbs = (parts.get("be") or parts.get("do") or "").lower()
    return Wanted(
        "meaning" if full == "noun:definition" else full,
        slot,
        article,
        tuple(before),
        tuple(after),
        {"is": False, "was": False, "are": True, "were": True, "does": False, "do": True}.get(verbs)
        if not parts.get("n")
        else None,
        {
            "is": False,
            "are": False,
            "was": True,
            "were": True,
            "do": False,
            "does": False,
            "did": True,
            "caused": True,
        }.get(verbs),
        "person" if key == "identity" else kind or class_kind or "",
        class_kind is not None,
        count.group() if (count := re.search(r"\b(?:two|three|four|five)\b", parts.get("drop") or "")) else "",
        int(other.group(1)) if other else None,
        slot_kind(names[int(other.group(1))]) if other else "",
    )


def _strict(parts: dict[str, str | None], key: str) -> bool:
    """Whether a dropped adjective changes the question: "the first cause" is not "the cause"."""
    return key.startswith("noun") and _STRICT.search(parts.get("drop") or "") is not None


def _read_forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    """The question forms that lie beside this file as text."""
    forms = []
    for key, form in rules("question_forms.txt"):
        expression = re.sub(r"(?<!\(\?)(?<!\\)\b[A-Z]+\b", lambda m: _MACROS[m.group()], form)
        forms.append((re.compile(expression), key))
    return tuple(forms)


_FORMS = _read_forms()
