"""Verbs that train models: train genericizer, train instantiator, train embedder, train embedded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fineinstructions.cli.runs import Json, Sets
from fineinstructions.errors import printable

if TYPE_CHECKING:
    from fineinstructions.students import StudentResult

app = typer.Typer(help="Train students on silver data, or the embedded tier.", no_args_is_help=True)

Recipe = Annotated[Path, typer.Argument(help="YAML recipe of the training.", metavar="RECIPE")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the student, which is new.", metavar="DIR")]


@app.callback()
def _group() -> None:
    """Train students on silver data, which needs pip install 'fineinstructions[train]', or the embedded tier."""


@app.command("genericizer")
def genericizer(recipe: Recipe, out: Out, set_: Sets = None, as_json: Json = False) -> None:
    """Train a model to turn queries into templates; run again to continue.

    The folder works at once in a recipe, has a card, and evaluation.json with its figures on held-out rows.
    """
    from fineinstructions.students import train_genericizer
    from fineinstructions.training.sft import TrainGenericizerConfig

    _train(train_genericizer, TrainGenericizerConfig, recipe, out, set_, as_json)


@app.command("instantiator")
def instantiator(recipe: Recipe, out: Out, set_: Sets = None, as_json: Json = False) -> None:
    """Train a model to fill templates from documents, answer with excerpts, and refuse; run again to continue."""
    from fineinstructions.students import train_instantiator
    from fineinstructions.training.sft import TrainInstantiatorConfig

    _train(train_instantiator, TrainInstantiatorConfig, recipe, out, set_, as_json)


@app.command("embedder")
def embedder(recipe: Recipe, out: Out, set_: Sets = None, as_json: Json = False) -> None:
    """Train an encoder to match documents and descriptions, and calibrate its threshold; run again to continue."""
    from fineinstructions.students import train_embedder
    from fineinstructions.training.contrastive import TrainEmbedderConfig

    _train(train_embedder, TrainEmbedderConfig, recipe, out, set_, as_json)


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
    """Train the models of the embedded tier from scratch, on a processor.

    The encoder is fitted with SciPy, the answer models by LightGBM (pip install 'fineinstructions[train]').
    Nothing is learned from the documents of docs_dev.parquet nor from validation splits. The same inputs give the same
    files on one machine.
    """
    from fineinstructions.embedded_training import train_embedded

    train_embedded(data, out, only or (), say=lambda line: print(line, flush=True))


def _train(
    train: "Callable[..., StudentResult]",
    config_type: Any,
    recipe: Path,
    out: Path,
    overrides: list[str] | None,
    as_json: bool,
) -> None:
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.config import load

    config = load(recipe, config_type, overrides or [])
    with reporter(as_json) as progress:
        result = train(config, out, progress)
    if not result.reports:
        return
    if as_json:
        from fineinstructions.records import as_dict

        scores = [as_dict(score) | {"reached": score.is_reached} for score in result.scores]
        facts = {"path": str(result.path), "use": result.use, "was_there": result.was_there}
        print(json.dumps({**facts, "scores": scores, "training": result.facts}, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from fineinstructions.cli.student_view import student_view

    Console(highlight=False).print(student_view(result))
    print(printable(f"use it in a recipe:  {result.use}"))
