"""Does our AlpacaEval scorer give the win rates that were published for the same judgements?

    python benchmarks/bench_alpaca_eval.py FOLDER --out benchmarks/results/NAME.md
    python benchmarks/bench_alpaca_eval.py FOLDER --difficulty instruction_difficulty.csv --coefficients baseline.csv

FOLDER holds the released files, which are for non-commercial use and no part of this project: ``alpaca_eval.parquet``
(instructions with the baseline's answers), ``judge_annotations_gpt4_turbo.parquet`` (answers of models, and how far
each was preferred, from 1 to 2) and ``weighted_alpaca_eval_gpt4_turbo_leaderboard.csv`` (what was published).

The length-controlled figure is AlpacaEval's own only with its coefficients: the difficulty of every instruction, on the
hub beside the data, and the models' weights, in the ``alpaca-eval`` package. Without them the page shows LC-style, with
how far it is off.
"""

import argparse
import csv
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from fineinstructions.evaluation.alpaca_eval import AS_SECOND, AlpacaEval, AlpacaEvalConfig
from fineinstructions.evaluation.items import Answer, EvalItem, ItemScore, Judgement
from fineinstructions.evaluation.length_control import official_win_rate
from fineinstructions.evaluation.pair_files import read_difficulty

EXACT = 1e-9
"""Points by which sums in another order may differ."""
BASELINE = "gpt4_1106_preview"


def scored(folder: Path, difficulty: str | None) -> dict[str, list[ItemScore]]:
    """Item scores of every model whose judgements were released, by our scorer.

    Args:
        folder: The released files.
        difficulty: CSV of published difficulties; None without them.
    """
    config = AlpacaEvalConfig(
        path=str(folder / "alpaca_eval.parquet"),
        baseline=f"reference_{BASELINE}",
        orders="original",
        difficulty=difficulty,
    )
    benchmark = AlpacaEval(config)
    items = {(item.messages[0][1], item.part): item for item in benchmark.items}
    found: dict[str, list[ItemScore]] = {}
    for row in pq.read_table(folder / "judge_annotations_gpt4_turbo.parquet").to_pylist():
        item: EvalItem = items[row["instruction"], row["dataset"]]
        said = {AS_SECOND: Judgement({"value": row["preference"] - 1})}
        score = benchmark.score(item, Answer(row["output_model"]), said)
        found.setdefault(row["generator_model"], []).append(score)
    return found


def official(coefficients: Path, difficulty: str, model: str) -> float:
    """AlpacaEval's own length-controlled win rate, from its weights and difficulties."""
    with coefficients.open(encoding="utf-8", newline="") as file:
        weights = {row[""]: row for row in csv.DictReader(file)}
    constant, slope = (
        float(weights[model][name]) - float(weights[BASELINE][name])
        for name in ("not_gamed_baseline.astype(float)", "instruction_difficulty")
    )
    return official_win_rate(constant, slope, read_difficulty(difficulty))


def lines(folder: Path, difficulty: str | None, coefficients: Path | None) -> Iterator[str]:
    """The page."""
    with (folder / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open(encoding="utf-8", newline="") as file:
        published: Mapping[str, Mapping[str, str]] = {row[""]: row for row in csv.DictReader(file)}
    yield f"# AlpacaEval 2: our scorer on the released judgements, {datetime.date.today()}"
    yield ""
    yield "`python benchmarks/bench_alpaca_eval.py FOLDER`; every row from the released judgements of one model against"
    yield f"{BASELINE}. Raw win rates must agree to {EXACT:g} points."
    yield ""
    has_both = difficulty is not None and coefficients is not None
    name = "LC, official coefficients" if has_both else "LC-style"
    columns = [f"{kind}, {whose}" for kind in ("raw", "discrete") for whose in ("published", "ours")]
    yield f"| model | items | {' | '.join(columns)} | LC, published | {name} | off by |"
    yield "|" + " --- |" * 9
    worst = 0.0
    for model, scores in scored(folder, difficulty).items():
        known, figures = published[model], AlpacaEval.figures(scores)
        raw, discrete = 100 * figures["win_rate"], 100 * figures["discrete_win_rate"]
        for ours, column in ((raw, "win_rate"), (discrete, "discrete_win_rate")):
            if abs(ours - float(known[column])) > EXACT:
                raise SystemExit(f"{model}: {column} is {ours}, published {known[column]}")
        controlled = 100 * figures["length_controlled_style"]
        if has_both and coefficients is not None and difficulty is not None:
            controlled = 100 * official(coefficients, difficulty, model)
        off = controlled - float(known["length_controlled_winrate"])
        worst = max(worst, abs(off))
        yield (
            f"| {model} | {len(scores)} | {float(known['win_rate']):.6f} | {raw:.6f} | "
            f"{float(known['discrete_win_rate']):.4f} | {discrete:.4f} | "
            f"{float(known['length_controlled_winrate']):.2f} | {controlled:.2f} | {off:+.2f} |"
        )
    yield ""
    yield f"Raw and discrete win rates: all agree. Length-controlled ({name}): at most {worst:.2f} points off."
    if has_both and worst > 1:
        raise SystemExit(f"official coefficients, and {worst:.2f} points off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--difficulty", help="CSV of the instructions' published difficulty")
    parser.add_argument("--coefficients", type=Path, help="CSV of the models' published weights")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    page = "\n".join(lines(options.folder, options.difficulty, options.coefficients)) + "\n"
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
