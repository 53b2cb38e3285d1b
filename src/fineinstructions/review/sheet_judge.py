"""A language model fills in the audit's sheets: of each row, which of the faults it has.

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
from fineinstructions.review.labels import (
    AUDIT_DIR,
    MAX_NOTE_CHARS,
    PAIRS,
    TEMPLATES,
    Audited,
    Label,
    checked,
    named_today,
)
from fineinstructions.review.sheet import SheetRow

PROMPTS = {PAIRS.name: "sheet.prompt.txt", TEMPLATES.name: "templates.prompt.txt"}
UNPARSED = "unparsed"
_MAY_BE_MISSING = ("template", "query")
"""Texts that are not always known; those of a template are."""
_ENGINE_TROUBLE = ("transport", "request", "pending")


@dataclass(frozen=True, slots=True)
class SheetVerdict:
    """What a judge says of one row."""

    record_id: str
    judge: str
    """Name of the model."""
    prompt: str
    """Digest of the prompt."""
    faults: tuple[str, ...] | None
    """Of `Audited.faults`; ``None`` where nothing could be read."""
    reason: str
    """The judge's own words, or why there is no verdict: ``unparsed``, ``refusal``, ``length``, ``too_long``."""
    raw: str
    """The whole reply."""


def sheet_prompt(chosen: str | None, of: Audited = PAIRS) -> Prompt:
    """The judge's prompt: ours, or a file with places `{{input}}` (JSON), `{{instruction}}`, ...

    Raises:
        ConfigError: If it cannot be used.
    """
    ours = Path(__file__).with_name(PROMPTS[of.name])
    return read_prompt(find_prompt(chosen, ours), ("input", *of.texts))


def schema(of: Audited) -> Mapping[str, Any]:
    """What a reply looks like: the reason, then true or false for each fault."""
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, **{fault: {"type": "boolean"} for fault in of.faults}},
        "required": ["reason", *of.faults],
        "additionalProperties": False,
    }


def judge_sheet(
    rows: Iterable[SheetRow], model: ChatModel, judge: str, prompt: Prompt, of: Audited = PAIRS
) -> Iterator[SheetVerdict | ChatError]:
    """Have a model look at rows of a sheet.

    Args:
        rows: Rows.
        model: The judge.
        judge: What it is called.
        prompt: What it is asked with.
        of: What the rows are.

    Yields:
        One verdict for each row, in order; the error where an engine failed, which says nothing about the row.

    Raises:
        BackendError: If the model as a whole gave up.
    """

    def read(reply: ChatReply) -> tuple[tuple[str, ...], str, str]:
        return _read(reply, of)

    def ask(row: SheetRow) -> "Future[tuple[tuple[str, ...], str, str]]":
        values = dict(zip(of.texts, row.texts, strict=True))
        known = {name: text for name, text in values.items() if text or name not in _MAY_BE_MISSING}
        return model.ask_whole(ChatRequest(prompt.fill({**values, "input": as_input(**known)}), schema(of)), read)

    for row, future in in_order(rows, ask, model.llm.ahead):
        try:
            faults, reason, raw = future.result()
            yield SheetVerdict(row.record_id, judge, prompt.digest, faults, reason, raw)
        except ChatError as error:
            if error.kind in _ENGINE_TROUBLE:
                yield error
            else:
                why = UNPARSED if error.kind == "format" else error.kind
                yield SheetVerdict(row.record_id, judge, prompt.digest, None, why, error.raw)


def _read(reply: ChatReply, of: Audited) -> tuple[tuple[str, ...], str, str]:
    """Faults, reason and the whole reply.

    Raises:
        ValueError: If a fault is missing or neither true nor false.
    """
    found = json_reply(reply.text, of.faults) or {}
    for fault in of.faults:
        if not isinstance(found.get(fault), bool):
            raise ValueError(f"{fault} must be true or false")
    return tuple(fault for fault in of.faults if found[fault]), str(found.get("reason") or ""), reply.text


def add_verdict(run_dir: Path, verdict: SheetVerdict, of: Audited = PAIRS) -> None:
    """Append a verdict to those of a run, on the disk when this returns."""
    with (run_dir / AUDIT_DIR / of.verdicts_file).open("a", encoding="utf-8", errors="replace") as file:
        file.write(to_json(verdict) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_verdicts(run_dir: Path, of: Audited = PAIRS) -> dict[str, dict[str, SheetVerdict]]:
    """The last verdict of every row, by judge, judges in the order in which they came; a torn line is passed over.

    Raises:
        DataError: If a whole line is no verdict.
    """
    path = run_dir / AUDIT_DIR / of.verdicts_file
    found: dict[str, dict[str, SheetVerdict]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        try:
            row = named_today(row)
            faults = None if row["faults"] is None else checked(row["record_id"], row["faults"], of=of).faults
            verdict = SheetVerdict(**{**row, "faults": faults})
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}, line {number}: no verdict; take the line out") from None
        found.setdefault(verdict.judge, {})[verdict.record_id] = verdict
    return found


def labels_of(verdicts: Mapping[str, SheetVerdict]) -> dict[str, Label]:
    """Verdicts of one judge as labels; those that could not be read are not in it."""
    return {
        record_id: Label(record_id, verdict.faults, verdict.reason[:MAX_NOTE_CHARS])
        for record_id, verdict in verdicts.items()
        if verdict.faults is not None
    }


def num_unparsed(verdicts: Mapping[str, SheetVerdict], rows: Sequence[SheetRow]) -> int:
    """Rows that the judge was asked about and whose reply could not be read."""
    return sum(row.record_id in verdicts and verdicts[row.record_id].faults is None for row in rows)
