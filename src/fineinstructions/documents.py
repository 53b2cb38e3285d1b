"""The documents of a run: which work units they are cut into, and what the rows of a unit are.

In: the ``documents`` section of the recipe. Out: `UnitSpec` objects, and for each of them one item per input row.

The decision a reader would question: the documents of a unit are read from the input again in every phase that needs
their text, because reading costs less than storing every text twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.config import digest
from fineinstructions.errors import ConfigError
from fineinstructions.readers import DocumentsConfig, read_documents
from fineinstructions.records import Document, Rejection, content_id
from fineinstructions.runs import UnitSpec, plan_units
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.specs import Plan
from fineinstructions.setup import Setup
from fineinstructions.staging import StagedFile, find_repeated_ids, stage_documents

REPEATED_FILE = "repeated.npz"


def documents_of(spec: UnitSpec, setup: Setup) -> Iterator[Document | Rejection]:
    """One item per input row of a unit."""
    config = setup.config.documents
    if config is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    repeated = np.empty(0, np.int64)
    marks = setup.input_dir / REPEATED_FILE
    if marks.exists():
        with np.load(marks, allow_pickle=False) as rows:
            repeated = rows.get(spec.path, repeated)
    return read_documents(spec.path, spec.row_start, spec.row_stop, config, repeated)


def documents_reader(setup: Setup) -> Callable[[UnitSpec], Iterator[Document | Rejection]]:
    """Reads the documents of the units of a finished run.

    Of a run on a store, the input may have been converted on another machine: it is converted again where it must be,
    and a unit is read from where its rows are here.
    """
    here = {unit.unit_id: unit for unit in document_units(setup)} if store_of(setup.root) else {}
    return lambda spec: documents_of(here.get(spec.unit_id, spec), setup)


def document_units(setup: Setup) -> Plan:
    """Row ranges of the documents; what is no Parquet is converted first.

    Raises:
        ConfigError: If a file cannot be read, or there is not one valid document.
    """
    config, engine = setup.config.documents, setup.config.engine
    if config is None:
        raise ConfigError("documents.path: missing; name the file with the documents")
    staged = stage_documents(config, setup.input_dir)
    found = _repeated_rows(staged, config, setup.input_dir / REPEATED_FILE)
    repeated = {s.parquet.path: rows for s, rows in zip(staged, found, strict=True)}
    files = [s.parquet for s in staged]
    units = plan_units(files, engine.unit_bytes, engine.unit_rows, max_rows=sum(s.num_rows for s in staged))
    if not any(map(len, found)):
        return units
    return Plan.of(_told_apart(unit, repeated[unit.path]) for unit in units)


def _told_apart(unit: UnitSpec, repeated: NDArray[np.int64]) -> UnitSpec:
    """A unit whose id tells which of its rows repeat an id, because that depends on the rows and files before it."""
    first, last = np.searchsorted(repeated, (unit.row_start, unit.row_stop))
    rows = repeated[first:last].tolist()
    return replace(unit, unit_id=content_id("u", unit.unit_id, *map(str, rows))) if rows else unit


def _repeated_rows(staged: Sequence[StagedFile], config: DocumentsConfig, marks: Path) -> list[NDArray[np.int64]]:
    """Rows of every file whose id occurred before; found once per input and kept for the workers."""
    seen = [(s.parquet.path, s.parquet.fingerprint, s.num_rows) for s in staged]
    key = digest(seen, config.model_copy(update={"limit": None}))  # the limit is in the rows of every file
    arrays: dict[str, Any] = {}
    if marks.exists():
        with np.load(marks, allow_pickle=False) as found:
            if str(found["key"]) == key:
                return [found[s.parquet.path] for s in staged]
            arrays = {name: found[name] for name in found.files if name != "key"}  # what is committed still needs them
    marks.parent.mkdir(parents=True, exist_ok=True)
    repeated = find_repeated_ids(staged, config)
    arrays |= {s.parquet.path: rows for s, rows in zip(staged, repeated, strict=True)}
    temporary = marks.with_suffix(".tmp.npz")
    np.savez(temporary, key=np.array(key), **arrays)
    temporary.replace(marks)
    return repeated
