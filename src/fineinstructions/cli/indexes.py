"""Verbs of a template index: index calibrate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Json

app = typer.Typer(help="Look after template indexes and their encoders.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look after template indexes and their encoders."""


@app.command("calibrate")
def calibrate(
    pairs: Annotated[
        str | None,
        typer.Argument(help="Labelled pairs: Parquet, JSON lines or CSV with a description, a document, a label."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="Take the judged pairs of this run instead of a file.", metavar="RUN")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Recipe that names encoder and chunks; with --run that of the run."),
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Choose the lowest threshold of this precision, not the best F1."),
    ] = None,
    min_score: Annotated[int, typer.Option(min=1, max=5, help="With --run: a good pair's lowest score.")] = 4,
    description_column: Annotated[
        str | None, typer.Option(help="Column of the description; by default description or template_description.")
    ] = None,
    document_column: Annotated[str, typer.Option(help="Column with the document's text.")] = "document",
    label_column: Annotated[str, typer.Option(help="Column with 1 for good pairs and 0 for bad ones.")] = "label",
    write: Annotated[
        Path | None, typer.Option("--write", help="Store it in this template index or local model.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the lowest cosine of a candidate from labelled pairs; shows what every threshold is worth."""
    from fineinstructions import calibration as hallway
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.config import from_mapping
    from fineinstructions.errors import ConfigError
    from fineinstructions.matches.calibrate import CalibrateConfig
    from fineinstructions.records import as_dict
    from fineinstructions.runs import RunFolder

    if (pairs is None) == (run is None):
        raise ConfigError("index calibrate: give either a file of labelled pairs or --run RUN")
    settings = from_mapping({"min_precision": min_precision}, CalibrateConfig, where="index calibrate")
    if write is not None:
        hallway.check_place(write)
    if run is not None:
        folder = RunFolder.open(run)
        labelled = hallway.labelled_in_run(folder, min_score)
        recipe = None if config else hallway.recipe_of(folder)
    else:
        labelled = hallway.labelled_in_file(str(pairs), description_column, document_column, label_column)
        recipe = None
    with waiting("encoding the labelled pairs"):
        found, encoder_id = hallway.calibrate_encoder(labelled, config or recipe, settings)
    stored = hallway.store(write, found.chosen.min_cosine, encoder_id) if write is not None else None
    if as_json:
        print(json.dumps(as_dict(found) | {"encoder_id": encoder_id, "stored": str(stored or "")}, indent=1))
        return
    from rich.console import Console

    from fineinstructions.cli.calibration_view import calibration_view

    Console(highlight=False).print(calibration_view(found, encoder_id, stored))
