"""Side hallway: folders of evaluations -> every later model against the first, as a table and a plot.

In: folders that `evaluate` has written. Out: a `Comparison` for each pair of models and each benchmark that both have;
on demand ``comparison.json``, ``comparison.md`` and ``comparison.svg``. Nobody is asked anything.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError
from fineinstructions.evaluate import ITEMS_FILE, NAMES, SCORES_FILE, SETTINGS_FILE
from fineinstructions.evaluation.compare import Comparison, compare
from fineinstructions.evaluation.comparison_page import page, plot
from fineinstructions.evaluation.scoring import read_scores
from fineinstructions.records import as_dict
from fineinstructions.runs.durable import write_text


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One benchmark in one folder."""

    folder: Path
    facts: dict[str, Any]


def compare_evaluations(folders: Sequence[str | Path], *, out: Path | None = None, seed: int = 0) -> list[Comparison]:
    """Compare the model of the first folder with that of every other, on all benchmarks that both have.

    Args:
        folders: Two or more, of `evaluate`.
        out: Folder for table and plot; None writes nothing.
        seed: Decides the resamples.

    Raises:
        ConfigError: If a folder holds no evaluation, two have no benchmark in common, or they were judged differently.
    """
    if len(folders) < 2:
        raise ConfigError("compare: needs two or more folders of `fineinstructions eval`")
    known = [_evaluations(Path(folder)) for folder in folders]
    names = _names([Path(folder) for folder in folders], known)
    found: list[Comparison] = []
    for place in range(1, len(known)):
        common = [name for name in NAMES if name in known[0] and name in known[place]]
        if not common:
            raise ConfigError(f"compare: {folders[0]} and {folders[place]} have no benchmark in common")
        both = names[0], names[place]
        found += [_compare(name, known[0][name], known[place][name], both, seed) for name in common]
    if out is not None:
        write_comparisons(found, out)
    return found


def write_comparisons(found: Sequence[Comparison], out: Path) -> None:
    """Write comparisons as a table, a plot, and JSON."""
    out.mkdir(parents=True, exist_ok=True)
    plain = [as_dict(comparison) for comparison in found]
    write_text(out / "comparison.json", json.dumps(plain, ensure_ascii=False, indent=1) + "\n")
    write_text(out / "comparison.md", page(found))
    write_text(out / "comparison.svg", plot(found))


def _evaluations(folder: Path) -> dict[str, _Evaluation]:
    found: dict[str, _Evaluation] = {}
    for name in NAMES:
        path = folder / name / SCORES_FILE
        if path.is_file():
            try:
                found[name] = _Evaluation(path.parent, dict(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(f"{path}: cannot be read ({error}); run `fineinstructions eval` again") from None
    if not found:
        raise ConfigError(f"{folder}: holds no evaluation; name a folder that `fineinstructions eval` has written")
    return found


def _names(folders: Sequence[Path], known: Sequence[dict[str, _Evaluation]]) -> list[str]:
    """What to call the models: by their names, or by their folders where two have the same."""
    names = [str(next(iter(evaluations.values())).facts["model"]) for evaluations in known]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _compare(name: str, a: _Evaluation, b: _Evaluation, names: tuple[str, str], seed: int) -> Comparison:
    for key in ("judge", "facts"):
        mine, other = _of_the_measure(a.facts[key]), _of_the_measure(b.facts[key])
        if mine != other:
            raise ConfigError(
                f"compare: {a.folder} and {b.folder} were measured differently ({mine} and {other}); evaluate one again"
            )
    mine, other = _judged_by(a.folder), _judged_by(b.folder)
    if mine != other:
        raise ConfigError(f"compare: {a.folder} and {b.folder} were judged with other settings; evaluate one again")
    try:
        found = compare(name, read_scores(a.folder / ITEMS_FILE), read_scores(b.folder / ITEMS_FILE), names, seed)
    except ValueError:
        raise ConfigError(f"compare: {a.folder} and {b.folder} have no item in common; score the same ones") from None
    return replace(found, is_plumbing=bool(a.facts["is_plumbing"] or b.facts["is_plumbing"]))


def _judged_by(folder: Path) -> dict[str, Any]:
    """What decided the judgements; which items there were may differ."""
    try:
        found = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["judgements"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / SETTINGS_FILE}: cannot be read ({error}); evaluate again") from None
    return {name: value for name, value in found.items() if name != "records"}


def _of_the_measure(facts: Any) -> Any:
    """What must be the same for both models; how each is asked, and how many items, may differ."""
    return {k: v for k, v in facts.items() if k not in ("format", "limit")} if isinstance(facts, dict) else facts
