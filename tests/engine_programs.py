"""Programs named ``vllm`` and ``sglang`` that take the options which those document, and serve the scripted replies.

What a program does beside that stands in ``behaviour.json`` in its folder; every start adds a line to ``starts.jsonl``.
"""

import contextlib
import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_inputs import EXAMPLES, take_documents, write_recipe

import fineinstructions

MODEL = "acme/large"
SOURCE = Path(fineinstructions.__file__).parent.parent

PROGRAM = '''#!{python}
"""Not a model server: the options of one, and scripted replies."""
import argparse, asyncio, json, os, subprocess, sys, time
from pathlib import Path

here, name = Path(__file__).resolve().parent, Path(__file__).name
seen = dict(os.environ)
sys.path.insert(0, {source!r})
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer

if sys.argv[1:] in (["--version"], ["version"]):
    print("0.30.1" if name == "vllm" else "sglang version: 0.6.2\\ngit revision: abcdef0")
    sys.exit()
parser = argparse.ArgumentParser(prog=name)
command = parser.add_subparsers(dest="command", required=True).add_parser("serve")
command.add_argument("model_tag") if name == "vllm" else command.add_argument("--model-path", required=True)
command.add_argument("--served-model-name", required=True)
command.add_argument("--host", default="0.0.0.0")
command.add_argument("--port", type=int, required=True)
command.add_argument("--revision")
command.add_argument("--tensor-parallel-size", type=int)
command.add_argument("--max-model-len" if name == "vllm" else "--context-length", type=int)
if name == "vllm":
    command.add_argument("--disable-uvicorn-access-log", action="store_true")
else:
    command.add_argument("--log-level-http")
    command.add_argument("--config")
options = vars(parser.parse_args())
key = os.environ.get("VLLM_API_KEY") if name == "vllm" else None
if options.get("config"):
    import yaml
    place = Path(options["config"])
    assert place.stat().st_mode & 0o077 == 0, "others can read the key"
    key = yaml.safe_load(place.read_text())["api-key"]
behaviour = json.loads((here / "behaviour.json").read_text())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with (here / "starts.jsonl").open("a") as file:
    pids = [os.getpid(), child.pid]
    file.write(json.dumps(dict(options=options, environment=seen, key=key, pids=pids)) + "\\n")
number = len((here / "starts.jsonl").read_text().splitlines())
print(f"api_key={{key}}: loading", flush=True)  # as real ones have been known to do
if behaviour.get("dies_at_start"):
    sys.exit("RuntimeError: CUDA out of memory")
while behaviour.get("waits_for") and not Path(behaviour["waits_for"]).exists():
    time.sleep(0.05)
left = behaviour.get("dies_after", [])[number - 1:][:1]

def brain(body):
    if left:
        left[0] -= 1
        if left[0] < 0:
            print("the engine core died", flush=True)
            os._exit(7)
    return echo(body)

async def serve():
    server = ScriptedServer(
        brain, api_key=key, models=(options["served_model_name"],), host=options["host"], port=options["port"],
        latency_seconds=behaviour.get("latency_seconds", 0.0),
    )
    await server.start()
    await asyncio.Event().wait()

asyncio.run(serve())
'''


def write_program(folder: Path, name: str, **behaviour: Any) -> Path:
    """A program that serves; gives its path.

    Args:
        folder: Its folder, made if it is not there.
        name: ``vllm`` or ``sglang``.
        behaviour: ``dies_at_start``; ``waits_for`` a file before it listens; ``dies_after`` so many questions, one
            number for each of its first starts; ``latency_seconds``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    behave(folder, **behaviour)
    program = folder / name
    program.write_text(PROGRAM.format(python=sys.executable, source=str(SOURCE)), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def behave(folder: Path, **behaviour: Any) -> None:
    """From its next start on a program behaves like this."""
    (folder / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")


def starts(folder: Path) -> list[dict[str, Any]]:
    """What the programs of a folder were started with, one after the other."""
    file = folder / "starts.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def recipe_for(folder: Path, llm: dict[str, Any], judge: dict[str, Any] | None = None) -> Path:
    """All three stages ask a model, the judge perhaps another."""
    folder.mkdir(exist_ok=True)
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", 8, every=50),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": 20},
        llm={"max_in_flight": 8, "backoff_seconds": 0.01, **llm},
        genericize={"model": "openai"},
        instantiate={"model": "openai"},
        judge={"model": "openai", "max_template_share": 1.0, "llm": judge or {}},
        retrieve={"min_cosine": 0.0},
        engine={"workers": 1, "unit_rows": 2, "query_unit_rows": 10},
    )


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_for(condition: Callable[[], Any], driver: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 60
    while not condition() and (driver is None or driver.poll() is None):
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.02)


def expect_gone(folder: Path) -> None:
    """No process of any start is left, also not the child that each has put into a session of its own."""
    pids = [pid for start in starts(folder) for pid in start["pids"]]
    assert pids
    wait_for(lambda: not any(map(is_alive, pids)))
