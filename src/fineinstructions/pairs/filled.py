"""What an instantiator replies: a filled instruction with its answer, or a refusal.

In: the text of a reply. Out: `Filled`, or None for a refusal. The decision to question: keys may go by other names,
because what the published model writes is not known for certain; every other shape is an error that names the keys it
had.
"""

from dataclasses import dataclass
from typing import Any

from fineinstructions.backends.prompt import Message
from fineinstructions.backends.replies import json_reply


@dataclass(frozen=True, slots=True)
class Filled:
    """An instantiator's reply."""

    instruction: str
    answer: str
    values: tuple[str, ...]
    """Slot values as the model lists them; may be missing or wrong."""
    raw: str
    generated_tokens: int = 0
    """Of this reply, and of those that were sent back for repair before it."""
    repairs: int = 0
    messages: tuple[Message, ...] = ()
    """What the model was asked."""


SCHEMA = {
    "type": "object",
    "properties": {
        "instruction": {"type": ["string", "null"]},
        "answer": {"type": ["string", "null"]},
        "slots": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["instruction", "answer", "slots"],
    "additionalProperties": False,
}
"""Schema of a reply; nulls are a refusal, because strict servers accept only an object at the top. Not sent
with the published prompt: a student has learnt its own format, and holding it to another costs quality."""
ALIASES = {
    "instruction": ("instantiated_instruction", "instantiated_template", "filled_instruction", "query", "question"),
    "answer": ("instantiated_answer", "response", "output"),
}
"""Other names of the keys of a reply. What the authors' model writes is not known; the columns of their data are
`instantiated_instruction` and `answer`."""


def parse_reply(text: str) -> Filled | None:
    """An instantiator's reply, or None for a refusal (``null``, or null for instruction and answer).

    Raises:
        ValueError: If the reply is neither.

    Example:
        >>> parse_reply("null") is None
        True
        >>> parse_reply('{"instruction": "Why?", "answer": "So.", "slots": {"topic": "rain"}}').values
        ('rain',)
    """
    reply = json_reply(text, ("instruction", "answer"), null=True, aliases=ALIASES)
    if reply is None or (reply["instruction"] is None and reply["answer"] is None):
        return None
    instruction, answer = reply["instruction"], reply["answer"]
    if not isinstance(instruction, str) or not isinstance(answer, str):
        raise ValueError("instruction and answer must be text")
    return Filled(instruction.strip(), answer.strip(), _listed_values(reply.get("slots")), text)


def _listed_values(slots: object) -> tuple[str, ...]:
    """Slot values of a list of ``{name, value}`` objects, a list of texts, or an object from name to value."""
    items: list[Any] = list(slots.values()) if isinstance(slots, dict) else slots if isinstance(slots, list) else []
    values = [item.get("value") if isinstance(item, dict) else item for item in items]
    texts = tuple(value.strip() for value in values if isinstance(value, str))
    return texts if len(texts) == len(values) and all(texts) else ()
