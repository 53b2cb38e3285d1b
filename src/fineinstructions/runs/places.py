"""Where a run lies as users say it, a folder or a URL, and the folder where its files are worked on.

In: a path or a URL. Out: the run folder, or the working folder of a run on a store, in line with it.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from fineinstructions.errors import ConfigError
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.mirror import Mark, look
from fineinstructions.runs.remote import MARK
from fineinstructions.stores import is_url, open_objects

_SAME = {"s3a://": "s3://", "gcs://": "gs://"}


def run_root(place: str | Path, work: str | Path | None = None) -> Path:
    """Folder where the files of a run are worked on, for who is going to change it.

    Args:
        place: Run folder, or URL of a run on a store.
        work: Folder of working folders; by default one in the user's cache directory.

    Returns:
        The run folder as it is, or the working folder, which knows the store from now on.

    Raises:
        ConfigError: If the URL is of no store, its store cannot be read, or the working folder cannot be made.
    """
    root = _root(place, work)
    look(root, RunFolder.open, with_units=False)
    return root


def look_at(place: str | Path, work: str | Path | None = None) -> Path:
    """Like `run_root`, for who only reads: the working folder of a run on a store is brought in line with it."""
    root = _root(place, work)
    look(root, RunFolder.open)
    return root


def open_run(place: str | Path, work: str | Path | None = None) -> RunFolder:
    """A run as it is, for who only reads; arguments as `run_root`.

    Raises:
        ConfigError: If there is none, or its store cannot be read.
    """
    return RunFolder.open(look_at(place, work))


@contextmanager
def fresh_look(place: str | Path, work: str | Path | None = None) -> Iterator[Path]:
    """Like `look_at`, but for a run on a store into an empty folder, so that all is read from there, and gone then."""
    if not is_url(place):
        yield Path(place)
        return
    around = _root(place, work).parent
    root = Path(mkdtemp(prefix="verify-", dir=around))
    try:
        Mark(_url(place)).save(root)
        look(root, RunFolder.open)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def gone_unless_begun(root: Path) -> Iterator[Callable[[], None]]:
    """Take a run folder away again that was made for nothing: the run was refused before it did or asked anything.

    Args:
        root: The folder, before the run has its lease.

    Yields:
        What to call once it has, because until then the folder may be another run's.
    """
    made = [folder for folder in (root, *root.absolute().parents) if not folder.exists()]
    is_ours: list[bool] = []
    try:
        yield lambda: is_ours.append(True)
    except ConfigError:
        has_begun = any((root / name).exists() for name in ("units", "cache", MARK))
        if is_ours and root in made and not has_begun:
            shutil.rmtree(root, ignore_errors=True)
            with suppress(OSError):  # somebody else has put something there by now
                for folder in made[1:]:
                    folder.rmdir()
        raise


def _url(place: str | Path) -> str:
    url = str(place)
    while url.endswith("/") and not url.endswith("://"):
        url = url[:-1]
    for other, usual in _SAME.items():
        url = usual + url.removeprefix(other) if url.startswith(other) else url
    return url


def _root(place: str | Path, work: str | Path | None) -> Path:
    if not is_url(place):
        return Path(place)
    url = _url(place)
    open_objects(url)
    around = Path(work) if work else _cache_dir() / "fineinstructions" / "runs"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", url.rpartition("/")[2])[:40].strip(".-") or "run"
    root = around / f"{name}-{sha256(url.encode()).hexdigest()[:12]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MARK).exists():
            Mark(url).save(root)
    except OSError as error:
        raise ConfigError(f"{root}: cannot be made ({error.strerror}); choose another --work") from None
    return root


def _cache_dir() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if named.startswith("/") else Path.home() / ".cache"
