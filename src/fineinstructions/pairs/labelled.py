"""Files of labelled answers -> rows that a judge can be measured on.

In: one file of any layout that is recognised by its columns. Out: a `LabelledSet`: which columns were taken for what,
the usable rows, and how many rows were left out for which reason. A label that cannot be read stops everything: a judge
must not be measured on labels that were guessed.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fineinstructions.backends.completion import encodable
from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row, read_file_rows
from fineinstructions.inputs import InputFile, open_bytes
from fineinstructions.parquet import open_parquet, read_parquet_rows
from fineinstructions.records import content_id

Layout = Literal["pairwise", "scores", "correctness"]
"""What a label says: which of two answers is better, a score for one answer, or whether one answer is right."""

ROLES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "question", "query", "prompt"),
    "first": ("output_1", "response_1", "answer_1", "output_a", "response_a", "answer_a"),
    "second": ("output_2", "response_2", "answer_2", "output_b", "response_b", "answer_b"),
    "chosen": ("chosen", "preferred"),
    "rejected": ("rejected", "dispreferred"),
    "answer": ("answer", "response", "output", "prediction", "completion"),
    "score": ("score", "scores", "human_score", "human_scores", "rating", "gpt4_score", "gpt4_scores"),
    "label": ("label", "human_label", "preference", "winner", "correct", "is_correct"),
    "document": ("document", "context", "passage"),
    "subset": ("subset", "category"),
    "id": ("id",),
}
"""What a column holds, and the names by which it is recognised, the first one there being taken."""

_LAYOUTS: tuple[tuple[Layout, tuple[str, ...]], ...] = (
    ("pairwise", ("first", "second", "label")),
    ("pairwise", ("chosen", "rejected")),
    ("scores", ("answer", "score")),
    ("correctness", ("answer", "label")),
)
"""Roles that make a layout, all with an instruction; the first that a file has is its own."""

_WORDS: dict[str, dict[str, float | None]] = {
    "pairwise": {
        **dict.fromkeys(("1", "a", "first", "model_a", "output_1", "response_1", "answer_1"), 1.0),
        **dict.fromkeys(("2", "b", "second", "model_b", "output_2", "response_2", "answer_2"), 0.0),
        **dict.fromkeys(("tie", "equal", "both", "neither"), None),
    },
    "correctness": {
        **dict.fromkeys(("1", "true", "yes", "right", "correct", "definitely_correct"), 1.0),
        **dict.fromkeys(("0", "false", "no", "wrong", "incorrect", "definitely_incorrect"), 0.0),
        **dict.fromkeys(("possibly_correct", "possibly_incorrect", "unsure", "unclear"), None),
    },
}
"""Labels in words, lower case; None for those that do not decide."""

_MAX_TEXT_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One or two answers to an instruction, and what the label says."""

    row_id: str
    instruction: str
    answers: tuple[str, ...]
    """Two for a pairwise label, in the order in which they were shown, otherwise one."""
    label: float
    """Pairwise: 1 where the first answer is better, 0 where the second is. Scores: the score, the mean of several.
    Correctness: 1 for right, 0 for wrong."""
    document: str = ""
    subset: str = ""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """The labelled rows of one file."""

    name: str
    layout: Layout
    rows: tuple[LabelledRow, ...]
    columns: dict[str, str]
    """Role of a column to its name."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of the file that say nothing about a judge, by reason."""


def read_labelled(file: InputFile, columns: Mapping[str, str], limit: int | None = None, seed: int = 0) -> LabelledSet:
    """The labelled rows of one file.

    Args:
        file: Parquet, JSON lines, JSON, CSV or TSV.
        columns: Role to column, where the known names do not do.
        limit: Take only so many usable rows, drawn by a hash of seed and row.
        seed: Seed of the draw, and of which of ``chosen`` and ``rejected`` counts as shown first.

    Raises:
        ConfigError: If the columns fit no layout, a label cannot be read, or no row is usable.
    """
    found = list(_rows(file))
    seen = list(dict.fromkeys(name for row in found for name in row.values))
    roles, layout = _roles(file.name, seen, columns)
    name = Path(file.name).name.split(".")[0]
    rows, left_out = [], Counter[str]()
    for row in found:
        usable = _labelled(file.name, row, roles, layout, seed)
        if isinstance(usable, str):
            left_out[usable] += 1
        else:
            rows.append(usable)
    if not rows:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(left_out.items()))
        raise ConfigError(f"{file.name}: no usable row ({reasons or 'the file is empty'}); columns taken: {roles}")
    if limit is not None and limit < len(rows):
        order = sorted(range(len(rows)), key=lambda number: content_id("r", str(seed), name, rows[number].row_id))
        rows = [rows[number] for number in sorted(order[:limit])]
        left_out["beyond the limit"] = len(order) - limit
    return LabelledSet(name, layout, tuple(rows), roles, dict(sorted(left_out.items())))


def _rows(file: InputFile) -> Iterator[Row]:
    if file.format != "parquet":
        yield from read_file_rows(file, "", "line", _MAX_TEXT_BYTES)
        return
    with open_bytes(file) as stream, open_parquet(stream, file.name) as parquet:
        everything = range(parquet.metadata.num_rows)
        yield from read_parquet_rows(parquet, file.name, everything, "", _MAX_TEXT_BYTES, nested=True)


def _roles(name: str, seen: Sequence[str], given: Mapping[str, str]) -> tuple[dict[str, str], Layout]:
    """Which column has which role, and the layout that follows."""
    for role, column in given.items():
        if role not in ROLES:
            raise ConfigError(f"--column {role}={column}: no such role; there are {', '.join(ROLES)}")
        if column not in seen:
            raise ConfigError(f"{name}: no column {column!r}; columns found: {', '.join(seen)}")
    known = {role: next((alias for alias in aliases if alias in seen), None) for role, aliases in ROLES.items()}
    roles = {role: column for role, column in {**known, **given}.items() if column is not None}
    for layout, needed in _LAYOUTS:
        if "instruction" in roles and all(role in roles for role in needed):
            return {
                role: roles[role] for role in ("instruction", *needed, "document", "subset", "id") if role in roles
            }, layout
    wanted = " or ".join(" + ".join(("instruction", *needed)) for _, needed in _LAYOUTS)
    raise ConfigError(
        f"{name}: columns found: {', '.join(seen) or 'none'}; wanted are {wanted}; name them with --column ROLE=NAME, "
        "for example --column instruction=question"
    )


def _labelled(name: str, row: Row, roles: Mapping[str, str], layout: Layout, seed: int) -> LabelledRow | str:
    """A usable row, or why it is left out."""
    if row.problem:
        return row.problem
    values = {role: row.values.get(column) for role, column in roles.items()}
    own_id = values.get("id")
    row_id = f"{row.number}" if own_id is None else f"{row.number} {own_id}"
    named = [role for role in ("first", "second", "chosen", "rejected", "answer") if role in roles]
    instruction, *texts = (values[role] for role in ("instruction", *named))
    answers = tuple(text for text in texts if isinstance(text, str) and text.strip())
    if not isinstance(instruction, str) or not instruction.strip() or len(answers) < len(texts):
        return "no text"
    document, subset = (str(values.get(role) or "") for role in ("document", "subset"))
    if not all(encodable(text) == text for text in (row_id, instruction, *answers, document, subset)):
        return "invalid_utf8"
    if "chosen" in roles:
        label: float | None = float(int(content_id("f", str(seed), row_id)[2:], 16) % 2)
        answers = answers if label else answers[::-1]
    elif layout == "scores":
        label = _mean_score(f"{name}, row {row.number}: {roles['score']}", values["score"])
    else:
        label = _word(f"{name}, row {row.number}: {roles['label']}", values["label"], layout)
    if label is None:
        return "no clear label"
    return LabelledRow(row_id, instruction, answers, label, document, subset)


def _mean_score(where: str, value: Any) -> float | None:
    """A number, or the mean of several; None for a missing one."""
    numbers = [number for number in (value if isinstance(value, list) else [value]) if number is not None]
    try:
        found = [number for number in map(float, numbers) if not math.isnan(number)]
        if any(map(math.isinf, found)):
            raise ValueError("infinite")
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where} is {value!r} instead of a number or a list of numbers; see --column score=NAME"
        ) from None
    return sum(found) / len(found) if found else None


def _word(where: str, value: Any, layout: Layout) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    word = str(int(value) if value in (0.0, 1.0, 2.0) else value).strip().lower()
    words = _WORDS[layout]
    if word.replace(" ", "_").replace("-", "_") not in words:
        raise ConfigError(f"{where} is {value!r} instead of one of {', '.join(words)}; see --column label=NAME")
    return words[word.replace(" ", "_").replace("-", "_")]
