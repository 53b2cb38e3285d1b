"""Which input files a run was made of, so that a refusal can name the one that is another now.

In: the recipe of a run. Out: a line such as ``documents.path: a.jsonl (1,203 -> 1,310 bytes)``. What is stale is
decided elsewhere, by content; this only finds the words.

The decision a reader would question: files are told apart by size and time here, because reading all of them again only
for a message would cost more than it says.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fineinstructions.config import digest
from fineinstructions.errors import ConfigError, StaleError
from fineinstructions.inputs import InputFile, list_inputs
from fineinstructions.recipe import RunConfig
from fineinstructions.runs.durable import write_text
from fineinstructions.templates.bank import bank_files

FILE = "plan/inputs.json"
MAX_FILES_NAMED_ALONE = 1000
"""Of more files than this, only their number and sum are kept."""
MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class InputMark:
    """What a run knew of one input file, or of a setting that decides how inputs are cut."""

    key: str
    """Key of the recipe."""
    path: str
    """The file; empty for a setting."""
    num_bytes: int | None
    version: str
    """What changes when the file or the setting changes."""


class InputChanges:
    """The inputs of a run, as they were when it was planned and as they are now.

    Args:
        config: The recipe.
        root: The run folder.
    """

    def __init__(self, config: RunConfig, root: Path) -> None:
        self._config, self._file = config, root / FILE

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Add what changed to a refusal.

        Raises:
            StaleError: The one that is raised inside, with the inputs that changed.
        """
        try:
            yield
        except StaleError as error:
            found = self._found()
            raise StaleError(f"{error}; what changed: {', '.join(found)}" if found else str(error)) from None

    def note(self, phase: str) -> None:
        """Keep what the inputs of a phase are now."""
        if phase not in PHASES:
            return
        kept = self._kept()
        now = [asdict(mark) for mark in _marks(self._config, phase)]
        if kept.get(phase) != now:
            write_text(self._file, json.dumps({**kept, phase: now}, indent=1) + "\n")

    def _kept(self) -> dict[str, list[dict[str, Any]]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _found(self) -> list[str]:
        """Inputs that changed, in words."""
        lines: list[str] = []
        for phase, plain in self._kept().items():
            with contextlib.suppress(ConfigError, TypeError):  # of an input that is gone, another line tells
                before = [InputMark(**mark) for mark in plain]
                lines += differences(before, _marks(self._config, phase))
        more = [f"{len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
        return lines[:MAX_SHOWN] + more


def differences(before: Sequence[InputMark], now: Sequence[InputMark]) -> list[str]:
    """What is other now, in words.

    Example:
        >>> before, now = (InputMark("documents.path", "a.csv", size, str(size)) for size in (5, 9))
        >>> differences([before], [now, InputMark("documents.path", "b.csv", 1, "")])
        ['documents.path: a.csv (5 -> 9 bytes)', 'documents.path: b.csv (new)']
        >>> differences([InputMark("engine.unit_rows", "", None, "8")], [InputMark("engine.unit_rows", "", None, "9")])
        ['engine.unit_rows: 8 -> 9']
    """
    new = {(mark.key, mark.path): mark for mark in now}
    old = {(mark.key, mark.path): mark for mark in before}
    changed = [_difference(mark, new.get(name)) for name, mark in old.items() if mark != new.get(name)]
    return changed + [f"{mark.key}: {mark.path} (new)" for name, mark in new.items() if name not in old]


def _difference(before: InputMark, now: InputMark | None) -> str:
    if not before.path:
        return f"{before.key}: {before.version} -> {now.version if now else None}"
    if now is None:
        return f"{before.key}: {before.path} (not read any more)"
    if before.num_bytes is not None and now.num_bytes is not None and before.num_bytes != now.num_bytes:
        return f"{before.key}: {before.path} ({before.num_bytes:,} -> {now.num_bytes:,} bytes)"
    return f"{before.key}: {before.path} (written anew, of the same size)"


def _marks(config: RunConfig, phase: str) -> list[InputMark]:
    return [mark for key, files in PHASES[phase](config).items() for mark in _marks_of(key, files)]


def _marks_of(key: str, files: Sequence[InputFile] | str) -> list[InputMark]:
    if isinstance(files, str):
        return [InputMark(key, "", None, files)]
    marks = [_mark(key, file) for file in files]
    if len(marks) <= MAX_FILES_NAMED_ALONE:
        return marks
    total = sum(mark.num_bytes or 0 for mark in marks)
    return [InputMark(key, f"{len(marks):,} files", total, digest([[mark.path, mark.version] for mark in marks]))]


def _mark(key: str, file: InputFile) -> InputMark:
    if not file.is_local:
        return InputMark(key, file.name, None, "")  # asking a store for every file is not worth a message
    stat = Path(file.path).stat()
    return InputMark(key, file.name, stat.st_size, str(stat.st_mtime_ns))


def _queries(config: RunConfig) -> Mapping[str, Sequence[InputFile]]:
    if config.queries is None:
        return {}
    benchmarks = [file for b in config.queries.benchmarks for file in list_inputs(b.path, "queries.benchmarks")]
    return {"queries.path": list_inputs(config.queries.path, "queries"), "queries.benchmarks": benchmarks}


def _bank(config: RunConfig) -> Mapping[str, Sequence[InputFile]]:
    if not config.templates.bank or config.templates.index:
        return {}
    return {"templates.bank": bank_files(config.templates.location)}


def _documents(config: RunConfig) -> Mapping[str, Sequence[InputFile] | str]:
    if config.documents is None:
        return {}
    cut = {f"engine.{name}": str(getattr(config.engine, name)) for name in ("unit_rows", "unit_bytes")}
    files = list_inputs(config.documents.path, "documents")
    return {"documents.path": files, "documents.limit": str(config.documents.limit), **cut}


PHASES: Mapping[str, Callable[[RunConfig], Mapping[str, Sequence[InputFile] | str]]] = {
    "queries": _queries,
    "templates": _bank,
    "candidates": _documents,
}
"""The inputs of the phases that read any, by key of the recipe."""
