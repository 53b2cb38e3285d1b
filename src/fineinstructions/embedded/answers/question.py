"""A question as the answer models see it: its content words, which of them are names, and what it asks for.

In: a question. Out: a `Question`. "What did he do when the king left" has a clause that tells where to look and a rest
that is asked for; words of the clause are marked, because the answer often stands one sentence behind them.
"""

import re
from dataclasses import dataclass

from fineinstructions.embedded.answers.associations import AMOUNTS, TIMES, Associations, Row
from fineinstructions.embedded.answers.lexical import lemma, lemmas
from fineinstructions.embedded.words import FUNCTION_WORDS, tokenize

_FORMS = tuple(
    re.compile(expression)
    for expression in (
        r"\b(?:who|whom|whose)\b",
        r"\bwhat\b",
        r"\bwhich\b",
        r"\bwhen\b",
        r"\bwhere\b",
        r"\bwhy\b",
        rf"\bhow\b(?! (?:{'|'.join((*AMOUNTS, *TIMES))})\b)",
        rf"\bhow (?:{'|'.join(AMOUNTS)})\b",
        rf"\bhow (?:{'|'.join(TIMES)})\b",
        r"\bfe(?:el|els|lt)\b",
        r"\bwhat (?:do|does|did|will|would|can|could|was|is|were) .*\b(?:do|doing|happen)\b",
        r"\bhappen",
        r"\A(?:is|are|was|were|do|does|did|can|will|has|have)\b",
        r"\b(?:after|once|as soon as)\b",
        r"\w.*\b(?:when|while|as|if)\b",
        r"\b(?:say|said|tell|told|ask|asked|call|think|thought|want|wish)\b",
        r"\b(?:will|would)\b",
    )
)
"""What a question asks for; every form that fits is flagged."""
_CLAUSE = re.compile(r"\b(?:after|when|before|because|if|while|once|as soon as|as|since|until)\b", re.IGNORECASE)
_MIN_CLAUSE_CHARS = 7
"""A clause word before this is the question word itself."""


@dataclass(frozen=True)
class Question:
    """A question, read."""

    text: str
    stems: tuple[str, ...]
    """Content stems in order, each once."""
    names: frozenset[str]
    """Stems written with a capital inside the question."""
    clause: frozenset[str]
    """Stems that first stand in a clause with "when", "after", "because" and the like."""
    has_clause: bool
    words: tuple[str, ...]
    """All words, function words included."""
    forms: tuple[float, ...]
    """One flag for each of `_FORMS`."""
    row: Row
    """Log-odds of answer words."""


def read_question(text: str, associations: Associations) -> Question:
    """Read a question."""
    clause = next((m.start() for m in _CLAUSE.finditer(text) if m.start() >= _MIN_CLAUSE_CHARS), None)
    tokens = [t for t in tokenize(text) if t.text[0].isalnum()]
    first: dict[str, int] = {}
    names = set()
    for number, token in enumerate(tokens):
        if token.text not in FUNCTION_WORDS:
            first.setdefault(lemma(token.text), token.start)
            if number and text[token.start].isupper():
                names.add(lemma(token.text))
    lowered = text.casefold()
    return Question(
        text,
        tuple(first),
        frozenset(names),
        frozenset(stem for stem, start in first.items() if clause is not None and start > clause),
        clause is not None,
        tuple(lemmas(text)),
        tuple(float(form.search(lowered) is not None) for form in _FORMS),
        associations.of(text),
    )
