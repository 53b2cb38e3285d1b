"""The audit's sheets: seeded samples of pairs and templates, with columns for what is wrong; and what filled ones say.

In: pairs of a run, and pairs that were prompted for directly, to compare; templates. Out: ``RUN/audit/sheet.csv``, in
an order that does not tell the two apart, ``templates.csv``, and error rates. The decision to question: a row counts as
judged once its ``judged`` column is filled or a fault is named, so an untouched row is never taken for a good one.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from fineinstructions.errors import ConfigError
from fineinstructions.records import Document, Pair, Template, content_id
from fineinstructions.review.labels import PAIRS, TEMPLATES, Audited, Label, checked
from fineinstructions.statistics import wilson_interval

BY_JUDGE = "judge "
"""How the column ``by`` begins where a language model has filled a row in."""
MAX_DOCUMENT_CHARS = 4000
CONTEXT_CHARS = 1500
_TRUE = {"1", "x", "yes", "y", "true"}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t")
_FALSE = {"", "0", "no", "n", "false"}
_MAX_FIELD_CHARS = 1 << 24


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row of a sheet."""

    record_id: str
    arm: str
    """``run``, or ``direct`` for pairs that were prompted for directly; not in the sheet."""
    texts: tuple[str, ...]
    """As `Audited.texts`; of a pair: instruction, answer, the document around the quotation as far as a sheet can hold
    it, and the template and a query behind it, empty where they are not known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was found wrong."""

    name: str
    """A fault, or ``any``."""
    num_wrong: int
    num_judged: int

    @property
    def share(self) -> float | None:
        """Share of the judged rows; ``None`` without any."""
        return self.num_wrong / self.num_judged if self.num_judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the share, 95 %."""
        return wilson_interval(self.num_wrong, self.num_judged)


def of_run(pair: Pair, document: Document | None, template: str = "", query: str = "") -> SheetRow:
    """A pair of the run as a row, with its template and a query behind it as far as they are known."""
    start = pair.excerpts[0].document_start if pair.excerpts else 0
    text = document.text if document else ""
    begin = max(0, start - CONTEXT_CHARS)
    around = text[begin : begin + MAX_DOCUMENT_CHARS]
    shown = ("... " if begin else "") + around
    return SheetRow(pair.pair_id, "run", (pair.instruction, pair.answer, shown, template, query))


def of_template(template: Template, query: str = "") -> SheetRow:
    """A template as a row, with a query behind it where it is known."""
    texts = (template.template, template.compatible_document_description, query)
    return SheetRow(template.template_id, "run", texts)


def direct_rows(rows: Iterable[tuple[str, str, str]]) -> list[SheetRow]:
    """Pairs that were prompted for directly, as instruction, answer and document."""
    return [SheetRow(content_id("x", i, a), "direct", (i, a, d[:MAX_DOCUMENT_CHARS], "", "")) for i, a, d in rows]


def drawn(rows: Sequence[SheetRow], count: int, seed: int) -> list[SheetRow]:
    """A seeded choice of rows, each id once, which depends on seed and ids alone."""
    once = {row.record_id: row for row in rows}
    return sorted(once.values(), key=lambda row: _luck(row.record_id, seed))[:count]


def _luck(record_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0sheet\0{record_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def told_alike(rows: Sequence[SheetRow]) -> list[SheetRow]:
    """The rows without template and query where some are not of the run, so that both arms are judged by the same."""
    if all(row.arm == "run" for row in rows):
        return list(rows)
    return [replace(row, texts=(*row.texts[:3], "", "")) for row in rows]


def in_sheet_order(rows: Sequence[SheetRow], seed: int) -> list[SheetRow]:
    """Rows of all arms, mixed, in an order that depends on seed and ids alone."""
    return sorted(rows, key=lambda row: _luck(row.record_id, seed))


def sheet_text(
    rows: Sequence[SheetRow],
    labels: Mapping[str, Label],
    seed: int,
    judge: str = "",
    judged: Mapping[str, Label] = MappingProxyType({}),
    of: Audited = PAIRS,
) -> str:
    """The sheet as CSV; what is labelled already is filled in.

    Args:
        rows: Rows of all arms.
        labels: What people said.
        seed: Decides the order.
        judge: Name of a judge, whose marks fill rows that nobody else has labelled.
        judged: What it said.
        of: What the rows are.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((of.id_column, *of.texts, "judged", *of.faults, "note", "by"))
    for row in in_sheet_order(rows, seed):
        by = f"{BY_JUDGE}{judge}" if row.record_id in judged and row.record_id not in labels else ""
        label = labels.get(row.record_id) or judged.get(row.record_id)
        marks = ["x" if label and fault in label.faults else "" for fault in of.faults]
        texts = [_cell(text) for text in (row.record_id, *row.texts)]
        writer.writerow([*texts, "x" if label else "", *marks, _cell(label.note) if label else "", _cell(by)])
    return out.getvalue()


def _cell(text: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    clean = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    return f"'{clean}" if clean[:1] in _FORMULA_STARTS else clean


def _bare(cell: str) -> str:
    """The text of a cell, without what `_cell` puts before it."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA_STARTS and cell[1:] else cell


def sheet_rows(path: Path) -> tuple[Audited, list[dict[str, str]]]:
    """What a filled sheet is of, and its rows.

    Raises:
        ConfigError: If it is no sheet.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV in UTF-8 ({error}); save it so, or name another") from None
    of = TEMPLATES if rows and TEMPLATES.id_column in rows[0] else PAIRS
    missing = [name for name in (of.id_column, *of.faults) if not rows or name not in rows[0]]
    if missing:
        raise ConfigError(f"{path}: no column {missing[0]!r}; fill in the {of.sheet_file} that 'audit' wrote")
    return of, rows


def read_sheet(path: Path, knows: Callable[[str], bool]) -> list[Label]:
    """The labels that people have put into a sheet; rows that a language model has filled in are passed over.

    Args:
        path: The sheet; columns may stand in any order, ``note``, ``by`` and texts may be missing.
        knows: Whether an id is one of the audit's.

    Raises:
        ConfigError: If it is no sheet, or a row cannot be understood.
    """
    of, rows = sheet_rows(path)
    labels = []
    for number, row in enumerate(rows, start=2):
        record_id = row[of.id_column] or ""
        if not knows(record_id):
            raise ConfigError(
                f"{path}, row {number}: {of.name} {record_id!r} is not in this audit; "
                "hand a sheet back with the --against, --seed and --pairs it was made with"
            )
        if (row.get("by") or "").startswith(BY_JUDGE):
            continue
        faults = [fault for fault in of.faults if _is_marked(row[fault], path, number, fault)]
        if faults or _is_marked(row.get("judged", ""), path, number, "judged"):
            labels.append(checked(record_id, faults, _bare(row.get("note") or ""), of))
    return labels


def _is_marked(cell: str | None, path: Path, number: int, column: str) -> bool:
    text = (cell or "").strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ConfigError(f"{path}, row {number}, {column}: {text[:40]!r} is neither x nor empty; mend the cell")


def rates(rows: Sequence[SheetRow], labels: Mapping[str, Label], arm: str, of: Audited = PAIRS) -> list[Rate]:
    """How often each fault, and any fault, was found among the rows of one arm that somebody judged."""
    judged = [labels[row.record_id] for row in rows if row.arm == arm and row.record_id in labels]
    counts = {fault: sum(fault in label.faults for label in judged) for fault in of.faults}
    return [
        Rate("any", sum(bool(label.faults) for label in judged), len(judged)),
        *(Rate(fault, count, len(judged)) for fault, count in counts.items()),
    ]


def difference_interval(ours: Rate, theirs: Rate) -> tuple[float, float] | None:
    """95 % interval of the difference of two error rates; ``None`` unless both have been judged.

    Source:
        Newcombe 1998, method 10: from the two Wilson intervals.
    """
    if ours.share is None or theirs.share is None:
        return None
    (low_a, high_a), (low_b, high_b) = ours.interval, theirs.interval
    a, b = ours.share, theirs.share
    below = ((a - low_a) ** 2 + (high_b - b) ** 2) ** 0.5
    above = ((high_a - a) ** 2 + (b - low_b) ** 2) ** 0.5
    return a - b - below, a - b + above
