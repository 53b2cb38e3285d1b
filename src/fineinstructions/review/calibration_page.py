"""How far the judge of a run agrees with labels, where `judge calibrate --run` has measured it, for the run's report.

In: ``RUN/report/judge-calibration.json``. Out: a section of a page. The decision to question: a calibration by another
judge than the run's present one is shown all the same, under its own name, because the run's scores may stem from it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fineinstructions.errors import DataError
from fineinstructions.review.blocks import Block, Grid, Section, Words

CALIBRATION_FILE = "report/judge-calibration.json"


def calibration_sections(root: Path) -> list[Section]:
    """The section, or nothing where no judge has been measured.

    Raises:
        DataError: If the file is none that `judge calibrate` has written.
    """
    path = root / CALIBRATION_FILE
    if not path.exists():
        return []
    try:
        return [Section("The judge beside labelled answers", list(_told(json.loads(path.read_text(encoding="utf-8")))))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no calibration ({error}); run 'judge calibrate' again, or take it away") from None


def _told(found: dict[str, Any]) -> Iterator[Block]:
    judge = ", ".join(f"{name} {value}" for name, value in found["judge"].items())
    yield Words(
        f"Judge: {judge}. Intervals are 95 % of bootstrap resamples; figures are about the rows that got a score, and "
        "what each of them means stands in judge-calibration.md.",
        True,
    )
    figures = [
        (made["name"], figure["name"], _number(figure["value"]), _interval(figure), figure["num_rows"])
        for made in found["sets"]
        for figure in made["figures"]
    ]
    yield Grid(("set", "figure", "value", "interval", "rows"), figures)
    rows = [(made["name"], *_answers(made)) for made in found["sets"]]
    yield Grid(("set", "score 1", "2", "3", "4", "5", "without a score", "ties"), rows)


def _answers(made: dict[str, Any]) -> tuple[int, ...]:
    """Answers by score, those without one, and ties."""
    return (*(made["histogram"][str(score)] for score in range(1, 6)), sum(made["unscored"].values()), made["num_ties"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(figure: dict[str, Any]) -> str:
    return "-" if figure["low"] is None else f"{_number(figure['low'])} to {_number(figure['high'])}"
