"""What the benchmarks stand on: their inputs, their clocks, and that both sides of a comparison do the same work."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import EXAMPLES, take_documents
from small_run import some_texts, write_run

from fineinstructions import pipeline
from fineinstructions.config import load
from fineinstructions.evaluation.pair_files import read_coefficients
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Pair, Rejection, to_table
from fineinstructions.runs import RunFolder
from fineinstructions.runs.tables import tables_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
DOCUMENTS = EXAMPLES / "documents.parquet"


@pytest.fixture(scope="module")
def module() -> Any:
    """Imports a benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module


@pytest.mark.slow
def test_the_large_run_of_the_viewer_has_what_it_says(module: Any, tmp_path: Path) -> None:
    from fineinstructions.review.samples import find_pair

    source = write_run(tmp_path, some_texts(40))
    run = RunFolder.open(source)
    low = Rejection("select", "low_score", "p-x", 3.0, "{}")
    with run.lease():
        run.publish("rejected", Rejection, tables_of([low], Rejection), phase="assemble")
    root = module("bench_view").write_large(source, tmp_path / "large", 2500)
    table = pq.read_table(root / "pairs", columns=["pair_id", "document_id", "instruction"])
    assert table.num_rows == len(set(table["pair_id"].to_pylist())) == 2500
    texts = pq.read_table(source / "pairs", columns=["instruction"])["instruction"].to_pylist()
    assert table["instruction"].to_pylist() == [texts[n % len(texts)] for n in range(2500)]
    assert find_pair(root, f"p-{2499:016x}").judge_score in (4, 5)
    assert pq.read_table(root / "rejected").num_rows == 250
    with module("bench_view").viewer(root) as (address, process, _):
        assert module("bench_view").timed(f"{address}/pairs") > 0
        assert module("bench_view").peak_mb(process) > 20


def test_the_index_is_measured_on_distinct_descriptions_of_real_queries(module: Any, tmp_path: Path) -> None:
    queries = pq.read_table(EXAMPLES / "queries.parquet").slice(0, 400)
    pq.write_table(queries, tmp_path / "queries.parquet")
    found = module("bench_index").descriptions(tmp_path / "queries.parquet")
    assert 10 < len(found) == len(set(found)) < 400
    assert all(text.strip() for text in found)
    assert not set(found) & set(queries["text"].to_pylist())


def texts(path: Path) -> list[str]:
    return list(pq.read_table(path)["text"].to_pylist())


def test_short_documents_are_distinct_and_repeatable(module: Any, tmp_path: Path) -> None:
    write = module("short_documents").write_short_documents
    few, many, again, others = (
        texts(write(DOCUMENTS, number, seed, tmp_path / f"{name}.parquet"))
        for name, number, seed in (("few", 300, 0), ("many", 12_000, 0), ("again", 300, 0), ("others", 300, 1))
    )
    assert few == again == many[:300]
    assert few != others
    assert len(set(many)) == 12_000
    ids = pq.read_table(tmp_path / "many.parquet")["id"].to_pylist()
    assert len(set(ids)) == 12_000


def test_too_few_sentences_are_refused(module: Any, tmp_path: Path) -> None:
    write = module("short_documents").write_short_documents
    with pytest.raises(SystemExit, match="too few"):
        write(take_documents(tmp_path / "two.parquet", 2), 10_000, 0, tmp_path / "out.parquet")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processor_time_of_orphans_is_counted(module: Any) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    cost = module("watching").run([sys.executable, "-c", orphan], every_seconds=0.05)
    assert cost.cpu_seconds > 0.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_children_is_counted(module: Any) -> None:
    hold = "import time; held = bytearray(200_000_000); time.sleep(2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    cost = module("watching").run([sys.executable, "-c", parent], every_seconds=0.05)
    assert cost.peak_anonymous > 200_000_000
    assert cost.samples[-1].driver < 200_000_000


def test_a_command_that_fails_is_no_measurement(module: Any) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        module("watching").run([sys.executable, "-c", "raise SystemExit(3)"], 0)


@pytest.mark.slow
def test_the_bare_stages_keep_the_pairs_of_the_run(module: Any, tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24)
    sections = {
        "queries": {"path": str(EXAMPLES / "queries.parquet"), "limit": 2000},
        "documents": {"path": str(documents)},
        "engine": {"workers": 0, "unit_rows": 10},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(sections), encoding="utf-8")
    bare = module("bare_stages").run(load(recipe, RunConfig), tmp_path)
    assert bare
    assert to_table(bare, Pair).equals(to_table(pipeline.run(recipe, tmp_path / "run").pairs(), Pair))


def test_published_win_rates_are_asked_for_exactly(module: Any, tmp_path: Path) -> None:
    """The scorer against a leaderboard of our own, right and then wrong in the last place."""
    instructions = [f"question {number}" for number in range(4)]
    answers = {"dataset": ["d"] * 4, "reference_gpt4_1106_preview": ["long answer"] * 4}
    pq.write_table(pa.table({"instruction": instructions, **answers}), tmp_path / "alpaca_eval.parquet")
    judged = {
        "dataset": ["d"] * 4, "generator_model": ["m"] * 4, "output_model": ["a", "bb", "ccc", "d"],
        "preference": [1.0, 1.25, 2.0, 1.5],
    }  # fmt: skip
    pq.write_table(pa.table({"instruction": instructions, **judged}), tmp_path / "judge_annotations_gpt4_turbo.parquet")
    board = tmp_path / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    head = ",win_rate,discrete_win_rate,length_controlled_winrate\n"
    board.write_text(head + "m,43.75,37.5,40\n", encoding="utf-8")
    bench = module("bench_alpaca_eval")
    assert "| m | 4 | 43.750000 | 43.750000 | 37.5000 | 37.5000 | 40.00 |" in "\n".join(bench.lines(tmp_path, None))
    board.write_text(head + "m,43.750001,37.5,40\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"win_rate is 43\.75, published 43\.750001"):
        list(bench.lines(tmp_path, None))


def test_what_a_length_controlled_figure_needs_comes_out_of_released_predictions(module: Any, tmp_path: Path) -> None:
    bench, rng = module("bench_alpaca_eval"), np.random.default_rng(3)
    hard = rng.normal(size=40)
    asked = [{"instruction": f"question {n}", "dataset": "d"} for n in range(40)]
    pq.write_table(
        pa.Table.from_pylist([row | {"reference_gpt4_1106_preview": "x" * 50} for row in asked]),
        tmp_path / "alpaca_eval.parquet",
    )
    models = {"gpt4_1106_preview": (0, 0, 0), "vicuna-13b-v1.5": (-3, 1.1, -1.7), "vicuna-7b-v1.5": (-3.5, 0.9, -1.8)}
    models |= {"gpt4_1106_preview_verbose": (0.2, 0.8, -1.6), "gpt4_1106_preview_concise": (-0.3, 0.7, -1.6)}
    weights = tmp_path / "src/alpaca_eval/metrics/weights/weighted_alpaca_eval_gpt4_turbo/length_controlled_v1"
    weights.mkdir(parents=True)
    head = ",not_gamed_baseline.astype(float),instruction_difficulty,np.tanh(std_delta_len)\n"
    rows = "".join(f"{name},{a},{b},{c}\n" for name, (a, b, c) in models.items())
    (weights / "baseline_gpt4_1106_preview.csv").write_text(head + rows, encoding="utf-8")
    for name, (constant, slope, _) in models.items():
        folder = tmp_path / "results" / name
        said = [
            {**row, "glm_preference": str(1 / (1 + np.exp(-constant - slope * d))), "preference": "1.5"}
            for row, d in zip(asked, hard.tolist(), strict=True)
        ]
        judged = folder / "weighted_alpaca_eval_gpt4_turbo" / "weighted_alpaca_eval_gpt4_turbo" / "annotations.json"
        judged.parent.mkdir(parents=True)
        judged.write_text(json.dumps(said), encoding="utf-8")
        outputs = [{**row, "output": "y" * (30 + n % 7)} for n, row in enumerate(asked)]
        (folder / "model_outputs.json").write_text(json.dumps(outputs[::-1]), encoding="utf-8")
    found = bench.recovered(tmp_path, tmp_path, tmp_path)
    items = read_coefficients(str(found.items))
    assert [one.difficulty for one in items] == pytest.approx(hard.tolist())
    assert {len(one.gamed) for one in items} == {2}
    rates = {n: 100 * float((1 / (1 + np.exp(-a - b * hard))).mean()) for n, (a, b, _) in models.items()}
    board = {name: {"length_controlled_winrate": str(rate)} for name, rate in rates.items()}
    assert "5 of the 5 models" in next(bench.by_coefficients(board, found))
    board["vicuna-7b-v1.5"] = {"length_controlled_winrate": str(rates["vicuna-7b-v1.5"] + 2)}
    with pytest.raises(SystemExit, match=r"official coefficients, and 2\.00 points off"):
        list(bench.by_coefficients(board, found))
