"""Verbs of evaluation: eval, compare."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fineinstructions.cli.runs import Json, Redo, Sets
from fineinstructions.errors import counted, printable

if TYPE_CHECKING:
    from fineinstructions.evaluation_recipe import EvaluationConfig


def evaluate(
    names: Annotated[
        list[str], typer.Argument(help="mixeval, mixeval_hard, mt_bench_101, alpaca_eval, or all.", metavar="NAME")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for results; continued.", metavar="DIR")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint folder, or NAME@http://HOST:PORT/v1.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", "-j", help="The judge, named in the same way.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Folder with the benchmarks' own files.", metavar="DIR")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N items of every part.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with further settings (docs/config.md).")
    ] = None,
    set_: Sets = None,
    redo: Redo = False,
    as_json: Json = False,
) -> None:
    """Score a model on MixEval, MixEval-Hard, MT-Bench-101 and AlpacaEval 2, with any judge.

    The benchmarks' files are not part of this package: name them with --data, or each with --set mixeval.path=...
    """
    from fineinstructions import evaluate as hallway
    from fineinstructions.cli.reporters import reporter

    recipe = _recipe(config, {"model": model, "judge": judge}, {"data": data, "limit": limit}, set_ or [])
    with reporter(as_json) as progress:
        found = hallway.evaluate(names, recipe, out, redo=redo, progress=progress)
    plain = [hallway.plain(evaluated) for evaluated in found]
    if as_json:
        print(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        _show(plain)
        print(printable(f"written to {out}; report.md says what each figure counts"))
    failed = sum(evaluated.num_failed for evaluated in found)
    if failed:
        print(f"{counted(failed, 'question')} failed; run the same command again to ask again", file=sys.stderr)
        raise typer.Exit(1)


def _recipe(
    config: Path | None, models: dict[str, str | None], keys: dict[str, Any], overrides: list[str]
) -> "EvaluationConfig":
    from fineinstructions.config import from_mapping, load, to_plain
    from fineinstructions.evaluation_recipe import EvaluationConfig, named_model

    raw = to_plain(load(config, EvaluationConfig)) if config is not None else {}
    for section, text in models.items():
        if text is not None:
            raw[section] = {**raw.get(section, {}), **named_model(text)}
    raw |= {name: value for name, value in keys.items() if value is not None}
    return from_mapping(raw, EvaluationConfig, overrides, where=str(config or "eval"))


def _show(evaluations: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from fineinstructions.evaluation.report import rows, summary, title

    console = Console(highlight=False)
    for found in evaluations:
        console.print(Text(printable(title(found)), style="bold"))
        console.print(Text(printable(summary(found))))
        console.print(_table(("figure", "value", "95 % interval"), [row[:3] for row in rows(found)]))
        console.print()


def _table(head: tuple[str, ...], rows: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, justify="right" if name == "value" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def compare(
    folders: Annotated[list[str], typer.Argument(help="Two or more folders of eval; the first is A.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for table and plot.", metavar="DIR")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare evaluated models item by item: differences with intervals, significance, win rates, position bias."""
    from fineinstructions.comparison import compare_evaluations
    from fineinstructions.records import as_dict

    found = compare_evaluations(folders, out=out, seed=seed)
    if as_json:
        print(json.dumps([as_dict(comparison) for comparison in found], indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from fineinstructions.evaluation.comparison_page import HEAD, cells, notes

    Console(highlight=False).print(_table(HEAD, cells(found)))
    for note in notes(found):
        print(printable(note))
    if out is not None:
        print(printable(f"written to {out}"))
