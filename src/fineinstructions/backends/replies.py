"""A model's free text to the JSON value it was asked for.

A server's promise of JSON is an optimisation, never a guarantee: replies come in code fences, after thinking aloud, or
with a friendly closing line. We take the first object that has the keys we asked for and refuse everything doubtful. A
key may have other names, for models whose exact wording is not known; what is refused is told with the keys it had.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)
_MAX_STARTS = 200
"""How many opening braces are tried before a reply counts as unparseable."""
_MAX_KEYS_SHOWN = 12

Aliases = Mapping[str, Collection[str]]
"""Other names that a key may have in a reply, in the order in which they are tried."""


def thinking_end(text: str) -> int:
    """Where the part of a reply begins that comes after the model's thinking aloud; 0 where there is none of it."""
    thinking = _THINKING.match(text)
    return thinking.end() if thinking else 0


def json_reply(
    text: str, required: Collection[str], *, null: bool = False, aliases: Aliases | None = None
) -> dict[str, Any] | None:
    r"""The JSON object of a model's reply.

    Args:
        text: The reply.
        required: Keys that the object must have, under their own name or another.
        null: Whether the reply may be a bare ``null``.
        aliases: Other names of the required keys.

    Returns:
        The object, required keys under their own names; or ``None`` where the reply is ``null``.

    Raises:
        ValueError: If there is no such object, a key occurs twice in it, or a string is not valid Unicode. The message
            tells the keys of the first object that there is.

    Example:
        >>> json_reply('Sure!\n```json\n{"score": 4}\n```\nAnything else?', ["score"])
        {'score': 4}
        >>> json_reply('{"grade": 4}', ["score"], aliases={"score": ["grade"]})
        {'score': 4}
    """
    body = text[thinking_end(text) :].strip()
    fenced = _FENCE.search(body)
    if null and (fenced[1] if fenced else body).strip().rstrip(".").lower() in ("null", "none"):
        return None
    names = {key: (key, *(aliases or {}).get(key, ())) for key in required}
    met: list[str] = []
    found = _first_object(body, names, met)
    if found is None:
        wanted = ", ".join(" or ".join(names[key]) for key in sorted(names))
        what = f"the reply has {', '.join(met[:_MAX_KEYS_SHOWN])}" if met else "the reply has no object at all"
        raise ValueError(f"no JSON object with the keys {wanted}; {what}")
    _check_unicode(found)
    return found


def _first_object(text: str, names: Mapping[str, tuple[str, ...]], met: list[str]) -> dict[str, Any] | None:
    """The first object that has every key under one of its names; `met` gets the keys of the first other one."""
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
        if isinstance(value, dict):
            own = {key: next((n for n in known if n in value), None) for key, known in names.items()}
            if None not in own.values():
                taken = set(own.values())
                return {key: value[str(name)] for key, name in own.items()} | {
                    key: inner for key, inner in value.items() if key not in taken | own.keys()
                }
            met += [] if met else [json.dumps(key[:40], ensure_ascii=True) for key in value]
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
