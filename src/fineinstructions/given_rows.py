"""Reads given rows: a document and a query or template each, for work without retrieval.

In: a row range of a Parquet file. Out: `GivenRow`, one for every row; one that cannot be used says why. Inside, a row
goes by its number in the file, because given ids may repeat.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row
from fineinstructions.inputs import looked_in
from fineinstructions.markup import slot_names
from fineinstructions.parquet import is_text_type, open_parquet, read_parquet_rows
from fineinstructions.readers import DocumentsConfig
from fineinstructions.records import Document, Draft, ExpandedDraft, Pair, Rejection, Template, content_id, rejection
from fineinstructions.runs import UnitSpec

STAGE = "rows"
COLUMNS = {
    "id": ("id", "row_id"),
    "document": ("document", "text", "context"),
    "query": ("query", "question"),
    "template": ("template", "instruction_template"),
    "title": ("title", "document_title"),
}
"""Names of each column; of several, the first that the file has. A title is not needed, but helps the embedded tier to
know what a document is about."""


@dataclass
class GivenRow:
    """One row on its way through the stages."""

    number: int
    row_id: Any
    document: Document
    query: str
    template: Template | None
    turned_away: Rejection | None = None
    draft: Draft | None = None
    expanded: ExpandedDraft | None = None
    pair: Pair | None = None


def require_rows(source: Path) -> None:
    """Refuse what is no Parquet file, saying how to make one of it.

    Raises:
        ConfigError: If there is no such file, or it is of another format.
    """
    if not source.is_file():
        raise ConfigError(
            f"{source}: no such file{looked_in(source)}; name a Parquet file with documents and queries or templates"
        )
    reads = {".jsonl": ("json", "read_json"), ".ndjson": ("json", "read_json"), ".csv": ("csv", "read_csv")}
    if source.suffix.lower() in reads:
        module, function = reads[source.suffix.lower()]
        target = shlex.quote(str(source.with_suffix(".parquet")))
        code = f"import sys, pyarrow.{module}, pyarrow.parquet; pyarrow.parquet.write_table("
        code += f"pyarrow.{module}.{function}(sys.argv[1]), sys.argv[2])"
        raise ConfigError(
            f"{source}: rows are read from Parquet only; make it of this file with"
            f" python -c {shlex.quote(code)} {shlex.quote(str(source))} {target}"
        )


def lone_template(template: str, description: str, num_slots: int) -> Template:
    """A template that stands for no query of a corpus."""
    return Template(content_id("t", template, description), template, description, num_slots, ())


def find_columns(schema: pa.Schema, name: str, named: Mapping[str, str]) -> dict[str, str | None]:
    """Name of the column for each role of `COLUMNS`.

    Args:
        schema: The columns that there are.
        name: Name of the file, for messages.
        named: Columns that the user has chosen, by role.

    Raises:
        ConfigError: If one that is needed is missing or of another type, or a choice is none.
    """
    for role, choice in named.items():
        if role not in COLUMNS:
            raise ConfigError(f"--column {role}={choice}: no such role; known are {', '.join(COLUMNS)}")
        if choice not in schema.names:
            raise ConfigError(f"{name}: no column {choice!r} for the {role}; columns found: {', '.join(schema.names)}")
    known = {role: (named[role],) if role in named else names for role, names in COLUMNS.items()}
    chosen = {role: next((n for n in names if n in schema.names), None) for role, names in known.items()}
    if chosen["title"] and not is_text_type(schema.field(chosen["title"]).type):
        chosen["title"] = None
    roles = [("id",), ("document",), ("query", "template")]
    lacking = next((group for group in roles if not any(chosen[role] for role in group)), None)
    if lacking is not None:
        wanted = ", ".join(name for role in lacking for name in COLUMNS[role])
        found = ", ".join(schema.names) or "none"
        raise ConfigError(
            f"{name}: no column for the {' or '.join(lacking)} ({wanted}); columns found: {found}; name one with"
            f" --column {lacking[0]}=NAME"
        )
    for role, column in chosen.items():
        kind = schema.field(column).type if column else pa.string()
        if not is_text_type(kind) and not (role == "id" and pa.types.is_integer(kind)):
            raise ConfigError(f"{name}: column {column!r} is {kind}, not text; write it as text")
    return chosen


def read_given_rows(spec: UnitSpec, named: Mapping[str, str]) -> Iterator[GivenRow]:
    """Rows of a unit; one that cannot be used is turned away.

    Args:
        spec: The unit.
        named: As for `find_columns`.

    Yields:
        One item per row. Reasons of stage ``rows``: ``missing_id``, ``missing_document``, ``empty_document``,
        ``missing_query``, ``empty_query``, ``missing_template``, ``empty_template``, ``document_too_large`` (value: its
        bytes), ``invalid_utf8``; of stage ``templates``: ``broken_template``, ``no_slot``.

    Raises:
        ConfigError: If the file cannot be read.
    """
    with open_parquet(spec.path, spec.path) as file:
        columns = find_columns(file.schema_arrow, spec.path, named)
        document = str(columns["document"])
        max_bytes = DocumentsConfig(path="").max_document_bytes
        rows = read_parquet_rows(file, spec.path, range(spec.row_start, spec.row_stop), document, max_bytes)
        for row in rows:
            yield _checked(row, columns, spec.path)


def _checked(row: Row, columns: dict[str, str | None], file: str) -> GivenRow:
    values = {role: row.values.get(column) if column else None for role, column in columns.items()}
    document, query, template = values["document"], values["query"] or "", values["template"] or ""
    record_id = str(row.number)
    made = None

    def found() -> GivenRow:
        given = Document(record_id, document or "", title=(values["title"] or "").strip())
        return GivenRow(row.number, values["id"], given, query, made)

    def turned_away(stage: str, reason: str, detail: str = "") -> GivenRow:
        kept = {"file": file, "row": row.number, "detail": detail}
        value = float(row.num_bytes) if row.problem == "too_large" else None
        return _set_aside(found(), rejection(stage, reason, record_id, kept, value))

    if row.problem:
        reason = "document_too_large" if row.problem == "too_large" else row.problem
        return turned_away(STAGE, reason, row.detail)
    if values["id"] in (None, ""):
        return turned_away(STAGE, "missing_id")
    if document is None or not document.strip():
        return turned_away(STAGE, "missing_document" if document is None else "empty_document")
    if not template.strip() and not query.strip():
        given = columns["query"] or columns["template"]
        is_null = values["query"] is None and values["template"] is None
        noun = "query" if given == columns["query"] else "template"
        return turned_away(STAGE, f"{'missing' if is_null else 'empty'}_{noun}")
    if template.strip():
        query = ""
        try:
            slots = slot_names(template)
        except ValueError as error:
            return turned_away("templates", "broken_template", str(error))
        if not slots:
            return turned_away("templates", "no_slot")
        made = lone_template(template, "", len(slots))
    return found()


def _set_aside(row: GivenRow, why: Rejection) -> GivenRow:
    row.turned_away = why
    return row
