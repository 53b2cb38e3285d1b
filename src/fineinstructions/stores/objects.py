"""What a run asks of a store, with retries and with errors that say what to do.

The decision a reader would question: whether a condition held is decided by the store alone, in the request that
writes. Nothing is looked up first, so there is no moment in between; and a reply that got lost shows as a conflict with
oneself, which callers recognise by the content.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fineinstructions.errors import ConfigError
from fineinstructions.stores.raw import Entry, Raw
from fineinstructions.stores.trouble import Conflict, is_passing, no_filesystem, told

T = TypeVar("T")

PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits between the tries of a request, each made longer at random by up to its half. Ours."""
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)://(?P<path>.*)", re.DOTALL)
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}


class Objects:
    """The objects below one URL.

    Args:
        url: The URL, for messages.
        raw: The store.
        pauses: Seconds between tries.
    """

    def __init__(self, url: str, raw: Raw, pauses: Sequence[float] = PAUSES_SECONDS) -> None:
        self.url, self._raw, self._pauses = url, raw, pauses

    def put_new(self, key: str, source: bytes | Path) -> str:
        """Write an object that must not be there yet.

        Returns:
            Its version; empty where the store does not tell it.

        Raises:
            Conflict: If it is there, perhaps from a try whose reply got lost.
        """
        return self._write(key, source, new=True)

    def replace(self, key: str, source: bytes | Path, version: str) -> str:
        """Write an object in place of a certain version of it.

        Returns:
            The new version.

        Raises:
            Conflict: If it has another version by now, perhaps from a try whose reply got lost.
        """
        return self._write(key, source, version=version)

    def put(self, key: str, source: bytes | Path) -> None:
        """Write an object, whatever is there."""
        self._write(key, source)

    def _write(self, key: str, source: bytes | Path, *, new: bool = False, version: str | None = None) -> str:
        try:
            return self._try("write", lambda: self._raw.put(key, source, new=new, version=version))
        except FileNotFoundError as error:
            raise told(self.url, error, "write") from None

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an object.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self._try("read", lambda: self._raw.read(key, start, stop))

    def read_with_version(self, key: str) -> tuple[bytes, str] | None:
        """Content and version of an object that may change; ``None`` where there is none."""
        try:
            return self._try("read", lambda: self._raw.read_with_version(key))
        except FileNotFoundError:
            return None

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file.

        Raises:
            FileNotFoundError: If there is none.
        """
        self._try("read", lambda: self._raw.fetch(key, path))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Objects whose key begins so, in the order of their keys."""
        last = ""
        for attempt in range(len(self._pauses) + 1):
            try:
                for entry in self._raw.list(prefix):
                    if entry.key > last:
                        yield entry
                        last = entry.key
                return
            except FileNotFoundError as error:
                raise told(self.url, error, "list") from None
            except Exception as error:  # noqa: BLE001 - the boundary to filesystems that bring exceptions of their own
                self._wait(attempt, error, "list")

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        if keys:
            self._try("delete", lambda: self._raw.delete(keys))

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store.

        Raises:
            FileNotFoundError: If there is none.
        """
        self._try("write", lambda: self._raw.copy(source, target))

    def _try(self, doing: str, call: Callable[[], T]) -> T:
        """Call until it works, or its trouble does not look like passing by itself."""
        attempt = 0
        while True:
            try:
                return call()
            except (Conflict, FileNotFoundError):
                raise
            except Exception as error:  # noqa: BLE001 - the boundary to filesystems that bring exceptions of their own
                self._wait(attempt, error, doing)
                attempt += 1

    def _wait(self, attempt: int, error: Exception, doing: str) -> None:
        """Wait before another try, or raise what the trouble comes to."""
        if attempt >= len(self._pauses) or not is_passing(error):
            raise told(self.url, error, doing) from None
        time.sleep(self._pauses[attempt] * random.uniform(1.0, 1.5))


def is_url(place: str | Path) -> bool:
    """Whether a place is named by a URL.

    Example:
        >>> is_url("s3://bucket/run"), is_url("runs/first")
        (True, False)
    """
    return _URL.fullmatch(str(place)) is not None


def open_objects(url: str, pauses: Sequence[float] = PAUSES_SECONDS) -> Objects:
    """The objects below a URL; nothing is asked of the store yet.

    Raises:
        ConfigError: If the URL is of no store that can be written, or its filesystem is not installed.
    """
    found = _URL.fullmatch(url)
    scheme = _SCHEMES.get(found["scheme"]) if found else None
    if found is None or scheme is None:
        raise ConfigError(f"{url}: a run can be kept in a folder, or under s3://, gs:// or hf://; choose another --out")
    path = found["path"].strip("/")
    if not path:
        raise ConfigError(f"{url}: names no bucket; say {scheme}://BUCKET/FOLDER")
    try:
        return Objects(url, _raw(scheme, path), pauses)
    except ImportError:
        raise no_filesystem(url, scheme) from None


def _raw(scheme: str, path: str) -> Raw:
    if scheme == "s3":
        from fineinstructions.stores.s3 import S3

        return S3(path)
    if scheme == "gs":
        from fineinstructions.stores.gs import Gs

        return Gs(path)
    from fineinstructions.stores.hf import Hf

    return Hf(path)
