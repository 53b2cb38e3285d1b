"""Takes JSON lines, JSON, CSV, TSV and plain text files apart into rows.

In: an `InputFile`. Out: `Row` objects, one per row of the file, in file order. Reading streams and is bounded in
memory: a raw row over the limit is counted and skipped piece by piece, never held whole. A row that cannot be parsed is
a `Row` with a problem, so that it becomes a rejection with its line; only a file that cannot be read at all is a
`ConfigError`. Parquet has its own reader in `parquet`, because its rows are found by position.
"""

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from fineinstructions.errors import ConfigError
from fineinstructions.inputs import PIECE_BYTES, InputFile, one_line, open_bytes
from fineinstructions.json_window import JsonWindow, Repeated, parse_json

MAX_WHOLE_JSON_BYTES = 256 * 1024 * 1024
"""A JSON file that is not one object per line has to be parsed whole; larger ones should be JSON lines."""

_OBJECT_OF_OBJECTS = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
"""How a file begins that may be one object of objects on a single line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an input file: its columns, or what kept them from being read."""

    number: int
    """Row number from 0 in Parquet and JSON arrays, line number from 1 in text formats."""
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Rejection reason, empty for a good row."""
    detail: str = ""
    num_bytes: int = 0
    """Size of the raw row where the problem is its size."""


def read_file_rows(file: InputFile, text_column: str, text_mode: str, max_text_bytes: int) -> Iterator[Row]:
    """Rows of one file that is not Parquet.

    Args:
        file: The file.
        text_column: Column that a plain text file fills.
        text_mode: ``file``: a text file is one row; ``line``: each of its lines is one.
        max_text_bytes: Longest text in UTF-8 bytes; a raw JSON or CSV row may be longer by other columns and escapes.

    Yields:
        One row per record. Blank lines between records are not rows.

    Raises:
        ConfigError: If the file as a whole cannot be read.
    """
    with open_bytes(file) as stream:
        _refuse_utf16(stream, file.name)
        max_raw_bytes = 6 * max_text_bytes + PIECE_BYTES  # a character may be written as \uXXXX
        if file.format == "text":
            yield from _text_rows(stream, file, text_column, text_mode, max_text_bytes)
        elif file.format in ("csv", "tsv"):
            yield from _csv_rows(stream, file.name, "," if file.format == "csv" else "\t", max_raw_bytes)
        elif file.format == "json":
            yield from _json_rows(stream, file, max_raw_bytes)
        else:
            for number, raw, size in _records(stream, max_raw_bytes):
                yield _json_row(number, raw, size)


def _refuse_utf16(stream: BinaryIO, name: str) -> None:
    start = cast(io.BufferedReader, stream).peek(3)[:3]
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{name}: is UTF-16; save it as UTF-8")
    if start == b"\xef\xbb\xbf":
        stream.read(3)  # a byte order mark is not part of the text


class Quotes:
    """Whether a CSV record is inside a quoted field, followed through pieces of any length.

    As in the csv module, a quote opens a field only at the field's start; elsewhere it is a character like any other.
    """

    def __init__(self, delimiter: bytes) -> None:
        self.open = False
        self._opening = delimiter + b'"'
        self._at_start = True
        self._carry = b""

    def feed(self, piece: bytes) -> None:
        """Go on by a piece of the file."""
        data = self._carry + piece
        if not data.endswith(b"\n"):
            data, self._carry = data[:-1], data[-1:]  # a quote or delimiter here may belong to the next byte
        else:
            self._carry = b""
        position = 0
        if self._at_start and not self.open and data.startswith(b'"'):
            self.open, position = True, 1
        while True:
            found = data.find(b'"' if self.open else self._opening, position)
            if found < 0:
                break
            doubled = self.open and data[found + 1 : found + 2] == b'"'
            position = found + (1 if self.open and not doubled else 2)
            self.open = self.open if doubled else not self.open
        self._at_start = data.endswith(b"\n") and not self.open

    def end(self) -> None:
        """The file ends here, and with it what could still have gone on."""
        self.open = self.open and self._carry != b'"'
        self._carry = b""


def _records(stream: BinaryIO, max_bytes: int, quotes: Quotes | None = None) -> Iterator[tuple[int, bytes | None, int]]:
    """Split into lines, or into CSV records where quotes are followed; they are open when the last one is not whole.

    Yields:
        Number of its first line, the raw record (``None`` when over `max_bytes`), its size. Blank lines are left out.
    """
    number, first, size, pieces = 1, 1, 0, list[bytes]()
    while piece := stream.readline(PIECE_BYTES):
        size += len(piece)
        if size <= max_bytes:
            pieces.append(piece)
        else:
            pieces.clear()
        if quotes:
            quotes.feed(piece)
        if not piece.endswith(b"\n"):
            continue
        number += 1
        if quotes and quotes.open:
            continue
        raw = b"".join(pieces) if size <= max_bytes else None
        if raw is None or raw.strip():
            yield first, raw, size
        first, size, pieces = number, 0, []
    if quotes:
        quotes.end()
    raw = b"".join(pieces) if size <= max_bytes else None
    if size and (raw is None or raw.strip()):
        yield first, raw, size


def _json_row(number: int, raw: bytes | None, size: int) -> Row:
    if raw is None:
        return Row(number, problem="too_large", num_bytes=size)
    try:
        values = parse_json(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(number, problem="invalid_utf8", detail=f"byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return Row(number, problem="malformed_json", detail=one_line(error))
    return _object_row(number, values)


def _object_row(number: int, values: Any) -> Row:
    if isinstance(values, Repeated):
        return Row(number, problem="malformed_json", detail=f"the key {values.key!r:.80} occurs twice")
    if not isinstance(values, dict):
        return Row(number, problem="malformed_json", detail=f"expected an object, found {type(values).__name__}")
    return Row(number, values)


def _json_rows(stream: BinaryIO, file: InputFile, max_raw_bytes: int) -> Iterator[Row]:
    """Rows of a ``.json`` file: one object per line, an array, an object of objects, or one object.

    A first line over the limit is skipped like any other, unless it is the whole file and may hold many rows.
    """
    head = cast(io.BufferedReader, stream).peek(1)
    if not head.lstrip().startswith(b"{"):
        yield from _array_rows(stream, file.name, max_raw_bytes)
        return
    records = _records(stream, max_raw_bytes)
    number, raw, size = next(records)
    more = bool(cast(io.BufferedReader, stream).peek(1))
    if raw is not None and not _starts_json_lines(raw, more):
        yield from _keyed_rows(raw + stream.read(MAX_WHOLE_JSON_BYTES + 1), file.name, max_raw_bytes)
    elif raw is None and not more and _OBJECT_OF_OBJECTS.match(head):
        with open_bytes(file) as again:
            _refuse_utf16(again, file.name)
            yield from _keyed_rows(again.read(MAX_WHOLE_JSON_BYTES + 1), file.name, max_raw_bytes)
    else:
        yield _json_row(number, raw, size)
        for number, raw, size in records:
            yield _json_row(number, raw, size)


def _starts_json_lines(first: bytes, more: bool) -> bool:
    """Whether a first line is an object of its own, and not an object of objects that is the whole file."""
    try:
        values = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and (more or not all(isinstance(v, dict) for v in values.values()) or not values)


def _array_rows(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Row]:
    """Rows of a JSON array of objects, each let go of before the next is parsed; or what else is no object."""
    window = JsonWindow(stream, max_bytes)
    with _one_json_line(name):
        if not window.mark():
            return
        if window.mark() != "[":
            yield _object_row(0, window.value())
        else:
            for number, value in enumerate(window.elements()):
                yield _object_row(number, value)
        window.end()


def _keyed_rows(raw: bytes, name: str, max_bytes: int) -> Iterator[Row]:
    """Rows of an object of objects (the key becomes ``id``), or the one row that an object is."""
    if len(raw) > MAX_WHOLE_JSON_BYTES:
        raise ConfigError(f"{name}: too large for JSON that is not one object per line; convert it to .jsonl")
    with _one_json_line(name):
        looked_at = JsonWindow(io.BytesIO(raw), max_bytes)
        if not all(isinstance(value, dict) for _, value in looked_at.members()):
            one = JsonWindow(io.BytesIO(raw), max_bytes)
            yield _object_row(0, one.value())
            one.end()
            return
        looked_at.end()
        for number, (key, value) in enumerate(JsonWindow(io.BytesIO(raw), max_bytes).members()):
            row = _object_row(number, value)
            yield row if row.problem else Row(number, {"id": key} | value)


@contextlib.contextmanager
def _one_json_line(name: str) -> Iterator[None]:
    """Turns what is wrong with a whole JSON file into one line."""
    try:
        yield
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: invalid UTF-8; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        hint = "if it holds one object per line, name it .jsonl"
        raise ConfigError(f"{name}: not valid JSON: {one_line(error)}; {hint}") from None


def _csv_rows(stream: BinaryIO, name: str, delimiter: str, max_bytes: int) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # records are already bounded by max_bytes
    header: list[str] = []
    quotes = Quotes(delimiter.encode())
    for number, raw, size in _records(stream, max_bytes, quotes):
        if raw is None:
            yield Row(number, problem="too_large", num_bytes=size)
            continue
        if quotes.open:
            yield Row(number, problem="malformed_csv", detail="a quote that opens here is never closed")
            continue
        try:
            parsed = list(csv.reader(io.StringIO(raw.decode("utf-8"), newline=""), delimiter=delimiter))
        except UnicodeDecodeError as error:
            yield Row(number, problem="invalid_utf8", detail=f"byte {error.start} of the record")
            continue
        except csv.Error as error:
            yield Row(number, problem="malformed_csv", detail=str(error))
            continue
        if not header:
            header, *parsed = parsed
            _require_separated(header, delimiter, name)
            if len(set(header)) != len(header):
                raise ConfigError(f"{name}: two columns have the same name in the header: {', '.join(header)}")
        for values in parsed:
            if len(values) == len(header):
                yield Row(number, dict(zip(header, values, strict=True)))
            else:
                yield Row(number, problem="malformed_csv", detail=f"expected {len(header)} fields, found {len(values)}")


def _require_separated(header: list[str], delimiter: str, name: str) -> None:
    """Refuse a table whose header is one column that looks like several."""
    other = next((mark for mark in ";\t|," if mark != delimiter and len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise ConfigError(
            f"{name}: its header {header[0][:60]!r} is one column, and seems to be separated by {other!r}; separate"
            " .csv by commas and .tsv by tabs"
        )


def _text_rows(stream: BinaryIO, file: InputFile, text_column: str, text_mode: str, max_bytes: int) -> Iterator[Row]:
    if text_mode == "line":
        for number, raw, size in _records(stream, max_bytes):
            yield _text_row(number, raw.rstrip(b"\r\n") if raw is not None else None, size, text_column)
        return
    raw = stream.read(max_bytes + 1)
    size = len(raw)
    if size > max_bytes:
        while piece := stream.read(PIECE_BYTES):
            size += len(piece)
    row = _text_row(1, raw if size <= max_bytes else None, size, text_column)
    yield row if row.problem else Row(row.number, row.values | {"file": PurePosixPath(file.path).name})


def _text_row(number: int, raw: bytes | None, size: int, text_column: str) -> Row:
    if raw is None:
        return Row(number, problem="too_large", num_bytes=size)
    try:
        return Row(number, {text_column: raw.decode("utf-8")})
    except UnicodeDecodeError as error:
        return Row(number, problem="invalid_utf8", detail=f"byte {error.start}")
