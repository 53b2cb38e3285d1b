"""Verbs of experiments: experiment, score."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Json, Sets
from fineinstructions.errors import printable


def experiment(
    recipe: Annotated[Path, typer.Argument(help="Recipe of an experiment (YAML).", metavar="RECIPE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the experiment.", metavar="DIR")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Compare arms by training on them: corpora, models, scores, benchmarks, one table; run again to continue.

    The table (table.md, table.csv, table.json) and a plot of the trainings (loss.svg) are written anew after every
    scoring. Seeds and benchmarks may be added to the recipe of a finished experiment.

    Give the same command several times, one for each processor or GPU, here or on machines that share the folder: each
    process takes trainings that no other one is at, and ends when none is left.
    """
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.experiment import experiment as run_experiment
    from fineinstructions.experiment_table import BENCHMARKS_OF

    with reporter(as_json) as progress:
        result = run_experiment(recipe, out, overrides=set_ or (), progress=progress)
    nobodys = [name for name in result.missing if name.removeprefix(BENCHMARKS_OF) not in result.elsewhere]
    if as_json:
        print(result.table.with_suffix(".json").read_text(encoding="utf-8"))
        raise typer.Exit(bool(nobodys))
    print(result.table.read_text(encoding="utf-8"))
    print(printable(str(result.table)))
    for name, holder in result.elsewhere.items():
        print(f"{name}: {holder} is at it, and completes the table", file=sys.stderr)
    if nobodys:
        print(f"not all is done ({nobodys[0]}); run the same command again", file=sys.stderr)
        raise typer.Exit(1)


def score(
    model: Annotated[Path, typer.Argument(help="Hugging Face folder of a causal model.", metavar="MODEL")],
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML with what it is scored on.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines, one per item and form.", metavar="FILE")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Score a model on held-out questions and texts, answers only, in several forms; run again to continue.

    The settings are those of the section scores of an experiment.
    """
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.config import load
    from fineinstructions.scores.config import ScoresConfig
    from fineinstructions.scores.ledger import read_ledger
    from fineinstructions.scores.results import Trained, figures
    from fineinstructions.scores.score import read_held_out
    from fineinstructions.scores.score import score as score_model

    held_out = read_held_out(load(config, ScoresConfig, list(set_ or ())))
    with reporter(as_json) as progress:
        score_model(model, held_out, out, progress.note)
    rows = read_ledger(out)[1]
    found = list(figures({Trained(model.name, "", 0): rows}, [((model.name, ""), None)], resamples=1000))
    if as_json:
        told = [{"set": f.set_name, "form": f.form, f.measure: f.value, "interval": [f.low, f.high]} for f in found]
        print(json.dumps({"out": str(out), "figures": told}, indent=1))
        return
    for f in found:
        line = f"{f.set_name:<16} {f.form or 'text':<10} {f.measure:<18} {f.value:8.3f} ({f.low:.3f} to {f.high:.3f})"
        print(printable(line))
