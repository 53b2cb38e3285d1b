"""One request per row with distilabel: rows as JSON lines in, rows with replies as Parquet out.

    PEER/bin/python distilabel_client.py ROWS.jsonl OUT_DIR ADDRESS WINDOW

As its documentation has it: a generator step, a `TextGeneration` task with `OpenAILLM`, the pipeline's cache on, so
that a killed run goes on. It asks batch by batch, so the batch is as large as the window.
"""

import json
import sys
from pathlib import Path

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def main() -> None:
    """Ask about every row."""
    rows, out, address, window = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    data = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    with Pipeline(name="fixed-prompt", cache_dir=out / "cache") as pipeline:
        load = LoadDataFromDicts(
            data=[{"id": row["id"], "instruction": row["user"]} for row in data], batch_size=window
        )
        llm = OpenAILLM(
            model="scripted",
            base_url=address,
            api_key="none",
            generation_kwargs={"max_new_tokens": 2048, "temperature": 0.0},
        )
        load >> TextGeneration(llm=llm, input_batch_size=window)
    found = pipeline.run(use_cache=True)
    (out / "replies").mkdir(exist_ok=True)
    found["default"]["train"].to_parquet(str(out / "replies" / "replies.parquet"))


if __name__ == "__main__":
    main()
