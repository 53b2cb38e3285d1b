"""One request per row with datatrove's inference runner: rows as JSON lines in, rows with replies as JSON lines out.

    PEER/bin/python datatrove_client.py ROWS.jsonl OUT_DIR ADDRESS WINDOW

As its documentation and examples have it: an endpoint that runs already, chat requests, checkpoints on local disk (so
that a killed run goes on), one task. Its default keeps 6,000 records in a checkpoint; here it is 500, so that a run of
a few thousand rows has any.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


async def ask(document: Document, generate: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
    """One chat request for a row."""
    return await generate({"messages": [{"role": "user", "content": document.text}]})


def main() -> None:
    """Ask about every row."""
    rows, out, address, window = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="scripted",
        endpoint_url=address.removesuffix("/v1"),
        default_generation_params={"max_tokens": 2048, "temperature": 0.0},
        max_concurrent_generations=window,
    )
    runner = InferenceRunner(
        rollout_fn=ask,
        config=config,
        output_writer=JsonlWriter(
            str(out / "replies"), output_filename="${rank}_chunk_${chunk_index}.jsonl", compression=None
        ),
        checkpoints_local_dir=str(out / "checkpoints"),
        records_per_chunk=500,
    )
    reader = JsonlReader(str(rows.parent), glob_pattern=rows.name, text_key="user", id_key="id")
    LocalPipelineExecutor(pipeline=[reader, runner], logging_dir=str(out / "logs"), tasks=1).run()


if __name__ == "__main__":
    main()
