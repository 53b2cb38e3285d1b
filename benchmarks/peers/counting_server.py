"""A scripted server that says how it was used, for `bench_peers`.

    python counting_server.py LATENCY_SECONDS

The first line of its output is its address; for every line on its input it tells the figures since the last one: calls,
different questions among them, seconds from the first request to the last reply, and the mean number of requests under
way in that time.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer

EVERY_SECONDS = 0.005


class Figures:
    """What happened since the last question."""

    def __init__(self) -> None:
        self.questions: Counter[str] = Counter()
        self.samples: list[tuple[float, int]] = []

    def brain(self, body: Mapping[str, Any]) -> str:
        """The reply of the ordinary brain, counted by the last message of the request."""
        self.questions[str(body["messages"][-1]["content"])] += 1
        return echo(body)

    async def watch(self, server: ScriptedServer) -> None:
        """Look at the number of requests under way again and again."""
        while True:
            if self.samples or server.in_flight:
                self.samples.append((time.monotonic(), server.in_flight))
            await asyncio.sleep(EVERY_SECONDS)

    def told(self) -> dict[str, float]:
        """The figures, which begin anew."""
        while self.samples and self.samples[-1][1] == 0:
            self.samples.pop()
        spans = [(late - early, n) for (early, n), (late, _) in zip(self.samples, self.samples[1:], strict=False)]
        seconds = sum(span for span, _ in spans)
        busy = sum(span * number for span, number in spans)
        found = {
            "calls": self.questions.total(),
            "different": len(self.questions),
            "seconds": seconds,
            "mean_in_flight": busy / seconds if seconds else 0.0,
        }
        self.questions.clear()
        self.samples.clear()
        return found


async def serve(latency_seconds: float) -> None:
    """Serve until the input ends."""
    figures = Figures()
    server = ScriptedServer(figures.brain, latency_seconds=latency_seconds)
    await server.start()
    print(server.base_url, flush=True)
    watching = asyncio.create_task(figures.watch(server))
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "figures":
            print(json.dumps(figures.told()), flush=True)
        else:
            print(json.dumps({"calls": figures.questions.total()}), flush=True)
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
