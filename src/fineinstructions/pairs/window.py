"""The part of a long document that a model is shown: around the passage that was matched, cut at sentence borders.

In: a text, a span of it, limits. Out: a half-open span of the text, so that whatever is quoted from the window has its
offsets in the whole document.
"""

import json
import re

from fineinstructions.backends.llm import LlmConfig
from fineinstructions.backends.tokens import CountTokens
from fineinstructions.errors import ConfigError

MIN_WINDOW_CHARS = 200
"""A window that would have to be shorter is none. Ours."""
FRAME_TOKENS = 64
"""Tokens of a context that are left for the chat format around the messages. Ours."""
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*\s+|\n+")


def document_window(text: str, focus: tuple[int, int], max_chars: int) -> tuple[int, int]:
    """The part of a document to show a model: all of it, or a window around its focus, at sentence borders.

    Args:
        text: The document.
        focus: Half-open character span that must be in the middle of the window; where it is not longer than
            `max_chars`, the window holds all of it.
        max_chars: Longest window in characters.

    Returns:
        Half-open character span, never longer than `max_chars`.

    Example:
        >>> text = "One is here. Two is there. Three is nowhere. Four is everywhere."
        >>> start, end = document_window(text, (27, 44), 40)
        >>> text[start:end]
        'Three is nowhere. '
    """
    if len(text) <= max_chars:
        return 0, len(text)
    middle = min((focus[0] + focus[1]) // 2, len(text) - 1)
    start = min(max(0, middle - max_chars // 2), len(text) - max_chars)
    end = start + max_chars
    borders = [found.end() for found in _SENTENCE_END.finditer(text, start, end)]
    first = next((border for border in borders if border <= min(focus[0], middle)), start) if start else 0
    behind = max(focus[1], middle + 1)
    last = next((border for border in reversed(borders) if border >= behind), end) if end < len(text) else end
    return first, last


def fitting_window(
    text: str, focus: tuple[int, int], max_chars: int, max_tokens: int | None, count: CountTokens
) -> tuple[int, int] | None:
    """A window within both limits, as long as they allow, about.

    Args:
        text: The document.
        focus: As in `document_window`.
        max_chars: Longest window in characters.
        max_tokens: Longest window in tokens of its JSON string; ``None`` for no such limit.
        count: Counts tokens.

    Returns:
        Half-open character span; ``None`` where not even a short part of the document fits.
    """
    chars = min(max_chars, len(text))
    shortest = max(1, min(chars, MIN_WINDOW_CHARS))
    while chars >= shortest:
        start, end = document_window(text, focus, chars)
        num_tokens = 0 if max_tokens is None else count(json.dumps(text[start:end], ensure_ascii=False))
        if max_tokens is None or num_tokens <= max_tokens:
            return start, end
        chars = int(0.97 * (end - start) * max(0, max_tokens) / num_tokens)
    return None


def room_tokens(context_tokens: int, llm: LlmConfig, prompt: str, count: CountTokens) -> int:
    """Tokens that a context holds besides a prompt and the longest reply; may be none, or fewer."""
    return context_tokens - llm.max_tokens - count(prompt) - FRAME_TOKENS


def require_room(room: int, llm: LlmConfig, count: CountTokens) -> None:
    """Refuse a context that was set too short for any document.

    Raises:
        ConfigError: If it was.
    """
    if room < count("a" * MIN_WINDOW_CHARS):
        raise ConfigError(
            f"llm.context_tokens: {llm.context_tokens:,} leave {room:,} for a document, less the prompt and "
            f"{llm.max_tokens:,} of a reply; set llm.max_tokens lower"
        )
