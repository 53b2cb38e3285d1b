"""``metrics.jsonl`` and checkpoints of a training that may be killed at any moment.

In: figures and folders as the trainer makes them. Out: lines of which none comes twice, and the newest checkpoint that
is whole. The decision a reader would question: a checkpoint counts once its list of files is there, which is written
after everything in it lies on the disk. transformers itself would go on from half a checkpoint.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.runs import Manifest
from fineinstructions.runs.durable import sync_tree, write_text
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest
from fineinstructions.runs.ledger import list_files

METRICS_FILE = "metrics.jsonl"
PREFIX = "checkpoint-"
"""What transformers calls its folders."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics file; what a kill left of a last line is passed over."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def forget_after(path: Path, step: int) -> None:
    """Take lines out of a metrics file that steps after a checkpoint wrote: they are made again."""
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    write_text(path, "".join(f"{json.dumps(line)}\n" for line in kept))


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Add a line, which other programs can read from here on."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(line)}\n")


def mark_complete(folder: Path, digest: str) -> None:
    """Say of a checkpoint that all of it is on the disk."""
    sync_tree(folder)
    Manifest("checkpoint", folder.name, digest, "", {}, {"step": step_of(folder)}, list_files(folder, {})).save(folder)


def step_of(folder: Path) -> int:
    """Step after which a checkpoint was taken."""
    return int(folder.name.removeprefix(PREFIX))


def newest_checkpoint(folder: Path, digest: str) -> Path | None:
    """The newest whole checkpoint; what a kill left of others is removed.

    Args:
        folder: Where checkpoints lie.
        digest: Of the training that they must belong to.

    Raises:
        ConfigError: If one belongs to another training.
        DataError: If one is damaged.
    """
    found = None
    for path in sorted(folder.glob(f"{PREFIX}*"), key=step_of) if folder.is_dir() else ():
        try:
            manifest = read_manifest(FolderFiles(path))
        except DataError:
            manifest = None
        if manifest is None:
            shutil.rmtree(path, ignore_errors=True)
            continue
        if manifest.digest != digest:
            raise ConfigError(f"{path}: of a training on another corpus or recipe; choose another --out")
        problems = file_problems(FolderFiles(path), manifest.files)
        if problems:
            raise DataError(f"{path}: {problems[0]}; delete it to go on from the checkpoint before it")
        found = path
    return found


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for path in sorted(folder.glob(f"{PREFIX}*"), key=step_of)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def num_devices() -> int:
    """Devices that share the work, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes what all of them need only once."""
    return os.environ.get("RANK", "0") == "0"
