"""Settings for torchtitan: where an exported arm lies, and how many steps use each of its tokens once.

In: the files of an arm. Out: a TOML file with the settings that belong to the data. The decision a reader would
question: the data set is called ``c4_test``, because that is the registered one that reads any folder with a column of
text; torchtitan has no other way to be given a folder without a change of its code. Each rank gets one stretch of rows,
as many as the others within one, so the tokens of every rank are known beforehand.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.runs.tables import read_groups

SEQ_LEN = 4096
LOCAL_BATCH_SIZE = 4


def steps_of(rank_tokens: Sequence[int]) -> int:
    """Most steps in which no rank reads a token twice.

    Example:
        >>> steps_of([32_776_000, 32_775_999])
        1999
    """
    return min(rank_tokens) // ((SEQ_LEN + 1) * LOCAL_BATCH_SIZE)


def tokens_by_rank(row_tokens: Iterable[NDArray[np.int64]], num_rows: int, ranks: int) -> list[int]:
    """Tokens of the stretch of rows that every rank reads.

    Args:
        row_tokens: Tokens of all rows, in the order of the files, in pieces.
        num_rows: How many rows there are.
        ranks: Data-parallel ranks.

    Source:
        `datasets.distributed.split_dataset_by_node`, which torchtitan calls: stretches of equal length, the first ones
        a row longer where rows do not divide.

    Example:
        >>> tokens_by_rank([np.array([5, 1]), np.array([7])], 3, 2)
        [6, 7]
    """
    size, longer = divmod(num_rows, ranks)
    ends = np.cumsum([size + (rank < longer) for rank in range(ranks)])
    sums = np.zeros(ranks, np.int64)
    start = 0
    for piece in row_tokens:
        places = np.arange(start, start + len(piece))
        np.add.at(sums, np.searchsorted(ends, places, side="right"), piece)
        start += len(piece)
    return [int(number) for number in sums]


def settings(arm: str, target: Path, rank_tokens: Sequence[int]) -> str:
    """Settings for one arm.

    Args:
        arm: The arm.
        target: Where the export lies.
        rank_tokens: Tokens that each data-parallel rank reads.

    Source:
        Keys of torchtitan 0.2.2; `docs/corpora.md` says what later versions are told instead.
    """
    folder = _quoted(str((target / arm).absolute()))
    return (
        f"# {arm}: {sum(rank_tokens):,} tokens, read once by {len(rank_tokens)} data-parallel ranks,"
        f" {min(rank_tokens):,} by the one with the fewest.\n"
        "[training]\n"
        'dataset = "c4_test"  # reads the folder below, whatever its name says\n'
        f"dataset_path = {folder}\n"
        f"seq_len = {SEQ_LEN}\n"
        f"local_batch_size = {LOCAL_BATCH_SIZE}\n"
        f"steps = {steps_of(rank_tokens)}\n"
    )


def _quoted(text: str) -> str:
    """A text as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=True)


def write_settings(out: Path, target: Path, arms: dict[str, dict[str, Any]], ranks: int) -> None:
    """Write a file for every arm.

    Args:
        out: Folder that is written; holds the files of the arms.
        target: Where it will lie.
        arms: Figures by arm.
        ranks: Data-parallel ranks.
    """
    for arm, figures in arms.items():
        pieces = (
            table.column("num_tokens").to_numpy()
            for name in figures["files"]
            for table in read_groups(out / name, ["num_tokens"])
        )
        told = settings(arm, target, tokens_by_rank(pieces, figures["rows"], ranks))
        (out / f"torchtitan.{arm}.toml").write_text(told, encoding="utf-8")
