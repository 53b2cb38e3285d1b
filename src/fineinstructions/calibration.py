"""Calibrating an encoder: labelled pairs from a file or a judged run, through the encoder, to a stored threshold.

In: a file of pairs, or a run folder. Out: a `Calibration`, and on demand a number in the folder of a template index or
of a model. The decision a reader would question: a run only holds pairs that its own threshold let through, so a
threshold calibrated on it can be raised with confidence and lowered with none.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from fineinstructions.backends.model_folder import CALIBRATION_FILE, ModelFolder
from fineinstructions.config import from_mapping
from fineinstructions.documents import documents_reader
from fineinstructions.errors import ConfigError
from fineinstructions.matches.calibrate import CalibrateConfig, Calibration, LabelledPair, ScoredPair, calibrate, score
from fineinstructions.models import Models
from fineinstructions.readers import SourceConfig, read_rows
from fineinstructions.recipe import RunConfig, as_config
from fineinstructions.records import Document, Pair, Template
from fineinstructions.runs import RunFolder
from fineinstructions.setup import Setup
from fineinstructions.templates.index import is_index, open_index, store_min_cosine

_MODEL_MARKS = ("config.json", "modules.json", "tokenizer.json", CALIBRATION_FILE)
_GOOD, _BAD = (1, "1", "true"), (0, "0", "false")
_DESCRIPTIONS = ("description", "template_description", "compatible_document_description")


def labelled_in_file(
    path: str, description_column: str | None = None, document_column: str = "document", label_column: str = "label"
) -> Iterator[LabelledPair]:
    """Labelled pairs of a file.

    Args:
        path: Parquet, JSON lines, CSV: what `readers` reads.
        description_column: Column with the description; ``None`` for the first of ``description``,
            ``template_description`` and ``compatible_document_description`` that a row has.
        document_column: Column with the document's text.
        label_column: Column with 1 or true for a good pair, 0 or false for a bad one; words in any case.

    Raises:
        ConfigError: If the file or a row cannot be read.
    """
    names = [description_column] if description_column else list(_DESCRIPTIONS)
    for row, name, _ in read_rows(SourceConfig(path=path, text_column=document_column)):
        place = f"{name}, row {row.number}"
        if row.problem:
            raise ConfigError(f"{place}: {row.problem} {row.detail}".rstrip() + "; mend the row or leave it out")
        description = next((row.values[n] for n in names if isinstance(row.values.get(n), str)), None)
        document, label = row.values.get(document_column), row.values.get(label_column)
        if description is None:
            raise ConfigError(f"{place}: no text in {' or '.join(names)}; name the column with --description-column")
        if not isinstance(document, str):
            raise ConfigError(f"{place}: no text in {document_column}; name the column with --document-column")
        word = label.strip().lower() if isinstance(label, str) else label
        if word not in _GOOD and word not in _BAD:
            raise ConfigError(
                f"{place}: {label_column} is {label!r} instead of 0 or 1, true or false; see --label-column"
            )
        yield LabelledPair(description, document, word in _GOOD)


def labelled_in_run(run: RunFolder, min_score: int) -> Iterator[LabelledPair]:
    """Judged pairs of a run, whether they were kept or not: a score of at least `min_score` makes a good one.

    Raises:
        ConfigError: If the run has no judged pairs, or an input file is gone.
        DataError: If a unit is damaged.
    """
    if not any(phase.name == "pairs" for phase in run.phases) or run.planned("pairs") is None:
        raise ConfigError(f"{run.root}: has no judged pairs; finish the run first with 'fineinstructions run'")
    read = documents_reader(_setup(run))
    descriptions = {t.template_id: t.compatible_document_description for t in run.records("templates", Template)}
    for spec in run.planned("pairs") or ():
        texts = {d.document_id: d.text for d in read(spec) if isinstance(d, Document)}
        for pair in run.unit_records("pairs", spec, Pair):
            yield LabelledPair(descriptions[pair.template_id], texts[pair.document_id], pair.judge_score >= min_score)


def calibrate_encoder(
    pairs: Iterator[LabelledPair], recipe: RunConfig | dict[str, Any] | str | Path | None, config: CalibrateConfig
) -> tuple[Calibration, str]:
    """Calibrate the encoder of a recipe.

    Args:
        pairs: Labelled pairs; held in memory.
        recipe: Names the encoder and how documents are cut; ``None`` for the embedded encoder and the paper's chunks.
        config: How the threshold is chosen.

    Returns:
        The calibration, and the encoder's id.

    Raises:
        ConfigError: If the recipe or the pairs do not do.
    """
    settings = as_config(recipe) if recipe is not None else RunConfig()
    with closing(Models(Setup(settings, Path()))) as models:
        encoder = models.encoder
        scored = [item for item in score(list(pairs), encoder, settings.chunk) if isinstance(item, ScoredPair)]
        return calibrate(scored, config), encoder.encoder_id


def recipe_of(run: RunFolder) -> RunConfig:
    """The recipe that a run was last made with."""
    return from_mapping(run.config, RunConfig, where=str(run.recipe_file))


def check_place(folder: Path) -> None:
    """Refuse, before anything is encoded, a folder that a threshold cannot be stored in.

    Raises:
        ConfigError: If it is neither a template index nor a model, or belongs to a run.
    """
    if is_index(folder) and (folder.parent / "manifest.json").exists():
        raise ConfigError(f"{folder}: belongs to a run, whose files are sealed; set retrieve.min_cosine in its recipe")
    if not is_index(folder) and not any((folder / name).exists() for name in _MODEL_MARKS):
        raise ConfigError(f"{folder}: neither a template index nor a model; give the folder of one of them")


def store(folder: Path, min_cosine: float, encoder_id: str) -> Path:
    """Store a threshold with a template index, or beside a local model.

    Args:
        folder: The index or the model; see `check_place`.
        min_cosine: The threshold.
        encoder_id: Encoder it was calibrated for.

    Returns:
        The folder or file that holds it now.

    Raises:
        ConfigError: If another encoder made the index or is the model, or what is known of the model cannot be read.
        DataError: If the index is damaged.
    """
    check_place(folder)
    if is_index(folder):
        made_by = open_index(folder, verify=False).encoder_id
        if made_by != encoder_id:
            raise ConfigError(f"{folder}: made by encoder {made_by!r}, calibrated was {encoder_id!r}; use the same")
        store_min_cosine(folder, min_cosine)
        return folder
    model = ModelFolder(str(folder))
    if encoder_id.partition(" ")[0] != model.identity:
        raise ConfigError(
            f"{folder}: is the model {model.identity!r}, calibrated was the encoder {encoder_id!r}; name this "
            "folder as encoder.model in the recipe that is calibrated with"
        )
    return model.store_min_cosine(min_cosine)


def _setup(run: RunFolder) -> Setup:
    return Setup(recipe_of(run), run.root)
