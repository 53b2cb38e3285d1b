"""The three kinds of trouble that leave a function as an exception; a record's own trouble is a `Rejection` instead.

Every message is one line that says what is wrong, where (file, row, field), and what to do about it.
"""


class FineInstructionsError(Exception):
    """Root of the package's own exceptions."""


class ConfigError(FineInstructionsError):
    """The user's trouble: a bad recipe, an unreadable file, an input without one valid row. Exit code 2."""


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
