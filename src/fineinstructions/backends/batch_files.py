"""Batch files: requests written down, answered elsewhere, read in again; for OpenAI's batch service and the like.

In: request bodies. Out: completions of those that were answered, `ChatError` of kind ``pending`` for the rest, whose
requests are written down. A run works in rounds. `start_round` reads every result file; the stages ask, and what has no
answer is noted; `finish_round` writes the request files. What needs a repair, or a judge, waits for a later round.

    batches/requests/*.jsonl   to submit; made anew in every round, the same bytes for the same requests
    batches/results/*.jsonl    where results are put: output and error files, any names, any order

The decision to question: a request is known by the SHA-256 of its body alone, which is its ``custom_id``. So an answer
is never tied to a wrong request, whoever gave it and when; and a request that stood in an earlier round without getting
an answer stands in the next one again: run again once all results are there.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.capabilities import ModelFacts
from fineinstructions.backends.completion import ChatError, Completion, error_message, kind_of_status, safe_line
from fineinstructions.backends.llm_config import LlmConfig, Structured
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.runs.durable import write_text

CHAT_URL = "/v1/chat/completions"
MAX_FILE_REQUESTS = 50_000
MAX_FILE_BYTES = 200_000_000
"""Limits of one file of OpenAI's batch service."""
_KEY = re.compile(r"[0-9a-f]{64}")
_REQUESTS, _RESULTS, _NOTED, _ANSWERS = "requests", "results", "noted", "answers"
_WAITING = "waiting.json"


@dataclass
class Read:
    """What result files held."""

    num_files: int = 0
    num_answers: int = 0
    """Requests that got their answer."""
    num_failed: int = 0
    """Requests that got none but a failure."""
    num_foreign: int = 0
    """Lines that no request of this package can have: torn, damaged, or with another kind of id."""


@dataclass(frozen=True)
class Written:
    """Request files of a round."""

    num_requests: int
    files: tuple[Path, ...]


class BatchFiles:
    """Answers from result files; notes what has none.

    Args:
        batches_dir: Folder of the files.
    """

    fixed: tuple[Structured, bool] | None = ("none", False)

    def __init__(self, batches_dir: Path) -> None:
        self._answers, self._noted = ResponseCache(batches_dir / _ANSWERS), ResponseCache(batches_dir / _NOTED)
        self._calls = 0

    async def complete(self, body: Mapping[str, Any], llm: LlmConfig, key: str) -> Completion:
        """The completion in a result file.

        Raises:
            ChatError: If the request failed, or is ``pending``.
        """
        found = self._answers.get(key)
        if found and "completion" in found:
            return Completion.from_plain(found["completion"])
        if found and found["kind"] != "transport":
            raise ChatError(found["kind"], found["message"], raw=found["message"] if found["kind"] == "refusal" else "")
        if found and found["times"] > llm.max_retries:
            raise ChatError("transport", f"{found['message']} ({found['times']} rounds)")
        self._noted.put(key, dict(body))
        self._calls += 1
        raise ChatError("pending", "written into a batch file; its answer is not there yet")

    async def facts(self, llm: LlmConfig) -> ModelFacts:
        """Nothing is known of a model that cannot be asked now."""
        del llm
        return ModelFacts()

    def stop(self, error: BackendError) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Close what is being written."""
        self._noted.close()
        self._answers.close()

    def figures(self) -> dict[str, int]:
        """Requests noted so far."""
        return {"calls": self._calls, "retries": 0, "peak_in_flight": 0}


def start_round(batches_dir: Path, replies: ResponseCache, *, forget_failures: bool = False) -> Read:
    """Read all result files, and forget what was noted before.

    Args:
        batches_dir: Folder of the files.
        replies: The run's response cache; what it holds is not read again.
        forget_failures: Whether requests that failed are asked again, whatever they failed of.

    Returns:
        What was read.

    Raises:
        ConfigError: If a result file cannot be read.
    """
    for name in (_NOTED, _ANSWERS):
        shutil.rmtree(batches_dir / name, ignore_errors=True)
    (batches_dir / _RESULTS).mkdir(parents=True, exist_ok=True)
    read, failures, times = Read(), dict[str, dict[str, Any]](), Counter[str]()
    with ResponseCache(batches_dir / _ANSWERS) as answers:
        for path in sorted((batches_dir / _RESULTS).glob("*.jsonl")):
            read.num_files += 1
            failed_here: set[str] = set()
            for key, outcome in _outcomes(path, read):
                if answers.get(key) is not None or replies.get(key) is not None:
                    continue
                if isinstance(outcome, Completion):
                    answers.put(key, {"completion": outcome.to_plain()})
                    read.num_answers += 1
                else:
                    failures[key] = outcome
                    failed_here.add(key)
            times.update(failed_here)
        for key, failure in failures.items():
            if answers.get(key) is None:
                read.num_failed += 1
                if not forget_failures:
                    answers.put(key, failure | {"times": times[key]})
    return read


def _outcomes(path: Path, read: Read) -> Iterator[tuple[str, Completion | dict[str, Any]]]:
    """Request ids of one result file with a completion, or with the kind and message of a failure."""
    try:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    key = row["custom_id"]
                    if not _KEY.fullmatch(key):
                        raise ValueError(key)
                except (ValueError, KeyError, TypeError, RecursionError):
                    read.num_foreign += bool(line.strip())
                    continue
                yield key, _outcome(row)
    except OSError as error:
        raise ConfigError(f"{path}: the results cannot be read: {error.strerror or error}; mend or remove it") from None


def _outcome(row: Mapping[str, Any]) -> Completion | dict[str, Any]:
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and not row.get("error"):
        try:
            return Completion.from_body(body)
        except ValueError as error:
            return {"kind": "transport", "message": safe_line(str(error))}
    text = json.dumps({"error": row["error"]} if row.get("error") else body)
    status = status if isinstance(status, int) and status >= 400 else 500  # without one it expired or was cancelled
    kind = kind_of_status(status, text)
    message = f"HTTP {status}: {safe_line(error_message(text))}"
    return {"kind": kind if kind in ("refusal", "too_long", "request") else "transport", "message": message}


def finish_round(batches_dir: Path) -> Written:
    """Write what was noted into request files, one model per file, sorted by id; those of earlier rounds are removed.

    Returns:
        The files.

    Raises:
        BackendError: If they cannot be written.
    """
    noted = ResponseCache(batches_dir / _NOTED)
    folder = batches_dir / _REQUESTS
    number, files = 0, list[Path]()
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        by_model: dict[str, list[str]] = {}
        for key in noted.keys():  # noqa: SIM118 -- no mapping
            by_model.setdefault(str((noted.get(key) or {}).get("model")), []).append(key)
        for place, (model, keys) in enumerate(sorted(by_model.items()), start=1):
            name = f"{place:02d}-{re.sub(r'[^A-Za-z0-9.-]+', '-', model)[:60]}"
            for lines in _files(noted, keys):
                files.append(folder / f"{name}-{sum(f.name.startswith(name) for f in files) + 1:04d}.jsonl")
                files[-1].write_bytes(b"".join(lines))
                number += len(lines)
        write_text(batches_dir / _WAITING, json.dumps({"num_requests": number, "num_files": len(files)}) + "\n")
    except OSError as error:
        raise BackendError(f"{folder}: cannot be written: {error}", hint="free space, then rerun") from None
    return Written(number, tuple(files))


def waiting_requests(batches_dir: Path) -> tuple[int, int]:
    """Requests of the last round that wait for their answers, and their files; zeros where there was none."""
    try:
        told = json.loads((batches_dir / _WAITING).read_text(encoding="utf-8"))
        return int(told["num_requests"]), int(told["num_files"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _files(noted: ResponseCache, keys: list[str]) -> Iterator[list[bytes]]:
    """Lines of every file of one model."""
    lines, size = list[bytes](), 0
    for key in keys:
        request = {"custom_id": key, "method": "POST", "url": CHAT_URL, "body": noted.get(key)}
        line = json.dumps(request, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        if lines and (len(lines) >= MAX_FILE_REQUESTS or size + len(line) > MAX_FILE_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield lines
