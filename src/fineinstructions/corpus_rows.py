"""What an export reads of a run: its documents and pairs as tables of training rows, and how they are counted.

In: a finished run. Out: rows in the order of the run, and work functions that count their tokens, unit by unit, on any
engine. The decision a reader would question: documents are read from the input again, as every phase of the run does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fineinstructions.backends.tokenizer import open_tokenizer
from fineinstructions.config import from_mapping
from fineinstructions.corpus.choose import DocumentFacts
from fineinstructions.corpus.export import ExportConfig
from fineinstructions.corpus.rephrase import STAGE, PromptedRephraser, Rephraser, rephrase
from fineinstructions.corpus.sift import DECONTAMINATE, PairFacts, PairText, measure, without_benchmarks
from fineinstructions.corpus.write import ROW_SCHEMA, TrainingRow
from fineinstructions.decontamination import Decontaminator
from fineinstructions.documents import documents_of
from fineinstructions.errors import ConfigError
from fineinstructions.records import Document, Rejection
from fineinstructions.runs import RunFolder, Unit, UnitSpec, describe_parquet, plan_units
from fineinstructions.runs.tables import read_groups
from fineinstructions.setup import Setup, open_setup

if TYPE_CHECKING:
    from fineinstructions.backends.llm import ChatClient

DOCUMENT_PHASE = "candidates"
"""Phase of a run whose units are ranges of its documents."""
REPHRASE = "rephrase_"
"""Beginning of the names of phases that rephrase documents; the style follows."""
BATCH_DOCUMENTS = 256
UNIT_BYTES = 64 << 20
UNTOKENIZED = ROW_SCHEMA.remove(ROW_SCHEMA.get_field_index("num_tokens"))
_OF_A_PAIR = ["pair_id", *(name for name in UNTOKENIZED.names if name != "id")]


@dataclass(frozen=True)
class Exported:
    """What every worker of an export is given."""

    run_dir: Path
    config: ExportConfig


def open_exported(work_dir: Path) -> Exported:
    """What the folder of an export that is under way tells, for workers that can be sent no objects."""
    plain = dict(RunFolder.open(work_dir).config)
    run_dir = Path(plain.pop("run"))
    return Exported(run_dir, from_mapping(plain, ExportConfig, where=str(work_dir)))


class Counters:
    """What counts rows, knows benchmarks and rephrases, in one worker; each built when it is first asked for."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported
        self.tokenizer = open_tokenizer(exported.config.tokenizer)

    @cached_property
    def setup(self) -> Setup:
        """What tells how the documents of the run are read."""
        return open_setup(self._exported.run_dir)

    @cached_property
    def benchmarks(self) -> Decontaminator | None:
        """The benchmarks that pairs and documents are compared with."""
        named = self._exported.config.sift.benchmarks
        return Decontaminator.from_files(named, section="sift.benchmarks") if named else None

    @cached_property
    def client(self) -> "ChatClient":
        """The language model, with the response cache of the run: another export of it asks nothing twice."""
        from fineinstructions.backends.cache import ResponseCache
        from fineinstructions.backends.llm import ChatClient

        return ChatClient(self._exported.config.llm, ResponseCache(self._exported.run_dir / "cache"))

    def rephraser(self, style: str) -> Rephraser:
        """The model that rephrases in one way."""
        return PromptedRephraser(self.client, self._exported.config.rephrase, style)

    def look_again(self) -> None:
        """Find the replies that other processes have stored since."""
        if "client" in vars(self):
            self.client.look_again()

    def close(self) -> None:
        """Close the connections to model servers, if any were made."""
        if "client" in vars(self):
            self.client.close()


def build_counters(exported: Exported) -> Counters:
    """The counters of one worker."""
    counters = Counters(exported)
    if exported.config.styles:
        counters.client  # noqa: B018 -- built before there are threads: two clients would be two request windows
    return counters


def count_documents(unit: Unit, counters: Counters, exported: Exported) -> None:
    """count_documents: documents -> their tokens, and a benchmark that they share wording with."""
    del exported
    documents = accepted(unit.spec, counters.setup)

    def facts() -> Iterator[DocumentFacts]:
        while batch := list(islice(documents, BATCH_DOCUMENTS)):
            counts = counters.tokenizer.row_tokens([document.text for document in batch])
            for document, number in zip(batch, counts.tolist(), strict=True):
                found = counters.benchmarks.find(document.text) if counters.benchmarks is not None else None
                overlap = (found.share, found.kind, found.item) if found is not None else ()
                yield DocumentFacts(document.document_id, number, *overlap)

    unit.count("rows", unit.write(facts(), DocumentFacts))


def count_pairs(unit: Unit, counters: Counters, exported: Exported) -> None:
    """count_pairs: pairs -> their tokens, and what stands against them."""
    facts = measure(unit.rows(PairText), counters.tokenizer, counters.benchmarks, exported.config.sift)
    unit.count("rows", unit.write(facts, PairFacts))


def rephrase_documents(unit: Unit, counters: Counters, exported: Exported) -> None:
    """rephrase_STYLE: documents -> rephrased rows with their tokens."""
    style = unit.phase.removeprefix(REPHRASE)
    rephraser, min_chars = counters.rephraser(style), exported.config.rephrase.min_chars
    documents = accepted(unit.spec, counters.setup)
    if counters.benchmarks is not None:
        documents = unit.through(DECONTAMINATE, documents, lambda d: without_benchmarks(d, counters.benchmarks))
    rows = unit.through(STAGE, documents, lambda d: rephrase(d, rephraser, style, counters.tokenizer, min_chars))
    unit.count("rows", unit.write(rows, TrainingRow))


def accepted(spec: UnitSpec, setup: Setup) -> Iterator[Document]:
    """Documents of a unit that the run took."""
    return (item for item in documents_of(spec, setup) if not isinstance(item, Rejection))


class RunRows:
    """Rows of a finished run, in its order.

    Args:
        run_dir: The run folder.

    Raises:
        ConfigError: If there is no run in it, or the run is not finished.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run = RunFolder.open(run_dir)
        published = self.run.published("pairs")
        if published is None or not self.run.is_published("pairs", "assemble"):
            raise ConfigError(f"{run_dir}: its pairs are not complete; finish it with 'fineinstructions run' first")
        self.pairs = published
        self.documents = self.run.content(DOCUMENT_PHASE)
        """Digest of the documents of the run, as its units know them."""
        self.pair_files = [run_dir / "pairs" / entry.name for entry in published.files]

    @cached_property
    def setup(self) -> Setup:
        """The recipe of the run and where it lies."""
        return open_setup(self.run.root)

    def document_units(self) -> Sequence[UnitSpec]:
        """Ranges of the documents."""
        return self.run.planned(DOCUMENT_PHASE) or []

    def pair_units(self, unit_rows: int) -> Sequence[UnitSpec]:
        """Ranges of the pairs."""
        return plan_units([describe_parquet(path) for path in self.pair_files], UNIT_BYTES, unit_rows)

    def document_tables(self) -> Iterator[pa.Table]:
        """All documents as training rows, without their tokens."""
        for spec in self.document_units():
            documents = accepted(spec, self.setup)
            while batch := list(islice(documents, BATCH_DOCUMENTS)):
                yield pa.Table.from_pylist([_document_row(document) for document in batch], schema=UNTOKENIZED)

    def pair_tables(self) -> Iterator[pa.Table]:
        """All pairs as training rows, without their tokens."""
        for path in self.pair_files:
            for table in read_groups(path, _OF_A_PAIR):
                yield table.select(_OF_A_PAIR).rename_columns(UNTOKENIZED.names).cast(UNTOKENIZED)

    def instructions(self) -> Iterator[str]:
        """Instructions of all pairs."""
        for path in self.pair_files:
            for table in read_groups(path, ["instruction"]):
                yield from table.column("instruction").to_pylist()


def _document_row(document: Document) -> dict[str, str | None]:
    return {
        "id": document.document_id,
        "document_id": document.document_id,
        "text": document.text,
        "instruction": None,
        "answer": None,
        "source": document.source,
        "licence": document.licence,
        "template_licence": "",
        "models": "",
    }
