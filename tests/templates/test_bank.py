"""Banks of any Parquet layout: columns have settings, a broken row is a rejection, an unknown layout one line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fineinstructions.errors import ConfigError
from fineinstructions.records import Rejection, Template
from fineinstructions.templates.bank import TemplatesConfig, read_bank

GOOD = "What causes <fi>a disease</fi>?"


def bank(path: Path, **columns: list) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_columns_are_found_by_their_common_names(tmp_path):
    path = bank(
        tmp_path / "bank.parquet",
        id=[7, 8],
        instruction_template=[GOOD, "Who wrote <fi>a book</fi> and <fi>another</fi>?"],
        description=["a page about a disease", "a page about books"],
        license=["CC0-1.0", None],
        other=[1.5, 2.5],
    )
    first, second = read_bank(TemplatesConfig(bank=path))
    assert first == Template("7", GOOD, "a page about a disease", 1, (), "", "CC0-1.0")
    assert (second.template_id, second.num_slots, second.licence) == ("8", 2, "")


def test_columns_can_be_named(tmp_path):
    path = bank(tmp_path / "bank.parquet", t=[GOOD], d=["a page"], template=["not this one"])
    (found,) = read_bank(TemplatesConfig(bank=path, template_column="t", description_column="d"))
    assert (found.template, found.compatible_document_description) == (GOOD, "a page")
    assert found.template_id.startswith("t-")  # no column of ids: a content hash


def test_an_unknown_layout_lists_what_there_is(tmp_path):
    path = bank(tmp_path / "bank.parquet", prompt=[GOOD], about=["a page"])
    with pytest.raises(ConfigError) as caught:
        list(read_bank(TemplatesConfig(bank=path)))
    line = str(caught.value)
    assert "no column 'template' or 'instruction_template'; columns found: prompt, about" in line
    assert "templates.template_column" in line
    assert "\n" not in line


def test_every_broken_row_is_a_rejection_with_its_reason(tmp_path):
    rows = [
        (1, GOOD, "a page", None),
        (None, GOOD, "a page", "missing_id"),
        (3, None, "a page", "missing_template"),
        (4, GOOD, "  ", "missing_description"),
        (5, "What is <fi>a thing?", "a page", "broken_template"),
        (6, "What is this?", "a page", "no_slot"),
        (1, GOOD, "a page", "repeated_id"),
        (8, GOOD, "a page", None),
    ]
    ids, templates, descriptions, reasons = zip(*rows, strict=True)
    path = bank(
        tmp_path / "bank.parquet",
        template_id=list(ids),
        template=list(templates),
        compatible_document_description=list(descriptions),
    )
    found = list(read_bank(TemplatesConfig(bank=path)))
    assert [item.reason if isinstance(item, Rejection) else None for item in found] == list(reasons)
    assert json.loads(found[4].record)["template"] == "What is <fi>a thing?"
    assert found[1].record_id.endswith("bank.parquet:1")


def test_values_of_another_type_are_rejections(tmp_path):
    path = bank(tmp_path / "bank.parquet", template=[5], description=["a page"], id=[[1]])
    (found,) = read_bank(TemplatesConfig(bank=path))
    assert (found.stage, found.reason) == ("templates", "wrong_type")


def test_several_files_and_other_formats(tmp_path):
    for number in range(2):
        bank(tmp_path / f"{number}.parquet", id=[f"t{number}"], template=[GOOD], description=["a page"])
    found = list(read_bank(TemplatesConfig(bank=str(tmp_path / "*.parquet"))))
    assert [template.template_id for template in found] == ["t0", "t1"]
    (tmp_path / "bank.csv").write_text("template,description\n")
    with pytest.raises(ConfigError, match="a template bank is Parquet, this is csv"):
        list(read_bank(TemplatesConfig(bank=str(tmp_path / "bank.csv"))))
