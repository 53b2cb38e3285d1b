"""Finds the user's input files through fsspec and opens them decompressed.

In: paths, globs, directories and URLs. Out: `InputFile` objects and byte streams. A path that matches nothing, an
unknown extension, a filesystem that is not installed and a truncated compressed file are each one `ConfigError` with
its remedy.
"""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, TextIO, cast

from fineinstructions.errors import ConfigError, FineInstructionsError
from fineinstructions.runs.plan import content_fingerprint

Format = Literal["parquet", "jsonl", "json", "csv", "tsv", "text"]

EXTENSIONS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
COMPRESSIONS = (".gz", ".zst")
EXTRAS = {"gcs": "gs", "gs": "gs", "hf": "hf", "s3": "s3", "s3a": "s3"}
"""fsspec protocol -> the extra of this package that brings its filesystem."""

PIECE_BYTES = 1 << 20
"""How much of a stream is read at once."""
MAX_UNPACKED_BYTES = 256 << 20
MAX_UNPACKED_RATIO = 200
"""What unpacks to more than this, and to more than this many times its size, is refused."""
_PACKED_PIECE_BYTES = 2048
"""How much of a zstd file is unpacked at once: four bytes of it can stand for 128 KiB."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the user's input, on any filesystem that fsspec knows."""

    filesystem: Any
    path: str
    name: str
    """The path as the user would write it, for messages and rejections."""
    format: Format
    compression: str
    is_local: bool

    def version(self) -> str:
        """What changes when the file changes: size and modification time, or the store's own key."""
        if self.is_local:
            stat = Path(self.path).stat()
            return f"{self.path}:{stat.st_size}:{stat.st_mtime_ns}"
        return str(self.filesystem.ukey(self.path))

    def content(self) -> str:
        """What changes when the bytes change and not when the file is touched or moved; a store's own key elsewhere."""
        return content_fingerprint(Path(self.path)) if self.is_local else self.version()


def list_inputs(paths: str | Sequence[str], section: str) -> list[InputFile]:
    """Files behind paths, globs, directories and URLs.

    Args:
        paths: One path or several; the order is kept, files of one directory or glob are sorted by name.
        section: Recipe section that holds the paths, or nothing where a command names them; for messages.

    Returns:
        The files, each once.

    Raises:
        ConfigError: If a path matches nothing, has an unknown extension, or needs a filesystem that is not installed.
    """
    found: dict[str, InputFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for file in _files_of(path, section):
            found.setdefault(file.name, file)
    if not found:
        raise ConfigError(f"{_where(section)}no path given; name a file, a directory or a glob")
    return list(found.values())


def looked_in(path: str | Path) -> str:
    """Where a path that was not found was looked for, for messages; empty where the path says so itself.

    Example:
        >>> looked_in("/data/a.jsonl"), looked_in("s3://bucket/a.jsonl"), looked_in("a.jsonl").startswith(" in /")
        ('', '', True)
    """
    return "" if "://" in str(path) or Path(path).expanduser().is_absolute() else f" in {Path.cwd()}"


def _key(section: str) -> str:
    return f"{section}.path" if section else "the path"


def _where(section: str) -> str:
    return f"{section}.path: " if section else ""


def _files_of(path: str, section: str) -> list[InputFile]:
    if not path.strip():
        raise ConfigError(f"{_where(section)}an empty path; name a file, a directory or a glob")
    filesystem, root = _filesystem(path, section)
    is_local = "file" in _protocols(filesystem)
    try:
        if filesystem.isfile(root):
            return [_input_file(filesystem, root, is_local)]
        if filesystem.isdir(root):
            names = [n for n in filesystem.find(root) if _format_of(n) and not _hidden(n, root)]
        else:
            names = [n for n in filesystem.glob(root) if filesystem.isfile(n)] if any(c in root for c in "*?[") else []
    except Exception as error:  # the boundary to filesystems that bring exceptions of their own
        if is_local and not isinstance(error, OSError | ValueError | FineInstructionsError):
            raise
        raise _unreadable(path, error, f"check {_key(section)}, the network and your rights") from None
    if not names:
        known = ", ".join(EXTENSIONS)
        missing = f"no such file{looked_in(path)}, or nothing with a known extension ({known})"
        raise ConfigError(f"{path}: {missing}; check {_key(section)}")
    return [_input_file(filesystem, name, is_local) for name in sorted(names)]


def _filesystem(path: str, section: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    protocol = path.split("://")[0] if "://" in path else "file"
    try:
        filesystem, root = url_to_fs(path)
    except ImportError:
        extra = EXTRAS.get(protocol)
        remedy = (
            f"pip install 'fineinstructions[{extra}]'" if extra else f"install the fsspec package for {protocol}://"
        )
        raise ConfigError(f"{path}: the filesystem {protocol}:// is not installed; {remedy}") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: {one_line(error)}; check {_key(section)}") from None
    return filesystem, root


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _hidden(name: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name[len(root) :]).parts)


def _format_of(name: str) -> tuple[Format, str] | None:
    lower = name.lower()
    compression = next((c for c in COMPRESSIONS if lower.endswith(c)), "")
    kind = EXTENSIONS.get(PurePosixPath(lower.removesuffix(compression)).suffix)
    return (kind, compression) if kind and not (kind == "parquet" and compression) else None


def _input_file(filesystem: Any, path: str, is_local: bool) -> InputFile:
    found = _format_of(path)
    name = path if is_local else str(filesystem.unstrip_protocol(path))
    if found is None:
        raise ConfigError(
            f"{name}: unknown extension; known: {', '.join(EXTENSIONS)}, all but Parquet also .gz and .zst"
        )
    return InputFile(filesystem, path, name, found[0], found[1], is_local)


@contextlib.contextmanager
def open_bytes(file: InputFile) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed.

    Raises:
        ConfigError: If it cannot be opened, or the compressed stream is truncated or corrupt, or unpacks without end.
    """
    try:
        with contextlib.ExitStack() as stack:
            packed = stream = stack.enter_context(file.filesystem.open(file.path, "rb"))
            if file.compression == ".gz":
                stream = stack.enter_context(gzip.GzipFile(fileobj=packed))
            elif file.compression == ".zst":
                stream = stack.enter_context(_WholeFrames(packed))
            if file.compression:
                stream = stack.enter_context(_Watched(packed, stream, file.name))
            yield cast(BinaryIO, io.BufferedReader(stream, PIECE_BYTES))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{file.name}: truncated or corrupt compressed file ({error}); fetch it again") from None
    except Exception as error:  # the boundary to filesystems that bring exceptions of their own
        if isinstance(error, FineInstructionsError) or (file.is_local and not isinstance(error, OSError)):
            raise
        raise _unreadable(file.name, error, "check that it is there and that you may read it") from None


@contextlib.contextmanager
def open_lines(path: Path) -> Iterator[TextIO]:
    """Open a local file of JSON lines for reading, decompressed as its name says.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is no UTF-8, or the compressed stream is truncated or corrupt.
    """
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    file = InputFile(_local(), str(path), str(path), "jsonl", compression, is_local=True)
    try:
        with open_bytes(file) as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as lines:
            yield lines
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _local() -> Any:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()


def _unreadable(name: str, error: Exception, remedy: str) -> FineInstructionsError:
    if isinstance(error, FineInstructionsError):
        return error
    return ConfigError(f"{name}: cannot be read ({type(error).__name__}: {one_line(error)}); {remedy}")


def is_bomb(packed: int, unpacked: int) -> bool:
    """Whether so few bytes become so many that it cannot be a corpus: text packs to a third, seldom to a twentieth.

    Args:
        packed: Compressed size in bytes.
        unpacked: Size in bytes of what came out.
    """
    return unpacked > MAX_UNPACKED_BYTES and unpacked > MAX_UNPACKED_RATIO * packed


class _Watched(io.RawIOBase):
    """Decompressed bytes, for as long as they may be a text."""

    def __init__(self, packed: BinaryIO, unpacked: Any, name: str) -> None:
        self._packed, self._unpacked, self._name = packed, unpacked, name
        self._size = 0

    def readable(self) -> bool:
        """True: this is a stream for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes; 0 at the end."""
        size = int(self._unpacked.readinto(buffer))
        self._size += size
        if is_bomb(self._packed.tell(), self._size):
            raise ConfigError(
                f"{self._name}: {self._packed.tell():,} bytes unpack to more than {self._size:,}, which is no text;"
                " unpack it yourself if you trust it"
            )
        return size


class _WholeFrames(io.RawIOBase):
    """Decompressed zstd frames; unlike the library's own reader it notices a truncated last frame."""

    def __init__(self, stream: BinaryIO) -> None:
        import zstandard

        self._stream = stream
        self._errors = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._raw = memoryview(b"")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """True: this is a stream for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes; 0 at the end."""
        while not self._ready:
            self._raw = self._raw or memoryview(self._stream.read(1 << 16))
            if not self._raw:
                if self._frame is not None:
                    raise EOFError("zstd frame ends early")
                return 0
            self._frame = self._frame or self._context.decompressobj()
            piece = self._raw[:_PACKED_PIECE_BYTES]
            try:
                self._ready = memoryview(self._frame.decompress(piece))
            except self._errors as error:
                raise EOFError(str(error)) from None
            self._raw = self._raw[len(piece) - len(self._frame.unused_data) :]
            self._frame = None if self._frame.eof else self._frame
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def one_line(error: BaseException) -> str:
    """An exception's message on one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]
