"""A model's free text to the JSON value it was asked for.

A server's promise of JSON is an optimisation, never a guarantee: replies come in code fences, after thinking aloud, or
with a friendly closing line. We take the first object that has the keys we asked for and refuse everything doubtful.
"""

import json
import re
from collections.abc import Collection
from typing import Any

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_MAX_STARTS = 200
"""How many opening braces are tried before a reply counts as unparseable."""


def thinking_end(text: str) -> int:
    """Where the part of a reply begins that comes after the model's thinking aloud; 0 where there is none of it."""
    thinking = _THINKING.match(text)
    return thinking.end() if thinking else 0


def json_reply(text: str, required: Collection[str], *, null: bool = False) -> dict[str, Any] | None:
    r"""The JSON object of a model's reply.

    Args:
        text: The reply.
        required: Keys that the object must have.
        null: Whether the reply may be a bare ``null``.

    Returns:
        The object, or ``None`` where the reply is ``null``.

    Raises:
        ValueError: If there is no such object, a key occurs twice in it, or a string is not valid Unicode.

    Example:
        >>> json_reply('Sure!\n```json\n{"score": 4}\n```\nAnything else?', ["score"])
        {'score': 4}
    """
    body = text[thinking_end(text) :].strip()
    fenced = _FENCE.search(body)
    if null and (fenced[1] if fenced else body).strip().rstrip(".").lower() in ("null", "none"):
        return None
    found = _first_object(body, required)
    if found is None:
        raise ValueError(f"no JSON object with the keys {', '.join(sorted(required))}")
    _check_unicode(found)
    return found


def _first_object(text: str, required: Collection[str]) -> dict[str, Any] | None:
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, strict=False)
    position, starts = text.find("{"), 0
    while position >= 0 and starts < _MAX_STARTS:
        starts += 1
        end = position + 1
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            value = None
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
        if isinstance(value, dict) and set(required) <= value.keys():
            return value
        position = text.find("{", end)
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _check_unicode(value: Any) -> None:
    """Refuse lone surrogates: they cannot be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string of the reply is not valid Unicode") from None
