"""Amazon S3 and whatever speaks its language (MinIO, Ceph, R2), through s3fs.

Conditions are the headers ``If-None-Match: *`` and ``If-Match: ETAG`` of a write. What is larger than one request may
be goes up in pieces, and the condition belongs to the request that joins them.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from fineinstructions.stores.raw import Entry
from fineinstructions.stores.trouble import Conflict, is_passing, status_of

ONE_REQUEST_BYTES = 64 << 20
"""Most bytes that go up in one request, and so are held in memory."""
PIECE_PAUSES_SECONDS = (0.5, 1.0, 2.0)
LISTED_AT_ONCE = 1000


class S3:
    """A `Raw` store.

    Args:
        path: Bucket, and folder in it.
    """

    def __init__(self, path: str) -> None:
        import s3fs

        self._bucket, _, prefix = path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        once = {"retries": {"total_max_attempts": 1}}  # `Objects` is patient, and the tries would multiply
        self._fs: Any = s3fs.S3FileSystem(config_kwargs=once, use_listings_cache=False, skip_instance_cache=True)
        self._fs.retries = 1

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"

    def put(self, key: str, source: bytes | Path, *, new: bool, version: str | None) -> str:
        """Write an object; see `Raw`."""
        condition = {"IfNoneMatch": "*"} if new else {"IfMatch": version} if version else {}
        try:
            if isinstance(source, Path) and source.stat().st_size > ONE_REQUEST_BYTES:
                return self._put_pieces(key, source, condition)
            body = source if isinstance(source, bytes) else source.read_bytes()
            return str(self._fs.call_s3("put_object", Body=body, **self._place(key), **condition)["ETag"])
        except FileExistsError:
            raise Conflict(key) from None
        except OSError as error:
            if condition and status_of(error)[0] in (404, 412):  # 404: what was to be replaced is gone
                if status_of(error)[1] == "NoSuchBucket":
                    raise
                raise Conflict(key) from None
            raise

    def _put_pieces(self, key: str, source: Path, condition: dict[str, str]) -> str:
        """Write an object that is too large for one request."""
        place = self._place(key)
        upload = place | {"UploadId": self._fs.call_s3("create_multipart_upload", **place)["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            with source.open("rb") as file:
                while body := file.read(ONE_REQUEST_BYTES):
                    answer = self._put_piece(upload | {"PartNumber": len(parts) + 1, "Body": body})
                    parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
            done = self._fs.call_s3(
                "complete_multipart_upload", MultipartUpload={"Parts": parts}, **upload, **condition
            )
        except BaseException:
            with contextlib.suppress(Exception):  # what is left of it costs room only
                self._fs.call_s3("abort_multipart_upload", **upload)
            raise
        return str(done["ETag"])

    def _put_piece(self, piece: dict[str, Any]) -> Any:
        """Send one piece, more than once if it must be, so that the others need not be sent again."""
        for pause in PIECE_PAUSES_SECONDS:
            try:
                return self._fs.call_s3("upload_part", **piece)
            except Exception as error:  # the boundary to a library that brings exceptions of its own
                if not is_passing(error):
                    raise
                time.sleep(pause)
        return self._fs.call_s3("upload_part", **piece)

    def read_with_version(self, key: str) -> tuple[bytes, str]:
        """Content and version of an object; see `Raw`."""

        async def read() -> tuple[bytes, str]:
            answer = await self._fs._call_s3("get_object", **self._place(key))
            async with answer["Body"] as body:
                return bytes(await body.read()), str(answer["ETag"])

        found: tuple[bytes, str] = sync(self._fs.loop, read)
        return found

    def read(self, key: str, start: int, stop: int | None) -> bytes:
        """Bytes of an object; see `Raw`."""
        return bytes(self._fs.cat_file(self._path(key), start=start or None, end=stop, max_concurrency=1))

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file; see `Raw`."""
        self._fs.get_file(self._path(key), str(path))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins so; see `Raw`."""
        more: dict[str, str] = {}
        while True:
            page = self._fs.call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=LISTED_AT_ONCE, **more
            )
            for found in page.get("Contents", ()):
                yield Entry(found["Key"][len(self._prefix) :], int(found["Size"]))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; see `Raw`."""
        for start in range(0, len(keys), LISTED_AT_ONCE):
            names = [{"Key": self._prefix + key} for key in keys[start : start + LISTED_AT_ONCE]]
            answer = self._fs.call_s3("delete_objects", Bucket=self._bucket, Delete={"Objects": names, "Quiet": True})
            for failed in answer.get("Errors", ()):
                raise PermissionError(f"{failed.get('Code', '')} {failed.get('Message', '')}")

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store; see `Raw`."""
        self._fs.call_s3("copy_object", CopySource=self._place(source), **self._place(target))
