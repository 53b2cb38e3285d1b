"""The keys of a recipe as a reader needs them: a page of tables, and a JSON schema for editors.

`RunConfig` in, Markdown and JSON out. Types, defaults and meanings come from the config classes beside the operators.
"""

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

GENERATED = "<!-- Written by `make docs`; change the code, not this page. -->"


def config_page() -> str:
    """Every key of a recipe with its type, default and meaning, as Markdown."""
    from fineinstructions.recipe import RunConfig

    lines = ["# Recipe keys", "", GENERATED, "", *paragraphs(RunConfig.__doc__)]
    plain = [(name, field) for name, field in RunConfig.model_fields.items() if _section(field.annotation) is None]
    lines += ["", *_key_table("", plain)]
    for name, field in RunConfig.model_fields.items():
        lines += _section_lines(name, field)
    lines += _export_lines(set(RunConfig.model_fields))
    return "\n".join(lines) + "\n"


def _export_lines(of_recipes: set[str]) -> Iterator[str]:
    """Keys of an export, without the sections that recipes have too."""
    from fineinstructions.corpus.export import ExportConfig

    yield from ("", "# Keys of an export", "")
    yield "For `fineinstructions export RUN --config FILE`, or `--set`; sections of a recipe mean the same here."
    fields = ExportConfig.model_fields
    plain = [(name, field) for name, field in fields.items() if _section(field.annotation) is None]
    yield from ("", *_key_table("", plain))
    for name, field in fields.items():
        if name not in of_recipes:
            yield from _section_lines(name, field)


def _section_lines(key: str, field: FieldInfo) -> Iterator[str]:
    """One section of the recipe, and the sections inside it."""
    section = _section(field.annotation)
    if section is None:
        return
    key += {list: "[]", dict: ".NAME"}.get(typing.get_origin(field.annotation) or str, "")
    yield from ("", f"## {key}", "", *paragraphs(field.description or section.__doc__), "")
    plain = [(name, inner) for name, inner in section.model_fields.items() if _section(inner.annotation) is None]
    yield from _key_table(f"{key}.", plain)
    for name, inner in section.model_fields.items():
        yield from _section_lines(f"{key}.{name}", inner)


def _key_table(prefix: str, fields: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    if fields:
        yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in fields:
        default = "required" if field.is_required() else f"`{_default(field)}`"
        kind = cell(_type_name(field.annotation))
        yield f"| `{prefix}{name}` | {kind} | {cell(default)} | {cell(field.description or '')} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=str)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config class of a section, or of the entries of a list; ``None`` for a plain key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    is_wrapper = typing.get_origin(annotation) in (types.UnionType, typing.Union, list, dict)
    arguments = typing.get_args(annotation) if is_wrapper else ()
    return next((found for found in map(_section, arguments) if found is not None), None)


def _type_name(annotation: Any) -> str:
    """A type as a reader of YAML would name it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_name(argument) for argument in arguments)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    plain = {
        type(None): "null",
        str: "text",
        int: "whole number",
        float: "number",
        ByteSize: "size",
        bool: "true or false",
        Path: "path",
    }
    if annotation is Any:
        return "anything"
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def schema_page() -> str:
    """The recipe's JSON schema, for editors."""
    from fineinstructions.recipe import RunConfig

    return json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def paragraphs(text: str | None) -> list[str]:
    """A docstring's paragraphs, each on one line, with an empty line between them."""
    paragraphs = [" ".join(p.split()) for p in (text or "").replace("\b", "").split("\n\n") if p.strip()]
    return [line for p in paragraphs for line in (p, "")][:-1]


def cell(text: str) -> str:
    """Text that fits one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
