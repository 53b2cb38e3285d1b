"""Answers in the formats of the benchmarks' own tools, so that these can score them again.

In: items with answers and, for AlpacaEval, preferences. Out: the text of files by their path below ``responses/``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fineinstructions.evaluation.items import Answer, EvalItem, ItemScore
from fineinstructions.evaluation.mixeval import FREE_FORM, MULTIPLE_CHOICE

_KINDS = {FREE_FORM: "close_freeform", MULTIPLE_CHOICE: "close_multichoice"}
Files = dict[str, str]
"""Path and content."""


def file_name(model: str) -> str:
    """A model's name as a part of a path.

    Example:
        >>> file_name("meta-llama/Llama-3.2-1B Instruct"), file_name("../..")
        ('meta-llama_Llama-3.2-1B_Instruct', 'model')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"


def mixeval_files(name: str, version: str, model: str, answers: Sequence[tuple[EvalItem, Answer]]) -> Files:
    """As MixEval's ``compute_metrics`` reads them: a folder for the model, two files of JSON lines."""
    folder, end = f"{file_name(model)}/{name}/{version}", "_hard" if name == "mixeval_hard" else ""
    made: Files = {}
    for kind, split in _KINDS.items():
        lines = [
            {
                **item.record,
                "id": item.item_id.partition("/")[2],
                "formated_input": item.messages[-1][1],
                "response": answer.text,
            }
            for item, answer in answers
            if item.part == kind
        ]
        made[f"{folder}/{file_name(model)}_{split}{end}.jsonl"] = _lines(lines)
    return made


def mt_bench_101_files(model: str, answers: Sequence[tuple[EvalItem, Answer]]) -> Files:
    """As OpenCompass keeps predictions of its data set ``mtbench101``: an object by number, in the turns' order."""
    found = {
        str(number): {
            "gold": item.record["history"][item.record["turn"]]["bot"],
            "origin_prompt": [{"role": role, "content": text} for role, text in item.messages],
            "prediction": answer.text,
        }
        for number, (item, answer) in enumerate(answers)
    }
    return {f"{file_name(model)}/mtbench101.json": json.dumps(found, ensure_ascii=False, indent=1) + "\n"}


def alpaca_eval_files(
    model: str, judge: str, answers: Sequence[tuple[EvalItem, Answer]], scores: Mapping[str, ItemScore]
) -> Files:
    """As ``alpaca_eval`` reads them: model outputs, and annotations with preferences from 1 (baseline) to 2 (model)."""
    outputs, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for item, answer in answers:
        row, asked = item.record, {"instruction": item.messages[-1][1], "dataset": item.part}
        outputs.append({**asked, "output": answer.text, "generator": model})
        if item.item_id in scores and scores[item.item_id].is_parsed and not answer.reason:
            shown = {"output_1": row["baseline"], "generator_1": row["baseline_name"]}
            chosen = {"output_2": answer.text, "generator_2": model, "annotator": judge}
            annotations.append({**asked, **shown, **chosen, "preference": 1 + scores[item.item_id].score})
    return {
        "model_outputs.json": json.dumps(outputs, ensure_ascii=False, indent=1) + "\n",
        "annotations.json": json.dumps(annotations, ensure_ascii=False, indent=1) + "\n",
    }


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
