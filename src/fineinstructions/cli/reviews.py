"""Verbs that look at a whole run: view, report, audit."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Columns, Folder, Json, Work, columns_of
from fineinstructions.errors import counted, printable

DEFAULT_PORT = 8377


def view(
    folder: Folder,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach demands a token.", metavar="HOST")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes one that is free.", min=0, max=65535)] = DEFAULT_PORT,
    token: Annotated[
        str, typer.Option(envvar="FINEINSTRUCTIONS_VIEW_TOKEN", help="What everybody must bring.", metavar="TOKEN")
    ] = "",
    work: Work = None,
) -> None:
    """Browse pairs beside their documents, and rejections; move thresholds; label pairs for the audit.

    A local web page, until Ctrl-C; needs the extra `view`.
    """
    from fineinstructions.review.viewer.serve import address_of, bound, checked_access, serve
    from fineinstructions.windows import open_viewer

    access = checked_access(host, token)
    listening = bound(host, port)
    app = open_viewer(folder, access, work)
    print(f"{address_of(listening, access)}   (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        serve(app, listening)


def report(
    folder: Folder,
    curves: Annotated[
        Path | None, typer.Option(help="Folder of an experiment; its curves are drawn in the report.", metavar="DIR")
    ] = None,
    work: Work = None,
) -> None:
    """Write the report of a run: RUN/report/index.html, one page that needs nothing else, and report.md.

    The funnel, scores, origins, what `audit` has found, pairs drawn at random, the worst kept and the best rejected.
    """
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.errors import printable
    from fineinstructions.windows import write_run_report

    with waiting("writing the report"):
        page = write_run_report(folder, work, curves)
    print(printable(str(page)))


def audit(
    folder: Folder,
    pairs: Annotated[
        int, typer.Option("--pairs", "-n", min=1, help="Pairs in the sheet, and templates in theirs.", metavar="N")
    ] = 100,
    seed: Annotated[int, typer.Option(help="Decides which.")] = 0,
    sheet: Annotated[
        list[Path] | None, typer.Option("--sheet", help="A filled sheet, whose labels are taken over.", metavar="CSV")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Parquet file of pairs that were prompted for directly, to compare.", metavar="FILE"),
    ] = None,
    column: Columns = None,
    hour_price: Annotated[
        float | None, typer.Option(min=0, help="What one worker costs for an hour.", metavar="PRICE")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", "-j", help="Language model that fills in the sheet: a folder, or NAME@URL."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Its prompt for pairs, in place of ours.", metavar="FILE")] = None,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Audit a run: error rates by a sheet, distribution beside real queries, diversity, cost.

    Writes RUN/audit: sheet.csv to fill in (or label in the viewer, or let a --judge do it), sheet.html to read beside
    it, templates.csv likewise for templates, and all that was found as index.html, audit.md and JSON.
    """
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.windows import audit_run

    with waiting("reading pairs, queries and documents"):
        found = audit_run(
            folder,
            count=pairs,
            seed=seed,
            direct=against,
            columns=columns_of(column),
            sheets=sheet or (),
            hour_price=hour_price,
            judge=judge,
            prompt=prompt,
            work=work,
        )
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        from rich.console import Console

        from fineinstructions.cli.audit_view import audit_view

        Console().print(audit_view(found))
        print(printable(f"written to {folder}/audit: index.html, and sheet.csv and templates.csv to fill in"))
    if found["quality"]["num_failed"]:
        failed = counted(found["quality"]["num_failed"], "row")
        print(f"{failed} without an answer of the judge; run the same command again to ask again", file=sys.stderr)
        raise typer.Exit(1)
