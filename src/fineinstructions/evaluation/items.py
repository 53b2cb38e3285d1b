"""What all benchmarks share: items, questions to the judge, and what is known of each item in the end.

In: the files of a benchmark. Out: `EvalItem`s, each with what the model under test is asked; `Question`s for the judge
about an answer; `ItemScore`s. A benchmark is an object with these three steps and nothing else: who asks, keeps and
resumes is the hallway.

The decision to question: an unparsed judgement is a fact of its own, and a score is given twice where that matters.
`ItemScore.score` counts it as nothing, so a judge that fails never makes a model look better; `ItemScore.chance` counts
it as a guess, which is what the original of MixEval does in secret.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.prompt import Message
from fineinstructions.errors import ConfigError
from fineinstructions.formats import read_file_rows
from fineinstructions.inputs import InputFile, list_inputs, open_bytes
from fineinstructions.parquet import open_parquet, read_parquet_rows

MAX_ITEM_BYTES = 4 << 20
"""Longest text of an item."""


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One thing that the model under test is asked."""

    item_id: str
    """Its name within the benchmark."""
    part: str
    """What its score is reported under: a kind of problem, a task, a data set."""
    group: str
    """Items of one group are drawn together by the bootstrap: the turns of a dialogue."""
    messages: tuple[Message, ...]
    record: Mapping[str, Any]
    """The row of the benchmark's file, for the judge and for what is written in the original's format."""


Reading = Mapping[str, Any]
"""What a judge's reply says: ``value``, a number, and what else is worth keeping."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that the judge is asked about an answer."""

    name: str
    """Which of the item's questions: empty for the only one."""
    messages: tuple[Message, ...]
    read: Callable[[ChatReply], Reading]
    """From the reply to its meaning; raises `ValueError` where it has none."""
    logprobs: bool = False
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model under test said."""

    text: str
    reason: str = ""
    """Why there is no answer, such as ``too_long``; empty where there is one."""
    is_cut: bool = False
    """Whether the answer ends because it was as long as allowed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge said to one question."""

    reading: Reading | None
    """None where the reply had no meaning."""
    raw: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What an item is worth."""

    item_id: str
    part: str
    group: str
    score: float
    """With unparsed judgements and missing answers counted as nothing."""
    chance: float
    """With unparsed judgements of multiple-choice questions counted as a guess; else the same."""
    is_parsed: bool
    """Whether every judgement could be read."""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What the benchmark keeps beside it."""


class Benchmark(Protocol):
    """A benchmark with its items."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def items(self) -> Sequence[EvalItem]:
        """All items, in the order of the file."""
        ...

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What decides the judgements apart from models: settings and digests of prompts."""
        ...

    def questions(self, item: EvalItem, answer: Answer) -> Iterable[Question]:
        """What the judge is asked about an answer; nothing where there is none."""
        ...

    def score(self, item: EvalItem, answer: Answer, judgements: Mapping[str, Judgement]) -> ItemScore:
        """What an answer is worth, by its judgements."""
        ...

    def figures(self, scores: Sequence[ItemScore]) -> dict[str, float]:
        """The benchmark's figures, the first being the one that it is known by; NaN for one without meaning."""
        ...


def read_rows(path: str, section: str) -> list[tuple[str, dict[str, Any]]]:
    """All rows of a benchmark's file, each with where it stands.

    Args:
        path: File, folder, glob or URL: JSON (an array, or an object of objects whose keys become ``id``), JSON lines,
            CSV or Parquet, also compressed.
        section: Key of the settings that names it, for messages.

    Raises:
        ConfigError: If a file or a row of it cannot be read.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for file in list_inputs(path, section):
        for row in _file_rows(file):
            where = f"{file.name}, row {row.number}"
            if row.problem:
                raise ConfigError(f"{where}: {row.problem} {row.detail}; fetch the benchmark's file again")
            found.append((where, row.values))
    if not found:
        raise ConfigError(f"{path}: holds no rows; name the benchmark's file in {section}")
    return found


def _file_rows(file: InputFile) -> Iterable[Any]:
    if file.format != "parquet":
        return read_file_rows(file, "", "file", MAX_ITEM_BYTES)
    with open_bytes(file) as stream, open_parquet(stream, file.name) as opened:
        rows = range(opened.metadata.num_rows)
        return list(read_parquet_rows(opened, file.name, rows, "", MAX_ITEM_BYTES, nested=True))


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text that a row must have.

    Raises:
        ConfigError: If it has none.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key!r} is no text; is it the benchmark's own file?")
    return value


def take(items: Sequence[EvalItem], limit: int | None) -> list[EvalItem]:
    """A part of the items, evenly from every part of the benchmark, whole groups, in their order.

    Args:
        items: All items.
        limit: How many groups of every part; None for all.
    """
    if limit is None:
        return list(items)
    kept: dict[str, dict[str, None]] = {}
    for item in items:
        groups = kept.setdefault(item.part, {})
        if len(groups) < limit:
            groups[item.group] = None
    return [item for item in items if item.group in kept[item.part]]
