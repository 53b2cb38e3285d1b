"""The templates of an index as memory-mapped Arrow files, looked up by row or by id.

In: templates, streamed. Out: ``templates.arrow``, one file more for every addition, and `TemplateTable`. Uncompressed,
so that it can be mapped and workers share its pages; in record batches of a fixed size, so that a row is found fast
and tens of millions of templates never have to be in memory at once.

Shapes: N templates.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import Template, from_table, to_table
from fineinstructions.runs.durable import sha256_file, sync_file

TABLE_FILE = "templates.arrow"
ADDED_FILE = "templates-{number:03d}.arrow"
BATCH_ROWS = 16_384
_KEY_COLUMN = "key"


class TemplateTable:
    """Templates in row order.

    Args:
        paths: Arrow files, in row order.

    Raises:
        DataError: If a file is missing or something else.
    """

    def __init__(self, paths: list[Path]) -> None:
        batches: list[pa.RecordBatch] = []
        for path in paths:
            try:
                with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                    batches += [reader.get_batch(number) for number in range(reader.num_record_batches)]
            except FileNotFoundError:
                raise DataError(f"{path}: missing; build the index again") from None
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path}: not a template table: {str(error).splitlines()[0]}") from None
        self._batches = batches
        self._starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def num_slots(self) -> NDArray[np.int64]:
        """Slots of every template, shape (N,)."""
        return np.concatenate([batch.column("num_slots").to_numpy() for batch in self._batches])

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """A 64-bit hash of every template's id, shape (N,): sampling draws a template's luck from it."""
        return np.concatenate([batch.column(_KEY_COLUMN).to_numpy() for batch in self._batches])

    def template_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of the templates in some rows."""
        ids: list[str] = [""] * len(rows)
        for batch, places, within in self._by_batch(rows):
            found = batch.column("template_id").take(pa.array(within)).to_pylist()
            for place, template_id in zip(places.tolist(), found, strict=True):
                ids[place] = template_id
        return ids

    def templates(self, rows: NDArray[np.int64] | None = None) -> Iterator[Template]:
        """Templates of some rows, or of all of them, in order."""
        if rows is None:
            for batch in self._batches:
                yield from from_table(pa.Table.from_batches([batch]), Template)
            return
        found: list[Template | None] = [None] * len(rows)
        for batch, places, within in self._by_batch(rows):
            taken = from_table(pa.Table.from_batches([batch.take(pa.array(within))]), Template)
            for place, template in zip(places.tolist(), taken, strict=True):
                found[place] = template
        yield from (template for template in found if template is not None)

    def live_rows(self, template_ids: Sequence[str], removed: NDArray[np.int64]) -> list[int]:
        """Row number of every id; an id that was removed and added again stands in several rows, one of them live.

        Raises:
            KeyError: If one of them has no row, or only rows that were removed, which are given in ascending order.
        """
        wanted = np.array([key_of(template_id) for template_id in template_ids], np.uint64)
        order = self._rows_by_key
        first, last = (np.searchsorted(self.keys, wanted, side, sorter=order).tolist() for side in ("left", "right"))
        rows = np.concatenate([np.empty(0, np.int64), *(order[a:b] for a, b in zip(first, last, strict=True))])
        if len(removed):
            rows = rows[removed[np.minimum(np.searchsorted(removed, rows), len(removed) - 1)] != rows]
        row_of = dict(zip(reversed(self.template_ids(rows)), reversed(rows.tolist()), strict=True))
        return [row_of[template_id] for template_id in template_ids]

    def repeated_id(self, removed: NDArray[np.int64] | None = None) -> str | None:
        """An id that stands twice, if there is one; rows that were removed do not count."""
        ordered = self.keys[self._rows_by_key]
        alike = np.flatnonzero(ordered[1:] == ordered[:-1])
        rows = np.unique(np.concatenate([alike, alike + 1]))
        seen: set[str] = set()
        doubtful = np.sort(self._rows_by_key[rows])
        for template_id in self.template_ids(doubtful if removed is None else np.setdiff1d(doubtful, removed)):
            if template_id in seen:
                return template_id
            seen.add(template_id)
        return None

    def descriptions(self, start: int, stop: int) -> list[str]:
        """Compatible document descriptions of a row range."""
        found: list[str] = []
        for batch, _, within in self._by_batch(np.arange(start, stop)):
            found += batch.column("compatible_document_description").take(pa.array(within)).to_pylist()
        return found

    @cached_property
    def _rows_by_key(self) -> NDArray[np.int64]:
        return np.argsort(self.keys, kind="stable")

    def _by_batch(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64], NDArray[np.int64]]]:
        """Every batch that holds some of the rows, the places of those in `rows`, and their rows within the batch."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(which).tolist():
            places = np.flatnonzero(which == number)
            yield self._batches[number], places, rows[places] - self._starts[number]


def write_table(templates: Iterable[Template], path: Path) -> int:
    """Write an Arrow file, in one step and in bounded memory.

    Args:
        templates: In row order.
        path: The file.

    Returns:
        Number of templates.

    Raises:
        ConfigError: If there is none.
    """
    stream = iter(templates)
    temporary = path.with_name(f"tmp-{path.name}")
    schema = to_table([], Template).schema.append(pa.field(_KEY_COLUMN, pa.uint64(), nullable=False))
    count = 0
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch := list(islice(stream, BATCH_ROWS)):
            keys = pa.array([key_of(t.template_id) for t in batch], type=pa.uint64())
            table = to_table(batch, Template).append_column(schema.field(_KEY_COLUMN), keys)
            writer.write_table(table.combine_chunks(), max_chunksize=BATCH_ROWS)
            count += len(batch)
    if not count:
        temporary.unlink()
        raise ConfigError("there is no template to index; give more or other queries")
    sync_file(temporary)
    temporary.replace(path)
    return count


def table_files(folder: Path, num_additions: int) -> list[Path]:
    """Arrow files of an index folder, in row order; what an addition that was stopped left behind is none of them."""
    return [folder / TABLE_FILE, *(folder / ADDED_FILE.format(number=n + 1) for n in range(num_additions))]


def table_digest(paths: list[Path]) -> str:
    """Digest of the contents of all files, in order."""
    digests = [sha256_file(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def key_of(template_id: str) -> int:
    """64-bit hash of an id."""
    return int.from_bytes(hashlib.blake2b(template_id.encode(), digest_size=8).digest(), "little")
