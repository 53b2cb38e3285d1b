"""Verbs of pre-training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fineinstructions.cli.runs import Json, Recipe, Sets
from fineinstructions.errors import printable

if TYPE_CHECKING:
    from fineinstructions.pretraining import PretrainResult


def pretrain(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model.", metavar="DIR")],
    set_: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell parameters, tokens, steps, epochs, work and memory; do nothing.")
    ] = False,
    pack_only: Annotated[bool, typer.Option("--pack-only", help="Pack the tokens, for a training elsewhere.")] = False,
    as_json: Json = False,
) -> None:
    """Train a language model from scratch on an arm of exported corpora; run again to continue.

    On several GPUs, start it with torchrun or 'accelerate launch'; docs/pretraining.md has the lines.
    """
    from fineinstructions import pretraining
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.training.metrics import is_first_process
    from fineinstructions.training.plan import forecast_lines

    overrides = list(set_ or ())
    if pack_only and not dry_run:
        with reporter(as_json) as progress:
            packed = pretraining.pack_arm(recipe, out, overrides=overrides, progress=progress)
        print(printable(f"{packed.num_rows:,} rows, {packed.num_tokens:,} tokens in {packed.folder}"))
        return
    first = is_first_process()
    if dry_run or (first and not as_json):
        planned = pretraining.plan_pretraining(recipe, overrides=overrides)
        print(json.dumps(planned.to_plain(), indent=1) if as_json else "\n".join(forecast_lines(planned)))
    if dry_run:
        return
    if not first:
        pretraining.pretrain(recipe, out, overrides=overrides)
        return
    with reporter(as_json) as progress:
        result = pretraining.pretrain(recipe, out, overrides=overrides, progress=progress)
    if as_json:
        print(json.dumps({"out": str(result.path), "model": str(result.model), **result.facts}, indent=1))
    else:
        _print_result(result)


def _print_result(result: "PretrainResult") -> None:
    if result.was_there:
        print("complete already, nothing to do")
    facts = result.facts
    print(f"\ntrained on {result.tokens:,} tokens, {result.unique_tokens:,} different ones; loss {facts['loss']:.4f}")
    print(printable(str(result.model)))
    print(printable(str(result.metrics)))
