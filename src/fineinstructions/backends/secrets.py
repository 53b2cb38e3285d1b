"""Keys and what servers say: what is read from the environment, and what may be shown.

In: names of variables, and words of servers. Out: keys that can be sent, and lines that hold none of them. A key is in
no recipe, no record and no message.
"""

import json
import os
import re

from fineinstructions.errors import ConfigError, printable


def key_of(variable: str) -> str:
    """The key that a variable holds, without the blanks and line ends that come with one read from a file.

    Args:
        variable: Name of the environment variable.

    Returns:
        The key; empty for none.

    Raises:
        ConfigError: If it cannot be sent; libraries would show it in their own words.
    """
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(f"{variable}: holds blanks or characters that no key has; set it to the key alone")
    return key


def safe_line(text: str, key: str = "") -> str:
    """A server's words for a message: one line that can be written anywhere, not long, without the key.

    Args:
        text: What the server or the connection said.
        key: The key that was sent; empty for none.
    """
    for shown in {key, repr(key)[1:-1], json.dumps(key)[1:-1]} - {""}:
        text = text.replace(shown, "***")
    return " ".join(printable(text).split())[:300]
