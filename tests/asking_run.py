"""A run of one phase whose workers ask a model server about every row: what tests of shared limits run.

Every unit asks one question per row and writes the replies; what a worker process has committed stands in its units.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.backends.llm import ChatClient, ChatRequest, LlmConfig
from fineinstructions.backends.ordered import in_order
from fineinstructions.config import to_plain
from fineinstructions.engines.engine import LaunchConfig, open_engine
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.tally import Outcome
from fineinstructions.engines.worker import Job
from fineinstructions.records import Document
from fineinstructions.runs import Phase, RunFolder, Unit, UnitSpec, describe_parquet, plan_units


@dataclass(frozen=True)
class Asking:
    """Settings of a run."""

    out: str
    llm: LlmConfig
    workers: int = 1
    rows: int = 120
    rows_per_unit: int = 10
    engine: str = "local"


class Asker:
    """The chat client of a worker, and a file that tells its process."""

    def __init__(self, asking: Asking) -> None:
        self.client = ChatClient(asking.llm)
        (Path(asking.out).parent / f"worker-{os.getpid()}").touch()

    def look_again(self) -> None:
        self.client.look_again()

    def close(self) -> None:
        self.client.close()


def ask(unit: Unit, models: Asker, asking: Asking) -> None:
    def start(document: Document) -> Any:
        return models.client.submit(ChatRequest((("user", document.text),)))

    def replies(documents: Iterator[Document]) -> Iterator[Document]:
        for document, future in in_order(documents, start, ahead=asking.llm.ahead):
            yield Document(document.document_id, future.result().text)

    unit.write(unit.through("ask", unit.keep("read", unit.rows(Document)), replies), Document)


def job_of(asking: Asking) -> Job[Asker, Asking]:
    """The one job of a run, whose folder is made for it."""
    run = RunFolder.create_or_open(asking.out, {}, [Phase("ask", "1", entry="read")])
    settings_file(run.root).write_text(json.dumps(asdict(asking) | {"llm": to_plain(asking.llm)}), encoding="utf-8")
    return Job(run, "ask", ask, Asker, asking, open_units=3, asks_servers=True, reopen=reopen)


def settings_file(root: Path) -> Path:
    return root.with_suffix(".asking.json")


def reopen(root: Path) -> Asking:
    """The settings of a run, for tasks of Slurm."""
    plain = json.loads(settings_file(root).read_text(encoding="utf-8"))
    return Asking(**{**plain, "llm": LlmConfig(**plain["llm"])})


def plan(job: Job[Asker, Asking]) -> list[UnitSpec]:
    """Its units; the run's lease is held by the caller."""
    texts = [f"question {n}" for n in range(job.config.rows)]
    path = job.run.root.parent / "rows.parquet"
    pq.write_table(pa.table({"document_id": texts, "text": texts}), path)
    return job.run.todo("ask", plan_units([describe_parquet(path)], 1 << 20, job.config.rows_per_unit))


def run_asking(asking: Asking, note: Any = print) -> Outcome:
    """Do the run; outcome of its phase."""
    job = job_of(asking)
    slurm = SlurmConfig(poll_seconds=0.1, time_minutes=5)
    launch = LaunchConfig(kind=asking.engine, workers=asking.workers, slurm=slurm)
    with job.run.lease(), open_engine(job.run, launch, [], note) as engine:
        return engine.run_units(job, plan(job))
