"""Packed tokens as one long row of numbers that lies on disk, and which row of the corpus each of them belongs to.

In: a folder that `pack` wrote. Out: stretches of tokens by their position, and the rows in them. Nothing is read before
it is asked for.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest
from fineinstructions.training.pack import ANSWERS_FILE, ROWS_FILE, STARTS_FILE, TOKENS_FILE, part_name, token_type


@dataclass(frozen=True)
class _Part:
    """One part, mapped into memory."""

    folder: Path
    tokens: NDArray[np.uint16] | NDArray[np.uint32]
    starts: NDArray[np.int64]
    """Where every row begins in `tokens`."""
    answers: NDArray[np.int32] | None
    """Tokens of every row before its answer."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some tokens that stand together, and the rows in them."""

    tokens: NDArray[np.int64]
    rows: NDArray[np.int64]
    """Number of the row that each token belongs to."""
    places: NDArray[np.int64]
    """Place of each token in its row; 0 is the first."""
    is_answer: NDArray[np.bool_]
    """Whether each token belongs to an answer; all do where rows are not pairs in two parts."""


def _mapped(path: Path, kind: str) -> NDArray[np.generic]:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def _open_part(folder: Path) -> _Part:
    manifest = read_manifest(FolderFiles(folder))
    if manifest is None:
        raise DataError(f"{folder}: no packed tokens here; run again to pack them")
    problems = file_problems(FolderFiles(folder), manifest.files)
    if problems:
        raise DataError(f"{folder}: {problems[0]}; delete it and run again")
    kind = np.dtype(token_type(manifest.counts["vocab_size"])).newbyteorder("<").str
    has_answers = (folder / ANSWERS_FILE).is_file()
    return _Part(
        folder,
        _mapped(folder / TOKENS_FILE, kind),  # type: ignore[arg-type]
        _mapped(folder / STARTS_FILE, "<i8"),  # type: ignore[arg-type]
        _mapped(folder / ANSWERS_FILE, "<i4") if has_answers else None,  # type: ignore[arg-type]
    )


class PackedTokens:
    """All parts, one behind the other.

    Args:
        folder: What `pack` wrote.
        num_parts: How many parts there are.

    Raises:
        DataError: If a part is missing or damaged.
    """

    def __init__(self, folder: Path, num_parts: int) -> None:
        self.folder = folder
        self._parts = [_open_part(folder / part_name(number)) for number in range(num_parts)]
        self._ends = np.cumsum([len(part.tokens) for part in self._parts], dtype=np.int64)
        self._first_rows = np.cumsum([0, *(len(part.starts) for part in self._parts)], dtype=np.int64)

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return int(self._first_rows[-1])

    @cached_property
    def has_answers(self) -> bool:
        """Whether it is known of every row where its answer begins."""
        return all(part.answers is not None for part in self._parts if len(part.starts))

    def require_answers(self) -> None:
        """Refuse tokens of which it is not known what belongs to an answer.

        Raises:
            ConfigError: If that is so.
        """
        if not self.has_answers:
            raise ConfigError(
                "loss: answers needs to know where answers begin, which a corpus of whole texts does not tell; export"
                " pairs with --view prompt_completion, or use loss: all"
            )

    def stretch(self, start: int, stop: int) -> Stretch:
        """Tokens by their position, with the rows in them.

        Args:
            start: Position of the first token.
            stop: Position after the last one, at most `num_tokens`.
        """
        if not 0 <= start < stop <= self.num_tokens:
            raise ValueError(f"no tokens {start} to {stop}; there are {self.num_tokens}")
        found = []
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin = int(self._ends[number]) - len(self._parts[number].tokens)
            until = min(stop, int(self._ends[number]))
            if until > start:
                found.append(self._of_part(number, start - begin, until - begin))
            start, number = until, number + 1
        columns = zip(*found, strict=True)
        return Stretch(*(np.concatenate(column) for column in columns))

    def _of_part(self, number: int, start: int, stop: int) -> tuple[NDArray[np.generic], ...]:
        part = self._parts[number]
        first = int(np.searchsorted(part.starts, start, side="right")) - 1
        last = int(np.searchsorted(part.starts, stop, side="left"))
        begins = np.asarray(part.starts[first:last])
        sizes = np.diff(np.append(np.maximum(begins, start), stop))
        rows = np.repeat(np.arange(first, last, dtype=np.int64), sizes)
        places = np.arange(start, stop, dtype=np.int64) - np.repeat(begins, sizes)
        answers = part.answers
        before = np.repeat(answers[first:last], sizes) if answers is not None else 0
        return part.tokens[start:stop].astype(np.int64), rows + self._first_rows[number], places, places >= before

    def row_id(self, row: int) -> tuple[str, str | None]:
        """Ids of a row and of its document, by the number of the row."""
        if not 0 <= row < self.num_rows:
            raise ValueError(f"no row {row}; there are {self.num_rows}")
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        left = row - int(self._first_rows[number])
        with pq.ParquetFile(self._parts[number].folder / ROWS_FILE) as file:
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if left < size:
                    table = file.read_row_group(group).slice(left, 1)
                    return table.column("id")[0].as_py(), table.column("document_id")[0].as_py()
                left -= size
        raise DataError(f"{self._parts[number].folder}: has no row {row}; delete it and run again")
