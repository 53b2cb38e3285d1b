"""Tasks of lm-eval on a checkpoint of ours, which is an ordinary folder: its own command, nothing of ours between."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import save_llama

pytestmark = [pytest.mark.extra, pytest.mark.slow]
pytest.importorskip("lm_eval")
torch = pytest.importorskip("torch")

QUESTIONS: list[dict[str, Any]] = [
    {"question": f"What is {n} and {n}?", "options": [f" {2 * n}", f" {n} it is", " no one knows"], "answer": n % 3}
    for n in range(8)
]
TASK = """task: sums
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def most_probable(folder: Path, question: str, options: list[str]) -> int:
    """The option to which the model gives the highest probability behind the question."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for option in options:
        asked = tokenizer(question)["input_ids"]
        ids = tokenizer(question + option)["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(float(logprobs[place - 1, ids[place]]) for place in range(len(asked), len(ids))))
    return max(range(len(options)), key=found.__getitem__)


def test_a_checkpoint_is_scored_on_a_task_of_lm_eval(tmp_path: Path) -> None:
    folder, tasks, out = save_llama(tmp_path / "model"), tmp_path / "tasks", tmp_path / "out"
    tasks.mkdir()
    data = tmp_path / "sums.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in QUESTIONS) + "\n", encoding="utf-8")
    (tasks / "sums.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    words = [
        "--model",
        "hf",
        "--model_args",
        f"pretrained={folder},dtype=float32",
        "--tasks",
        "sums",
        "--device",
        "cpu",
    ]
    words += ["--include_path", str(tasks), "--output_path", str(out), "--batch_size", "4"]
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "OMP_NUM_THREADS": "1",
    }
    program = "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], check=False, env={**os.environ, **offline}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (written,) = out.rglob("results_*.json")
    found = json.loads(written.read_text(encoding="utf-8"))["results"]["sums"]["acc,none"]
    right = [most_probable(folder, row["question"], row["options"]) == row["answer"] for row in QUESTIONS]
    assert found == pytest.approx(sum(right) / len(right))
    assert 0 < sum(right) < len(right), "a figure that a broken command could not give by itself"
