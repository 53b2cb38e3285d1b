"""Patterns for the part of a sentence from its verb on, each with the relation it states about the subject.

In: the tables. Out: compiled patterns. The decision to question: a pattern is listed only when a reader accepted most
of what it found in a sample; wide ones ("is a part of", "is important") were tried and left out.
"""

import re

from fineinstructions.embedded.relations.tables import pattern, rules, words

DATE, PLACE, AGENT = pattern("date"), pattern("place"), pattern("agent")
DEFINITION = pattern("definition", re.IGNORECASE)
PLURAL_DEFINITION = pattern("plural_definition")
TIGHT_COMPLEMENT = pattern("tight_complement")
"""Complement of a definition in the middle of a text: a class and what tells the thing apart, no praise."""
WEAK_COMPLEMENT = pattern("weak_complement")
"""Complements that do not say what a thing is: "a result of", "the most common ..."."""
IS_A_OF, NOUN_OF, OBJECT_OF = pattern("is_a_of"), pattern("noun_of"), pattern("object_of")
NAMED = pattern("named", re.DOTALL)
"""A sentence that a name opens, with a verb right behind it."""
NOT_NOUN_RELATION = words("not_relation_nouns")
REGIONS = tuple(
    (kind, pattern(f"region_{kind}", re.IGNORECASE if kind == "country" else 0))
    for kind in ("country", "continent", "city", "region", "state")
)

_ADV = (
    r"(?:(?:also|often|usually|normally|typically|mainly|primarily|generally|commonly|most commonly|sometimes|widely|"
    r"mostly|now|still|frequently|currently|best|well|originally|most|\w+ly) )*"
)
_AUX = rf"{_ADV}(?:is|are|was|were|can be|may be|has been|have been) {_ADV}"


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression.replace("AUX ", _AUX).replace("ADV ", _ADV))


PREDICATES = tuple((key, _compiled(expression)) for key, expression in rules("predicates.txt"))
"""Relation key and pattern, tried all, anchored at the verb."""
