"""What an engine makes of one request: a completion, or the trouble that it had.

In: the body of a chat completion, or an HTTP status with its text. Out: a `Completion` or a `ChatError`, the same words
for every engine, so that the client above them is one and a run can change its engine.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fineinstructions.backends.logprobs import TokenLogprob, from_plain_logprobs, read_logprobs, to_plain_logprobs
from fineinstructions.errors import BackendError, printable

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def encodable(text: str) -> str:
    """A text with U+FFFD for every lone surrogate, which JSON can name and no file can hold."""
    return _SURROGATE.sub("\ufffd", text)


def safe_line(text: str, key: str = "") -> str:
    """A server's words for a message: one line that can be written anywhere, not long, without the key.

    Args:
        text: What the server or the connection said.
        key: The key that was sent; empty for none.
    """
    for shown in {key, repr(key)[1:-1], json.dumps(key)[1:-1]} - {""}:
        text = text.replace(shown, "***")
    return " ".join(printable(text).split())[:300]


TroubleKind = Literal["length", "too_long", "refusal", "format", "request", "transport", "pending"]


class ChatError(BackendError):
    """What went wrong with one request, others may fare better.

    Args:
        kind: ``length`` the reply was cut off; ``too_long`` the request does not fit the context; ``refusal`` the model
            or a content filter declined; ``format`` the reply did not parse, re-asks included; ``request`` the server
            refused this request; ``transport`` no complete reply after all retries; ``pending`` it stands in a batch
            file and waits for its answer.
        message: One line with what happened.
        raw: The model's reply as far as there is one.
    """

    def __init__(self, kind: TroubleKind, message: str, raw: str = "") -> None:
        super().__init__(message, retryable=kind == "transport")
        self.kind = kind
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Completion:
    """The first choice of a chat completion."""

    text: str
    finish_reason: str
    refusal: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] | None = None
    model: str = ""
    """Name of the model that answered, as the reply gives it."""
    seconds: float = field(default=0.0, compare=False)
    """From the request to the reply, where a server gave it."""

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values, for the cache; what a completion does not have is not named."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("logprobs", "model", "seconds")}
        plain |= {"seconds": self.seconds} if self.seconds else {}
        return plain if self.logprobs is None else {**plain, "logprobs": to_plain_logprobs(self.logprobs)}

    @classmethod
    def from_body(cls, body: Any) -> "Completion":
        """The first choice of a chat completion's body.

        Raises:
            ValueError: If it is none, or has no text; the message says which.
        """
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
            usage = body.get("usage") or {}
            asked, said = (int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
            finish_reason = str(choice.get("finish_reason") or "")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
            raise ValueError("the body is no chat completion") from None
        if not isinstance(content, str) and not refusal and finish_reason != "content_filter":
            raise ValueError("the reply has no text")
        text, declined = encodable(content or ""), encodable(str(refusal or ""))
        model = encodable(body["model"]) if isinstance(body.get("model"), str) else ""
        logprobs = read_logprobs(choice.get("logprobs"))
        return cls(text, encodable(finish_reason), declined, asked, said, logprobs, model)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Completion":
        """The completion that `to_plain` made plain."""
        stored = plain.get("logprobs")
        return cls(**{**plain, "logprobs": None if stored is None else from_plain_logprobs(stored)})


StatusKind = Literal["quota", "transport", "refusal", "denied", "unknown", "gone", "too_long", "request"]


def kind_of_status(status: int, text: str) -> StatusKind:
    """What an HTTP error says about a request: ``quota``, ``denied``, ``unknown`` (address or model) and ``gone``
    befall all.

    Args:
        status: HTTP status.
        text: Body of the reply.
    """
    lowered = text.lower()
    if status == 429 and "insufficient_quota" in text:
        return "quota"
    if status in (408, 409, 429) or status >= 500:
        return "transport"
    if "content_filter" in lowered or (status == 403 and ("moderation" in lowered or "flagged" in lowered)):
        return "refusal"
    if status in (401, 403):
        return "denied"
    if status == 404:
        return "unknown"
    if status == 410:
        return "gone"
    about_size = "length" in lowered or "token" in lowered
    too_long = ("context" in lowered and about_size) or "input length" in lowered or "prompt is too long" in lowered
    return "too_long" if too_long else "request"


def error_message(text: str) -> str:
    """The message in the body of an HTTP error; all of it where there is none."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
