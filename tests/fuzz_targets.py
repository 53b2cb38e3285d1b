"""What is fuzzed: functions from any bytes to nothing, which raise only where the package breaks a promise.

Used by `fuzz/test_promises.py`, with the inputs that were once found and with drawn ones, and by `benchmarks/fuzz.py`.
"""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from fineinstructions.backends.replies import json_reply
from fineinstructions.config import digest, load, to_yaml
from fineinstructions.errors import ConfigError
from fineinstructions.formats import read_file_rows
from fineinstructions.inputs import COMPRESSIONS, Format, InputFile
from fineinstructions.judging import VERDICT_PARSERS
from fineinstructions.markup import (
    SlotSegment,
    fill,
    has_tag,
    parse_answer,
    parse_template,
    print_answer,
    print_template,
    skeleton,
    slot_names,
)
from fineinstructions.pairs.instantiate import parse_reply as parse_instantiated
from fineinstructions.parquet import open_parquet, read_parquet_rows
from fineinstructions.readers import DocumentsConfig, describe, take_fields
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Rejection
from fineinstructions.templates.genericize import parse_reply as parse_genericized

FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "tsv", "text")
PACKED = ("", *COMPRESSIONS)
MAX_TEXT_BYTES = 4096
_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")
SCRATCH = Path(_SCRATCH.name)
"""Of this process alone."""


def template(raw: bytes) -> None:
    """A text is no template, or a template that prints back and can be filled."""
    text = _text(raw)
    has_tag(text)
    try:
        segments = parse_template(text)
    except ValueError as error:
        assert str(error).startswith("position "), error
        return
    names = slot_names(text)
    assert names == tuple(s.name for s in segments if isinstance(s, SlotSegment))
    printed = print_template(segments)
    assert print_template(parse_template(printed)) == printed
    assert skeleton(text).count("<fi></fi>") == len(names)
    assert fill(text, names) == "".join(s.name if isinstance(s, SlotSegment) else s.text for s in segments)


def answer(raw: bytes) -> None:
    """A text is no answer, or an answer that prints back."""
    try:
        segments = parse_answer(_text(raw))
    except ValueError as error:
        assert str(error).startswith("position "), error
        return
    printed = print_answer(segments)
    assert print_answer(parse_answer(printed)) == printed


def reply(raw: bytes) -> None:
    """A model's reply is what was asked for, in texts that can be written anywhere, or a `ValueError`."""
    text = _text(raw)
    parsers: tuple[Callable[[str], object], ...] = (
        lambda said: json_reply(said, ("a",), null=True),
        parse_instantiated,
        parse_genericized,
        *VERDICT_PARSERS.values(),
    )
    for parse in parsers:
        try:
            json.dumps(repr(parse(text)), ensure_ascii=False).encode()
        except ValueError as error:
            assert not isinstance(error, UnicodeError), error


def recipe(raw: bytes) -> None:
    """A recipe is read into a config that can be written and read again, or is refused in one line."""
    path = SCRATCH / "recipe.yaml"
    path.write_bytes(raw)
    try:
        config = load(path, RunConfig)
    except ConfigError as error:
        assert str(error).startswith(str(path)), error
        assert len(str(error).splitlines()) == 1, error
        return
    path.write_text(to_yaml(config), encoding="utf-8")
    assert digest(load(path, RunConfig)) == digest(config)


def rows(raw: bytes) -> None:
    """A file of rows is refused in one line, or every row is used or turned away for a reason; the first byte chooses
    the format and the compression."""
    kind, packed = FORMATS[raw[0] % len(FORMATS)] if raw else "text", PACKED[raw[0] // 5 % 3] if raw else ""
    path = SCRATCH / f"rows.{kind}"
    path.write_bytes(raw[1:])
    file = InputFile(LocalFileSystem(), str(path), path.name, kind, packed, is_local=True)
    config = DocumentsConfig(path=str(path), max_document_bytes=MAX_TEXT_BYTES)
    try:
        for row in read_file_rows(file, "text", "line" if raw[:1] >= b"\x80" else "file", MAX_TEXT_BYTES):
            assert row.problem or row.values is not None
            _use(take_fields(row, config, path.name, has_id="id" in row.values))
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1, error


def parquet(raw: bytes) -> None:
    """The same for a Parquet file."""
    config = DocumentsConfig(path="fuzzed.parquet", max_document_bytes=MAX_TEXT_BYTES)
    try:
        with open_parquet(io.BytesIO(raw), "fuzzed.parquet") as file:
            name, has_id = describe(file, "fuzzed.parquet", config)
            number = file.metadata.num_rows
            read = 0
            for row in read_parquet_rows(file, name, range(number), "text", MAX_TEXT_BYTES):
                _use(take_fields(row, config, name, has_id))
                read += 1
            assert read == number
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1, error


def _use(item: object) -> None:
    """Whatever comes out can be written as UTF-8."""
    assert isinstance(item, Rejection) or item
    repr(item).encode()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "template": template,
    "answer": answer,
    "reply": reply,
    "recipe": recipe,
    "rows": rows,
    "parquet": parquet,
}
