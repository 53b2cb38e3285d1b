"""Verbs of students: distill."""

from typing import Annotated

import typer

from fineinstructions.cli.runs import (
    Engine,
    Json,
    Out,
    Recipe,
    Redo,
    Retry,
    Sets,
    Work,
    Workers,
    print_forecast,
    report,
    run_flags,
)


def distill(
    recipe: Recipe,
    out: Out,
    set_: Sets = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N documents.", metavar="N")] = None,
    workers: Workers = None,
    engine: Engine = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Forecast counts, calls, tokens and time from a sample.")
    ] = False,
    redo: Redo = False,
    retry_failed: Retry = False,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Make training data for students: the work of `run` by a teacher, and what students learn from it.

    Rows for a genericizer, an instantiator (two rounds) and an embedder, each in training and validation. Run again to
    continue; the same folder is a run too.
    """
    from fineinstructions.engines.threads import libraries_without_threads

    with libraries_without_threads():
        from fineinstructions import distill as hallway
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.silver.rows import PUBLISHED, REJECTED

    overrides = [*(set_ or ()), *run_flags(limit, workers, engine)]
    if dry_run:
        print_forecast(recipe, overrides, as_json, distilling=True)
        return
    with reporter(as_json) as progress:
        result = hallway.distill(
            recipe, out, overrides=overrides, redo=redo, retry_failed=retry_failed, progress=progress, work=work
        )
    report(result, as_json, tables=(*PUBLISHED, REJECTED))
