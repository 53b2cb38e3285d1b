"""AlpacaEval's files: instructions with a baseline's answers, and what is published about each instruction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.items import read_rows, text_of

GAMED_COLUMNS = frozenset({"index", "instruction_difficulty", "std_delta_len", "preference"})
"""Of ``df_gamed.csv``."""
_COLUMN = "reference_"
"""How columns with answers of a reference model begin."""


def read_pairs(path: str, baseline: str) -> list[dict[str, Any]]:
    """Instructions with ``dataset``, ``baseline`` (an answer) and ``baseline_name``.

    Args:
        path: File of instructions.
        baseline: A column of it, or a file of answers; where it is neither, the column ``output``.

    Raises:
        ConfigError: If an instruction has no answer of the baseline.
    """
    rows = read_rows(path, "alpaca_eval")
    asked = [text_of(row, "instruction", where) for where, row in rows]
    datasets = [str(row.get("dataset") or "alpaca_eval") for _, row in rows]
    first = rows[0][1]
    if Path(baseline).exists() or "://" in baseline:
        answers, names = _answers(baseline, asked, datasets)
    else:
        column = baseline if baseline in first else "output"
        if column not in first:
            raise ConfigError(
                f"alpaca_eval.baseline: {baseline} is no file, and {path} has neither that column nor 'output'"
            )
        answers = [text_of(row, column, where) for where, row in rows]
        names = [str(row.get("generator") or column.removeprefix(_COLUMN)) for _, row in rows]
    columns = zip(asked, datasets, answers, names, strict=True)
    return [dict(zip(("instruction", "dataset", "baseline", "baseline_name"), row, strict=True)) for row in columns]


def _answers(path: str, asked: Sequence[str], datasets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Answers of a file of model outputs in the order of the instructions, and who gave them."""
    known: dict[tuple[str, str], tuple[str, str]] = {}
    rows = read_rows(path, "alpaca_eval")
    times = Counter(str(row.get("instruction")) for _, row in rows)
    for where, row in rows:
        instruction = text_of(row, "instruction", where)
        dataset = str(row.get("dataset") or "") if times[instruction] > 1 else ""
        if (instruction, dataset) in known:
            raise ConfigError(f"{where}: a second answer to the same instruction; keep one")
        known[instruction, dataset] = text_of(row, "output", where), str(row.get("generator") or Path(path).stem)
    found = [known.get((i, "")) or known.get((i, d)) for i, d in zip(asked, datasets, strict=True)]
    missing = [number for number, answer in enumerate(found) if answer is None]
    if missing:
        raise ConfigError(
            f"alpaca_eval.baseline: {path} has no answer to instruction {missing[0]} ({asked[missing[0]][:60]!r})"
        )
    whole = [answer for answer in found if answer is not None]
    return [text for text, _ in whole], [name for _, name in whole]


class ItemCoefficients(NamedTuple):
    """What AlpacaEval publishes about an instruction for its length-controlled win rate."""

    difficulty: float
    gamed: list[tuple[float, float]]
    """Of the baseline's own answers at other lengths: standardised difference in length, and how far each is preferred,
    0 to 1; none in a file of difficulties alone."""


def read_coefficients(path: str) -> list[ItemCoefficients]:
    """Published coefficients of the instructions, by their number.

    Args:
        path: CSV with a head line: ``df_gamed.csv``, or ``instruction_difficulty.csv``, whose first column numbers the
            instructions and whose second is the difficulty.

    Raises:
        ConfigError: If a number is missing.
    """
    values: dict[int, ItemCoefficients] = {}
    for where, row in read_rows(path, "alpaca_eval"):
        place, value, judged = _numbered(where, row)
        values.setdefault(place, ItemCoefficients(value, [])).gamed.extend(judged)
    missing = [place for place in range(len(values)) if place not in values]
    if missing:
        raise ConfigError(f"alpaca_eval.difficulty: {path} has no value for instruction {missing[0]}")
    if len({len(one.gamed) for one in values.values()}) > 1:
        raise ConfigError(f"alpaca_eval.difficulty: {path} has not as many rows for every instruction; take it whole")
    return [values[place] for place in range(len(values))]


def _numbered(where: str, row: Mapping[str, Any]) -> tuple[int, float, list[tuple[float, float]]]:
    """Number, difficulty and gamed judgement of a row."""
    try:
        if row.keys() >= GAMED_COLUMNS:
            judged = float(row["std_delta_len"]), float(row["preference"])
            return int(float(row["index"])), float(row["instruction_difficulty"]), [judged]
        place, value, *_ = row.values()
        return int(float(place)), float(value), []
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: expected a number and a difficulty") from None
