"""Uploading a folder to the Hugging Face hub as a data set: few commits, the last of which makes it whole.

In: a folder and the names of its files. Out: commits on the hub. The decision a reader would question: many files go
into one commit, because the hub limits commits per hour and slows down with their number; what an interrupted upload
has sent, the hub knows by its digest and does not ask for again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fineinstructions.backends.hub import EXTRA
from fineinstructions.errors import BackendError, ConfigError

FILES_A_COMMIT = 100
BYTES_A_COMMIT = 50 << 30
"""Most files and bytes in a commit. Ours; the hub advises 50 to 100 files and a few commits."""
MAX_TRIES = 7
FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 300.0
TRANSPORTS = ("httpx", "httpcore")
"""Packages whose exceptions mean that the hub could not be reached."""
RETRIED_STATUSES = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})


def upload(
    folder: Path,
    name: str,
    files: Sequence[str],
    last: Sequence[str],
    *,
    private: bool = True,
    note: Callable[[str], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Upload files of a folder to a data set, which is made where it does not exist.

    Args:
        folder: The folder.
        name: ``owner/name``.
        files: Names of the files, relative to the folder.
        last: Names of the files that go with the last commit, such as a data card.
        private: Whether a new data set is for its owner only.
        note: Told about every commit and every wait.
        wait: Waits for some seconds.

    Returns:
        How many commits were made.

    Raises:
        ConfigError: If the extra is not installed, or the hub refuses the name or the rights.
        BackendError: If the hub does not answer, several times in a row.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise ConfigError(f"{name}: uploading needs pip install 'fineinstructions[{EXTRA}]'") from None
    api = HfApi()

    def patiently(what: str, call: Callable[[], Any]) -> Any:
        return _patiently(what, call, note, wait)

    try:
        patiently(f"make {name}", lambda: api.create_repo(name, repo_type="dataset", private=private, exist_ok=True))
    except HFValidationError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())[:200]}") from None
    commits = [*_commits(folder, [file for file in files if file not in last]), list(last)]
    for number, batch in enumerate(commits, start=1):

        def commit(batch: Sequence[str] = batch, number: int = number) -> None:
            operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=folder / file) for file in batch]
            message = f"Upload part {number} of {len(commits)}"
            api.create_commit(name, operations=operations, commit_message=message, repo_type="dataset")

        patiently(f"commit {number} of {len(commits)}", commit)
        note(f"{name}: commit {number} of {len(commits)}, {len(batch)} files")
    return len(commits)


def _commits(folder: Path, files: Sequence[str]) -> Iterator[list[str]]:
    """Files by commit."""
    batch, size = list[str](), 0
    for file in files:
        num_bytes = (folder / file).stat().st_size
        if batch and (len(batch) >= FILES_A_COMMIT or size + num_bytes > BYTES_A_COMMIT):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += num_bytes
    if batch:
        yield batch


def _patiently(what: str, call: Callable[[], Any], note: Callable[[str], None], wait: Callable[[float], None]) -> Any:
    """A call that is made again, after longer and longer waits, where the hub may answer later."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for number in range(1, MAX_TRIES + 1):
        try:
            return call()
        except HFValidationError:
            raise
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            line = " ".join(str(error).split())[:200]
            if status not in RETRIED_STATUSES:
                raise ConfigError(f"{what}: the hub refuses ({line}); check the name and 'hf auth login'") from None
            asked = _seconds(getattr(error.response, "headers", {}).get("Retry-After"))
        except Exception as error:  # the client lets its transport's own exceptions through
            if not isinstance(error, OSError) and not type(error).__module__.startswith(TRANSPORTS):
                raise
            line, asked = " ".join(str(error).split())[:200] or type(error).__name__, None
        seconds = min(MAX_WAIT_SECONDS, asked if asked is not None else FIRST_WAIT_SECONDS * 2 ** (number - 1))
        if number < MAX_TRIES:
            note(f"{what}: {line}; trying again in {seconds:g} s")
            wait(seconds)
    raise BackendError(f"{what}: the hub does not answer: {line}", retryable=True, hint="run the same command again")


def _seconds(header: Any) -> float | None:
    try:
        return max(0.0, float(header))
    except (TypeError, ValueError):
        return None
