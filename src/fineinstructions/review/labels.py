"""Labels that people give to pairs and templates: what is wrong with one, or that nothing is.

In: labels, one at a time, from the viewer or a filled sheet. Out: ``RUN/audit/labels.jsonl`` for pairs and
``template_labels.jsonl`` for templates, one line for each; the last one of a pair or template counts. The decision to
question: lines are only ever added, so nothing that was labelled is lost.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import to_json

FAULTS = MappingProxyType(
    {
        "factual_error": "a statement of the answer is false",
        "hallucination": "the answer says what its document does not say",
        "semantic_drift": "the instruction does not ask what its template or query asks, or the answer answers another",
        "unanswerable": "the instruction makes no sense, or cannot be answered",
    }
)
"""What can be wrong with a pair, in the order of the viewer's keys 1 to 4. Ours, after the paper's audit."""
TEMPLATE_FAULTS = MappingProxyType(
    {
        "particulars": "a name, number or other particular of the query is left in, so that few documents fit",
        "bad_slot": "a slot stands for words that should stay, or does not say what belongs into it",
        "semantic_drift": "with the particulars put back in, it does not ask what its query asks",
        "unusable": "it is no question or request, or none that a document could answer",
        "wrong_description": "the description names other documents than those that could answer it",
    }
)
"""What can be wrong with a template. Ours."""
AUDIT_DIR = "audit"
MAX_NOTE_CHARS = 2000


@dataclass(frozen=True)
class Audited:
    """What is audited by a sheet, and where that lies in ``RUN/audit``."""

    name: str
    """``pair`` or ``template``."""
    faults: Mapping[str, str]
    """What can be wrong with one, and what that means."""
    texts: tuple[str, ...]
    """Columns that a sheet shows, in order; those behind the first ones may be empty."""
    sheet_file: str
    labels_file: str
    verdicts_file: str

    @property
    def id_column(self) -> str:
        """Column of a sheet that names its rows."""
        return f"{self.name}_id"


PAIRS = Audited(
    "pair",
    FAULTS,
    ("instruction", "answer", "document", "template", "query"),
    "sheet.csv",
    "labels.jsonl",
    "verdicts.jsonl",
)
TEMPLATES = Audited(
    "template",
    TEMPLATE_FAULTS,
    ("template", "description", "query"),
    "templates.csv",
    "template_labels.jsonl",
    "template_verdicts.jsonl",
)


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of one pair or template."""

    record_id: str
    faults: tuple[str, ...]
    """Of `Audited.faults`; none where nothing is wrong."""
    note: str = ""


def checked(record_id: str, faults: Iterable[str], note: str = "", of: Audited = PAIRS) -> Label:
    """A label whose faults are known, in their order.

    Raises:
        ConfigError: If one is not.
    """
    given = set(faults)
    unknown = sorted(given - set(of.faults))
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no fault of a {of.name}; known are {', '.join(of.faults)}")
    return Label(record_id, tuple(fault for fault in of.faults if fault in given), note[:MAX_NOTE_CHARS])


def add_labels(run_dir: Path, labels: Iterable[Label], of: Audited = PAIRS) -> None:
    """Append labels to those of a run, on the disk when this returns."""
    folder = run_dir / AUDIT_DIR
    folder.mkdir(exist_ok=True)
    lines = "".join(to_json(label) + "\n" for label in labels)
    with (folder / of.labels_file).open("a+b") as handle:
        if handle.tell() and not _ends_a_line(handle.name):
            handle.write(b"\n")  # a line that a kill has torn stays alone
        handle.write(lines.encode("utf-8", "replace"))
        handle.flush()
        os.fsync(handle.fileno())


def _ends_a_line(path: str) -> bool:
    with Path(path).open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def named_today(row: dict[str, Any]) -> dict[str, Any]:
    """A line with its id under the name of today; it was ``pair_id`` as long as only pairs were labelled."""
    return {"record_id" if name == "pair_id" else name: value for name, value in row.items()}


def read_labels(run_dir: Path, of: Audited = PAIRS) -> dict[str, Label]:
    """The last label of every pair or template.

    Raises:
        DataError: If a whole line is no label; a torn last line is passed over.
    """
    path = run_dir / AUDIT_DIR / of.labels_file
    found: dict[str, Label] = {}
    if not path.exists():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            row = named_today(row)
            if not isinstance(row["record_id"], str):
                raise TypeError
            label = checked(row["record_id"], row["faults"], row.get("note", ""), of)
        except (ConfigError, KeyError, TypeError, AttributeError):
            raise DataError(f"{path}, line {number}: no label; take the line out") from None
        found[label.record_id] = label
    return found
