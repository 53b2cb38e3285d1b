"""A language model fills in the audit's sheet: of each row, which of the four faults it has.

In: rows of the sheet and a `ChatModel`. Out: one verdict for each row, with the raw reply; a reply that cannot be read
leaves its row empty and is counted. The decision a reader would question: verdicts lie in a file of their own and never
among the labels of people, so that error rates are always those of somebody who can be named.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.backends.chat import ChatModel, ChatReply, ChatRequest
from fineinstructions.backends.completion import ChatError
from fineinstructions.backends.ordered import in_order
from fineinstructions.backends.prompt import Prompt, as_input, find_prompt, read_prompt
from fineinstructions.backends.replies import json_reply
from fineinstructions.errors import DataError
from fineinstructions.records import to_json
from fineinstructions.review.labels import AUDIT_DIR, FAULTS, Label, checked
from fineinstructions.review.sheet import Audited

PROMPT = Path(__file__).with_name("sheet.prompt.txt")
PLACES = ("input", "instruction", "answer", "document", "template", "query")
VERDICTS_FILE = "verdicts.jsonl"
UNPARSED = "unparsed"
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, **{fault: {"type": "boolean"} for fault in FAULTS}},
    "required": ["reason", *FAULTS],
    "additionalProperties": False,
}
_ENGINE_TROUBLE = ("transport", "request", "pending")


@dataclass(frozen=True, slots=True)
class SheetVerdict:
    """What a judge says of one row."""

    pair_id: str
    judge: str
    """Name of the model."""
    prompt: str
    """Digest of the prompt."""
    faults: tuple[str, ...] | None
    """Of `FAULTS`; ``None`` where nothing could be read."""
    reason: str
    """The judge's own words, or why there is no verdict: ``unparsed``, ``refusal``, ``length``, ``too_long``."""
    raw: str
    """The whole reply."""

    @property
    def label(self) -> Label | None:
        """The verdict as a label; ``None`` where there is none."""
        return None if self.faults is None else checked(self.pair_id, self.faults, self.reason)


def sheet_prompt(chosen: str | None) -> Prompt:
    """The judge's prompt: ours, or a file with places `{{input}}` (JSON), `{{instruction}}`, ...

    Raises:
        ConfigError: If it cannot be used.
    """
    return read_prompt(find_prompt(chosen, PROMPT), PLACES)


def judge_sheet(
    rows: Iterable[Audited], model: ChatModel, judge: str, prompt: Prompt
) -> Iterator[SheetVerdict | ChatError]:
    """Have a model look at rows of the sheet.

    Args:
        rows: Rows.
        model: The judge.
        judge: What it is called.
        prompt: What it is asked with.

    Yields:
        One verdict for each row, in order; the error where an engine failed, which says nothing about the row.

    Raises:
        BackendError: If the model as a whole gave up.
    """

    def ask(row: Audited) -> "Future[tuple[tuple[str, ...], str, str]]":
        behind = {"template": row.template, "query": row.query}
        values = {"instruction": row.instruction, "answer": row.answer, "document": row.document}
        known = {name: text for name, text in behind.items() if text}
        messages = prompt.fill({**values, **behind, "input": as_input(**values, **known)})
        return model.ask_whole(ChatRequest(messages, SCHEMA), _read)

    for row, future in in_order(rows, ask, model.llm.ahead):
        try:
            faults, reason, raw = future.result()
            yield SheetVerdict(row.pair_id, judge, prompt.digest, faults, reason, raw)
        except ChatError as error:
            if error.kind in _ENGINE_TROUBLE:
                yield error
            else:
                why = UNPARSED if error.kind == "format" else error.kind
                yield SheetVerdict(row.pair_id, judge, prompt.digest, None, why, error.raw)


def _read(reply: ChatReply) -> tuple[tuple[str, ...], str, str]:
    """Faults, reason and the whole reply.

    Raises:
        ValueError: If a fault is missing or neither true nor false.
    """
    found = json_reply(reply.text, FAULTS) or {}
    for fault in FAULTS:
        if not isinstance(found.get(fault), bool):
            raise ValueError(f"{fault} must be true or false")
    return tuple(fault for fault in FAULTS if found[fault]), str(found.get("reason") or ""), reply.text


def add_verdict(run_dir: Path, verdict: SheetVerdict) -> None:
    """Append a verdict to those of a run, on the disk when this returns."""
    with (run_dir / AUDIT_DIR / VERDICTS_FILE).open("a", encoding="utf-8", errors="replace") as file:
        file.write(to_json(verdict) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_verdicts(run_dir: Path) -> dict[str, dict[str, SheetVerdict]]:
    """The last verdict of every pair, by judge, judges in the order in which they came; a torn line is passed over.

    Raises:
        DataError: If a whole line is no verdict.
    """
    path = run_dir / AUDIT_DIR / VERDICTS_FILE
    found: dict[str, dict[str, SheetVerdict]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            faults = None if row["faults"] is None else checked(row["pair_id"], row["faults"]).faults
            verdict = SheetVerdict(**{**row, "faults": faults})
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}, line {number}: no verdict; take the line out") from None
        found.setdefault(verdict.judge, {})[verdict.pair_id] = verdict
    return found


def labels_of(verdicts: Mapping[str, SheetVerdict]) -> dict[str, Label]:
    """Verdicts of one judge as labels; those that could not be read are not in it."""
    return {pair_id: label for pair_id, verdict in verdicts.items() if (label := verdict.label)}


def num_unparsed(verdicts: Mapping[str, SheetVerdict], rows: Sequence[Audited]) -> int:
    """Rows that the judge was asked about and whose reply could not be read."""
    return sum(row.pair_id in verdicts and verdicts[row.pair_id].faults is None for row in rows)
