"""Labels that people give to pairs: what is wrong with one, or that nothing is.

In: labels, one at a time, from the viewer or a filled sheet. Out: ``RUN/audit/labels.jsonl``, one line for each; the
last one of a pair counts. The decision to question: lines are only ever added, so nothing that was labelled is lost.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

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
LABELS_FILE = "labels.jsonl"
AUDIT_DIR = "audit"
MAX_NOTE_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of one pair."""

    pair_id: str
    faults: tuple[str, ...]
    """Of `FAULTS`; none where nothing is wrong."""
    note: str = ""


def checked(pair_id: str, faults: Iterable[str], note: str = "") -> Label:
    """A label whose faults are known, in their order.

    Raises:
        ConfigError: If one is not.
    """
    given = set(faults)
    unknown = sorted(given - set(FAULTS))
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no fault; known are {', '.join(FAULTS)}")
    return Label(pair_id, tuple(fault for fault in FAULTS if fault in given), note[:MAX_NOTE_CHARS])


def add_labels(run_dir: Path, labels: Iterable[Label]) -> None:
    """Append labels to those of a run, on the disk when this returns."""
    folder = run_dir / AUDIT_DIR
    folder.mkdir(exist_ok=True)
    lines = "".join(to_json(label) + "\n" for label in labels)
    with (folder / LABELS_FILE).open("a+b") as handle:
        if handle.tell() and not _ends_a_line(handle.name):
            handle.write(b"\n")  # a line that a kill has torn stays alone
        handle.write(lines.encode("utf-8", "replace"))
        handle.flush()
        os.fsync(handle.fileno())


def _ends_a_line(path: str) -> bool:
    with Path(path).open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def read_labels(run_dir: Path) -> dict[str, Label]:
    """The last label of every pair.

    Raises:
        DataError: If a whole line is no label; a torn last line is passed over.
    """
    path = run_dir / AUDIT_DIR / LABELS_FILE
    found: dict[str, Label] = {}
    if not path.exists():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            if not isinstance(row["pair_id"], str):
                raise TypeError
            label = checked(row["pair_id"], row["faults"], row.get("note", ""))
        except (ConfigError, KeyError, TypeError, AttributeError):
            raise DataError(f"{path}, line {number}: no label; take the line out") from None
        found[label.pair_id] = label
    return found
