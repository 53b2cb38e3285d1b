"""Whether a piece of evidence fills a template's slots so that kind, number, tense and article agree.

In: a `Wanted` and an `Evidence`. Out: the words for each slot, or nothing.
"""

from fineinstructions.embedded.relations.grammar import Phrase, kind_of_head
from fineinstructions.embedded.relations.questions import Wanted
from fineinstructions.embedded.relations.reading import Evidence


def fit(asked: Wanted, found: Evidence) -> dict[int, str] | None:
    """Words for each slot of the template, by slot index.

    Args:
        asked: What the template wants.
        found: Evidence under the same key.

    Returns:
        Slot index to words, or ``None`` when something does not agree.
    """
    subject = found.subject
    if not _kind_agrees(asked, found) or (asked.plural is not None and asked.plural != subject.plural):
        return None
    if (asked.past is not None and asked.past != bool(found.past)) or asked.count not in ("", found.count):
        return None
    words = _words(asked, subject)
    if words is None:
        return None
    filled = {asked.slot: words}
    if asked.other is not None:
        if found.other is None or not _other_agrees(asked, found.other):
            return None
        filled[asked.other] = found.other.text if asked.other_article else found.other.with_article()
    return filled


def _kind_agrees(asked: Wanted, found: Evidence) -> bool:
    kind = found.subject.kind
    if asked.key == "cast":
        return True
    if asked.kind == "person":
        return kind == "person" or (
            not kind and asked.key.startswith(_TELLING) and found.subject.text.istitle() and " " in found.subject.text
        )
    if asked.kind and asked.kind != kind:
        return not kind and asked.kind != "never" and asked.key.startswith(_TELLING)
    if asked.key == "happen":
        return kind == "event" and bool(found.past)
    if asked.key == "identity" and found.subject.article == "a":
        return False
    if asked.key == "meaning":
        in_capitals = found.subject.text.isupper()
        is_name = in_capitals and (found.past or any(map(str.isdigit, found.subject.text)))
        return kind in ("", "disease") and subject_is_common(found) and not is_name
    return kind not in _NEVER.get(asked.key, ("task",))


def _other_agrees(asked: Wanted, other: Phrase) -> bool:
    """Whether the second thing has the kind and the article that the template wants."""
    if asked.other_article and asked.other_article != other.article:
        return False
    kind = other.kind or kind_of_head(other.text)
    unknown = not kind and asked.key.startswith(_TELLING) and asked.other_kind not in ("never", "person")
    return asked.other_kind in ("", kind) or unknown


def subject_is_common(found: Evidence) -> bool:
    """Whether the subject is a term rather than a name."""
    return found.subject.text[:1].islower() or found.subject.text.isupper()


_TELLING = ("when:", "when2:", "whenp:", "where:", "who:", "act:", "count:", "noun:population", "stand", "how:")
"""Relations that themselves tell what kind of thing the subject is."""
_NEVER = {
    "definition": ("person", "task"),
    "noun:function": ("person", "task", "disease", "event"),
    "task": (),
    **dict.fromkeys(("when:releas", "when:publish", "when:found", "when:introduc"), ("person", "task")),
}


def _words(asked: Wanted, subject: Phrase) -> str | None:
    """The subject's words without those that the frame already says."""
    text = subject.text
    if asked.before:
        opening = " ".join(asked.before) + " "
        if text.casefold().startswith(opening):
            text = text[len(opening) :]
        elif not asked.named or asked.kind != subject.kind or len(asked.before) > 1:
            return None
        else:
            return text if not asked.after and asked.article in ("the", "") else None
    if asked.after:
        ending = " " + " ".join(asked.after)
        if not text.casefold().endswith(ending):
            return None
        text = text[: -len(ending)]
    if not text.strip():
        return None
    if asked.article:
        return text if asked.article == subject.article and not (asked.article == "a" and subject.plural) else None
    return subject.with_article() if text == subject.text else (f"the {text}" if subject.article == "the" else text)
