"""The same multiple-choice items by the probabilities that a model gives to their options, without any reply.

In: an item and a function that tells how probable continuations are. Out: which option wins by three counts, and how
much of the probability falls on the letters at all. The paper leaves suites of this kind out, because models that were
trained on instructions put little mass on short options; ``option_letter_mass`` shows how little.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fineinstructions.backends.prompt import Message
from fineinstructions.evaluation.items import EvalItem
from fineinstructions.evaluation.short_answer import context_of, letters

Continue = Callable[[Sequence[Message], Sequence[str]], Sequence[float]]
"""From messages and the beginnings of replies to the natural logarithm of each one's probability."""


def option_facts(item: EvalItem, probability_of: Continue) -> dict[str, Any]:
    """What the probabilities of an item's options say.

    Args:
        item: A multiple-choice item of MixEval.
        probability_of: The model.

    Returns:
        For each way of counting 1.0 for the right option and 0.0 for another: ``option_letter`` by the letter after the
        question with its options, ``option_text`` by the whole text of the option after the bare question,
        ``option_text_per_char`` by the same per character; and ``option_letter_mass``, the probability of all letters.

    Source:
        Ours; the three counts are those of common suites (by letter, by text, by text normalised by its length).
    """
    row: Mapping[str, Any] = item.record
    options, right = row["options"], row["target"][0]
    by_letter = list(probability_of(item.messages, list(letters(len(options)))))
    bare = "\n".join(text for text in (context_of(row), row["prompt"]) if text)
    by_text = list(probability_of((("user", bare),), [option or " " for option in options]))
    per_char = [value / max(1, len(option)) for value, option in zip(by_text, options, strict=True)]
    return {
        "option_letter": float(_best(by_letter) == right),
        "option_letter_mass": sum(math.exp(value) for value in by_letter),
        "option_text": float(_best(by_text) == right),
        "option_text_per_char": float(_best(per_char) == right),
    }


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])
