"""Do small students work: served over HTTP, on held-out documents, how many of their replies become pairs?

Both students are served by ``transformers serve``, and `fineinstructions run` asks them as it asks any server: queries
to templates by the genericizer, templates and passages to drafts by the instantiator. The queries are those that the
run which made the rows for training held out; the embedded compatibility judge turns away what a passage does not
answer before the instantiator is asked. Counted is what the run itself files: every request ends as a pair or as
a rejection with its reason, a quotation counts where it stands in the passage letter for letter, and `verify` looks at
every one.

    python benchmarks/bench_small_students.py --genericizer FOLDER --instantiator FOLDER \
        --silver FOLDER --documents passages.parquet --work FOLDER
"""

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fineinstructions import pipeline
from fineinstructions.config import from_mapping
from fineinstructions.outcomes import attempts_of_run
from fineinstructions.recipe import RunConfig

START_SECONDS = 900
SERVER = "from transformers.cli.transformers import main; main()"
CLI = "from fineinstructions.cli import main; main()"
NUM_UNSCREENED, NUM_SCREENED_FROM = 6, 40
"""Templates of a passage that are asked for, and that the screen chooses from."""
SCREENED = "screen: incompatible"
VALID = ("pair", "judge", "select")
"""What an answer that fills its template and quotes its document can still be turned away by."""


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """Address of a server of a model."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, "-c", SERVER, *words], stdout=file, stderr=file, env=settings)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{model}: not served; see {log}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def some(path: Path, number: int, to: Path) -> str:
    """Rows from all over a file or folder, as a file."""
    table = pq.read_table(path)
    number = min(number, len(table))
    pq.write_table(table.take([row * len(table) // number for row in range(number)]), to)
    return str(to)


def recipe(args: argparse.Namespace, genericizer: str, instantiator: str) -> RunConfig:
    """The run of both students."""

    def llm(address: str, model: Path, max_tokens: int) -> dict[str, Any]:
        return {
            "base_url": address,
            "model": str(model),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "max_in_flight": 2,
            "max_reasks": 0,
        }

    queries = some(args.silver / "genericizer_validation", args.num_queries, args.work / "queries.parquet")
    documents = some(args.documents, args.num_documents, args.work / "documents.parquet")
    plain = {
        "queries": {"path": queries, "id_column": "query_id", "text_column": "query"},
        "documents": {"path": documents},
        "retrieve": {"min_cosine": 0.0},
        "excerpts": {"tolerant": False},
        "genericize": {"model": "openai", "prompt": "published", "llm": llm(genericizer, args.genericizer, 192)},
        "instantiate": {
            "model": "openai",
            "prompt": "published",
            "max_document_chars": 1000,
            "llm": llm(instantiator, args.instantiator, 256),
        },
        "compatibility": {"screen": not args.unscreened},
        "sample": {"templates_per_document": NUM_UNSCREENED if args.unscreened else NUM_SCREENED_FROM},
        "engine": {"workers": 1},
    }
    return from_mapping(plain, RunConfig, where="recipe")


def report(run: Path) -> None:
    """What became of every request."""
    outcomes = Counter(attempt.reason or "pair" for attempt in attempts_of_run(run))
    screened = outcomes.pop(SCREENED, 0)
    asked = sum(outcomes.values())
    valid = sum(number for reason, number in outcomes.items() if reason.split(":")[0] in VALID)
    print(f"{screened + asked:,} matches, {screened:,} turned away by the screen, {asked:,} instantiations asked for")
    print(f"{valid:,} valid ({valid / max(1, asked):.1%})\n")
    print("| what became of it | requests |\n| --- | --- |")
    for reason, number in outcomes.most_common():
        print(f"| {reason} | {number:,} |")
    print()
    for verb in ("status", "verify"):
        subprocess.run([sys.executable, "-c", CLI, verb, str(run)], check=verb == "verify")
    for pair in pq.read_table(run / "pairs").slice(0, 20).to_pylist():
        print(f"- {pair['instruction']}\n  {pair['answer']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("genericizer", "instantiator", "silver", "documents", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--num-queries", type=int, default=500)
    parser.add_argument("--num-documents", type=int, default=1_200)
    parser.add_argument("--unscreened", action="store_true", help="ask also what a passage does not answer")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    run = args.work / "run"
    with ExitStack() as stack:
        students = [
            stack.enter_context(served(model, args.work / f"{name}.log"))
            for name, model in (("genericizer", args.genericizer), ("instantiator", args.instantiator))
        ]
        pipeline.run(recipe(args, *students), run)
    report(run)


if __name__ == "__main__":
    main()
