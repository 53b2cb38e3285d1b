"""Verbs of a template index: index build, info, search, bench, add, remove."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fineinstructions.cli.runs import Json, Recipe, Sets, Work
from fineinstructions.errors import printable

if TYPE_CHECKING:
    from fineinstructions.backends.encoder import Encoder
    from fineinstructions.recipe import RunConfig
    from fineinstructions.records import Template
    from fineinstructions.templates.index import TemplateIndex

app = typer.Typer(help="Make, look into and measure template indexes.", no_args_is_help=True)

IndexDir = Annotated[Path, typer.Argument(help="Folder of the index.")]
OptionalRecipe = Annotated[
    Path | None, typer.Option("--config", "-c", help="Recipe that names the encoder; the embedded one by default.")
]
Bank = Annotated[str, typer.Argument(help="Template bank: a folder of `templates build`, or Parquet files.")]


@app.callback()
def _group() -> None:
    """Make, look into and measure template indexes (`templates: {index: PATH}` in a recipe uses one)."""


@app.command("build")
def build(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index.")],
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Index the bank that a recipe names (`templates: {bank: PATH}`); goes on where an earlier build stopped."""
    from fineinstructions.cli.reporters import reporter
    from fineinstructions.config import load
    from fineinstructions.errors import ConfigError
    from fineinstructions.recipe import RunConfig
    from fineinstructions.templates.index import build_index

    config = load(recipe, RunConfig, set_ or ())
    if not config.templates.bank:
        raise ConfigError(f"{recipe}: no templates.bank; name the bank to index, or make one with 'templates build'")
    turned_away: dict[str, int] = {}
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out), reporter(as_json) as progress, _encoder(config) as encoder:
        progress.start("index", 1, 0)
        index = build_index(
            _templates(config, turned_away),
            encoder,
            config.index,
            out,
            on_progress=lambda _, rows: progress.advance("index", rows),
        )
        progress.finish("index")
    _show({**_facts(index), "turned_away": turned_away}, as_json)


@app.command("info")
def info(folder: IndexDir, as_json: Json = False) -> None:
    """What an index holds, what made it, and how much of an exact search it finds."""
    from fineinstructions.templates.index import open_index

    _show(_facts(open_index(folder, verify=False)), as_json)


@app.command("search")
def search(
    folder: IndexDir,
    text: Annotated[str, typer.Argument(help="What a document is about, or - for a document on standard input.")],
    config: OptionalRecipe = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Most templates to show.")] = 10,
    min_cosine: Annotated[float, typer.Option(help="Lowest cosine to show.")] = -1.0,
    as_json: Json = False,
) -> None:
    """The templates nearest to a text."""
    from fineinstructions.templates.index import open_index

    with _encoder(_config(config)) as encoder:
        index = open_index(folder, encoder, verify=False)
        vectors = encoder.encode_texts([sys.stdin.read() if text == "-" else text])
    (found,) = index.vectors.search(vectors, min_cosine, number, online=True)
    rows = [
        {
            "cosine": cosine,
            "template_id": template.template_id,
            "template": template.template,
            "description": template.compatible_document_description,
        }
        for cosine, template in zip(found.cosines.tolist(), index.templates(found.ids), strict=True)
    ]
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        print(printable(f"{row['cosine']:.3f}  {row['template']}"))
        print(printable(f"       {row['template_id']}  {row['description']}"))
    if not rows:
        print(f"no template at or above {min_cosine}")


@app.command("bench")
def bench(
    folder: IndexDir,
    queries: Annotated[int, typer.Option(min=1, help="Queries: indexed vectors, slightly turned.")] = 1000,
    max_candidates: Annotated[int, typer.Option(min=1, help="Most templates per query.")] = 64,
    min_cosine: Annotated[float | None, typer.Option(help="Threshold; the index's own by default.")] = None,
    as_json: Json = False,
) -> None:
    """Queries per processor second of this index, and of an exact FAISS search over the same vectors if they fit."""
    from fineinstructions.backends.vector_index.bench import compare
    from fineinstructions.errors import ConfigError
    from fineinstructions.templates.index import open_index

    index = open_index(folder, verify=False)
    threshold = index.min_cosine if min_cosine is None else min_cosine
    if threshold is None:
        raise ConfigError(f"{folder}: no threshold is known for its encoder; give --min-cosine")
    _show(compare(index.vectors, queries, threshold, max_candidates), as_json)


@app.command("add")
def add(
    folder: IndexDir,
    bank: Bank,
    config: OptionalRecipe = None,
    as_json: Json = False,
) -> None:
    """Add the templates of a bank to an index."""
    from fineinstructions.templates.index import add_templates, open_index

    settings = _config(config)
    settings = settings.model_copy(update={"templates": settings.templates.model_copy(update={"bank": bank})})
    turned_away: dict[str, int] = {}
    with _alone(folder), _encoder(settings) as encoder:
        added = add_templates(_templates(settings, turned_away), encoder, folder, settings.index.batch_size)
    _show({"added": added, "turned_away": turned_away, **_facts(open_index(folder, verify=False))}, as_json)


@app.command("remove")
def remove(
    folder: IndexDir,
    template_ids: Annotated[list[str], typer.Argument(help="Ids of the templates.")],
    as_json: Json = False,
) -> None:
    """Remove templates from an index: they are never found again."""
    from fineinstructions.templates.index import open_index, remove_templates

    with _alone(folder):
        removed = remove_templates(template_ids, folder)
    _show({"removed": removed, **_facts(open_index(folder, verify=False))}, as_json)


@app.command("calibrate")
def calibrate(
    pairs: Annotated[
        str | None,
        typer.Argument(help="Labelled pairs: Parquet, JSON lines or CSV with a description, a document, a label."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Take the judged pairs of this run instead of a file.", metavar="RUN")
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
    work: Work = None,
    as_json: Json = False,
) -> None:
    """Choose the lowest cosine of a candidate from labelled pairs; shows what every threshold is worth."""
    from fineinstructions import calibration as hallway
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.config import from_mapping
    from fineinstructions.errors import ConfigError
    from fineinstructions.matches.calibrate import CalibrateConfig
    from fineinstructions.records import as_dict
    from fineinstructions.runs.places import open_run

    if (pairs is None) == (run is None):
        raise ConfigError("index calibrate: give either a file of labelled pairs or --run RUN")
    settings = from_mapping({"min_precision": min_precision}, CalibrateConfig, where="index calibrate")
    if write is not None:
        hallway.check_place(write)
    if run is not None:
        folder = open_run(run, work)
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


def _config(recipe: Path | None) -> "RunConfig":
    from fineinstructions.config import load
    from fineinstructions.recipe import RunConfig

    return RunConfig() if recipe is None else load(recipe, RunConfig)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second change of the same index folder off, if there is a folder."""
    from fineinstructions.runs.lease import hold_lease

    with hold_lease(folder / "lease") if folder.is_dir() else nullcontext():
        yield


@contextmanager
def _encoder(config: "RunConfig") -> Iterator["Encoder"]:
    """The recipe's encoder; what it holds open is closed in the end."""
    from fineinstructions.models import Models
    from fineinstructions.setup import Setup

    with closing(Models(Setup(config, Path()))) as models:
        yield models.encoder


def _templates(config: "RunConfig", turned_away: dict[str, int]) -> Iterator["Template"]:
    """Good templates of a bank; the others are counted by reason."""
    from fineinstructions.records import Rejection
    from fineinstructions.templates.bank import read_bank

    for item in read_bank(config.templates):
        if isinstance(item, Rejection):
            turned_away[item.reason] = turned_away.get(item.reason, 0) + 1
        else:
            yield item


def _facts(index: "TemplateIndex") -> dict[str, Any]:
    manifest = index.vectors.manifest
    size = sum(file.bytes for file in manifest.files.values())
    facts: dict[str, Any] = {
        "folder": str(index.vectors.folder),
        "templates": len(index) - manifest.num_removed,
        "removed": manifest.num_removed,
        "kind": manifest.kind,
        "dimension": manifest.dimension,
        "encoder": manifest.encoder_id,
        "min_cosine": manifest.min_cosine,
        "bytes_per_vector": round(size / manifest.count, 1),
    }
    if manifest.kind == "ivf":
        facts |= {
            "lists": manifest.nlist,
            "probed": manifest.nprobe,
            "float_vectors_kept": manifest.keeps_vectors,
            "scores": manifest.scores.model_dump() if manifest.scores else None,
            "recall": manifest.recall.model_dump() if manifest.recall else None,
        }
    return facts


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {number}" for key, number in value.items()) or "none"
        else:
            shown = f"{value:,}" if isinstance(value, int) else value
        print(printable(f"{name.replace('_', ' '):<20} {shown}"))
