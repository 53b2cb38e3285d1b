"""Reads template banks that were made before, by this package or by others.

In: a folder that ``templates build`` or ``run`` made, or any Parquet files with a column of templates and one of
compatible document descriptions. Out: one template or rejection per row: a broken template is told, not met as a
strange pair later.

The decision to question: the published bank's exact layout is not known to us, so nothing about it is assumed: column
names are settings with a few common names as defaults, and a file that has none of them is refused with the names of
those that it has. The number of slots is always counted, never believed.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from fineinstructions.config import EMPTY_REVISION, Config
from fineinstructions.errors import ConfigError
from fineinstructions.inputs import InputFile, list_inputs, looked_in, one_line, open_bytes
from fineinstructions.markup import slot_names
from fineinstructions.parquet import open_parquet
from fineinstructions.records import Rejection, Template, content_id, rejection
from fineinstructions.templates.table import key_of

Columns = str | tuple[str, ...]
_ON_THE_HUB = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?P<revision>@[^/]+)?(?P<inside>/.*)?")


class TemplatesConfig(Config):
    """Where the templates come from when they are not made from queries."""

    bank: str | None = None
    """A template bank made before: a folder of ``templates build`` or ``run``, or Parquet files (a path, glob,
    directory or URL) with templates and descriptions. Takes the place of ``queries``."""
    revision: str | None = None
    """Exact commit or tag of a bank on the hub (``hf://datasets/...``); ``null`` reads whatever is there now, an empty
    text refuses to run until it is filled in (`doctor RECIPE --resolve`)."""
    index: str | None = None
    """A template index made before with ``index build``: nothing is embedded or indexed again. Takes the place of
    ``queries`` and of ``bank``."""
    template_column: Columns = ("template", "instruction_template")
    """Column of the templates; of several names, the first that a file has. Ours, as are the next five."""
    description_column: Columns = ("compatible_document_description", "document_description", "description")
    """Column of the compatible document descriptions."""
    id_column: Columns = ("template_id", "id")
    """Column of the ids, text or numbers; a content hash takes its place in a file that has none."""
    query_ids_column: Columns = "query_ids"
    """Column with the list of the queries behind a template; may be missing."""
    source_column: Columns = "source"
    """Column of the templates' source; may be missing."""
    licence_column: Columns = ("licence", "license")
    """Column of the templates' licence; may be missing."""

    @property
    def is_ready_made(self) -> bool:
        """Whether the templates were made before."""
        return self.bank is not None or self.index is not None

    @property
    def hub_name(self) -> str:
        """Name of the data set on the hub that the bank is; empty for any other bank."""
        found = _ON_THE_HUB.fullmatch(self.bank or "")
        return found["name"] if found else ""

    @property
    def location(self) -> str:
        """Where the bank lies, revision included.

        Raises:
            ConfigError: If the revision is empty, said twice, or given for a bank that has none.
        """
        found = _ON_THE_HUB.fullmatch(self.bank or "")
        if found is None and self.revision:
            raise ConfigError("templates.revision: only a bank on the hub (hf://datasets/...) has one; leave it out")
        if found is None or self.revision is None:
            return str(self.bank)
        if found["revision"]:
            raise ConfigError("templates.revision: templates.bank names a revision too; leave out one of the two")
        if not self.revision:
            raise ConfigError(f"templates.revision: {EMPTY_REVISION}")
        return f"hf://datasets/{found['name']}@{quote(self.revision, safe='')}{found['inside'] or ''}"


def bank_files(bank: str) -> list[InputFile]:
    """Parquet files of a bank.

    Raises:
        ConfigError: If there is none.
    """
    own, is_pattern = Path(bank) / "templates", any(c in bank for c in "*?[")
    if "://" not in bank and not is_pattern and not Path(bank).exists():
        raise ConfigError(
            f"{bank}: no template bank{looked_in(bank)}; make one with 'fineinstructions templates build RECIPE --out'"
        )
    files: list[InputFile] = []
    if "://" in bank and not is_pattern:
        with suppress(ConfigError):  # then it is no run on a store, or the next line tells what is wrong
            files = list_inputs(f"{bank.rstrip('/')}/templates/*.parquet", "templates.bank")
    files = files or list_inputs(str(own) if own.is_dir() else bank, "templates.bank")
    other = next((file for file in files if file.format != "parquet"), None)
    if other is not None:
        raise ConfigError(f"{other.name}: a template bank is Parquet, this is {other.format}; check templates.bank")
    return files


def read_bank(config: TemplatesConfig) -> Iterator[Template | Rejection]:
    """Templates of a bank.

    Args:
        config: Where it lies and how its columns are called.

    Yields:
        One item per row. Reasons: ``missing_template``, ``missing_description``, ``missing_id``, ``wrong_type``,
        ``broken_template``, ``no_slot``, ``repeated_id``.

    Raises:
        ConfigError: If there is no bank, a file cannot be read, or it has no column of a wanted name.
    """
    seen: set[int] = set()
    for file in bank_files(config.location):
        with open_bytes(file) as stream, open_parquet(stream, file.name) as parquet:
            names = _columns(parquet.schema_arrow.names, file.name, config)
            present = [name for name in names.values() if name is not None]
            for row_number, values in enumerate(_rows(parquet, file.name, present)):
                row = {role: values.get(name) for role, name in names.items() if name is not None}
                yield _checked(row, f"{file.name}:{row_number}", "id" in row, seen)


def _rows(parquet: Any, file: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of an open bank file.

    Raises:
        ConfigError: If a page is corrupt or a text is not UTF-8.
    """
    position = 0
    try:
        for batch in parquet.iter_batches(batch_size=4096, columns=columns):
            values = batch.to_pylist()
            yield from values
            position += len(values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: corrupt from row {position} on ({one_line(error)}); fetch it again") from None


def _columns(found: list[str], file: str, config: TemplatesConfig) -> dict[str, str | None]:
    """Name of the column for each role; ``None`` where a file has none that may be missing."""
    roles = ("template", "description", "id", "query_ids", "source", "licence")
    chosen: dict[str, str | None] = {}
    for role in roles:
        wanted = getattr(config, f"{role}_column")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        chosen[role] = next((name for name in wanted if name in found), None)
        if chosen[role] is None and role in ("template", "description"):
            raise ConfigError(
                f"{file}: no column {' or '.join(map(repr, wanted))}; columns found: {', '.join(found)};"
                f" name the right one in templates.{role}_column"
            )
    return chosen


def _checked(row: dict[str, Any], place: str, has_ids: bool, seen: set[int]) -> Template | Rejection:
    template, description = row["template"], row["description"]
    raw_id = row.get("id")
    template_id = content_id("t", str(template), str(description)) if not has_ids else str(raw_id)

    def turned_away(reason: str) -> Rejection:
        kept = {"place": place, **{k: v if isinstance(v, str | int | list) else str(v) for k, v in row.items()}}
        return rejection("templates", reason, place if raw_id in (None, "") and has_ids else template_id, kept)

    if has_ids and raw_id in (None, ""):
        return turned_away("missing_id")
    if has_ids and (isinstance(raw_id, bool) or not isinstance(raw_id, str | int)):
        return turned_away("wrong_type")
    for value, name in ((template, "template"), (description, "description")):
        if value is not None and not isinstance(value, str):
            return turned_away("wrong_type")
        if not (value or "").strip():
            return turned_away(f"missing_{name}")
    try:
        slots = slot_names(template)
    except ValueError:
        return turned_away("broken_template")
    if not slots:
        return turned_away("no_slot")
    key = key_of(template_id)
    if key in seen:
        return turned_away("repeated_id")
    seen.add(key)
    return Template(
        template_id=template_id,
        template=template,
        compatible_document_description=description,
        num_slots=len(slots),
        query_ids=tuple(map(str, row.get("query_ids") or ())),
        source=str(row.get("source") or ""),
        licence=str(row.get("licence") or ""),
    )
