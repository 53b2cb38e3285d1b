"""Calibrating a judge: labelled files through the judge of a recipe, to figures of agreement.

In: files of labelled answers, and a recipe or a run that names the judge. Out: an `Agreement` per file, and on demand
``judge-calibration.json``, ``judge-calibration.md`` and every single verdict in ``judge-verdicts.parquet``. Replies of
a model are kept in the response cache of the folder, so that a calibration that was stopped goes on where it was.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fineinstructions.endpoints import record_endpoints, require_answers_now
from fineinstructions.errors import ConfigError
from fineinstructions.inputs import list_inputs
from fineinstructions.models import Models
from fineinstructions.pairs.calibrate import Agreement, JudgedRow, judge_rows, measure
from fineinstructions.pairs.calibration_page import page
from fineinstructions.pairs.labelled import LabelledSet, read_labelled
from fineinstructions.progress import Progress, Silent
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Pair, Rejection, as_dict, to_json, to_table
from fineinstructions.serving import serving
from fineinstructions.setup import Setup

_FILES = ("judge-calibration.json", "judge-calibration.md", "judge-verdicts.parquet")


@dataclass(frozen=True, slots=True)
class AnswerVerdict:
    """What became of one labelled answer: a row of ``judge-verdicts.parquet``."""

    set_name: str
    row_id: str
    subset: str
    place: int
    """0 for the first or only answer, 1 for the second."""
    label: float
    """As in `LabelledRow`."""
    judge_score: int | None
    judge_expected_score: float | None
    judge_feedback: str
    reason: str
    """Why there is no score; empty where there is one."""
    record: str
    """The rejected record with the judge's raw reply, as a JSON object; empty where there is a score."""


@dataclass(frozen=True, slots=True)
class JudgeCalibration:
    """How far a judge agrees with all the sets it was given."""

    judge: str
    """The judge, as a JSON object."""
    seed: int
    min_score: int
    sets: tuple[Agreement, ...]
    num_failed: int
    """Answers that an engine failed on; the same command asks for them again."""
    folder: str
    """Where it was written; empty for nowhere."""


def calibrate_judge(
    paths: Sequence[str],
    config: RunConfig,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> JudgeCalibration:
    """Measure the judge of a recipe on labelled files.

    Args:
        paths: Files, globs or folders; every file is a set of its own.
        config: The recipe; only ``judge``, ``llm`` and what they need are used.
        columns: Role of a column (`ROLES`) to its name, where it is not one of the known ones.
        limit: Judge only so many rows of every file, drawn by a hash of seed and row.
        seed: Seed of what is drawn.
        out: Folder for the results and the response cache; None writes nothing.
        cache_root: Run folder whose response cache is used instead; besides that only its logs are written to.
        progress: Told what goes on, a set being a phase and a row a unit; by default nobody.

    Raises:
        ConfigError: If a file or a setting is wrong.
        BackendError: If the judge as a whole gave up; its replies so far are kept.
    """
    require_answers_now(config)
    sets = [read_labelled(file, columns or {}, limit, seed) for file in list_inputs(list(paths), "")]
    for labelled in sets:
        if config.judge.with_document and "document" not in labelled.columns:
            raise ConfigError(
                f"{labelled.name}: no column with a document, which judge.with_document shows the judge; name it with "
                "--column document=NAME or set judge.with_document=false"
            )
    verdicts: list[AnswerVerdict] = []
    agreements: list[Agreement] = []
    described, num_failed = "", 0
    with ExitStack() as stack:
        own = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        told = progress or Silent()
        looked_at = Setup(config, cache_root or own, findings=own)
        setup = stack.enter_context(serving(looked_at, "judge", ("judge",), told.note))
        record_endpoints(setup, ("judge",), told.note)
        models = stack.enter_context(closing(Models(setup)))
        for labelled in sets:
            judged = list(_told(judge_rows(labelled, models.judge), labelled, told))
            agreements.append(measure(labelled, judged, seed, config.judge.min_score))
            verdicts += itertools.chain.from_iterable(_verdicts(labelled.name, row) for row in judged)
            num_failed += sum(isinstance(o, Rejection) and o.failed for row in judged for o in row.outcomes)
            described = described or _judge_of(judged)
        described = described or models.judge.model
    found = JudgeCalibration(described, seed, config.judge.min_score, tuple(agreements), num_failed, str(out or ""))
    if out is not None:
        _write(found, verdicts, out)
    return found


def _told(rows: Iterator[JudgedRow], labelled: LabelledSet, progress: Progress) -> Iterator[JudgedRow]:
    progress.start(labelled.name, len(labelled.rows), 0)
    for row in rows:
        progress.advance(labelled.name, 1)
        yield row
    progress.finish(labelled.name)


def _judge_of(judged: Sequence[JudgedRow]) -> str:
    """The judge as the first scored answer names it: with what it is served for, where that is known."""
    scored = (outcome for row in judged for outcome in row.outcomes if isinstance(outcome, Pair))
    first = next(scored, None)
    return to_json(json.loads(first.models)["judge"]) if first else ""


def _verdicts(name: str, judged: JudgedRow) -> Iterator[AnswerVerdict]:
    row = judged.row
    for place, outcome in enumerate(judged.outcomes):
        known = (name, row.row_id, row.subset, place, row.label)
        if isinstance(outcome, Pair):
            scores = (outcome.judge_score, outcome.judge_expected_score)
            yield AnswerVerdict(*known, *scores, outcome.judge_feedback, "", "")
        else:
            yield AnswerVerdict(*known, None, None, "", outcome.reason, outcome.record)


def _write(found: JudgeCalibration, verdicts: Sequence[AnswerVerdict], out: Path) -> None:
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    facts, text, rows = (out / name for name in _FILES)
    facts.write_text(json.dumps(plain(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text.write_text(page(found.judge, found.sets), encoding="utf-8")
    pq.write_table(to_table(verdicts, AnswerVerdict), rows)


def plain(found: JudgeCalibration) -> dict[str, Any]:
    """A calibration as plain JSON values."""
    return {**as_dict(found), "judge": json.loads(found.judge)}
