"""Verbs of a template bank: templates build."""

import typer

from fineinstructions.cli.runs import Json, Out, Recipe, Redo, Retry, Sets, Workers, report

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
    redo: Redo = False,
    retry_failed: Retry = False,
    as_json: Json = False,
) -> None:
    """Queries to a template bank and its index, without documents."""
    from fineinstructions import pipeline
    from fineinstructions.cli.reporters import reporter

    overrides = [*(set_ or ()), *([f"engine.workers={workers}"] if workers is not None else [])]
    with reporter(as_json) as progress:
        result = pipeline.build_templates(
            recipe, out, overrides=overrides, redo=redo, retry_failed=retry_failed, progress=progress
        )
    report(result, as_json)
