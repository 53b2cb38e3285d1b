"""Verbs of a run: run, status, pack, verify."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fineinstructions.errors import ConfigError, counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fineinstructions.pipeline import RunResult
    from fineinstructions.records import Pair
    from fineinstructions.runs import StageFigures
    from fineinstructions.runs.detached import Detached

Recipe = Annotated[Path, typer.Argument(help="YAML recipe.", metavar="RECIPE")]
Folder = Annotated[str, typer.Argument(help="Run folder, or URL of a run on a store.", metavar="RUN")]
Out = Annotated[
    str,
    typer.Option(
        "--out", "-o", help="Run folder, or URL (s3://, gs://, hf://); an existing run is continued.", metavar="RUN"
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        envvar="FINEINSTRUCTIONS_WORK",
        help="Of a run on a store: folder for working folders, by default ~/.cache/fineinstructions/runs.",
        metavar="DIR",
    ),
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a key of the recipe.", metavar="a.b=value")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="What a column holds, if not known by its name.", metavar="ROLE=NAME"),
]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout, progress as JSON lines on stderr.")]
Redo = Annotated[bool, typer.Option("--redo", help="Drop and make again what a changed recipe made stale.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try again what an engine failed on.")]
Workers = Annotated[
    int | None, typer.Option("--workers", "-w", min=0, help="Worker processes; 0 works in this one.", metavar="N")
]
Engine = Annotated[
    str | None, typer.Option("--engine", help="Where the work is done: local, ray or slurm.", metavar="NAME")
]

NUM_SHOWN_PAIRS = 3
SHOWN_SEED = 0
PAIR_PREVIEW_CHARS = 1200
NUM_DRAWN_PAIRS = 30
"""Pairs among which those to show are looked for: whole ones, each from another document."""

UNITS = {
    "queries": "queries",
    "genericize": "template drafts",
    "merge": "templates",
    "documents": "documents",
    "chunk": "documents",
    "retrieve": "documents",
    "sample": "documents",
    "screen": "matches",
    "instantiate": "drafts",
    "excerpts": "drafts",
    "judge": "pairs",
    "select": "pairs",
    "mine": "documents",
    "compatibility": "verdicts",
    "silver_genericizer": "rows",
    "silver_round_1": "rows",
    "silver_round_2": "rows",
    "silver_embedder": "rows",
}
"""What leaves a stage, for the funnel."""

TABLES = ("templates", "matches", "pairs", "rejected")
"""Tables of a run, in the order in which they are told."""

COUNTED = {"retrieve": ("candidates", "candidates"), "sample": ("sampled", "matches")}
"""Figure that is told beside what leaves a stage, and what to call it."""


def run(
    recipe: Recipe,
    out: Out,
    set_: Sets = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first N documents; run again without for the rest.",
            metavar="N",
        ),
    ] = None,
    workers: Workers = None,
    engine: Engine = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Forecast counts, calls, tokens, time and disk from a sample.")
    ] = False,
    redo: Redo = False,
    retry_failed: Retry = False,
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Make judged pairs from queries and documents; run again to continue.

    Ends with exit code 1 as long as records or whole units failed, until --retry-failed has made them good; with 3
    where batch files were written, as soon as every unit had its turn, and where jobs of a cluster go on with the run
    (engine.slurm.detach).
    """
    overrides = [*(set_ or ()), *run_flags(limit, workers, engine)]
    if dry_run:
        print_forecast(recipe, overrides, as_json)
        return
    from fineinstructions.engines.threads import libraries_without_threads

    with libraries_without_threads():
        from fineinstructions import pipeline
    from fineinstructions.cli.reporters import reporter

    with reporter(as_json) as progress:
        result = pipeline.run(
            recipe, out, overrides=overrides, redo=redo, retry_failed=retry_failed, progress=progress, work=work
        )
    report(result, as_json)


def columns_of(words: list[str] | None) -> dict[str, str]:
    """Columns by their role, of ``ROLE=NAME`` words.

    Raises:
        ConfigError: If a word is none.
    """
    from fineinstructions.errors import ConfigError

    for word in words or ():
        if "=" not in word:
            raise ConfigError(f"--column {word}: say ROLE=NAME, for example --column instruction=question")
    return {role.strip(): name for role, _, name in (word.partition("=") for word in words or ())}


def run_flags(limit: int | None = None, workers: int | None = None, engine: str | None = None) -> list[str]:
    """Options as overrides of the recipe."""
    flags = {"documents.limit": limit, "engine.workers": workers, "engine.kind": engine}
    return [f"{key}={value}" for key, value in flags.items() if value is not None]


def print_forecast(recipe: Path, overrides: list[str], as_json: bool, *, distilling: bool = False) -> None:
    """What a run would make and cost."""
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.cli.show import forecast_view
    from fineinstructions.forecast import forecast

    with waiting("running a sample"):
        figures = forecast(recipe, overrides=overrides, distilling=distilling)
    if as_json:
        print(json.dumps(figures.as_dict(), indent=1))
        return
    from rich.console import Console

    Console().print(forecast_view(figures))


def report(result: "RunResult", as_json: bool, tables: "Sequence[str]" = TABLES) -> None:
    """What a finished run made: the funnel, three pairs, where everything lies. Exit code 1 while anything failed."""
    from fineinstructions.runs.remote import place_of

    rows = funnel_rows(result.funnel())
    counts = {name: result.folder.published(name) for name in tables}
    figures = {name: manifest.counts["rows"] for name, manifest in counts.items() if manifest is not None}
    if as_json:
        aside = [{"unit": s.spec.unit_id, "reason": s.reason, "detail": s.detail} for s in result.set_aside]
        facts = {"run": place_of(result.path), "units_done": result.num_units_done, "set_aside": aside}
        print(json.dumps(facts | {"rows": figures, "funnel": rows}, indent=1))
    else:
        _print_result(result, rows, figures)
    for unit in result.set_aside:
        print(printable(f"set aside: unit {unit.spec.folder_name}: {unit.reason}: {unit.detail}"), file=sys.stderr)
    num_failed = sum(sum(row["failed"].values()) for row in rows)
    if num_failed:
        print(f"{counted(num_failed, 'record')} failed; run again with --retry-failed to try again", file=sys.stderr)
        raise typer.Exit(1)


def _print_result(result: "RunResult", rows: list[dict[str, Any]], figures: dict[str, int]) -> None:
    from rich.console import Console
    from rich.text import Text

    from fineinstructions.cli.show import funnel_table, print_pairs
    from fineinstructions.review.samples import draw_pairs
    from fineinstructions.runs.remote import place_of

    console = Console(highlight=False)
    path = printable(place_of(result.path))
    if result.num_units_done == 0 and not result.set_aside:
        console.print(Text.assemble((path, "bold"), ": complete already, nothing to do.\n"), soft_wrap=True)
    console.print(funnel_table(rows))
    console.print()
    if figures.get("pairs"):
        print_pairs(console, _to_show(draw_pairs(result.path, NUM_DRAWN_PAIRS, SHOWN_SEED)), PAIR_PREVIEW_CHARS)
    for name, number in figures.items():
        print(f"{number:>9,} {name:<{max(map(len, figures))}} {path}/{name}/")
    if "pairs" in figures:
        print(f"\nnext: fineinstructions inspect {path}   (more pairs and rejections)")
        print(f"      fineinstructions verify {path}    (check that nothing is lost)")


def _to_show(pairs: "list[Pair]") -> "list[Pair]":
    """The first pairs that fit the preview, each from another document; others where there are too few."""
    by_document = {pair.document_id: pair for pair in reversed(pairs) if len(pair.answer) <= PAIR_PREVIEW_CHARS}
    chosen = [pair for pair in pairs if by_document.get(pair.document_id) is pair]
    return [*chosen, *(pair for pair in pairs if pair not in chosen)][:NUM_SHOWN_PAIRS]


def funnel_rows(figures: "list[StageFigures]") -> list[dict[str, Any]]:
    """The funnel as plain values, one dictionary per stage."""
    rows = []
    for figure in figures:
        account = figure.account
        merged = {"merged with another": account.num_merged} if account.num_merged else {}
        unit = UNITS.get(figure.stage, "records")
        if figure.stage in COUNTED:
            name, noun = COUNTED[figure.stage]
            unit = f"{unit}, {figure.counts.get(name, 0):,} {noun}"
        if figure.stage == "excerpts" and figure.counts.get("answer_tokens"):
            share = figure.counts.get("generated_tokens", 0) / figure.counts["answer_tokens"]
            unit = f"{unit}, {share:.2f} generated tokens per answer token"
        rows.append(
            {
                "stage": figure.stage,
                "unit": unit,
                "in": account.num_in,
                "out": account.num_out,
                "rejected": account.rejected | merged,
                "failed": account.failed,
            }
        )
    return rows


def status(folder: Folder, work: Work = None, as_json: Json = False) -> None:
    """Units, rates, time left, the funnel so far, what models were asked, how matching went; safe during the run."""
    import dataclasses

    from fineinstructions.backends.batch_files import waiting_requests
    from fineinstructions.parquet import leave_pandas_out
    from fineinstructions.review.diagnostics import read_diagnostics
    from fineinstructions.review.efficiency import efficiency
    from fineinstructions.runs import status as read_status
    from fineinstructions.runs.places import open_run

    leave_pandas_out()
    run = open_run(folder, work)
    state, figures = read_status(run), read_diagnostics(run)
    cost = efficiency(run)
    asked = [dataclasses.asdict(stage) for stage in cost.stages if stage.asked]
    num_waiting, num_files = waiting_requests(run.root / "batches")
    detached = _detached_line(run.root, state.detached) if state.detached else ""
    if as_json:
        phases = [dataclasses.asdict(phase) for phase in state.phases]
        facts = {"holder": state.holder, "phases": phases, "rows": state.published, "waiting_requests": num_waiting}
        facts |= {"detached": detached} if detached else {}
        funnel = {"funnel": funnel_rows(list(state.funnel)), "asked": {s["stage"]: s["asked"] for s in asked}}
        print(json.dumps(facts | funnel | {"diagnostics": figures}, indent=1))
        return
    from rich.console import Console

    from fineinstructions.cli.asked_view import asked_table
    from fineinstructions.cli.show import diagnostics_view, funnel_table, status_table

    console = Console()
    console.print(status_table(state))
    if detached:
        print(printable(detached))
    if num_waiting:
        files = f"{counted(num_waiting, 'request')} in {counted(num_files, 'file')}"
        print(printable(f"batch files: {files} without an answer, see {run.root}/batches/requests"))
    console.print()
    console.print(funnel_table(funnel_rows(list(state.funnel))))
    if (table := asked_table(asked)) is not None:
        console.print()
        console.print(table)
    if figures is not None:
        console.print()
        console.print(diagnostics_view(figures))


def _detached_line(root: Path, found: "Detached") -> str:
    """How a detached run fares; apart, because only such a run needs the engine of its jobs."""
    from fineinstructions.engines.slurm_relay import told

    return told(root, found)


def pack(folder: Annotated[str, typer.Argument(help="Run folder.", metavar="RUN")], as_json: Json = False) -> None:
    """Pack the units of a run that was made before runs did so by themselves, so that it has few files."""
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.runs import RunFolder
    from fineinstructions.runs.remote import store_of
    from fineinstructions.stores.objects import is_url

    if is_url(folder) or store_of(Path(folder)) is not None:
        raise ConfigError(f"{folder}: the units of a run on a store are not packed")
    run = RunFolder.open(folder)
    with run.lease(), waiting("packing"):
        found = run.pack()
    if as_json:
        print(
            json.dumps({name: {"packs": packs, "folders": loose} for name, (packs, loose) in found.items()}, indent=1)
        )
        return
    for name, (packs, loose) in found.items():
        print(f"{name}: {packs:,} packs, {loose:,} folders of single units")


def verify(folder: Folder, work: Work = None, as_json: Json = False) -> None:
    """Check that nothing is lost or changed and every excerpt is verbatim; exit code 1 if anything is.

    A run that is not finished is told in one line, with what is missing, and ends with exit code 1 too. Of corpora that
    `export` made: that digests, sums and the ledger of the budget hold.
    """
    from fineinstructions import pipeline
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.corpus.check import check_corpora, is_corpora
    from fineinstructions.runs.verify import UNFINISHED
    from fineinstructions.stores.objects import is_url

    with waiting("checking every unit, digest and excerpt"):
        corpora = not is_url(folder) and is_corpora(Path(folder))
        findings = check_corpora(Path(folder)) if corpora else pipeline.verify(folder, work)
    if as_json:
        print(json.dumps([{"place": f.place, "problem": f.problem} for f in findings], indent=1))
    else:
        missing = "" if corpora or not findings else _missing(folder, work)
        told = [f for f in findings if not missing or not f.problem.endswith(UNFINISHED)]
        for finding in told:
            print(printable(str(finding)))
        number = counted(len(told), "problem") if told or not missing else ""
        line = "; ".join(part for part in (missing, number) if part) if findings else "clean, nothing lost"
        print(printable(f"{folder}: {line}"))
    if findings:
        raise typer.Exit(1)


def _missing(folder: str, work: Path | None) -> str:
    """What a run that is not finished lacks, in one line; empty for one whose units are all done."""
    from fineinstructions.runs import status as read_status
    from fineinstructions.runs.places import open_run

    left = [
        f"{phase.name} not begun"
        if not phase.num_units
        else f"{phase.name} {phase.num_done:,}/{phase.num_units:,} units"
        for phase in read_status(open_run(folder, work)).phases
        if not phase.complete
    ]
    return f"not finished ({', '.join(left)}); run the same command again to finish it" if left else ""
