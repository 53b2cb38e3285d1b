"""Which rows every arm of an export takes, and a rejection for every row that it does not.

In: the sources of an export with their tokens. Out: the shares of every arm. Rows that are made of several, or of the
beginning of one, are written to the work folder once, with their tokens.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.backends.tokenizer import Tokenizer
from fineinstructions.corpus.arms import Share, Source, open_array, share_out
from fineinstructions.corpus.cut import in_range, key_ranges, live_tokens
from fineinstructions.corpus.export import DOCUMENTS, PAIRS, WITH_PAIRS, ExportConfig
from fineinstructions.corpus.join import joined_rows, shortened_rows
from fineinstructions.corpus.write import TrainingRow
from fineinstructions.corpus_rows import UNTOKENIZED
from fineinstructions.records import Rejection, rejection
from fineinstructions.runs import StageAccount, TableWriter
from fineinstructions.runs.tables import read_groups

CUT = "cut"


def share_arms(
    config: ExportConfig,
    sources: dict[str, Source],
    wanted: NDArray[np.int64],
    tokenizer: Tokenizer,
    arrays: Path,
) -> dict[str, list[Share]]:
    """What each arm takes of each source.

    Args:
        config: Settings of the export.
        sources: Sources by name; of documents with their pairs, one is added where an arm has such rows.
        wanted: Tokens of the pairs that were chosen, by document; of interest where arms have the same documents.
        tokenizer: Counts rows that are made here.
        arrays: Where marks and rows are kept meanwhile.
    """
    if config.has_same_documents:
        return SameDocuments(config, sources, wanted, tokenizer, arrays).shares()
    if WITH_PAIRS in config.sources:
        documents = sources[DOCUMENTS]
        tokens = open_array(arrays / f"tokens-{WITH_PAIRS}", np.int64, len(documents.tokens))
        joined = joined_rows(documents.tables(), sources[PAIRS].live_tables(), tokenizer)
        tables = _written(arrays / f"{WITH_PAIRS}.parquet", joined, tokens)
        sources[WITH_PAIRS] = dataclasses.replace(documents, name=WITH_PAIRS, tables=tables, tokens=tokens)
    return share_out(sources, config.mixtures, config.equal_tokens, arrays)


class SameDocuments:
    """Arms of the same documents, with as many tokens of each as its pairs have.

    An arm of several sources divides the documents among them.

    Args:
        config: Settings of the export.
        sources: Documents and pairs; the keys of both are those of the documents.
        wanted: Tokens of the pairs that were chosen, by document.
        tokenizer: Counts rows that are made here.
        arrays: Where marks and rows are kept meanwhile.
    """

    def __init__(
        self,
        config: ExportConfig,
        sources: Mapping[str, Source],
        wanted: NDArray[np.int64],
        tokenizer: Tokenizer,
        arrays: Path,
    ) -> None:
        self._config, self._wanted, self._tokenizer, self._arrays = config, wanted, tokenizer, arrays
        self._documents, self._pairs = sources[DOCUMENTS], sources[PAIRS]

    def shares(self) -> dict[str, list[Share]]:
        """What each arm takes."""
        documents = self._documents
        arms: dict[str, list[Share]] = {}
        for arm, mixture in self._config.mixtures.items():
            ranges = key_ranges(self._wanted, documents.keys, documents.live, mixture)
            arms[arm] = [
                self._pairs_of(arm, keys) if name == PAIRS else self._beginnings_of(arm, name, keys)
                for name, keys in ranges.items()
            ]
        return arms

    def _pairs_of(self, arm: str, keys: range) -> Share:
        kept = self._kept(arm, self._pairs, keys)
        return Share(self._pairs, kept, live_tokens(self._pairs.tokens, kept))

    def _beginnings_of(self, arm: str, name: str, keys: range) -> Share:
        documents = self._documents
        tokens = open_array(self._arrays / f"tokens-{arm}-{name}", np.int64, len(documents.tokens))
        source = dataclasses.replace(documents, name=name, tokens=tokens)
        kept = self._kept(arm, source, keys)
        pairs = self._pairs.live_tables() if name == WITH_PAIRS else ()
        counts = {"shortened_rows": 0, "rows_with_pairs": 0}

        def rows() -> Iterator[TrainingRow]:
            found = shortened_rows(
                documents.tables(), pairs, self._wanted, documents.tokens, kept, self._tokenizer, self._config.seed
            )
            for place, shortened in enumerate(found):
                counts["shortened_rows"] += bool(kept[place]) and shortened.is_shortened
                counts["rows_with_pairs"] += shortened.num_pairs > 0
                yield shortened.row

        tables = _written(self._arrays / f"{arm}-{name}.parquet", rows(), tokens)
        return Share(dataclasses.replace(source, tables=tables), kept, live_tokens(tokens, kept), counts)

    def _kept(self, arm: str, source: Source, keys: range) -> NDArray[np.bool_]:
        kept = open_array(self._arrays / f"kept-{arm}-{source.name}", np.bool_, len(source.keys))
        kept[:] = source.live & in_range(source.keys, keys)
        return kept


def _written(path: Path, rows: Iterable[TrainingRow], tokens: NDArray[np.int64]) -> Callable[[], Iterator[pa.Table]]:
    """Write rows down once; gives them back as tables without tokens, which go into the array."""
    writer = TableWriter(path, TrainingRow)
    for place, row in enumerate(rows):
        tokens[place] = row.num_tokens
        writer.add(row)
    writer.close()

    def tables() -> Iterator[pa.Table]:
        return (table.select(UNTOKENIZED.names).cast(UNTOKENIZED) for table in read_groups(path))

    return tables


def cut_arms(
    arms: Mapping[str, Sequence[Share]], account: StageAccount, has_same_documents: bool
) -> Iterator[Rejection]:
    """A rejection for every row that an arm does not take.

    Args:
        arms: What each arm takes.
        account: Told what was offered and taken.
        has_same_documents: Whether arms are made of the same documents.

    Yields:
        Rejections with the tokens of the row. Reasons: ``no_pairs``: the document has none; ``equal_tokens``: another
        arm has fewer; ``other_source``: the arm has other rows of that document.
    """
    reason = "other_source" if has_same_documents else "equal_tokens"
    for arm, shares in arms.items():
        for share in shares:
            account.num_in += int(share.source.offered.sum())
            account.num_out += int(share.kept.sum())
            for rejected in _left_out(arm, share, reason):
                account.rejected[rejected.reason] = account.rejected.get(rejected.reason, 0) + 1
                yield rejected


def _left_out(arm: str, share: Share, reason: str) -> Iterator[Rejection]:
    places = share.left_out()
    place = next(places, None)
    row = 0
    for table in share.source.tables() if place is not None else ():
        while place is not None and place < row + table.num_rows:
            name = table.column("id")[place - row].as_py()
            why = reason if share.source.live[place] else "no_pairs"
            kept = {"arm": arm, "source": share.source.name}
            yield rejection(CUT, why, name, kept, float(share.source.tokens[place]))
            place = next(places, None)
        row += table.num_rows
