"""The generated pages: every command and option, every key of a recipe, and the recipe's JSON schema.

The command tree and `RunConfig` in, Markdown and JSON out; ``make docs`` writes them and a test compares them. The
decision one may question: the pages are committed, so that they can be read without installing anything.
"""

import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_GENERATED = "<!-- Written by `make docs`; change the code, not this page. -->"


def pages() -> dict[str, str]:
    """File names of the generated pages and their texts."""
    return {"cli.md": cli_page(), "config.md": config_page(), "recipe.schema.json": schema_page()}


def cli_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    from typer.main import get_command

    from fineinstructions.cli import app

    root = get_command(app)
    lines = ["# Commands", "", _GENERATED, "", *_paragraphs(root.help)]
    for name, command in _commands(root, "fineinstructions"):
        lines += ["", f"## {name}", "", *_paragraphs(command.help), *_parameters(name, command)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Commands that do something, with their full names, in the order of their definition."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        full = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, full)
        else:
            yield full, command


def _parameters(name: str, command: Any) -> Iterator[str]:
    import typer

    context = typer.Context(command, info_name=name)
    usage = " ".join(piece for p in command.params for piece in p.get_usage_pieces(context))
    yield from ("", "```", f"{name} {usage} [OPTIONS]".replace("  ", " "), "```")
    records = [p.get_help_record(context) for p in command.params if not getattr(p, "hidden", False)]
    rows = [record for record in records if record is not None]
    if rows:
        yield from ("", "| argument or option | meaning |", "| --- | --- |")
        yield from (f"| `{_cell(flags)}` | {_cell(meaning)} |" for flags, meaning in rows)


def config_page() -> str:
    """Every key of a recipe with its type, default and meaning, as Markdown."""
    from fineinstructions.recipe import RunConfig

    lines = ["# Recipe keys", "", _GENERATED, "", *_paragraphs(RunConfig.__doc__)]
    plain = [(name, field) for name, field in RunConfig.model_fields.items() if _section(field.annotation) is None]
    lines += ["", *_key_table("", plain)]
    for name, field in RunConfig.model_fields.items():
        lines += _section_lines(name, field)
    return "\n".join(lines) + "\n"


def _section_lines(key: str, field: FieldInfo) -> Iterator[str]:
    """One section of the recipe, and the sections inside it."""
    section = _section(field.annotation)
    if section is None:
        return
    yield from ("", f"## {key}", "", *_paragraphs(field.description or section.__doc__), "")
    plain = [(name, inner) for name, inner in section.model_fields.items() if _section(inner.annotation) is None]
    yield from _key_table(f"{key}.", plain)
    for name, inner in section.model_fields.items():
        yield from _section_lines(f"{key}.{name}", inner)


def _key_table(prefix: str, fields: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    if fields:
        yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in fields:
        default = "required" if field.is_required() else f"`{_default(field)}`"
        kind = _cell(_type_name(field.annotation))
        yield f"| `{prefix}{name}` | {kind} | {_cell(default)} | {_cell(field.description or '')} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=str)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config class of a section; ``None`` for a plain key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = typing.get_args(annotation) if typing.get_origin(annotation) in (types.UnionType, typing.Union) else ()
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
    plain = {type(None): "null", str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def schema_page() -> str:
    """The recipe's JSON schema, for editors."""
    from fineinstructions.recipe import RunConfig

    return json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _paragraphs(text: str | None) -> list[str]:
    """A docstring's paragraphs, each on one line, with an empty line between them."""
    paragraphs = [" ".join(p.split()) for p in (text or "").replace("\b", "").split("\n\n") if p.strip()]
    return [line for p in paragraphs for line in (p, "")][:-1]


def _cell(text: str) -> str:
    """Text that fits one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the generated pages into the folder named on the command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
