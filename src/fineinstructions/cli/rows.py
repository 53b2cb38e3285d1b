"""Verbs of single stages: instantiate, yields."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fineinstructions.cli.runs import Columns, Json, Sets, Work, Workers, columns_of
from fineinstructions.errors import counted, printable

if TYPE_CHECKING:
    from fineinstructions.rows import RowsResult


def instantiate(
    rows: Annotated[
        Path,
        typer.Argument(
            help="Parquet with the columns id, document (or text, context), and query (or question) or template (or "
            "instruction_template); a title helps the embedded tier.",
            metavar="ROWS.parquet",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.", metavar="OUT.parquet")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Recipe with settings and models; the embedded tier by default."),
    ] = None,
    set_: Sets = None,
    column: Columns = None,
    workers: Workers = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Make an output again that other settings or rows made.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Genericize, instantiate, expand and judge given rows, without retrieval; one row out per row in, in order.

    An answer stands in `answer` where the row was kept, else in `draft` beside `rejected_stage` and `reason`. Ends with
    exit code 1 if an engine failed on rows; the same command tries those again.
    """
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.rows import instantiate_rows

    overrides = [*(set_ or ()), *([f"engine.workers={workers}"] if workers is not None else [])]
    with reporter(as_json) as progress:
        result = instantiate_rows(
            rows, out, config, overrides=overrides, columns=columns_of(column), redo=redo, progress=progress
        )
    _report(result, as_json)
    for unit in result.set_aside:
        print(printable(f"set aside: unit {unit.spec.folder_name}: {unit.reason}: {unit.detail}"), file=sys.stderr)
    if result.num_failed:
        print(f"{counted(result.num_failed, 'row')} failed; run the same command again to try again", file=sys.stderr)
        raise typer.Exit(1)


def _report(result: "RowsResult", as_json: bool) -> None:
    """What became of the rows: how many were kept, why the others were not, and the figures by slot count."""
    import pyarrow.parquet as pq

    from fineinstructions.cli.yields_view import yields_rows, yields_table
    from fineinstructions.outcomes import attempts_of
    from fineinstructions.review.yields import tabulate

    reasons: Counter[tuple[str, str]] = Counter()
    columns = ["rejected_stage", "reason"]
    for batch in pq.ParquetFile(result.path).iter_batches(columns=columns):
        reasons.update((row["rejected_stage"], row["reason"]) for row in batch.to_pylist() if row["rejected_stage"])
    (groups,) = tabulate(attempts_of([result.path]), [("slots",)])
    slots = yields_rows(("slots",), groups)
    kept = result.num_rows - reasons.total()
    if as_json:
        told = [{"stage": stage, "reason": reason, "rows": n} for (stage, reason), n in reasons.most_common()]
        facts: dict[str, Any] = {"out": str(result.path), "rows": result.num_rows, "kept": kept}
        print(json.dumps({**facts, "failed": result.num_failed, "rejected": told, "slots": slots}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(f"{counted(result.num_rows, 'row')}, {kept:,} kept\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rejected at")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    for (stage, reason), number in reasons.most_common():
        table.add_row(Text(printable(stage)), Text(printable(reason)), f"{number:,}")
    for part in ([table, ""] if reasons else []) + ([yields_table(("slots",), slots), ""] if slots else []):
        console.print(part)
    print(printable(str(result.path)))


def yields(
    paths: Annotated[
        list[str],
        typer.Argument(help="Folders or URLs of finished runs, or outputs of `instantiate`.", metavar="RUN..."),
    ],
    by: Annotated[
        str,
        typer.Option(
            help="What to tell apart: slots, length, model, genericizer, judge; model+slots for both at once."
        ),
    ] = "slots,length,model,genericizer",
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Tries, yield, excerpt ratio, score and generated tokens by slots, document length and model."""
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.cli.yields_view import yields_rows, yields_table
    from fineinstructions.outcomes import attempts_of
    from fineinstructions.review.yields import parse_by, tabulate

    tables = parse_by(by)
    with waiting("reading what became of every match"):
        found = tabulate(attempts_of(paths, work), tables)
    plain = {"+".join(keys): yields_rows(keys, groups) for keys, groups in zip(tables, found, strict=True)}
    if as_json:
        print(json.dumps(plain, indent=1))
        return
    from rich.console import Console

    console = Console()
    for keys in tables:
        console.print(yields_table(keys, plain["+".join(keys)]))
        console.print()
