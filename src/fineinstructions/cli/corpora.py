"""Verbs of corpora: export, push."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fineinstructions.cli.runs import Json, Sets, Workers
from fineinstructions.errors import ConfigError, printable

if TYPE_CHECKING:
    from fineinstructions.corpora import ExportResult


def export(
    folder: Annotated[str, typer.Argument(help="Run folder; of a run on a store its working folder.", metavar="RUN")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the corpora.", metavar="DIR")],
    format_: Annotated[
        str | None, typer.Option("--format", "-f", help="parquet, jsonl, lingua, torchtitan or hf.", metavar="NAME")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="What to train on; several get the same number of tokens.", metavar="NAME"),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="bytes, a tokenizer.json, a tiktoken rank file, or a folder with one.", metavar="PATH"),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="document or none.", metavar="NAME")] = None,
    view: Annotated[
        str | None,
        typer.Option(help="text, messages, prompt_completion, alpaca or sharegpt.", metavar="NAME"),
    ] = None,
    ranks: Annotated[int | None, typer.Option(help="Data-parallel ranks, for lingua.", metavar="N")] = None,
    compression: Annotated[
        str | None, typer.Option(help="Of jsonl: zstd, gzip or none; zstd by default.", metavar="NAME")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every random choice.", metavar="N")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML with settings; docs/config.md has them all.")
    ] = None,
    set_: Sets = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make training corpora of a finished run, token for token; run again to continue.

    An arm is standard (the documents themselves), fineinstructions (the pairs), ipt (documents followed by their
    pairs), wrap, nemotron_qa or nemotron_mixture (documents that a language model rephrased), or a mixture that is
    written NAME=SOURCE:WEIGHT,SOURCE:WEIGHT. Ends with exit code 1 if a model server failed on documents.
    """
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.corpora import export as make
    from fineinstructions.corpus.export import parse_arms
    from fineinstructions.stores.objects import is_url

    if is_url(folder):
        raise ConfigError(f"{folder}: export reads a run folder; give the working folder of this run, or copy it here")
    given = {"format": format_, "tokenizer": tokenizer, "budget": budget, "view": view, "ranks": ranks, "seed": seed}
    given |= {"compression": compression}
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    overrides += [f"arms={json.dumps(parse_arms(arm))}"] if arm else []
    overrides += [*(set_ or ()), *([f"engine.workers={workers}"] if workers is not None else [])]
    with reporter(as_json) as progress:
        result = make(folder, out, config, overrides=overrides, progress=progress)
    if as_json:
        print(json.dumps({"out": str(result.path), **result.facts}, indent=1))
    else:
        _print_result(result)
    failed = sum(sum(account["failed"].values()) for account in result.facts["stages"].values())
    if failed:
        line = f"{failed:,} documents failed; delete {result.path} and run again to try them again, the others are kept"
        print(printable(line), file=sys.stderr)
        raise typer.Exit(1)


def _print_result(result: "ExportResult") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    facts = result.facts
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for name in ("rows", "tokens", "epochs"):
        table.add_column(name, justify="right")
    for arm, figures in cast(dict[str, Any], facts["arms"]).items():
        epochs = f"{figures['epochs']:g}" if figures["epochs"] else "-"
        table.add_row(Text(printable(arm)), f"{figures['rows']:,}", f"{figures['tokens']:,}", epochs)
    if result.was_there:
        console.print("complete already, nothing to do\n")
    console.print(table)
    console.print()
    for stage, account in facts["stages"].items():
        lost = {**account["rejected"], **account["failed"]}
        why = ", ".join(f"{reason} {number:,}" for reason, number in lost.items())
        console.print(f"{stage}: {account['in']:,} in, {account['out']:,} out{f' ({why})' if why else ''}")
    for hit in facts["benchmark_hits"]:
        rows = "documents by their text" if hit["part"] == "document" else f"pairs by their {hit['part']}"
        line = f"{hit['benchmark']}: {hit['rows']:,} {rows} ({hit['kind']})"
        console.print(Text(printable(line)))
    documents, deficit = facts["documents"], facts["deficit_tokens"]
    counted_as = "; a token is a byte here, see --tokenizer" if facts["tokenizer"]["kind"] == "bytes" else ""
    console.print(f"documents: {documents['rows']:,} with {documents['tokens']:,} tokens{counted_as}")
    if facts["config"]["budget"] == "document":
        console.print(f"deficit: {deficit:,} tokens that no pair took the place of")
    print(f"\n{printable(str(result.path))}")


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that export made.", metavar="DIR")],
    name: Annotated[str, typer.Argument(help="Data set on the hub.", metavar="OWNER/NAME")],
    public: Annotated[bool, typer.Option("--public", help="Make a new data set for everybody.")] = False,
) -> None:
    """Upload exported corpora to the Hugging Face hub, in few commits; run again after an interruption.

    Needs HF_TOKEN, or a login with 'hf auth login'. Look at the licences in the data card first.
    """
    from fineinstructions.backends.hub_upload import upload
    from fineinstructions.corpus.check import files_to_upload

    files, last = files_to_upload(folder)
    number = upload(
        folder, name, files, last, private=not public, note=lambda line: print(printable(line), file=sys.stderr)
    )
    print(printable(f"{name}: {len(files) + len(last):,} files in {number} commits"))
