"""When a server has answered with another model than it was asked for."""

import pytest

from fineinstructions.backends.capabilities import is_another


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4", "gpt-4-0613"),
        ("llama-8b", "llama-8b-2026-08"),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("openai/gpt-4o", "GPT-4o"),
        ("llama3", "llama3:latest"),
        ("llama-8b", "/models/llama-8b.gguf"),
        ("org/llama-8b/", "llama-8b"),
        ("m", ""),
    ],
)
def test_the_same_model_by_another_name(asked: str, named: str) -> None:
    assert not is_another(asked, named)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
        ("gpt-4", "gpt-4o"),
        ("gpt-4", "gpt-4-32k"),
        ("gpt-4", "gpt-4.1"),
        ("llama-3", "llama-3-8b"),
        ("llama-3", "llama-3-70"),
        ("qwen-7", "qwen-72"),
        ("llama-8b", "llama-8b-instruct"),
        ("llama-8b", "qwen-8b"),
        ("4o", "gpt-4o"),
    ],
)
def test_another_model_by_a_name_alike(asked: str, named: str) -> None:
    assert is_another(asked, named)
