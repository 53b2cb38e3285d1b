"""What a server says about a model that it serves, without generating anything."""

import os
from typing import Any

from fineinstructions.backends.endpoint import LlmConfig

_TIMEOUT_SECONDS = 10


def served_max_model_len(llm: LlmConfig) -> int | None:
    """Longest prompt and reply together that the server is set up for, in tokens.

    Args:
        llm: Server and model.

    Returns:
        ``max_model_len`` of the model's entry in ``/v1/models``, as vLLM and SGLang write it; None where the server
        does not say, or cannot be asked: whoever needs it to answer will meet the trouble there.
    """
    import openai

    key = os.environ.get(llm.api_key_env, "") or "none"
    try:
        with openai.OpenAI(base_url=llm.address, api_key=key, timeout=_TIMEOUT_SECONDS, max_retries=1) as server:
            entries: list[Any] = [model.model_dump() for model in server.models.list()]
    except (openai.OpenAIError, ValueError, TypeError, AttributeError):
        return None
    lengths = [entry.get("max_model_len") for entry in entries if entry.get("id") == llm.model]
    return lengths[0] if lengths and isinstance(lengths[0], int) and lengths[0] > 0 else None
