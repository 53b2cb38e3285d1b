"""Does our AlpacaEval scorer give the win rates that were published for the same judgements?

    python benchmarks/bench_alpaca_eval.py FOLDER --repository CLONE --out benchmarks/results/NAME.md
    python benchmarks/bench_alpaca_eval.py FOLDER

FOLDER holds released files, which are for non-commercial use and no part of this project: ``alpaca_eval.parquet``
(instructions with the baseline's answers), ``judge_annotations_gpt4_turbo.parquet`` (answers of models, and how far
each was preferred, from 1 to 2) and ``weighted_alpaca_eval_gpt4_turbo_leaderboard.csv`` (what was published).

CLONE is a checkout of ``tatsu-lab/alpaca_eval``, whose ``results`` may be incomplete. What the length-controlled figure
needs lies on the hub, and can be had from there without it:

- difficulty of the instructions: two of its files of annotations hold the predictions of the published regression,
  whose coefficients are published too, so that the difficulty is the only unknown;
- judgements of the baseline's answers at other lengths: their lengths are those of its outputs; for the preferences
  stand those that its published coefficients predict, which a logistic regression cannot tell from the real ones.
"""

import argparse
import csv
import dataclasses
import datetime
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from fineinstructions.evaluation.alpaca_eval import AS_SECOND, AlpacaEval, AlpacaEvalConfig
from fineinstructions.evaluation.items import Answer, ItemScore, Judgement
from fineinstructions.evaluation.length_control import official_win_rate
from fineinstructions.evaluation.pair_files import read_coefficients

EXACT = 1e-9
"""Points by which sums in another order may differ."""
NEAR = 1.0
"""Points by which a length-controlled figure with the published items may differ."""
BASELINE, ANNOTATOR = "gpt4_1106_preview", "weighted_alpaca_eval_gpt4_turbo"
GAMED = (f"{BASELINE}_verbose", f"{BASELINE}_concise")
PREDICTED = (f"vicuna-13b-v1.5/{ANNOTATOR}", f"vicuna-7b-v1.5/{ANNOTATOR}")
"""Folders of results whose annotations hold predictions of the published regression."""
CONSTANT, SLOPE, LENGTH = "not_gamed_baseline.astype(float)", "instruction_difficulty", "np.tanh(std_delta_len)"
Table = Mapping[str, Mapping[str, str]]
Row = Mapping[str, Any]


class Official(NamedTuple):
    """What the length-controlled figure needs."""

    weights: Table
    """Published coefficients of every model."""
    items: Path
    """Published coefficients of every instruction."""


def read_table(path: Path) -> Table:
    """A CSV whose first column names the rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def annotations_of(repository: Path, name: str) -> list[Row]:
    """Released judgements of a folder of results; those without a preference are left out."""
    rows = json.loads((repository / "results" / name / ANNOTATOR / "annotations.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["preference"] is not None and float(row["preference"]) >= 0]


def recovered(repository: Path, folder: Path, out: Path) -> Official:
    """The published coefficients from a checkout, those of the instructions as ``df_gamed.csv`` in a folder."""
    lie = f"src/alpaca_eval/metrics/weights/{ANNOTATOR}/length_controlled_v1/baseline_{BASELINE}.csv"
    weights = read_table(repository / lie)
    found = []
    for name in PREDICTED:
        known = weights[name.partition("/")[0]]
        odds = [math.log((p := float(row["glm_preference"])) / (1 - p)) for row in annotations_of(repository, name)]
        found.append([(odd - float(known[CONSTANT])) / float(known[SLOPE]) for odd in odds])
    if max(abs(a - b) for a, b in zip(*found, strict=True)) > 1e-6:
        raise SystemExit("the two files of predictions do not agree on the difficulties")
    base = pq.read_table(folder / "alpaca_eval.parquet").to_pylist()
    place = {(row["instruction"], row["dataset"]): number for number, row in enumerate(base)}
    lines = []
    for name in GAMED:
        outputs = json.loads((repository / "results" / name / "model_outputs.json").read_text(encoding="utf-8"))
        numbers = [place[row["instruction"], row["dataset"]] for row in outputs]
        shorter = [
            len(base[n][f"reference_{BASELINE}"]) - len(row["output"]) for n, row in zip(numbers, outputs, strict=True)
        ]
        spread = statistics.stdev(shorter)
        for number, by in zip(numbers, shorter, strict=True):
            constant, slope, length = (float(weights[name][column]) for column in (CONSTANT, SLOPE, LENGTH))
            difficulty = found[0][number]
            preferred = 1 / (1 + math.exp(-(constant + slope * difficulty + length * math.tanh(by / spread))))
            lines.append((name, preferred, number, by / spread, difficulty, False))
    with (out / "df_gamed.csv").open("w", encoding="utf-8", newline="") as file:
        head = ("model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
        csv.writer(file).writerows([head, *lines])
    return Official(weights, out / "df_gamed.csv")


def scorer(folder: Path, items: Path | None = None) -> AlpacaEval:
    """The benchmark as the original runs it."""
    return AlpacaEval(
        AlpacaEvalConfig(
            path=str(folder / "alpaca_eval.parquet"),
            baseline=f"reference_{BASELINE}",
            orders="original",
            difficulty=str(items) if items else None,
        )
    )


def scored(benchmark: AlpacaEval, rows: Sequence[Row]) -> list[ItemScore]:
    """Item scores of one model by our scorer."""
    items = {(item.messages[0][1], item.part): item for item in benchmark.items}
    return [
        benchmark.score(
            items[row["instruction"], row["dataset"]],
            Answer(row["output_2"]),
            {AS_SECOND: Judgement({"value": (float(row["preference"]) or 1.5) - 1})},
        )
        for row in rows
    ]


def as_numbered(benchmark: AlpacaEval, scores: Sequence[ItemScore]) -> list[ItemScore]:
    """Scores with the coefficients by place, as in the original: where judgements are missing, later ones shift."""
    shifted = []
    for score, item in zip(scores, benchmark.items, strict=False):
        known = {name: item.record[name] for name in ("difficulty", "gamed")}
        shifted.append(dataclasses.replace(score, facts={**score.facts, **known}))
    return shifted


def released(folder: Path) -> dict[str, list[Row]]:
    """Released judgements of FOLDER by model."""
    found: dict[str, list[Row]] = {}
    for row in pq.read_table(folder / "judge_annotations_gpt4_turbo.parquet").to_pylist():
        found.setdefault(row["generator_model"], []).append({**row, "output_2": row["output_model"]})
    return found


def raw_lines(folder: Path, published: Table) -> Iterator[str]:
    """Raw and discrete win rates, which must agree, and LC-style without any coefficients."""
    columns = [f"{kind}, {whose}" for kind in ("raw", "discrete") for whose in ("published", "ours")]
    yield f"| model | items | {' | '.join(columns)} | LC, published | LC-style | off by |"
    yield "|" + " --- |" * 9
    for model, rows in released(folder).items():
        known, figures = published[model], AlpacaEval.figures(scored(scorer(folder), rows))
        raw, discrete = 100 * figures["win_rate"], 100 * figures["discrete_win_rate"]
        for ours, column in ((raw, "win_rate"), (discrete, "discrete_win_rate")):
            if abs(ours - float(known[column])) > EXACT:
                raise SystemExit(f"{model}: {column} is {ours}, published {known[column]}")
        controlled, wanted = 100 * figures["length_controlled_style"], float(known["length_controlled_winrate"])
        yield (
            f"| {model} | {len(rows)} | {float(known['win_rate']):.6f} | {raw:.6f} | "
            f"{float(known['discrete_win_rate']):.4f} | {discrete:.4f} | {wanted:.2f} | {controlled:.2f} | "
            f"{controlled - wanted:+.2f} |"
        )


def by_coefficients(published: Table, official: Official) -> Iterator[str]:
    """The published figures by the published coefficients of models and instructions alone."""
    difficulty = [one.difficulty for one in read_coefficients(str(official.items))]
    off = {}
    for model in published.keys() & official.weights.keys():
        constant, slope = (
            float(official.weights[model][name]) - float(official.weights[BASELINE][name]) for name in (CONSTANT, SLOPE)
        )
        ours = 100 * official_win_rate(constant, slope, difficulty)
        off[model] = abs(ours - float(published[model]["length_controlled_winrate"]))
    worst = sorted(off, key=lambda model: -off[model])[:3]
    yield f"{len(off)} of the {len(published)} models of the leaderboard have published coefficients. Points off:"
    yield f"median {statistics.median(off.values()):.1e}, most {', '.join(f'{off[m]:.3f} ({m})' for m in worst)}."
    if off[worst[0]] > NEAR:
        raise SystemExit(f"{worst[0]}: official coefficients, and {off[worst[0]]:.2f} points off")


def by_regression(folder: Path, released_rows: Mapping[str, list[Row]], published: Table, items: Path) -> Iterator[str]:
    """The published figures by our own regression over each model's judgements, with the published items."""
    style, benchmark = scorer(folder), scorer(folder, items)
    yield "| model | items | LC, published | ours | off by | LC-style | off by |"
    yield "|" + " --- |" * 7
    offs: list[tuple[float, float]] = []
    for model, rows in released_rows.items():
        wanted, scores = float(published[model]["length_controlled_winrate"]), scored(benchmark, rows)
        ours = 100 * AlpacaEval.figures(as_numbered(benchmark, scores))["length_controlled"]
        alone = 100 * AlpacaEval.figures(scored(style, rows))["length_controlled_style"]
        offs.append((ours - wanted, alone - wanted))
        told = f"| {model} | {len(rows)} | {wanted:.2f} | {ours:.2f} | {ours - wanted:+.2f} | {alone:.2f} | "
        yield told + f"{alone - wanted:+.2f} |"
        if abs(ours - wanted) > NEAR:
            raise SystemExit(f"{model}: published items, and {ours - wanted:+.2f} points off")
        if len(rows) < len(benchmark.items):
            own = 100 * AlpacaEval.figures(scores)["length_controlled"]
            yield f"| the same, each instruction with its own item | | | {own:.2f} | {own - wanted:+.2f} | | |"
    yield ""
    for name, column in zip(("ours", "LC-style"), zip(*offs, strict=True), strict=True):
        sizes = [abs(value) for value in column]
        yield f"{name}: median {statistics.median(sizes):.2f} points off, at most {max(sizes):.2f}."


def lines(folder: Path, repository: Path | None) -> Iterator[str]:
    """The page."""
    published = read_table(folder / f"{ANNOTATOR}_leaderboard.csv")
    yield f"# AlpacaEval 2: our scorer on the released judgements, {datetime.date.today()}"
    yield ""
    command = "python benchmarks/bench_alpaca_eval.py FOLDER" + (" --repository CLONE" if repository else "")
    yield f"`{command}`; every row from"
    yield f"the released judgements of one model against {BASELINE}. Raw and discrete win rates must agree to"
    yield f"{EXACT:g} points."
    yield ""
    yield from raw_lines(folder, published)
    if repository is None:
        return
    with tempfile.TemporaryDirectory() as out:
        official = recovered(repository, folder, Path(out))
        yield from ("", "## Length-controlled, by the published coefficients of models and instructions", "")
        yield from by_coefficients(published, official)
        yield from (
            "",
            "## Length-controlled, by our regression with the published items (`alpaca_eval.difficulty`)",
            "",
        )
        yield f"`alpaca_eval.difficulty`; must agree to {NEAR:g} point. Where judgements are missing, the original"
        yield "numbers the instructions that are left anew and so gives them the coefficients of others; the figures"
        yield "beside the published one do the same."
        yield ""
        there = sorted((repository / "results").glob(f"*/{ANNOTATOR}/annotations.json"))
        more = {path.parts[-3]: annotations_of(repository, path.parts[-3]) for path in there}
        known = {model: rows for model, rows in more.items() if model in published.keys() & official.weights.keys()}
        yield from by_regression(folder, released(folder) | known, published, official.items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", type=Path, help="checkout of tatsu-lab/alpaca_eval")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    page = "\n".join(lines(options.folder, options.repository)) + "\n"
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
