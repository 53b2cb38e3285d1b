"""How fast a model trains, and how much of the device that uses.

    python benchmarks/bench_pretrain.py --documents D.parquet --model 5m --seq-len 512 --out benchmarks/results/NAME.md

A corpus of bytes is exported from the documents and trained on for some steps through `pretrain`; beside it, in turn,
a plain loop of forward, backward and AdamW on random tokens of the same shape, in the same precision. Told are tokens a
second of both and their ratio turn by turn, which a busy machine slows alike, and the share of the device's most
operations, where that is known. The first lines of a training, in which things are compiled and loaded, do not count.
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_export import write_run

from fineinstructions.backends.tokenizer import ByteTokenizer
from fineinstructions.corpora import export
from fineinstructions.pretraining import plan_pretraining, pretrain
from fineinstructions.training.metrics import read_metrics
from fineinstructions.training.models import build_model, model_config, peak_flops
from fineinstructions.training.plan import Plan


def by_the_trainer(recipe: dict[str, Any], out: Path) -> float:
    """Tokens a second of the later half of a training."""
    lines = read_metrics(pretrain(recipe, out).metrics)
    return statistics.median(line["tokens_per_second"] for line in lines[len(lines) // 2 :])


def by_a_plain_loop(recipe: dict[str, Any], device: str, steps: int) -> float:
    """Tokens a second of forward, backward and AdamW alone."""
    import torch

    config = model_config(recipe["model"], ByteTokenizer.facts, recipe["seq_len"])
    model = build_model(config, 0, like_lingua=True).to(device).train()
    model.config.use_cache = False
    adam = torch.optim.AdamW(model.parameters(), fused=device == "cuda")
    shape = (recipe["micro_batch"], recipe["seq_len"])
    times = recipe["sequences_per_step"] // recipe["micro_batch"]
    tokens = torch.randint(0, 256, shape, device=device)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        for _ in range(times):
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                (model(input_ids=tokens, labels=tokens).loss / times).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        adam.step()
        adam.zero_grad()
        seconds.append(time.perf_counter() - began)
    return tokens.numel() * times / statistics.median(seconds[len(seconds) // 2 :])


def report(found: list[tuple[float, float]], plan: Plan, peak: float | None) -> list[str]:
    """Rows of the report."""
    lines = ["| what | tokens/s | operations/s | of the device's most |", "| --- | --- | --- | --- |"]
    for name, column in (("pretrain", 0), ("plain loop", 1)):
        speed = statistics.median(row[column] for row in found)
        work = speed * plan.flops_per_token
        share = f"{100 * work / peak:.1f} %" if peak else "not known"
        lines.append(f"| {name} | {speed:,.0f} | {work:.3g} | {share} |")
    ratios = [a / b for a, b in found]
    told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return [*lines, "", f"`pretrain` has {told} of the plain loop's speed."]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="Parquet with the columns id and text")
    parser.add_argument("--model", default="5m")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--sequences", type=int, default=8, help="of a step")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} processor"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = write_run(folder, options.documents, 1)
        export(run, folder / "c", overrides=["arms=[standard]", "engine.workers=0"])
        recipe = {
            "corpora": str(folder / "c"), "arm": "standard", "model": options.model, "seq_len": options.seq_len,
            "sequences_per_step": options.sequences, "micro_batch": options.micro_batch, "steps": options.steps,
            "epochs": 1000, "log_every_steps": 1, "save_every_steps": options.steps, "compile": options.compile,
            "packed_dir": str(folder / "packed"),
        }  # fmt: skip
        plan = plan_pretraining(recipe)
        found = [
            (by_the_trainer(recipe, folder / f"m{turn}"), by_a_plain_loop(recipe, device, options.steps))
            for turn in range(options.turns)
        ]
    lines = [
        f"# Training, {datetime.date.today()}",
        "",
        f"`bench_pretrain.py --model {options.model} --seq-len {options.seq_len} --sequences {options.sequences}"
        f" --micro-batch {options.micro_batch} --steps {options.steps} --turns {options.turns}"
        f"{' --compile' if options.compile else ''}` on {name}, {torch.get_num_threads()} threads, torch"
        f" {torch.__version__}, load {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors. Medians of"
        f" {options.turns} turns; {plan.num_parameters:,} parameters, {plan.flops_per_token:.3g} operations a token.",
        "",
        *report(found, plan, peak_flops(name)),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
