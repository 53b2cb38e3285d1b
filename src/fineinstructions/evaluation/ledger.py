"""What is known of an evaluation so far: one file, a line for each answer and each judgement, written when it is known.

In: answers, judgements and log-probabilities of options. Out: the same after any interruption. A line that a kill has
torn is not there; what failed for an engine's trouble is asked again. A key that is there twice is damage, and said.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fineinstructions.errors import DataError
from fineinstructions.evaluation.items import Answer, Judgement
from fineinstructions.runs.durable import write_text

ANSWER, JUDGE, OPTIONS = "answer", "judge", "options"


class Ledger:
    """Answers and judgements of one benchmark.

    Args:
        path: The file; made with the first line.
        forget_judgements: Whether judgements that are there count no more.

    Raises:
        DataError: If a line is damaged in the middle of the file, or something is there twice.
    """

    def __init__(self, path: Path, *, forget_judgements: bool = False) -> None:
        self._path = path
        self.answers: dict[str, Answer] = {}
        self.judgements: dict[str, dict[str, Judgement]] = {}
        self.options: dict[str, dict[str, Any]] = {}
        self.num_failed = 0
        """Questions that an engine failed on since the file was opened."""
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = [line for number, line in enumerate(lines, 1) if self._take(line, number, len(lines), forget_judgements)]
        if len(kept) < len(lines):
            write_text(path, b"".join(kept).decode())
        self._file: IO[bytes] | None = None

    def _take(self, line: bytes, number: int, last: int, forget_judgements: bool) -> bool:
        """Note a line; whether it is to stay in the file."""
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
            if entry is None:
                return False
            if entry.get("failed") or (forget_judgements and entry["step"] == JUDGE):
                return False
            self._note(entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == last:
                return False
            raise DataError(f"{self._path}: line {number} is damaged; remove that line and run again") from None
        return True

    def _note(self, entry: Mapping[str, Any]) -> None:
        step, item, name = entry["step"], entry["item"], entry["item"]
        place: dict[str, Any] = self.answers
        value: Answer | Judgement | dict[str, Any]
        if step == ANSWER:
            value = Answer(entry["text"], entry["reason"], entry["is_cut"])
        elif step == JUDGE:
            place, name = self.judgements.setdefault(item, {}), entry["question"]
            value = Judgement(entry["reading"], entry["raw"], entry["reason"])
        else:
            place, value = self.options, entry["facts"]
        if name in place:
            raise DataError(f"{self._path}: {step} {item} is there twice; remove one of the lines and run again")
        place[name] = value

    def add_answer(self, item_id: str, answer: Answer) -> None:
        """Keep an answer."""
        self._add({"step": ANSWER, "item": item_id, **asdict(answer)})

    def add_judgement(self, item_id: str, question: str, judgement: Judgement) -> None:
        """Keep a judgement."""
        kept = {"reading": judgement.reading, "raw": judgement.raw, "reason": judgement.reason}
        self._add({"step": JUDGE, "item": item_id, "question": question, **kept})

    def add_options(self, item_id: str, facts: Mapping[str, Any]) -> None:
        """Keep what the log-probabilities of an item's options say."""
        self._add({"step": OPTIONS, "item": item_id, "facts": dict(facts)})

    def add_failure(self, step: str, item_id: str, reason: str, message: str) -> None:
        """Keep that an engine failed; the next run asks again."""
        self.num_failed += 1
        self._write({"step": step, "item": item_id, "failed": True, "reason": reason, "message": message})

    def _add(self, entry: dict[str, Any]) -> None:
        self._note(entry)
        self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        rest = memoryview(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Force what was written onto the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
