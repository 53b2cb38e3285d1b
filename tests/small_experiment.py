"""A whole experiment that takes seconds: a few texts, two arms, a model of a few thousand weights."""

import json
from pathlib import Path
from typing import Any

import yaml
from small_run import pair_of, some_texts, write_run

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}


def write_model(folder: Path) -> str:
    """A config.json; its path."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
    return str(folder / "config.json")


def write_held_out(folder: Path) -> dict[str, Any]:
    """Questions, answers and texts; the section that reads them."""
    rows = [dict(zip(("id", "question", "answer"), (f"q{n}", *pair_of(n, n)), strict=True)) for n in range(70)]
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    texts = [{"id": f"t{n}", "text": text} for n, text in enumerate(some_texts(6))]
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    return {
        "questions": [{"name": "qa", "path": str(folder / "qa.jsonl")}],
        "texts": [{"name": "raw", "path": str(folder / "raw.jsonl")}],
        "generate": {"items": 2, "forms": ["lines"], "max_new_tokens": 3},
        "device": "cpu",
    }


def write_experiment(folder: Path, **changes: Any) -> Path:
    """A recipe with its run, its model and its questions."""
    plain: dict[str, Any] = {
        "run": str(write_run(folder, some_texts(40), lambda n: n % 3)),
        "arms": ["standard", "fineinstructions"],
        "tokenizer": {"vocab_size": 300},
        "models": [write_model(folder / "tiny")],
        "tokens": 640,
        "pretrain": {
            "seq_len": 32,
            "sequences_per_step": 2,
            "save_every_steps": 2,
            "log_every_steps": 1,
            "device": "cpu",
        },
        "seeds": [1],
        "scores": write_held_out(folder),
        "resamples": 20,
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(plain | changes), encoding="utf-8")
    return path


def table_of(out: Path) -> dict[str, Any]:
    """The table without what a clock measured."""
    plain: dict[str, Any] = json.loads((out / "table.json").read_text(encoding="utf-8"))
    plain["figures"] = [f for f in plain["figures"] if not f["measure"].startswith("seconds")]
    for row in (*plain["arms"], *plain["per_parameter_and_flop"]):
        row.pop("seconds_per_answer")
    return plain | {"title": ""}
