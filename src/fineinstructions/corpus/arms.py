"""Rows of the arms: which rows of every source each arm takes, so that all arms have the same number of tokens.

In: sources, each with the tokens, random keys and marks of its rows. Out: for every arm and source the marks of the
rows that it takes. Arrays of all rows may lie on disk; the rows themselves are read only when they are written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.corpus.cut import keep_tokens, live_tokens, top_up
from fineinstructions.corpus.export import arm_tokens
from fineinstructions.corpus.write import ROW_SCHEMA
from fineinstructions.seeded_order import row_keys


@dataclass(frozen=True)
class Source:
    """What rows can be taken from."""

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    """All rows in order, without their tokens."""
    tokens: NDArray[np.int64]
    keys: NDArray[np.uint64]
    """Random bits of every row; decide which rows stay where not all do."""
    live: NDArray[np.bool_]
    """Rows that may be taken."""
    offered: NDArray[np.bool_]
    """Rows that are accounted for where they are not taken; the others were turned down before."""

    def live_tables(self) -> Iterator[pa.Table]:
        """The rows that may be taken, in order, without their tokens."""
        start = 0
        for table in self.tables():
            yield table.filter(pa.array(np.array(self.live[start : start + table.num_rows])))
            start += table.num_rows


@dataclass(frozen=True)
class Share:
    """The rows that an arm takes of one source."""

    source: Source
    kept: NDArray[np.bool_]
    num_tokens: int
    shortened: Mapping[str, int] = field(default_factory=dict)
    """Of documents that are cut: how many rows are, and how many have pairs behind them."""

    def tables(self) -> Iterator[pa.Table]:
        """The rows, in the order of the source."""
        start = 0
        for table in self.source.tables():
            stop = start + table.num_rows
            marks = np.array(self.kept[start:stop])
            if marks.any():
                taken = table.append_column(ROW_SCHEMA.field("num_tokens"), pa.array(self.source.tokens[start:stop]))
                yield taken if marks.all() else taken.filter(pa.array(marks))
            start = stop

    def left_out(self) -> Iterator[int]:
        """Places of the rows that are accounted for here and were not taken."""
        offered = self.source.offered
        for start in range(0, len(self.kept), 1 << 20):
            block = slice(start, start + (1 << 20))
            yield from (start + np.flatnonzero(offered[block] & ~self.kept[block])).tolist()


class DocumentCount:
    """How many documents the rows of an arm are made of, told apart by 64 bits of their ids.

    Args:
        path: File that holds the bits meanwhile.
        shares: What the arm takes.
    """

    def __init__(self, path: Path, shares: Sequence[Share]) -> None:
        self._keys = open_array(path, np.uint64, sum(int(share.kept.sum()) for share in shares))
        self._num_keys = 0

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables."""
        for table in tables:
            keys = row_keys(0, "documents", table.column("document_id").unique().to_pylist())
            self._keys[self._num_keys : self._num_keys + len(keys)] = keys
            self._num_keys += len(keys)
            yield table

    def number(self) -> int:
        """Documents of all tables so far."""
        found = self._keys[: self._num_keys]
        found.sort()
        return int(np.count_nonzero(found[1:] != found[:-1])) + bool(len(found))


def share_out(
    sources: Mapping[str, Source], mixtures: Mapping[str, Mapping[str, float]], equal: bool, folder: Path
) -> dict[str, list[Share]]:
    """Choose the rows of every arm.

    Args:
        sources: Sources by name.
        mixtures: Shares of the sources of every arm, in tokens; they add up to 1.
        equal: Whether all arms get the tokens of the smallest.
        folder: Where marks are kept.

    Returns:
        What each arm takes: less than one row below the wanted tokens, and of every source about its share, within
        some rows.
    """
    used = {name for shares in mixtures.values() for name in shares}
    capacities = {name: live_tokens(sources[name].tokens, sources[name].live) for name in used}
    wanted = arm_tokens(capacities, mixtures)
    if equal:
        wanted = dict.fromkeys(wanted, min(wanted.values()))
    arms: dict[str, list[Share]] = {}
    for arm, shares in mixtures.items():
        taken: dict[str, tuple[NDArray[np.bool_], int]] = {}
        for name, share in shares.items():
            source = sources[name]
            most = int(wanted[arm] * share + 1e-6)
            kept = open_array(folder / f"kept-{arm}-{name}", np.bool_, len(source.tokens))
            taken[name] = kept, keep_tokens(source.tokens, source.keys, source.live, most, kept)
        left = wanted[arm] - sum(number for _, number in taken.values())
        arms[arm] = []
        for name, (kept, number) in taken.items():
            source, before = sources[name], left
            if len(shares) > 1:  # what every source lacks of its share comes to more than a row
                left = top_up(source.tokens, source.keys, source.live, left, kept)
            arms[arm].append(Share(source, kept, number + before - left))
    return arms


def open_array(path: Path, kind: Any, number: int) -> NDArray[Any]:
    """A new array of zeros on disk."""
    return np.memmap(path, kind, "w+", shape=(number,)) if number else np.zeros(0, kind)
