"""Right and wrong documents and answers for labelled questions, asked and measured.

In: examples, wrong texts and a model that ranks. Out: rows that refusal and judge learn from, and the very same cases
for whoever measures them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions import statistics
from fineinstructions.embedded.answers.examples import Example
from fineinstructions.embedded.answers.model import PAGE, STORY, AnswerModel, Asked, best_run
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import sigmoid
from fineinstructions.embedded.answers.wrong import WrongTexts

# Shape legend: S sentences, N rows, F features.

Spans = tuple[tuple[int, int], ...]

ACCEPTED = 0.9
"""Share of the right ones that a threshold lets through."""
HARD_TEXTS = 3
"""So many of the hardest texts of other stories or pages are learned from; one is measured."""
SHORT_SENTENCES = (2, 8)
"""Fewest and most sentences of a page that stand for a short one: labelled pages are long, those of users are not."""


def thinned(examples: Sequence[Example], number: int) -> list[Example]:
    """Every so many-th example, so that at most `number` are left."""
    step = -(-len(examples) // number) if examples else 1
    return list(examples[::step])


class Shelf:
    """Sentences of every text that was asked for."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Sentences] = {}

    def of(self, text: str, title: str) -> Sentences:
        """The text's sentences."""
        if (text, title) not in self._kept:
            self._kept[text, title] = Sentences(text, title)
        return self._kept[text, title]


def right_sentences(sentences: Sentences, spans: Spans) -> NDArray[np.bool_]:
    """Which sentences hold some of the spans, shape (S,)."""
    return np.array([any(a < end and start < b for a, b in spans) for start, end in sentences.spans], bool)


class Table:
    """Rows of features with what they are."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []
        self.kinds: list[str] = []
        """``right``, or how a row is wrong."""
        self.folds: list[int] = []

    def add(self, row: NDArray[np.float32], kind: str, fold: int) -> None:
        """Take one row."""
        self.rows.append(row)
        self.kinds.append(kind)
        self.folds.append(fold)

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Rows and whether each is right."""
        return np.stack(self.rows), np.array([kind.startswith("right") for kind in self.kinds])

    def threshold(self, scores_n: NDArray[np.float32]) -> float:
        """Chance that `ACCEPTED` of the right rows reach."""
        _, right = self.arrays()
        return round(float(np.quantile(sigmoid(scores_n[right]), 1.0 - ACCEPTED)), 4)

    def told(self, scores_n: NDArray[np.float32]) -> Iterator[str]:
        """AUC by kind of wrong row, against the right rows of the same kind of example."""
        kinds = np.array(self.kinds)
        for kind in sorted({k for k in self.kinds if not k.startswith("right")}):
            mine, wrong = kinds == f"right {kind.split()[0]}", kinds == kind
            if mine.any():
                yield f"{kind} AUC {auc(scores_n[mine], scores_n[wrong]):.3f} (n={int(wrong.sum())})"


class Cases:
    """Right and wrong documents and answers, as rows, by the reader that the text is for.

    Args:
        models: The model that scores each fold.
        shelf: Sentences.
    """

    def __init__(self, models: Sequence[AnswerModel], shelf: Shelf) -> None:
        self._models = models
        self._shelf = shelf
        self.documents = {name: Table() for name in (STORY, PAGE)}
        self.answers = {name: Table() for name in (STORY, PAGE)}

    def add(self, example: Example, wrong: WrongTexts) -> None:
        """Rows of one example, the right ones and the wrong ones."""
        model = self._models[example.fold]
        asking = Asking(model)
        for kind, asked in asked_texts(example, wrong, asking, self._shelf, HARD_TEXTS):
            table = self.documents[model.sort(asked.sentences)]
            table.add(model.document_row(asked), _named(example, kind), example.fold)
        for kind, asked in asked_short_texts(example, wrong, asking, self._shelf):
            table = self.documents[model.sort(asked.sentences)]
            table.add(model.document_row(asked), "right short" if kind == "right" else f"short {kind}", example.fold)
        for kind, asked, spans in asked_answers(example, wrong, asking, self._shelf):
            table = self.answers[model.sort(asked.sentences)]
            table.add(model.answer_row(asked, spans), _named(example, kind), example.fold)


def _named(example: Example, kind: str) -> str:
    return f"right {example.kind}" if kind == "right" else f"{example.kind} {kind}"


class Asking:
    """A model that remembers what it was asked; for the questions of one example.

    Args:
        model: The model.
    """

    def __init__(self, model: AnswerModel) -> None:
        self._model = model
        self._known: dict[tuple[str, int], Asked] = {}

    def ask(self, question: str, sentences: Sentences) -> Asked:
        """Put a question to a document, once."""
        key = (question, id(sentences))
        if key not in self._known:
            self._known[key] = self._model.ask(question, sentences)
        return self._known[key]


def asked_texts(
    example: Example, wrong: WrongTexts, model: Asking, shelf: Shelf, hard_texts: int = 1
) -> Iterator[tuple[str, Asked]]:
    """The question put to the right text and to wrong ones, by kind."""
    yield "right", model.ask(example.question, shelf.of(example.text, example.title))
    found = [("random", wrong.random_other(example))]
    found += [("hard", text) for text in wrong.hard_others(example)[:hard_texts]]
    if not example.asks:
        found.append(("section", wrong.same_group(example)))
    elif question := wrong.unanswered(example):
        yield "lacking", model.ask(question, shelf.of(example.text, example.title))
    for kind, text in found:
        if text and len(sentences := shelf.of(text.text, text.title)):
            yield kind, model.ask(example.question, sentences)


def asked_short_texts(example: Example, wrong: WrongTexts, model: Asking, shelf: Shelf) -> Iterator[tuple[str, Asked]]:
    """The question put to a few sentences of its page, of which one is the first of the answer, and to others, by kind.

    Wrong are sentences that hold nothing of the answer, and the right sentences for a question that they do not answer.
    """
    sentences = shelf.of(example.text, example.title)
    generator = wrong.luck(example, "short")
    length = int(generator.integers(SHORT_SENTENCES[0], SHORT_SENTENCES[1] + 1))
    right = right_sentences(sentences, example.spans)
    if not example.asks or len(sentences) <= length or not right.any():
        return

    def drawn(starts: Sequence[int]) -> Sentences:
        start = starts[int(generator.integers(len(starts)))]
        begin, end = sentences.spans[start][0], sentences.spans[start + length - 1][1]
        return shelf.of(example.text[begin:end], example.title)

    starts = range(len(sentences) - length + 1)
    first = int(right.argmax())
    answering = drawn([start for start in starts if start <= first < start + length])
    yield "right", model.ask(example.question, answering)
    if question := wrong.unanswered(example):
        yield "lacking", model.ask(question, answering)
    if others := [start for start in starts if not right[start : start + length].any()]:
        yield "elsewhere", model.ask(example.question, drawn(others))


def asked_answers(
    example: Example, wrong: WrongTexts, model: Asking, shelf: Shelf
) -> Iterator[tuple[str, Asked, Spans]]:
    """The right answer of an example and wrong ones, by kind."""
    sentences = shelf.of(example.text, example.title)
    right = np.flatnonzero(right_sentences(sentences, example.spans))
    if not len(right):
        return
    asked = model.ask(example.question, sentences)
    yield "right", asked, tuple(sentences.spans[n] for n in right)
    generator = wrong.luck(example, "span")
    length = len(right)
    starts = [n for n in range(len(sentences) - length + 1) if n + length <= right[0] or n > right[-1]]
    if starts:
        start = starts[int(generator.integers(len(starts)))]
        yield "span", asked, tuple(sentences.spans[start : start + length])
    others = list(wrong.other_answers(example))
    if others:
        yield "section", asked, others[int(generator.integers(len(others)))]
    for kind, text in (("document", wrong.random_other(example)), ("hard", wrong.hard_other(example))):
        if text and len(other := shelf.of(text.text, text.title)):
            start = int(generator.integers(max(1, len(other) - length + 1)))
            put = model.ask(example.question, other)
            yield kind, put, tuple(other.spans[start : start + length])
    if question := wrong.unanswered(example):
        put = model.ask(question, sentences)
        start, end = best_run(put.chances, 0.3)
        yield "unanswered", put, tuple(sentences.spans[start:end])
    elif text := wrong.same_group(example):
        other = shelf.of(text.text, text.title)
        put = model.ask(example.question, other)
        start, end = best_run(put.chances, 0.3)
        yield "unanswered", put, tuple(other.spans[start:end])


def auc(right: NDArray[np.float32], wrong: NDArray[np.float32]) -> float:
    """Chance that a right row scores above a wrong one, ties counting half.

    Example:
        >>> auc(np.array([2.0, 3.0], np.float32), np.array([1.0, 2.0], np.float32))
        0.875
    """
    both = np.concatenate([right, wrong]).astype(np.float64)
    return statistics.auc(both, np.arange(len(both)) < len(right))
