"""Who may share a batch: a reply is that of its request, whatever lies beside it; no batch is longer than the model."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import save_gpt2, save_llama, save_long_phi3

from fineinstructions.backends.completion import Completion
from fineinstructions.backends.in_process import InProcess
from fineinstructions.backends.llm import LlmConfig

pytestmark = pytest.mark.extra
pytest.importorskip("torch")
pytest.importorskip("transformers")


def spoken(reply: Completion) -> tuple[str, str, int, int]:
    return reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens


def logprobs(reply: Completion) -> list[float]:
    assert reply.logprobs
    return [token.logprob for token in reply.logprobs]


def answers(folder: Path, asked: list[tuple[int, int]], **changes: Any) -> tuple[list[Completion], int]:
    """What is said to prompts of so many tokens in replies of at most so many, asked at once; the largest batch."""
    llm = LlmConfig(engine="transformers", model=str(folder), device="cpu", **changes)

    def body(tokens: int, most: int) -> dict[str, Any]:
        text = ("where do rivers end and why do they " * 20)[: tokens - 3]  # the chat template has three of its own
        return {"messages": [{"role": "user", "content": text}], "max_tokens": most, "temperature": 0, "logprobs": True}

    async def ask() -> tuple[list[Completion], int]:
        engine = InProcess()
        try:
            made = await asyncio.gather(*(engine.complete(body(*sizes), llm, "") for sizes in asked))
            return list(made), engine.figures()["peak_in_flight"]
        finally:
            await engine.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_depend_on_the_longest_text_are_those_of_the_text_itself(tmp_path: Path, kind: str) -> None:
    if kind == "longrope":
        folder = save_long_phi3(tmp_path / "m", short_tokens=64, context_tokens=256)
        asked = [(100, 30), (110, 30), (60, 40), (70, 20), (60, 5), (55, 9), (10, 40), (20, 9)]
    else:
        rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
        folder = save_llama(tmp_path / "m", context_tokens=64, rope_parameters=rope)
        asked = [(10, 54), (50, 14), (10, 20), (20, 10)]
    together, peak = answers(folder, asked)
    alone = [answers(folder, [sizes])[0][0] for sizes in asked]
    assert [spoken(reply) for reply in together] == [spoken(reply) for reply in alone]
    assert [logprobs(reply) for reply in together] == [pytest.approx(logprobs(reply), abs=1e-4) for reply in alone]
    assert peak == 2


def test_no_position_is_asked_for_that_a_model_never_learned(tmp_path: Path) -> None:
    folder = save_gpt2(tmp_path / "m", context_tokens=32)
    replies, peak = answers(folder, [(30, 30), (6, 30), (20, 5), (24, 4)])
    assert [(reply.prompt_tokens, reply.completion_tokens) for reply in replies] == [(30, 2), (6, 26), (20, 5), (24, 4)]
    assert peak == 2


def test_a_row_of_a_batch_counts_as_long_as_the_longest_prompt_and_the_longest_reply(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "m")
    assert answers(folder, [(100, 10), (10, 100)], batch_tokens=399)[1] == 1
    assert answers(folder, [(100, 10), (10, 100)], batch_tokens=400)[1] == 2
