"""One request per row with NeMo Curator: rows as JSON lines in, rows with replies as JSON lines out.

    PEER/bin/python nemo_curator_client.py ROWS.jsonl OUT_DIR ADDRESS WINDOW

As its documentation of synthetic text has it: a reader, a stage with a prompt and the asynchronous OpenAI client, a
writer, and the pipeline's default executor.
"""

import sys
from pathlib import Path

from nemo_curator.core.client import RayClient
from nemo_curator.models.client.llm_client import GenerationConfig
from nemo_curator.models.client.openai_client import AsyncOpenAIClient
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.synthetic.nemotron_cc.base import BaseSyntheticStage
from nemo_curator.stages.text.io.reader import JsonlReader
from nemo_curator.stages.text.io.writer import JsonlWriter


def main() -> None:
    """Ask about every row."""
    rows, out, address, window = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    stage = BaseSyntheticStage(
        prompt="{document}",
        input_field="user",
        output_field="reply",
        client=AsyncOpenAIClient(api_key="none", base_url=address, max_concurrent_requests=window),
        model_name="scripted",
        generation_config=GenerationConfig(max_tokens=2048, temperature=0.0),
    )
    pipeline = Pipeline(name="fixed-prompt", stages=[JsonlReader(rows), stage, JsonlWriter(str(out / "replies"))])
    with RayClient():
        pipeline.run()


if __name__ == "__main__":
    main()
