"""Reads training rows back: of a `distill` run, or of files with the same columns.

In: the folder of a run, or Parquet and JSON lines. Out: one example or rejection per row. The decision a reader would
question: only columns that training needs are asked for (`prompt` and `completion`; or `document`, `description` and
`label`), so that rows from elsewhere need no made-up ids; a row without `split` is for training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row, read_file_rows
from fineinstructions.inputs import InputFile, list_inputs, open_bytes
from fineinstructions.parquet import open_parquet, read_parquet_rows
from fineinstructions.records import GLOBAL_CHUNK, Rejection, content_id, rejection
from fineinstructions.silver.rows import TRAIN, VALIDATION, Message

STAGE = "read"
_MAX_TEXT_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from, as far as it says."""

    source: str = ""
    licence: str = ""
    """Of the query or document, and of the template's queries, separated by ``; ``."""
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that a student learns, or is tested on."""

    row_id: str
    split: str
    prompt: tuple[Message, ...]
    reply: str
    round: int = 1
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class PairExample:
    """A document and a description that an embedder learns, or is tested on."""

    row_id: str
    split: str
    document: str
    description: str
    label: float
    chunk: int
    """Coverage chunk that the pair is about, `GLOBAL_CHUNK` for the whole."""
    is_quoted: bool
    """Whether the chunk is where a judge found the answer; else it is only where the template was found."""
    origin: Origin = Origin()


def read_examples(
    data: str | Sequence[str], tables: Sequence[str], objection: Callable[[Example], str]
) -> Iterator[Example | Rejection]:
    """Conversations for a genericizer or an instantiator.

    Args:
        data: Folder of a run, or files, globs and folders.
        tables: Tables of the run to read.
        objection: Why a student could not use what is well formed; empty for a good row.

    Yields:
        One item per row, in order. Reasons: ``format`` and those of `objection` and of the readers of files.

    Raises:
        ConfigError: If there are no rows, or a file cannot be read.
    """
    for place, row in _rows(data, tables):
        found = None if row.problem else _example(row)
        reason = row.problem or ("format" if found is None else objection(found))
        if found is not None and not reason:
            yield found
        else:
            yield rejection(STAGE, reason, place, {"row": place, "detail": row.detail or _shape(row)})


def read_pairs(data: str | Sequence[str]) -> Iterator[PairExample | Rejection]:
    """Labelled pairs for an embedder; as `read_examples`."""
    for place, row in _rows(data, ("embedder",)):
        found = None if row.problem else _pair(row)
        if found is None:
            yield rejection(STAGE, row.problem or "format", place, {"row": place, "detail": row.detail or _shape(row)})
        else:
            yield found


T = TypeVar("T", Example, PairExample)


def once(items: Sequence[T | Rejection]) -> Iterator[T | Rejection]:
    """Every row once; what one input holds out, no other may train on.

    Args:
        items: Rows of all inputs.

    Yields:
        One item per item, in order. Reasons: ``repeated``, and ``held_out`` for a training row that is held out too.
    """
    held_out = {item.row_id for item in items if not isinstance(item, Rejection) and item.split == VALIDATION}
    seen = set[str]()
    for item in items:
        if isinstance(item, Rejection):
            yield item
        elif item.split == TRAIN and item.row_id in held_out:
            yield rejection(STAGE, "held_out", item.row_id, {"row_id": item.row_id})
        elif item.row_id in seen:
            yield rejection(STAGE, "repeated", item.row_id, {"row_id": item.row_id})
        else:
            seen.add(item.row_id)
            yield item


def _rows(data: str | Sequence[str], tables: Sequence[str]) -> Iterator[tuple[str, Row]]:
    paths = [data] if isinstance(data, str) else list(data)
    wanted = [found for path in paths for found in _of_run(path, tables)]
    any_row = False
    for file in list_inputs(wanted, "data"):
        for row in _rows_of(file):
            any_row = True
            yield f"{file.name}, row {row.number}", row
    if not any_row:
        raise ConfigError(f"data: {', '.join(paths)} has no rows; give the folder of a finished distill run, or files")


def _of_run(path: str, tables: Sequence[str]) -> list[str]:
    """The folders of a run's tables; the path itself where it is no run."""
    folders = [Path(path) / f"{table}_{split}" for table in tables for split in (TRAIN, VALIDATION)]
    there = [str(folder) for folder in folders if folder.is_dir()]
    if not there and (Path(path) / "recipe.resolved.yaml").exists():
        raise ConfigError(f"data: {path} is a run without {' and '.join(tables)} rows; finish it with distill first")
    return there or [path]


def _rows_of(file: InputFile) -> Iterator[Row]:
    if file.format != "parquet":
        yield from read_file_rows(file, "", "line", _MAX_TEXT_BYTES)
        return
    with open_bytes(file) as stream, open_parquet(stream, file.name) as parquet:
        every = range(parquet.metadata.num_rows)
        yield from read_parquet_rows(parquet, file.name, every, "reply", _MAX_TEXT_BYTES, nested=True)


def _shape(row: Row) -> str:
    return f"columns {', '.join(sorted(row.values))}"


def _example(row: Row) -> Example | None:
    values = row.values
    prompt, completion = _messages(values.get("prompt")), _messages(values.get("completion"))
    if not prompt or len(completion) != 1 or completion[0].role != "assistant":
        return None
    split, number = values.get("split", TRAIN), values.get("round", 1)
    if split not in (TRAIN, VALIDATION) or isinstance(number, bool) or not isinstance(number, int):
        return None
    texts = [message.content for message in (*prompt, *completion)]
    row_id = _text(values, "row_id") or content_id("r", *texts)
    return Example(row_id, split, prompt, completion[0].content, number, _origin(values))


def _messages(value: Any) -> tuple[Message, ...]:
    """Messages of a row; none where it has no list of them."""
    turns = value if isinstance(value, list) else []
    found = [
        Message(turn["role"], turn["content"])
        for turn in turns
        if isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
    ]
    return tuple(found) if len(found) == len(turns) else ()


def _pair(row: Row) -> PairExample | None:
    values = row.values
    document, description = _text(values, "document"), _text(values, "description")
    label, chunk, split = values.get("label"), values.get("chunk", GLOBAL_CHUNK), values.get("split", TRAIN)
    if not document.strip() or not description.strip() or split not in (TRAIN, VALIDATION):
        return None
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
        return None
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < GLOBAL_CHUNK:
        return None
    row_id = _text(values, "row_id") or content_id("e", document, description)
    quote = values.get("quote_start", 0)
    is_quoted = chunk != GLOBAL_CHUNK and isinstance(quote, int) and quote >= 0
    return PairExample(row_id, split, document, description, float(label), chunk, is_quoted, _origin(values))


def _origin(values: dict[str, Any]) -> Origin:
    licences = dict.fromkeys(_text(values, name) for name in ("licence", "license", "template_licence"))
    stated = "; ".join(licence for licence in licences if licence)
    return Origin(_text(values, "source"), stated, _text(values, "teacher"))


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
