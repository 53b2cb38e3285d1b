"""Small benchmarks of our own in the formats of MixEval, MT-Bench-101 and AlpacaEval."""

import gzip
import json
from pathlib import Path
from typing import Any

FREE_FORM = {
    "0": {"problem_type": "free-form", "context": None, "prompt": "What runs through the old town?",
          "target": ["the Elm", "River Elm"], "benchmark_name": "TriviaQA"},
    "1": {"problem_type": "free-form", "context": "The mill ground 40 sacks on Monday and 25 on Tuesday.",
          "prompt": "How many more sacks on Monday?", "target": ["15"], "benchmark_name": "DROP"},
    "2": {"problem_type": "free-form", "context": "none", "prompt": "Ann has 3 jars and buys 4. How many are there?",
          "target": ["7"], "benchmark_name": "GSM8k"},
}  # fmt: skip
MULTIPLE_CHOICE = {
    "0": {"problem_type": "multiple-choice", "context": "none", "prompt": "Which is a bird?",
          "options": ["trout", "heron", "otter", "newt"], "target": [1], "benchmark_name": "MMLU"},
    "1": {"problem_type": "multiple-choice", "context": "The bridge was built of stone.",
          "prompt": "is the bridge made of wood", "options": ["Yes", "No"], "target": [1], "benchmark_name": "BoolQ"},
}  # fmt: skip
DIALOGUES: list[dict[str, Any]] = [
    {"task": "CM", "id": 1, "history": [
        {"user": "My boat is called Wren.", "bot": "A fine name."},
        {"user": "What is it called?", "bot": "Wren, gold says."},
        {"user": "And is it a car?", "bot": "No, a boat."}]},
    {"task": "GR", "id": 2, "history": [
        {"user": "A is taller than B. Who is shorter?", "bot": "B is shorter, gold says."},
        {"user": "C is shorter than B. Who is shortest?", "bot": "C is shortest, gold says."}]},
    {"task": "SI", "id": 3, "history": [
        {"user": "Explain a word for me.", "bot": "Which word?"},
        {"user": "Estuary.", "bot": "The mouth of a river."}]},
]  # fmt: skip
INSTRUCTIONS = [
    {"instruction": "Name three rivers.", "dataset": "helpful", "output": "Elm, Ash and Oak.", "generator": "base"},
    {"instruction": "Why is bread brown?", "dataset": "helpful", "output": "It is baked." * 4, "generator": "base"},
    {"instruction": "Write a line about rain.", "dataset": "poems", "output": "It rains.", "generator": "base"},
]


def write_benchmarks(folder: Path) -> Path:
    """A folder as `data` wants it: all benchmarks in their places."""
    for split in ("mixeval", "mixeval-hard"):
        place = folder / "mixeval" / "mixeval-2024-08-11" / split
        place.mkdir(parents=True)
        for kind, rows in (("free-form", FREE_FORM), ("multiple-choice", MULTIPLE_CHOICE)):
            with gzip.open(place / f"{kind}.json.gz", "wt", encoding="utf-8") as file:
                json.dump(rows, file)
    (folder / "mtbench101").mkdir()
    lines = "".join(f"{json.dumps(row)}\n" for row in DIALOGUES)
    (folder / "mtbench101" / "mtbench101.jsonl").write_text(lines, encoding="utf-8")
    (folder / "alpaca_eval").mkdir()
    (folder / "alpaca_eval" / "alpaca_eval.json").write_text(json.dumps(INSTRUCTIONS), encoding="utf-8")
    return folder
