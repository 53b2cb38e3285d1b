"""A toy pipeline over real Parquet files, for tests of the run folder and the engines; also a driver to be killed.

Documents -> one match per document -> one pair per match -> published tables. A word in a document's text decides its
fate: SKIP and LOW are rejected, KILL and (in the second phase) LATE kill the worker, TASK kills the worker's parent,
RAISE, DATA, CONFIG, BACKEND and FULL raise, FILL fills the disk and raises, HUNGRY wants more memory than there is, and
BROKEN raises as long as there is a file `broken` beside the run.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import pyarrow.parquet as pq

from fineinstructions.config import digest
from fineinstructions.engines.engine import Engine, LaunchConfig, open_engine
from fineinstructions.engines.resources import Resources
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.tally import Outcome
from fineinstructions.engines.worker import Job
from fineinstructions.errors import BackendError, ConfigError, DataError, FineInstructionsError
from fineinstructions.records import Document, Excerpt, Match, Pair, Rejection, content_id, rejection, to_table
from fineinstructions.runs import (
    Finding,
    Phase,
    RunFolder,
    Unit,
    UnitSpec,
    describe_parquet,
    packing,
    packs,
    plan_units,
    read_table,
    single_unit,
    verify,
)
from fineinstructions.runs.lease import lease_token
from fineinstructions.runs.tables import tables_of

LINKS = [("read", "match"), ("judge", "select")]
PUBLISHED = {"pairs": "select", "matches": "match"}


@dataclass(frozen=True)
class Toy:
    """Settings of the toy pipeline."""

    inputs: tuple[str, ...]
    out: str
    engine: Literal["local", "ray", "slurm"] = "local"
    workers: int = 0
    open_units: int = 1
    gpus: float = 0
    could_use_gpu: bool = False
    slurm: dict[str, Any] = field(default_factory=dict)
    unit_rows: int = 10
    min_score: int = 2
    words: int = 3
    seconds: float = 0.0
    """Pause per document, so that there is something to kill."""
    lease_seconds: float = 120.0
    redo: bool = False
    retry_failed: bool = False
    pack: tuple[int, int] | None = None
    """Units in a pack, and units that may stay loose; ``None`` for those of every run."""
    die_packing: Literal["", "before", "after"] = ""
    """Where the driver is killed: with a pack half written, or with its first folder not yet gone."""

    def settings(self) -> dict[str, object]:
        return {"match": {"words": self.words}, "select": {"min_score": self.min_score}, "workers": self.workers}

    def phases(self) -> list[Phase]:
        return [
            Phase("matches", digest(self.words), entry="read"),
            Phase("pairs", "v1", upstream=("matches",), entry="judge", entry_figure="match"),
            Phase("assemble", digest(self.min_score), upstream=("matches", "pairs")),
        ]


def write_documents(path: Path, texts: Iterable[str], first: int = 0, row_group_size: int = 20) -> Path:
    documents = [Document(document_id=f"d{first + i}", text=text) for i, text in enumerate(texts)]
    pq.write_table(to_table(documents, Document), path, row_group_size=row_group_size)
    return path


def some_texts(number: int) -> list[str]:
    """Documents of three words or more, every seventh of them turned away by one stage or another."""
    turned_away = {3: "", 10: "SKIP this one", 17: "LOW in score"}
    return [turned_away.get(i % 21, f"the number {i} is {i * i} squared") for i in range(number)]


def documents(folder: Path, fates: dict[int, str], number: int = 60) -> str:
    """A file of documents, some of which are replaced by a word that decides their fate."""
    texts = [fates.get(i, text) for i, text in enumerate(some_texts(number))]
    return str(write_documents(folder / "documents.parquet", texts))


def accepted(spec: UnitSpec) -> Iterator[Document]:
    documents = read_table(Path(spec.path), Document, spec.row_start, spec.row_stop)
    return (document for document in documents if document.text)


def read(documents: Iterable[Document]) -> Iterator[Document | Rejection]:
    for document in documents:
        yield document if document.text else rejection("read", "empty", document.document_id, document)


def meet_fate(text: str) -> None:
    if "KILL" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "TASK" in text:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # the worker dies with its parent
    if "FULL" in text:
        Path("/dev/full").write_text("x")
    if "HUNGRY" in text:
        bytearray(1 << 40)
    if "RAISE" in text:
        raise RuntimeError("the text said so")
    for word, error in {"DATA": DataError, "CONFIG": ConfigError, "BACKEND": BackendError}.items():
        if word in text:
            raise error(f"{word.lower()} trouble")


def pause(seconds: float) -> None:
    """Sleep; under libfaketime `time.sleep` fails."""
    threading.Event().wait(seconds)


def fill_disk(folder: Path) -> NoReturn:
    """Write until nothing more fits, then have another trouble."""
    try:
        with (folder / "tmp-filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        raise RuntimeError("the text said so, and the disk is full") from None


@dataclass(frozen=True)
class ToyModels:
    closed: Path
    name: str = "toy model"

    def look_again(self) -> None:
        with self.closed.with_suffix(".again").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def close(self) -> None:
        with self.closed.open("a") as file:
            file.write(f"{os.getpid()}\n")
        with self.closed.with_suffix(".gpus").open("a") as file:
            file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "-") + "\n")
        with self.closed.with_suffix(".niceness").open("a") as file:
            file.write(f"{os.nice(0)}\n")


def find_matches(unit: Unit, models: ToyModels, toy: Toy) -> None:
    def match(documents: Iterator[Document]) -> Iterator[Match | Rejection]:
        for document in documents:
            pause(toy.seconds)
            meet_fate(document.text)
            if "FILL" in document.text:
                fill_disk(Path(toy.out))
            if "BROKEN" in document.text and (Path(toy.out).parent / "broken").exists():
                raise OSError("a disk is full somewhere")
            words = len(document.text.split()[: toy.words])
            if "SKIP" in document.text:
                yield rejection("match", "skipped", document.document_id, document, value=0.5)
            else:
                yield Match(document.document_id, content_id("t", models.name, str(words)), 0, 1 / words)

    documents = unit.keep("read", read(unit.rows(Document)))
    unit.count("calls", unit.write(unit.through("match", documents, match), Match))


def make_pairs(unit: Unit, models: ToyModels, toy: Toy) -> None:
    texts = {document.document_id: document.text for document in unit.rows(Document)}

    def judge(matches: Iterator[Match]) -> Iterator[Pair | Rejection]:
        for match in matches:
            pause(toy.seconds)
            text = texts[match.document_id]
            meet_fate(text.replace("LATE", "KILL"))
            yield a_pair(match, text, score=1 if "LOW" in text else 3)

    unit.write(unit.through("judge", unit.read(Match, phase="matches"), judge), Pair)


def a_pair(match: Match, text: str, score: int) -> Pair:
    answer = text[4:]
    return Pair(
        pair_id=content_id("p", match.document_id, match.template_id),
        document_id=match.document_id,
        template_id=match.template_id,
        query_ids=("q1",),
        chunk=0,
        cosine=match.cosine,
        instruction="Which number?",
        answer=answer,
        slots=(),
        excerpts=(Excerpt(0, len(answer), 4, len(text)),),
        excerpt_ratio=1.0,
        coverage_ratio=1.0,
        judge_score=score,
        judge_feedback="",
        models="{}",
        licence="",
        template_licence="",
        source="",
        title="",
        url="",
        metadata="{}",
        text="",
    )


def build_models(toy: Toy) -> ToyModels:
    return ToyModels(Path(toy.out).with_suffix(".closed"))


class Unclosable(ToyModels):
    def close(self) -> None:
        raise TimeoutError("no answer")


class Endless(ToyModels):
    def close(self) -> None:
        time.sleep(60)


def build_what_cannot_be_closed(toy: Toy) -> ToyModels:
    return Unclosable(Path(toy.out))


def build_what_never_closes(toy: Toy) -> ToyModels:
    return Endless(Path(toy.out))


def build_nothing(toy: Toy) -> ToyModels:
    raise ConfigError("model.path: no such model")


def build_and_die(toy: Toy) -> ToyModels:
    os._exit(3)


def engine_of(toy: Toy, run: RunFolder, note: Callable[[str], None]) -> Engine:
    """The engine that the settings name, over real Slurm or Ray where they name it."""
    slurm = SlurmConfig(**{"poll_seconds": 0.1, "time_minutes": 5, **toy.slurm})
    launch = LaunchConfig(kind=toy.engine, workers=toy.workers, open_units=toy.open_units, slurm=slurm)
    return open_engine(run, launch, [], note, again=command_of(toy))


def job_of(
    toy: Toy, run: RunFolder, phase: str, build: Callable[[Toy], ToyModels] | None = None
) -> Job[ToyModels, Toy]:
    """One of the two phases that have workers."""
    work = {"matches": find_matches, "pairs": make_pairs}[phase]
    given = Resources(gpus=toy.gpus)
    job = Job(run, phase, work, build or build_models, toy, toy.open_units, given, reopen=reopen)
    return replace(job, could_use_gpu=toy.could_use_gpu)


def lease_of(run: RunFolder) -> str:
    return lease_token(run.lease_file)


def settings_file(root: Path) -> Path:
    return root.with_suffix(".toy.json")


def reopen(root: Path) -> Toy:
    """The settings of a run, for tasks of Slurm."""
    return from_argument(settings_file(root).read_text(encoding="utf-8"))


def run_toy(
    toy: Toy,
    build: Callable[[Toy], ToyModels] | None = None,
    between: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run all phases and publish; returns the outcome of the two phases that have workers."""
    run = RunFolder.create_or_open(toy.out, toy.settings(), toy.phases(), redo=toy.redo)
    launched = engine_of(toy, run, note)
    settings_file(run.root).write_text(as_argument(toy), encoding="utf-8")
    outcomes = []
    with run.lease(store_seconds=toy.lease_seconds), packing_of(toy), launched as engine:
        specs = plan_units([describe_parquet(path) for path in toy.inputs], 1 << 20, toy.unit_rows)
        for phase in ("matches", "pairs"):
            todo = run.todo(phase, specs, retry_failed=toy.retry_failed)
            outcomes.append(engine.run_units(job_of(toy, run, phase, build), todo))
            if phase == "matches":
                between()
        assemble(run, toy)
    return outcomes


@contextmanager
def packing_of(toy: Toy) -> Iterator[None]:
    """Small packs, so that a few units are many; or a death in the middle of it."""
    before = packing.PACK_UNITS, packing.MAX_LOOSE
    packing.PACK_UNITS, packing.MAX_LOOSE = toy.pack or before
    if toy.die_packing == "before":
        packs.SUMMARY = Death()  # type: ignore[assignment]
    if toy.die_packing == "after":
        packing.beside = Death()  # type: ignore[assignment]
    try:
        yield
    finally:
        packing.PACK_UNITS, packing.MAX_LOOSE = before


class Death:
    """Kills the process that looks at it."""

    def __getattribute__(self, name: str) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, *args: object) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def assemble(run: RunFolder, toy: Toy) -> None:
    def select(pairs: Iterator[Pair]) -> Iterator[Pair | Rejection]:
        for pair in pairs:
            low = pair.judge_score < toy.min_score
            yield rejection("select", "low_score", pair.pair_id, pair, value=pair.judge_score) if low else pair

    names = ("pairs", "matches", "rejected")
    if not run.todo("assemble", [single_unit()]) and all(run.is_published(name, "assemble") for name in names):
        return
    with run.unit("assemble", single_unit()) as unit:
        pairs = unit.through("select", unit.read_all(Pair, phase="pairs"), select)
        run.publish("pairs", Pair, tables_of(pairs, Pair), phase="assemble", rows_per_part=40)
        unit.commit()
    run.publish("matches", Match, run.tables("matches", Match), phase="assemble")
    run.publish("rejected", Rejection, run.rejected_tables("matches", "pairs", "assemble"), phase="assemble")


def check(out: str | Path) -> list[Finding]:
    return verify(RunFolder.open(out), links=LINKS, published=PUBLISHED, documents=accepted)


def content(out: str | Path) -> dict[str, bytes]:
    """Everything in a run that has to be the same however it came about."""
    root = Path(out)
    folders = [root / name for name in ("pairs", "matches", "rejected", "units")]
    return {str(p.relative_to(root)): p.read_bytes() for f in folders for p in sorted(f.rglob("*")) if p.is_file()}


def expected(toy: Toy, folder: Path) -> dict[str, bytes]:
    """What an undisturbed run in one process of this machine gives."""
    undisturbed = replace(toy, engine="local", out=str(folder / "undisturbed"), workers=0, open_units=1, seconds=0.0)
    run_toy(undisturbed)
    return content(undisturbed.out)


def command_of(toy: Toy) -> list[str]:
    """Command line of a driver; its functions are those of this module, which tasks of Slurm can import."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import toy_run; toy_run.main()"
    return [sys.executable, "-c", start, as_argument(toy)]


def as_argument(toy: Toy) -> str:
    """The settings as the argument of this script."""
    return json.dumps(asdict(toy))


def from_argument(text: str) -> Toy:
    """Inverse of `as_argument`."""
    settings = json.loads(text)
    pack = settings["pack"] and tuple(settings["pack"])
    return replace(Toy(inputs=(), out=""), **{**settings, "inputs": tuple(settings["inputs"]), "pack": pack})


def main() -> None:
    """Be a driver: the settings are the argument."""
    try:
        run_toy(from_argument(sys.argv[1]))
    except FineInstructionsError as trouble:
        sys.exit(f"{type(trouble).__name__}: {trouble}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
