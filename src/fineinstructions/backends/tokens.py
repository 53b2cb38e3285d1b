"""How many tokens a text has: an estimate that needs nothing, or a count by the model's own tokenizer.

Text in, number out. The decision one may question: there are two estimates. What was written is counted as it usually
comes out; what must fit into a context is counted by bytes, so that it is hardly ever more.
"""

import re
from collections.abc import Callable
from pathlib import Path

from fineinstructions.errors import ConfigError

BYTES_PER_TOKEN = 3
"""Bytes of UTF-8 in a token, at least, of nearly any text: English has more than 4, other languages and code about 3.
Ours."""
_PIECE = re.compile(r"\w{1,6}|[^\w\s]")

CountTokens = Callable[[str], int]
"""From a text to its number of tokens."""


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: one for every mark, and for every six letters of a word or part of them.

    Source:
        Ours: English comes to 1.3 tokens a word, as with the vocabularies of current models.

    Example:
        >>> estimated_tokens("It is one of the most used drugs."), estimated_tokens("Photosynthesis")
        (9, 3)
    """
    return sum(1 for _ in _PIECE.finditer(text))


def most_tokens(text: str) -> int:
    """How many tokens a text has at most, by its bytes; see `BYTES_PER_TOKEN`.

    Example:
        >>> most_tokens("It is one of the most used drugs.")
        11
    """
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def token_counter(tokenizer: str | None) -> CountTokens:
    """What counts the tokens that must fit into a context.

    Args:
        tokenizer: Folder of a Hugging Face tokenizer; ``None`` for the estimate by bytes. A name on the hub is refused:
            what it means can change, and every worker would ask.

    Raises:
        ConfigError: If there is no such folder or the tokenizer cannot be loaded.
    """
    if tokenizer is None:
        return most_tokens
    if not Path(tokenizer).is_dir():
        raise ConfigError(
            f"llm.tokenizer: there is no folder {tokenizer}; get a tokenizer from the hub with "
            "'hf download MODEL --exclude \"*.safetensors\" --local-dir FOLDER' and name that folder"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ConfigError("llm.tokenizer: needs the extra: pip install 'fineinstructions[embed]'") from None
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"llm.tokenizer: {tokenizer}: {' '.join(str(error).split())[:300]}") from None
    return lambda text: len(loaded.encode(text, add_special_tokens=False))
