"""Prompts as text files, filled in one pass.

A prompt file is the system message; after a line ``=== user ===`` comes the user message (a file that starts with that
line has no system message). ``{{name}}`` marks a place to fill. All places are filled at once, so braces, tags and
placeholders inside a filled-in text stay what they are: text.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError

Message = tuple[str, str]
"""Role and content."""

USER_LINE = "=== user ==="
PUBLISHED = "published"
"""Name of the prompts of the authors' models, which were trained to know their task from the bare data."""
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a prompt, still with their ``{{places}}``."""

    system: str
    user: str

    @property
    def digest(self) -> str:
        """SHA-256 of the prompt, first 16 hexadecimal digits, for lineage."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()[:16]

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Messages with every place filled.

        Args:
            values: Text for each place; surplus values are ignored.

        Example:
            >>> Prompt("", "Read {{document}}").fill({"document": "{{query}} {0}", "query": "x"})
            (('user', 'Read {{query}} {0}'),)
        """
        user = ("user", fill(self.user, values))
        return (("system", fill(self.system, values)), user) if self.system else (user,)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace every ``{{name}}`` of `text` in one pass; the values themselves are never looked into."""
    return _PLACE.sub(lambda place: values[place[1]], text)


def parse_prompt(text: str, places: Collection[str], where: str) -> Prompt:
    """Check the text of a prompt file.

    Args:
        text: Content of the file.
        places: Names that the caller can fill.
        where: Name of the file, for the message.

    Raises:
        ConfigError: If the user part is missing, has no place to fill, or a place has an unknown name.
    """
    head, line, tail = f"\n{text}".partition(f"\n{USER_LINE}\n")
    prompt = Prompt(head.strip(), tail.strip())
    if not line or not prompt.user:
        raise ConfigError(f"{where}: a prompt needs a line {USER_LINE!r} followed by the user message")
    unknown = sorted(set(_PLACE.findall(text)) - set(places))
    if unknown:
        raise ConfigError(f"{where}: unknown place {{{{{unknown[0]}}}}}; known places: {', '.join(sorted(places))}")
    if not _PLACE.search(prompt.user):
        raise ConfigError(f"{where}: the user message has no place to fill; known places: {', '.join(sorted(places))}")
    return prompt


def read_prompt(path: Path, places: Collection[str]) -> Prompt:
    """Read a prompt file.

    Raises:
        ConfigError: If it cannot be read or is not a prompt.
    """
    try:
        return parse_prompt(path.read_text(encoding="utf-8"), places, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the prompt file cannot be read: {error}") from None


def find_prompt(chosen: str | None, shipped: Path) -> Path:
    """The prompt file that a recipe means.

    Args:
        chosen: Name of a prompt that ships, such as ``published``, or the path of a file; ``None`` for `shipped`.
        shipped: The default, ``<stage>.prompt.txt``; others that ship lie beside it as ``<stage>.<name>.prompt.txt``.
    """
    if chosen is None:
        return shipped
    if not re.fullmatch(r"[a-z0-9_]+", chosen):
        return Path(chosen)
    named = shipped.with_name(f"{shipped.name.removesuffix('.prompt.txt')}.{chosen}.prompt.txt")
    return named if named.is_file() else Path(chosen)


def as_input(**values: Any) -> str:
    r"""A request's data as one JSON object, the form in which our prompts carry hostile text.

    Example:
        >>> print(as_input(query='say "hi"'))
        {"query": "say \"hi\""}
    """
    return json.dumps(values, ensure_ascii=False)
