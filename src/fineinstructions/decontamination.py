"""Finds texts that share wording with a benchmark, by hashed word n-grams.

In: benchmark files that the user names, then single texts. Out: for each text what kind of overlap it has, with which
item. Only 64-bit hashes of n-grams are kept. Nothing here trains on a benchmark: it is read to keep its items out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.filters import hash64, words
from fineinstructions.formats import read_file_rows
from fineinstructions.inputs import InputFile, list_inputs, open_bytes
from fineinstructions.parquet import open_parquet, read_parquet_rows

SHORT_GRAM = 8
LONG_GRAM = 13
_MAX_ITEM_BYTES = 64_000_000


class BenchmarkConfig(Config):
    """One benchmark to keep out of the data."""

    path: str | list[str]
    """Its files, in any format that documents may have; a JSON object keyed by number is one item per key."""
    columns: list[str] = Field(
        default=["prompt", "instruction", "question", "query", "text", "turns", "user", "problem"]
    )
    """Columns or JSON keys whose texts are kept out, looked for at any depth."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Only rows with these values, by column; for example ``{split: val}``. Default: all rows."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a text shares with a benchmark item."""

    kind: str
    """``exact``: the same words; ``13_gram``: thirteen words in a row; ``8_gram``: the share of 8-grams is high."""
    share: float
    """Share of the 8-grams of the item found in the text, or of the text found in the item, whichever is larger."""
    item: str
    """The item: file and number."""


class Decontaminator:
    """Benchmark items as hashed n-grams, and the test of a text against them.

    A text overlaps when it has the words of a whole item, shares any 13 words in a row with one, or when at least
    `min_share` of its 8-grams lie in one item or of the item's 8-grams in it. The second direction finds an item quoted
    inside a long text, the first a fragment of a long item.

    Args:
        items: Name and text of every benchmark item.
        min_share: Share of 8-grams that makes an overlap.

    Source:
        8-grams and one half: the Tulu 3 procedure, which the paper names (section 3.1) for its queries. 13-grams: the
        practice of GPT-3 (arXiv:2005.14165, appendix C). The exact match of prompts under 8 words is ours.

    Example:
        >>> bench = Decontaminator([("b:1", "How many legs does a spider have?")])
        >>> bench.find("how many legs does a SPIDER have").kind
        'exact'
        >>> bench.find("How many legs does an ant have?") is None
        True
    """

    def __init__(self, items: Iterable[tuple[str, str]], min_share: float = 0.5) -> None:
        if not 0 < min_share <= 1:
            raise ValueError(f"min_share {min_share} must be in (0, 1]")
        self._min_share = min_share
        self._names: list[str] = []
        self._whole: dict[int, int] = {}
        grams, owners, long_grams = [], [], []
        for name, text in items:
            tokens = words(text)
            if not tokens:
                continue
            hashes = _word_hashes(tokens)
            number = len(self._names)
            self._names.append(name)
            self._whole.setdefault(hash64(" ".join(tokens)), number)
            short = np.unique(_grams(hashes, SHORT_GRAM))
            grams.append(short)
            owners.append(np.full(len(short), number, np.int32))
            long_grams.append(_grams(hashes, LONG_GRAM))
        self._item_sizes = np.array([len(g) for g in grams], np.int64)
        every = np.concatenate([*grams, np.zeros(0, np.uint64)])
        order = np.argsort(every, kind="stable")
        self._grams: NDArray[np.uint64] = every[order]
        self._owners = np.concatenate([*owners, np.zeros(0, np.int32)])[order]
        self._long_grams = np.unique(np.concatenate([*long_grams, np.zeros(0, np.uint64)]))

    @classmethod
    def from_files(
        cls, benchmarks: Sequence[BenchmarkConfig], min_share: float = 0.5, section: str = "queries.benchmarks"
    ) -> "Decontaminator":
        """Read benchmark files.

        Args:
            benchmarks: Files and the columns whose texts count.
            min_share: As in the class.
            section: Section that names them, for messages.

        Raises:
            ConfigError: If a file cannot be read or holds no text under any of the columns.
        """
        return cls((item for b in benchmarks for item in _items(b, section)), min_share)

    @property
    def num_items(self) -> int:
        """Number of benchmark texts held."""
        return len(self._names)

    def find(self, text: str) -> Overlap | None:
        """The strongest overlap of a text with any item, or ``None``."""
        tokens = words(text)
        whole = self._whole.get(hash64(" ".join(tokens)))
        if whole is not None:
            return Overlap("exact", 1.0, self._names[whole])
        if len(tokens) < SHORT_GRAM:
            return None
        hashes = _word_hashes(tokens)
        grams = _grams(hashes, SHORT_GRAM)
        if not _contains(self._grams, grams).any():
            return None
        grams = np.unique(grams)
        shared = grams[_contains(self._grams, grams)]
        low = np.searchsorted(self._grams, shared, "left")
        high = np.searchsorted(self._grams, shared, "right")
        owners = np.concatenate([self._owners[a:b] for a, b in zip(low, high, strict=True)])
        items, counts = np.unique(owners, return_counts=True)
        shares = np.maximum(counts / self._item_sizes[items], counts / len(grams))
        best = int(np.argmax(shares))
        share, name = float(shares[best]), self._names[items[best]]
        if _contains(self._long_grams, _grams(hashes, LONG_GRAM)).any():
            return Overlap("13_gram", share, name)
        return Overlap("8_gram", share, name) if share >= self._min_share else None


def _contains(table: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(table):
        return np.zeros(len(values), np.bool_)
    positions = np.minimum(np.searchsorted(table, values), len(table) - 1)
    found: NDArray[np.bool_] = np.equal(table[positions], values)
    return found


_STEP = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return hash64(word)


def _word_hashes(tokens: list[str]) -> NDArray[np.uint64]:
    return np.fromiter(map(_word_hash, tokens), np.uint64, len(tokens))


def _grams(hashes: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Hashes of all runs of `size` words, in order: a polynomial in the words' hashes, so order within a run counts."""
    count = max(len(hashes) - size + 1, 0)
    combined = np.zeros(count, np.uint64)
    for offset in range(size if count else 0):
        combined *= _STEP
        combined += hashes[offset : offset + count]
    return combined


def _items(benchmark: BenchmarkConfig, section: str) -> Iterator[tuple[str, str]]:
    """Name and text of every item; texts of one row are items of their own."""
    columns = frozenset(benchmark.columns)
    for file in list_inputs(benchmark.path, section):
        found = False
        for number, values in _rows(file):
            if missing := [column for column in benchmark.where if column not in values]:
                raise ConfigError(f"{file.name}:{number}: has no column {missing[0]!r}; see where of this benchmark")
            if any(values[column] != value for column, value in benchmark.where.items()):
                continue
            for text in _texts(values, columns, inside=False):
                found = True
                yield f"{file.name}:{number}", text
        if not found:
            wanted = ", ".join(benchmark.columns)
            chosen = " of the rows that where chooses" if benchmark.where else ""
            raise ConfigError(
                f"{file.name}: no text under any of {wanted}{chosen}; set columns of this benchmark to its keys"
            )


def _rows(file: InputFile) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.format == "parquet":
        with open_bytes(file) as stream, open_parquet(stream, file.name) as parquet:
            rows = range(parquet.metadata.num_rows)
            for row in read_parquet_rows(parquet, file.name, rows, "", _MAX_ITEM_BYTES, nested=True):
                yield row.number, row.values
        return
    for row in read_file_rows(file, "text", "line", _MAX_ITEM_BYTES):
        if row.problem:
            raise ConfigError(f"{file.name}:{row.number}: {row.problem} {row.detail}; a benchmark has to be read whole")
        yield row.number, row.values


def _texts(value: Any, columns: frozenset[str], inside: bool) -> Iterator[str]:
    """Texts under any of the columns, at any depth."""
    if isinstance(value, str):
        if inside:
            yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, columns, inside or key in columns)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child, columns, inside)
