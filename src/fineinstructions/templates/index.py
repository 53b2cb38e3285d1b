"""Template index: the bank's templates beside the vectors of their compatible document descriptions.

In: templates, streamed. Out: a folder that every worker opens memory-mapped, and `TemplateIndex`, which looks templates
up by row or by id. It is the description that is embedded, not the template: a document resembles what it is about, not
what is asked of it.

The decision to question: rows keep the order of the bank that was indexed, in the vectors and in the table alike, so a
row number means the same to the index, to a compatibility gate and to the table. Templates that are added later follow
behind, and removed ones keep their row, so no number ever changes.

Files: those of `templates.table` beside those of `backends.vector_index`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from fineinstructions.backends.encoder import Encoder
from fineinstructions.backends.vector_index import (
    ArraySource,
    IndexKind,
    Products,
    Settings,
    VectorIndex,
    add_vectors,
    build_vectors,
    forget_manifest,
    open_vectors,
    read_manifest,
    remove_vectors,
    require_memory_to_build,
    save_array,
    set_min_cosine,
)
from fineinstructions.config import Config, digest
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import Template
from fineinstructions.runs.durable import write_text
from fineinstructions.templates.table import (
    TABLE_FILE,
    TemplateTable,
    table_digest,
    table_files,
    write_table,
)

_EMBEDDED_DIR = ".embedded"
_SHARD_ROWS = 65_536
PAPERS_MIN_COSINE = 0.865
"""Threshold of the paper (section 3.2), for the authors' encoder."""


class IndexConfig(Config):
    """How the template index is built."""

    kind: IndexKind = "auto"
    """``exact`` compares a document with every template, ``ivf`` with those in the nearest lists; ``auto`` chooses by
    size. Ours; the authors' index is of the IVF kind."""
    exact_up_to: NonNegativeInt = 100_000
    """Largest number of templates for which ``auto`` is exact. Ours."""
    nlist: PositiveInt | None = None
    """Number of lists of an IVF index; ``None`` for four times the square root of the number of templates. Ours."""
    nprobe: PositiveInt | None = None
    """Lists that a query looks into, of a ready index too; ``None`` for what the index was built with, which is 64
    unless set. Another number redoes the search, not the index. Ours; the authors' helper has 150 for 18 million."""
    head_dims: PositiveInt = 384
    """Coordinates whose products are always taken; the others only bound the cosine where the threshold is out of
    reach. Changes speed, not results. Ours."""
    products: Products = "auto"
    """How an IVF index multiplies: floats, or first 8-bit codes; ``auto`` takes codes where the processor is fast at
    them (VNNI, AMX) and PyTorch is installed. Changes speed, not results. Ours."""
    keep_vectors: bool | None = None
    """Whether an IVF index keeps its float vectors (4 bytes a dimension) for exact cosines; else 8-bit codes decide,
    from ``min_cosine`` less 0.003 on. ``None``: up to a million templates. Ours."""
    online: bool = False
    """Whether an IVF index gets short codes too (four dimensions to 4 bits), with which ``index search`` answers
    sooner. A run does not use them, and makes nothing anew for them. Ours."""
    batch_size: PositiveInt = 1024
    """Descriptions encoded at once. Ours."""

    def settings(self, count: int, min_cosine: float | None) -> Settings:
        """What the vector index is told; recall is measured at the encoder's threshold, or else at the paper's."""
        return Settings(
            nlist=self.nlist,
            nprobe=self.nprobe or 64,
            head_dims=self.head_dims,
            online=self.online,
            keeps_vectors=count <= 1_000_000 if self.keep_vectors is None else self.keep_vectors,
            min_cosine=PAPERS_MIN_COSINE if min_cosine is None else min_cosine,
        )


class TemplateIndex:
    """Templates and the vectors of their descriptions, in one row order; make one with `build_index` or `open_index`.

    Attributes:
        vectors: The searchable vectors.
    """

    def __init__(self, table: TemplateTable, vectors: VectorIndex) -> None:
        self.vectors = vectors
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @property
    def encoder_id(self) -> str:
        """Encoder that made the vectors."""
        return self.vectors.encoder_id

    @property
    def min_cosine(self) -> float | None:
        """The encoder's calibrated threshold, stored when the index was built or calibrated; ``None`` if not known."""
        return self.vectors.manifest.min_cosine

    @property
    def num_slots(self) -> NDArray[np.int64]:
        """Slots of every template, in row order, shape (N,)."""
        return self._table.num_slots

    @property
    def keys(self) -> NDArray[np.uint64]:
        """A 64-bit hash of every template's id, in row order: sampling draws a template's luck from it."""
        return self._table.keys

    def template_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of the templates in some rows."""
        return self._table.template_ids(rows)

    def templates(self, rows: NDArray[np.int64] | None = None) -> Iterator[Template]:
        """Templates of some rows, or of all of them (removed ones too), in order."""
        return self._table.templates(rows)

    def live_templates(self) -> Iterator[Template]:
        """Templates that were not removed, in order; `live_rows` has their row numbers."""
        live = np.ones(len(self), np.bool_)
        live[self.vectors.removed] = False
        return itertools.compress(self.templates(), live.tolist())

    @property
    def removed(self) -> NDArray[np.int64]:
        """Row numbers that were removed and are never found, ascending."""
        return self.vectors.removed

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """Row numbers of the templates that were not removed, ascending."""
        return np.setdiff1d(np.arange(len(self)), self.vectors.removed, assume_unique=True)

    def template(self, template_id: str) -> Template:
        """The template of an id.

        Raises:
            KeyError: If the index has no such template.
        """
        return next(self.templates_of([template_id]))

    def templates_of(self, template_ids: Sequence[str]) -> Iterator[Template]:
        """The templates of some ids, in order: many at once cost little more than one.

        Raises:
            KeyError: If the index lacks one of them.
        """
        return self.templates(np.array(self._table.live_rows(template_ids, self.vectors.removed), np.int64))

    def row(self, template_id: str) -> int:
        """Row number of a template's id, removed ones left out.

        Raises:
            KeyError: If the index has no such template.
        """
        return self._table.live_rows([template_id], self.vectors.removed)[0]


def build_index(
    templates: Iterable[Template],
    encoder: Encoder,
    config: IndexConfig,
    out_dir: Path,
    on_progress: Callable[[str, int], None] | None = None,
) -> TemplateIndex:
    """Embed the compatible document descriptions of a template bank and save the index.

    Memory is bounded whatever the size of the bank. A build that was stopped goes on: descriptions that were embedded
    are not embedded again.

    Args:
        templates: The bank, each id once.
        encoder: Makes the vectors.
        config: How to build.
        out_dir: Folder to write; files of an earlier index in it are replaced.
        on_progress: Told the step (``embed``, ``index``) and the number of rows that were done.

    Returns:
        The index as `open_index` opens it.

    Raises:
        ConfigError: If there is no template, or no room on the disk.
        DataError: If an id occurs twice.
    """
    _require_unsealed(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    forget_manifest(out_dir)  # else a build that is stopped here would leave old vectors beside new templates
    count = write_table(templates, out_dir / TABLE_FILE)
    table = TemplateTable([out_dir / TABLE_FILE])
    repeated = table.repeated_id()
    if repeated is not None:
        raise DataError(f"template {repeated} occurs twice in the bank; an id must be unique")
    rows_digest = table_digest([out_dir / TABLE_FILE])
    settings = config.settings(count, encoder.min_cosine)
    require_memory_to_build(out_dir, count, encoder.dimension, config.kind, config.exact_up_to, settings)
    source = _embedded(table, 0, count, encoder, config.batch_size, out_dir, rows_digest, on_progress)
    build_vectors(
        source,
        out_dir,
        encoder.encoder_id,
        rows_digest=rows_digest,
        kind=config.kind,
        exact_up_to=config.exact_up_to,
        settings=settings,
        min_cosine=encoder.min_cosine,
        on_progress=None if on_progress is None else lambda rows: on_progress("index", rows),
    )
    _forget_embedded(out_dir)
    for path in out_dir.glob("templates-*.arrow"):
        path.unlink()
    return open_index(out_dir, encoder)


def add_templates(templates: Iterable[Template], encoder: Encoder, folder: Path, batch_size: int = 1024) -> int:
    """Add templates to an index; their rows follow the last one.

    Args:
        templates: New ones; the id of a template that is there already, and was not removed, is refused.
        encoder: The encoder that made the index.
        folder: The index.
        batch_size: Descriptions encoded at once.

    Returns:
        How many were added.

    Raises:
        ConfigError: If there is no index, another encoder made it, it belongs to a run, there is no template, or an id
            is there already.
        DataError: If a file is corrupt.
    """
    _require_unsealed(folder)
    before = open_index(folder, encoder)
    files = table_files(folder, before.vectors.manifest.num_additions + 1)
    count = write_table(templates, files[-1])
    table = TemplateTable(files)
    repeated = table.repeated_id(before.vectors.removed)
    if repeated is not None:
        raise ConfigError(
            f"{folder}: template {repeated!r} is there already; remove it first, or leave it out of the bank"
        )
    rows_digest = table_digest(files)
    source = _embedded(table, len(before), len(table), encoder, batch_size, folder, rows_digest, None)
    add_vectors(folder, source, rows_digest)
    _forget_embedded(folder)
    return count


def remove_templates(template_ids: Iterable[str], folder: Path) -> int:
    """Remove templates from an index: they are never found again.

    Args:
        template_ids: Ids.
        folder: The index.

    Returns:
        How many were there.

    Raises:
        ConfigError: If there is no index, it belongs to a run, or it has no such template.
    """
    _require_unsealed(folder)
    index = open_index(folder, verify=False)
    rows = []
    for template_id in template_ids:
        try:
            rows.append(index.row(template_id))
        except KeyError:
            raise ConfigError(f"{folder}: no template {template_id!r} in this index; nothing was removed") from None
    return remove_vectors(folder, np.array(rows, dtype=np.int64))


def is_index(folder: Path) -> bool:
    """Whether a folder holds a template index."""
    return (folder / TABLE_FILE).is_file()


def store_min_cosine(folder: Path, min_cosine: float) -> None:
    """Store a calibrated threshold with an index.

    Raises:
        ConfigError: If there is no index.
    """
    set_min_cosine(folder, min_cosine)


def open_index(
    folder: Path, encoder: Encoder | None = None, *, verify: bool = True, config: IndexConfig | None = None
) -> TemplateIndex:
    """Open a saved template index, memory-mapped.

    Args:
        folder: Where `build_index` wrote it.
        encoder: The encoder that will embed the documents; ``None`` to only look templates up.
        verify: Compare digests; reads the files once.
        config: How to search it (`IndexConfig.nprobe`, `IndexConfig.products`); ``None`` for the defaults.

    Returns:
        The index.

    Raises:
        ConfigError: If there is no index, another encoder made it, or its products need what is not installed.
        DataError: If a file is corrupt.
    """
    config = config or IndexConfig()
    vectors = open_vectors(
        folder,
        encoder_id=None if encoder is None else encoder.encoder_id,
        dimension=None if encoder is None else encoder.dimension,
        verify=verify,
        nprobe=config.nprobe,
        products=config.products,
    )
    files = table_files(folder, vectors.manifest.num_additions)
    missing = [path for path in files if not path.is_file()]
    if missing or (verify and table_digest(files) != vectors.manifest.rows_digest):
        place = missing[0] if missing else files[0]
        raise DataError(f"{place}: missing, or not the templates that the vectors stand for; build the index again")
    table = TemplateTable(files)
    if len(table) != len(vectors):
        raise DataError(f"{files[0]}: {len(table)} templates, but {len(vectors)} vectors; build the index again")
    return TemplateIndex(table, vectors)


def index_fingerprint(folder: Path, encoder_id: str) -> str:
    """What changes when the content of an index changes: its templates, vectors or removals.

    Raises:
        ConfigError: If there is no index, or another encoder made it.
    """
    manifest = read_manifest(folder)
    manifest.require(folder, encoder_id, None)
    return digest(manifest.what_is_found())


def _require_unsealed(folder: Path) -> None:
    if is_index(folder) and (folder.parent / "manifest.json").exists():
        raise ConfigError(f"{folder}: belongs to a run, whose files are sealed; build an index of its bank elsewhere")


def _embedded(
    table: TemplateTable,
    start: int,
    stop: int,
    encoder: Encoder,
    batch_size: int,
    folder: Path,
    rows_digest: str,
    on_progress: Callable[[str, int], None] | None,
) -> ArraySource:
    """Vectors of a row range, embedded into files of a fixed number of rows; those that are there already are used."""
    place = folder / _EMBEDDED_DIR
    key = digest(rows_digest, encoder.encoder_id, start)
    if not (place / "key").is_file() or (place / "key").read_text(encoding="utf-8") != key:
        _forget_embedded(folder)
        place.mkdir()
        write_text(place / "key", key)
    paths = []
    for number, first in enumerate(range(start, stop, _SHARD_ROWS)):
        last = min(first + _SHARD_ROWS, stop)
        paths.append(place / f"{number:05d}.npy")
        if not paths[-1].is_file():
            vectors = np.empty((last - first, encoder.dimension), dtype=np.float32)
            for low in range(first, last, batch_size):
                high = min(low + batch_size, last)
                vectors[low - first : high - first] = encoder.encode_texts(table.descriptions(low, high))
            save_array(paths[-1], vectors)
        if on_progress:
            on_progress("embed", last - first)
    return ArraySource([np.load(path, mmap_mode="r", allow_pickle=False) for path in paths])


def _forget_embedded(folder: Path) -> None:
    place = folder / _EMBEDDED_DIR
    if place.is_dir():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
