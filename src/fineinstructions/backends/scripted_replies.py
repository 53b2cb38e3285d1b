"""Bodies of the scripted server's replies.

In: a request body and what a brain said. Out: plain values in the shape of an OpenAI-compatible server.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s?[^\W\d]+|\s?\d|\s+|[^\w\s]|_")
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
_DIGITS = ("1", "2", "3", "4", "5")


class StatusError(Exception):
    """Raised by a brain to answer with an HTTP error.

    Args:
        status: HTTP status.
        message: Text of the error.
        code: The error's ``code`` field.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Reply:
    """A brain's reply where plain text is not enough."""

    text: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    logprobs: Sequence[Mapping[str, Any]] | None = None
    """Entries of ``logprobs.content`` for requests that ask for them; None for made-up ones."""
    model: str | None = None
    """What the model calls itself; None for the name that it was asked by."""


def chat_completion(body: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    """Body of a proper reply to a chat request."""
    sent = " ".join(str(message.get("content", "")) for message in body.get("messages", []))
    tokens = {"prompt_tokens": len(sent.split()), "completion_tokens": len((reply.text or "").split())}
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.refusal is not None:
        message["refusal"] = reply.refusal
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    if body.get("logprobs"):
        tokens_sent = reply.logprobs if reply.logprobs is not None else scripted_logprobs(reply.text or "")
        choice["logprobs"] = {"content": tokens_sent}
    return {
        "id": f"chatcmpl-{hashlib.blake2b(sent.encode('utf-8', 'replace'), digest_size=8).hexdigest()}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "") if reply.model is None else reply.model,
        "choices": [choice],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }


def forced_value(body: Mapping[str, Any], obeyed: str) -> dict[str, Any] | None:
    """The value that a request leaves no choice in, if it asks for it in the way that is obeyed.

    Args:
        body: The request.
        obeyed: ``schema`` for ``response_format``, or the name of the field.
    """
    if obeyed == "grammar":
        return _only_sentence(str(body.get("grammar") or ""))
    if obeyed == "schema":
        return only_value(((body.get("response_format") or {}).get("json_schema") or {}).get("schema"))
    if obeyed not in ("guided_json", "structured_outputs"):
        return None
    return only_value(body.get(obeyed) if obeyed == "guided_json" else (body.get(obeyed) or {}).get("json"))


def _only_sentence(grammar: str) -> dict[str, Any] | None:
    """The object that a GBNF grammar allows, where its first rule has no alternatives and no rule but for blanks."""
    rule = grammar.partition("\n")[0].partition("::=")[2]
    rest = _LITERAL.sub("", rule).replace("space", "")
    sentence = "".join(json.loads(literal) for literal in _LITERAL.findall(rule))
    return json.loads(sentence) if sentence and not rest.strip(" ()") else None


def only_value(schema: Any) -> dict[str, Any] | None:
    """The one object that a schema allows, where every property is an enum of one value."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not properties or not all(len(p.get("enum", ())) == 1 for p in properties.values()):
        return None
    return {name: property_schema["enum"][0] for name, property_schema in properties.items()}


def is_object(text: str | None) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text or ""), dict)
    except ValueError:
        return False


def error_body(message: str, code: str = "") -> dict[str, Any]:
    """Body of a reply with an HTTP error."""
    return {"error": {"message": message, "type": "scripted", "code": code or None}}


def scripted_logprobs(text: str) -> list[dict[str, Any]]:
    """Made-up tokens of a text with log-probabilities: certain, but for digits of a scale from 1 to 5.

    At such a digit the neighbours on the scale are half as probable as the digit itself, and so on.

    Example:
        >>> [entry["token"] for entry in scripted_logprobs("So: 4.")]
        ['So', ':', ' 4', '.']
    """
    entries = []
    for token in _TOKEN.findall(text):
        blank, digit = token[:-1], token[-1:]
        weights = {blank + other: 0.5 ** abs(int(digit) - int(other)) for other in _DIGITS} if digit in _DIGITS else {}
        total = sum(weights.values())
        chances = {name: math.log(weight / total) for name, weight in weights.items()} or {token: 0.0}
        others = [_entry(name, value) for name, value in sorted(chances.items(), key=lambda item: -item[1])]
        entries.append({**_entry(token, chances[token]), "top_logprobs": others})
    return entries


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def uniform(seed: int, purpose: str, times: int, body: Mapping[str, Any]) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    text = json.dumps([seed, purpose, times, body], sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64
