"""Template index: the bank's templates beside the vectors of their compatible document descriptions.

In: templates. Out: a folder that every worker opens memory-mapped, and `TemplateIndex`, which looks templates up by row
or by id. It is the description that is embedded, not the template: a document resembles what it is about, not what is
asked of it.

The decision to question: rows keep the order of the bank that was indexed, in the vectors and in the table alike, so a
row number means the same to the index, to a compatibility gate and to the table.

Files: ``templates.arrow``, uncompressed so that it can be mapped, beside those of `backends.vector_index`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from fineinstructions.backends.encoder import Encoder
from fineinstructions.backends.vector_index import IndexKind, VectorIndex, file_digest
from fineinstructions.config import Config
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import Template, from_table, to_table

_TABLE_FILE = "templates.arrow"
_MANIFEST_FILE = "manifest.json"
_KEY_COLUMN = "key"
_MIN_COSINE = b"min_cosine"


class IndexConfig(Config):
    """How the template index is built."""

    kind: IndexKind = "auto"
    """``exact`` compares a document with every template, ``ivf`` with those in the nearest lists; ``auto`` chooses by
    size. Ours; the authors' index is of the IVF kind."""
    exact_up_to: NonNegativeInt = 100_000
    """Largest number of templates for which ``auto`` is exact. Ours."""
    nlist: PositiveInt | None = None
    """Number of lists of an IVF index; ``None`` for four times the square root of the number of templates. Ours."""
    nprobe: PositiveInt = 64
    """Lists that a query looks into. Ours; the authors' helper has 150 for 18 million templates."""
    batch_size: PositiveInt = 1024
    """Descriptions encoded at once. Ours."""


class TemplateIndex:
    """Templates and the vectors of their descriptions, in one row order; make one with `build_index` or `open_index`.

    Attributes:
        vectors: The searchable vectors.
        min_cosine: The encoder's calibrated threshold, stored when the index was built.
    """

    def __init__(self, table: pa.Table, vectors: VectorIndex) -> None:
        self.vectors = vectors
        self.min_cosine = float(table.schema.metadata[_MIN_COSINE])
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def table(self) -> pa.Table:
        """The templates and their keys."""
        return self._table

    @property
    def encoder_id(self) -> str:
        """Encoder that made the vectors."""
        return self.vectors.encoder_id

    @cached_property
    def num_slots(self) -> NDArray[np.int64]:
        """Slots of every template, in row order."""
        slots: NDArray[np.int64] = self._table.column("num_slots").to_numpy()
        return slots

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """A 64-bit hash of every template's id, in row order: sampling draws a template's luck from it."""
        keys: NDArray[np.uint64] = self._table.column(_KEY_COLUMN).to_numpy()
        return keys

    def template_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of the templates in some rows."""
        ids: list[str] = self._table.column("template_id").take(pa.array(rows)).to_pylist()
        return ids

    def templates(self, rows: NDArray[np.int64] | None = None) -> Iterator[Template]:
        """Templates of some rows, or of all of them, in order."""
        return from_table(self._table if rows is None else self._table.take(pa.array(rows)), Template)

    def template(self, template_id: str) -> Template:
        """The template of an id.

        Raises:
            KeyError: If the index has no such template.
        """
        return next(self.templates(np.array([self.row(template_id)])))

    def row(self, template_id: str) -> int:
        """Row number of a template's id.

        Raises:
            KeyError: If the index has no such template.
        """
        key = np.uint64(_key(template_id))
        ids = self._table.column("template_id")
        first = np.searchsorted(self.keys, key, side="left", sorter=self._rows_by_key)
        last = np.searchsorted(self.keys, key, side="right", sorter=self._rows_by_key)
        for row in self._rows_by_key[first:last].tolist():
            if ids[row].as_py() == template_id:
                return int(row)
        raise KeyError(template_id)

    @cached_property
    def _rows_by_key(self) -> NDArray[np.int64]:
        return np.argsort(self.keys, kind="stable")


def build_index(templates: Sequence[Template], encoder: Encoder, config: IndexConfig, out_dir: Path) -> TemplateIndex:
    """Embed the compatible document descriptions of a template bank and save the index.

    Args:
        templates: The bank, each id once.
        encoder: Makes the vectors.
        config: How to build.
        out_dir: Folder to write; files of an earlier index in it are replaced.

    Returns:
        The index as `open_index` opens it.

    Raises:
        ConfigError: If there is no template.
        DataError: If an id occurs twice.
    """
    if not templates:
        raise ConfigError("there is no template to index; give more or other queries")
    out_dir.mkdir(parents=True, exist_ok=True)
    rows_digest = _write_table(_table(templates, encoder.min_cosine), out_dir / _TABLE_FILE)
    vectors = np.empty((len(templates), encoder.dimension), dtype=np.float32)
    for start in range(0, len(templates), config.batch_size):
        batch = templates[start : start + config.batch_size]
        vectors[start : start + len(batch)] = encoder.encode_texts([t.compatible_document_description for t in batch])
    VectorIndex.build(
        vectors,
        encoder.encoder_id,
        rows_digest=rows_digest,
        kind=config.kind,
        exact_up_to=config.exact_up_to,
        nlist=config.nlist,
        nprobe=config.nprobe,
    ).save(out_dir)
    return open_index(out_dir, encoder)


def is_index(folder: Path) -> bool:
    """Whether a folder holds a template index."""
    return (folder / _TABLE_FILE).is_file()


def store_min_cosine(folder: Path, min_cosine: float) -> None:
    """Store a calibrated threshold with an index.

    Raises:
        ConfigError: If there is no index.
        DataError: If a file is corrupt.
    """
    table = open_index(folder).table.replace_schema_metadata({_MIN_COSINE: repr(min_cosine)})
    manifest = folder / _MANIFEST_FILE
    plain = json.loads(manifest.read_text(encoding="utf-8"))
    plain["rows_digest"] = _write_table(table, folder / _TABLE_FILE)
    temporary = manifest.with_name(f".{_MANIFEST_FILE}.tmp")
    temporary.write_text(json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(manifest)


def open_index(folder: Path, encoder: Encoder | None = None, *, verify: bool = True) -> TemplateIndex:
    """Open a saved template index, memory-mapped.

    Args:
        folder: Where `build_index` wrote it.
        encoder: The encoder that will embed the documents; ``None`` to only look templates up.
        verify: Compare digests; reads the files once.

    Returns:
        The index.

    Raises:
        ConfigError: If there is no index, or another encoder made it.
        DataError: If a file is corrupt.
    """
    vectors = VectorIndex.open(
        folder,
        encoder_id=None if encoder is None else encoder.encoder_id,
        dimension=None if encoder is None else encoder.dimension,
        verify=verify,
    )
    path = folder / _TABLE_FILE
    if not path.is_file() or (verify and file_digest(path) != vectors.rows_digest):
        raise DataError(f"{path}: missing, or not the templates that the vectors stand for; build the index again")
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a template table: {str(error).splitlines()[0]}") from None
    if len(table) != len(vectors):
        raise DataError(f"{path}: {len(table)} templates, but {len(vectors)} vectors; build the index again")
    return TemplateIndex(table, vectors)


def _key(template_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(template_id.encode(), digest_size=8).digest(), "little")


def _table(templates: Sequence[Template], min_cosine: float) -> pa.Table:
    """Templates with their keys, in one chunk, so that a row is found without a search through chunks."""
    seen: set[str] = set()
    for template in templates:
        if template.template_id in seen:
            raise DataError(f"template {template.template_id} occurs twice in the bank; an id must be unique")
        seen.add(template.template_id)
    table = to_table(templates, Template).combine_chunks()
    keys = pa.array([_key(t.template_id) for t in templates], type=pa.uint64())
    table = table.append_column(pa.field(_KEY_COLUMN, pa.uint64(), nullable=False), keys)
    return table.replace_schema_metadata({_MIN_COSINE: repr(min_cosine)})


def _write_table(table: pa.Table, path: Path) -> str:
    """Write an Arrow file in one step and return its digest."""
    temporary = path.with_name(f".{path.name}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    digest = file_digest(temporary)
    temporary.replace(path)
    return digest
