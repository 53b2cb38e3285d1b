"""Verbs that look at results: inspect, explain, try."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Folder, Json, Work

Number = Annotated[int, typer.Option("--pairs", "-n", min=0, help="How many pairs.", metavar="N")]


def inspect(
    folder: Folder,
    pairs: Number = 10,
    rejections: Annotated[int, typer.Option(min=0, help="How many rejections.", metavar="N")] = 5,
    seed: Annotated[int, typer.Option(help="Decides which.")] = 0,
    stage: Annotated[str, typer.Option(help="Only rejections of this stage.")] = "",
    reason: Annotated[str, typer.Option(help="Only rejections with this reason.")] = "",
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Read a seeded sample of pairs and rejections."""
    from fineinstructions.parquet import leave_pandas_out
    from fineinstructions.records import as_dict
    from fineinstructions.review.samples import draw_pairs, draw_rejections
    from fineinstructions.runs.layout import Layout
    from fineinstructions.runs.places import look_at

    leave_pandas_out()
    root = look_at(folder, work)
    is_bank = Layout(root).published("rejected") is not None and Layout(root).published("pairs") is None
    kept = draw_pairs(root, pairs, seed) if pairs and not is_bank else []
    dropped = draw_rejections(root, rejections, seed, stage, reason) if rejections else []
    if as_json:
        print(json.dumps({"pairs": [as_dict(p) for p in kept], "rejections": [as_dict(r) for r in dropped]}, indent=1))
        return
    from rich.console import Console

    from fineinstructions.cli.show import print_pairs, rejection_panel

    console = Console()
    print_pairs(console, kept)
    for rejection in dropped:
        console.print(rejection_panel(rejection))
    if pairs and not kept and not is_bank:
        console.print("no pair was kept; the rejections say why")
    if rejections and not dropped:
        console.print("no rejection of that kind; docs/rejections.md names the stages and reasons")


def explain(
    folder: Folder,
    pair_id: Annotated[str, typer.Argument(help="Id of a kept pair.", metavar="PAIR_ID")],
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Show where a pair comes from: queries, template, document span, scores, models."""
    from fineinstructions import pipeline
    from fineinstructions.parquet import leave_pandas_out
    from fineinstructions.records import as_dict

    leave_pandas_out()
    lineage = pipeline.explain(folder, pair_id, work)
    if as_json:
        print(json.dumps(as_dict(lineage), indent=1))
        return
    from rich.console import Console

    from fineinstructions.cli.show import lineage_view

    Console().print(lineage_view(lineage))


def try_document(
    document: Annotated[Path, typer.Argument(help="Text file; - reads standard input.", metavar="DOCUMENT.txt")],
    query: Annotated[str | None, typer.Option(help="Use the template of this query instead of a bank.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Template bank; by default the one that ships.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe with settings and models.")] = None,
    title: Annotated[str | None, typer.Option(help="Title; by default the heading that the text begins with.")] = None,
    as_json: Json = False,
) -> None:
    """Take one document through every stage and show what each made of it."""
    from fineinstructions.errors import ConfigError
    from fineinstructions.inputs import looked_in
    from fineinstructions.parquet import leave_pandas_out
    from fineinstructions.trial import try_document as take_through

    leave_pandas_out()
    try:
        text = sys.stdin.read() if str(document) == "-" else document.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{document}: no such file{looked_in(document)}; give a text file, or - for standard input"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{document}: cannot be read as UTF-8 text: {error}") from None
    trial = take_through(text, query=query, bank=bank, recipe=recipe, title=title)
    if as_json:
        print(json.dumps({"document_id": trial.document.document_id, "steps": [s.as_dict() for s in trial.steps]}))
        return
    from rich.console import Console

    from fineinstructions.cli.show import trial_view

    Console().print(trial_view(trial))
