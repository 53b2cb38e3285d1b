"""A question as the answer models see it: its content words, which of them are names, and what it asks for.

In: a question. Out: a `Question`.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from fineinstructions.embedded.answers.associations import Associations, Row
from fineinstructions.embedded.answers.lexical import content_stems
from fineinstructions.embedded.words import stem, tokenize

FORMS = ("who", "what", "which", "when", "where", "why", "how many", "how", "feel", "do", "is")
"""What a question asks for; the first that fits is flagged, the others are not."""
_FORM = {
    "who": re.compile(r"\b(?:who|whom|whose)\b"),
    "feel": re.compile(r"\bfe(?:el|els|lt)\b"),
    "how many": re.compile(r"\bhow (?:many|much|long|old|often|far|common)\b"),
    "do": re.compile(r"\bwhat (?:do|does|did|will|would|can) .*\b(?:do|happen)\b|\bwhat happen"),
    "is": re.compile(r"\A(?:is|are|was|were|do|does|did|can|will|has|have)\b"),
}


@dataclass(frozen=True)
class Question:
    """A question, read."""

    text: str
    stems: tuple[str, ...]
    """Content stems in order."""
    names: frozenset[str]
    """Stems written with a capital inside the question."""
    forms: tuple[float, ...]
    """One flag for each of `FORMS`."""
    row: Row
    """Log-odds of answer words."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Neighbouring content stems."""
        return list(pairwise(self.stems))


def read_question(text: str, associations: Associations) -> Question:
    """Read a question."""
    inside = [t for t in tokenize(text)[1:] if text[t.start].isupper()]
    lowered = text.casefold()
    flags = tuple(float((_FORM.get(f) or re.compile(rf"\b{f}\b")).search(lowered) is not None) for f in FORMS)
    return Question(
        text,
        tuple(dict.fromkeys(content_stems(text))),
        frozenset(stem(t.text) for t in inside),
        flags,
        associations.of(text),
    )
