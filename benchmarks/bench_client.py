"""The chat client against the bare `openai` client: requests per second, and processor time per request.

    python benchmarks/bench_client.py --out benchmarks/results/NAME.md

Both ask the same scripted server, which runs in a process of its own, through windows of the same size. They take
turns, and what is compared is the ratio inside a round, because other work on the machine slows both. The bare client
is `AsyncOpenAI` with a semaphore, one task per request: no retries, no cache, no checks. Ours is measured without and
with a response cache on disk, as a run has it.
"""

import argparse
import asyncio
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import ChatClient, ChatRequest, LlmConfig

MODEL = "scripted"
SYSTEM = "Turn the query into an instruction template and describe a compatible document. Reply with JSON. " * 12
"""About as long as our own prompts."""


@dataclass(frozen=True)
class Measured:
    """What one client needed for all requests."""

    requests_per_second: float
    cpu_microseconds: float
    """Processor time of this process per request."""


def texts(number: int, salt: int) -> list[str]:
    return [f"How do I repair the number {n} gear of a bicycle made in {salt}?" for n in range(number)]


def timed(work: Callable[[], int], number: int) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    answered = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert answered == number, f"{answered} of {number} answered"
    return Measured(number / wall, cpu / number * 1e6)


def ask_with_ours(address: str, asked: list[str], window: int, cache_dir: Path | None) -> int:
    llm = LlmConfig(base_url=address, model=MODEL, max_in_flight=window)
    cache = ResponseCache(cache_dir) if cache_dir else None
    with ChatClient(llm, cache) as client:
        futures = [client.submit(ChatRequest((("system", SYSTEM), ("user", text)))) for text in asked]
        return sum(bool(future.result().text) for future in futures)


def ask_with_the_bare_client(address: str, asked: list[str], window: int) -> int:
    async def ask_all() -> int:
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            semaphore = asyncio.Semaphore(window)

            async def ask(text: str) -> bool:
                async with semaphore:
                    reply = await client.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
                        max_tokens=2048,
                        temperature=0.0,
                    )
                return bool(reply.choices[0].message.content)

            return sum(await asyncio.gather(*map(ask, asked)))

    return asyncio.run(ask_all())


@contextmanager
def scripted_server(latency_seconds: float) -> Iterator[str]:
    """Address of a scripted server in a process of its own."""
    words = ["--port", "0", "--latency-seconds", str(latency_seconds)]
    command = [sys.executable, "-m", "fineinstructions.backends.scripted_server", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def compare(number: int, window: int, latency_seconds: float, rounds: int) -> Iterator[dict[str, Measured]]:
    """Every client's figures, one round after the other."""
    with scripted_server(latency_seconds) as address, tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, rounds):  # the first round warms up
            asked = texts(number, 1900 + turn)
            cache_dir = Path(folder) / str(turn)
            clients: dict[str, Callable[[], int]] = {
                "bare": lambda asked=asked: ask_with_the_bare_client(address, asked, window),
                "ours": lambda asked=asked: ask_with_ours(address, asked, window, None),
                "ours, cache": lambda asked=asked, place=cache_dir: ask_with_ours(address, asked, window, place),
            }
            order = list(clients) if turn % 2 else list(reversed(clients))
            found = {name: timed(clients[name], number) for name in order}
            if turn >= 0:
                yield found


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rows(measured: list[dict[str, Measured]], latency_seconds: float) -> Iterator[str]:
    for name in ("bare", "ours", "ours, cache"):
        rate = [m[name].requests_per_second for m in measured]
        cpu = [m[name].cpu_microseconds for m in measured]
        rate_ratio = [m[name].requests_per_second / m["bare"].requests_per_second for m in measured]
        cpu_ratio = [m[name].cpu_microseconds / m["bare"].cpu_microseconds for m in measured]
        yield (
            f"| {latency_seconds * 1000:.0f} | {name} | {spread(rate, 0)} | {spread(rate_ratio)} | {spread(cpu, 0)} "
            f"| {spread(cpu_ratio)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--latency-seconds", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--out", type=Path, help="Markdown file of the result")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    lines = [
        f"# The chat client against the bare `openai` client, {datetime.date.today()}",
        "",
        f"`python benchmarks/bench_client.py --requests {options.requests} --window {options.window} --rounds "
        f"{options.rounds} --latency-seconds {' '.join(map(str, options.latency_seconds))}`, {os.cpu_count()} "
        f"processors ({platform.machine()}), load {load:.1f} at the start, Python {platform.python_version()}, openai "
        f"{openai.__version__}. Median (least to most) of {options.rounds} rounds in turns; ratios are those inside a "
        "round. Processor time is that of the client's process; the server has its own.",
        "",
        "| mean latency of the server, ms | client | requests per second | against bare | processor time per request, "
        "us | against bare |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for latency_seconds in options.latency_seconds:
        measured = list(compare(options.requests, options.window, latency_seconds, options.rounds))
        lines += rows(measured, latency_seconds)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
