"""Verbs of a template bank: templates build, templates prune."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Engine, Json, Out, Recipe, Redo, Retry, Sets, Work, Workers, report, run_flags
from fineinstructions.errors import counted, printable

app = typer.Typer(help="Make template banks that other runs can use.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make template banks that other runs can use (`templates: {bank: PATH}` in their recipe)."""


@app.command("build")
def build(
    recipe: Recipe,
    out: Out,
    set_: Sets = None,
    workers: Workers = None,
    engine: Engine = None,
    redo: Redo = False,
    retry_failed: Retry = False,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Queries to a template bank and its index, without documents."""
    from fineinstructions.engines.threads import libraries_without_threads

    with libraries_without_threads():
        from fineinstructions import pipeline
    from fineinstructions.cli.reporters import reporter

    overrides = [*(set_ or ()), *run_flags(workers=workers, engine=engine)]
    with reporter(as_json) as progress:
        result = pipeline.build_templates(
            recipe, out, overrides=overrides, redo=redo, retry_failed=retry_failed, progress=progress, work=work
        )
    report(result, as_json)


@app.command("prune")
def prune(
    runs: Annotated[list[str], typer.Argument(help="Folders or URLs of finished runs.", metavar="RUN...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bank.", metavar="BANK")],
    min_tries: Annotated[int, typer.Option(min=1, help="Fewest tries that say something of a template.")] = 10,
    max_yield: Annotated[float, typer.Option(min=0.0, max=1.0, help="Largest share of tries that became pairs.")] = 0.0,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Write a bank without the templates that (nearly) never become a pair; `pruned.parquet` in it keeps those."""
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.outcomes import PRUNED_FILE
    from fineinstructions.outcomes import prune as prune_bank
    from fineinstructions.records import as_dict

    with waiting("counting what became of every template"):
        done = prune_bank(runs, out, min_tries=min_tries, max_yield=max_yield, work=work)
    if as_json:
        rows = [{**as_dict(p), "reasons": json.loads(p.reasons)} for p in done.pruned]
        facts = {"bank": str(out), "templates": done.num_templates, "tried": done.num_tried}
        print(json.dumps({**facts, "pruned": rows}, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from fineinstructions.cli.yields_view import pruned_table

    if done.pruned:
        Console().print(pruned_table(done.pruned))
    often = f"{counted(min_tries, 'time')} or more"
    told = f"{counted(done.num_templates, 'template')}, {done.num_tried:,} tried {often}, "
    print(printable(f"{told}{len(done.pruned):,} taken out ({out / PRUNED_FILE})"))
    print(printable(f"use the rest with --set templates.bank={out}"))
