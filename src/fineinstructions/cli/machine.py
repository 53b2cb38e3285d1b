"""Verbs about the machine and the recipe format: doctor, schema."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fineinstructions.cli.runs import Json, Sets
from fineinstructions.errors import counted, printable

if TYPE_CHECKING:
    from fineinstructions.readers import SourceConfig
    from fineinstructions.recipe import RunConfig
    from fineinstructions.templates.bank import TemplatesConfig

MIN_FREE_BYTES = 5 << 30
LICENCE_ROWS = 10_000
"""Rows of an input whose licences are counted."""
CORE = ("numpy", "pyarrow", "faiss-cpu", "pydantic", "aiohttp", "openai", "rapidfuzz", "fsspec")
ABSENT = "not installed"
OPTIONAL = {
    "huggingface_hub": "hf",
    "s3fs": "s3",
    "ray": "ray",
    "torch": "hf",
    "transformers": "hf",
    "sentence-transformers": "embed",
}


def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe whose inputs and server to check.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where runs will be written.")] = Path(),
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve", help="Ask the hub for the commit and licence of every model and bank, and fill in the recipe."
        ),
    ] = False,
    set_: Sets = None,
    as_json: Json = False,
) -> None:
    """Check the environment, versions, disk, the recipe's inputs, licences and model server; exit code 1 on trouble.

    With --resolve every `revision: ""` of the recipe gets the commit that the hub has now, and every empty text under
    `licences` what the hub states; nothing else in the file changes, and --set has no say in that.
    """
    filled = _resolved(recipe) if resolve else []
    checks = [*filled, *_checks(recipe, out, set_ or [])]
    if as_json:
        print(json.dumps([{"check": name, "ok": ok, "detail": detail} for name, ok, detail in checks], indent=1))
    else:
        for name, ok, detail in checks:
            mark = "FAIL" if not ok else "-   " if detail.startswith(ABSENT) else "ok  "
            print(f"{mark}  {name:<22} {printable(detail)}")
        num_failed = sum(not ok for _, ok, _ in checks)
        print(f"{num_failed} of {counted(len(checks), 'check')} failed" if num_failed else "all is well")
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


def _resolved(recipe: Path | None) -> list[tuple[str, bool, str]]:
    """Fill the recipe in with what the hub says, and tell what that was."""
    from fineinstructions.artefacts import artefacts
    from fineinstructions.backends.hub import hub_facts
    from fineinstructions.config import filled_in
    from fineinstructions.errors import ConfigError, FineInstructionsError
    from fineinstructions.recipe import as_config
    from fineinstructions.runs.durable import write_text

    if recipe is None:
        raise ConfigError("--resolve: name the recipe whose revisions are to be filled in")
    told: list[tuple[str, bool, str]] = []
    values: dict[tuple[str, ...], str] = {}
    for artefact in artefacts(as_config(recipe)):
        if artefact.is_on_hub:
            try:
                facts = hub_facts(artefact.kind, artefact.name, artefact.revision)
            except FineInstructionsError as error:
                told.append(("hub", False, str(error)))
                continue
            values |= {artefact.revision_key: facts.commit, artefact.licence_key: facts.licence}
            told.append(("hub", True, f"{artefact.name} at {facts.commit}, licence: {facts.licence}"))
    with recipe.open(encoding="utf-8", newline="") as handle:  # line ends stay as they are
        text, keys = filled_in(handle.read(), values)
    if keys:
        write_text(recipe.resolve(), text)
    done = ", ".join(".".join(key) for key in sorted(keys))
    found_all = all(ok for _, ok, _ in told)
    nothing = f"{recipe}: nothing to fill in" if found_all else f"{recipe}: not filled in, as the hub did not tell"
    return [*told, ("resolve", found_all, f"filled in: {done}" if keys else nothing)]


def _checks(recipe: Path | None, out: Path, overrides: list[str]) -> Iterator[tuple[str, bool, str]]:
    from fineinstructions import __version__

    yield "fineinstructions", True, __version__
    yield "python", sys.version_info >= (3, 11), platform.python_version()
    for name in CORE:
        yield _version_of(name)
    for name, extra in OPTIONAL.items():
        found = _version_of(name)
        yield name, True, found[2] if found[1] else f"{ABSENT}; pip install 'fineinstructions[{extra}]' if you need it"
    yield "processors", True, str(len(os.sched_getaffinity(0)))
    yield _disk(out)
    if recipe is not None:
        yield from _recipe_checks(recipe, overrides)
    elif overrides:
        yield "recipe", False, "--set: name the recipe whose keys it changes"


def _version_of(name: str) -> tuple[str, bool, str]:
    try:
        return name, True, metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, False, f"{ABSENT}; run 'pip install fineinstructions' again"


def _disk(out: Path) -> tuple[str, bool, str]:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return "disk", False, f"{place} cannot be written; choose another --out"
    return "disk", free >= MIN_FREE_BYTES, f"{free / (1 << 30):.1f} GiB free at {place}"


def _recipe_checks(recipe: Path, overrides: list[str]) -> Iterator[tuple[str, bool, str]]:
    from fineinstructions.backends.llm_config import with_overrides
    from fineinstructions.cli.model_checks import model_checks, server_checks
    from fineinstructions.errors import FineInstructionsError
    from fineinstructions.inputs import list_inputs
    from fineinstructions.recipe import as_config

    try:
        config = as_config(recipe, overrides)
    except FineInstructionsError as error:
        yield "recipe", False, str(error)
        return
    yield "recipe", True, str(recipe)
    for name, section in (("queries", config.queries), ("documents", config.documents)):
        if section is not None:
            try:
                yield name, True, ", ".join(f.name for f in list_inputs(section.path, name)[:3])
            except FineInstructionsError as error:
                yield name, False, str(error)
    yield from _artefact_checks(config)
    if config.templates.bank and config.templates.index:
        yield "templates", False, "templates.index takes the place of templates.bank; name only one of the two"
    if config.templates.bank:
        yield _bank_check(config.templates)
    if config.templates.index:
        yield _index_check(config)
    yield _encoder_check(config)
    yield from model_checks(config)
    if config.encoder.engine == "endpoint":
        yield from server_checks(with_overrides(config.llm, config.encoder.llm), [config.encoder.model])


def _artefact_checks(config: "RunConfig") -> Iterator[tuple[str, bool, str]]:
    """Which models and banks are behind a run, and their licences as far as the recipe or their own folder tells."""
    from fineinstructions.artefacts import artefacts

    for artefact in artefacts(config):
        at = f" at {artefact.revision}" if artefact.revision else ""
        empty = f"; {'.'.join(artefact.revision_key)} is empty, see --resolve" if artefact.revision == "" else ""
        unused = "" if artefact.is_used else "; not asked, as the templates are ready made"
        told = f"{artefact.role}: {artefact.name}{at}, licence: {artefact.licence}{empty}{unused}"
        yield "licence", not artefact.lacks_revision, told
    for name, section in (("queries", config.queries), ("documents", config.documents)):
        if section is not None:
            yield from _input_licences(name, section)


def _input_licences(name: str, section: "SourceConfig") -> Iterator[tuple[str, bool, str]]:
    """Licences of the first rows of an input; a file that cannot be read has a line of its own."""
    from fineinstructions.errors import FineInstructionsError
    from fineinstructions.readers import licences_of

    try:
        counts = licences_of(section, LICENCE_ROWS)
    except FineInstructionsError:
        return
    total = sum(counts.values())
    told = ", ".join(f"{licence or 'none declared'} ({number:,})" for licence, number in counts.most_common())
    first = f", of the first {total:,} rows" if total == LICENCE_ROWS else ""
    remedy = f"; set {name}.licence_column, or {name}.licence for rows that name none" if "" in counts else ""
    yield "licence", True, f"{name}: {told or 'no rows'}{first}{remedy}"


def _bank_check(config: "TemplatesConfig") -> tuple[str, bool, str]:
    from fineinstructions.errors import FineInstructionsError
    from fineinstructions.records import Template
    from fineinstructions.templates.bank import read_bank

    try:
        number = sum(1 for item in read_bank(config) if isinstance(item, Template))
        return "bank", True, f"{counted(number, 'template')} in {config.bank}"
    except FineInstructionsError as error:
        return "bank", False, str(error)


def _index_check(config: "RunConfig") -> tuple[str, bool, str]:
    """Whether the ready index is whole and the recipe's encoder made it; reads all of its files once."""
    from fineinstructions.errors import FineInstructionsError
    from fineinstructions.models import Models
    from fineinstructions.setup import Setup
    from fineinstructions.templates.index import open_index

    setup = Setup(config, Path())
    try:
        vectors = open_index(setup.index_dir).vectors
    except FineInstructionsError as error:
        return "index", False, str(error)
    number = len(vectors) - len(vectors.removed)
    try:
        vectors.manifest.require(setup.index_dir, Models(setup).encoder.encoder_id, None)
    except FineInstructionsError as error:
        return "index", False, str(error)
    if not number:
        return "index", False, f"{setup.index_dir}: every template was removed; build the index again"
    return "index", True, f"{counted(number, 'template')} in {setup.index_dir}"


def _encoder_check(config: "RunConfig") -> tuple[str, bool, str]:
    """Whether the recipe's encoder can be opened and has a threshold; no weights are loaded and no server is asked."""
    from fineinstructions.errors import FineInstructionsError
    from fineinstructions.models import Models
    from fineinstructions.setup import Setup

    try:
        models = Models(Setup(config, Path()))
        detail = f"{config.encoder.engine}: {models.encoder.encoder_id}"
        min_cosine = models.retrieve.min_cosine
    except FineInstructionsError as error:
        return "encoder", False, str(error)
    return "encoder", True, f"{detail}, threshold {'the one of the gate' if min_cosine is None else min_cosine}"


def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from fineinstructions.cli.keys import schema_page

    print(schema_page(), end="")
