"""Verbs of training: train embedded."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Train the models that the pipeline runs on."""


@app.command("embedded")
def embedded(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Folder with corpus/, supervised/, docs_dev.parquet and queries.parquet; judge sets in "
            "benchmarks/judges are only read to leave their questions out.",
            metavar="FOLDER",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the models' files.", metavar="FOLDER")],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One model alone: genericizer, encoder or answers.")
    ] = None,
) -> None:
    """Train the models of the embedded tier from scratch, on a processor and with the base installation.

    Nothing is learned from the documents of docs_dev.parquet nor from validation splits. The same inputs give the same
    files on one machine.
    """
    from fineinstructions.embedded_training import train_embedded

    train_embedded(data, out, only or (), say=lambda line: print(line, flush=True))
