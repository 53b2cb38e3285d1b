"""Reads documents and queries: one item per row, a record or a `Rejection` with file and row.

In: Parquet by row range (the user's own, or what `staging` made of another format), and for queries any format
directly. Out: records whose text is exactly the file's, or rejections. A text's size is decided from its bytes before
it becomes a string. Ids of the user are kept as they are; only where there is no id column at all an id is made from
the content.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row, read_file_rows
from fineinstructions.inputs import InputFile, list_inputs, open_bytes
from fineinstructions.parquet import STAGED_KEY, is_text_type, open_parquet, read_parquet_rows
from fineinstructions.records import Document, Rejection, content_id, to_json


class SourceConfig(Config):
    """Where rows come from, and which columns hold what."""

    section: ClassVar[str] = "source"
    noun: ClassVar[str] = "record"

    path: str | list[str]
    """Files, globs, directories or URLs: Parquet; JSON lines, JSON, CSV, TSV and text, also .gz and .zst. Like every
    path of a recipe a relative one counts from the folder in which the command is called, wherever the recipe lies."""
    id_column: str | None = None
    """Column with the id, kept unchanged; a file without it is refused. ``None`` takes ``id`` where a file has that
    column, and makes ids from the content where it has not."""
    text_column: str = "text"
    """Column with the text."""
    title_column: str | list[str] = "title"
    """Column with the title; of several, the first that a row has."""
    url_column: str | list[str] = Field(default=["url", "url_or_path"])
    """Column with the address; of several, the first that a row has."""
    source_column: str | list[str] = "source"
    """Column with the name of the data set; of several, the first that a row has."""
    licence_column: str | list[str] = Field(default=["licence", "license"])
    """Column with the licence; of several, the first that a row has."""
    licence: str = ""
    """Licence of rows that name none, for example ``CC-BY-4.0``; empty where it is not known."""
    text_mode: Literal["file", "line"] = "file"
    """What one row of a plain text file is: the whole file, or one line."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first rows, bad ones counted; ``None`` reads all. Default: ours."""
    max_document_bytes: int = Field(default=4_000_000, ge=1)
    """Longest text in UTF-8 bytes; a longer one is rejected unread. Default: ours."""

    @property
    def id_name(self) -> str:
        """The column that ids are looked for in."""
        return "id" if self.id_column is None else self.id_column


class DocumentsConfig(SourceConfig):
    """The documents that instructions are grounded in; other scalar columns are carried along as metadata."""

    section: ClassVar[str] = "documents"
    noun: ClassVar[str] = "document"


@dataclass(frozen=True, slots=True)
class Fields:
    """One good row, before it becomes a `Document` or a `Query`."""

    record_id: str
    text: str
    title: str
    url: str
    source: str
    licence: str
    metadata: str


def read_documents(
    path: str | Path,
    row_start: int,
    row_stop: int,
    config: SourceConfig,
    repeated: Collection[int] = (),
    name: str = "",
) -> Iterator[Document | Rejection]:
    """Documents of a row range of one staged file, in order.

    Args:
        path: Parquet file, as `staging.stage_documents` returned it.
        row_start: First row.
        row_stop: Row after the last; rows beyond the file's end do not exist.
        config: The ``documents`` section.
        repeated: Rows of this file whose id occurred before (`staging.find_repeated_ids`).
        name: The user's file (`StagedFile.name`), for rejections; by default the path.

    Yields:
        One item per row. Reasons: ``missing_id``, ``repeated_id``, ``missing_text``, ``empty_text``, ``wrong_type``,
        ``invalid_utf8``, ``document_too_large`` (value: its bytes), ``malformed_json``, ``malformed_csv``.

    Raises:
        ConfigError: If the file cannot be read.
    """
    again = frozenset(int(row) for row in repeated)
    with open_parquet(path, name or str(path), is_known=True) as file:
        name, has_id = describe(file, name or str(path), config)
        rows = read_parquet_rows(file, name, range(row_start, row_stop), config.text_column, config.max_document_bytes)
        for position, row in enumerate(rows, start=row_start):
            fields = take_fields(row, config, name, has_id, position in again)
            yield fields if isinstance(fields, Rejection) else _document(fields)


def _document(fields: Fields) -> Document:
    return Document(
        document_id=fields.record_id,
        text=fields.text,
        title=fields.title,
        url=fields.url,
        source=fields.source,
        licence=fields.licence,
        metadata=fields.metadata,
    )


def read_rows(config: SourceConfig, *, nested: bool = False) -> Iterator[tuple[Row, str, bool]]:
    """Rows of all files of a source, streamed without staging, cut at `limit`.

    Args:
        config: Where they come from.
        nested: Whether lists and structs of Parquet files are read too.

    Yields:
        The row, the name of its file, and whether ids come from the id column rather than from the content.

    Raises:
        ConfigError: If a file cannot be read or lacks the text column.
    """
    left = config.limit if config.limit is not None else math.inf
    for file in list_inputs(config.path, config.section):
        for item in _rows_of(file, config, left, nested):
            if left <= 0:
                return
            left -= 1
            yield item


def _rows_of(file: InputFile, config: SourceConfig, left: float, nested: bool) -> Iterator[tuple[Row, str, bool]]:
    if file.format == "parquet":
        with open_bytes(file) as stream, open_parquet(stream, file.name) as parquet:
            name, has_id = describe(parquet, file.name, config)
            everything = range(parquet.metadata.num_rows)
            size = config.max_document_bytes
            for row in read_parquet_rows(parquet, name, everything, config.text_column, size, nested):
                yield row, name, has_id
        return
    has_id = _has_ids(file, config, left)
    seen = ColumnsSeen(file, config)
    for row in read_file_rows(file, config.text_column, config.text_mode, config.max_document_bytes):
        seen.note(row)
        yield row, file.name, has_id
    seen.check()


def _has_ids(file: InputFile, config: SourceConfig, left: float) -> bool:
    """Whether any of the first rows has an id, known before the first of them is used.

    Reads as far as the first id, so a file that has none is read twice.
    """
    if file.format == "text":
        return False
    rows = read_file_rows(file, config.text_column, config.text_mode, config.max_document_bytes)
    for number, row in enumerate(rows):
        if number >= left:
            return False
        if row.values and (config.id_name in row.values or file.format in ("csv", "tsv")):
            return config.id_name in row.values  # a header speaks for all rows
    return False


class ColumnsSeen:
    """Columns met while rows stream by, in formats that do not declare them, and in rows that were read before."""

    def __init__(self, file: InputFile, config: SourceConfig, *, has_id: bool = False, has_text: bool = False) -> None:
        self.has_id = has_id
        self.name = file.name
        self._must_have_id = config.id_column is not None and file.format != "text"
        self.config = config
        self._columns: dict[str, None] = {}
        self._has_text = has_text
        self._wrong_type = ""

    @property
    def has_columns(self) -> bool:
        """Whether the columns were found that a file is refused without."""
        return self._has_text and (self.has_id or not self._must_have_id)

    def note(self, row: Row) -> None:
        """Take a row's columns into account."""
        self.has_id = self.has_id or self.config.id_name in row.values
        text = row.values.get(self.config.text_column)
        self._has_text = self._has_text or isinstance(text, str)
        if text is not None and not isinstance(text, str):
            self._wrong_type = type(text).__name__
        if not self._has_text or (self._must_have_id and not self.has_id):
            self._columns.update(dict.fromkeys(list(row.values)[:50]))

    def check(self) -> None:
        """Refuse a file in which no row has the text column as text, or an id column that the user named.

        Raises:
            ConfigError: If there were columns, but not this one, or never as text.
        """
        config = self.config
        if self._must_have_id and not self.has_id and self._columns:
            raise ConfigError(_missing(self.name, config.id_name, list(self._columns), config, "id_column"))
        if self._has_text or not self._columns:
            return
        if config.text_column not in self._columns:
            raise ConfigError(_missing(self.name, config.text_column, list(self._columns), config, "text_column"))
        if self._wrong_type:
            raise ConfigError(_wrong_type(self.name, config.text_column, self._wrong_type, config, "text_column"))


def _missing(name: str, column: str, found: list[str], config: SourceConfig, setting: str) -> str:
    columns = ", ".join(found)
    return f"{name}: no column {column!r}; columns found: {columns}; set {config.section}.{setting} to one of them"


def _wrong_type(name: str, column: str, found: str, config: SourceConfig, setting: str) -> str:
    return f"{name}: column {column!r} is {found}, not text; set {config.section}.{setting} to a column of text"


def describe(file: Any, name: str, config: SourceConfig) -> tuple[str, bool]:
    """Check the columns of a Parquet file.

    Args:
        file: The open file.
        name: Name for messages.
        config: Section that names the columns.

    Returns:
        The name of the user's file, and whether it has an id column.

    Raises:
        ConfigError: If the text column is missing or of another type, or the id column is neither text nor integer.
    """
    schema = file.schema_arrow
    staged = (file.metadata.metadata or {}).get(STAGED_KEY)
    if staged is not None:
        origin = json.loads(staged)
        return origin["name"], origin["has_id"]
    if config.text_column not in schema.names:
        raise ConfigError(_missing(name, config.text_column, schema.names, config, "text_column"))
    text_type = schema.field(config.text_column).type
    if not is_text_type(text_type):
        raise ConfigError(_wrong_type(name, config.text_column, str(text_type), config, "text_column"))
    has_id = config.id_name in schema.names
    if has_id:
        id_type = schema.field(config.id_name).type
        if not is_text_type(id_type) and not pa.types.is_integer(id_type):
            raise ConfigError(_wrong_type(name, config.id_name, str(id_type), config, "id_column"))
    elif config.id_column is not None:
        raise ConfigError(_missing(name, config.id_name, schema.names, config, "id_column"))
    return name, has_id


def licences_of(config: SourceConfig, num_rows: int) -> Counter[str]:
    """How often the first good rows of a source state each licence.

    Args:
        config: The source.
        num_rows: Rows to read.

    Raises:
        ConfigError: If a file cannot be read or lacks the text column.
    """
    taken = (take_fields(row, config, name, has_id) for row, name, has_id in islice(read_rows(config), num_rows))
    return Counter(fields.licence for fields in taken if not isinstance(fields, Rejection))


def take_fields(
    row: Row, config: SourceConfig, name: str, has_id: bool, is_repeated: bool = False
) -> Fields | Rejection:
    """A row's fields, or why it cannot be used.

    Args:
        row: The row.
        config: Names the columns.
        name: The row's file.
        has_id: Whether the file has an id column; without one the id is made from the text.
        is_repeated: Whether the id occurred before.
    """
    raw_id = row.values.get(config.id_name) if has_id else None
    has_good_id = raw_id not in (None, "") and _is_encodable(str(raw_id))
    record_id = str(raw_id) if has_good_id else f"{PurePosixPath(name).name}:{row.number}"

    def rejected(reason: str, detail: str = "", value: float | None = None) -> Rejection:
        where = {"file": name, "row": row.number} | ({"detail": detail} if detail else {})
        return Rejection(config.section, reason, record_id, value, to_json(where))

    text = row.values.get(config.text_column)
    if row.problem == "too_large":
        return rejected(f"{config.noun}_too_large", value=float(row.num_bytes))
    if row.problem:
        return rejected(row.problem, row.detail)
    if has_id and raw_id in (None, ""):
        return rejected("missing_id", f"column {config.id_name!r}")
    if has_id and not has_good_id:
        return rejected("invalid_utf8", f"column {config.id_name!r}: lone surrogate")
    if isinstance(raw_id, bool | float | list | dict):
        return rejected("wrong_type", f"column {config.id_name!r} is {type(raw_id).__name__}")
    if is_repeated:
        return rejected("repeated_id")
    if text is None:
        return rejected("missing_text", f"column {config.text_column!r}")
    if not isinstance(text, str):
        return rejected("wrong_type", f"column {config.text_column!r} is {type(text).__name__}")
    if not text.strip():
        return rejected("empty_text")
    title, url, source, licence = (_first(row.values, c) for c in _described(config))
    licence = licence or config.licence
    kept = _metadata(row.values, config)
    metadata = to_json(kept) if kept else "{}"
    if not all(map(_is_encodable, (text, metadata, title, url, source, licence))):
        return rejected("invalid_utf8", "lone surrogate")
    num_bytes = len(text) if text.isascii() else len(text.encode("utf-8"))
    if num_bytes > config.max_document_bytes:
        return rejected(f"{config.noun}_too_large", value=float(num_bytes))
    record_id = record_id if has_id else content_id(config.noun[0], text)
    return Fields(record_id, text, title, url, source, licence, metadata)


def _is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON escapes can hold half of a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _described(config: SourceConfig) -> list[str | list[str]]:
    return [config.title_column, config.url_column, config.source_column, config.licence_column]


def _first(values: dict[str, Any], columns: str | list[str]) -> str:
    for column in [columns] if isinstance(columns, str) else columns:
        if values.get(column) is not None:
            return str(values[column])
    return ""


def _metadata(values: dict[str, Any], config: SourceConfig) -> dict[str, Any]:
    used = {config.id_name, config.text_column}
    for columns in _described(config):
        used.update([columns] if isinstance(columns, str) else columns)
    kept = {}
    for column, value in values.items():
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if column not in used and isinstance(value, str | int | float | bool) and is_finite:
            kept[column] = value
    return kept
