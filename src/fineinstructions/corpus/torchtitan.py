"""Settings for torchtitan: where an exported arm lies, and how many steps use each of its tokens once.

In: the figures of an arm. Out: a TOML file with the settings that belong to the data. The decision a reader would
question: the data set is called ``c4_test``, because that is the registered one that reads any folder with a column of
text; torchtitan has no other way to be given a folder without a change of its code.
"""

import json
from pathlib import Path
from typing import Any

SEQ_LEN = 4096
LOCAL_BATCH_SIZE = 4


def steps_of(tokens: int, ranks: int) -> int:
    """Most steps that read no token twice; rows are dealt out evenly, so a rank may have a little less than its part.

    Example:
        >>> steps_of(23_068_672_000, 8)
        174197
    """
    return int(tokens / ranks * 0.99) // ((SEQ_LEN + 1) * LOCAL_BATCH_SIZE)


def settings(arm: str, target: Path, tokens: int, ranks: int) -> str:
    """Settings for one arm.

    Args:
        arm: The arm.
        target: Where the export lies.
        tokens: Tokens of the arm.
        ranks: Data-parallel ranks.

    Source:
        Keys of torchtitan 0.2.2; `docs/corpora.md` says what later versions are told instead.
    """
    folder = _quoted(str((target / arm).absolute()))
    return (
        f"# {arm}: {tokens:,} tokens, read once by {ranks} data-parallel ranks in the order of the files.\n"
        "[training]\n"
        'dataset = "c4_test"  # reads the folder below, whatever its name says\n'
        f"dataset_path = {folder}\n"
        f"seq_len = {SEQ_LEN}\n"
        f"local_batch_size = {LOCAL_BATCH_SIZE}\n"
        f"steps = {steps_of(tokens, ranks)}\n"
    )


def _quoted(text: str) -> str:
    """A text as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=True)


def write_settings(out: Path, target: Path, arms: dict[str, dict[str, Any]], ranks: int) -> None:
    """Write a file for every arm.

    Args:
        out: Folder that is written.
        target: Where it will lie.
        arms: Figures by arm.
        ranks: Data-parallel ranks.
    """
    for arm, figures in arms.items():
        (out / f"torchtitan.{arm}.toml").write_text(settings(arm, target, figures["tokens"], ranks), encoding="utf-8")
