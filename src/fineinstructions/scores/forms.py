r"""Forms in which a question and its answer are put before a model.

In: a question and an answer. Out: a prompt and a continuation; together they are the text, and tokens meet where words
begin. Three forms are neutral: no arm of an experiment is trained on them. `pair` is the paper's training format, which
a model may know as a format; comparing it with the others tells knowledge from format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fineinstructions.pair_text import ANSWER_LABEL, INSTRUCTION_LABEL

PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Form:
    """What stands around a question, and between it and its answer."""

    before: str
    between: str
    """Ends before the blank in front of the answer."""
    gap: str = " "
    """In front of the answer."""

    def prompt(self, question: str) -> str:
        r"""What the model is shown.

        Example:
            >>> FORMS["pair"].prompt("Why?"), FORMS["lines"].prompt("Why?")
            ('Instruction: Why?\n\nAnswer:', 'Why?\n')
        """
        return f"{self.before}{question}{self.between}"


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "lines": Form("", "\n", gap=""),
        "speakers": Form("A: ", "\n\nB:"),
        "reported": Form('Somebody asked, "', '" and was told:'),
        PAIR: Form(INSTRUCTION_LABEL, ANSWER_LABEL.rstrip(" ")),
    }
)
"""All forms. Ours, but for the paper's `pair`."""
NEUTRAL = tuple(name for name in FORMS if name != PAIR)
"""Forms that no arm is trained on."""
