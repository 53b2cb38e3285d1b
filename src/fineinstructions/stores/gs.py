"""Google Cloud Storage, through gcsfs.

A version is an object's generation; conditions are ``ifGenerationMatch``, 0 where nothing may be there yet. gcsfs
retries by itself, for about half a minute.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fineinstructions.stores.raw import Entry
from fineinstructions.stores.trouble import Conflict

ONE_REQUEST_BYTES = 64 << 20
"""Most bytes that go up in one request, and so are held in memory."""
LISTED_AT_ONCE = 1000


class Gs:
    """A `Raw` store.

    Args:
        path: Bucket, and folder in it.
    """

    def __init__(self, path: str) -> None:
        from gcsfs.core import GCSFileSystem  # the plain one: the other asks a second interface first

        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # what it tells, `trouble` tells in one line
        self._bucket, _, prefix = path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._fs: Any = GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"

    def _object(self, key: str, **options: Any) -> Any:
        return self._fs.call("GET", "b/{}/o/{}", self._bucket, self._prefix + key, **options)

    def put(self, key: str, source: bytes | Path, *, new: bool, version: str | None) -> str:
        """Write an object; see `Raw`."""
        try:
            if isinstance(source, Path) and source.stat().st_size > ONE_REQUEST_BYTES:
                self._fs.put_file(str(source), self._path(key), mode="create" if new else "overwrite")
                return ""
            condition = {"ifGenerationMatch": "0" if new else version} if new or version else {}
            written = self._fs.call(
                "POST",
                f"{self._fs._location}/upload/storage/v1/b/{self._bucket}/o",
                uploadType="media",
                name=self._prefix + key,
                headers={"Content-Type": "application/octet-stream"},
                data=source if isinstance(source, bytes) else source.read_bytes(),
                json_out=True,
                **condition,
            )
            return str(written["generation"])
        except FileExistsError:
            raise Conflict(key) from None

    def read_with_version(self, key: str) -> tuple[bytes, str]:
        """Content and version of an object; see `Raw`."""
        headers, content = self._object(key, alt="media")
        return bytes(content), str(headers["X-Goog-Generation"])

    def read(self, key: str, start: int, stop: int | None) -> bytes:
        """Bytes of an object; see `Raw`."""
        whole = start == 0 and stop is None
        headers = {} if whole else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        return bytes(self._object(key, alt="media", headers=headers)[1])

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file; see `Raw`."""
        self._fs.get_file(self._path(key), str(path))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins so; see `Raw`."""
        more: dict[str, str] = {}
        while True:
            page = self._fs.call(
                "GET", "b/{}/o", self._bucket, prefix=self._prefix + prefix, maxResults=LISTED_AT_ONCE,
                json_out=True, **more,
            )  # fmt: skip
            for found in page.get("items", ()):
                yield Entry(found["name"][len(self._prefix) :], int(found["size"]))
            if "nextPageToken" not in page:
                return
            more = {"pageToken": page["nextPageToken"]}

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; see `Raw`."""
        for key in keys:
            try:
                self._fs.call("DELETE", "b/{}/o/{}", self._bucket, self._prefix + key)
            except FileNotFoundError:
                continue

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store; see `Raw`."""
        self._fs.cp_file(self._path(source), self._path(target))
