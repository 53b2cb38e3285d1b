"""The three kinds of trouble that leave a function as an exception; a record's own trouble is a `Rejection` instead.

Every message is one line that says what is wrong, where (file, row, field), and what to do about it. Files, columns and
servers have a say in it, so whatever would steer a terminal is taken out.
"""

import re

STEERING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that would steer a terminal or turn its writing direction, for a class of a regular expression."""
_UNPRINTABLE = re.compile(rf"[{STEERING}\t\n\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text as one line that can be shown on any terminal.

    Example:
        >>> printable("no column 'a\n\x1b[2Jb'")
        "no column 'a  [2Jb'"
    """
    return _SURROGATE.sub("\ufffd", _UNPRINTABLE.sub(" ", text))


def counted(number: int, noun: str) -> str:
    """A number and what it counts, for messages.

    Args:
        number: How many.
        noun: The word for one, whose plural ends in s, es after s, or ies for y.

    Example:
        >>> counted(1, "file"), counted(2_000, "query"), counted(0, "pass")
        ('1 file', '2,000 queries', '0 passes')
    """
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


class FineInstructionsError(Exception):
    """Root of the package's own exceptions.

    Args:
        message: One line; it is made one, and fit for a terminal, if it is not.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(FineInstructionsError):
    """The user's trouble: a bad recipe, an unreadable file, an input without one valid row. Exit code 2."""


class StaleError(ConfigError):
    """Results that would be lost, because settings or inputs are others than those that made them."""


class DataError(FineInstructionsError):
    """A work unit, manifest or artefact that is corrupt or does not add up. Exit code 1."""


class BackendError(FineInstructionsError):
    """An engine's trouble: a model server, an index, an encoder.

    Args:
        message: One line with what happened.
        retryable: Whether the same request may succeed later; only `backends/` retries.
        hint: What the user can do.
    """

    def __init__(self, message: str, *, retryable: bool = False, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.retryable = retryable
        self.hint = hint


class PendingError(BackendError):
    """No trouble: requests stand in batch files and wait for their answers. Exit code 3."""


class HandedOverError(FineInstructionsError):
    """No trouble: jobs of a cluster go on with the run, and nobody waits for them. Exit code 3."""
