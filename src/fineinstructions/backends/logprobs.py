"""Log-probabilities of a reply's tokens, where a server gives them.

In: the ``logprobs`` part of a chat completion. Out: one `TokenLogprob` per generated token, or None for anything that
is not of that shape: what a server leaves out is never trouble. Improbable alternatives are dropped on the way, because
a reply is kept with them in the cache.
"""

import codecs
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOP_LOGPROBS = 5
"""Alternatives asked for at every token: as many as there are scores, and what nearly every server allows. Ours."""
REQUEST_FIELDS: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
"""Fields of a chat request that ask for log-probabilities."""
MIN_LOGPROB = math.log(1e-4)
"""Alternatives less probable than this are dropped. Ours: five of them move an expected score by less than 0.002."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token."""

    token: str
    """Its text; the texts of all tokens make up the reply, apart from special tokens that some servers list too."""
    logprob: float
    """Natural logarithm of its probability."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """The most probable tokens at this place with their log-probabilities; holds the token itself as a rule."""


def read_logprobs(part: Any) -> tuple[TokenLogprob, ...] | None:
    """Tokens of the ``logprobs`` part of a choice; None where it is absent, empty or of another shape.

    A character of several tokens belongs to the last of them.

    Example:
        >>> read_logprobs({"content": [{"token": "4", "logprob": -0.5, "top_logprobs": []}]})
        (TokenLogprob(token='4', logprob=-0.5, alternatives=()),)
    """
    try:
        return tuple(_tokens(part["content"])) or None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def to_plain_logprobs(tokens: Sequence[TokenLogprob]) -> list[Any]:
    """Tokens as short plain JSON values, for the cache."""
    return [[token.token, token.logprob, [list(pair) for pair in token.alternatives]] for token in tokens]


def from_plain_logprobs(plain: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    """The tokens that `to_plain_logprobs` made plain."""
    return tuple(TokenLogprob(text, value, tuple((t, v) for t, v in others)) for text, value, others in plain)


def token_at(tokens: Sequence[TokenLogprob], text: str, position: int) -> tuple[TokenLogprob, int] | None:
    """The token that holds a character of the reply.

    Args:
        tokens: Tokens of the reply.
        text: The reply.
        position: Place of the character in `text`.

    Returns:
        The token and the character's place in it; None where tokens and text cannot be laid over each other. Both are
        compared from the character on, and where that does not fit, up to it: servers strip white space, list special
        tokens and those of thoughts that are no part of the text, and have no text for half a character.

    Example:
        >>> token_at([TokenLogprob(" so", 0.0), TokenLogprob(" 4", -0.5), TokenLogprob("</s>", 0.0)], "so 4", 3)
        (TokenLogprob(token=' 4', logprob=-0.5, alternatives=()), 1)
    """
    joined = "".join(token.token for token in tokens)
    place = _from_the_end(tokens, joined, text[position:].rstrip())
    if place < 0:
        before = text[:position].lstrip()
        stripped = len(joined) - len(joined.lstrip())
        place = stripped + len(before) if joined[stripped:].startswith(before) else -1
    if place < 0 or joined[place : place + 1] != text[position]:
        return None
    for token in tokens:
        if place < len(token.token):
            return token, place
        place -= len(token.token)
    return None


_MAX_SPECIAL_TOKENS = 3
"""How many tokens at the end may be special ones, which are no part of the text."""


def _from_the_end(tokens: Sequence[TokenLogprob], joined: str, tail: str) -> int:
    """Place in `joined` at which `tail` begins, where `tail` is its end but for special tokens; -1 if it is not."""
    for special in reversed([token.token for token in tokens[-_MAX_SPECIAL_TOKENS:]]):
        if joined.rstrip().endswith(tail):
            break
        joined = joined.removesuffix(special)
    return joined.rstrip().rfind(tail) if joined.rstrip().endswith(tail) else -1


def _tokens(content: Sequence[Mapping[str, Any]]) -> Iterator[TokenLogprob]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for entry in content:
        raw = entry.get("bytes")
        text = decoder.decode(bytes(raw)) if isinstance(raw, list) else _text(entry["token"])
        others = [(_text(other["token"]), other["logprob"]) for other in entry.get("top_logprobs") or ()]
        kept = tuple((token, _number(value)) for token, value in others if value >= MIN_LOGPROB)
        yield TokenLogprob(text, _number(entry["logprob"]), kept)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a token is text")
    return value.encode("utf-8", "replace").decode()


def _number(value: object) -> float:
    """A log-probability to six decimals; rounding in a server may put a certain token a hair above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("a log-probability is a finite number")
    rounded = round(float(value), 6)
    if rounded > 0:
        raise ValueError("a log-probability is 0 at most")
    return rounded
