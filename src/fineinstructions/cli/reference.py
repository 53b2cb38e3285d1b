"""The generated pages: every command and option, every key of a recipe, and the recipe's JSON schema.

The command tree in, Markdown out; ``make docs`` writes the pages and a test compares them. The decision one may
question: the pages are committed, so that they can be read without installing anything.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fineinstructions.cli.keys import GENERATED, cell, config_page, paragraphs, schema_page


def pages() -> dict[str, str]:
    """File names of the generated pages and their texts."""
    return {"cli.md": cli_page(), "config.md": config_page(), "recipe.schema.json": schema_page()}


def cli_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    from typer.main import get_command

    from fineinstructions.cli import app

    root = get_command(app)
    lines = ["# Commands", "", GENERATED, "", *paragraphs(root.help), "", *paragraphs(root.epilog)]
    for name, command in _commands(root, "fineinstructions"):
        lines += ["", f"## {name}", "", *paragraphs(command.help), *_parameters(name, command)]
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
        yield from (f"| `{cell(flags)}` | {cell(meaning)} |" for flags, meaning in rows)


def main() -> None:
    """Write the generated pages into the folder named on the command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
