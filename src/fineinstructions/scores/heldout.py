"""What a pre-trained model is scored on: held-out questions with answers, and held-out texts.

In: files of the user. Out: items, chosen by seeded hashes of their ids, so that a smaller number of items is a part of
a larger one. The decision to question: nothing is read beside question and answer. A passage in front of the question
would measure copying, and what the arms of an experiment are compared in is what they have learned.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.formats import Row
from fineinstructions.readers import SourceConfig, read_rows
from fineinstructions.seeded_order import row_key

MAX_CHARS = 10_000_000
NAME = r"^[a-z0-9][a-z0-9_-]{0,40}$"


class HeldOutConfig(Config):
    """Rows of files that a model was not trained on."""

    name: str = Field(pattern=NAME)
    """What tables call it."""
    path: str | list[str]
    """Files, globs, directories or URLs."""
    id_column: str | None = None
    """Column with the id; ``None`` takes ``id``, or the row's number where there is none."""
    where: dict[str, str | int | bool] = Field(default_factory=dict)
    """Only rows with these values, by column; for example ``{split: val}``."""
    max_items: int = Field(default=1000, ge=1)
    """Most rows, chosen by the hash of their ids. Ours."""


class QuestionsConfig(HeldOutConfig):
    """Questions with answers that people have written."""

    question_column: str = "question"
    """Column with the question."""
    answer_column: str = "answer"
    """Column with the answer; of a list, the first one counts."""
    max_answer_chars: int = Field(default=1000, ge=1)
    """Most characters of an answer that are scored; the rest is not seen. Ours: windows of small models are short."""


class TextsConfig(HeldOutConfig):
    """Texts as they are."""

    text_column: str = "text"
    """Column with the text."""
    max_chars: int = Field(default=4000, ge=1)
    """Most characters of a text that are scored. Ours."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a model is scored on."""

    item_id: str
    text: str
    """The answer, or the whole text."""
    question: str = ""


class _Source(SourceConfig):
    section: ClassVar[str] = "scores"
    noun: ClassVar[str] = "item"


def questions(config: QuestionsConfig, seed: int) -> list[Item]:
    """Questions and answers of a set, in an order that depends on their ids.

    Raises:
        ConfigError: If a file cannot be read, lacks a column, or no row is left.
    """
    found = []
    for row, values in _rows(config, config.question_column):
        if config.answer_column not in values:
            raise ConfigError(
                f"{row}: has no column {config.answer_column!r}; name the answers' in answer_column of {config.name}"
            )
        answer = values[config.answer_column]
        answer = answer[0] if isinstance(answer, list) and answer else answer
        question = values.get(config.question_column)
        if isinstance(answer, str) and isinstance(question, str) and answer.strip() and question.strip():
            text = answer.strip()[: config.max_answer_chars]
            found.append(Item(_item_id(config, row, values), text, question.strip()))
    return _chosen(found, config, seed)


def texts(config: TextsConfig, seed: int) -> list[Item]:
    """Texts of a set, in an order that depends on their ids.

    Raises:
        ConfigError: If a file cannot be read, lacks a column, or no row is left.
    """
    found = []
    for row, values in _rows(config, config.text_column):
        text = values.get(config.text_column)
        if isinstance(text, str) and text.strip():
            found.append(Item(_item_id(config, row, values), text.strip()[: config.max_chars]))
    return _chosen(found, config, seed)


def _rows(config: HeldOutConfig, column: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Good rows with the wanted values; the first of each pair names file and row."""
    source = _Source(path=config.path, text_column=column, max_document_bytes=MAX_CHARS)
    for row, name, _ in read_rows(source, nested=True):
        if row.problem:
            raise ConfigError(f"{_place(name, row)}: cannot be used ({row.problem}); mend or remove this row")
        missing = [wanted for wanted in config.where if wanted not in row.values]
        if missing:
            raise ConfigError(f"{_place(name, row)}: has no column {missing[0]!r}; see where of {config.name}")
        if all(row.values[wanted] == value for wanted, value in config.where.items()):
            yield _place(name, row), row.values


def _place(name: str, row: Row) -> str:
    return f"{name}: row {row.number}"


def _item_id(config: HeldOutConfig, row: str, values: dict[str, Any]) -> str:
    column = config.id_column or "id"
    if config.id_column is not None and column not in values:
        raise ConfigError(f"{row}: has no column {column!r}; name another id_column of {config.name}")
    return str(values[column]) if values.get(column) is not None else row


def _chosen(items: list[Item], config: HeldOutConfig, seed: int) -> list[Item]:
    if not items:
        raise ConfigError(f"{config.path}: no row left to score; check path, columns and where of {config.name}")
    by_id = {item.item_id: item for item in items}
    if len(by_id) < len(items):
        raise ConfigError(f"{config.path}: ids are not unique; name another id_column of {config.name}")
    return sorted(items, key=lambda item: row_key(seed, config.name, item.item_id))[: config.max_items]
