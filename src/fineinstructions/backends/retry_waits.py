"""How long a request waits before it is made again, and how long a server that answers nothing is asked.

In: the limits of asking. Out: seconds. The decision a reader would question: the jitter of a wait depends on the
request, never on chance, so that a run can be repeated.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fineinstructions.backends.llm_config import LlmConfig

LONGEST_WAIT_SECONDS = 30.0


def wait_before_retry(body: Mapping[str, Any], attempt: int, llm: LlmConfig) -> float:
    """Seconds before a request is made again.

    Args:
        body: The request.
        attempt: Attempts that were made before the one that failed.
        llm: Limits of asking.
    """
    seed = hashlib.blake2b(f"{attempt}{json.dumps(body, sort_keys=True)}".encode(), digest_size=8).digest()
    jitter = int.from_bytes(seed, "little") / 2**64
    return _longest_wait(attempt, llm) * (0.5 + 0.5 * jitter)


def patience_seconds(llm: LlmConfig, attempt_seconds: float) -> float:
    """Seconds for which servers are asked, at most, that answer nothing.

    As many rounds of all slots as it takes to give up the failures in a row that end a run.

    Args:
        llm: Limits of asking.
        attempt_seconds: What one attempt takes.

    Example:
        >>> patience_seconds(LlmConfig(max_retries=2, backoff_seconds=1.0, max_failures_in_a_row=20), 0.0)
        3.0
    """
    waits = sum(_longest_wait(attempt, llm) for attempt in range(llm.max_retries))
    rounds = -(-llm.max_failures_in_a_row // llm.max_in_flight)
    return rounds * (waits + (llm.max_retries + 1) * attempt_seconds)


def _longest_wait(attempt: int, llm: LlmConfig) -> float:
    return min(LONGEST_WAIT_SECONDS, llm.backoff_seconds * float(2**attempt))
