"""Many files in one: a zip without compression, so that each of them is read straight from its bytes.

In: named files or bytes. Out: one file that any zip program opens, with the same bytes for the same content. Its last
member, the manifest, is found from the end of the file without reading the directory of all others.

The decision a reader would question: a zip and not a format of our own. Its directory and checksums are all that is
needed, every language reads it, and a person can look into one.
"""

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Self

from fineinstructions.errors import DataError

Opener = Callable[[], BinaryIO]
"""Opens a file for reading at any place; called once for every reader, so that readers do not move each other."""

COPY_BYTES = 1 << 20
READ_BYTES = 64 << 10
TAIL_BYTES = 22 + 128
"""Bytes at the end of a container that hold the end of its directory and its comment."""
_END = b"PK\x05\x06"
_HEADER = struct.Struct("<4s22xHH")


class DamagedContainerError(DataError):
    """A container is torn, was changed, or was packed by another program; reading it again would not help."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of one file inside a container."""

    name: str
    """Container and member, for messages."""
    opener: Opener
    """Opens the container."""
    header: int
    """Where the member's header begins in the container."""
    num_bytes: int

    def open(self) -> BinaryIO:
        """The member as a file of its own.

        Raises:
            DataError: If the container ends before it, or holds something else there.
        """
        file = self.opener()
        try:
            file.seek(self.header)
            mark, name_bytes, extra_bytes = _HEADER.unpack(file.read(_HEADER.size))
            if mark != b"PK\x03\x04":
                raise ValueError("no file where the directory says")
        except (OSError, ValueError, struct.error) as error:
            file.close()
            raise DataError(f"{self.name}: cannot be read ({error}); run verify to see what is damaged") from None
        stretch = _Stretch(file, self.header + _HEADER.size + name_bytes + extra_bytes, self.num_bytes)
        return io.BufferedReader(stretch, READ_BYTES)

    def read(self) -> bytes:
        """All of its bytes."""
        with self.open() as file:
            return file.read()

    def sha256(self) -> str:
        """SHA-256 of its content, as hexadecimal digits."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


class _Stretch(io.RawIOBase):
    """Part of a file as a file; closes it when it is closed."""

    def __init__(self, file: BinaryIO, offset: int, num_bytes: int) -> None:
        self._file, self._offset, self._num_bytes, self._position = file, offset, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, {0: 0, 1: self._position, 2: self._num_bytes}[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._num_bytes - self._position))
        self._file.seek(self._offset + self._position)
        block = self._file.read(wanted)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class Member:
    """A file that is to go into a container."""

    name: str
    content: bytes | Path | Stored
    sha256: str = ""
    """What its content must have; empty where it is not known."""


def write_container(target: BinaryIO, members: Iterable[Member]) -> None:
    """Write a container.

    Args:
        target: Empty file, open for writing; can seek.
        members: What goes in, in this order; the last one is what `Container.last` gives.

    Raises:
        DataError: If a member does not have the content that it must have.
    """
    mark = ""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name)  # of 1980, so that equal content has equal bytes
            info.external_attr = 0o600 << 16
            size, sha256 = _add(archive, info, member)
            mark = f"last {target.tell() - size} {size} {sha256}"
        archive.comment = mark.encode("ascii")


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: Member) -> tuple[int, str]:
    """Copy a member; gives its size and SHA-256."""
    hashed = hashlib.sha256()
    content = member.content
    if isinstance(content, Path):
        info.file_size = content.stat().st_size  # decides whether its header has room for a large size
    else:
        info.file_size = len(content) if isinstance(content, bytes) else content.num_bytes
    with _open(content) as source, archive.open(info, "w") as sink:
        while block := source.read(COPY_BYTES):
            hashed.update(block)
            sink.write(block)
    if member.sha256 not in ("", hashed.hexdigest()):
        raise DataError(f"{member.name}: does not have the content that was committed; run verify to see it")
    return info.file_size, hashed.hexdigest()


def _open(content: bytes | Path | Stored) -> BinaryIO:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    return content.open("rb") if isinstance(content, Path) else content.open()


class Container:
    """A container that was written, for reading.

    Args:
        opener: Opens it.
        name: What to call it in messages.
    """

    def __init__(self, opener: Opener, name: str) -> None:
        self._opener, self.name = opener, name

    @classmethod
    def at(cls, path: Path) -> Self:
        """A container on a disk."""
        return cls(partial(_open, path), str(path))

    @cached_property
    def members(self) -> dict[str, Stored]:
        """Its files by name, in the order in which they were written.

        Raises:
            DamagedContainerError: If it is damaged or was packed by another program.
            DataError: If it cannot be read.
        """
        try:
            with self._opener() as file, zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        except OSError as error:
            raise self._unreadable(error) from None
        except (ValueError, NotImplementedError, zipfile.BadZipFile, struct.error) as error:
            raise self._damaged(error) from None
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
            raise self._damaged("it is compressed or encrypted")
        return {
            i.filename: Stored(f"{self.name}:{i.filename}", self._opener, i.header_offset, i.file_size) for i in infos
        }

    def last(self) -> bytes:
        """Content of its last member, found from the end of the container in two reads and compared with its digest.

        Raises:
            DamagedContainerError: If it is damaged or was packed by another program.
            DataError: If it cannot be read.
        """
        try:
            with self._opener() as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
                end = tail.rindex(_END)
                word, offset, num_bytes, sha256 = tail[end + 22 :].decode("ascii").split()
                if word != "last" or int(num_bytes) > size:
                    raise ValueError("its end does not say where its last file is")
                file.seek(int(offset))
                content = file.read(int(num_bytes))
        except OSError as error:
            raise self._unreadable(error) from None
        except ValueError as error:
            raise self._damaged(error) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._damaged("its last file does not have its content")
        return content

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.name}: cannot be read ({error.strerror or error}); see to the disk, then run again")

    def _damaged(self, reason: object) -> DamagedContainerError:
        return DamagedContainerError(f"{self.name}: torn or damaged ({reason}); run again to make what it held")
