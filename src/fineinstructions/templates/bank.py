"""Reads template banks that were made before.

In: a folder that ``templates build`` or ``run`` made, or one Parquet file with the columns of ``RUN/templates``. Out:
templates, each checked: a broken bank is told in one line, not met as a strange pair later.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from fineinstructions.errors import ConfigError
from fineinstructions.markup import slot_names
from fineinstructions.parquet import open_parquet
from fineinstructions.records import Template, from_table, schema_of


def bank_files(bank: Path) -> list[Path]:
    """Parquet files of a bank: a folder that ``templates build`` or ``run`` made, or one Parquet file.

    Raises:
        ConfigError: If there is none.
    """
    files = sorted((bank / "templates").glob("part-*.parquet")) if bank.is_dir() else [bank] if bank.is_file() else []
    if not files:
        raise ConfigError(f"{bank}: no template bank; make one with 'fineinstructions templates build RECIPE --out'")
    return files


def read_bank(bank: Path) -> Iterator[Template]:
    """Templates of a bank.

    Raises:
        ConfigError: If there is none, a column is missing or of another type, or a template is broken or there twice.
    """
    seen: set[str] = set()
    for file in bank_files(bank):
        with open_parquet(file, str(file)) as parquet:
            _require_bank_columns(parquet.schema_arrow, file)
            for group in range(parquet.num_row_groups):
                for template in from_table(parquet.read_row_group(group), Template):
                    trouble = "is there twice" if template.template_id in seen else _trouble_of(template)
                    if trouble:
                        raise ConfigError(f"{file}: template {template.template_id!r} {trouble}; make the bank again")
                    seen.add(template.template_id)
                    yield template


def _require_bank_columns(found: pa.Schema, file: Path) -> None:
    for field in schema_of(Template):
        if field.name not in found.names:
            names = ", ".join(found.names)
            raise ConfigError(f"{file}: no column {field.name!r}; columns found: {names}; make the bank again")
        kind = found.field(field.name).type
        if kind != field.type:
            raise ConfigError(f"{file}: column {field.name!r} is {kind}, not {field.type}; make the bank again")


def _trouble_of(template: Template) -> str:
    """What keeps a bank's template from being used; empty for a good one."""
    try:
        slots = slot_names(template.template)
    except ValueError as error:
        return f"cannot be read ({error})"
    if not slots or len(slots) != template.num_slots:
        return f"has {len(slots)} slots where num_slots says {template.num_slots}"
    return "" if template.compatible_document_description.strip() else "has no description"
