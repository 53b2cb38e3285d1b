"""The models that ship with the package, made anew: inputs checked, recipes run, a template bank genericized.

In: a folder of documents, queries and labelled questions. Out: a folder of model files that can take the place of
``embedded/data``. The decision to question: the bank is made here and not by a recipe of the tier, because merging
templates is the work of a room above it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from fineinstructions.embedded.recipes import RECIPES, TrainingData, folded
from fineinstructions.errors import ConfigError
from fineinstructions.records import Query, Template, TemplateDraft, to_table

MAX_BYTES = 40_000_000
"""Most that all files together may take."""

Say = Callable[[str], None]


def train_embedded(data_dir: Path, out: Path, only: Sequence[str] = (), say: Say = print) -> list[Path]:
    """Train the models of the embedded tier and write their files.

    Args:
        data_dir: Folder as `TrainingData` describes it.
        out: Folder for the files; made if it is not there.
        only: Names of recipes; all of them by default.
        say: Takes lines about what was read and learned.

    Returns:
        The files of the models, sorted.

    Raises:
        ConfigError: If an input is missing or a name is no recipe.
    """
    if unknown := sorted(set(only) - RECIPES.keys()):
        raise ConfigError(f"--only {unknown[0]}: no such model; there are {', '.join(RECIPES)}")
    data = TrainingData(data_dir)
    if not data.corpus:
        raise ConfigError(f"{data_dir / 'corpus'}: no *.parquet file; documents to learn from belong there")
    if missing := [path for path in data.needed() if not path.is_file()]:
        raise ConfigError(f"{missing[0]}: not found; {data_dir} must hold everything that the models learn from")
    out.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        if not only or name in only:
            try:
                recipe(data, out, say)
            except (
                KeyError,
                ValueError,
            ) as error:  # files of another shape, or none of a kind
                raise ConfigError(
                    f"{data_dir}: nothing can be learned for {name} ({error}); docs/model-card-embedded.md says which"
                    " columns are read and what they hold"
                ) from error
            if name == "genericizer":  # what comes after reads the new bank
                say(f"bank: {_make_bank(data, out):,} templates")
    files = sorted(path for path in out.iterdir() if path.suffix in (".npz", ".json", ".parquet"))
    size = sum(path.stat().st_size for path in files)
    say(f"{len(files)} files, {size / 1e6:.1f} MB of at most {MAX_BYTES / 1e6:.0f}")
    return files


def _make_bank(data: TrainingData, out: Path) -> int:
    """Write ``bank.parquet``: the templates that the new genericizer makes of the queries; how many they are."""
    from fineinstructions.embedded.genericizer import EmbeddedGenericizer
    from fineinstructions.templates.genericize import GenericizeConfig, genericize
    from fineinstructions.templates.merge import MergeConfig, merge
    from fineinstructions.templates.queries import QueriesConfig, clean

    judged = data.judged()
    rows = pq.read_table(data.folder / "queries.parquet").to_pylist()
    asked = (Query(r["id"], r["text"], r["source"], r["licence"]) for r in rows if folded(r["text"]) not in judged)
    config = QueriesConfig(path=str(data.folder / "queries.parquet"))
    cleaned = (item for item in clean(asked, config) if isinstance(item, Query))
    made = genericize(cleaned, EmbeddedGenericizer(out), GenericizeConfig())
    drafts = (item for item in made if isinstance(item, TemplateDraft))
    templates = [item for item in merge(drafts, MergeConfig()) if isinstance(item, Template)]
    pq.write_table(to_table(templates, Template), out / "bank.parquet", compression="zstd", compression_level=19)
    return len(templates)
