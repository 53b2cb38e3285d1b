"""Verbs of a judge: judge calibrate."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fineinstructions.cli.runs import Columns, Json, Sets, Work, columns_of
from fineinstructions.errors import counted

if TYPE_CHECKING:
    from fineinstructions.recipe import RunConfig

app = typer.Typer(help="Measure judges.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure judges against labels, before their scores decide what is kept."""


@app.command("calibrate")
def calibrate(
    data: Annotated[
        list[str], typer.Argument(help="Labelled answers: Parquet, JSON lines or CSV; files, globs or folders.")
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Recipe that names the judge; the embedded one by default."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Take the judge of this run, its cache, and its report/ for --out.", metavar="RUN"),
    ] = None,
    set_: Sets = None,
    column: Columns = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only N rows of every file, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn: rows, resamples, places of chosen answers.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for figures, verdicts and replies.", metavar="DIR")
    ] = None,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Measure how far a judge agrees with labelled answers: which of two is better, scores, or right and wrong.

    Columns are known by their names: instruction (question, query, prompt) with output_1 + output_2 + label (1 or 2),
    chosen + rejected, answer (response, output, prediction) + score (rating, gpt4_scores), or answer + label (0 or 1).
    """
    from fineinstructions import judge_calibration as hallway
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.runs.places import look_at

    root = look_at(run, work) if run is not None else None
    recipe = _recipe(config, root, set_ or [])
    out = out or (root / "report" if root is not None else None)
    with reporter(as_json) as progress:
        found = hallway.calibrate_judge(
            data,
            recipe,
            columns=columns_of(column),
            limit=limit,
            seed=seed,
            out=out,
            cache_root=root,
            progress=progress,
        )
    if as_json:
        print(json.dumps(hallway.plain(found), indent=1, ensure_ascii=False))
    else:
        from rich.console import Console

        from fineinstructions.cli.judge_view import judge_view

        Console(highlight=False).print(judge_view(found))
    if found.num_failed:
        print(f"{counted(found.num_failed, 'answer')} failed; run the same command again to ask again", file=sys.stderr)
        raise typer.Exit(1)


def _recipe(config: Path | None, run: Path | None, overrides: list[str]) -> "RunConfig":
    from fineinstructions.config import from_mapping, load
    from fineinstructions.errors import ConfigError
    from fineinstructions.recipe import RunConfig
    from fineinstructions.runs import RunFolder

    if config is not None and run is not None:
        raise ConfigError("judge calibrate: give either --config or --run")
    if run is not None:
        folder = RunFolder.open(run)
        return from_mapping(folder.config, RunConfig, overrides, where=str(folder.recipe_file))
    return from_mapping({}, RunConfig, overrides) if config is None else load(config, RunConfig, overrides)
