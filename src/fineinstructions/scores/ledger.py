"""The ledger of scores: one line of JSON for every item and form, appended as they are made.

A scoring that was killed goes on behind the last whole line. The first line says what the scores are made of, so that
scores of another model or other items are never mixed in.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError, DataError

ANSWER, TEXT, WRITTEN = "answer", "text", "written"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """What came of one item."""

    kind: str
    """`answer`: loss of an answer after its question; `text`: loss of a text; `written`: an answer by the model."""
    set_name: str
    form: str
    """How the question was put; empty for texts."""
    item_id: str
    nats: float = 0.0
    """Loss, summed over the tokens."""
    num_tokens: int = 0
    """Tokens that were scored, or written."""
    num_bytes: int = 0
    """Of the scored text in UTF-8."""
    rouge_l: float = 0.0
    """Of a written answer against the given one."""
    seconds: float = 0.0
    """That a written answer took, its share of the batch's; measured, so no two runs are alike."""
    written: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What this is a score of."""
        return self.kind, self.set_name, self.form, self.item_id


class Ledger:
    """Scores of one model in one file.

    Args:
        path: The file; made where there is none.
        made_of: Gives the digest of the model and of everything that decides the scores, from the settings that a file
            was begun with; ``None`` for today's.
        settings: Today's.

    Raises:
        ConfigError: If the file holds scores of something else.
    """

    def __init__(
        self, path: Path, made_of: Callable[[Mapping[str, Any] | None], str], settings: Mapping[str, Any]
    ) -> None:
        self._path = path
        self.rows: dict[tuple[str, str, str, str], ScoreRow] = {}
        if path.exists():
            _cut_torn_line(path)
        if not path.exists() or not path.stat().st_size:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([{"made_of": made_of(None), "settings": settings}])
        head, rows = read_ledger(path)
        if head["made_of"] != made_of(head.get("settings")):
            raise ConfigError(f"{path}: holds scores of another model or of other items; delete it, or choose another")
        for row in rows:
            self.rows.setdefault(row.key, row)

    def missing(self, keys: Sequence[tuple[str, str, str, str]]) -> bool:
        """Whether any of these is not scored yet."""
        return any(key not in self.rows for key in keys)

    def add(self, rows: Iterable[ScoreRow]) -> None:
        """Keep scores; they are on the disk when this returns."""
        fresh = [row for row in rows if row.key not in self.rows]
        self._append([asdict(row) for row in fresh])
        self.rows |= {row.key: row for row in fresh}

    def _append(self, plain: list[dict[str, Any]]) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in plain)
            file.flush()
            os.fsync(file.fileno())


def read_ledger(path: Path) -> tuple[dict[str, Any], list[ScoreRow]]:
    """What the scores in a file are made of (``made_of``, ``settings``), and the scores.

    Raises:
        DataError: If the file is no such ledger.
    """
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(next(file))
            str(head["made_of"])
            return head, [ScoreRow(**json.loads(line)) for line in file]
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        line = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a ledger of scores ({line}); delete it and score again") from None


def _cut_torn_line(path: Path) -> None:
    """Take away what a killed writer has left behind the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
