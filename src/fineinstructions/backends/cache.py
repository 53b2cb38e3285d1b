"""Replies kept on disk, so that redoing work asks no model twice.

One append-only JSONL segment per process; opening a cache reads the segments of all earlier processes into an index of
offsets. No database: a segment survives a killed writer (a torn last line is skipped) and two machines can write side
by side on a shared file system.
"""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fineinstructions.errors import BackendError, ConfigError

_KEY_START = b'{"key":"'
_KEY_LENGTH = 64
_as_json = json.JSONEncoder(separators=(",", ":")).encode


class ResponseCache:
    """Replies by the SHA-256 of their request; safe to use from several threads.

    Its index is read when it is first asked for something, so that having one costs nothing.

    Args:
        cache_dir: Folder of the segments; made with the first reply.
    """

    def __init__(self, cache_dir: str | Path) -> None:
        self._dir = Path(cache_dir)
        self._lock = threading.Lock()
        self._index: dict[bytes, tuple[int, int]] | None = None
        self._segments: list[Path] = []
        self._writer: IO[bytes] | None = None
        self._written_bytes = 0
        """Of the segment being written, which nobody else appends to."""

    def __len__(self) -> int:
        with self._lock:
            return len(self._places())

    def keys(self) -> list[str]:
        """Every key there is, sorted.

        Raises:
            ConfigError: If the folder cannot be read.
        """
        with self._lock:
            return sorted(key.hex() for key in self._places())

    def get(self, key: str) -> dict[str, Any] | None:
        """What was stored under a key, or None; a damaged line counts as not stored.

        Raises:
            ConfigError: If the folder cannot be read.
        """
        with self._lock:
            place = self._places().get(bytes.fromhex(key))
            if place is None:
                return None
            path, start = self._segments[place[0]], place[1]
        try:
            with path.open("rb") as segment:
                segment.seek(start)
                line = segment.readline()
            entry = json.loads(line)
            return dict(entry["value"]) if entry["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Store a value; it is handed to the operating system before this returns.

        Args:
            key: 64 hexadecimal digits.
            value: Plain JSON values.

        Raises:
            BackendError: If the segment cannot be written.
            ConfigError: If the folder cannot be read.
        """
        line = _as_json({"key": key, "value": value}).encode() + b"\n"
        with self._lock:
            places = self._places()
            try:
                if self._writer is None:
                    self._dir.mkdir(parents=True, exist_ok=True)
                    path = self._dir / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
                    self._writer = path.open("xb", buffering=0)
                    self._segments.append(path)
                    self._written_bytes = 0
                _write_whole(self._writer, line)
            except OSError as error:
                self._end_segment()  # its tail may be torn, and the next line must not be joined to that
                raise BackendError(f"{self._dir}: cannot be written: {error}", hint="free space, then rerun") from None
            places[bytes.fromhex(key)] = (len(self._segments) - 1, self._written_bytes)
            self._written_bytes += len(line)

    def look_again(self) -> None:
        """Have the segments read anew by the next question: one of another process may have grown since."""
        with self._lock:
            self._end_segment()  # the next line goes into a new one, with a number of its own
            self._index = None

    def close(self) -> None:
        """Close the segment being written; reading stays possible."""
        with self._lock:
            self._end_segment()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_segment(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _places(self) -> dict[bytes, tuple[int, int]]:
        """Segment number and offset of every key; the lock is held by the caller."""
        if self._index is None:
            found: dict[bytes, tuple[int, int]] = {}
            try:
                self._segments = sorted(self._dir.glob("*.jsonl"))
                for number, path in enumerate(self._segments):
                    found |= {key: (number, start) for key, start in _entries(path)}
            except OSError as error:
                raise ConfigError(f"{self._dir}: the response cache cannot be opened: {error}") from None
            self._index = found
        return self._index


def _write_whole(file: IO[bytes], line: bytes) -> None:
    """Write a line to an unbuffered file, which may take only a part at a time."""
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) :]


def _entries(segment: Path) -> Iterator[tuple[bytes, int]]:
    """Key and offset of every whole line."""
    start = 0
    with segment.open("rb") as lines:
        for line in lines:
            key = _key_of(line)
            if key is not None:
                yield key, start
            start += len(line)


def _key_of(line: bytes) -> bytes | None:
    """Key of a whole line; None for a torn or damaged one, whose request will be made again."""
    if not (line.startswith(_KEY_START) and line.endswith(b"}\n")):
        return None
    try:
        return bytes.fromhex(line[len(_KEY_START) : len(_KEY_START) + _KEY_LENGTH].decode())
    except ValueError:
        return None
